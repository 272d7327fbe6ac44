"""Application protocol control information (IEC 60870-5-104 §5): I, S and U frames to numbers and back."""

from __future__ import annotations

from typing import Final, NamedTuple

from drivers.iec104.wire.terms import APDU_LENGTH_MAX, APDU_LENGTH_MIN, FUNCTIONS, START, Function
from gateway.core.errors import RemoteProtocolError

HEAD_SIZE: Final = 2  # start and length
APCI_SIZE: Final = HEAD_SIZE + APDU_LENGTH_MIN
FRAME_SIZE_MAX: Final = HEAD_SIZE + APDU_LENGTH_MAX
_SHOWN_MAX: Final = 8  # octets of garbage in an error


class Frame(NamedTuple):
    """One APDU. I: `send`, `receive` and `asdu`; S: `receive`; U: `function`."""

    send: int = -1  # N(S)
    receive: int = -1  # N(R)
    function: Function | None = None
    asdu: bytes = b""


def i_frame(send: int, receive: int, asdu: bytes) -> bytes:
    """Information transfer: numbers 0..32767, an ASDU of 1..249 octets, none of which is checked here."""
    return (
        bytes(
            (
                START,
                APDU_LENGTH_MIN + len(asdu),
                send << 1 & 0xFF,
                send >> 7,
                receive << 1 & 0xFF,
                receive >> 7,
            )
        )
        + asdu
    )


def s_frame(receive: int) -> bytes:
    """Supervision: acknowledges every I frame below `receive`."""
    return bytes((START, APDU_LENGTH_MIN, 1, 0, receive << 1 & 0xFF, receive >> 7))


def u_frame(function: Function) -> bytes:
    """Unnumbered control."""
    return bytes((START, APDU_LENGTH_MIN, function, 0, 0, 0))


def decode(frame: bytes) -> Frame:
    """One whole frame of the right length. Raises RemoteProtocolError for control fields that mean nothing.

    Octets and bits that the format does not use are not looked at.
    """
    first = frame[2]
    receive = frame[4] >> 1 | frame[5] << 7
    if not first & 1:
        if len(frame) == APCI_SIZE:
            raise RemoteProtocolError("I frame: found no ASDU, expected one")
        return Frame(first >> 1 | frame[3] << 7, receive, None, frame[APCI_SIZE:])
    if len(frame) != APCI_SIZE:
        kind = "U" if first & 2 else "S"
        raise RemoteProtocolError(f"{kind} frame: found length {frame[1]}, expected {APDU_LENGTH_MIN}")
    if not first & 2:
        return Frame(receive=receive)
    function = FUNCTIONS.get(first)
    if function is None:
        raise RemoteProtocolError(
            f"U frame: found control octet 0x{first:02x}, expected exactly one function"
        )
    return Frame(function=function)


class Framer:
    """A byte stream cut into frames. Holds less than one frame, whatever comes."""

    def __init__(self) -> None:
        self._rest = b""  # less than FRAME_SIZE_MAX

    def feed(self, data: bytes, frames: list[bytes]) -> None:
        """Append every frame that is whole now. Raises RemoteProtocolError where no frame begins.

        What stood in front of the garbage is in `frames` then. The stream cannot be read on: drop the link.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        at, end = 0, len(data)
        while at < end:
            if data[at] != START:
                shown = data[at : at + _SHOWN_MAX].hex(" ")
                raise RemoteProtocolError(f"frame: found {shown}, expected it to start with {START:02x}")
            if at + 1 == end:
                break
            length = data[at + 1]
            if not APDU_LENGTH_MIN <= length <= APDU_LENGTH_MAX:
                raise RemoteProtocolError(
                    f"frame: found length {length}, expected {APDU_LENGTH_MIN}..{APDU_LENGTH_MAX}"
                )
            stop = at + HEAD_SIZE + length
            if stop > end:
                break
            frames.append(data[at:stop])
            at = stop
        self._rest = data[at:]
