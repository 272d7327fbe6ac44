"""What a value in a table is: its type, place, order, scale, and what is wrong in it. Checked when made."""

from __future__ import annotations

import enum
import math
import struct
from fractions import Fraction
from typing import Final, NamedTuple

import msgspec

from gateway.core.point import ValueType

STRING_REGISTERS_MAX: Final = 123  # the most one request can write, so that what is read can be written
SCALE_MAGNITUDE_MAX: Final = 10**30  # keeps scaling of any 64-bit raw value far from overflow


class DataType(enum.Enum):
    """What registers hold."""

    BOOL = "bool"  # a coil, a discrete input or one bit of a register
    INT16 = "int16"
    UINT16 = "uint16"
    INT32 = "int32"
    UINT32 = "uint32"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BCD16 = "bcd16"  # four decimal digits, one in each nibble
    BCD32 = "bcd32"  # eight
    STRING = "string"

    @property
    def is_float(self) -> bool:
        """IEEE 754."""
        return self in {DataType.FLOAT32, DataType.FLOAT64}

    @property
    def is_bcd(self) -> bool:
        """Binary coded decimal."""
        return self in {DataType.BCD16, DataType.BCD32}


class Endian(enum.Enum):
    """Which part comes first: the most (big) or the least (little) significant."""

    BIG = "big"
    LITTLE = "little"


class Order(NamedTuple):
    """Order of the words in a value and of the bytes in a word."""

    word: Endian = Endian.BIG
    byte: Endian = Endian.BIG


ORDERS: Final = {
    "ABCD": Order(Endian.BIG, Endian.BIG),
    "CDAB": Order(Endian.LITTLE, Endian.BIG),
    "BADC": Order(Endian.BIG, Endian.LITTLE),
    "DCBA": Order(Endian.LITTLE, Endian.LITTLE),
}
ABCD: Final = ORDERS["ABCD"]


class Charset(enum.Enum):
    """How the bytes of a string are read."""

    ASCII = "ascii"
    UTF8 = "utf-8"
    LATIN1 = "latin-1"


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


class Shape(NamedTuple):
    code: str  # for `struct`
    registers: int
    low: int = 0
    high: int = 0


SHAPES: Final = {
    DataType.BOOL: Shape("H", 1, 0, 1),
    DataType.INT16: Shape("h", 1, -(1 << 15), (1 << 15) - 1),
    DataType.UINT16: Shape("H", 1, 0, (1 << 16) - 1),
    DataType.INT32: Shape("i", 2, -(1 << 31), (1 << 31) - 1),
    DataType.UINT32: Shape("I", 2, 0, (1 << 32) - 1),
    DataType.INT64: Shape("q", 4, -(1 << 63), (1 << 63) - 1),
    DataType.UINT64: Shape("Q", 4, 0, (1 << 64) - 1),
    DataType.FLOAT32: Shape("f", 2),
    DataType.FLOAT64: Shape("d", 4),
    DataType.BCD16: Shape("H", 1, 0, 9999),
    DataType.BCD32: Shape("I", 2, 0, 99_999_999),
}


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One value in a table. Checked when made: raises ValueError, for people."""

    type: DataType
    start: int  # protocol address of its first register or bit, from 0
    length: int = 1  # registers of a string; other types know theirs
    bit: int | None = None  # of a register, 0 is the least significant; None for a coil or discrete input
    order: Order = ABCD  # a string has no word order: its registers follow each other
    scale: Scale | None = None
    invalid: tuple[float, ...] = ()  # raw values that mean "no value"; integers also as unsigned: 0x8000
    low: float | None = None  # engineering units; outside: uncertain/out-of-range
    high: float | None = None
    charset: Charset = Charset.UTF8

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.bit is not None and (self.type is not DataType.BOOL or not 0 <= self.bit <= 15):
            raise ValueError(f"bit: found {self.bit} with type {self.type.value}, expected bool and 0..15")
        if self.type is DataType.STRING and not 1 <= self.length <= STRING_REGISTERS_MAX:
            raise ValueError(f"length: found {self.length}, expected 1..{STRING_REGISTERS_MAX} registers")
        if self.type is not DataType.STRING and self.length != 1:
            raise ValueError(f"length: found {self.length} with {self.type.value}, expected on strings only")
        plain = self.type in {DataType.BOOL, DataType.STRING}
        if plain and (self.scale or self.invalid or self.low is not None or self.high is not None):
            raise ValueError(f"scale, invalid or range with type {self.type.value}: expected on numbers only")
        for name, limit in (("low", self.low), ("high", self.high)):
            if limit is not None and not is_finite(limit):
                raise ValueError(f"{name}: found {shown(limit)}, expected a finite number")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"range: found {self.low:g} to {self.high:g}, expected the lower end first")
        self.sentinels()

    @property
    def count(self) -> int:
        """Registers, or 1 for a coil or discrete input."""
        return self.length if self.type is DataType.STRING else SHAPES[self.type].registers

    @property
    def value_type(self) -> ValueType:
        """The type of its engineering values."""
        if self.type is DataType.BOOL:
            return ValueType.BOOL
        if self.type is DataType.STRING:
            return ValueType.STRING
        whole = not self.type.is_float and (self.scale is None or self.scale.is_whole)
        return ValueType.INT if whole else ValueType.FLOAT

    def sentinels(self) -> tuple[float, ...]:
        """`invalid` as this type reads it. Raises ValueError for a number the type cannot hold."""
        return tuple(self._sentinel(number) for number in self.invalid)

    def _sentinel(self, number: float) -> float:
        if self.type.is_float:
            if isinstance(number, bool) or not is_finite(number):
                raise ValueError(
                    f"invalid: found {shown(number)}, expected a finite number (NaN is so anyway)"
                )
            return through(self.type, float(number))
        code, registers, low, _ = SHAPES[self.type]
        size = 16 * registers
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number < 1 << size:
            limit = (1 << size) - 1
            raise ValueError(f"invalid: found {shown(number)}, expected a whole number {low}..0x{limit:x}")
        return number - (1 << size) if code.islower() and number >= 1 << (size - 1) else number


def through(data_type: DataType, number: float) -> float:
    """The number as the type can hold it. Raises ValueError when it is too large."""
    code = ">" + SHAPES[data_type].code
    try:
        result: float = struct.unpack(code, struct.pack(code, number))[0]
    except OverflowError:
        raise ValueError(f"found {number!r}, expected a number that fits {data_type.value}") from None
    return result
