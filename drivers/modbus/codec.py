"""Registers and bits to engineering values, and back.

A block is decoded by one function made for it: `struct` once for each byte view, checks only where declared.
A view is the block as it came, or with the bytes of each word swapped; read big- or little-endian that gives
all four orders: ABCD raw/big, DCBA raw/little, BADC swapped/big, CDAB swapped/little.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final, NamedTuple, TypeAlias

from drivers.modbus.field import SHAPES, Charset, DataType, Endian, Field, Scale, is_finite, shown, through
from drivers.modbus.wire.pdu import Table, pack_bits, unpack_bits
from gateway.core.point import Value
from gateway.core.quality import BAD, GOOD, INVALID, OUT_OF_RANGE, UNCERTAIN, Quality

NOT_A_VALUE: Final = BAD | INVALID
BEYOND_RANGE: Final = UNCERTAIN | OUT_OF_RANGE
_FLOAT_WHOLE_MAX: Final = 1 << 53  # every integer up to it is a float

# --- decoding ----------------------------------------------------------------------------------------------

Decoder: TypeAlias = Callable[[bytes], tuple[tuple[Value, ...], Quality | tuple[Quality, ...]]]
"""Data of a block (after the byte count) → values in the order of the fields, and 0 or a quality for each.

Raises ValueError when the data are not as long as the block.
"""


BlockKey: TypeAlias = tuple[tuple[Field, ...], Table, int, int]
"""What a decoder depends on, and all of it: blocks of equal devices may share one."""


def compile_block(
    fields: Sequence[Field],
    *,
    table: Table,
    start: int,
    count: int,
    cache: dict[BlockKey, Decoder] | None = None,
) -> Decoder:
    """Make the decoder of one block: `count` items of `table` from `start`, in which all fields lie.

    A value that is None is bad/invalid: sentinel, NaN, infinite, wrong BCD digit, undecodable text. When all
    are good, the quality is the one integer 0. A `cache` saves the 1 to 15 ms of compiling an equal block
    again, and its memory. Raises ValueError for a field outside the block or not of the
    table's kind.
    """
    key = (tuple(fields), table, start, count)
    if cache is not None and key in cache:
        return cache[key]
    for field in fields:
        if not start <= field.start <= field.start + field.count <= start + count:
            raise ValueError(f"field at {field.start}+{field.count}: expected within {start}+{count}")
        in_register = field.type is not DataType.BOOL or field.bit is not None
        if in_register == table.has_bits:
            kind = "a bool without bit" if table.has_bits else "a number, a string, or a bool with bit"
            raise ValueError(f"{field.type.value} in {table.name.lower()}: expected {kind}")
    if table.has_bits:
        decode = _compile_bits([field.start - start for field in fields], (count + 7) // 8)
    else:
        decode = _RegisterBlock(fields, start, count).compile()
    if cache is not None:
        cache[key] = decode
    return decode


_OCTETS: Final = tuple(unpack_bits(bytes((octet,)), 8) for octet in range(256))


def _compile_bits(offsets: list[int], size: int) -> Decoder:
    first = offsets[0] if offsets else 0
    if offsets == list(range(first, first + len(offsets))):
        octets = ", ".join(f"*octets[data[{index}]]" for index in range(size))
        result = f"({octets},)[{first}:{first + len(offsets)}]"
    else:
        result = _tuple([f"data[{offset >> 3}] & {1 << (offset & 7)} != 0" for offset in offsets])
    return _make([f"return {result}, 0"], size, {"octets": _OCTETS})


def _make(body: list[str], size: int, names: dict[str, object]) -> Decoder:
    """A function from source that holds nothing but our own words and numbers."""
    lines = ["def decode(data):", f"    if len(data) != {size}:", f"        raise wrong_size(data, {size})"]
    lines += [f"    {line}" for line in body]
    names["wrong_size"] = _wrong_size
    exec("\n".join(lines), names)  # noqa: S102 - no text of a user is in it
    decode: Decoder = names["decode"]  # type: ignore[assignment] # exec is untyped
    return decode


def _wrong_size(data: bytes, size: int) -> ValueError:
    return ValueError(f"block data: found {len(data)} bytes, expected {size}")


def _tuple(items: list[str]) -> str:
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


class _View(NamedTuple):
    is_swapped: bool  # the bytes of each word
    endian: str  # for `struct`


_RAW_BIG: Final = _View(is_swapped=False, endian=">")
_RAW_LITTLE: Final = _View(is_swapped=False, endian="<")
_SWAPPED_BIG: Final = _View(is_swapped=True, endian=">")
_SWAPPED_LITTLE: Final = _View(is_swapped=True, endian="<")


def _views(field: Field) -> tuple[_View, ...]:
    """The views in which a field can be read, the preferred one first."""
    word, byte = field.order
    if field.type is DataType.STRING:
        return (_RAW_BIG, _RAW_LITTLE) if byte is Endian.BIG else (_SWAPPED_BIG, _SWAPPED_LITTLE)
    if field.count == 1:
        return (_RAW_BIG, _SWAPPED_LITTLE) if byte is Endian.BIG else (_RAW_LITTLE, _SWAPPED_BIG)
    if word is byte:
        return (_RAW_BIG,) if byte is Endian.BIG else (_RAW_LITTLE,)
    return (_SWAPPED_LITTLE,) if byte is Endian.BIG else (_SWAPPED_BIG,)


class _Reader:
    """One `struct` over one view, filled from left to right."""

    def __init__(self, view: _View) -> None:
        self.view: Final = view
        self.names: Final[list[str]] = []
        self._format = view.endian
        self._end = 0

    def takes(self, offset: int) -> bool:
        return offset >= self._end

    def add(self, name: str, code: str, offset: int, size: int) -> None:
        pad = offset - self._end
        self._format += (f"{pad}x" if pad else "") + code
        self._end = offset + size
        self.names.append(name)

    def finish(self, size: int) -> struct.Struct:
        pad = size - self._end
        return struct.Struct(self._format + (f"{pad}x" if pad else ""))


class _RegisterBlock:
    """Writes the source of one block's decoder."""

    def __init__(self, fields: Sequence[Field], start: int, count: int) -> None:
        self._fields: Final = fields
        self._start: Final = start
        self._size: Final = count * 2
        self._readers: Final[list[_Reader]] = []
        self._raw: Final = self._place()

    def compile(self) -> Decoder:
        names: dict[str, object] = {"finite": math.isfinite, "bcd": _bcd}
        names |= {f"text_{charset.name}": _text_decoder(charset) for charset in Charset}
        body: list[str] = []
        if any(reader.view.is_swapped for reader in self._readers):
            body.append(f"swapped = bytearray({self._size})")
            body += ["swapped[0::2] = data[1::2]", "swapped[1::2] = data[0::2]"]
        for number, reader in enumerate(self._readers):
            names[f"unpack{number}"] = reader.finish(self._size).unpack
        cells = [_Cell(column, field, self._raw[column]) for column, field in enumerate(self._fields)]
        names_in_order = [cell.value for cell in cells]
        if len(self._readers) == 1 and self._readers[0].names == names_in_order:
            body += self._plain(cells)
        else:
            body += [self._unpack(number) for number in range(len(self._readers))]
            body += _checked(cells, _tuple([cell.value for cell in cells]))
        return _make(body, self._size, names)

    def _plain(self, cells: list[_Cell]) -> list[str]:
        """One struct gives all values in order."""
        source = "swapped" if self._readers[0].view.is_swapped else "data"
        read = f"values = unpack0({source})"
        split = f"{_tuple(self._readers[0].names)} = values"
        if not any(cell.is_checked for cell in cells):
            return [read, "return values, 0"]
        if all(cell.checks_finite_only for cell in cells):
            return [read, "if finite(sum(values)):", "    return values, 0", split, *_slow(cells)]
        return [read, split, *_checked(cells, "values")]

    def _unpack(self, number: int) -> str:
        reader = self._readers[number]
        return f"{_tuple(reader.names)} = unpack{number}({'swapped' if reader.view.is_swapped else 'data'})"

    def _place(self) -> list[str]:
        """Give each field a raw variable in some reader; equal ones share. Wide fields choose the views."""
        used: set[_View] = set()
        chosen: dict[int, _View] = {}
        for column in sorted(range(len(self._fields)), key=lambda column: len(_views(self._fields[column]))):
            views = _views(self._fields[column])
            chosen[column] = next((view for view in views if view in used), views[0])
            used.add(chosen[column])
        names: dict[tuple[_View, int, str], str] = {}
        raw = [""] * len(self._fields)
        for column in sorted(chosen, key=lambda column: self._fields[column].start):
            field, view = self._fields[column], chosen[column]
            code = f"{field.count * 2}s" if field.type is DataType.STRING else SHAPES[field.type].code
            key = (view, field.start, code)
            if key not in names:
                names[key] = f"r{len(names)}"
                offset = (field.start - self._start) * 2
                self._reader(view, offset).add(names[key], code, offset, field.count * 2)
            raw[column] = names[key]
        return raw

    def _reader(self, view: _View, offset: int) -> _Reader:
        for reader in self._readers:
            if reader.view == view and reader.takes(offset):
                return reader
        self._readers.append(_Reader(view))
        return self._readers[-1]


class _Cell:
    """The expressions for one field, over its raw variable."""

    def __init__(self, column: int, field: Field, raw: str) -> None:
        self.column: Final = column
        self.prepare: Final[list[str]] = []  # statements before anything else
        self.bad: Final[list[str]] = []  # conditions under which there is no value
        self.good: Final[list[str]] = []  # the same, the other way round
        self.finite: str = ""  # a float whose finiteness is checked together with others
        self.beyond: str = ""  # condition under which it is out of range
        self.value: str = raw
        sentinels = field.sentinels()
        if sentinels:
            listed = _tuple([repr(number) for number in sentinels])
            self._check(f"{raw} in {listed}", f"{raw} not in {listed}")
        if field.type is DataType.BOOL:
            self.value = f"{raw} & {1 << (field.bit or 0)} != 0"
        elif field.type.is_bcd:
            self._assign("b", f"bcd({raw})")
            self._check(f"{self.value} < 0", f"{self.value} >= 0")
        elif field.type is DataType.STRING:
            self._assign("s", f"text_{field.charset.name}({raw})")
            self._check(f"{self.value} is None", f"{self.value} is not None")
        if field.scale:
            self._scale(field.scale, is_float=field.type.is_float)
        self._limit(field)
        if field.type.is_float:
            self.finite = self.value
            self.bad.append(f"{self.value} - {self.value} != 0.0")

    @property
    def is_checked(self) -> bool:
        return bool(self.bad or self.beyond)

    @property
    def checks_finite_only(self) -> bool:
        return bool(self.finite) and not self.good

    def _check(self, bad: str, good: str) -> None:
        self.bad.append(bad)
        self.good.append(good)

    def _assign(self, letter: str, expression: str) -> None:
        name = f"{letter}{self.column}"
        self.prepare.append(f"{name} = {expression}")
        self.value = name

    def _scale(self, scale: Scale, *, is_float: bool) -> None:
        numerator, shift, denominator = scale.numerator, scale.shift, scale.denominator
        if is_float and max(abs(numerator), abs(shift), denominator) > _FLOAT_WHOLE_MAX:
            # As floats the three would lose digits, or overflow on the way.
            parts = (float(Fraction(numerator, denominator)), float(Fraction(shift, denominator)), 1.0)
        else:
            parts = (numerator, shift, denominator)
        factor_text, shift_text, divisor_text = (repr(float(part) if is_float else part) for part in parts)
        text = self.value
        if parts[0] != 1:
            text += f" * {factor_text}"
        if parts[1]:
            text = f"({text} + {shift_text})"
        if parts[2] != 1:
            text += f" / {divisor_text}"
        self._assign("v", text)

    def _limit(self, field: Field) -> None:
        limits = []
        if field.low is not None:
            limits.append(f"{self.value} >= {field.low!r}")
        if field.high is not None:
            limits.append(f"{self.value} <= {field.high!r}")
        if limits:
            condition = " and ".join(limits)
            self.good.append(condition)
            self.beyond = f"not ({condition})"


def _checked(cells: list[_Cell], result: str) -> list[str]:
    """All good in one condition, else one by one."""
    lines = [line for cell in cells for line in cell.prepare]
    conditions = [condition for cell in cells for condition in cell.good]
    floats = [cell.finite for cell in cells if cell.finite]
    if floats:
        conditions.append(f"finite({' + '.join(floats)})")
    if not conditions:
        return [*lines, f"return {result}, 0"]
    return [*lines, f"if {' and '.join(conditions)}:", f"    return {result}, 0", *_slow(cells)]


def _slow(cells: list[_Cell]) -> list[str]:
    lines: list[str] = []
    values: list[str] = []
    qualities: list[str] = []
    for cell in cells:
        if not cell.is_checked:
            values.append(cell.value)
            qualities.append(str(GOOD))
            continue
        value, quality = f"x{cell.column}", f"q{cell.column}"
        lines.append(f"{value}, {quality} = {cell.value}, {GOOD}")
        if cell.bad:
            lines += [f"if {' or '.join(cell.bad)}:", f"    {value}, {quality} = None, {NOT_A_VALUE}"]
        if cell.beyond:
            lines += [f"{'elif' if cell.bad else 'if'} {cell.beyond}:", f"    {quality} = {BEYOND_RANGE}"]
        values.append(value)
        qualities.append(quality)
    # A sum of good floats can overflow: then all turn out good here.
    lines.append(f"qualities = {_tuple(qualities)}")
    return [*lines, f"return {_tuple(values)}, qualities if any(qualities) else {GOOD}"]


def _bcd(raw: int) -> int:
    """The number whose decimal digits are the nibbles, or -1."""
    digits = f"{raw:x}"
    return int(digits) if digits.isdecimal() else -1


def _text_decoder(charset: Charset) -> Callable[[bytes], str | None]:
    name = charset.value

    def decode(raw: bytes) -> str | None:
        try:
            return raw.rstrip(b"\0 ").decode(name)
        except UnicodeDecodeError:
            return None

    return decode


# --- encoding ----------------------------------------------------------------------------------------------


def encode(field: Field, value: Value, *, low: float | None = None, high: float | None = None) -> bytes:
    """The registers to write for an engineering value; for a coil one byte, 0 or 1.

    `low` and `high` bound the engineering value. Raises ValueError, for people, for what cannot be written:
    wrong Python type, NaN, beyond the bounds or the type, a sentinel, a string that is too long. A scaled
    value is rounded to the nearest raw one, half away from zero. A bit of a register is for `masks`.
    """
    if field.type is DataType.BOOL:
        if field.bit is not None:
            raise ValueError("found a bit of a register, expected to write it with a mask")
        return pack_bits((_as_bool(value),))
    if field.type is DataType.STRING:
        return _in_order(field, _encode_text(field, value))
    number = _as_number(value)
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"found {value!r}, expected {_span_text(low, high)}")
    raw = _float_raw(field, number) if field.type.is_float else _whole_raw(field, number)
    if field.type.is_bcd:
        raw = int(str(raw), 16)
    if raw in field.sentinels():
        raise ValueError(f"found {value!r} (raw {raw!r}), expected another: this one is declared invalid")
    return _in_order(field, struct.pack(">" + SHAPES[field.type].code, raw))


def masks(field: Field, value: Value) -> tuple[int, int]:
    """(and_mask, or_mask) that set or clear a bit of a register: content = (content & and) | (or & ~and)."""
    mask = 1 << wire_bit(field)
    return 0xFFFF ^ mask, mask if _as_bool(value) else 0


def wire_bit(field: Field) -> int:
    """The number of a field's bit in its register as it travels; 0 is the least significant."""
    if field.bit is None:
        raise ValueError(f"found type {field.type.value}, expected a bit of a register")
    # Bits are numbered in the value; with the low byte first on the wire the halves trade places.
    return field.bit if field.order.byte is Endian.BIG else field.bit ^ 8


def _as_bool(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in {0, 1}:
        return value == 1
    raise ValueError(f"found {value!r}, expected true or false (or 1 or 0)")


def _as_number(value: Value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {value!r}, expected a number")
    if not is_finite(value):
        raise ValueError(f"found {shown(value)}, expected a finite number")
    return value


def _float_raw(field: Field, number: float) -> float:
    try:
        raw = float(field.scale.inverse(Fraction(repr(number))) if field.scale else number)
    except OverflowError:
        raise ValueError(f"found {number!r}, expected a number that fits {field.type.value}") from None
    return through(field.type, raw)


def _whole_raw(field: Field, number: float) -> int:
    exact = Fraction(repr(number))
    if field.scale:
        exact = field.scale.inverse(exact)
    elif exact.denominator != 1:
        raise ValueError(f"found {number!r}, expected a whole number: {field.type.value} has no scale")
    raw = math.floor(abs(exact) + Fraction(1, 2))
    raw = raw if exact >= 0 else -raw
    _, _, low, high = SHAPES[field.type]
    if not low <= raw <= high:
        where = f"raw {low}..{high} ({field.type.value})"
        raise ValueError(f"found {number!r}{f', raw {raw}' if field.scale else ''}, expected {where}")
    return raw


def _span_text(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _encode_text(field: Field, value: Value) -> bytes:
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}, expected a string")
    if "\0" in value:
        raise ValueError("found a NUL character in the string, expected none: it ends a string")
    try:
        data = value.encode(field.charset.value)
    except UnicodeEncodeError as error:
        wrong = value[error.start]
        raise ValueError(f"found {wrong!r}, expected characters of {field.charset.value}") from None
    size = field.length * 2
    if len(data) > size:
        raise ValueError(f"found {len(data)} bytes of text, expected up to {size}")
    return data.ljust(size, b"\0")


def _in_order(field: Field, data: bytes) -> bytes:
    """Big-endian bytes to the order of the device."""
    words = [data[position : position + 2] for position in range(0, len(data), 2)]
    if field.order.word is Endian.LITTLE and field.type is not DataType.STRING:
        words.reverse()
    if field.order.byte is Endian.LITTLE:
        words = [word[::-1] for word in words]
    return b"".join(words)
