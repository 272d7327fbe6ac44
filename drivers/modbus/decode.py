"""Registers and bits to engineering values.

A block is decoded by one function made for it: `struct` once for each byte view, checks only where declared.
A view is the block as it came, or with the bytes of each word swapped; read big- or little-endian that gives
all four orders: ABCD raw/big, DCBA raw/little, BADC swapped/big, CDAB swapped/little.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from drivers.modbus.cell import Cell, checked, one_by_one, tuple_text
from drivers.modbus.field import SHAPES, DataType, Endian, Field, Half
from drivers.modbus.scale import ScalePower
from drivers.modbus.wire.pdu import Table, unpack_bits
from gateway.core.point import Value
from gateway.core.quality import Quality

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

    A value that is None is bad: sentinel, NaN, infinite, wrong decimal digit, undecodable text or time, or
    out of its range where that is called bad. When all are good, the quality is the one integer 0. A `cache`
    saves the 1 to 15 ms of compiling an equal block again, and its memory. Raises ValueError for a field
    outside the block or not of the table's kind.
    """
    key = (tuple(fields), table, start, count)
    if cache is not None and key in cache:
        return cache[key]
    for field in fields:
        if not start <= field.first <= field.first + field.extent <= start + count:
            raise ValueError(f"field at {field.first}+{field.extent}: expected within {start}+{count}")
        in_bits = field.of_coils or (field.type is DataType.BOOL and field.bit is None)
        if in_bits != table.has_bits:
            kind = "a bool without bit" if table.has_bits else "a number, a string, or a bool with bit"
            raise ValueError(f"{field.type.value} in {table.name.lower()}: expected {kind}")
    if table.has_bits:
        decode = _compile_bits(fields, start, (count + 7) // 8)
    else:
        decode = _RegisterBlock(fields, start, count).compile()
    if cache is not None:
        cache[key] = decode
    return decode


_OCTETS: Final = tuple(unpack_bits(bytes((octet,)), 8) for octet in range(256))


def _compile_bits(fields: Sequence[Field], start: int, size: int) -> Decoder:
    offsets = [field.start - start for field in fields]
    first = offsets[0] if offsets else 0
    is_plain = not any(field.of_coils for field in fields)
    if is_plain and offsets == list(range(first, first + len(offsets))):
        octets = ", ".join(f"*octets[data[{index}]]" for index in range(size))
        result = f"({octets},)[{first}:{first + len(offsets)}]"
    else:
        result = tuple_text([_bit(field, field.start - start) for field in fields])
    return _make([f"return {result}, 0"], size, {"octets": _OCTETS, "whole": int.from_bytes})


def _bit(field: Field, offset: int) -> str:
    if not field.of_coils:
        return f"data[{offset >> 3}] & {1 << (offset & 7)} != 0"
    octets = f"data[{offset >> 3}:{(offset + field.length + 7) >> 3}]"
    return f"whole({octets}, 'little') >> {offset & 7} & {(1 << field.length) - 1}"


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


class _View(NamedTuple):
    is_swapped: bool  # the bytes of each word
    endian: str  # for `struct`


_RAW_BIG: Final = _View(is_swapped=False, endian=">")
_RAW_LITTLE: Final = _View(is_swapped=False, endian="<")
_SWAPPED_BIG: Final = _View(is_swapped=True, endian=">")
_SWAPPED_LITTLE: Final = _View(is_swapped=True, endian="<")


_IN_SEQUENCE: Final = frozenset({DataType.STRING, DataType.TI081, DataType.YMDHMS})  # no order of words


def _views(field: Field) -> tuple[_View, ...]:
    """The views in which a field can be read, the preferred one first."""
    word, byte = field.order
    if field.type in _IN_SEQUENCE:
        return (_RAW_BIG, _RAW_LITTLE) if byte is Endian.BIG else (_SWAPPED_BIG, _SWAPPED_LITTLE)
    if field.count == 1:
        return _single_views(byte)
    if field.type is DataType.BITS:  # the first register has the first bits
        word = Endian.LITTLE
    if word is byte:
        return (_RAW_BIG,) if byte is Endian.BIG else (_RAW_LITTLE,)
    return (_SWAPPED_LITTLE,) if byte is Endian.BIG else (_SWAPPED_BIG,)


def _single_views(byte: Endian) -> tuple[_View, ...]:
    return (_RAW_BIG, _SWAPPED_LITTLE) if byte is Endian.BIG else (_RAW_LITTLE, _SWAPPED_BIG)


class _Piece(NamedTuple):
    """Bytes of the block that one `struct` item reads."""

    offset: int  # within the block's first register, in bytes
    size: int
    code: str


_BITS_CODES: Final = {1: "H", 2: "I", 4: "Q"}


def _piece(field: Field, view: _View) -> _Piece:
    size = field.count * 2
    if field.type in {DataType.INT8, DataType.UINT8}:
        is_first = (field.half is Half.HIGH) is (field.order.byte is Endian.BIG)
        return _Piece(int(is_first is view.is_swapped), 1, SHAPES[field.type].code or "")
    if field.type is DataType.BITS:
        return _Piece(0, size, _BITS_CODES.get(field.count, f"{size}s"))
    shape = SHAPES.get(field.type)
    return _Piece(0, size, (shape.code if shape is not None else None) or f"{size}s")


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
        self._powers: Final[dict[int, str]] = {}  # column → the variable of its scale factor
        self._chosen: Final = self._choose()
        self._raw: Final = self._place()

    def compile(self) -> Decoder:
        names: dict[str, object] = {"finite": math.isfinite}
        body: list[str] = []
        if any(reader.view.is_swapped for reader in self._readers):
            body.append(f"swapped = bytearray({self._size})")
            body += ["swapped[0::2] = data[1::2]", "swapped[1::2] = data[0::2]"]
        for number, reader in enumerate(self._readers):
            names[f"unpack{number}"] = reader.finish(self._size).unpack
        cells = [
            Cell(
                column,
                field,
                self._raw[column],
                is_reversed=self._chosen[column].endian == "<" and field.type not in _IN_SEQUENCE,
                power=self._powers.get(column, ""),
            )
            for column, field in enumerate(self._fields)
        ]
        for cell in cells:
            names |= cell.names
        names_in_order = [cell.value for cell in cells]
        if len(self._readers) == 1 and self._readers[0].names == names_in_order:
            body += self._plain(cells)
        else:
            body += [self._unpack(number) for number in range(len(self._readers))]
            body += checked(cells, tuple_text([cell.value for cell in cells]))
        return _make(body, self._size, names)

    def _plain(self, cells: list[Cell]) -> list[str]:
        """One struct gives all values in order."""
        source = "swapped" if self._readers[0].view.is_swapped else "data"
        read = f"values = unpack0({source})"
        split = f"{tuple_text(self._readers[0].names)} = values"
        if not any(cell.is_checked for cell in cells):
            return [read, "return values, 0"]
        if all(cell.checks_finite_only for cell in cells):
            return [read, "if finite(sum(values)):", "    return values, 0", split, *one_by_one(cells)]
        return [read, split, *checked(cells, "values")]

    def _unpack(self, number: int) -> str:
        reader = self._readers[number]
        source = "swapped" if reader.view.is_swapped else "data"
        return f"{tuple_text(reader.names)} = unpack{number}({source})"

    def _choose(self) -> list[_View]:
        """The view of each field. Wide fields have no choice; others join them."""
        used: set[_View] = set()
        chosen: dict[int, _View] = {}
        for column in sorted(range(len(self._fields)), key=lambda column: len(_views(self._fields[column]))):
            views = _views(self._fields[column])
            chosen[column] = next((view for view in views if view in used), views[0])
            used.add(chosen[column])
        return [chosen[column] for column in range(len(self._fields))]

    def _place(self) -> list[str]:
        """Give each field a raw variable in some reader; equal ones share."""
        wanted: list[
            tuple[int, int, str, _View, int, bool]
        ] = []  # offset, size, code, view, column, is power
        for column, field in enumerate(self._fields):
            view = self._chosen[column]
            piece = _piece(field, view)
            offset = (field.start - self._start) * 2 + piece.offset
            wanted.append((offset, piece.size, piece.code, view, column, False))
            if isinstance(field.scale, ScalePower):
                view = _single_views(field.order.byte)[0]
                offset = (field.scale.register - self._start) * 2
                wanted.append((offset, 2, "h", view, column, True))
        names: dict[tuple[_View, int, str], str] = {}
        raw = [""] * len(self._fields)
        for offset, size, code, view, column, is_power in sorted(wanted, key=lambda one: one[0]):
            key = (view, offset, code)
            if key not in names:
                names[key] = f"r{len(names)}"
                self._reader(view, offset).add(names[key], code, offset, size)
            if is_power:
                self._powers[column] = names[key]
            else:
                raw[column] = names[key]
        return raw

    def _reader(self, view: _View, offset: int) -> _Reader:
        for reader in self._readers:
            if reader.view == view and reader.takes(offset):
                return reader
        self._readers.append(_Reader(view))
        return self._readers[-1]
