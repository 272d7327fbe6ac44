"""From raw numbers to engineering values, and back: a line, a table, or a power of ten from the device."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final

import msgspec

SCALE_MAGNITUDE_MAX: Final = 10**30  # keeps scaling of any 64-bit raw value far from overflow
TABLE_POINTS_MAX: Final = 256
POWER_MAX: Final = 10  # SunSpec Information Model Specification, sunssf: -10 to 10


class Scale(msgspec.Struct, frozen=True):
    """Engineering value = (raw * numerator + shift) / denominator, all whole numbers.

    Kept as a fraction, so that 3 * 0.1 is 0.3 and the ends of a two-point scale are met exactly.
    """

    numerator: int
    shift: int
    denominator: int

    @classmethod
    def from_factor(cls, factor: float, offset: float = 0.0) -> Scale:
        """Engineering value = raw * factor + offset. Raises ValueError when not finite, or factor 0."""
        return cls._of(_exact("factor", factor), _exact("offset", offset))

    @classmethod
    def from_points(cls, raw: tuple[float, float], eu: tuple[float, float]) -> Scale:
        """The line through (raw[0], eu[0]) and (raw[1], eu[1]). Raises ValueError where there is none."""
        raw_low, raw_high = (_exact("raw", value) for value in raw)
        eu_low, eu_high = (_exact("eu", value) for value in eu)
        if raw_low == raw_high or eu_low == eu_high:
            raise ValueError(f"scale: found raw {list(raw)}, eu {list(eu)}, expected two different ends")
        factor = (eu_high - eu_low) / (raw_high - raw_low)
        return cls._of(factor, eu_low - raw_low * factor)

    @classmethod
    def _of(cls, factor: Fraction, offset: Fraction) -> Scale:
        if not 1 / Fraction(SCALE_MAGNITUDE_MAX) <= abs(factor) <= SCALE_MAGNITUDE_MAX:
            raise ValueError(f"scale: found factor {float(factor):g}, expected 1e-30 to 1e30 of either sign")
        denominator = math.lcm(factor.denominator, offset.denominator)
        return cls(int(factor * denominator), int(offset * denominator), denominator)

    @property
    def is_whole(self) -> bool:
        """Whether whole raw values stay whole."""
        return self.denominator == 1

    def inverse(self, value: Fraction) -> Fraction:
        """The exact raw value for an engineering value."""
        return (value * self.denominator - self.shift) / self.numerator


class ScaleTable(msgspec.Struct, frozen=True):
    """Straight lines between the points of a table; beyond its ends there is no value.

    Raw values ascend, engineering values only rise or only fall, so that each can be written back.
    """

    raw: tuple[float, ...]
    eu: tuple[float, ...]

    @classmethod
    def from_points(cls, points: Sequence[tuple[float, float]]) -> ScaleTable:
        """Points (raw, engineering value). Raises ValueError where they are no such table."""
        if not 2 <= len(points) <= TABLE_POINTS_MAX:
            raise ValueError(f"scale: found {len(points)} points, expected 2 to {TABLE_POINTS_MAX}")
        raw = tuple(_exact("raw", point[0]) for point in points)
        eu = tuple(_exact("eu", point[1]) for point in points)
        for index in range(1, len(raw)):
            if raw[index] <= raw[index - 1]:
                found = f"{points[index - 1][0]:g} before {points[index][0]:g}"
                raise ValueError(f"scale: found raw {found}, expected ascending raw values")
        rises = [after > before for before, after in pairwise(eu)]
        if len(set(eu)) != len(eu) or len(set(rises)) != 1:
            raise ValueError("scale: found values that rise and fall, or stay, expected one direction")
        return cls(tuple(point[0] for point in points), tuple(float(point[1]) for point in points))

    @property
    def is_whole(self) -> bool:
        """Never: between two points lies anything."""
        return False

    def value(self, raw: float) -> float:
        """The engineering value; the end's where `raw` is beyond it. Its points are met exactly."""
        index = bisect_right(self.raw, raw)
        if not index or index == len(self.raw):
            return self.eu[max(0, index - 1)]
        raw_low, eu_low = self.raw[index - 1], self.eu[index - 1]
        if raw == raw_low:
            return eu_low
        return eu_low + (raw - raw_low) * (self.eu[index] - eu_low) / (self.raw[index] - raw_low)

    def inverse(self, value: Fraction) -> Fraction:
        """The exact raw value. Raises ValueError beyond the ends."""
        low, high = sorted((self.eu[0], self.eu[-1]))
        if not low <= value <= high:
            raise ValueError(f"found {float(value):g}, expected {low:g} to {high:g}, as the table goes")
        for index in range(1, len(self.eu)):
            first, last = Fraction(repr(self.eu[index - 1])), Fraction(repr(self.eu[index]))
            if min(first, last) <= value <= max(first, last):
                raw_low, raw_high = (Fraction(repr(raw)) for raw in self.raw[index - 1 : index + 1])
                return raw_low + (value - first) * (raw_high - raw_low) / (last - first)
        raise ValueError(f"found {float(value)!r}, expected a value of the table")


class ScalePower(msgspec.Struct, frozen=True):
    """Engineering value = raw * 10 ** n, with n in a register of the device: a SunSpec scale factor."""

    register: int  # protocol address, in the table of the value

    @property
    def is_whole(self) -> bool:
        """Not known before it is read."""
        return False


AnyScale = Scale | ScaleTable | ScalePower

_TENS: Final = tuple(10**power for power in range(POWER_MAX + 1))


def by_power(raw: float, power: int) -> float:
    """raw * 10 ** power, correctly rounded for whole raw values; 0.0 where the power is out of its range."""
    if not -POWER_MAX <= power <= POWER_MAX:
        return 0.0
    return raw / _TENS[-power] if power < 0 else float(raw * _TENS[power])


def _exact(what: str, number: float) -> Fraction:
    if isinstance(number, bool) or not is_finite(number):
        raise ValueError(f"scale: found {what} {shown(number)}, expected a finite number")
    exact = Fraction(repr(number))  # the decimal number that was written, not its binary neighbour
    if exact and not 1 / Fraction(SCALE_MAGNITUDE_MAX) <= abs(exact) <= SCALE_MAGNITUDE_MAX:
        raise ValueError(f"scale: found {what} {number:g}, expected 0, or 1e-30 to 1e30 of either sign")
    return exact


def is_finite(number: float) -> bool:
    """Whether it is a number, neither infinite nor an integer beyond any float."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def shown(number: int | float) -> str:  # noqa: PYI041 - spelled out, for only integers can be that long
    """A number for an error message; Python refuses to print an integer of thousands of digits."""
    return (
        repr(number) if isinstance(number, float) or is_finite(number) else "an integer of 309 digits or more"
    )
