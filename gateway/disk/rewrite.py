"""Sealed segments made into one that is smaller, durably: beside them first, then in their place.

Crash-safe at every step: a file whose name says that it is not finished is removed at the next start. One
that is finished stands for those it was made of (see `Cover`), which are removed then if they are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.disk.block import Compression, Packer
from gateway.disk.filesystem import File, FileSystem
from gateway.disk.record import VOID, Damage, Entry, encode
from gateway.disk.recovery import UNFINISHED
from gateway.disk.segment import (
    HEADER_BYTES,
    Cover,
    Scanner,
    Segment,
    encode_footer,
    encode_header,
    file_name,
)

_READ_BYTES: Final = 1 << 18
_WRITE_BYTES: Final = 1 << 18


def read(
    filesystem: FileSystem, segments: Iterable[Segment], report: Callable[[Segment, Damage], None]
) -> Iterator[tuple[Segment, Entry]]:
    """Every record of the owner's, in order. Blocking. Raises `OSError`."""
    for segment in segments:
        file = filesystem.open_read(segment.path)
        try:
            scanner = Scanner(file, name=segment.name, salt=segment.salt, after=segment.after)
            while scanner.offset < segment.committed:
                for entry in scanner.read(segment.committed, _READ_BYTES):
                    if entry.type < VOID:
                        yield segment, entry
                for damage in scanner.damage:
                    report(segment, damage)
                scanner.damage.clear()
        finally:
            file.close()


def rewrite(
    filesystem: FileSystem,
    directory: Path,
    sources: Sequence[Segment],
    entries: Iterable[Entry],
    *,
    lane: int,
    salt: int,
    created_ns: int,
    compression: Compression,
    placed: Callable[[Entry], None],
    note: Callable[[Segment], bytes],
) -> Segment:
    """The new segment, durable, with `entries` in it.

    `placed(entry)` is told of each with the offset planned for it; `note(segment)` is asked for the footer's
    when all are written.

    `sources` are sealed neighbours. They stay; `Log.replace` puts the new one in their place. Blocking.
    Raises `OSError`, and what `entries` raises, and leaves nothing behind then.
    """
    first, last = sources[0], sources[-1]
    generation = max(segment.cover.generation for segment in sources) + 1
    cover = Cover(first.index, last.cover.upto, generation)
    path = directory / file_name(first.index, salt, cover)
    new = Segment(path=path, index=first.index, salt=salt, after=first.after, last=first.after)
    temporary = path.with_name(path.name + UNFINISHED)
    file = filesystem.create(temporary)
    try:
        try:
            _write(file, new, entries, lane=lane, created_ns=created_ns, packer=Packer(compression),
                placed=placed)  # fmt: skip
            new.last = last.last  # what it stands for, though the very last record may be gone
            noted = note(new)
            footer = encode_footer(new, noted)
            file.append(footer)
            file.fdatasync()
            new.size = new.committed = new.planned = file.size()
            new.note = noted
        finally:
            file.close()
        filesystem.rename(temporary, path)
        filesystem.sync_directory(directory)
    except Exception:
        for left in (temporary, path):
            with contextlib.suppress(OSError):  # whatever stays is removed at the next start
                filesystem.unlink(left)
        raise
    new.sealed = True
    return new


def _write(
    file: File,
    segment: Segment,
    entries: Iterable[Entry],
    *,
    lane: int,
    created_ns: int,
    packer: Packer,
    placed: Callable[[Entry], None],
) -> None:
    file.append(encode_header(segment, lane=lane, created_ns=created_ns))
    waiting: list[bytes] = []
    size, at = 0, HEADER_BYTES
    for entry in entries:
        entry.offset = segment.planned
        placed(entry)
        data = encode(entry.type, entry.position, entry.stream, entry.time_ns, entry.body, segment.salt)
        segment.count(entry.stream, entry.position, entry.time_ns)
        segment.planned += len(data)
        waiting.append(data)
        size += len(data)
        if size >= _WRITE_BYTES:
            at = _flush(file, segment, waiting, size, at, packer)
            waiting, size = [], 0
    if waiting:
        _flush(file, segment, waiting, size, at, packer)


def _flush(file: File, segment: Segment, waiting: list[bytes], size: int, at: int, packer: Packer) -> int:
    planned = segment.planned - size
    packed = packer.pack(waiting, segment.salt)
    for data, plain_bytes in packed:
        segment.note_packed(planned, at)
        planned += plain_bytes
        at += len(data)
    file.append(b"".join(data for data, _ in packed))
    return at
