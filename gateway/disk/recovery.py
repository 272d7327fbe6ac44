"""What is left of a log after whatever happened to it: found, cut where torn, and told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from gateway.disk import record
from gateway.disk.filesystem import File, FileSystem
from gateway.disk.record import VOID, Damage, Entry, Position
from gateway.disk.segment import (
    HEADER_BYTES,
    Scanner,
    Segment,
    format_of,
    parse_cover,
    parse_name,
    read_footer,
    read_header,
)

_CHUNK_BYTES: Final = 1 << 20
UNFINISHED: Final = ".tmp"  # at the end of the name of a file that is being rewritten

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
    """The segments in order, and what was wrong with them.

    `holes`: in the last write of all, which was not finished when the power went. Nobody was promised what
    stood there, unless the disk lost it after it had said that it is durable. They are marked as void.
    """

    segments: list[Segment]
    cuts: list[Cut]
    holes: list[Damage]
    damage: list[Damage]
    index_max: int  # highest ever seen, 0 for none


def scan(file: File, segment: Segment, visit: Visit) -> tuple[list[Damage], int]:
    """Read a whole segment, correcting what is known; also says where its last write began.

    The last damage has no `before` if the end is bad.
    """
    end = file.size()
    scanner = Scanner(file, name=segment.name, salt=segment.salt, after=segment.after)
    segment.records = segment.first_time_ns = segment.last_time_ns = 0
    while scanner.offset < end:
        for entry in scanner.read(end, _CHUNK_BYTES):
            if entry.type < VOID:
                segment.count(entry.stream, entry.position, entry.time_ns)
                visit(segment, entry)
    segment.size = segment.committed = segment.planned = end
    return scanner.damage, scanner.write_at


def recover(filesystem: FileSystem, directory: Path, visit: Visit) -> Recovered:
    """Open a log's directory: sealed segments by their footer, others by reading them; the torn end is cut.

    Raises `OSError`, and `StorageError` for a format that is newer than this program.
    """
    listed = _finish_rewriting(filesystem, directory)
    names = sorted((parsed, name) for name in listed if (parsed := parse_name(name)))
    index_max = max((cover.upto for name in listed if (cover := parse_cover(name))), default=0)
    found = Recovered(segments=[], cuts=[], holes=[], damage=[], index_max=index_max)
    for number, (_, name) in enumerate(names, 1):
        segment = _open(filesystem, directory / name, visit, found, is_tail=number == len(names))
        if segment is not None:
            found.segments.append(segment)
    return found


def superseded(names: Iterable[str]) -> list[str]:
    """Of the files in a log's directory those that another one stands for."""
    covers = {name: cover for name in names if (cover := parse_cover(name))}
    rewritten = [cover for cover in covers.values() if cover.generation]
    return [
        name
        for name, cover in covers.items()
        if any(
            new.index <= cover.index <= new.upto and cover.generation < new.generation for new in rewritten
        )
    ]


def _finish_rewriting(filesystem: FileSystem, directory: Path) -> list[str]:
    """Remove what a crash left of a rewriting: files half written, and those that a whole one stands for."""
    names = filesystem.listdir(directory)
    stale = superseded(names) + [name for name in names if name.endswith(UNFINISHED)]
    for name in stale:
        filesystem.unlink(directory / name)
    if stale:
        filesystem.sync_directory(directory)
    return [name for name in names if name not in stale]


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
    head = file.pread(HEADER_BYTES, 0)
    header = read_header(head, path)
    after = before if header is None else header
    segment = Segment(path=path, index=index, salt=salt, after=after, last=after)
    if header is not None:
        segment.format = format_of(head)
    damage, write_at = scan(file, segment, visit)
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
        segment.size = segment.committed = segment.planned = torn.offset
    if is_tail and header is not None and segment.format > 1:  # format 1 does not say where a write began
        # What is too short for a record that says nothing stays, and is told as damage.
        holes = [one for one in damage if one.offset >= write_at and one.length >= record.OVERHEAD_BYTES]
        damage = [one for one in damage if one not in holes]
        for hole in holes:
            _void(file, hole, salt)
        found.holes.extend(holes)
    found.damage.extend(damage)
    return segment


def _void(file: File, hole: Damage, salt: int) -> None:
    """Make a hole a record that says nothing, with what stood in it, so that it is told once."""
    body = file.pread(hole.length, hole.offset)[record.OVERHEAD_BYTES :]
    file.pwrite(record.encode(VOID, hole.after, 0, 0, body, salt), hole.offset)
    file.fdatasync()
