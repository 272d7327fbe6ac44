"""One IEC 60870-5-104 connection as controlling or controlled station (§5.1 to §5.5), without I/O."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from drivers.iec104.wire import apci
from drivers.iec104.wire.asdu import Asdu, Codec
from drivers.iec104.wire.describe import frame_words
from drivers.iec104.wire.events import (
    AcknowledgementDue,
    Confirmed,
    Event,
    Lost,
    NoResponse,
    Received,
    Started,
    Stopped,
    Stopping,
)
from drivers.iec104.wire.settings import Acknowledgement, Settings
from drivers.iec104.wire.terms import Function
from drivers.iec104.wire.window import ReceiveWindow, SendWindow
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.core.frames import FrameLog
from gateway.core.session import Address

_S_NS: Final = 1_000_000_000


class Role(enum.Enum):
    """Which end we are. The controlling station opens the connection and asks for STARTDT and STOPDT."""

    CONTROLLING = "controlling station"
    CONTROLLED = "controlled station"


class State(enum.Enum):
    """Of data transfer on this connection (§5.3)."""

    DISCONNECTED = "disconnected"
    STOPPED = "stopped"
    PENDING_STARTED = "pending started"  # controlling: STARTDT con is due
    STARTED = "started"
    PENDING_UNCONFIRMED_STOPPED = "pending unconfirmed stopped"  # controlling: STOPDT con and N(R) are due
    PENDING_STOPPED = "pending stopped"  # controlling: STOPDT con is due
    UNCONFIRMED_STOPPED = (
        "unconfirmed stopped"  # N(R) is due; the controlled station confirms STOPDT after it
    )
    BROKEN = "broken"  # t1 ran out or the peer broke the protocol: drop the link


_STOPPING: Final = frozenset(
    {State.PENDING_UNCONFIRMED_STOPPED, State.PENDING_STOPPED, State.UNCONFIRMED_STOPPED}
)
_AT_REST: Final = frozenset({State.DISCONNECTED, State.BROKEN})


class Counters(msgspec.Struct, kw_only=True):
    """What happened since the session was made."""

    i_sent: int = 0
    i_received: int = 0
    s_sent: int = 0
    s_received: int = 0
    u_sent: int = 0
    u_received: int = 0
    unasked: int = 0  # confirmations of U frames that nobody waited for
    no_response: int = 0  # t1 ran out
    violations: int = 0  # the peer broke the protocol


class Session:
    """One connection after another to one peer; `connected` begins each, `lost` ends it.

    ASDUs go out in the order of `send`, each exactly once on a connection; what the peer did not acknowledge
    comes back with `Lost`. Whether to send it again on the next connection is the owner's decision.
    """

    def __init__(self, role: Role, settings: Settings | None = None, codec: Codec | None = None) -> None:
        self.role: Final = role
        self.settings: Final = settings or Settings()
        self.codec: Final = codec or Codec()
        self.counters: Final = Counters()
        self.frames: Final = FrameLog(frame_words)
        self.state = State.DISCONNECTED
        self._t1_ns: Final = int(self.settings.t1_s * _S_NS)
        self._t2_ns: Final = int(self.settings.t2_s * _S_NS)
        self._t3_ns: Final = int(self.settings.t3_s * _S_NS)
        self._on_receipt: Final = self.settings.acknowledgement is Acknowledgement.ON_RECEIPT
        self._framer = apci.Framer()
        self._outgoing: Final = SendWindow(k=self.settings.k, queue_max=self.settings.queue_max)
        self._incoming: Final = ReceiveWindow()
        self._due: dict[Function, None] = {}  # U frames to send before data: at most 4
        self._stop_due: Function | None = None  # U frame to send after data and S
        self._s_due = False
        self._awaited: dict[Function, int] = {}  # confirmations: at most 3, since when
        self._heard_ns = 0  # a frame came in
        self._told_due = False  # AcknowledgementDue was told
        self._withheld: list[Event] = []  # of a segment that ended in garbage

    # --- verbs ---------------------------------------------------------------------------------------------

    def connected(self, now_ns: int) -> None:
        """The link is up; both sequence numbers start at 0. Raises LocalProtocolError before `lost`."""
        if self.state is not State.DISCONNECTED:
            raise LocalProtocolError(
                f"connected: found the session {self.state.value}, expected disconnected"
            )
        self.state = State.STOPPED
        self._heard_ns = now_ns

    def start(self) -> None:
        """Ask for data transfer (STARTDT act); `Started` follows, or `NoResponse`.

        Raises LocalProtocolError at the controlled station, or where it is not stopped.
        """
        self._require("start", State.STOPPED)
        self.state = State.PENDING_STARTED
        self._due[Function.STARTDT_ACT] = None

    def stop(self) -> None:
        """Acknowledge what may be, then ask for STOPDT; no ASDU goes out from now on. `Stopped` follows.

        Raises LocalProtocolError at the controlled station, or where it is not started.
        """
        self._require("stop", State.STARTED)
        busy = bool(self._outgoing.in_flight)
        self.state = State.PENDING_UNCONFIRMED_STOPPED if busy else State.PENDING_STOPPED
        self._s_due = True
        self._stop_due = Function.STOPDT_ACT

    def capacity(self) -> int:
        """How many more ASDUs `send` takes now."""
        return self._outgoing.queue_max - len(self._outgoing.waiting)

    def send(self, asdu: Asdu, *, token: object) -> None:
        """Queue an ASDU; its token comes back in `Confirmed` or `Lost`.

        The controlled station may queue before STARTDT; the controlling one may not, for a command must not
        wait. Raises LocalProtocolError for that, without capacity, or for what cannot be encoded.
        """
        if self.state in _AT_REST:
            raise LocalProtocolError(f"send: found the session {self.state.value}, expected a connection")
        if self.role is Role.CONTROLLING and self.state is not State.STARTED:
            raise LocalProtocolError(f"send: found data transfer {self.state.value}, expected started")
        if self.capacity() <= 0:
            raise LocalProtocolError(f"send: {self._outgoing.queue_max} ASDUs wait already; ask capacity()")
        self._outgoing.waiting.append((token, self.codec.encode(asdu)))

    def withdraw(self) -> list[object]:
        """Take back every ASDU that has not gone out yet; their tokens, in order."""
        tokens = [token for token, _ in self._outgoing.waiting]
        self._outgoing.waiting.clear()
        return tokens

    def acknowledge(self, number: int, now_ns: int) -> list[Event]:
        """Everything received up to this `Received.number` is safe: N(R) may say so. `Stopped` may follow.

        For `Acknowledgement.BY_OWNER`. Raises LocalProtocolError for a number that never came.
        """
        incoming = self._incoming
        incoming.acknowledge(number)
        self._told_due = False
        oldest_ns = incoming.oldest_ns()
        pending = incoming.acknowledged - incoming.told
        if pending and self.state not in _AT_REST:
            late = oldest_ns is not None and now_ns - oldest_ns >= self._t2_ns
            if late or pending >= self.settings.w or self.state in _STOPPING:
                self._s_due = True
        events: list[Event] = []
        self._settle(events)
        return events

    # --- the shape of every session ------------------------------------------------------------------------

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Event]:  # noqa: ARG002
        """Take octets. Raises RemoteProtocolError where the peer broke the protocol.

        Then drop the link and call `lost`, which first hands out the events of what stood in front of it.
        """
        if self.state in _AT_REST:
            return []
        frames: list[bytes] = []
        events: list[Event] = []
        try:
            try:
                self._framer.feed(data, frames)
            finally:
                for frame in frames:
                    self._take(frame, now_ns, events)
                    if self.state in _STOPPING:
                        self._settle(events)
        except RemoteProtocolError as error:
            self.counters.violations += 1
            if self.frames.until_ns:
                self.frames.add(now_ns, "fault", b"", self.codec, str(error))
            self.state = State.BROKEN
            self._withheld += events
            raise
        return events

    def to_send(self, now_ns: int) -> list[bytes]:
        """Frames to send now, oldest first."""
        if self.state in _AT_REST:
            return []
        out: list[bytes] = []
        out += [self._u_frame(function, now_ns) for function in self._due]
        self._due.clear()
        outgoing, incoming = self._outgoing, self._incoming
        if self.state is State.STARTED:
            while outgoing.is_open():
                number, asdu = outgoing.take(now_ns)
                out.append(apci.i_frame(number, incoming.tell(), asdu))
                self.counters.i_sent += 1
        if self._s_due:
            self._s_due = False
            if incoming.acknowledged != incoming.told:
                out.append(apci.s_frame(incoming.tell()))
                self.counters.s_sent += 1
        if self._stop_due is not None:
            out.append(self._u_frame(self._stop_due, now_ns))
            self._stop_due = None
        if self.frames.until_ns:
            for frame in out:
                self.frames.add(now_ns, "sent", frame, self.codec, "")
        return out

    def sent(self, now_ns: int) -> list[Event]:  # noqa: ARG002
        """Nothing depends on it."""
        return []

    def lost(self, now_ns: int) -> list[Event]:  # noqa: ARG002
        """The link is gone: what stood in front of garbage, then `Lost`. Ready for `connected`."""
        events, self._withheld = self._withheld, []
        if self.state is State.DISCONNECTED:
            return events
        unconfirmed, unsent = self._outgoing.lost()
        events.append(Lost(unconfirmed, unsent))
        self._incoming.lost()
        self._framer = apci.Framer()
        self._due.clear()
        self._awaited.clear()
        self._stop_due = None
        self._s_due = self._told_due = False
        self.state = State.DISCONNECTED
        return events

    def deadline_ns(self) -> int | None:
        """When t1, t2 or t3 runs out first."""
        if self.state in _AT_REST:
            return None
        deadlines = [since + self._t1_ns for since in self._awaited.values()]
        if self._outgoing.in_flight:
            deadlines.append(self._outgoing.in_flight[0][1] + self._t1_ns)
        oldest_ns = self._incoming.oldest_ns()
        if oldest_ns is not None and not self._s_due and not self._told_due:
            deadlines.append(oldest_ns + self._t2_ns)
        if not self._is_testing():
            deadlines.append(self._heard_ns + self._t3_ns)
        return min(deadlines, default=None)

    def on_deadline(self, now_ns: int) -> list[Event]:
        """Act on what ran out; call `to_send` after it."""
        if self.state in _AT_REST:
            return []
        overdue = self._overdue(now_ns)
        if overdue is not None:
            self.counters.no_response += 1
            if self.frames.until_ns:
                self.frames.add(now_ns, "fault", b"", self.codec, f"no {overdue.expected} in time")
            self.state = State.BROKEN
            return [overdue]
        events: list[Event] = []
        incoming = self._incoming
        oldest_ns = incoming.oldest_ns()
        if oldest_ns is not None and now_ns >= oldest_ns + self._t2_ns:
            if incoming.acknowledged != incoming.told:
                self._s_due = True
            elif not self._told_due:
                self._told_due = True
                events.append(AcknowledgementDue(incoming.acknowledged + 1, now_ns - oldest_ns))
        if not self._is_testing() and now_ns >= self._heard_ns + self._t3_ns:
            self._due[Function.TESTFR_ACT] = None
        return events

    # --- parts ---------------------------------------------------------------------------------------------

    def _require(self, verb: str, state: State) -> None:
        if self.role is not Role.CONTROLLING:
            raise LocalProtocolError(f"{verb}: only the controlling station asks for it")
        if self.state is not state:
            raise LocalProtocolError(
                f"{verb}: found data transfer {self.state.value}, expected {state.value}"
            )

    def _is_testing(self) -> bool:
        return Function.TESTFR_ACT in self._due or Function.TESTFR_CON in self._awaited

    def _u_frame(self, function: Function, now_ns: int) -> bytes:
        expected = _CONFIRMATIONS.get(function)
        if expected is not None:
            self._awaited[expected] = now_ns
        self.counters.u_sent += 1
        return apci.u_frame(function)

    def _overdue(self, now_ns: int) -> NoResponse | None:
        for function, since_ns in self._awaited.items():
            if now_ns >= since_ns + self._t1_ns:
                return NoResponse(function.name.replace("_", " ").replace("CON", "con"), now_ns - since_ns)
        if self._outgoing.in_flight:
            since_ns = self._outgoing.in_flight[0][1]
            if now_ns >= since_ns + self._t1_ns:
                return NoResponse("acknowledgement of an I frame", now_ns - since_ns)
        return None

    def _take(self, octets: bytes, now_ns: int, events: list[Event]) -> None:
        if self.frames.until_ns:
            self.frames.add(now_ns, "received", octets, self.codec, "")
        frame = apci.decode(octets)
        self._heard_ns = now_ns
        if frame.function is not None:
            self.counters.u_received += 1
            self._take_control(frame.function, events)
            return
        is_data = frame.send >= 0
        self._check_state(is_data=is_data)
        if not is_data:
            self.counters.s_received += 1
            self._confirm(frame.receive, events)
            return
        incoming = self._incoming
        number = incoming.take(frame.send, now_ns)
        self.counters.i_received += 1
        self._confirm(frame.receive, events)
        asdu = self.codec.decode(frame.asdu)
        if self._on_receipt:
            incoming.acknowledged = number
            if number - incoming.told >= self.settings.w or self.state in _STOPPING:
                self._s_due = True
        events.append(Received(asdu, number))

    def _check_state(self, *, is_data: bool) -> None:
        state = self.state
        allowed = state is State.STARTED or state in _STOPPING
        if is_data and state is State.UNCONFIRMED_STOPPED:
            allowed = False  # STOPDT was confirmed, or asked for and nothing may follow
        if not allowed:
            kind = "an I frame" if is_data else "an S frame"
            raise RemoteProtocolError(f"found {kind} with data transfer {state.value} (section 5.3)")

    def _confirm(self, receive: int, events: list[Event]) -> None:
        tokens = self._outgoing.confirm(receive)
        if tokens:
            events.append(Confirmed(tokens))

    def _take_control(self, function: Function, events: list[Event]) -> None:
        if function is Function.TESTFR_ACT:
            self._due[Function.TESTFR_CON] = None
        elif function in _CONFIRMATIONS.values():
            if self._awaited.pop(function, None) is None:
                self.counters.unasked += 1
            elif function is Function.STARTDT_CON:
                self.state = State.STARTED
                events.append(Started())
            elif function is Function.STOPDT_CON:
                self._settle(events)
                unconfirmed = bool(self._outgoing.in_flight)
                self.state = State.UNCONFIRMED_STOPPED if unconfirmed else State.STOPPED
                if not unconfirmed:
                    events.append(Stopped())
        elif self.role is Role.CONTROLLING:
            raise RemoteProtocolError(f"found {function.name} of the controlled station (section 5.3)")
        elif function is Function.STARTDT_ACT:
            self._due[Function.STARTDT_CON] = None
            self._stop_due = None
            if self.state is not State.STARTED:
                self.state = State.STARTED
                events.append(Started())
        elif self.state is State.STARTED:
            self.state = State.UNCONFIRMED_STOPPED
            self._s_due = True
            events.append(Stopping())
        elif self.state is State.STOPPED:
            self._stop_due = Function.STOPDT_CON

    def _settle(self, events: list[Event]) -> None:
        """Leave a state that waited for acknowledgements, where they are all there."""
        if self._outgoing.in_flight:
            return
        if self.state is State.PENDING_UNCONFIRMED_STOPPED:
            self.state = State.PENDING_STOPPED
        elif self.state is State.UNCONFIRMED_STOPPED:
            if self.role is Role.CONTROLLED:
                if self._incoming.acknowledged != self._incoming.received:
                    return
                self._stop_due = Function.STOPDT_CON
            self.state = State.STOPPED
            events.append(Stopped())


_CONFIRMATIONS: Final = {
    Function.STARTDT_ACT: Function.STARTDT_CON,
    Function.STOPDT_ACT: Function.STOPDT_CON,
    Function.TESTFR_ACT: Function.TESTFR_CON,
}
