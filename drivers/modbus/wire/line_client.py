"""Client side of a serial line, RTU or ASCII, on a port or over TCP: one request at a time, and its answer.

MODBUS over Serial Line V1.02 §2.4.1 (master states). A line has no transaction identifiers. What can be done
without them is done: an answer must have the request's address, function, count and echo; one from another
slave is late, and waiting goes on; after a time-out nothing is sent until the line is silent; and a request
whose answer would look like one still owed to an earlier request waits until that one came, or until twice
the time for it is over.

What remains: an answer later than that, to a request of the same shape to the same slave, is taken for the
answer to the newer one. Only a timeout longer than the slave's worst delay excludes it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from drivers.modbus.wire.client import (
    Broadcast,
    Counters,
    Event,
    Expected,
    Lost,
    Mismatched,
    TimedOut,
)
from drivers.modbus.wire.describe import frame_words
from drivers.modbus.wire.line import BROADCAST, Echo, Framer, Mode, Timing, framer
from drivers.modbus.wire.pdu import EXCEPTION_FLAG, response_head
from drivers.modbus.wire.rtu import Frame, Hears
from gateway.core.errors import LocalProtocolError
from gateway.core.frames import FrameLog
from gateway.core.session import Address

OWED_MAX: Final = 256  # slaves that owe an answer at once: one for each address
_WRITES: Final = frozenset({5, 6, 8, 15, 16, 21, 22})
_PROBABLE_PDU_SIZE: Final = 64  # of an answer whose length the slave chooses, for the time it takes


class _Pending(msgspec.Struct, gc=False):
    token: object
    expected: Expected
    frame: bytes
    timeout_ns: int
    deadline_ns: int
    sent_ns: int = -1

    @property
    def was_sent(self) -> bool:
        return self.sent_ns >= 0

    @property
    def is_broadcast(self) -> bool:
        return self.expected.unit == BROADCAST


class _Owed(NamedTuple):
    """An answer that did not come in time, and may come yet."""

    expected: Expected
    until_ns: int

    def looks_like(self, other: Expected) -> bool:
        """Whether it would be taken for the answer to another request."""
        mine = self.expected
        return mine.request != other.request and (mine.head, mine.size) == (other.head, other.size)


def _fits(expected: Expected, pdu: bytes) -> bool:
    """Whether it may be the answer, by its look."""
    if len(pdu) == 2 and pdu[0] == expected.head[0] | EXCEPTION_FLAG:
        return True
    return pdu.startswith(expected.head) and len(pdu) == (expected.size or len(pdu))


def _may_repeat(expected: Expected) -> bool:
    """Whether a good answer may be the very bytes of the request."""
    request = expected.request
    return request.startswith(expected.head) and (expected.size or len(request)) == len(request)


class LineClientSession:
    """One line, any number of slaves; the verbs of `ClientSession`, so that a driver sees no difference."""

    ignores_sent: Final = True

    def __init__(self, *, mode: Mode, timing: Timing, has_echo: bool = False) -> None:
        """`has_echo`: the adapter returns what is sent, see `line.Echo`."""
        self.counters: Final = Counters()
        self.frames: Final = FrameLog(frame_words)
        self._mode: Final = mode
        self._timing: Final = timing
        self._framer: Final[Framer] = framer(mode, Hears.RESPONSES, self.counters)
        self._echo: Final = Echo(self.counters, is_expected=has_echo)
        self._pending: _Pending | None = None
        self._owed: dict[int, _Owed] = {}  # at most OWED_MAX, by address
        self._clear_ns = 0  # nothing is sent before
        self._heard_ns = 0
        self._is_draining = False  # after a time-out: until the line was silent
        self._is_ripe = False  # the owner was told that sending is due

    def capacity(self) -> int:
        """How many more requests may be made now: 1 or 0."""
        return 0 if self._pending is not None else 1

    def request(self, unit: int, pdu: bytes, *, token: object, timeout_ns: int, now_ns: int) -> None:
        """Send a request built by `wire.pdu`, as soon as the line is free; exactly one event with this token
        follows. Address 0 goes to all slaves, writes only: `Broadcast` follows, for none of them answers.

        The time runs from when the request is on the wire, and the characters of both frames come on top.
        Raises `LocalProtocolError` when there is no capacity, the unit is not 0..255, a read is sent to all,
        or the PDU is none of ours.
        """
        if self._pending is not None:
            raise LocalProtocolError("request: one is in flight already; ask capacity()")
        if not 0 <= unit <= 0xFF:
            raise LocalProtocolError(f"unit: found {unit}, expected 0..255")
        expected = Expected(unit, *response_head(pdu), pdu)
        if unit == BROADCAST and pdu[0] not in _WRITES:
            raise LocalProtocolError(f"function {pdu[0]} to all slaves: expected a write, as none answers")
        owed = self._owed.get(unit)
        if owed is not None and owed.looks_like(expected):
            self._clear_ns = max(self._clear_ns, owed.until_ns)
        self._pending = _Pending(
            token=token,
            expected=expected,
            frame=self._mode.encode(unit, pdu),
            timeout_ns=timeout_ns,
            deadline_ns=max(now_ns, self._clear_ns) + timeout_ns,
        )
        self._is_ripe = False
        self.counters.requests += 1
        self.counters.busy_since_ns = now_ns

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Event]:  # noqa: ARG002
        """Match the answer to the request. Never raises: what is no frame is counted and passed over."""
        self._heard_ns = now_ns
        rest_ns = self._timing.quiet_ns if self._is_draining else self._timing.silence_ns
        is_waiting = self._pending is not None and not self._pending.was_sent
        # Who answers has heard all of it: a port that is faster than its baud rate is not waited for.
        self._clear_ns = max(now_ns + rest_ns, self._clear_ns if is_waiting else 0)
        self._is_ripe = False
        data = self._echo.strip(data)
        frames: list[Frame] = []
        if data:
            errors = self.counters.check_errors
            self._framer.feed(data, frames)
            if self.frames.until_ns and self.counters.check_errors > errors:
                self.frames.add(now_ns, "fault", 0, b"", None, f"wrong checksum, or a part: {data.hex(' ')}")
        return self._match(frames, now_ns)

    def to_send(self, now_ns: int) -> list[bytes]:
        """The request, once the line was silent long enough."""
        pending = self._pending
        if pending is None or pending.was_sent or now_ns < self._clear_ns:
            return []
        self._settle()  # what was begun before is not the answer
        self._is_draining = False
        timing = self._timing
        pending.sent_ns = now_ns
        on_wire_ns = now_ns + len(pending.frame) * timing.character_ns
        self._clear_ns = on_wire_ns + timing.silence_ns
        expected = pending.expected
        if pending.is_broadcast:
            pending.deadline_ns = on_wire_ns + timing.turnaround_ns
            self._echo.sent(pending.frame, is_unlike_answer=True)
        else:
            size = expected.size or _PROBABLE_PDU_SIZE
            answer_ns = self._mode.size(size) * timing.character_ns
            pending.deadline_ns = on_wire_ns + pending.timeout_ns + answer_ns
            self._echo.sent(pending.frame, is_unlike_answer=not _may_repeat(expected))
            self._framer.expect((bytes((expected.unit, expected.request[0])),), expected.size)
        if self.frames.until_ns:
            self.frames.add(now_ns, "sent", expected.unit, expected.request, None, "")
        return [pending.frame]

    def sent(self, now_ns: int) -> list[Event]:  # noqa: ARG002
        """Nothing depends on it."""
        return []

    def lost(self, now_ns: int) -> list[Event]:
        """Fail the request, and be ready for the line once more."""
        pending, self._pending = self._pending, None
        self.counters.rest(now_ns)
        self._framer.clear()
        self._echo.clear()
        self._owed.clear()
        self._clear_ns = 0
        self._is_draining = False
        return [] if pending is None else [Lost(pending.token, pending.was_sent)]

    def deadline_ns(self) -> int | None:
        """When the line is free for the request, its time is over, or what was begun is given up."""
        deadline_ns = self._heard_ns + self._timing.patience_ns if self._framer.buffered else None
        pending = self._pending
        if pending is None:
            return deadline_ns
        mine_ns = pending.deadline_ns
        if not pending.was_sent and not self._is_ripe:
            mine_ns = min(mine_ns, self._clear_ns)
        return mine_ns if deadline_ns is None else min(mine_ns, deadline_ns)

    def on_deadline(self, now_ns: int) -> list[Event]:
        """Give up what was begun, time out what is due; call `to_send` after it."""
        events: list[Event] = []
        if self._framer.buffered and now_ns >= self._heard_ns + self._timing.patience_ns:
            events = self._match(self._settle(), now_ns)
        pending = self._pending
        if pending is None:
            return events
        if not pending.was_sent and now_ns >= self._clear_ns:
            self._is_ripe = True  # the owner sends now, or cannot: time is all there is left to wait for
        if now_ns < pending.deadline_ns:
            return events
        if pending.was_sent:  # the answer may be there, behind something that was begun
            events += self._match(self._settle(), now_ns)
        if self._pending is not None:
            events.append(self._give_up(self._pending, now_ns))
        return events

    def _give_up(self, pending: _Pending, now_ns: int) -> Event:
        self._pending = None
        self.counters.rest(now_ns)
        if pending.is_broadcast and pending.was_sent:
            self.counters.broadcasts += 1
            return Broadcast(pending.token, pending.sent_ns)
        self.counters.timeouts += 1
        if self.frames.until_ns:
            note = "no answer in time" if pending.was_sent else "not sent: the line was never silent"
            self.frames.add(now_ns, "fault", pending.expected.unit, pending.expected.request, None, note)
        if pending.was_sent:
            self._owed[pending.expected.unit] = _Owed(pending.expected, now_ns + pending.timeout_ns)
            self._drain(now_ns)
        return TimedOut(pending.token, pending.was_sent)

    def _drain(self, now_ns: int) -> None:
        self._is_draining = True
        self._clear_ns = max(self._clear_ns, now_ns + self._timing.quiet_ns)

    def _settle(self) -> list[Frame]:
        """No more comes of what was begun: the frames that were behind it."""
        frames: list[Frame] = []
        held = self._echo.held()
        if held:
            self._framer.feed(held, frames)
        self._framer.silence(frames)
        return frames

    def _match(self, frames: list[Frame], now_ns: int) -> list[Event]:
        events: list[Event] = []
        for unit, pdu in frames:
            event = self._judge(unit, pdu, now_ns)
            if event is not None:
                events.append(event)
        return events

    def _judge(self, unit: int, pdu: bytes, now_ns: int) -> Event | None:
        """What a frame is to the request; None where it is none of its answers."""
        pending, owed = self._pending, self._owed.get(unit)
        if pending is None or not pending.was_sent or pending.is_broadcast or unit != pending.expected.unit:
            self._owed.pop(unit, None)
            self._note_late(unit, pdu, now_ns)
            return None
        if owed is not None and now_ns < owed.until_ns and not _fits(pending.expected, pdu):
            del self._owed[unit]
            self._note_late(unit, pdu, now_ns)
            return None
        event = pending.expected.judge(pending.token, unit, pdu, now_ns, self.counters)
        self._pending = None
        self.counters.rest(now_ns)
        if self.frames.until_ns:
            note = "" if event.__class__ is not Mismatched else "does not fit the request"
            self.frames.add(now_ns, "received", unit, pdu, pending.expected.request, note)
        if event.__class__ is Mismatched:
            self._drain(now_ns)
        elif owed is not None:  # this may have been the one owed: then there is another to come
            if now_ns < owed.until_ns:
                self._owed[unit] = owed._replace(until_ns=now_ns + pending.timeout_ns)
            else:
                del self._owed[unit]
        return event

    def _note_late(self, unit: int, pdu: bytes, now_ns: int) -> None:
        self.counters.late += 1
        if self.frames.until_ns:
            self.frames.add(now_ns, "received", unit, pdu, b"", "too late, or never asked for")
