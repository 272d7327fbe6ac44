"""ASCII framing: `:`, two hexadecimal characters for each byte, a checksum, CR LF.

MODBUS over Serial Line V1.02 §2.5.2: at most 513 characters; a colon always begins a frame anew. Up to one
second may pass between two characters (§2.5.2.1): the owner tells when it was more.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import Final

from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.rtu import Frame

ADU_SIZE_MAX: Final = 513  # characters, §2.5.2
OVERHEAD: Final = 7  # characters: colon, address, checksum, CR LF
_BYTES_MIN: Final = 3  # address, function, checksum


def lrc(data: bytes) -> int:
    """The longitudinal redundancy check of bytes, §6.2.1: what makes their sum 0 modulo 256."""
    return -sum(data) & 0xFF


def encode(unit: int, pdu: bytes) -> bytes:
    """A frame as characters."""
    data = bytes((unit,)) + pdu
    return b":%b%02X\r\n" % (data.hex().upper().encode(), lrc(data))


class Framer:
    """Cuts what is heard into frames. Holds back less than one frame: 512 characters. Never raises."""

    __slots__ = ("_counters", "_rest", "delimiter")

    def __init__(self, counters: Counters) -> None:
        self.delimiter = b"\n"  # what ends a frame; Application Protocol Specification §6.8.1 can change it
        self._counters: Final = counters
        self._rest = b""

    @property
    def buffered(self) -> int:
        """Characters held back, waiting for the rest of their frame."""
        return len(self._rest)

    def expect(self, beginnings: Iterable[bytes], pdu_size: int = 0) -> None:
        """Nothing depends on it: ASCII frames tell their length."""

    def feed(self, data: bytes, frames: list[Frame]) -> None:
        """Append the frames that are complete now to `frames`."""
        *lines, rest = data.split(self.delimiter)
        if lines:
            lines[0] = self._rest + lines[0]
            for line in lines:
                self._take(line, frames)
            self._rest = b""
        self._hold(self._rest + rest)

    def silence(self, frames: list[Frame]) -> None:  # noqa: ARG002 - as the other framer's
        """Nothing came for so long that nothing of what was begun will."""
        self._drop(self._rest, 0)
        self._rest = b""

    def clear(self) -> None:
        """Forget what was begun: the line is another one now."""
        self._rest = b""

    def _hold(self, rest: bytes) -> None:
        start = rest.rfind(b":")
        if start < 0 or len(rest) - start >= ADU_SIZE_MAX:  # no room left for the end of the line
            start = len(rest)
        self._drop(rest[:start], 0)
        self._rest = rest[start:]

    def _take(self, line: bytes, frames: list[Frame]) -> None:
        """A line without its delimiter."""
        start = line.rfind(b":")
        if start >= 0 and line.endswith(b"\r") and len(line) - start < ADU_SIZE_MAX:
            try:
                data = binascii.unhexlify(line[start + 1 : -1])
            except binascii.Error:
                data = b""
            if len(data) >= _BYTES_MIN and not sum(data) & 0xFF:
                self._drop(line[:start], 0)
                self._counters.frames += 1
                frames.append((data[0], data[1:-1]))
                return
        self._drop(line, 1)

    def _drop(self, data: bytes, more: int) -> None:
        self._counters.check_errors += data.count(b":")
        self._counters.noise_bytes += len(data) + more
