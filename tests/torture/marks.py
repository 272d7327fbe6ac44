"""How far the gateway's disk was when it was killed: marks in a mapped file, which SIGKILL leaves alone.

The gateway under test runs on the production file system with `MarkingFileSystem` around it, which notes what
begins and what is done before and after each call. Nothing else about it is different.
"""

from __future__ import annotations

import enum
import mmap
import struct
from pathlib import Path
from typing import Final

from gateway.core.point import Priority
from gateway.disk.filesystem import File, FileSystem, RealFileSystem
from gateway.disk.record import FOOTER, MARKER
from gateway.disk.segment import parse_name


class Mark(enum.IntEnum):
    """Numbers of one lane. All but places count up; `…_BEGUN` above its partner says: inside."""

    WRITE_BEGUN = 0
    WRITE_SYNCED = 1  # each write is followed by its sync
    ROLL_BEGUN = 2  # the footer of the old segment, or where there is none the new file
    ROLL_DONE = 3  # header and first records of the new one are durable, its name too
    SEGMENT = 4  # index of the segment that is written
    SEGMENT_BYTES = 5  # of it, written at least in part
    SEGMENT_SYNCED = 6  # of it, durable
    NAME_SYNCED = 7  # whether its name is
    COMMITTED_EPOCH = 8  # what the journal's owner was told
    COMMITTED_SEQ = 9
    ACKNOWLEDGED_EPOCH = 10  # low mark of the cursor that the broker's acknowledgements move
    ACKNOWLEDGED_SEQ = 11


_WORD: Final = struct.Struct("<Q")
_LANE_BYTES: Final = len(Mark) * _WORD.size
LANES: Final = tuple(Priority)


class Marks:
    """The mapped file, for the process that writes it and for the one that reads it."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _LANE_BYTES * len(LANES))

    @classmethod
    def create(cls, path: Path) -> Marks:
        """A file of zeros."""
        path.write_bytes(bytes(_LANE_BYTES * len(LANES)))
        return cls(path)

    def get(self, lane: Priority, mark: Mark) -> int:
        """One number."""
        return int(_WORD.unpack_from(self._map, lane * _LANE_BYTES + mark * _WORD.size)[0])

    def set(self, lane: Priority, mark: Mark, value: int) -> None:
        """One number; eight bytes on eight, so that nobody sees half of it."""
        _WORD.pack_into(self._map, lane * _LANE_BYTES + mark * _WORD.size, value)

    def count(self, lane: Priority, mark: Mark) -> None:
        """One more."""
        self.set(lane, mark, self.get(lane, mark) + 1)

    def place(self, lane: Priority, epoch: Mark) -> tuple[int, int]:
        """(epoch, seq) from a mark and the one behind it."""
        return self.get(lane, epoch), self.get(lane, Mark(epoch + 1))

    def set_place(self, lane: Priority, epoch: Mark, place: tuple[int, int]) -> None:
        """Seq first where the epoch is new: a reader between the two sees too little, never too much."""
        if self.get(lane, epoch) != place[0]:
            self.set(lane, Mark(epoch + 1), 0)
            self.set(lane, epoch, place[0])
        self.set(lane, Mark(epoch + 1), place[1])

    def is_writing(self, lane: Priority) -> bool:
        """Between the beginning of a write and the end of its sync."""
        return self.get(lane, Mark.WRITE_BEGUN) != self.get(lane, Mark.WRITE_SYNCED)

    def is_rolling(self, lane: Priority) -> bool:
        """Between one segment and the next."""
        return self.get(lane, Mark.ROLL_BEGUN) != self.get(lane, Mark.ROLL_DONE)

    def is_owed(self, lane: Priority) -> bool:
        """Something is on disk and not acknowledged by the broker."""
        committed = self.place(lane, Mark.COMMITTED_EPOCH)
        return committed[1] > 0 and committed > self.place(lane, Mark.ACKNOWLEDGED_EPOCH)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class _MarkingFile:
    """A segment, with marks around what makes it durable."""

    def __init__(self, inner: File, marks: Marks, lane: Priority) -> None:
        self._inner, self._marks, self._lane = inner, marks, lane

    def append(self, data: bytes) -> None:
        marks, lane = self._marks, self._lane
        if data[:2] == MARKER and data[2] == FOOTER and not marks.is_rolling(lane):
            marks.count(lane, Mark.ROLL_BEGUN)
        marks.count(lane, Mark.WRITE_BEGUN)
        marks.set(lane, Mark.SEGMENT_BYTES, marks.get(lane, Mark.SEGMENT_BYTES) + len(data))
        self._inner.append(data)

    def fdatasync(self) -> None:
        marks, lane = self._marks, self._lane
        self._inner.fdatasync()
        marks.set(lane, Mark.SEGMENT_SYNCED, marks.get(lane, Mark.SEGMENT_BYTES))
        marks.set(lane, Mark.WRITE_SYNCED, marks.get(lane, Mark.WRITE_BEGUN))

    def truncate(self, size: int) -> None:
        self._inner.truncate(size)
        self._marks.set(self._lane, Mark.SEGMENT_BYTES, size)

    def pwrite(self, data: bytes, offset: int) -> None:
        self._inner.pwrite(data, offset)

    def pread(self, size: int, offset: int) -> bytes:
        return self._inner.pread(size, offset)

    def size(self) -> int:
        return self._inner.size()

    def close(self) -> None:
        self._inner.close()


class MarkingFileSystem:
    """The production file system, with marks where a lane's segments are concerned."""

    def __init__(self, marks: Marks) -> None:
        self._real = RealFileSystem()
        self._marks = marks

    def create(self, path: Path) -> File:
        lane = _lane_of(path)
        if lane is None:
            return self._real.create(path)
        if not self._marks.is_rolling(lane):
            self._marks.count(lane, Mark.ROLL_BEGUN)
        self._marks.set(lane, Mark.NAME_SYNCED, 0)
        return self._marked(path, lane, self._real.create(path))

    def open(self, path: Path) -> File:
        lane = _lane_of(path)
        if lane is None:
            return self._real.open(path)
        self._marks.set(lane, Mark.NAME_SYNCED, 1)
        return self._marked(path, lane, self._real.open(path))

    def _marked(self, path: Path, lane: Priority, inner: File) -> File:
        size = inner.size()
        self._marks.set(lane, Mark.SEGMENT_SYNCED, size)
        self._marks.set(lane, Mark.SEGMENT_BYTES, size)
        self._marks.set(lane, Mark.SEGMENT, (parse_name(path.name) or (0, 0))[0])
        return _MarkingFile(inner, self._marks, lane)

    def sync_directory(self, directory: Path) -> None:
        self._real.sync_directory(directory)
        lane = _lane_of(directory / "segment")
        if lane is not None:
            self._marks.set(lane, Mark.NAME_SYNCED, 1)
            self._marks.set(lane, Mark.ROLL_DONE, self._marks.get(lane, Mark.ROLL_BEGUN))

    def open_read(self, path: Path) -> File:
        return self._real.open_read(path)

    def rename(self, source: Path, target: Path) -> None:
        self._real.rename(source, target)

    def unlink(self, path: Path) -> None:
        self._real.unlink(path)

    def listdir(self, directory: Path) -> list[str]:
        return self._real.listdir(directory)

    def make_directory(self, directory: Path) -> None:
        self._real.make_directory(directory)

    def free_bytes(self, directory: Path) -> int:
        return self._real.free_bytes(directory)

    def lock(self, path: Path) -> File:
        return self._real.lock(path)


def as_filesystem(marks: Marks) -> FileSystem:
    """Checked by mypy: it has every verb of the real one."""
    return MarkingFileSystem(marks)


def _lane_of(path: Path) -> Priority | None:
    return next((lane for lane in LANES if lane.name.lower() == path.parent.name), None)
