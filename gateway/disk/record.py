"""One record of a log: `header | crc32 | body`, found again even where the bytes before it are damaged.

Header, little endian: marker (2), type u8, flags u8, body length u32, epoch u32, stream u32, seq u64,
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
_FLAGS_AT: Final = 3
OVERHEAD_BYTES: Final = _CHECK.size
BODY_BYTES_MAX: Final = 16 << 20  # ours: a record must fit in memory several times over

FOOTER: Final = 255
"""Type of the record that seals a segment."""
BLOCK: Final = 254
"""Type of a record that holds several others, compressed; its position is that of the first."""
VOID: Final = 253
"""Type of a record that says nothing: where a write had a hole. Types below belong to the log's owner."""

STARTS: Final = 1
"""Flag of a record before which everything was durable when it was written."""
_FLAGS: Final = STARTS


class Entry(msgspec.Struct, gc=False):
    """One record as it stands in a segment. A control record has the position of the data before."""

    type: int
    position: Position
    stream: int  # the owner's; 0 for control records
    time_ns: int
    body: bytes
    offset: int  # of the header in the file; of a record out of a block, the block's
    flags: int = 0

    @property
    def end(self) -> int:
        """Offset of the byte after it; for a record that stands in the file itself."""
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


def encode(
    kind: int, position: Position, stream: int, time_ns: int, body: bytes, salt: int, flags: int = 0
) -> bytes:
    """The bytes of one record."""
    head = _HEAD.pack(MARKER, kind, flags, len(body), position[0], stream, position[1], time_ns)
    return b"".join((head, _CRC.pack(crc32(body, crc32(head, salt))), body))


def entry_at(data: bytes, start: int, salt: int, base: int) -> Entry | None:
    """The record whose header starts at `start`, None where no whole, valid one does; `base` is data[0]'s."""
    if len(data) - start < OVERHEAD_BYTES:
        return None
    marker, kind, flags, length, epoch, stream, seq, time_ns, check = _CHECK.unpack_from(data, start)
    if marker != MARKER or flags & ~_FLAGS:
        return None
    body_start = start + OVERHEAD_BYTES
    body = data[body_start : body_start + length]
    if len(body) != length or crc32(body, crc32(data[start : start + HEAD_BYTES], salt)) != check:
        return None
    return Entry(kind, (epoch, seq), stream, time_ns, body, base + start, flags)


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
            or flags & ~_FLAGS
            or len(body) != length
            or crc32(body, crc32(data[start : start + head_bytes], salt)) != check
        ):
            return
        yield Entry(kind, (epoch, seq), stream, time_ns, body, base + start, flags)
        start = body_start + length


def length_at(data: bytes, start: int) -> int | None:
    """Whole length that a header at `start` claims; None where no header can stand there."""
    if len(data) - start < OVERHEAD_BYTES:
        return None
    marker, _, flags, length, *_ = _HEAD.unpack_from(data, start)
    if marker != MARKER or flags & ~_FLAGS or length > BODY_BYTES_MAX:
        return None
    return OVERHEAD_BYTES + int(length)


def position_of(data: bytes) -> Position:
    """Of a record that `encode` made."""
    _, _, _, _, epoch, _, seq, _ = _HEAD.unpack_from(data)
    return epoch, seq


def flags_of(data: bytes) -> int:
    """Of a record that `encode` made."""
    return data[_FLAGS_AT]
