"""RTU framing: bytes of a serial line into frames by function, length and CRC; frames into bytes.

MODBUS over Serial Line V1.02 §2.5.1: address, PDU, CRC; at most 256 bytes. The silence of 3.5 characters
that ends a frame there (§2.5.1.1) cannot be seen behind a USB adapter, a scheduler or a network: a frame ends
where its function and its counts say, if the checksum agrees. A longer silence, which the owner tells, gives
up what was begun and ends frames of functions whose length nothing tells.
"""

from __future__ import annotations

import enum
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.crc import crc16, with_crc
from drivers.modbus.wire.pdu import PDU_SIZE_MAX, FunctionCode
from drivers.modbus.wire.pdu_size import NEEDS_MORE, UNTOLD, request_size, response_size
from drivers.modbus.wire.sieve import Sifted, sift

ADU_SIZE_MAX: Final = 3 + PDU_SIZE_MAX  # 256 bytes, §2.5.1
OVERHEAD: Final = 3  # address and CRC
_RETURN_QUERY_DATA_SIZE: Final = 5  # of its PDU as it is used; the standard lets it have any length
FAILURES_MAX: Final = 4  # places that begin no frame, looked at one by one before all are sifted at once
SIFTED_SIZE_MIN: Final = 32  # bytes that came together, below which sifting what is held back costs more
_NONE: Final = 0
_WAIT: Final = -1

Frame = tuple[int, bytes]
"""(address, PDU)"""


class Hears(enum.Enum):
    """What the frames on the line are, as this end hears them."""

    RESPONSES = "responses"  # a client: what it sent itself it does not hear
    ALL = "all"  # a server: others are asked and answer on the same wire


_SizeOf = Callable[[bytes], int]  # of a PDU, told from its first bytes
_ANSWERED: Final[tuple[_SizeOf, ...]] = (response_size,)
_ASKED: Final[tuple[_SizeOf, ...]] = (request_size,)
_EITHER: Final[tuple[_SizeOf, ...]] = (request_size, response_size)


def encode(unit: int, pdu: bytes) -> bytes:
    """A frame as bytes."""
    return with_crc(bytes((unit,)) + pdu)


@cache
def _starts(hears: Hears) -> re.Pattern[bytes]:
    """Where a frame could begin, so that noise is passed at the speed of `re`.

    Passes no good frame, save exceptions with codes from 32 on, which the standard does not know. Compiled
    when a line needs it: that takes 10 ms.
    """
    more = rb"(?:%b|\Z)"
    refusal = b"[\x81-\xff]" + more % rb"[\x01-\x1f]"
    if hears is Hears.ALL:
        functions = b"[\x01-\x08\x0b\x0c\x0f-\x11\x14-\x18\x2b]|" + refusal
        return re.compile(rb"(?s:.)" + more % (b"(?:" + functions + b")"))
    even = b"[" + b"".join(rb"\x%02x" % count for count in range(2, 251, 2)) + b"]"
    functions = b"|".join(
        (
            b"[\x01\x02]" + more % rb"[\x01-\xfa]",
            b"[\x03\x04\x17]" + more % even,
            rb"\x08" + more % rb"\x00",
            rb"\x18" + more % rb"\x00",
            rb"\x2b" + more % rb"[\x0d\x0e]",
            b"[\x05-\x07\x0b\x0c\x0f-\x11\x14-\x16]",
            refusal,
        )
    )
    return re.compile(b"[^\x00]" + more % (b"(?:" + functions + b")"))


_NOTHING_SIFTED: Final = Sifted([], 0)


class Framer:
    """Cuts what is heard into frames. Holds back less than one frame: 255 bytes.

    Never raises. How the bytes were cut up when they came in makes no difference. Work is bounded by the
    bytes, whatever they are: where one may begin a frame, two lengths of at most 256 bytes are tried; where
    there is much noise, only at the few places from which some checksum fits.
    """

    __slots__ = (
        "_awaited", "_awaited_size", "_counters", "_failed", "_is_in_step", "_is_sifting", "_match", "_rest",
        "_search", "_sifted", "_sizes", "_starts", "_stop",
    )  # fmt: skip

    def __init__(self, hears: Hears, counters: Counters, *, own: Iterable[int] = ()) -> None:
        """`own`: addresses that only requests are sent to, for nobody else answers in their name."""
        sizes = dict.fromkeys(range(256), _EITHER if hears is Hears.ALL else _ANSWERED)
        self._sizes: Final = tuple({**sizes, **dict.fromkeys(own, _ASKED)}.values())
        self._counters: Final = counters
        self._starts: Final = _starts(hears)
        self._search = self._starts.search
        self._match = self._starts.match
        self._awaited: tuple[bytes, ...] = ()
        self._awaited_size = 0
        self._rest = b""
        self._failed = 0  # size of the longest frame at the start of `_rest` whose checksum was wrong
        self._sifted = _NOTHING_SIFTED
        self._stop = 0  # of this pass: no place from here on is looked at before more bytes come
        self._is_sifting = False  # in noise: places are sifted together, not looked at one by one
        self._is_in_step = True  # nothing was heard since the last frame or silence

    @property
    def buffered(self) -> int:
        """Bytes held back, waiting for the rest of their frame."""
        return len(self._rest)

    def expect(self, beginnings: Iterable[bytes], pdu_size: int = 0) -> None:
        """Frames that begin so, address first, are taken where their function does not tell their length.

        `pdu_size`: how long they are; 0: what ends with a silence is one frame.
        """
        self._awaited = tuple(beginnings)
        self._awaited_size = pdu_size
        self._search, self._match = self._starts.search, self._starts.match
        more = [start for start in self._awaited if len(start) == 1 or not self._starts.match(start)]
        if more:
            pattern = b"|".join([self._starts.pattern, *map(re.escape, more)])
            self._search, self._match = re.compile(pattern).search, re.compile(pattern).match

    def feed(self, data: bytes, frames: list[Frame]) -> None:
        """Append the frames that are complete now to `frames`."""
        self._is_sifting &= len(data) >= SIFTED_SIZE_MIN
        self._scan(self._rest + data if self._rest else data, frames, is_silent=False)

    def silence(self, frames: list[Frame]) -> None:
        """Nothing came for so long that nothing of what was begun will: look for frames behind it."""
        if self._rest:
            self._scan(self._rest, frames, is_silent=True)
        self._is_in_step, self._is_sifting = True, False

    def clear(self) -> None:
        """Forget what was begun: the line is another one now."""
        self._rest = b""
        self._failed = 0
        self._is_in_step, self._is_sifting = True, False

    def _scan(self, buffer: bytes, frames: list[Frame], *, is_silent: bool) -> None:
        counters = self._counters
        position, end, failures = 0, len(buffer), 0
        self._sifted, self._stop = _NOTHING_SIFTED, end
        if not self._is_in_step:  # the byte held back may begin no frame after all
            position = self._next(buffer, 0, is_silent=is_silent)
        while position < self._stop:
            size = self._size_at(buffer, position, end, is_silent=is_silent)
            if size > 0:
                frames.append((buffer[position], buffer[position + 1 : position + size - 2]))
                counters.frames += 1
                position += size
                self._is_in_step = True
                self._is_sifting = False
            elif size == _WAIT:
                break
            else:
                if self._is_in_step:
                    self._is_in_step = False
                    counters.check_errors += 1
                counters.noise_bytes += 1
                failures += 1
                self._is_sifting |= failures > FAILURES_MAX
                position = self._next(buffer, position + 1, is_silent=is_silent)
            self._failed = 0
        self._rest = buffer[position:]

    def _next(self, buffer: bytes, position: int, *, is_silent: bool) -> int:
        """Where the next frame may begin, from `position` on."""
        if self._is_sifting:
            found = self._sift(buffer, position, is_silent=is_silent)
        else:
            start = self._search(buffer, position)
            found = start.start() if start else len(buffer)
        if found > position:
            self._counters.noise_bytes += found - position
            self._failed = 0
        return found

    def _sift(self, buffer: bytes, position: int, *, is_silent: bool) -> int:
        """As a search from `position` on, at a price that does not grow with what the bytes pretend to be.

        What may begin a frame that is not whole yet is held back, not looked at: it will be, when it is.
        """
        end = len(buffer)
        opens = end if is_silent else end - ADU_SIZE_MAX + 1  # from here on frames may be open
        while position < end:
            if position >= self._sifted.until:
                self._sifted = sift(buffer, position)
            places, until = self._sifted
            at = bisect_left(places, position)
            whole = places[at] if at < len(places) else until
            if whole == end > opens:
                self._stop = max(position, opens)
                return self._stop
            if whole > opens:
                whole = self._first_open(buffer, max(position, opens), whole)
            if whole < until and self._match(buffer, whole):
                return whole
            position = whole + (whole < until)
        return end

    def _first_open(self, buffer: bytes, position: int, stop: int) -> int:
        """The first place from `position` on where a frame may be open; `stop` where none is before that."""
        while position < stop:
            start = self._search(buffer, position)
            position = start.start() if start else stop
            if position < stop:
                here = len(buffer) - position
                sizes = self._sizes_at(buffer, position, here)
                if sizes[0] == _WAIT or sizes[-1] > here:
                    return position
            position += 1
        return stop

    def _size_at(self, buffer: bytes, position: int, end: int, *, is_silent: bool) -> int:
        """Bytes of the good frame there; `_WAIT` where more bytes may make it one, `_NONE` where none can."""
        here = end - position
        is_open = False
        for size in self._sizes_at(buffer, position, here):
            if size > here or size == _WAIT:
                is_open = True
            elif size > self._failed:
                if not crc16(buffer, position, size):
                    return size
                self._failed = size
        if is_open and not is_silent:
            return _WAIT
        if is_silent and OVERHEAD < here <= ADU_SIZE_MAX and buffer.startswith(self._awaited, position):
            return _NONE if crc16(buffer, position, here) else here
        return _NONE

    def _sizes_at(self, buffer: bytes, position: int, here: int) -> tuple[int, ...]:
        """The sizes that a frame there may have, ascending, `_WAIT` and `_NONE` among them."""
        pdu = buffer[position + 1 : position + 1 + PDU_SIZE_MAX]
        sizes_of = self._sizes[buffer[position]]
        size = sizes_of[0](pdu)
        size = size + OVERHEAD if 0 < size <= PDU_SIZE_MAX else self._told(size, buffer, position, here)
        if len(sizes_of) == 1:
            return (size,)
        other = sizes_of[1](pdu)
        other = other + OVERHEAD if 0 < other <= PDU_SIZE_MAX else self._told(other, buffer, position, here)
        return (size, other) if size <= other else (other, size)

    def _told(self, pdu_size: int, buffer: bytes, position: int, here: int) -> int:
        """The size of a frame where its PDU tells none: `_WAIT` if it is not known yet, `_NONE` for none."""
        if pdu_size == NEEDS_MORE:
            return _WAIT if here < ADU_SIZE_MAX else _NONE
        if pdu_size != UNTOLD:
            return _NONE
        if here <= ADU_SIZE_MAX and buffer.startswith(self._awaited, position):
            return self._awaited_size + OVERHEAD if self._awaited_size else _WAIT
        if buffer[position + 1] == FunctionCode.DIAGNOSTICS:
            return _RETURN_QUERY_DATA_SIZE + OVERHEAD
        return _NONE
