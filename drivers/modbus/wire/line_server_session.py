"""Server side of a serial line, RTU or ASCII, on a port or over TCP: one or several slaves among others.

MODBUS over Serial Line V1.02 §2.4.2 (slave states). On a shared wire the others' requests and their answers
are heard too: they are told apart by length and checksum, counted, and nothing is said to them. An answer
waits for the silence behind its request, and is dropped if anybody speaks first: its client has given it up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final, Protocol

import msgspec

from drivers.modbus.wire import ascii as ascii_
from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.line import ADDRESS_MAX, BROADCAST, Echo, Framer, Mode, Timing, framer
from drivers.modbus.wire.pdu import EXCEPTION_FLAG, PDU_SIZE_MAX, ExceptionCode
from drivers.modbus.wire.pdu_size import request_size
from drivers.modbus.wire.respond import Open, Reply
from drivers.modbus.wire.rtu import Frame, Hears
from drivers.modbus.wire.server import OPEN_MAX, QUEUED_BYTES_MAX, Indication
from gateway.core.errors import LocalProtocolError
from gateway.core.session import Address

QUEUED_MAX: Final = QUEUED_BYTES_MAX // PDU_SIZE_MAX  # answers; what comes above it over TCP is not answered


class Station(Protocol):
    """What answers on a line, for all its slaves."""

    def answer(self, unit: int, pdu: bytes) -> Reply | None:
        """The answer to a request for one of our addresses or, 0, for all; None where there is none."""
        ...

    def overheard(self) -> None:
        """A good frame that is not for us."""
        ...

    def damaged(self) -> None:
        """Something like a frame, with a wrong checksum or cut short."""
        ...


class _Slot(msgspec.Struct, gc=False):
    """A place in the order of answers: `answer` is b"" while its write's outcome is open."""

    unit: int
    answer: bytes
    token: object = None
    conclude: Callable[[ExceptionCode | None], bytes] | None = None


class LineServerSession:
    """The slaves of this gateway on one line. `counters.late`: answers dropped because the line went on."""

    ignores_sent: Final = True

    def __init__(
        self,
        station: Station,
        *,
        units: Collection[int],
        mode: Mode,
        timing: Timing,
        has_echo: bool = False,
    ) -> None:
        """`units`: our addresses, 1..247. `has_echo`: the adapter returns what is sent, see `line.Echo`."""
        for unit in units:
            if not BROADCAST < unit <= ADDRESS_MAX:
                raise LocalProtocolError(f"unit: found {unit}, expected 1..{ADDRESS_MAX}")
        self.counters: Final = Counters()
        self._station: Final = station
        self._units: Final = frozenset(units)
        self._mode: Final = mode
        self._timing: Final = timing
        own = (BROADCAST, *sorted(units))
        self._framer: Final[Framer] = framer(mode, Hears.ALL, self.counters, own=own)
        self._framer.expect(bytes((unit,)) for unit in own[1:])
        self._echo: Final = Echo(self.counters, is_expected=has_echo)
        self._slots: deque[_Slot] = deque()  # at most QUEUED_MAX
        self._clear_ns = 0
        self._heard_ns = 0
        self._is_ripe = False

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Indication]:  # noqa: ARG002
        """Take what is for us. Never raises: what is no frame is counted and passed over."""
        self._heard_ns = now_ns
        self._clear_ns = max(self._clear_ns, now_ns + self._timing.silence_ns)
        self._is_ripe = False
        data = self._echo.strip(data)
        return self._take(data, is_silent=False) if data else []

    def conclude(self, token: object, refusal: ExceptionCode | None) -> bool:
        """The outcome of a write handed on. Whether this line still waits for its answer."""
        for slot in self._slots:
            if slot.conclude is not None and slot.token == token:
                slot.answer = slot.conclude(refusal)
                slot.conclude = None
                return True
        return False

    def to_send(self, now_ns: int) -> list[bytes]:
        """Answers, in the order of their requests, once the line was silent long enough."""
        if now_ns < self._clear_ns:
            return []
        out: list[bytes] = []
        timing = self._timing
        while self._slots and self._slots[0].answer:
            slot = self._slots.popleft()
            frame = self._mode.encode(slot.unit, slot.answer)
            asked_size = request_size(slot.answer)
            self._echo.sent(frame, is_unlike_answer=asked_size > 0 and asked_size != len(slot.answer))
            self._clear_ns = now_ns + len(frame) * timing.character_ns + timing.silence_ns
            out.append(frame)
        return out

    def sent(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """Nothing depends on it."""
        return []

    def lost(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """The line is gone: what was begun and what was not sent is forgotten."""
        self._framer.clear()
        self._echo.clear()
        self._slots.clear()
        self._clear_ns = 0
        return []

    def deadline_ns(self) -> int | None:
        """When an answer may go out, or what was begun is given up."""
        deadline_ns = self._heard_ns + self._timing.patience_ns if self._framer.buffered else None
        if self._slots and self._slots[0].answer and not self._is_ripe:
            return self._clear_ns if deadline_ns is None else min(self._clear_ns, deadline_ns)
        return deadline_ns

    def on_deadline(self, now_ns: int) -> list[Indication]:
        """Give up what was begun; call `to_send` after it."""
        self._is_ripe = now_ns >= self._clear_ns
        if not self._framer.buffered or now_ns < self._heard_ns + self._timing.patience_ns:
            return []
        return self._take(self._echo.held(), is_silent=True)

    @property
    def has_echo(self) -> bool:
        """Whether what it sends is expected back."""
        return self._echo.is_expected

    def set_delimiter(self, character: int) -> None:
        """What ends ASCII frames from now on, instead of LF: Application Protocol Specification §6.8.1, 3."""
        if isinstance(self._framer, ascii_.Framer):
            self._framer.delimiter = bytes((character,))

    def _take(self, data: bytes, *, is_silent: bool) -> list[Indication]:
        frames: list[Frame] = []
        errors = self.counters.check_errors
        if data:
            self._framer.feed(data, frames)
        if is_silent:
            self._framer.silence(frames)
        for _ in range(self.counters.check_errors - errors):
            self._station.damaged()
        indications: list[Indication] = []
        for unit, pdu in frames:
            if self._timing.character_ns and self._slots:  # on a wire: somebody speaks before we answered
                self.counters.late += len(self._slots)
                self._slots.clear()
            if unit in self._units:
                indications.append(self._serve(unit, pdu))
            elif unit == BROADCAST:
                self.counters.broadcasts += 1
                self._station.answer(BROADCAST, pdu)
                indications.append(Indication(BROADCAST, pdu[0], None))
            else:
                self._station.overheard()
        return indications

    def _serve(self, unit: int, pdu: bytes) -> Indication:
        counters = self.counters
        counters.requests += 1
        is_open = sum(slot.conclude is not None for slot in self._slots)
        if len(self._slots) >= QUEUED_MAX:  # an order without identifiers can only be kept by silence
            counters.late += 1
            return Indication(unit, pdu[0], ExceptionCode.SERVER_DEVICE_FAILURE)
        if is_open >= OPEN_MAX:  # not busy, which invites to write the same once more, later
            reply: Reply | None = bytes((pdu[0] | EXCEPTION_FLAG, ExceptionCode.SERVER_DEVICE_FAILURE))
        else:
            reply = self._station.answer(unit, pdu)
        if isinstance(reply, Open):
            self._slots.append(_Slot(unit, b"", reply.token, reply.conclude))
        elif reply:
            self._slots.append(_Slot(unit, reply))
            if reply[0] & EXCEPTION_FLAG:
                code = reply[1]
                counters.exceptions[code] = counters.exceptions.get(code, 0) + 1
                return Indication(unit, pdu[0], code)
            counters.answers += 1
        return Indication(unit, pdu[0], None)
