"""A durable log: records in segment files, many of them committed by one write and one sync.

The owner's thread appends and decides where a segment ends, so that it knows which records share one;
it does no I/O. The writer's thread follows behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.core.errors import InvariantError, LocalProtocolError, StorageError
from gateway.disk.filesystem import FileSystem
from gateway.disk.record import BODY_BYTES_MAX, STARTS, VOID, Damage, Position, encode
from gateway.disk.recovery import Recovered, Visit, recover, scan
from gateway.disk.segment import FORMAT, HEADER_BYTES, Segment, encode_footer, encode_header, file_name
from gateway.disk.writer import Group, LogSettings, Notify, Roll, State, Writer


def random_salt() -> int:
    """Different for every segment, so that old bytes on the disk never pass for new records."""
    return int.from_bytes(os.urandom(4))


class Log:
    """Segments of one lane in one directory.

    `open`, then `start` (or call `step` yourself), then `append`; `close` at the end. Only `segments` may be
    called from any thread.
    """

    def __init__(
        self,
        directory: Path,
        *,
        lane: int,
        filesystem: FileSystem,
        settings: LogSettings,
        notify: Notify,
        wall_ns: Callable[[], int],
        salt: Callable[[], int] = random_salt,
    ) -> None:
        self.end: Position = (0, 0)  # of the last record appended
        self.writer = Writer(directory, filesystem=filesystem, settings=settings, notify=notify)
        self._directory = directory
        self._lane = lane
        self._filesystem = filesystem
        self._settings = settings
        self._wall_ns = wall_ns
        self._salt = salt
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        self._index = 0

    def open(self, visit: Visit) -> Recovered:
        """Find what is there, cut what is torn. Blocking. Raises `StorageError`.

        `visit` is called for the records of segments that had to be read: those without a footer.
        """
        try:
            self._filesystem.make_directory(self._directory)
            found = recover(self._filesystem, self._directory, visit)
            self._segments = list(found.segments)
            self._index = found.index_max
            if self._segments:
                self.end = self.writer.committed = max(segment.last for segment in self._segments)
                if not self._segments[-1].sealed:
                    self._active = self._segments[-1]
                    self.writer.adopt(self._active)
        except OSError as error:
            raise StorageError(
                f"{self._directory}: cannot open: {error}: check the disk and its permissions"
            ) from error
        return found

    def scan(self, segment: Segment, visit: Visit) -> list[Damage]:
        """Read one sealed segment. Blocking; before `start`. Raises `StorageError`."""
        try:
            file = self._filesystem.open_read(segment.path)
            try:
                return scan(file, segment, visit)[0]
            finally:
                file.close()
        except OSError as error:
            raise StorageError(f"{segment.path}: cannot read: {error}") from error

    def start(self) -> None:
        """Start the writer's thread."""
        self.writer.start()

    def append(self, kind: int, position: Position, stream: int, time_ns: int, body: bytes) -> Group:
        """Queue one record; no I/O.

        `kind` is the owner's, 1 to 252. Records of stream 0 are the owner's own and may repeat the last
        position; others must be above it. Raises `StorageError` once the log has failed.
        """
        segment = self._active
        if self.writer.failure is not None:
            raise StorageError(str(self.writer.failure))
        if segment is None or kind >= VOID or position < self.end or (stream and position == self.end):
            raise InvariantError(f"{self._directory}: record {position} of type {kind} after {self.end}")
        if len(body) > BODY_BYTES_MAX:
            raise LocalProtocolError(
                f"{self._directory}: record of {len(body)} bytes, at most {BODY_BYTES_MAX}"
            )
        # The writer may take what waits right now: then this record starts a write and does not say so, and
        # a hole in it is told as damage. Never the other way round.
        flags = STARTS if self.writer.is_group_empty() else 0
        data = encode(kind, position, stream, time_ns, body, segment.salt, flags)
        segment.size += len(data)
        segment.planned += len(data)
        segment.count(stream, position, time_ns)
        self.end = position
        return self.writer.put(data, len(data), position)

    @property
    def directory(self) -> Path:
        """Where its segments are."""
        return self._directory

    @property
    def active(self) -> Segment | None:
        """The segment that records are appended to; None asks for `roll`."""
        return self._active

    def is_roll_due(self) -> bool:
        """Whether the segment is full, or there is none."""
        active = self._active
        return active is None or active.size >= self._settings.segment_bytes or active.format != FORMAT

    def roll(self, note: bytes, settled: Callable[[Segment], bytes] | None = None) -> Segment:
        """Seal the segment with the owner's note on it, and begin the next.

        `settled(segment)` gives the note once all the segment's records are written and `Segment.physical`
        tells where, on the writer's thread; without it, `note` is right already.
        """
        old, footer = self._active, b""
        if old is not None:
            footer = encode_footer(old, note)
            old.size += len(footer)
            old.planned += len(footer)
            old.note = note
        self._index += 1
        salt = self._salt()
        path = self._directory / file_name(self._index, salt)
        new = Segment(path=path, index=self._index, salt=salt, after=self.end, last=self.end)
        header = encode_header(new, lane=self._lane, created_ns=self._wall_ns())
        self._segments.append(new)
        self._active = new
        self.writer.put(Roll(old, footer, new, header, settled), len(footer) + HEADER_BYTES, self.end)
        return new

    def delete_first(self) -> None:
        """Forget the oldest segment, which must not be the active one, and unlink it soon."""
        if len(self._segments) < 2:
            raise InvariantError(f"{self._directory}: the active segment cannot be deleted")
        self.writer.delete(self._segments.pop(0).path)

    def replace(self, old: Sequence[Segment], new: Segment) -> None:
        """`new`, which is durable, stands for neighbours from now on; they are unlinked soon."""
        at = next(place for place, segment in enumerate(self._segments) if segment is old[0])
        if any(a is not b for a, b in zip(old, self._segments[at:-1], strict=False)):
            raise InvariantError(f"{self._directory}: {new.name} does not stand for sealed neighbours")
        # One assignment: readers in other threads see all of it or nothing.
        self._segments = [*self._segments[:at], new, *self._segments[at + len(old) :]]
        for segment in old:
            self.writer.delete(segment.path)

    def segments(self) -> tuple[Segment, ...]:
        """Oldest first."""
        return tuple(self._segments)

    def waiting_bytes(self) -> int:
        """Accepted and not yet durable."""
        return self.writer.bytes_put - self.writer.bytes_durable

    @property
    def waiting_bytes_max(self) -> int:
        """Above this it pushes back."""
        return self._settings.buffer_bytes_max

    def is_blocked(self) -> bool:
        """Whether more should not be appended: the disk is full, or slower than what comes."""
        return (
            self.writer.state is not State.RUNNING or self.waiting_bytes() > self._settings.buffer_bytes_max
        )

    def close(self) -> None:
        """Make durable what waits. Raises `StorageFull` or `StorageError` where that failed."""
        self.writer.close()
