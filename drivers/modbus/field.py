"""What a value in a table is: its type, place, order, scale, and what is wrong in it. Checked when made."""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

import msgspec

from drivers.modbus.scale import AnyScale, ScalePower, is_finite, shown
from gateway.core.point import ValueType

STRING_REGISTERS_MAX: Final = 123  # the most one request can write, so that what is read can be written
EXTENT_MAX: Final = 125  # registers that one request can read: a value and its scale factor fit in one
BITS_MAX: Final = 64  # of a packed array


class Family(enum.Enum):
    """How registers become a value."""

    BOOL = enum.auto()
    WHOLE = enum.auto()  # two's complement or unsigned
    FLOAT = enum.auto()  # IEEE 754
    BCD = enum.auto()  # one decimal digit in each nibble
    MOD10K = enum.auto()  # four decimal digits in each register, the low ones first with word: little
    BITS = enum.auto()  # an array of bits as a whole number, the first one least significant
    TIME = enum.auto()
    STRING = enum.auto()


class DataType(enum.Enum):
    """What registers hold."""

    BOOL = "bool"  # a coil, a discrete input or one bit of a register
    INT8 = "int8"
    UINT8 = "uint8"
    INT16 = "int16"
    UINT16 = "uint16"
    INT24 = "int24"  # the low three bytes of two registers
    UINT24 = "uint24"
    INT32 = "int32"
    UINT32 = "uint32"
    INT48 = "int48"
    UINT48 = "uint48"
    INT64 = "int64"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BCD16 = "bcd16"
    BCD32 = "bcd32"
    BCD64 = "bcd64"
    MOD10K32 = "mod10k32"
    MOD10K48 = "mod10k48"
    MOD10K64 = "mod10k64"
    BITS = "bits"
    UNIX32 = "unix32"  # seconds since 1970 UTC
    TI081 = "ti081"  # IEC 870-5-4 in four registers, as Schneider Electric's meters have it
    YMDHMS = "ymdhms"  # year, month, day, hour, minute, second: one register each
    STRING = "string"

    @property
    def family(self) -> Family:
        """How it is read."""
        return _FAMILIES[self]

    @property
    def is_float(self) -> bool:
        """IEEE 754."""
        return self.family is Family.FLOAT

    @property
    def is_bcd(self) -> bool:
        """Binary coded decimal."""
        return self.family is Family.BCD

    @property
    def is_number(self) -> bool:
        """Whether it can be scaled and has a range."""
        return self.family in {Family.WHOLE, Family.FLOAT, Family.BCD, Family.MOD10K}


class Shape(NamedTuple):
    """`code`: for `struct`; None where bytes are taken as they are. `low` and `high` bound raw values."""

    code: str | None
    registers: int
    low: int = 0
    high: int = 0


def _signed(bits: int) -> tuple[int, int]:
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def _unsigned(bits: int) -> tuple[int, int]:
    return 0, (1 << bits) - 1


SHAPES: Final = {
    DataType.BOOL: Shape("H", 1, 0, 1),
    DataType.INT8: Shape("b", 1, *_signed(8)),
    DataType.UINT8: Shape("B", 1, *_unsigned(8)),
    DataType.INT16: Shape("h", 1, *_signed(16)),
    DataType.UINT16: Shape("H", 1, *_unsigned(16)),
    DataType.INT24: Shape("I", 2, *_signed(24)),
    DataType.UINT24: Shape("I", 2, *_unsigned(24)),
    DataType.INT32: Shape("i", 2, *_signed(32)),
    DataType.UINT32: Shape("I", 2, *_unsigned(32)),
    DataType.INT48: Shape(None, 3, *_signed(48)),
    DataType.UINT48: Shape(None, 3, *_unsigned(48)),
    DataType.INT64: Shape("q", 4, *_signed(64)),
    DataType.UINT64: Shape("Q", 4, *_unsigned(64)),
    DataType.FLOAT16: Shape("e", 1),
    DataType.FLOAT32: Shape("f", 2),
    DataType.FLOAT64: Shape("d", 4),
    DataType.BCD16: Shape("H", 1, 0, 10**4 - 1),
    DataType.BCD32: Shape("I", 2, 0, 10**8 - 1),
    DataType.BCD64: Shape("Q", 4, 0, 10**16 - 1),
    DataType.MOD10K32: Shape(None, 2, -(10**8) + 1, 10**8 - 1),
    DataType.MOD10K48: Shape(None, 3, -(10**12) + 1, 10**12 - 1),
    DataType.MOD10K64: Shape(None, 4, -(10**16) + 1, 10**16 - 1),
    DataType.UNIX32: Shape("I", 2, *_unsigned(32)),
    DataType.TI081: Shape(None, 4),
    DataType.YMDHMS: Shape(None, 6),
}

_FAMILIES: Final = {
    kind: Family.FLOAT
    if kind.value.startswith("float")
    else Family.BCD
    if kind.value.startswith("bcd")
    else Family.MOD10K
    if kind.value.startswith("mod10k")
    else Family.TIME
    if kind in {DataType.UNIX32, DataType.TI081, DataType.YMDHMS}
    else Family.WHOLE
    for kind in DataType
} | {
    DataType.BOOL: Family.BOOL,
    DataType.BITS: Family.BITS,
    DataType.STRING: Family.STRING,
}

# SunSpec: what a device shows of a point that it does not have
NOT_IMPLEMENTED: Final = {
    DataType.INT16: 0x8000,
    DataType.UINT16: 0xFFFF,
    DataType.INT32: 0x8000_0000,
    DataType.UINT32: 0xFFFF_FFFF,
    DataType.INT64: 0x8000_0000_0000_0000,
    DataType.UINT64: 0xFFFF_FFFF_FFFF_FFFF,
}


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
    UTF16 = "utf-16"  # one code unit in each register, no byte order mark

    @property
    def codec(self) -> str:
        """Python's name."""
        return "utf-16-be" if self is Charset.UTF16 else self.value


class Padding(enum.Enum):
    """What fills a string that is written."""

    NUL = "nul"
    SPACE = "space"


class Half(enum.Enum):
    """Which byte of a register an 8-bit value takes."""

    LOW = "low"
    HIGH = "high"


class Beyond(enum.Enum):
    """What a value outside its range is; `bad` shows no value."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One value in a table. Checked when made: raises ValueError, for people."""

    type: DataType
    start: int  # protocol address of its first register or bit, from 0
    length: int = 1  # registers of a string, bits of an array; other types know theirs
    of_coils: bool = False  # an array of bits in a table of bits
    bit: int | None = None  # of a register, 0 is the least significant; None for a coil or discrete input
    bits: tuple[int, int] | None = None  # the lowest and the highest bit of an unsigned number that count
    half: Half = Half.LOW
    order: Order = ABCD  # strings and times have no word order: their registers follow each other
    scale: AnyScale | None = None
    invalid: tuple[float, ...] = ()  # raw values that mean "no value"; integers also as unsigned: 0x8000
    empty_is_invalid: bool = False  # of a string
    low: float | None = None  # engineering units
    high: float | None = None
    below: Beyond = Beyond.UNCERTAIN  # what a value under `low` is
    above: Beyond = Beyond.UNCERTAIN
    charset: Charset = Charset.UTF8
    padding: Padding = Padding.NUL

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        self._check_place()
        if not self.type.is_number and (
            self.scale or self.invalid or self.low is not None or self.high is not None
        ):
            raise ValueError(f"scale, invalid or range with type {self.type.value}: expected on numbers only")
        for name, limit in (("low", self.low), ("high", self.high)):
            if limit is not None and not is_finite(limit):
                raise ValueError(f"{name}: found {shown(limit)}, expected a finite number")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"range: found {self.low:g} to {self.high:g}, expected the lower end first")
        self.sentinels()
        if self.extent > EXTENT_MAX and not self.of_coils:
            raise ValueError(
                f"scale: found its register {self.extent - self.count} registers away, expected both in one"
                f" request of {EXTENT_MAX}"
            )

    def _check_place(self) -> None:
        if self.bit is not None and (self.type is not DataType.BOOL or not 0 <= self.bit <= 15):
            raise ValueError(f"bit: found {self.bit} with type {self.type.value}, expected bool and 0..15")
        if self.type is DataType.STRING and not 1 <= self.length <= STRING_REGISTERS_MAX:
            raise ValueError(f"length: found {self.length}, expected 1..{STRING_REGISTERS_MAX} registers")
        if self.type is DataType.BITS and not 1 <= self.length <= BITS_MAX:
            raise ValueError(f"length: found {self.length}, expected 1..{BITS_MAX} bits")
        if self.type not in {DataType.STRING, DataType.BITS} and self.length != 1:
            raise ValueError(
                f"length: found {self.length} with {self.type.value}, expected on strings and bits only"
            )
        if self.bits is not None:
            shape = SHAPES.get(self.type)
            is_unsigned = self.type.family is Family.WHOLE and shape is not None and not shape.low
            if not is_unsigned or shape is None or not 0 <= self.bits[0] <= self.bits[1] < _width(shape):
                found = f"{self.bits[0]}-{self.bits[1]} with type {self.type.value}"
                raise ValueError(f"bits: found {found}, expected bits of an unsigned whole number")

    @property
    def count(self) -> int:
        """Registers, or coils or discrete inputs."""
        if self.type is DataType.STRING:
            return self.length
        if self.type is DataType.BITS:
            return self.length if self.of_coils else (self.length + 15) // 16
        return SHAPES[self.type].registers

    @property
    def first(self) -> int:
        """The lowest address that must be read for it."""
        return min(self.start, self.scale.register) if isinstance(self.scale, ScalePower) else self.start

    @property
    def extent(self) -> int:
        """Items from `first` on that must be read for it, in one request."""
        end = self.start + self.count
        if isinstance(self.scale, ScalePower):
            end = max(end, self.scale.register + 1)
        return end - self.first

    @property
    def mask(self) -> int:
        """The bits of its one register, as a number, that it owns; 0 where it owns whole registers."""
        if self.bit is not None:
            return 1 << self.bit
        mask = 0
        if self.type in {DataType.INT8, DataType.UINT8}:
            mask = 0xFF
        if self.bits is not None:
            mask = (1 << (self.bits[1] + 1)) - (1 << self.bits[0])
        return mask << 8 if self.half is Half.HIGH else mask

    @property
    def value_type(self) -> ValueType:
        """The type of its engineering values."""
        if self.type is DataType.BOOL:
            return ValueType.BOOL
        if self.type.family in {Family.STRING, Family.TIME}:
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
        shape = SHAPES[self.type]
        is_wrapped = self.type.family is Family.WHOLE  # 0x8000 for -32768
        low, limit = shape.low, shape.high
        if is_wrapped:
            limit = (1 << _width(shape)) - 1
        elif self.type.is_bcd:  # as it stands in the registers: 0x9999, also what is no decimal number
            limit = (1 << 16 * shape.registers) - 1
        if isinstance(number, bool) or not isinstance(number, int) or not low <= number <= limit:
            top = str(limit) if self.type.family is Family.MOD10K else f"0x{limit:x}"
            raise ValueError(f"invalid: found {shown(number)}, expected a whole number {low}..{top}")
        return number - limit - 1 if is_wrapped and number > shape.high else number


def _width(shape: Shape) -> int:
    """Bits of a whole number."""
    return (shape.high - shape.low).bit_length()


def through(data_type: DataType, number: float) -> float:
    """The number as the type can hold it. Raises ValueError when it is too large."""
    code = f">{SHAPES[data_type].code}"
    try:
        result: float = struct.unpack(code, struct.pack(code, number))[0]
    except OverflowError:
        raise ValueError(f"found {number!r}, expected a number that fits {data_type.value}") from None
    return result
