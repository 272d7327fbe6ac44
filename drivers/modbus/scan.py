"""One scan class of one device: its requests, and how their answers become one batch."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias, cast

from gateway.core import quality as q
from gateway.core.batch import Batch
from gateway.core.point import Layout, Value
from gateway.core.quality import Quality

_SINGLE_MAX: Final = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]

Decode: TypeAlias = Callable[[bytes], tuple[tuple[Value, ...], Quality | tuple[Quality, ...]]]


class BlockRead:
    """One request: its PDU, what it decodes to, and the columns of the layout these values belong to."""

    __slots__ = ("_exact", "block", "columns", "decode", "pdu", "quality", "raw", "singles", "values")

    def __init__(
        self,
        *,
        block: Any,
        pdu: bytes,
        decode: Decode,
        columns: tuple[int, ...],
        singles: tuple[int, ...] = (),
    ) -> None:
        """`singles`: places of float32 values as the device sent them, to be shown without false digits."""
        self.block: Final = block  # as the planner made it
        self.pdu: Final = pdu
        self.decode: Final = decode
        self.columns: Final = columns
        self.singles: Final = singles
        self._exact: tuple[Value, ...] = ()  # as decoded, before false digits were taken off
        self.raw = b""
        self.values: tuple[Value, ...] = ()
        self.quality: Quality | tuple[Quality, ...] = q.GOOD

    def take(self, data: bytes) -> None:
        """An answer came. Equal bytes give the very same tuple, which later comparisons see by identity."""
        if data != self.raw:
            values, self.quality = self.decode(data)
            self.values = self._shortened(values) if self.singles else values
            self.raw = data

    def _shortened(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        """Only what changed is worked on."""
        before, out = self._exact, list(values)
        if before:
            shown = self.values
            places = []
            for place in self.singles:
                if values[place] == before[place]:
                    out[place] = shown[place]
                elif values[place] is not None:
                    places.append(place)
        else:
            places = [place for place in self.singles if values[place] is not None]
        short = shortest_singles([cast("float", values[place]) for place in places])
        for place, value in zip(places, short, strict=True):
            out[place] = value
        self._exact = values
        return tuple(out)

    def fail(self, quality: Quality) -> None:
        """No value could be read."""
        self.values = (None,) * len(self.columns)
        self.quality = quality
        self.raw = b""
        self._exact = ()


class Assembly:
    """Answers of all blocks in, one batch out. Columns that no block reads keep the quality that says why."""

    def __init__(self, layout: Layout) -> None:
        self.layout: Final = layout
        self.blocks: tuple[BlockRead, ...] = ()
        self._missing: dict[int, Quality] = {}
        self._is_whole = False  # the blocks in order are the layout in order
        self._parts: list[tuple[Value, ...]] = []
        self._joined: tuple[Value, ...] = ()

    def set_blocks(self, blocks: Sequence[BlockRead], *, missing: dict[int, Quality]) -> None:
        """Use these requests from now on; `missing`: columns that are not read, with their quality."""
        self.blocks = tuple(blocks)
        self._missing = dict(missing)
        order = [column for block in blocks for column in block.columns]
        self._is_whole = not missing and order == list(range(len(self.layout)))
        self._parts = []

    def batch(self, *, received_ns: int, monotonic_ns: int) -> Batch:
        """The scan as it stands after every block was taken or failed."""
        blocks = self.blocks
        quality: Quality | tuple[Quality, ...]
        if not self._is_whole:
            values, quality = self._scattered()
        elif len(blocks) == 1:
            values, quality = blocks[0].values, blocks[0].quality
        else:
            values, quality = self._joined_values(), self._joined_quality()
        return Batch(
            layout=self.layout,
            values=values,
            quality=quality,
            received_ns=received_ns,
            monotonic_ns=monotonic_ns,
        )

    def lost(self, *, received_ns: int, monotonic_ns: int, quality: Quality) -> Batch:
        """Nothing can be read: every point is bad, and no old value is shown."""
        for block in self.blocks:
            block.fail(quality)
        return Batch(
            layout=self.layout,
            values=(None,) * len(self.layout),
            quality=quality,
            received_ns=received_ns,
            monotonic_ns=monotonic_ns,
        )

    def _joined_values(self) -> tuple[Value, ...]:
        parts = [block.values for block in self.blocks]
        before = self._parts
        if len(before) != len(parts) or any(a is not b for a, b in zip(parts, before, strict=True)):
            self._parts = parts
            self._joined = tuple(chain.from_iterable(parts))
        return self._joined

    def _joined_quality(self) -> Quality | tuple[Quality, ...]:
        first = self.blocks[0].quality
        if first.__class__ is int and all(block.quality == first for block in self.blocks):
            return first
        return tuple(chain.from_iterable(_column(block) for block in self.blocks))

    def _scattered(self) -> tuple[tuple[Value, ...], tuple[Quality, ...]]:
        count = len(self.layout)
        values: list[Value] = [None] * count
        quality = [q.BAD | q.NOT_YET_READ] * count
        for column, why in self._missing.items():
            quality[column] = why
        for block in self.blocks:
            for column, value, own in zip(block.columns, block.values, _column(block), strict=True):
                values[column] = value
                quality[column] = own
        return tuple(values), tuple(quality)


def _column(block: BlockRead) -> tuple[Quality, ...]:
    quality = block.quality
    return quality if isinstance(quality, tuple) else (quality,) * len(block.columns)


def shortest_singles(values: Sequence[float]) -> list[float]:
    """For each float32 the float whose shortest decimal is also the shortest one that means the same float32.

    231.32960510253906 becomes 231.3296: both are the same 32 bits, and the device never said more. All at
    once with seven digits, then those for which that is not enough.
    """
    short = _rounded(values, 7)
    wrong = [
        place
        for place, (one, value) in enumerate(zip(_as_single(short), values, strict=True))
        if one != value
    ]
    if wrong:
        rest = [values[place] for place in wrong]
        eight = _rounded(rest, 8)
        nine = _rounded(rest, 9)  # nine digits tell every float32 from its neighbours
        checked = _as_single(eight)
        for number, place in enumerate(wrong):
            short[place] = eight[number] if checked[number] == rest[number] else nine[number]
    return short


def _rounded(values: Sequence[float], digits: int) -> list[float]:
    return [float(text) for text in ((f"%.{digits}g " * len(values)) % tuple(values)).split()]


def _as_single(values: Sequence[float]) -> tuple[float, ...]:
    """Rounded to the nearest float32; what is too large for one becomes the largest."""
    form = f"<{len(values)}f"
    try:
        return struct.unpack(form, struct.pack(form, *values))
    except OverflowError:
        within = [min(max(value, -_SINGLE_MAX), _SINGLE_MAX) for value in values]
        return struct.unpack(form, struct.pack(form, *within))
