"""Client side of Modbus TCP: requests out, matched answers in, nothing ever matched by guess.

MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.4.1.2 (building requests), §4.4.1.3 (confirmations).
Stricter than the guide in one point: the unit identifier of an answer must be the request's also where it is
0xFF, because §3.1.3 has the server copy it.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import msgspec

from drivers.modbus.wire import mbap
from drivers.modbus.wire.describe import frame_words
from drivers.modbus.wire.pdu import EXCEPTION_FLAG, response_head
from drivers.modbus.wire.pdu_answer import fault_of
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.core.frames import FrameLog
from gateway.core.session import Address

IN_FLIGHT_MAX: Final = 16  # NumberMaxOfClientTransaction, §4.4.1.2: "from 1 to 16"
QUARANTINE_MAX: Final = 4096  # identifiers of failed requests kept out of use on one connection
REMEMBERED_MAX: Final = 1024  # requests whose answers' looks are remembered; all are forgotten above it
_TRANSACTION_COUNT: Final = 0x10000
_SHOWN_BYTES_MAX: Final = 16  # bytes of a wrong answer that an event repeats


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A good answer. `data`: what follows the head from `pdu.response_head`.

    After a read: what follows function and byte count; empty after a write; else what the decoders of
    `pdu_line`, `pdu_identity` and `pdu_files` take.
    """

    token: object
    data: bytes
    received_ns: int


class Refused(msgspec.Struct, frozen=True, gc=False):
    """The device answered with an exception; `pdu.meaning(code)` says it in words."""

    token: object
    code: int
    received_ns: int


class Mismatched(msgspec.Struct, frozen=True, gc=False):
    """The answer has the request's transaction identifier, and a wrong unit, function, length or echo."""

    token: object
    found: str
    expected: str
    received_ns: int


class TimedOut(msgspec.Struct, frozen=True, gc=False):
    """No answer in time. What was not handed out by then never will be."""

    token: object
    was_sent: bool


class Lost(msgspec.Struct, frozen=True, gc=False):
    """The link went away under the request."""

    token: object
    was_sent: bool


class Broadcast(msgspec.Struct, frozen=True, gc=False):
    """A request to all slaves of a serial line went out, and they had time to carry it out: none answers."""

    token: object
    sent_ns: int


Event: TypeAlias = Answer | Refused | Mismatched | TimedOut | Lost | Broadcast


class Counters(msgspec.Struct):
    """Counts since the session was made, over all its connections."""

    requests: int = 0
    answers: int = 0  # good ones
    timeouts: int = 0
    late: int = 0  # answers to no pending transaction: too late, doubled or never asked for; dropped
    mismatched: int = 0
    garbage: int = 0  # connections on which the peer did not speak Modbus TCP, or datagrams that were not
    exceptions: dict[int, int] = {}  # by code; msgspec copies the default
    # Serial lines only
    frames: int = 0  # with a good check, also those that answered nothing of ours
    check_errors: int = 0  # where a frame was due, one with a wrong CRC or LRC, or a part of one
    noise_bytes: int = 0  # in no frame, those of wrong checks too
    echoes: int = 0  # of what was sent, taken back off the line
    collisions: int = 0  # an echo that was not what was sent
    broadcasts: int = 0
    # How long at least one request was under way: utilisation of the wire
    busy_ns: int = 0  # until the last rest
    busy_since_ns: int = 0  # 0 while nothing is under way

    def busy_until(self, now_ns: int) -> int:
        """`busy_ns` with what is under way now."""
        return self.busy_ns + (now_ns - self.busy_since_ns if self.busy_since_ns else 0)

    def rest(self, now_ns: int) -> None:
        """Nothing is under way any more."""
        self.busy_ns = self.busy_until(now_ns)
        self.busy_since_ns = 0


class Expected(NamedTuple):
    """What a good answer to one request looks like."""

    unit: int
    head: bytes  # what the PDU begins with
    size: int  # bytes of the PDU; 0 where the device chooses
    request: bytes

    def judge(self, token: object, unit: int, pdu: bytes, now_ns: int, counters: Counters) -> Event:
        """The answer to the request as its event, counted: `Answer`, `Refused` or `Mismatched`."""
        expected_unit, head, size, request = self
        fault = ""
        if unit == expected_unit:
            if len(pdu) == size and pdu.startswith(head):
                counters.answers += 1
                return Answer(token, pdu[len(head) :], now_ns)
            if len(pdu) == 2 and pdu[0] == head[0] | EXCEPTION_FLAG:
                code = pdu[1]
                counters.exceptions[code] = counters.exceptions.get(code, 0) + 1
                return Refused(token, code, now_ns)
            if not size and pdu.startswith(head):
                fault = fault_of(request, len(head), pdu)
                if not fault:
                    counters.answers += 1
                    return Answer(token, pdu[len(head) :], now_ns)
        counters.mismatched += 1
        expected = fault or f"unit {expected_unit}, {size or 'some'} bytes beginning with {_shown(head)}"
        return Mismatched(token, f"unit {unit}, {len(pdu)} bytes {_shown(pdu)}", expected, now_ns)


class _Pending(NamedTuple):
    token: object
    deadline_ns: int
    expected: Expected


class ClientSession:
    """One connection after another to one host; any number of units behind it.

    Transaction identifiers count up and go on counting over reconnects. One whose request failed is in
    quarantine until the connection ends, so that a late answer can never meet a later request.
    """

    ignores_sent: Final = True

    def __init__(
        self, *, max_in_flight: int = 1, first_transaction: int = 1, has_datagrams: bool = False
    ) -> None:
        """`has_datagrams`: UDP, where each frame comes alone and a bad one spoils no other. What gets lost
        times out; to ask again is the caller's matter.
        """
        if not 1 <= max_in_flight <= IN_FLIGHT_MAX:
            raise LocalProtocolError(f"max_in_flight: found {max_in_flight}, expected 1..{IN_FLIGHT_MAX}")
        self.counters: Final = Counters()
        self.frames: Final = FrameLog(frame_words)
        self._max_in_flight: Final = max_in_flight
        self._transaction = first_transaction % _TRANSACTION_COUNT
        self._has_datagrams: Final = has_datagrams
        self._framer = mbap.Framer()
        self._pending: dict[int, _Pending] = {}  # at most `max_in_flight`, in the order of the requests
        self._quarantine: dict[int, None] = {}  # at most QUARANTINE_MAX, oldest first
        self._expected: dict[tuple[int, bytes], Expected] = {}  # scans ask the same again: REMEMBERED_MAX
        self._out: list[bytes] = []  # at most `max_in_flight` frames
        self._withheld: list[Event] = []  # at most `max_in_flight`, see `receive`

    def capacity(self) -> int:
        """How many more requests may be made now."""
        return self._max_in_flight - len(self._pending)

    def request(self, unit: int, pdu: bytes, *, token: object, timeout_ns: int, now_ns: int) -> None:
        """Send a request built by `wire.pdu`; exactly one event with this token follows.

        The time runs from now. Raises `LocalProtocolError` when there is no capacity, the unit is not 0..255
        or the PDU is none of ours.
        """
        if len(self._pending) >= self._max_in_flight:
            raise LocalProtocolError(f"request: {self._max_in_flight} are in flight already; ask capacity()")
        if not 0 <= unit <= 0xFF:
            raise LocalProtocolError(f"unit: found {unit}, expected 0..255")
        expected = self._expected.get((unit, pdu))
        if expected is None:
            expected = Expected(unit, *response_head(pdu), pdu)
            if len(self._expected) >= REMEMBERED_MAX:
                self._expected.clear()
            self._expected[unit, pdu] = expected
        transaction = self._transaction
        while transaction in self._quarantine or transaction in self._pending:
            transaction = (transaction + 1) % _TRANSACTION_COUNT
        self._transaction = (transaction + 1) % _TRANSACTION_COUNT
        self._pending[transaction] = _Pending(token, now_ns + timeout_ns, expected)
        self._out.append(mbap.encode(transaction, unit, pdu))
        counters = self.counters
        counters.requests += 1
        if not counters.busy_since_ns:
            counters.busy_since_ns = now_ns
        if self.frames.until_ns:
            self.frames.add(now_ns, "sent", unit, pdu, None, "")

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Event]:  # noqa: ARG002
        """Match answers to requests. `source` is not used: the connection says who answers.

        Raises `RemoteProtocolError` when the stream is not Modbus TCP: drop the link and call `lost`, which
        first hands out the events of the answers that stood in front of the garbage.
        """
        if self._has_datagrams:
            frame = mbap.decode(data)
            self.counters.garbage += frame is None
            return self._match([frame], now_ns) if frame is not None else []
        frames: list[mbap.Frame] = []
        try:
            self._framer.feed(data, frames)
        except RemoteProtocolError:
            self.counters.garbage += 1
            self._withheld += self._match(frames, now_ns)
            raise
        return self._match(frames, now_ns)

    def to_send(self, now_ns: int) -> list[bytes]:  # noqa: ARG002
        """Frames to send now, oldest first."""
        out = self._out
        if out:
            self._out = []
        return out

    def sent(self, now_ns: int) -> list[Event]:  # noqa: ARG002
        """Nothing depends on it."""
        return []

    def lost(self, now_ns: int) -> list[Event]:
        """Fail everything under way, and be ready for a new connection."""
        unsent = self._unsent()
        events, self._withheld = self._withheld, []
        events += [Lost(request.token, number not in unsent) for number, request in self._pending.items()]
        self._pending.clear()
        self.counters.rest(now_ns)
        self._quarantine.clear()
        self._out = []
        self._framer = mbap.Framer()
        return events

    def deadline_ns(self) -> int | None:
        """When the next request times out."""
        return min((request.deadline_ns for request in self._pending.values()), default=None)

    def on_deadline(self, now_ns: int) -> list[Event]:
        """Time out what is due. Late answers are dropped and counted from now on."""
        due = [number for number, request in self._pending.items() if request.deadline_ns <= now_ns]
        if not due:
            return []
        unsent = self._unsent()
        events: list[Event] = []
        for number in due:
            token, _, expected = self._pending.pop(number)
            events.append(TimedOut(token, number not in unsent))
            self._forget(number)
            if self.frames.until_ns:
                self.frames.add(now_ns, "fault", expected.unit, expected.request, None, "no answer in time")
        if not self._pending:
            self.counters.rest(now_ns)
        self.counters.timeouts += len(due)
        if unsent:
            self._out = [frame for frame in self._out if _transaction_of(frame) not in due]
        return events

    def _match(self, frames: list[mbap.Frame], now_ns: int) -> list[Event]:
        events: list[Event] = []
        counters = self.counters
        for number, unit, pdu in frames:
            request = self._pending.pop(number, None)
            if request is None:
                counters.late += 1
                if self.frames.until_ns:
                    self.frames.add(now_ns, "received", unit, pdu, b"", "too late, or never asked for")
                continue
            event = request.expected.judge(request.token, unit, pdu, now_ns, counters)
            if event.__class__ is Mismatched:
                self._forget(number)
            events.append(event)
            if self.frames.until_ns:
                note = "" if event.__class__ is not Mismatched else "does not fit the request"
                self.frames.add(now_ns, "received", unit, pdu, request.expected.request, note)
        if not self._pending and counters.busy_since_ns:
            counters.busy_ns += now_ns - counters.busy_since_ns  # as `rest`, without its calls
            counters.busy_since_ns = 0
        return events

    def _forget(self, number: int) -> None:
        self._quarantine[number] = None
        if len(self._quarantine) > QUARANTINE_MAX:
            # The oldest may be used again: in 61,000 requests at the earliest, for numbers count up.
            del self._quarantine[next(iter(self._quarantine))]

    def _unsent(self) -> set[int]:
        return {_transaction_of(frame) for frame in self._out}


def _transaction_of(frame: bytes) -> int:
    return frame[0] << 8 | frame[1]


def _shown(data: bytes) -> str:
    return data[:_SHOWN_BYTES_MAX].hex(" ") + ("…" if len(data) > _SHOWN_BYTES_MAX else "")
