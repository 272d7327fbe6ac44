"""CRC-16 of RTU frames: MODBUS over Serial Line V1.02 §6.2.2.

Polynomial 0xA001 (reflected), register preset to 0xFFFF, low byte sent first. Two bytes at each step: the
register is as wide as the step, so one look-up in a table of 65,536 replaces it, and a frame with its
checksum leaves 0.
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

_POLYNOMIAL: Final = 0xA001
PRESET: Final = 0xFFFF
_SIZE_MAX: Final = 256  # bytes, of an RTU frame


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ _POLYNOMIAL if byte & 1 else byte >> 1
    return byte


_LAST: Final = tuple(_remainder(byte) for byte in range(256))
_FIRST: Final = tuple(_LAST[crc & 0xFF] ^ crc >> 8 for crc in _LAST)  # a byte with another one behind it
_WORDS: Final = tuple(struct.Struct(f"<{count}H").unpack_from for count in range(_SIZE_MAX // 2 + 1))


@cache
def _pairs() -> tuple[int, ...]:
    """Made when a line first needs it: 2.5 MB that a site without lines does not pay for."""
    return tuple(last ^ first for last in _LAST for first in _FIRST)


def crc16(data: bytes, start: int, size: int) -> int:
    """The checksum of `size` bytes from `start`, 0..256 of them; 0 where the last two are their checksum."""
    crc = PRESET
    pair = _pairs()
    for word in _WORDS[size >> 1](data, start):
        crc = pair[crc ^ word]
    if size & 1:
        crc = crc >> 8 ^ _LAST[(crc ^ data[start + size - 1]) & 0xFF]
    return crc


def after(crc: int) -> int:
    """What becomes of a checksum with one byte of zeros behind it."""
    return crc >> 8 ^ _LAST[crc & 0xFF]


def with_crc(data: bytes) -> bytes:
    """Bytes and their checksum. At most 254 bytes."""
    return data + crc16(data, 0, len(data)).to_bytes(2, "little")
