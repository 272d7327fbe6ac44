"""MBAP framing: one TCP stream into frames, and frames into bytes.

MODBUS Messaging on TCP/IP Implementation Guide V1.0b §3.1.3: transaction identifier, protocol identifier (0),
length of what follows, unit identifier; then the PDU.
"""

from __future__ import annotations

import struct
from typing import Final

from drivers.modbus.wire.pdu import PDU_SIZE_MAX
from gateway.core.errors import RemoteProtocolError

HEADER: Final = struct.Struct(">HHHB")
HEADER_SIZE: Final = HEADER.size  # 7
ADU_SIZE_MAX: Final = HEADER_SIZE + PDU_SIZE_MAX  # 260 bytes, Application Protocol Specification §4.1
LENGTH_MIN: Final = 2  # unit identifier and function code
LENGTH_MAX: Final = 1 + PDU_SIZE_MAX  # 254
_BEFORE_LENGTH_COUNTS: Final = 6  # bytes in front of what the length field counts
_PREFIX: Final = struct.Struct(">HHH")

Frame = tuple[int, int, bytes]
"""(transaction identifier, unit identifier, PDU)"""


def encode(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A frame as bytes."""
    return HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu


def decode(datagram: bytes) -> Frame | None:
    """The frame that is a whole datagram; None where it is none, or not one alone."""
    if len(datagram) <= HEADER_SIZE:
        return None
    transaction, protocol, length, unit = HEADER.unpack_from(datagram)
    if protocol or length > LENGTH_MAX or len(datagram) != _BEFORE_LENGTH_COUNTS + length:
        return None
    return transaction, unit, datagram[HEADER_SIZE:]


class Framer:
    """Cuts one direction of one connection into frames. Holds back less than one frame: 259 bytes."""

    __slots__ = ("_consumed", "_error", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._consumed = 0  # bytes of the stream in front of `_rest`
        self._error = ""

    @property
    def buffered(self) -> int:
        """Bytes held back, waiting for the rest of their frame."""
        return len(self._rest)

    def feed(self, data: bytes, frames: list[Frame]) -> None:
        """Append the frames that are complete now to `frames`.

        Raises `RemoteProtocolError` when the stream is not MBAP; what was complete in front of the damage is
        in `frames` all the same. There is no way back into step after that: drop the connection.
        """
        if self._error:
            raise RemoteProtocolError(self._error)
        if self._rest:
            data = self._rest + data
        position = 0
        size = len(data)
        unpack = HEADER.unpack_from
        while size - position >= HEADER_SIZE:
            transaction, protocol, length, unit = unpack(data, position)
            if protocol or not LENGTH_MIN <= length <= LENGTH_MAX:
                self._fail(position, protocol, length)
            end = position + _BEFORE_LENGTH_COUNTS + length
            if end > size:
                break
            frames.append((transaction, unit, data[position + HEADER_SIZE : end]))
            position = end
        if size - position == _BEFORE_LENGTH_COUNTS:
            _, protocol, length = _PREFIX.unpack_from(data, position)
            if protocol or not LENGTH_MIN <= length <= LENGTH_MAX:
                self._fail(position, protocol, length)
        self._rest = data[position:]
        self._consumed += position

    def _fail(self, position: int, protocol: int, length: int) -> None:
        if protocol:
            offset, fault = 2, f"found protocol identifier 0x{protocol:04x}, expected 0x0000"
        else:
            offset, fault = 4, f"found length {length}, expected {LENGTH_MIN}..{LENGTH_MAX}"
        offset += self._consumed + position
        self._rest = b""
        self._error = f"Modbus TCP stream, byte {offset}: {fault}; the peer does not speak Modbus TCP here"
        raise RemoteProtocolError(self._error)
