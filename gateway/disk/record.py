"""One record of a log: `header | crc32 | body`, found again even where the bytes before it are damaged.

Header, little endian: marker (2), type u8, flags u8 (0), body length u32, epoch u32, stream u32, seq u64,
time i64 (ns since 1970-01-01 UTC). The checksum covers header and body and starts at the segment's salt,
so that bytes of another segment never pass for a record of this one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, TypeAlias
from zlib import crc32

import msgspec

Position: TypeAlias = tuple[int, int]
"""(epoch, seq), compared as a tuple. Within a log it never falls; of data records it always rises."""

MARKER: Final = b"\xe9\x67"
_HEAD: Final = struct.Struct("<2sBBIIIQq")
_CHECK: Final = struct.Struct("<2sBBIIIQqI")
_CRC: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size
OVERHEAD_BYTES: Final = _CHECK.size
BODY_BYTES_MAX: Final = 16 << 20  # ours: a record must fit in memory several times over

FOOTER: Final = 255
"""Type of the record that seals a segment. All others belong to the owner of the log."""


class Entry(msgspec.Struct, gc=False):
    """One record as it stands in a segment. A control record has the position of the data before."""

    type: int
    position: Position
    stream: int  # the owner's; 0 for control records
    time_ns: int
    body: bytes
    offset: int  # of the header in the file

    @property
    def end(self) -> int:
        """Offset of the byte after it."""
        return self.offset + OVERHEAD_BYTES + len(self.body)


class Damage(msgspec.Struct, frozen=True):
    """Bytes of a segment that are no record. What stood there was above `after` and below `before`."""

    segment: str
    offset: int
    length: int
    after: Position
    before: Position | None  # None: nothing valid follows in this segment
    reason: str = "checksum does not match"

    def __str__(self) -> str:
        until = f"and before {self.before}" if self.before else "to the end of the segment"
        where = f"{self.segment} at byte {self.offset}"
        return f"{where}: {self.length} bytes, records after {self.after} {until}: {self.reason}"


def encode(kind: int, position: Position, stream: int, time_ns: int, body: bytes, salt: int) -> bytes:
    """The bytes of one record."""
    head = _HEAD.pack(MARKER, kind, 0, len(body), position[0], stream, position[1], time_ns)
    return b"".join((head, _CRC.pack(crc32(body, crc32(head, salt))), body))


def entry_at(data: bytes, start: int, salt: int, base: int) -> Entry | None:
    """The record whose header starts at `start`, None where no whole, valid one does; `base` is data[0]'s."""
    if len(data) - start < OVERHEAD_BYTES:
        return None
    marker, kind, flags, length, epoch, stream, seq, time_ns, check = _CHECK.unpack_from(data, start)
    if marker != MARKER or flags:
        return None
    body_start = start + OVERHEAD_BYTES
    body = data[body_start : body_start + length]
    if len(body) != length or crc32(body, crc32(data[start : start + HEAD_BYTES], salt)) != check:
        return None
    return Entry(kind, (epoch, seq), stream, time_ns, body, base + start)


def entries(data: bytes, start: int, salt: int, base: int) -> Iterator[Entry]:
    """Valid records one after the other, up to the first that is not whole or not valid."""
    unpack, overhead, head_bytes, marker = _CHECK.unpack_from, OVERHEAD_BYTES, HEAD_BYTES, MARKER
    last = len(data) - overhead
    while start <= last:
        found, kind, flags, length, epoch, stream, seq, time_ns, check = unpack(data, start)
        body_start = start + overhead
        body = data[body_start : body_start + length]
        if (
            found != marker
            or flags
            or len(body) != length
            or crc32(body, crc32(data[start : start + head_bytes], salt)) != check
        ):
            return
        yield Entry(kind, (epoch, seq), stream, time_ns, body, base + start)
        start = body_start + length


def length_at(data: bytes, start: int) -> int | None:
    """Whole length that a header at `start` claims; None where no header can stand there."""
    if len(data) - start < OVERHEAD_BYTES:
        return None
    marker, _, flags, length, *_ = _HEAD.unpack_from(data, start)
    if marker != MARKER or flags or length > BODY_BYTES_MAX:
        return None
    return OVERHEAD_BYTES + int(length)
