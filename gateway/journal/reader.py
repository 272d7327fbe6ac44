"""Reads a lane back, in order, while it is being written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from gateway.core.batch import Batch
from gateway.core.errors import StorageError
from gateway.core.point import Layout
from gateway.disk.filesystem import File, FileSystem
from gateway.disk.record import Damage, Entry, Position
from gateway.disk.segment import HEADER_BYTES, Scanner, Segment
from gateway.journal import codec
from gateway.journal.acknowledged import Range, covers
from gateway.journal.boots import Boots
from gateway.journal.codec import Layouts, RecordType
from gateway.journal.cursor import Cursor
from gateway.journal.placed import LanePlaces
from gateway.journal.places import Places, defined_at, entry_at

READ_BYTES: Final = 1 << 18


class Segments(Protocol):
    """What is read: a log that is being written, or what was found of one that is not."""

    def segments(self) -> tuple[Segment, ...]:
        """Oldest first."""
        ...


class Record(msgspec.Struct, frozen=True, gc=False):
    """One committed batch. Acknowledge it with `cursor.acknowledge(record.after, record.position)`."""

    after: Position  # of the record this reader gave out before, or where it started
    position: Position
    stream: str
    batch: Batch
    config_version: str  # of the configuration it was recorded under
    size: int  # bytes on disk


class Reader:
    """One pass over a lane from a position on.

    `read` blocks on files and is made to be called in a worker thread, from one thread at a time; it sees
    committed records only. The first `read` starts at a place known near `after`, where the lane says what
    stands where. The other fields may be read from any thread.
    """

    def __init__(
        self,
        log: Segments,
        *,
        filesystem: FileSystem,
        layouts: Layouts,
        after: Position,
        cursor: Cursor | None,
        report: Callable[[str, Damage], None],
        places: LanePlaces | None = None,
        boots: Boots | None = None,
    ) -> None:
        self.position = after  # everything up to here was read
        self.is_at_end = False  # the last `read` came to the end of what is committed
        self._log = log
        self._filesystem = filesystem
        self._layouts = layouts
        self._cursor = cursor
        self._wanted = {codec.stream_tag(name): name for name in cursor.streams} if cursor is not None else {}
        self._resume_at: tuple[int, Position] = (0, after)  # offset and position in the segment, when closed
        self._report = report
        self._lane_places = places
        self._boots = boots  # to date what was recorded while our clock was not synchronised
        self._places: Places | None = None  # of the segment
        self._chain = after  # position of the last record given out
        self._after = after  # nothing up to here is given out (again)
        self._segment: Segment | None = None
        self._file: File | None = None
        self._scanner: Scanner | None = None
        self._streams: dict[int, str] = {}
        self._definitions: dict[bytes, tuple[Layout, str]] = {}

    def scanned(self) -> tuple[Position, Position]:
        """(after, upto]: what was read behind the last record and had nothing for this reader.

        Acknowledge it too once a read came to the end, else an idle cursor keeps its low mark there.
        """
        return self._chain, max(self._chain, self.position)

    def read(self, max_bytes: int = READ_BYTES, *, skip: tuple[Range, ...] = ()) -> list[Record]:
        """The next records, from about `max_bytes` of the lane; `skip`: ranges not wanted (`cursor.ranges`).

        Empty where none of these bytes is for this reader; read on until `is_at_end`. Raises `StorageError`.
        """
        records: list[Record] = []
        self.is_at_end = False
        try:
            while max_bytes > 0 and not records:
                scanner = self._scanner or self._resume() or self._next_segment()
                segment = self._segment
                if scanner is None or segment is None:
                    self.is_at_end = True
                    break
                is_sealed, limit = segment.sealed, segment.committed
                if scanner.offset >= limit:
                    if not is_sealed:
                        self.is_at_end = True
                        break
                    self._leave(segment)
                    continue
                start = scanner.offset
                for entry in scanner.read(limit, max_bytes):
                    self._take(entry, segment, skip, records)
                for damage in scanner.damage:
                    self._report(segment.name, damage)
                scanner.damage.clear()
                max_bytes -= scanner.offset - start
        except OSError as error:
            raise StorageError(f"{self._segment and self._segment.path}: cannot read: {error}") from error
        return records

    def close(self) -> None:
        """Give the open file back. `read` opens it again."""
        if self._file is not None:
            self._file.close()
        if self._scanner is not None:
            self._resume_at = (self._scanner.offset, self._scanner.after)
        self._file = self._scanner = None

    def _leave(self, segment: Segment) -> None:
        self.close()
        self._after = max(self._after, segment.last)
        self.position = max(self.position, segment.last)
        self._segment = None

    def _resume(self) -> Scanner | None:
        segment = self._segment
        if segment is None:
            return None
        offset, after = self._resume_at
        try:
            self._file = self._filesystem.open_read(segment.path)
        except FileNotFoundError:  # deleted, or rewritten: what has its place is found by position
            self._segment = None
            self._after = max(self._after, self.position)
            return None
        self._scanner = Scanner(self._file, name=segment.name, salt=segment.salt, after=after, offset=offset)
        return self._scanner

    def _next_segment(self) -> Scanner | None:
        lost: set[str] = set()
        while True:
            segment = self._first_above(lost)
            if segment is None or not segment.committed:
                return None
            try:
                self._file = self._filesystem.open_read(segment.path)
            except FileNotFoundError:  # passed, dropped or rewritten while we came here: what is there now?
                lost.add(segment.name)
                continue
            self._segment = segment
            self._streams, self._definitions = dict(self._wanted), {}
            offset, after = self._start(segment, self._file)
            self._scanner = Scanner(
                self._file, name=segment.name, salt=segment.salt, after=after, offset=offset
            )
            return self._scanner

    def _first_above(self, lost: set[str]) -> Segment | None:
        for segment in self._log.segments():
            if segment.name not in lost and (segment.last > self._after or not segment.sealed):
                return segment
        return None

    def _start(self, segment: Segment, file: File) -> tuple[int, Position]:
        """Where to begin in it, and the position before: not at its start where more is known."""
        self._places = None
        if self._lane_places is None or self._after <= segment.after:
            return HEADER_BYTES, segment.after
        places = self._lane_places.of(segment)
        chunk = None if places is None else places.seek(self._after)
        if chunk is None or chunk.offset >= segment.committed:
            return HEADER_BYTES, segment.after
        entry = entry_at(file, chunk.offset, segment.salt)
        if entry is None or entry.position < segment.after:
            return HEADER_BYTES, segment.after
        self._places = places
        if entry.position > chunk.after:
            return chunk.offset, chunk.after
        return chunk.offset, segment.after  # packed together with what stands before the place

    def _look_up(
        self,
        offsets: tuple[tuple[int, int], ...],
        key: int,
        before: int,
        is_known: Callable[[], bool],
    ) -> None:
        """Read the definition that stands before the place where we began."""
        segment, file = self._segment, self._file
        if segment is not None and file is not None:
            for entry in defined_at(file, offsets, key, before=before, salt=segment.salt):
                self._define(entry, segment)
                if is_known():
                    return

    def _take(self, entry: Entry, segment: Segment, skip: tuple[Range, ...], records: list[Record]) -> None:
        position = entry.position
        if not entry.stream:
            self._define(entry, segment)
        elif position > self._after and (self._cursor is None or entry.stream in self._wanted):
            low = self._cursor.low if self._cursor is not None else self._after
            if position > low and not (skip and covers(skip, position)):
                record = self._record(entry, segment)
                if record is not None:
                    records.append(record)
                    self._chain = position
        if position > self.position:
            self.position = position

    def _record(self, entry: Entry, segment: Segment) -> Record | None:
        layout_id, places = entry.body[: codec.LAYOUT_ID_BYTES], self._places
        if places is not None and layout_id not in self._definitions:
            key, known = int.from_bytes(layout_id, "little"), self._definitions
            self._look_up(places.layouts, key, entry.offset, lambda: layout_id in known)
        definition = self._definitions.get(layout_id)
        if definition is None:
            self._quarantine(entry, segment, "the definition of its layout is damaged")
            return None
        layout, version = definition
        if places is not None and entry.stream not in self._streams:
            names = self._streams
            self._look_up(places.streams, entry.stream, entry.offset, lambda: entry.stream in names)
        stream = self._streams.get(entry.stream)
        if stream is None:
            self._quarantine(entry, segment, "the definition of its stream is damaged")
            return None
        try:
            batch = codec.decode_batch(entry, layout)
        except (msgspec.DecodeError, ValueError) as error:
            self._quarantine(entry, segment, f"it cannot be decoded: {error}")
            return None
        if batch.time_quality and self._boots is not None:
            self._boots.date(batch)
        return Record(self._chain, entry.position, stream, batch, version, entry.end - entry.offset)

    def _define(self, entry: Entry, segment: Segment) -> None:
        try:
            if entry.type == RecordType.LAYOUT:
                layout_id, content, version = codec.decode_definition(entry.body)
                self._definitions[layout_id] = (self._layouts.get(content), version)
            elif entry.type == RecordType.STREAM:
                tag, name = codec.decode_stream(entry.body)
                self._streams[tag] = name
        except (msgspec.DecodeError, ValueError) as error:
            self._quarantine(entry, segment, f"definition cannot be decoded: {error}")

    def _quarantine(self, entry: Entry, segment: Segment, reason: str) -> None:
        epoch, seq = entry.position
        length = entry.end - entry.offset
        self._report(
            segment.name,
            Damage(segment.name, entry.offset, length, self.position, (epoch, seq + 1), reason),
        )
