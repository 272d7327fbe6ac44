"""The registers of one unit of a server: points of the gateway, shown as they are when they are asked for.

Kept as bytes that are made when a value changed, so that answering a request is a slice. Beside each item
stands what reading it gets: data, or the exception that says why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from drivers.modbus.encode import wire_mask
from drivers.modbus.field import Field
from drivers.modbus.pack import Pack, compile_pack
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.core.point import Layout, Point, Value
from gateway.core.quality import BAD, COMM_LOST, LEVEL_MASK, NOT_YET_READ, STALE, UNCERTAIN, Quality, worst

_PAGE_SHIFT: Final = 7  # a page of 128 items: a request looks at few
_SHOWN: Final = 1  # anything above is an exception code, shifted
_CODE_SHIFT: Final = 1


class Snapshot(Protocol):
    """What the image knows of one layout now."""

    change: int  # grows with each update
    values: tuple[Value, ...]
    quality: Quality | tuple[Quality, ...]
    monotonic_ns: int | list[int]  # when it was read; by column where parts of it come by themselves


Look = Callable[[Layout], Snapshot]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One point in one table."""

    point: Point
    layout: Layout
    column: int
    table: Table
    field: Field
    sentinel: bytes | None = None  # shown in place of a bad value; None: an exception
    holds: bool = False  # a bad value leaves the last good one in place, as its quality register tells
    quality_at: int | None = None  # a register of the same table: 0 good, 1 uncertain, 2 bad
    is_writable: bool = False

    @property
    def start(self) -> int:
        """Its first item."""
        return self.field.start

    @property
    def end(self) -> int:
        """The item behind it."""
        return self.field.start + self.field.count


class Write(NamedTuple):
    """One value that a client wants written."""

    point: Point
    value: Value


class _Item:
    __slots__ = ("code", "is_now", "mask", "pack", "served", "shown")

    def __init__(self, served: Served) -> None:
        self.served = served
        self.pack: Pack = compile_pack(served.field)
        self.mask = wire_mask(served.field)
        self.code = ExceptionCode.SERVER_DEVICE_FAILURE << _CODE_SHIFT  # nothing was read yet
        self.shown = b""
        self.is_now = False  # what is shown is the value as it is, not one held or a sentinel


class _Group:
    """The items of one layout in one table."""

    __slots__ = ("change", "is_old", "items", "layout", "quality", "stale_ns", "values")

    def __init__(self, layout: Layout, stale_ns: int) -> None:
        self.layout = layout
        self.stale_ns = stale_ns  # how old it may be; 0: any age
        self.is_old = False
        self.items: list[_Item] = []
        self.change = -1
        self.values: tuple[Value, ...] = ()
        self.quality: Quality | tuple[Quality, ...] = 0


class Sheet:
    """One table of one unit. Raises nothing: a span that is not served is an exception code."""

    def __init__(
        self,
        table: Table,
        served: Iterable[Served],
        *,
        fills_gaps: bool = False,
        stale_ns: Mapping[Layout, int] | None = None,
    ) -> None:
        """`fills_gaps`: what lies between served items reads as 0, for clients that read in blocks.

        `stale_ns`: how old what was read of a layout may be; it is stale then, whatever its quality says.
        """
        self._stale_ns: Final = stale_ns or {}
        self._table: Final = table
        items = sorted((_Item(one) for one in served), key=lambda item: item.served.start)
        self._items: Final = items
        ends = [item.served.end for item in items]
        ends += [at + 1 for item in items if (at := item.served.quality_at) is not None]
        self._size: Final = max(ends, default=0)
        self._width: Final = 1 if table.has_bits else 2
        self._data: Final = bytearray(self._size * self._width)
        self._states: Final = bytearray(self._size)  # by item
        self._owners: dict[int, list[_Item]] = {}  # of registers that several items share
        self._pages: dict[int, list[_Group]] = {}
        if fills_gaps and items:
            first = items[0].served.start
            self._states[first:] = bytes((_SHOWN,)) * (self._size - first)
        self._lay()

    def __len__(self) -> int:
        """Points in it."""
        return len(self._items)

    def points(self) -> list[Served]:
        """What is in it, by address."""
        return [item.served for item in self._items]

    def _lay(self) -> None:
        groups: dict[Layout, _Group] = {}
        for item in self._items:
            served = item.served
            stale_ns = self._stale_ns.get(served.layout, 0)
            group = groups.setdefault(served.layout, _Group(served.layout, stale_ns))
            group.items.append(item)
            if item.mask:
                self._owners.setdefault(served.start, []).append(item)
            self._mark(item)
            addresses = [served.start, served.end - 1]
            if served.quality_at is not None:
                self._states[served.quality_at] = _SHOWN
                addresses.append(served.quality_at)
            for page in {address >> _PAGE_SHIFT for address in addresses}:
                of_page = self._pages.setdefault(page, [])
                if group not in of_page:
                    of_page.append(group)

    # Reading

    def read(self, start: int, count: int, look: Look, now_ns: int) -> bytes | bytearray | ExceptionCode:
        """The items' bytes as they are now: two for a register, one (0 or 1) for a coil."""
        end = start + count
        if end > self._size:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        self._look(start, end, look, now_ns)
        if self._states.count(_SHOWN, start, end) != count:
            states = self._states[start:end]
            if not min(states):
                return ExceptionCode.ILLEGAL_DATA_ADDRESS
            return ExceptionCode(max(states) >> _CODE_SHIFT)
        return self._data[start * self._width : end * self._width]

    def _look(self, start: int, end: int, look: Look, now_ns: int) -> None:
        for page in range(start >> _PAGE_SHIFT, (end - 1 >> _PAGE_SHIFT) + 1):
            for group in self._pages.get(page, ()):
                snapshot = look(group.layout)
                is_old = _is_old(group, snapshot, now_ns)
                if snapshot.change != group.change or is_old is not group.is_old:
                    self._refresh(group, snapshot, is_old=is_old)

    def _refresh(self, group: _Group, snapshot: Snapshot, *, is_old: bool) -> None:
        values, quality = snapshot.values, snapshot.quality
        before, quality_before = group.values, group.quality
        is_new = not before or is_old is not group.is_old
        group.is_old = is_old
        for item in group.items:
            column = item.served.column
            value = values[column]
            now = quality[column] if isinstance(quality, tuple) else quality
            then = quality_before[column] if isinstance(quality_before, tuple) else quality_before
            if is_new or now != then or value is not before[column]:
                self._show(item, value, worst(now, UNCERTAIN | STALE) if is_old else now)
        group.change, group.values, group.quality = snapshot.change, values, quality

    def _show(self, item: _Item, value: Value, quality: Quality) -> None:
        served = item.served
        # An old value is not shown as if it were fresh: only a quality register can tell.
        is_unmarked = quality & STALE and served.quality_at is None
        if quality & BAD or value is None or is_unmarked:
            self._show_bad(item, quality)
        else:
            try:
                data = item.pack(value)
            except ValueError:  # the register cannot hold it: no register shows another number
                self._show_bad(item, BAD)
                quality = BAD
            else:
                item.code = _SHOWN
                item.is_now = not quality & STALE
                self._put(item, data)
        self._mark(item)
        if served.quality_at is not None:
            level = min(2, (quality & LEVEL_MASK) // UNCERTAIN)
            at = served.quality_at * 2
            self._data[at : at + 2] = bytes((0, level))

    def _show_bad(self, item: _Item, quality: Quality) -> None:
        served = item.served
        item.is_now = False
        if served.holds and item.shown:
            item.code = _SHOWN
        elif served.sentinel is not None:
            item.code = _SHOWN
            self._put(item, served.sentinel)
        else:
            gone = quality & (COMM_LOST | NOT_YET_READ | STALE)
            code = (
                ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND
                if gone
                else ExceptionCode.SERVER_DEVICE_FAILURE
            )
            item.code = code << _CODE_SHIFT

    def _put(self, item: _Item, data: bytes) -> None:
        item.shown = data
        served = item.served
        if self._table.has_bits:
            bits = int.from_bytes(data, "little")
            self._data[served.start : served.end] = bytes(
                [bits >> place & 1 for place in range(served.field.count)]
            )
            return
        at = served.start * 2
        if item.mask:
            mask = item.mask
            word = int.from_bytes(self._data[at : at + 2], "big") & ~mask | int.from_bytes(data, "big")
            data = word.to_bytes(2, "big")
        self._data[at : at + len(data)] = data

    def _mark(self, item: _Item) -> None:
        served = item.served
        code = item.code
        if item.mask:
            code = max(one.code for one in self._owners[served.start])
        self._states[served.start : served.end] = bytes((code,)) * (served.end - served.start)

    # Writing

    def writes(
        self, start: int, data: bytes, decode: Callable[[Served, bytes], Value], look: Look, now_ns: int
    ) -> list[Write] | ExceptionCode:
        """What a client wants: `data` as `read` gives it. All of the items must be writable, and whole.

        A register that several points share becomes a write of those whose bits change, and of those whose
        bits are not known now. What stands for no value is none: a client that reads a block, changes a part
        and writes all of it back must not make it one (exception 3).
        """
        end = start + len(data) // self._width
        self._look(start, min(end, self._size), look, now_ns)
        found: list[Write] = []
        covered = start
        for item in self._items:
            served = item.served
            if served.end <= start or served.start >= end:
                continue
            if served.start < start or served.end > end or served.start > covered or not served.is_writable:
                return ExceptionCode.ILLEGAL_DATA_ADDRESS
            covered = served.end
            own = data[(served.start - start) * self._width : (served.end - start) * self._width]
            if item.mask:
                word = int.from_bytes(own, "big") & item.mask
                if item.is_now and word == int.from_bytes(item.shown, "big"):
                    continue
                own = word.to_bytes(2, "big")
            if own == served.sentinel:
                return ExceptionCode.ILLEGAL_DATA_VALUE
            found.append(Write(served.point, decode(served, own)))
        return found if covered == end else ExceptionCode.ILLEGAL_DATA_ADDRESS


def _is_old(group: _Group, snapshot: Snapshot, now_ns: int) -> bool:
    read_ns = snapshot.monotonic_ns
    return bool(group.stale_ns) and isinstance(read_ns, int) and now_ns - read_ns > group.stale_ns


def overlap(served: Sequence[Served]) -> tuple[Served, Served] | None:
    """Two points that want the same item of one table; None where none do."""
    taken: dict[tuple[Table, int], list[tuple[int, Served]]] = {}
    for one in served:
        mask = one.field.mask or 0xFFFF
        places = [(at, mask) for at in range(one.start, one.end)]
        if one.quality_at is not None:
            places.append((one.quality_at, 0xFFFF))
        for at, bits in places:
            others = taken.setdefault((one.table, at), [])
            for other_bits, other in others:
                if other_bits & bits:
                    return other, one
            others.append((bits, one))
    return None
