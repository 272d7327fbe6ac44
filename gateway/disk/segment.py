"""One file of a log: header, records, and once sealed a footer that saves reading it.

A file's name says which segment it is, and where it was rewritten how many it stands for and how often: what
once stood under a name never changes but by appending.

Header (64 bytes, little endian): magic, format version u16, lane u16, index u32, salt u32, position before
the first record (epoch u32, seq u64), created i64 ns, crc32, zeros. The file's name repeats index and salt,
so a damaged header costs nothing. Footer: a record of type `FOOTER` whose body is records u64, first and last
time i64, position before the first record, the owner's note, and the footer's whole length with a magic.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from gateway.core.errors import StorageError
from gateway.disk import record
from gateway.disk.block import Unpacker
from gateway.disk.filesystem import File
from gateway.disk.record import Damage, Entry, Position

FORMAT: Final = 2  # 1 had neither blocks nor flags
FORMAT_MIN: Final = 1
_MAGIC: Final = b"EGWLOG\r\n"
_HEADER: Final = struct.Struct("<8sHHIIIQq")
HEADER_BYTES: Final = 64
_NAME: Final = re.compile(r"(\d{8,})-([0-9a-f]{8})(?:-(\d{8,})\.(\d+))?\.log")
_SUMMARY: Final = struct.Struct("<QqqIQ")
_TRAILER: Final = struct.Struct("<I4s")
_TRAILER_MAGIC: Final = b"EGWE"
_FOOTER_READ_BYTES: Final = 4096  # one read finds the whole footer unless the owner's note is long
_PACKED_STEP_BYTES: Final = 1 << 15  # how exactly planned offsets are known in a packed segment
_WINDOW_BYTES: Final = 1 << 16  # read at a time while looking for the next valid record


class Segment(msgspec.Struct, kw_only=True):
    """What is known of one segment. The log's owner plans `size`; its writer moves `committed` behind it."""

    path: Path
    index: int
    salt: int
    after: Position  # position before its first record
    last: Position  # of its last record; `after` while it has none
    size: int = HEADER_BYTES  # bytes accepted for it
    committed: int = 0  # bytes durable
    records: int = 0  # data records: those of a stream
    first_time_ns: int = 0  # lowest and highest time of its data records, 0 while it has none
    last_time_ns: int = 0
    sealed: bool = False
    note: bytes = b""  # the owner's, from the footer
    format: int = FORMAT
    planned: int = HEADER_BYTES  # bytes accepted for it had nothing been packed: places are told by these
    packed: list[tuple[int, int]] = []  # (planned, physical) offset of some writes, rising

    @property
    def name(self) -> str:
        """File name."""
        return self.path.name

    @property
    def cover(self) -> Cover:
        """What it stands for."""
        return parse_cover(self.path.name) or Cover(self.index, self.index, 0)

    def physical(self, planned: int) -> int:
        """Where in the file to begin, to come by what was planned for that offset. From any thread."""
        packed = self.packed
        place = bisect_right(packed, planned, key=lambda known: known[0])
        return packed[place - 1][1] if place else planned

    def note_packed(self, planned: int, physical: int) -> None:
        """A write begins there."""
        if not self.packed or planned - self.packed[-1][0] >= _PACKED_STEP_BYTES:
            self.packed.append((planned, physical))

    def count(self, stream: int, position: Position, time_ns: int) -> None:
        """Take one more record into account."""
        self.last = position
        if stream:
            self.records += 1
            if time_ns > self.last_time_ns:
                self.last_time_ns = time_ns
            if time_ns < self.first_time_ns or not self.first_time_ns:
                self.first_time_ns = time_ns


class Cover(msgspec.Struct, frozen=True):
    """The segments that a file stands for: `index` to `upto`, rewritten `generation` times."""

    index: int
    upto: int
    generation: int


def file_name(index: int, salt: int, cover: Cover | None = None) -> str:
    """Sorts by age. `cover` for one that was rewritten."""
    rewritten = f"-{cover.upto:08d}.{cover.generation}" if cover is not None else ""
    return f"{index:08d}-{salt:08x}{rewritten}.log"


def parse_name(name: str) -> tuple[int, int] | None:
    """(index, salt), or None for a file that is no segment."""
    match = _NAME.fullmatch(name)
    return (int(match[1]), int(match[2], 16)) if match else None


def parse_cover(name: str) -> Cover | None:
    """What the file stands for, or None for a file that is no segment."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    index = int(match[1])
    return Cover(index, int(match[3] or index), int(match[4] or 0))


def encode_header(segment: Segment, *, lane: int, created_ns: int) -> bytes:
    """The first 64 bytes of its file."""
    epoch, seq = segment.after
    head = _HEADER.pack(_MAGIC, FORMAT, lane, segment.index, segment.salt, epoch, seq, created_ns)
    return (head + struct.pack("<I", crc32(head))).ljust(HEADER_BYTES, b"\0")


def read_header(data: bytes, path: Path) -> Position | None:
    """The position before the first record; None where the header is damaged.

    Raises `StorageError` where the format is newer than this program.
    """
    size = _HEADER.size
    if len(data) < HEADER_BYTES or data[size : size + 4] != struct.pack("<I", crc32(data[:size])):
        return None
    magic, version, _lane, index, salt, epoch, seq, _created = _HEADER.unpack_from(data)
    if magic != _MAGIC or (index, salt) != parse_name(path.name):
        return None
    if not FORMAT_MIN <= version <= FORMAT:
        raise StorageError(
            f"{path}: log format {version}, this program reads {FORMAT_MIN} to {FORMAT}: start the newer "
            "version again"
        )
    return epoch, seq


def format_of(data: bytes) -> int:
    """The format that a sound header says."""
    return int(_HEADER.unpack_from(data)[1])


def encode_footer(segment: Segment, note: bytes) -> bytes:
    """The record that seals it. `note`: what its owner wants to know of it without reading it."""
    epoch, seq = segment.after
    summary = _SUMMARY.pack(segment.records, segment.first_time_ns, segment.last_time_ns, epoch, seq)
    length = record.OVERHEAD_BYTES + len(summary) + len(note) + _TRAILER.size
    body = b"".join((summary, note, _TRAILER.pack(length, _TRAILER_MAGIC)))
    return record.encode(record.FOOTER, segment.last, 0, 0, body, segment.salt)


def read_footer(file: File, path: Path, size: int) -> Segment | None:
    """The sealed segment, by one read at the end of its file; None where no valid footer stands there."""
    name = parse_name(path.name)
    start = max(0, size - _FOOTER_READ_BYTES)
    data = file.pread(size - start, start)
    if name is None or len(data) < _TRAILER.size:
        return None
    length, magic = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    if magic != _TRAILER_MAGIC or length > size or length > record.BODY_BYTES_MAX:
        return None
    if length > len(data):
        start = size - length
        data = file.pread(length, start)
    entry = record.entry_at(data, len(data) - length, name[1], start)
    if entry is None or entry.type != record.FOOTER or entry.end != size or len(entry.body) < _SUMMARY.size:
        return None
    records, first, last, epoch, seq = _SUMMARY.unpack_from(entry.body)
    return Segment(
        path=path,
        index=name[0],
        salt=name[1],
        after=(epoch, seq),
        last=entry.position,
        size=size,
        committed=size,
        planned=size,
        records=records,
        first_time_ns=first,
        last_time_ns=last,
        sealed=True,
        note=entry.body[_SUMMARY.size : -_TRAILER.size],
    )


class Scanner:
    """Reads a segment's records in order, chunk by chunk, stepping over damage."""

    def __init__(
        self, file: File, *, name: str, salt: int, after: Position, offset: int = HEADER_BYTES
    ) -> None:
        self._file = file
        self._name = name
        self._salt = salt
        self._unpacker: Unpacker | None = None
        self.offset = offset  # of what is read next
        self.after = after  # position of the last record read
        self.write_at = offset  # where the last write began that was seen to begin
        self.damage: list[Damage] = []  # found since the caller took it away

    def read(self, limit: int, size: int) -> list[Entry]:
        """Records from about `size` bytes, none beyond `limit`; empty only at `limit` or behind damage.

        `limit` is a record boundary or the end of the file. What is packed in blocks counts unpacked, so
        that memory is bounded by `size` and one block. Raises `OSError`.
        """
        available = limit - self.offset
        if available <= 0:
            return []
        data = self._file.pread(min(max(size, record.OVERHEAD_BYTES), available), self.offset)
        found = self._take(record.entries(data, 0, self._salt, self.offset), size)
        if found is not None:
            return found
        claimed = record.length_at(data, 0)
        if claimed is not None and len(data) < claimed <= available:
            data = self._file.pread(claimed, self.offset)
        entry = record.entry_at(data, 0, self._salt, self.offset)
        found = self._take([] if entry is None else [entry], size)
        if found is None:
            self._resynchronise(limit)
            return []
        return found

    def _take(self, entries: Iterable[Entry], size: int) -> list[Entry] | None:
        """None where there is none; stops behind `size` bytes, unpacked, and before a block that is none."""
        found: list[Entry] = []
        end, unpacked = 0, 0
        for entry in entries:
            if entry.type == record.BLOCK:
                inner = self._unpack(entry)
                if inner is None:
                    break
                unpacked += sum(record.OVERHEAD_BYTES + len(one.body) for one in inner)
                found += inner
            else:
                found.append(entry)
            if entry.flags:
                self.write_at = entry.offset
            end = entry.end
            if unpacked >= size:
                break
        if not end:
            return None
        self.offset, self.after = end, found[-1].position
        return found

    def _unpack(self, entry: Entry) -> list[Entry] | None:
        if self._unpacker is None:
            self._unpacker = Unpacker()
        return self._unpacker.unpack(entry, self._salt)

    def _resynchronise(self, limit: int) -> None:
        start = self.offset
        entry = self._next_valid(start + 1, limit)
        self.offset = limit if entry is None else entry.offset
        before = None if entry is None else entry.position
        self.damage.append(Damage(self._name, start, self.offset - start, self.after, before))

    def _next_valid(self, at: int, limit: int) -> Entry | None:
        while limit - at >= record.OVERHEAD_BYTES:
            data = self._file.pread(min(_WINDOW_BYTES, limit - at), at)
            if len(data) < record.OVERHEAD_BYTES:  # the file is shorter than it was
                return None
            found = data.find(record.MARKER)
            while found >= 0:
                entry = self._try(at + found, limit)
                if entry is not None:
                    return entry
                found = data.find(record.MARKER, found + 1)
            at += len(data) - 1  # the marker may stand across two windows
        return None

    def _try(self, offset: int, limit: int) -> Entry | None:
        length = record.length_at(self._file.pread(record.OVERHEAD_BYTES, offset), 0)
        if length is None or offset + length > limit:
            return None
        entry = record.entry_at(self._file.pread(length, offset), 0, self._salt, offset)
        # A position that falls belongs to something else that happens to stand here.
        if entry is None or entry.position < self.after:
            return None
        return None if entry.type == record.BLOCK and self._unpack(entry) is None else entry
