"""What client and server on a serial line share: how frames look, what times are kept, and the own echo.

MODBUS over Serial Line V1.02. The same sessions work over TCP, where a converter keeps the times of the line:
there frames are only cut by length and checksum, and nothing is waited for before sending.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from drivers.modbus.wire import ascii as ascii_
from drivers.modbus.wire import rtu
from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.rtu import Frame, Hears

ADDRESS_MAX: Final = 247  # of a single slave, §2.2; 248 to 255 are reserved
BROADCAST: Final = 0  # address of all slaves, §2.2
TURNAROUND_NS: Final = 100_000_000  # after a broadcast, §2.4.1: "typically from 100 ms to 200 ms"
_RTU_CHARACTER_BITS: Final = 11  # §2.5.1
_FAST_BAUD: Final = 19_200  # above it the silence does not shrink any more, §2.5.1.1
_FAST_SILENCE_NS: Final = 1_750_000
_ASCII_PATIENCE_NS: Final = 1_000_000_000  # between two characters of a frame, §2.5.2.1
LATENCY_NS: Final = 20_000_000  # USB adapters hand bytes over every 16 ms, schedulers later still
TCP_PATIENCE_NS: Final = 100_000_000  # between two segments that carry one frame


class Mode(enum.Enum):
    """The two serial transmission modes, §2.5."""

    RTU = "rtu"
    ASCII = "ascii"

    def encode(self, unit: int, pdu: bytes) -> bytes:
        """A frame as bytes."""
        return rtu.encode(unit, pdu) if self is Mode.RTU else ascii_.encode(unit, pdu)

    def size(self, pdu_size: int) -> int:
        """Characters that a PDU takes on the line."""
        return pdu_size + rtu.OVERHEAD if self is Mode.RTU else 2 * pdu_size + ascii_.OVERHEAD


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The times of one line, in ns. Make one with `serial` or `over_tcp`."""

    character_ns: int  # time of one character on the wire; 0 where there is no wire to wait for
    silence_ns: int  # nothing is sent sooner after anything that was heard or sent
    patience_ns: int  # what was begun and is not continued for so long is given up
    quiet_ns: int  # after a time-out nothing is sent until nothing was heard for so long
    turnaround_ns: int = TURNAROUND_NS

    @classmethod
    def serial(
        cls,
        mode: Mode,
        *,
        baud: int,
        character_bits: int = _RTU_CHARACTER_BITS,
        latency_ns: int = LATENCY_NS,
        turnaround_ns: int = TURNAROUND_NS,
    ) -> Timing:
        """A serial port. `character_bits`: with start, parity and stop bits.

        `latency_ns`: how late the port may hand over what came. RTU keeps 3.5 characters of silence before a
        frame, or 1.75 ms above 19,200 baud (§2.5.1.1); ASCII needs none.
        """
        character_ns = -(-character_bits * 1_000_000_000 // baud)
        silence_ns = _FAST_SILENCE_NS if baud > _FAST_BAUD else -(-character_ns * 7 // 2)
        is_rtu = mode is Mode.RTU
        return cls(
            character_ns=character_ns,
            silence_ns=silence_ns if is_rtu else 0,
            patience_ns=silence_ns + latency_ns if is_rtu else max(_ASCII_PATIENCE_NS, latency_ns),
            quiet_ns=silence_ns + latency_ns,
            turnaround_ns=turnaround_ns,
        )

    @classmethod
    def over_tcp(cls, *, patience_ns: int = TCP_PATIENCE_NS, turnaround_ns: int = TURNAROUND_NS) -> Timing:
        """A converter at the end of a TCP connection, which keeps the silence on its line itself."""
        return cls(
            character_ns=0,
            silence_ns=0,
            patience_ns=patience_ns,
            quiet_ns=patience_ns,
            turnaround_ns=turnaround_ns,
        )


class Framer(Protocol):
    """Cuts what is heard into frames; `rtu.Framer`, `ascii.Framer`."""

    @property
    def buffered(self) -> int:
        """Bytes held back, waiting for the rest of their frame."""
        ...

    def expect(self, beginnings: Iterable[bytes], pdu_size: int = 0) -> None:
        """Frames that begin so are taken where their function does not tell their length."""
        ...

    def feed(self, data: bytes, frames: list[Frame]) -> None:
        """Append the frames that are complete now to `frames`."""
        ...

    def silence(self, frames: list[Frame]) -> None:
        """Nothing came for `Timing.patience_ns`."""
        ...

    def clear(self) -> None:
        """The line is another one now."""
        ...


def framer(mode: Mode, hears: Hears, counters: Counters, *, own: Iterable[int] = ()) -> Framer:
    """A new one for a line."""
    return rtu.Framer(hears, counters, own=own) if mode is Mode.RTU else ascii_.Framer(counters)


class Echo:
    """Takes back off the line what was sent, where an adapter returns it: two wires, one receiver always on.

    An echo is known by being exactly what was sent. Where the next thing heard could not begin like that, it
    is taken off unasked, and from then on expected. A write that is answered by its own repetition cannot be
    told from its echo: an adapter with an echo must be configured (`is_expected`) for writes to be confirmed.
    """

    __slots__ = ("_awaited", "_configured", "_counters", "_is_expected", "_matched")

    def __init__(self, counters: Counters, *, is_expected: bool) -> None:
        self._counters: Final = counters
        self._configured: Final = is_expected
        self._is_expected = is_expected
        self._awaited = b""  # what was sent, while its echo may still come
        self._matched = 0  # bytes of it that came back

    @property
    def is_expected(self) -> bool:
        """Whether everything sent comes back."""
        return self._is_expected

    def sent(self, frame: bytes, *, is_unlike_answer: bool) -> None:
        """A frame goes out. `is_unlike_answer`: nothing good that is heard next can be the same bytes."""
        self._matched = 0
        self._awaited = frame if self._is_expected or is_unlike_answer else b""

    def strip(self, data: bytes) -> bytes:
        """What was heard, without the echo. A part of one is held back until it is known to be none."""
        awaited, matched = self._awaited, self._matched
        if not awaited:
            return data
        size = min(len(data), len(awaited) - matched)
        if awaited.startswith(data[:size], matched):
            self._matched = matched + size
            if self._matched == len(awaited):
                self._awaited = b""
                self._is_expected = True
                self._counters.echoes += 1
            return data[size:]
        return self.held() + data

    def held(self) -> bytes:
        """What was held back: no more of it is an echo."""
        held = self._awaited[: self._matched]
        if self._awaited and self._is_expected:
            self._counters.collisions += 1
        self._awaited = b""
        self._matched = 0
        return held

    def clear(self) -> None:
        """The line is another one now."""
        self._awaited = b""
        self._matched = 0
        self._is_expected = self._configured
