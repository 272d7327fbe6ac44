"""Reads parts of a lane in the order of recording and picks the wanted points out of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol, TypeAlias

import msgspec

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point
from gateway.disk.filesystem import File, FileSystem
from gateway.disk.record import Damage, Entry, Position
from gateway.disk.segment import HEADER_BYTES, Scanner, Segment
from gateway.journal import codec
from gateway.journal.boots import Boots
from gateway.journal.codec import Layouts, RecordType
from gateway.journal.placed import LanePlaces
from gateway.journal.places import Chunk, Places, defined_at, entry_at
from gateway.journal.samples import Gap, Sample, Why

READ_BYTES: Final = 1 << 18  # between two pauses
LAST_READ_BYTES: Final = 1 << 15  # where a part ends about here

Wanted: TypeAlias = Callable[[str, str], bool]
"""Whether (device, tag) is asked for."""

Pick: TypeAlias = tuple[tuple[int, Point], ...]
"""Columns of a layout that are wanted; empty for none."""


class Log(Protocol):
    """The segments of a lane as they are known now, oldest first."""

    def segments(self) -> tuple[Segment, ...]:
        """May be called from any thread."""
        ...


class HistoryLane(msgspec.Struct, frozen=True):
    """One lane: where its segments are and what stands where in them."""

    name: str
    log: Log
    places: LanePlaces
    boots: Boots | None = None  # to date what was recorded while our clock was not synchronised


class Part(msgspec.Struct, frozen=True):
    """Chunks [first, last) of a segment."""

    segment: Segment
    places: Places
    first: int
    last: int

    @property
    def chunk(self) -> Chunk:
        """Where it begins."""
        return self.places.chunks[self.first]

    @property
    def limit(self) -> int:
        """About the offset where it ends, never behind it."""
        chunks, committed = self.places.chunks, self.segment.committed
        return min(chunks[self.last].offset, committed) if self.last < len(chunks) else committed

    @property
    def upto(self) -> Position:
        """The last position that can be in it."""
        chunks = self.places.chunks
        return chunks[self.last].after if self.last < len(chunks) else (1 << 32, 0)


class SegmentGone(Exception):
    """It was deleted, or rewritten, since it was known: ask again for what there is now."""


class LaneScan:
    """One pass. Generators yield None after each `READ_BYTES`, so that others get their turn.

    For one worker thread. Files are open only within a part. Raises `OSError`.
    """

    def __init__(
        self,
        lane: HistoryLane,
        *,
        filesystem: FileSystem,
        layouts: Layouts,
        wanted: Wanted,
        report: Callable[[str, Damage], None],
    ) -> None:
        self.bytes_read = 0
        self.position: Position = (0, 0)  # everything of the parts up to here was given out
        self._lane = lane
        self._filesystem = filesystem
        self._layouts = layouts
        self._wanted = wanted
        self._report = report
        self._picks: dict[bytes, tuple[Layout, Pick]] = {}  # of the segment being read
        self._known: dict[bytes, Pick] = {}  # by content, of all segments
        self._last_ns: int | None = None  # our time at the last record
        self._broken: tuple[int, int] | None = None  # position before damage whose end is not seen yet

    def names(self, segment: Segment, places: Places) -> set[str]:
        """The wanted points that are defined in a segment. Raises `SegmentGone`."""
        file = self._open(segment)
        try:
            self._picks = {}
            for layout_id, _ in places.layouts:
                key = layout_id.to_bytes(codec.LAYOUT_ID_BYTES, "little")
                if key not in self._picks:
                    self._look_up(file, segment, places, key, before=segment.committed)
            return {point.name for _layout, pick in self._picks.values() for _column, point in pick}
        finally:
            file.close()

    def read(self, part: Part) -> Iterator[list[Sample] | Gap | None]:
        """The wanted values of each record, gaps, and pauses. Raises `SegmentGone`."""
        segment = part.segment
        file = self._open(segment)
        try:
            self._picks = {}
            scanner = self._scanner(file, part)
            while scanner.offset < segment.committed:
                start = scanner.offset
                size = min(READ_BYTES, max(part.limit - start, LAST_READ_BYTES))
                for entry in scanner.read(segment.committed, size):
                    if entry.stream and entry.position > part.upto:
                        return  # only now is it sure: what is packed together begins at one place
                    if entry.stream and entry.position <= part.chunk.after:
                        continue
                    if (gap := self._mend(entry)) is not None:
                        yield gap
                    if (found := self._take(file, entry, part)) is not None:
                        yield found
                for damage in scanner.damage:
                    self._damaged(damage, part)
                scanner.damage.clear()
                self.bytes_read += scanner.offset - start
                self.position = max(self.position, scanner.after)
                yield None
        finally:
            file.close()

    @staticmethod
    def _scanner(file: File, part: Part) -> Scanner:
        segment, offset = part.segment, part.chunk.offset
        known = entry_at(file, offset, segment.salt) if part.first else None
        if known is None or known.position < segment.after:  # nothing sound there: from the start
            offset = HEADER_BYTES
        return Scanner(file, name=segment.name, salt=segment.salt, after=segment.after, offset=offset)

    def end(self, at_ns: int) -> Gap | None:
        """Nothing more is read: the gap whose end was not seen reaches to `at_ns`."""
        return self._gap(at_ns) if self._broken is not None else None

    def _open(self, segment: Segment) -> File:
        try:
            return self._filesystem.open_read(segment.path)
        except FileNotFoundError:
            raise SegmentGone(segment.name) from None

    def _take(self, file: File, entry: Entry, part: Part) -> list[Sample] | None:
        if entry.time_ns:
            self._last_ns = entry.time_ns
        if not entry.stream:
            if entry.type == RecordType.LAYOUT:
                self._define(entry)
            return None
        layout_id = entry.body[: codec.LAYOUT_ID_BYTES]
        known = self._picks.get(layout_id)
        if known is None:
            self._look_up(file, part.segment, part.places, layout_id, before=entry.offset)
            known = self._picks.get(layout_id)
        if known is None:
            self._unreadable(entry, part, "the definition of its layout is damaged")
            return None
        layout, pick = known
        if not pick:
            return None
        try:
            batch = codec.decode_batch(entry, layout)
        except (msgspec.DecodeError, ValueError) as error:
            self._unreadable(entry, part, f"it cannot be decoded: {error}")
            return None
        if batch.time_quality and self._lane.boots is not None:
            self._lane.boots.date(batch)
        return samples(batch, pick)

    def _look_up(
        self, file: File, segment: Segment, places: Places, layout_id: bytes, *, before: int
    ) -> None:
        key = int.from_bytes(layout_id, "little")
        for entry in defined_at(file, places.layouts, key, before=before, salt=segment.salt):
            self._define(entry)

    def _define(self, entry: Entry) -> None:
        try:
            layout_id, content, _version = codec.decode_definition(entry.body)
            layout = self._layouts.get(content)
        except (msgspec.DecodeError, ValueError):
            return  # what it defines is quarantined where it is met
        pick = self._known.get(content)
        if pick is None:
            points = enumerate(layout.points)
            pick = tuple((column, point) for column, point in points if self._wanted(point.device, point.tag))
            self._known[content] = pick
        self._picks[layout_id] = (layout, pick)

    # Damage

    def _unreadable(self, entry: Entry, part: Part, reason: str) -> None:
        epoch, seq = entry.position
        length = entry.end - entry.offset
        self._damaged(
            Damage(part.segment.name, entry.offset, length, (epoch, seq - 1), (epoch, seq + 1), reason), part
        )

    def _damaged(self, damage: Damage, part: Part) -> None:
        self._report(self._lane.name, damage)
        if damage.before is not None and damage.before <= part.chunk.after:
            return  # before what is asked for
        if self._broken is None:
            self._broken = max(damage.after, part.chunk.after)

    def _mend(self, entry: Entry) -> Gap | None:
        """The first record behind damage says how long the gap is."""
        return self._gap(entry.time_ns) if self._broken is not None and entry.time_ns else None

    def _gap(self, to_ns: int) -> Gap:
        epoch, seq = self._broken or (0, 0)
        self._broken = None
        from_ns = to_ns if self._last_ns is None else self._last_ns
        return Gap(
            key=(epoch, seq, 1 << 30), from_ns=from_ns, to_ns=to_ns, why=Why.DAMAGED, lane=self._lane.name
        )


def samples(batch: Batch, pick: Pick) -> list[Sample]:
    """The picked values of a batch, in its order."""
    if batch.columns is None:
        rows = [(column, point) for column, point in pick]
    else:
        points = dict(pick)
        rows = [(row, points[column]) for row, column in enumerate(batch.columns) if column in points]
    values, quality, source = batch.values, batch.quality, batch.source_time_ns
    time_quality, missing = batch.time_quality, batch.missing
    received_ns = batch.received_ns if batch.dated_ns is None else batch.dated_ns
    found: list[Sample] = []
    for row, point in rows:
        time_ns = source[row] if isinstance(source, tuple) else source
        found.append(
            Sample(
                key=(batch.epoch, batch.seq, row),
                point=point,
                time_ns=received_ns if time_ns is None else time_ns,
                is_device_time=time_ns is not None,
                received_ns=received_ns,
                monotonic_ns=batch.monotonic_ns,
                value=values[row],
                quality=quality[row] if isinstance(quality, tuple) else quality,
                time_quality=time_quality[row] if isinstance(time_quality, tuple) else time_quality,
                missing=missing[row] if isinstance(missing, tuple) else missing,
            )
        )
    return found
