"""The registers of one simulated unit: what moves in them, what was written to them, what is not there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Final

from drivers.modbus.encode import wire_mask
from drivers.modbus.field import Field
from drivers.modbus.pack import Pack, compile_pack
from drivers.modbus.simulator.motion import Motion
from drivers.modbus.wire.pdu import ExceptionCode, Table, pack_bits, unpack_bits
from gateway.core.point import Point, Value

_EXTENT_MAX: Final = 128  # items that one value takes at most: how far in front of a span to look


class Item:
    """One value of a device: where it is and how it moves."""

    __slots__ = ("field", "is_held", "motion", "moved", "pack", "point", "table")

    def __init__(self, point: Point, table: Table, field: Field, motion: Motion) -> None:
        self.point: Final = point
        self.table: Final = table
        self.field: Final = field
        self.motion: Final = motion
        self.pack: Final[Pack] = compile_pack(field)
        self.is_held = False  # somebody wrote it: it stays so
        self.moved = -1.0  # the second of the motion that its registers show

    @property
    def start(self) -> int:
        """Its first register or bit."""
        return self.field.start

    @property
    def end(self) -> int:
        """The one behind it."""
        return self.field.start + self.field.count


class _Sheet:
    """One table: an item of it is a byte (a bit) or two (a register)."""

    def __init__(self, table: Table, items: Iterable[Item], filled: Iterable[tuple[int, int]]) -> None:
        self.items: Final = sorted(items, key=lambda item: item.start)
        self.starts: Final = [item.start for item in self.items]
        self.size: Final = max((item.end for item in self.items), default=0)
        self.width: Final = 1 if table.has_bits else 2
        self.data: Final = bytearray(self.size * self.width)
        self.is_there: Final = bytearray(self.size)
        self.is_writable: Final = bytearray(self.size)
        for start, end in filled:
            self.is_there[start:end] = b"\1" * (min(end, self.size) - start)
        for item in self.items:
            one = b"\1" * (item.end - item.start)
            self.is_there[item.start : item.end] = one
            if item.point.writable:
                self.is_writable[item.start : item.end] = one

    def within(self, start: int, end: int) -> list[Item]:
        """The items that share a place with a span."""
        first = bisect_right(self.starts, start - _EXTENT_MAX)
        return [item for item in self.items[first : bisect_right(self.starts, end - 1)] if item.end > start]


class Registers:
    """One unit. Addresses outside its map are refused, as devices do; holes may be filled with zeros."""

    def __init__(
        self,
        items: Iterable[Item],
        *,
        second: Callable[[], float],
        fills_holes: bool = False,
        filled: Iterable[tuple[Table, int, int]] = (),
    ) -> None:
        """`second()`: how long it lives, in steps, so that what is read together fits together.

        `filled`: spans (table, start, end) in which what no item has reads as 0.
        """
        given, spans = list(items), list(filled)
        self.items: Final = {item.point.name: item for item in given}
        self._second: Final = second
        self._sheets: Final = {
            table: _Sheet(
                table,
                [item for item in given if item.table is table],
                [(start, end) for where, start, end in spans if where is table],
            )
            for table in Table
        }
        if fills_holes:
            for sheet in self._sheets.values():
                sheet.is_there[:] = b"\1" * sheet.size

    def read(self, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Registers as they go over the wire, or packed bits."""
        sheet, end = self._sheets[table], start + count
        if end > sheet.size or not all(sheet.is_there[start:end]):
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        second = self._second()
        for item in sheet.within(start, end):
            if not item.is_held and item.moved != second:
                self._move(sheet, item, second)
        data = sheet.data[start * sheet.width : end * sheet.width]
        return pack_bits(map(bool, data)) if table.has_bits else bytes(data)

    def write_registers(self, start: int, data: bytes) -> ExceptionCode | None:
        """Take what a client writes to holding registers, as it is; what it touches moves no more."""
        return self._write(Table.HOLDING_REGISTERS, start, data)

    def write_bits(self, start: int, count: int, data: bytes) -> ExceptionCode | None:
        """As above, coils."""
        return self._write(Table.COILS, start, bytes(unpack_bits(data, count)))

    def hold(self, name: str, value: Value) -> None:
        """Show this value from now on. Raises ValueError for one that does not fit, KeyError for a name."""
        item = self.items[name]
        self._put(self._sheets[item.table], item, item.pack(value))
        item.is_held = True

    def release(self, name: str) -> None:
        """Let it move again. KeyError for a name."""
        item = self.items[name]
        item.is_held, item.moved = False, -1.0

    def _write(self, table: Table, start: int, data: bytes) -> ExceptionCode | None:
        sheet = self._sheets[table]
        end = start + len(data) // sheet.width
        if end > sheet.size or not all(sheet.is_writable[start:end]):
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        for item in sheet.within(start, end):
            if not item.is_held:  # what is not written of a value stays as it was shown
                self._move(sheet, item, self._second())
                item.is_held = True
        sheet.data[start * sheet.width : end * sheet.width] = data
        return None

    def _move(self, sheet: _Sheet, item: Item, second: float) -> None:
        item.moved = second
        try:
            data = item.pack(item.motion(second))
        except ValueError:  # a sentinel, say: it stays a step longer as it was
            return
        self._put(sheet, item, data)

    def _put(self, sheet: _Sheet, item: Item, data: bytes) -> None:
        at = item.start * sheet.width
        if item.table.has_bits:
            sheet.data[item.start : item.end] = bytes(unpack_bits(data, item.field.count))
            return
        if mask := wire_mask(item.field):  # others have the other bits of the register
            word = int.from_bytes(sheet.data[at : at + 2], "big") & ~mask
            data = (word | int.from_bytes(data, "big")).to_bytes(2, "big")
        sheet.data[at : at + len(data)] = data
