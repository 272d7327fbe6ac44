"""Many records compressed as one: what is committed together is packed together.

A block is a record of type `BLOCK` whose body is one Zstandard frame (RFC 8878) with its content size
declared: whole records one after the other, each with its own checksum. Damage costs the block it is in.
"""

from __future__ import annotations

import enum
from typing import Final

import zstandard

from gateway.disk import record
from gateway.disk.record import BLOCK, OVERHEAD_BYTES, STARTS, Entry

BLOCK_BYTES: Final = 128 << 10  # of records in a block, about: what damage of one bit can cost
BLOCK_BYTES_MAX: Final = (
    1 << 20
)  # of records in a block: what unpacking one can take; larger records stay plain
PACKED_BYTES_MIN: Final = 256  # fewer are not worth it
_LEVEL: Final = 1  # measured: higher ones cost more than the little they gain on values


class Compression(enum.Enum):
    """How records are written; both are always read."""

    ZSTD = "zstd"
    NONE = "none"


class Packer:
    """Packs what is written together. For one thread."""

    def __init__(self, compression: Compression) -> None:
        is_used = compression is Compression.ZSTD
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False) if is_used else None

    def pack(self, items: list[bytes], salt: int) -> list[tuple[bytes, int]]:
        """The same records in order, packed where that pays: (bytes, how many they were before)."""
        if self._compressor is None:
            data = b"".join(items)
            return [(data, len(data))]
        packed: list[tuple[bytes, int]] = []
        waiting: list[bytes] = []
        size = 0
        for item in items:
            if len(item) > BLOCK_BYTES_MAX - BLOCK_BYTES:
                packed += [self._pack(waiting, size, salt), (item, len(item))]
                waiting, size = [], 0
                continue
            waiting.append(item)
            size += len(item)
            if size >= BLOCK_BYTES:
                packed.append(self._pack(waiting, size, salt))
                waiting, size = [], 0
        return [*packed, self._pack(waiting, size, salt)]

    def _pack(self, items: list[bytes], size: int, salt: int) -> tuple[bytes, int]:
        data = b"".join(items)
        if self._compressor is None or size < PACKED_BYTES_MIN:
            return data, size
        body = self._compressor.compress(data)
        if len(body) + OVERHEAD_BYTES >= size:
            return data, size
        flags = record.flags_of(data) & STARTS
        return record.encode(BLOCK, record.position_of(data), 0, 0, body, salt, flags), size


class Unpacker:
    """Gives a block's records back. For one thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=BLOCK_BYTES_MAX)

    def unpack(self, block: Entry, salt: int) -> list[Entry] | None:
        """Its records; None where it is none that `Packer` made. Takes at most `BLOCK_BYTES_MAX`."""
        try:
            size = zstandard.frame_content_size(block.body)
            if not 0 < size <= BLOCK_BYTES_MAX:
                return None
            data = self._decompressor.decompress(block.body, allow_extra_data=False)
        except zstandard.ZstdError:
            return None
        found = list(record.entries(data, 0, salt, 0))
        if sum(OVERHEAD_BYTES + len(entry.body) for entry in found) != len(data):
            return None
        last = block.position
        for entry in found:
            if entry.position < last or entry.type == BLOCK:
                return None
            last = entry.position
            entry.offset = block.offset
        return found
