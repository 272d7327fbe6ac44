"""Where things stand in a segment: chunks with the times in them, definitions, runs. Kept in its footer.

So a reader in the middle of a segment starts there, and a question about a time reads only what can hold it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from gateway.core.batch import Times
from gateway.core.quality import Quality
from gateway.disk import record
from gateway.disk.filesystem import File
from gateway.disk.record import Entry, Position
from gateway.disk.segment import Scanner, Segment

CHUNK_BYTES: Final = 1 << 18  # a segment of the usual size has 64
_ENTRY_READ_BYTES: Final = 4096  # most definitions are read at once
_ABOUT_BYTES: Final = 1 << 18  # of a packed segment: within so many the definition stands

Span: TypeAlias = tuple[int, int]
"""(lowest, highest) time of values, ns since 1970."""

ANY_TIME: Final[Span] = (-(1 << 63), (1 << 63) - 1)
"""Of values whose clock was not to be trusted: what is dated later may lie anywhere."""


class Chunk(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Records from `offset` on; all data records in it are above `after`."""

    offset: int
    after: Position
    low_ns: int  # of the values in it: the device's time where there is one, else ours
    high_ns: int


class Run(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One epoch in one segment, by our wall clock: first and last sign of life."""

    epoch: int
    first_ns: int
    last_ns: int


class Places(msgspec.Struct, array_like=True, frozen=True):
    """Of one segment. Offsets are hints: whoever uses one looks whether a sound record stands there."""

    chunks: tuple[Chunk, ...]
    layouts: tuple[tuple[int, int], ...]  # (id as a number, offset of its definition); again in each run
    streams: tuple[tuple[int, int], ...]  # (tag, offset of its definition)
    runs: tuple[Run, ...]

    def settled(self, segment: Segment) -> Places:
        """With the offsets in the file, where they were planned and its records are packed."""
        if not segment.packed:
            return self
        at = segment.physical
        return Places(
            tuple([Chunk(at(one.offset), one.after, one.low_ns, one.high_ns) for one in self.chunks]),
            tuple([(key, at(offset)) for key, offset in self.layouts]),
            tuple([(key, at(offset)) for key, offset in self.streams]),
            self.runs,
        )

    def seek(self, position: Position) -> Chunk | None:
        """The chunk behind whose beginning everything above `position` stands; None for the start."""
        place = bisect_right(self.chunks, position, key=lambda chunk: chunk.after)
        return self.chunks[place - 1] if place else None


def value_times(source: Times, time_quality: Quality | tuple[Quality, ...], received_ns: int) -> Span:
    """Between which times the values of a batch lie."""
    if time_quality:
        return ANY_TIME
    if source is None:
        return received_ns, received_ns
    if isinstance(source, int):
        return source, source
    times = [received_ns if time is None else time for time in source]
    return (min(times), max(times)) if times else (received_ns, received_ns)


class PlaceBook:
    """Fed with every record of a segment in order, on one thread; `places` may be called on any."""

    def __init__(self) -> None:
        self._closed: list[Chunk] = []
        self._open: tuple[int, Position, int, int] | None = None
        self._layouts: list[tuple[int, int]] = []
        self._streams: list[tuple[int, int]] = []
        self._runs: list[Run] = []

    def add_batch(self, offset: int, after: Position, span: Span) -> None:
        """A data record begins at `offset`; `after`: the position before it."""
        chunk = self._open
        if chunk is None:
            self._open = (offset, after, *span)
        elif offset - chunk[0] < CHUNK_BYTES:
            if span[0] < chunk[2] or span[1] > chunk[3]:
                self._open = (chunk[0], chunk[1], min(chunk[2], span[0]), max(chunk[3], span[1]))
        else:
            self._closed.append(Chunk(*chunk))
            self._open = (offset, after, *span)

    def add_layout(self, layout_id: bytes, offset: int) -> None:
        """A layout is defined there."""
        self._layouts.append((int.from_bytes(layout_id, "little"), offset))

    def add_stream(self, tag: int, offset: int) -> None:
        """A stream is defined there."""
        self._streams.append((tag, offset))

    def add_life(self, epoch: int, wall_ns: int) -> None:
        """The gateway ran, and its clock said so."""
        runs = self._runs
        if runs and runs[-1].epoch == epoch:
            runs[-1] = Run(epoch, runs[-1].first_ns, wall_ns)
        else:
            runs.append(Run(epoch, wall_ns, wall_ns))

    def places(self) -> Places:
        """As of now; never less than what was committed before the call."""
        chunk = self._open
        closed = tuple(self._closed)
        if chunk is not None and not (closed and closed[-1].offset >= chunk[0]):
            closed = (*closed, Chunk(*chunk))
        return Places(closed, tuple(self._layouts), tuple(self._streams), tuple(self._runs))


def defined_at(
    file: File, offsets: tuple[tuple[int, int], ...], key: int, *, before: int, salt: int
) -> Iterator[Entry]:
    """Sound definitions near where those of `key` stand before an offset, its own among them.

    One that stands behind a record is never taken for it. Raises `OSError`.
    """
    for known, offset in offsets:
        if known != key or offset >= before:
            continue
        entry = entry_at(file, offset, salt)
        if entry is not None and entry.type != record.BLOCK and not entry.stream:
            yield entry
        elif entry is not None:  # packed, or known only about
            yield from _controls(file, offset, min(before, offset + _ABOUT_BYTES), salt)


def _controls(file: File, offset: int, limit: int, salt: int) -> Iterator[Entry]:
    scanner = Scanner(file, name="", salt=salt, after=(0, 0), offset=offset)
    while scanner.offset < limit and not scanner.damage:
        found = scanner.read(file.size(), _ENTRY_READ_BYTES)
        yield from (entry for entry in found if not entry.stream and entry.offset < limit)


def entry_at(file: File, offset: int, salt: int) -> Entry | None:
    """The sound record at `offset`; None where none stands there. Raises `OSError`."""
    data = file.pread(_ENTRY_READ_BYTES, offset)
    length = record.length_at(data, 0)
    if length is None:
        return None
    if length > len(data):
        data = file.pread(length, offset)
    return record.entry_at(data, 0, salt, offset)
