"""How a simulated value moves: plausibly for its unit, its range and its name, and always the same way.

A motion is a function of the seconds since the start alone, so that the same seed shows the same values at
the same moments, whoever asks how often.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction
from typing import Final, TypeAlias

from drivers.modbus.encode import raw_span
from drivers.modbus.field import DataType, Family, Field
from drivers.modbus.scale import Scale, ScaleTable
from gateway.core.point import Point, Value

Motion: TypeAlias = Callable[[float], Value]
"""Seconds since the start → the engineering value."""

_COUNTED_UNITS: Final = frozenset({
    "wh", "kwh", "mwh", "gwh", "varh", "kvarh", "vah", "kvah", "kj", "mj", "gj",
    "h", "m3", "m³", "l", "gal", "kg", "t",
})  # fmt: skip
_COUNTED_NAME: Final = re.compile(
    r"(^|[_\-./ ])(total|energy|hours|runtime|counter|count|cycles|starts|volume|uptime|pulses)",
    re.IGNORECASE,
)
# Where values of a unit usually are: lower-case unit → low, high.
_USUAL: Final[dict[str, tuple[float, float]]] = {
    "v": (225.0, 235.0), "kv": (10.2, 10.8), "a": (2.0, 16.0), "ma": (4.0, 20.0), "hz": (49.95, 50.05),
    "w": (400.0, 3600.0), "kw": (1.0, 25.0), "mw": (0.5, 4.0), "var": (50.0, 600.0), "kvar": (0.2, 4.0),
    "va": (420.0, 3700.0), "kva": (1.1, 25.5), "°c": (18.0, 65.0), "c": (18.0, 65.0), "degc": (18.0, 65.0),
    "k": (290.0, 330.0), "°f": (64.0, 150.0), "bar": (0.8, 6.0),
    "mbar": (980.0, 1030.0), "pa": (100.0, 900.0),
    "kpa": (95.0, 600.0), "hpa": (980.0, 1030.0), "%": (20.0, 80.0), "%rh": (35.0, 65.0),
    "rpm": (600.0, 1800.0),
    "1/min": (600.0, 1800.0), "m": (0.4, 1.8), "mm": (2.0, 180.0), "m3/h": (5.0, 40.0), "m³/h": (5.0, 40.0),
    "l/s": (1.0, 12.0), "l/min": (5.0, 90.0), "m/s": (0.5, 12.0), "ppm": (400.0, 900.0), "lx": (80.0, 900.0),
    "w/m2": (50.0, 900.0), "w/m²": (50.0, 900.0), "deg": (10.0, 350.0), "°": (10.0, 350.0), "ph": (6.8, 7.4),
    "s": (1.0, 60.0), "ms": (1.0, 60.0), "min": (1.0, 60.0),
}  # fmt: skip
_PLAIN: Final = (10.0, 90.0)
_COUNTS_PER_S: Final = 0.25
_DIGITS: Final = 6  # significant ones: nobody measures more


def motion_of(point: Point, field: Field, *, seed: int, start_ns: int, is_watched: bool = False) -> Motion:
    """How the value of a point moves. `start_ns`: wall clock at second 0, for clocks in devices.

    `is_watched`: it is the counter by which a gateway sees that the device works: it moves all the time.
    What can be written stands still until somebody writes it.
    """
    dice = random.Random(f"{seed}/{point.name}")  # noqa: S311 - guards nothing
    family = field.type.family
    if family is Family.STRING:
        return _still(_text(point, field))
    if family is Family.TIME:
        return _clock(field.type, start_ns)
    if family is Family.BOOL:
        return _still(value=False) if point.writable else _switching(dice)
    if family is Family.BITS or (point.flags and not point.labels):
        return _still(value=0) if point.writable else _walking(field, dice)
    if point.labels:
        codes = [code for code, _text in point.labels]
        return _still(codes[0]) if point.writable else _stepping(codes, dice)
    low, high = span_of(field)
    is_whole = not field.type.is_float and (field.scale is None or field.scale.is_whole)
    if is_watched:
        return _counting(0, low=low, high=high, per_s=10.0, is_whole=True)
    if not point.writable and is_counted(point):
        return _counting(dice.uniform(100, 9000), low=low, high=high, per_s=_COUNTS_PER_S, is_whole=is_whole)
    low, high = _usual(point, field, low, high)
    if point.writable:
        return _still(_rounded((low + high) / 2, is_whole=is_whole))
    return _waving(low, high, dice, is_whole=is_whole)


def is_counted(point: Point) -> bool:
    """Whether a value only grows, by its unit and its name."""
    return point.unit.lower() in _COUNTED_UNITS or bool(_COUNTED_NAME.search(f"_{point.tag}"))


def span_of(field: Field) -> tuple[float, float]:
    """The lowest and the highest engineering value that the registers can hold; floats have no such end."""
    if field.type.is_float:
        limit = 60_000.0 if field.type is DataType.FLOAT16 else 1e9
        return -limit, limit
    ends = [float(_engineering(field, raw)) for raw in raw_span(field)]
    return min(ends), max(ends)


def _engineering(field: Field, raw: int) -> Fraction | float:
    match field.scale:
        case Scale(numerator=numerator, shift=shift, denominator=denominator):
            return Fraction(raw * numerator + shift, denominator)
        case ScaleTable() as table:
            return table.value(raw)
    return raw


def _usual(point: Point, field: Field, low: float, high: float) -> tuple[float, float]:
    """Where the value moves: inside its range, else where such values are, and inside what fits."""
    wanted = _USUAL.get(point.unit.lower(), _PLAIN)
    if point.low is not None and point.high is not None:
        is_known = point.unit.lower() in _USUAL and point.low <= wanted[0] and wanted[1] <= point.high
        if not is_known:
            quarter = (point.high - point.low) / 4
            wanted = (point.low + quarter, point.high - quarter)
    else:
        if point.low is not None:
            wanted = (max(wanted[0], point.low), max(wanted[1], point.low + 1))
        if point.high is not None:
            wanted = (min(wanted[0], point.high - 1), min(wanted[1], point.high))
    if wanted[0] >= low and wanted[1] <= high:
        return wanted
    if field.type.is_float:
        return max(low, wanted[0]), min(high, wanted[1])
    third = (high - low) / 3
    inside = (max(wanted[0], low), min(wanted[1], high))
    return inside if inside[0] < inside[1] else (low + third, high - third)


def _rounded(value: float, *, is_whole: bool) -> Value:
    return round(value) if is_whole else float(f"{value:.{_DIGITS}g}")


def _still(value: Value) -> Motion:
    return lambda _second: value


def _waving(low: float, high: float, dice: random.Random, *, is_whole: bool) -> Motion:
    """A sine, a triangle or a saw tooth, with a smaller and quicker wave on it."""
    middle, swing = (low + high) / 2, (high - low) / 2
    period_s, ripple_s = dice.uniform(40, 180), dice.uniform(3, 9)
    phase, ripple_phase = dice.random(), dice.random()
    shape = dice.choice((_sine, _sine, _triangle, _saw))

    def wave(second: float) -> Value:
        slow = shape(second / period_s + phase)
        quick = _sine(second / ripple_s + ripple_phase)
        return _rounded(middle + swing * (0.92 * slow + 0.08 * quick), is_whole=is_whole)

    return wave


def _sine(turns: float) -> float:
    return math.sin(2 * math.pi * turns)


def _triangle(turns: float) -> float:
    return 4 * abs(turns % 1 - 0.5) - 1


def _saw(turns: float) -> float:
    """A slow ramp up, a quick one down."""
    part = turns % 1
    return part / 0.45 - 1 if part < 0.9 else (0.95 - part) / 0.05


def _counting(first: float, *, low: float, high: float, per_s: float, is_whole: bool) -> Motion:
    """Grows, and begins again where the registers end."""
    first = max(first, low, 0.0)
    room = high - first + (1 if is_whole else 0)
    if room <= 0:
        first, room = low, max(high - low, 1.0)

    def count(second: float) -> Value:
        value = first + (second * per_s) % room
        return math.floor(value) if is_whole else round(value, 3)

    return count


def _stepping(codes: list[int], dice: random.Random) -> Motion:
    """From one code to the next."""
    stay_s, offset = dice.uniform(4, 12), dice.randrange(len(codes))
    return lambda second: codes[(int(second / stay_s) + offset) % len(codes)]


def _switching(dice: random.Random) -> Motion:
    period_s, duty, phase = dice.uniform(8, 40), dice.uniform(0.3, 0.7), dice.random()
    return lambda second: (second / period_s + phase) % 1 < duty


def _walking(field: Field, dice: random.Random) -> Motion:
    """One bit after the other."""
    top = min(raw_span(field)[1], (1 << 63) - 1).bit_length()
    stay_s, offset = dice.uniform(3, 9), dice.randrange(max(1, top))
    return lambda second: 1 << (int(second / stay_s) + offset) % max(1, top)


def _clock(kind: DataType, start_ns: int) -> Motion:
    def now(second: float) -> Value:
        moment = datetime.fromtimestamp(start_ns // 10**9 + int(second), UTC)
        text = moment.strftime("%Y-%m-%dT%H:%M:%S")
        return f"{text}Z" if kind is DataType.UNIX32 else text

    return now


def _text(point: Point, field: Field) -> str:
    room = field.length if field.charset.codec == "utf-16-be" else field.length * 2
    return f"SIM-{point.tag}".encode("ascii", "replace").decode()[:room]
