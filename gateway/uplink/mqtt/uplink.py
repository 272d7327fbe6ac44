"""One MQTT broker: records from the outboxes out, commands in, a status topic that tells the truth."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from gateway.aio.alarm import Alarm
from gateway.aio.endpoint import Endpoint
from gateway.core.bounded import Bound, Level
from gateway.core.clock import Clock
from gateway.core.point import Layout
from gateway.flow.outbox import Entry, Outbox
from gateway.uplink.mqtt.wire.events import (
    Acknowledged,
    Connected,
    Disconnected,
    Event,
    Message,
    NoResponse,
    Refused,
    Rejected,
    Subscribed,
    TooLarge,
    Unsent,
)
from gateway.uplink.mqtt.wire.packets import Subscription
from gateway.uplink.mqtt.wire.reasons import FAILURE, ReasonCode, describe
from gateway.uplink.mqtt.wire.session import ClientSession, State

_log = logging.getLogger("gateway.uplink")

REPLIES_MAX: Final = (
    1000  # answers to commands waiting for the broker; the oldest is dropped, it is in the audit
)
STATUS_EVERY_NS: Final = 60_000_000_000  # also how long an acknowledgement may take at most, up to twice
_ACK_BYTES: Final = 4  # the shortest PUBACK, MQTT 5.0 §3.4
_MANY: Final = 16  # messages in flight from which on half of their acknowledgements are waited for at once
_LOGGED_MAX: Final = 100  # distinct refusals that are logged one by one

REPLIES: Final = Bound(
    noun="uplink_replies",
    unit="messages",
    what="answers to commands that wait for the broker",
    beyond="the oldest is dropped; it is in the audit file",
    labels=("uplink",),
    holds=("MqttUplink._replies",),
)
IN_FLIGHT: Final = Bound(
    noun="uplink_in_flight",
    unit="messages",
    what="sent and not acknowledged",
    beyond="the next ones wait",
    lost="",
    labels=("uplink",),
)

Outgoing: TypeAlias = tuple[bytes, bytes]
"""(topic, payload)"""


class Route(msgspec.Struct, frozen=True):
    """One publish rule for one layout: what becomes of a batch."""

    rule: int  # index of the rule, for counters
    messages: Callable[..., list[Outgoing]]  # (batch, *, historical) → messages
    qos: int
    retain: bool
    live_first: bool


Routes: TypeAlias = Callable[[str, Layout], Sequence[Route]]
"""(stream, layout) → the rules that apply."""


def _no_routes(_stream: str, _layout: Layout) -> Sequence[Route]:
    return ()


class Counters(msgspec.Struct):
    """What passed since start."""

    published: int = 0
    acknowledged: int = 0
    quarantined: int = 0
    sent_again: int = 0  # QoS 0 that went down with a link
    replies_dropped: int = 0
    commands: int = 0


class MqttUplink:
    """Implements `Owner`. Never pushes back: what the broker does not take waits in the journal."""

    def __init__(
        self,
        *,
        name: str,
        endpoint: Endpoint,
        session: ClientSession,
        is_v5: bool,
        clock: Clock,
        subscriptions: Sequence[Subscription],
        on_command: Callable[[MqttUplink, Message], None],
        status_topic: bytes,
        status: Callable[[], Mapping[str, Any]],
    ) -> None:
        """`status()`: what the status topic says besides."""
        self.name: Final = name
        self.endpoint: Final = endpoint
        self.session: Final = session
        self.counters: Final = Counters()
        self.rule_counts: Final[dict[int, int]] = {}  # messages acknowledged or set aside, by rule
        self.refusal = ""  # why the broker does not let us in
        self._routes: Routes = _no_routes
        self._clock = clock
        self._subscriptions = tuple(subscriptions)
        self._on_command = on_command
        self._status_topic = status_topic
        self._status = status
        self._lanes: tuple[deque[Outbox], ...] = ()
        self._pending: deque[tuple[Entry, Route, bytes, bytes]] = deque()  # of the record being sent
        self._replies: deque[tuple[bytes, bytes, int]] = deque(maxlen=REPLIES_MAX)
        self._is_send_due = False
        self._oldest: object = None  # of the publishes in flight, when last looked at
        self._is_connected = False
        self._is_v5 = is_v5
        self._logged: set[tuple[int, str]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alarm: Alarm | None = None

    # Life

    def connect_outboxes(self, lanes: Sequence[Sequence[Outbox]], routes: Routes) -> None:
        """What to send, the most urgent lane first, and what becomes of it."""
        self._routes = routes
        self._lanes = tuple(deque(lane) for lane in lanes)
        outboxes = [outbox for lane in lanes for outbox in lane]
        if self._is_connected:
            for outbox in outboxes:
                outbox.online()

    def outboxes(self) -> list[Outbox]:
        """All of them."""
        return [outbox for lane in self._lanes for outbox in lane]

    async def run(self) -> None:
        """Keep the link open until cancelled; what the broker acknowledged by then is known."""
        self._loop = asyncio.get_running_loop()
        self._alarm = Alarm(loop=self._loop, clock=self._clock, fire=self._on_alarm)
        try:
            await self.endpoint.keep(self)
        finally:
            self._alarm.cancel()

    def wake(self) -> None:
        """An outbox has something: send it in this turn of the loop, once for all callers."""
        if not self._is_send_due and self._loop is not None and self._is_connected:
            self._is_send_due = True
            self._loop.call_soon(self._send_and_flush)

    @property
    def is_connected(self) -> bool:
        """Whether the broker accepted us on the current link."""
        return self._is_connected

    @property
    def in_flight(self) -> int:
        """Messages sent and not acknowledged."""
        return self.session.in_flight

    @property
    def is_idle(self) -> bool:
        """Whether all that was handed over has been acknowledged."""
        return not self._pending and not self._replies and not self.session.in_flight

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (
            REPLIES.at(len(self._replies), REPLIES_MAX, self.counters.replies_dropped),
            IN_FLIGHT.at(self.in_flight, self.session.server.receive_maximum),
        )

    def reply(self, topic: bytes, payload: bytes, *, qos: int) -> None:
        """Answer a command; goes out before values."""
        if len(self._replies) == REPLIES_MAX:
            self.counters.replies_dropped += 1
        self._replies.append((topic, payload, qos))
        self.wake()

    # Owner

    def link_up(self) -> None:
        """Say CONNECT."""
        self.session.connect(self._clock.monotonic_ns())

    def link_closing(self) -> None:
        """Say that we leave: retained status and DISCONNECT, or the will where there is no room for it."""
        if self.session.state is not State.CONNECTED:
            return
        if self._publish_status("offline", reason="stopped"):
            self.session.disconnect()
        elif self._is_v5:
            self.session.disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE)

    def link_down(self, reason: str) -> None:  # noqa: ARG002 - the endpoint logs it
        """The journal takes over."""
        self._is_connected = False
        for outbox in self.outboxes():
            outbox.offline()

    def link_events(self, events: list[Event]) -> None:
        """What the broker said."""
        for event in events:
            if event.__class__ is Acknowledged:
                self._acknowledged(event.tokens)
            elif isinstance(event, Message):
                self.counters.commands += 1
                self._on_command(self, event)
            else:
                self._seldom(event)
        self._send()

    def _acknowledged(self, tokens: list[object]) -> None:
        counts = self.rule_counts
        for token in tokens:
            if token.__class__ is tuple:
                entry, rule = token
                counts[rule] = counts.get(rule, 0) + 1
                entry.waiting -= 1
                if not entry.waiting:
                    entry.outbox.acknowledge(entry)
        self.counters.acknowledged += len(tokens)

    def _seldom(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._connected()
        elif isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, Rejected):
            self._quarantine(event.token, f"{describe(event.reason)} {event.reason_string}".strip())
        elif isinstance(event, TooLarge):
            found = f"{event.size_bytes} bytes, the broker takes {event.limit_bytes}"
            self._quarantine(event.token, f"payload too large: found {found}")
        elif isinstance(event, Unsent):
            self._send_again(event.tokens)
        elif isinstance(event, Subscribed):
            self._subscribed(event)
        elif isinstance(event, Disconnected):
            self.endpoint.drop(f"broker disconnects: {describe(event.reason)} {event.reason_string}".strip())
        elif isinstance(event, NoResponse):
            self.endpoint.drop(f"broker is silent: no {event.expected} within {event.waited_ns / 1e9:.0f} s")

    # Coming and going

    def _connected(self) -> None:
        if self.refusal:
            self.refusal = ""
            _log.info("broker accepts us now", extra={"uplink": self.name})
        self.endpoint.settled()
        self._is_connected = True
        if self._subscriptions:
            self.session.subscribe(self._subscriptions, self._clock.monotonic_ns())
        self._publish_status("online")
        for outbox in self.outboxes():
            outbox.online()
        if self._alarm is not None:
            self._alarm.set(self._clock.monotonic_ns() + STATUS_EVERY_NS)

    def _refused(self, event: Refused) -> None:
        reason = f"{describe(event.reason)} {event.reason_string}".strip()
        if reason != self.refusal:
            self.refusal = reason
            _log.error(
                "broker refuses us; values are kept on disk, trying again",
                extra={"uplink": self.name, "address": self.endpoint.address, "reason": reason},
            )
        self.endpoint.drop(f"broker refuses: {reason}")

    def _subscribed(self, event: Subscribed) -> None:
        for subscription, result in zip(self._subscriptions, event.results, strict=False):
            if result >= FAILURE:
                _log.error(
                    "broker refuses the subscription: commands of this topic will not arrive",
                    extra={"uplink": self.name, "filter": subscription.filter, "reason": describe(result)},
                )

    def _on_alarm(self, now_ns: int) -> None:
        try:
            self._on_status_due(now_ns)
        except Exception as error:  # noqa: BLE001 - comes out of `run`, where the supervisor sees it
            self.endpoint.fail(error)

    def _on_status_due(self, now_ns: int) -> None:
        if self._is_connected:
            oldest = self.session.oldest_in_flight
            if oldest is not None and oldest is self._oldest:
                self.endpoint.drop(
                    f"no acknowledgement for {STATUS_EVERY_NS // 1_000_000_000} s: sending again"
                )
                return
            self._oldest = oldest
            self._publish_status("online")
            self.endpoint.wake()
        if self._alarm is not None:
            self._alarm.set(now_ns + STATUS_EVERY_NS)

    def _publish_status(self, state: str, *, reason: str = "") -> bool:
        said: dict[str, Any] = {"state": state, "t": self._clock.wall_ns() // 1_000_000}
        if reason:
            said["reason"] = reason
        said.update(self._status())
        said["rules"] = {str(rule): count for rule, count in sorted(self.rule_counts.items())}
        payload = msgspec.json.encode(said)
        return self.session.publish(self._status_topic, payload, qos=1, retain=True, token=None)

    # Values out

    def _send_and_flush(self) -> None:
        self._is_send_due = False
        try:
            self._send()
        except Exception as error:  # noqa: BLE001 - comes out of `run`, where the supervisor sees it
            self.endpoint.fail(error)
        self.endpoint.wake()

    def _send(self) -> None:
        self._send_what_fits()
        in_flight = self.session.in_flight
        self.endpoint.expect(_ACK_BYTES * (in_flight // 2) if in_flight >= _MANY else 1)

    def _send_what_fits(self) -> None:
        """As much as the broker's window takes: replies, the rest of a record, then the next records."""
        if not self._is_connected:
            return
        session = self.session
        replies = self._replies
        while replies:
            topic, payload, qos = replies[0]
            if not session.publish(topic, payload, qos=qos, retain=False, token=None):
                return
            replies.popleft()
        if session.quota < session.in_flight:
            return  # more acknowledgements are on their way: a segment for each message would cost more
        pending, publish, counters = self._pending, session.publish, self.counters
        while True:
            while pending:
                entry, route, topic, payload = pending[0]
                retain = route.retain and not (entry.is_historical and route.live_first)
                if not publish(topic, payload, qos=route.qos, retain=retain, token=(entry, route.rule)):
                    return
                pending.popleft()
                counters.published += 1
            if not session.quota or not self._take_record():
                return

    def _take_record(self) -> bool:
        """The next record's messages to `_pending`; False when there is nothing to send."""
        entry = self._next_entry()
        if entry is None:
            return False
        try:
            for route in self._routes(entry.stream, entry.batch.layout):
                for topic, payload in route.messages(entry.batch, historical=entry.is_historical):
                    self._pending.append((entry, route, topic, payload))
        except Exception as error:  # noqa: BLE001 - one record that cannot be said must not silence the next
            self._pending.clear()
            self._set_aside_unsaid(entry, error)
        entry.waiting = len(self._pending)
        if not entry.waiting:  # no rule wants it any more
            entry.acknowledge()
        return True

    def _next_entry(self) -> Entry | None:
        """From the most urgent lane that has something; outboxes of one lane take turns."""
        for lane in self._lanes:
            for _ in range(len(lane)):
                entry = lane[0].take()
                lane.rotate(-1)
                if entry is not None:
                    return entry
        return None

    def _quarantine(self, token: object, reason: str) -> None:
        """Refused for good: set aside and counted, so that it does not block what comes after."""
        if not isinstance(token, tuple):
            _log.error("broker refuses a message", extra={"uplink": self.name, "reason": reason})
            return
        entry, rule = token
        self.counters.quarantined += 1
        fact = (rule, reason.split(":", maxsplit=1)[0])
        if fact not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(fact)
            _log.error(
                "broker refuses a record for good, it is set aside; the next ones like it are only counted",
                extra={
                    "uplink": self.name,
                    "rule": rule,
                    "device": entry.batch.layout.device,
                    "position": f"{entry.position[0]}/{entry.position[1]}",
                    "reason": reason,
                },
            )
        entry.waiting -= 1
        if not entry.waiting:
            entry.acknowledge()

    def _set_aside_unsaid(self, entry: Entry, error: Exception) -> None:
        """A fault of ours: it cannot be written as the rule says."""
        self.counters.quarantined += 1
        fact = (-1, type(error).__name__)
        if fact not in self._logged and len(self._logged) < _LOGGED_MAX:
            self._logged.add(fact)
            _log.error(
                "a record cannot be written as its rule says, it is set aside; the next ones like it are only"
                " counted",
                extra={
                    "uplink": self.name,
                    "stream": entry.stream,
                    "device": entry.batch.layout.device,
                    "position": f"{entry.position[0]}/{entry.position[1]}",
                },
                exc_info=error,
            )

    def _send_again(self, tokens: list[object]) -> None:
        again: dict[int, Entry] = {}
        for token in tokens:
            if isinstance(token, tuple):
                again[id(token[0])] = token[0]
        for entry in again.values():
            self.counters.sent_again += 1
            self._pending = deque(item for item in self._pending if item[0] is not entry)
            entry.waiting = -1  # late acknowledgements of its other messages change nothing
            entry.outbox.send_again(entry)
