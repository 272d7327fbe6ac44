"""What is left of a log after whatever happened to it: found, cut where torn, and told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from gateway.disk.filesystem import File, FileSystem
from gateway.disk.record import FOOTER, Damage, Entry, Position
from gateway.disk.segment import HEADER_BYTES, Scanner, Segment, parse_name, read_footer, read_header

_CHUNK_BYTES: Final = 1 << 20

Visit: TypeAlias = Callable[[Segment, Entry], None]
"""Called for every record of a segment that had to be read, in order."""


class Cut(msgspec.Struct, frozen=True):
    """An end of a log that was being written when the power went: never acknowledged, removed."""

    segment: str
    offset: int
    length: int
    after: Position

    def __str__(self) -> str:
        return (
            f"{self.segment}: {self.length} bytes cut at byte {self.offset}, torn after record {self.after}"
        )


class Recovered(msgspec.Struct, kw_only=True):
    """The segments in order, and what was wrong with them."""

    segments: list[Segment]
    cuts: list[Cut]
    damage: list[Damage]
    index_max: int  # highest ever seen, 0 for none


def scan(file: File, segment: Segment, visit: Visit) -> list[Damage]:
    """Read a whole segment, correcting what is known. The last damage has no `before` if the end is bad."""
    end = file.size()
    scanner = Scanner(file, name=segment.name, salt=segment.salt, after=segment.after)
    segment.records = segment.first_time_ns = segment.last_time_ns = 0
    while scanner.offset < end:
        for entry in scanner.read(end, _CHUNK_BYTES):
            if entry.type != FOOTER:
                segment.count(entry.stream, entry.position, entry.time_ns)
                visit(segment, entry)
    segment.size = segment.committed = end
    return scanner.damage


def recover(filesystem: FileSystem, directory: Path, visit: Visit) -> Recovered:
    """Open a log's directory: sealed segments by their footer, others by reading them; the torn end is cut.

    Raises `OSError`, and `StorageError` for a format that is newer than this program.
    """
    names = sorted((parsed, name) for name in filesystem.listdir(directory) if (parsed := parse_name(name)))
    found = Recovered(segments=[], cuts=[], damage=[], index_max=names[-1][0][0] if names else 0)
    for number, (_, name) in enumerate(names, 1):
        segment = _open(filesystem, directory / name, visit, found, is_tail=number == len(names))
        if segment is not None:
            found.segments.append(segment)
    return found


def _open(
    filesystem: FileSystem, path: Path, visit: Visit, found: Recovered, *, is_tail: bool
) -> Segment | None:
    file = filesystem.open(path) if is_tail else filesystem.open_read(path)
    try:
        segment = read_footer(file, path, file.size())
        return segment or _read(filesystem, file, path, visit, found, is_tail=is_tail)
    finally:
        file.close()


def _read(
    filesystem: FileSystem, file: File, path: Path, visit: Visit, found: Recovered, *, is_tail: bool
) -> Segment | None:
    index, salt = parse_name(path.name) or (0, 0)
    before = found.segments[-1].last if found.segments else (0, 0)
    header = read_header(file.pread(HEADER_BYTES, 0), path)
    after = before if header is None else header
    segment = Segment(path=path, index=index, salt=salt, after=after, last=after)
    damage = scan(file, segment, visit)
    # A segment without its footer stays open for appending only as the tail with a sound header.
    segment.sealed = not is_tail or header is None
    if header is None:
        if is_tail and segment.size <= HEADER_BYTES:
            found.cuts.append(Cut(path.name, 0, segment.size, after))
            filesystem.unlink(path)
            filesystem.sync_directory(path.parent)
            return None
        length = min(HEADER_BYTES, segment.size)
        found.damage.append(Damage(path.name, 0, length, after, after, "header is damaged"))
    if is_tail and damage and damage[-1].before is None:
        torn = damage.pop()
        file.truncate(torn.offset)
        file.fdatasync()
        found.cuts.append(Cut(path.name, torn.offset, torn.length, torn.after))
        segment.size = segment.committed = torn.offset
    found.damage.extend(damage)
    return segment
