"""Units of measurement that are converted into each other, exactly, as an expression of `value`.

Factors are given by what they are made of: an inch is 0.0254 m, a pound 0.45359237 kg, standard gravity
9.80665 m/s², a US gallon 231 cubic inches. Every pair was compared with pint 0.25.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from gateway.translate.faults import nearest

_INCH: Final = Fraction("0.0254")
_FOOT: Final = 12 * _INCH
_POUND: Final = Fraction("0.45359237")
_GRAVITY: Final = Fraction("9.80665")
_GALLON: Final = 231 * _INCH**3
_MINUTE: Final = Fraction(60)
_HOUR: Final = Fraction(3600)
_LITRE: Final = Fraction(1, 1000)

_FACTORS: Final[dict[str, dict[str, Fraction | int]]] = {
    "pressure": {
        "Pa": 1, "hPa": 100, "kPa": 1000, "MPa": 10**6, "mbar": 100, "bar": 10**5, "atm": 101325,
        "psi": _POUND * _GRAVITY / _INCH**2, "kgf/cm²": _GRAVITY * 10**4,
    },
    "length": {
        "m": 1, "mm": Fraction(1, 1000), "cm": Fraction(1, 100), "km": 1000, "in": _INCH, "ft": _FOOT,
        "yd": 3 * _FOOT, "mi": 5280 * _FOOT,
    },
    "volume": {"m³": 1, "L": _LITRE, "ft³": _FOOT**3, "gal": _GALLON},
    "flow": {
        "m³/s": 1, "m³/h": 1 / _HOUR, "m³/min": 1 / _MINUTE, "L/s": _LITRE, "L/min": _LITRE / _MINUTE,
        "L/h": _LITRE / _HOUR, "gal/min": _GALLON / _MINUTE, "ft³/min": _FOOT**3 / _MINUTE,
    },
    "mass": {"kg": 1, "g": Fraction(1, 1000), "t": 1000, "lb": _POUND, "oz": _POUND / 16},
    "force": {"N": 1, "kN": 1000, "kgf": _GRAVITY, "lbf": _POUND * _GRAVITY},
    "energy": {"J": 1, "kJ": 1000, "MJ": 10**6, "Wh": 3600, "kWh": 3600 * 1000, "MWh": 3600 * 10**6},
    "power": {"W": 1, "kW": 1000, "MW": 10**6},
    "speed": {
        "m/s": 1, "km/h": Fraction(1000, 3600), "ft/s": _FOOT, "mi/h": 5280 * _FOOT / _HOUR,
    },
    "frequency": {"Hz": 1, "kHz": 1000, "rpm": 1 / _MINUTE},
    "time": {"s": 1, "ms": Fraction(1, 1000), "min": _MINUTE, "h": _HOUR, "d": 24 * _HOUR},
    "voltage": {"V": 1, "mV": Fraction(1, 1000), "kV": 1000},
    "current": {"A": 1, "mA": Fraction(1, 1000), "kA": 1000},
}  # fmt: skip
# quantity → unit → (factor, offset) to the quantity's first unit: first = value * factor + offset
QUANTITIES: Final[dict[str, dict[str, tuple[Fraction, Fraction]]]] = {
    "temperature": {
        "K": (Fraction(1), Fraction(0)),
        "°C": (Fraction(1), Fraction("273.15")),
        "°F": (Fraction(5, 9), Fraction("273.15") - 32 * Fraction(5, 9)),
    },
    **{
        quantity: {unit: (Fraction(factor), Fraction(0)) for unit, factor in units.items()}
        for quantity, units in _FACTORS.items()
    },
}


class UnitError(ValueError):
    """`found` and `expected` of two units that cannot be converted; `key` is the one at fault: from or to."""

    def __init__(self, key: str, found: str, expected: str) -> None:
        self.key = key
        self.found = found
        self.expected = expected
        super().__init__(f"{key}: found {found}, expected {expected}")


def conversion(source: str, target: str) -> str:
    """The expression that takes a `value` in one unit to another one. Raises `UnitError`."""
    units = _of("from", source)
    if target not in units:
        _of("to", target)
        raise UnitError("to", f"{target!r} for {source!r}", f"one of {', '.join(units)}")
    (factor, offset), (other, other_offset) = units[source], units[target]
    slope, shift = factor / other, (offset - other_offset) / other
    parts = [f"value * {slope.numerator}" if slope.numerator != 1 else "value"]
    parts += [f"/ {slope.denominator}"] if slope.denominator != 1 else []
    if shift:
        sign = "+" if shift > 0 else "-"
        shift = abs(shift)
        parts.append(f"{sign} {shift.numerator} / {shift.denominator}")
    return " ".join(parts)


def _of(key: str, unit: str) -> dict[str, tuple[Fraction, Fraction]]:
    for units in QUANTITIES.values():
        if unit in units:
            return units
    known = [name for units in QUANTITIES.values() for name in units]
    raise UnitError(key, f"the unit {unit!r}", f"one of {', '.join(known)}{nearest(unit, known)}")
