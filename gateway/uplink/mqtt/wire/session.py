"""The client side of MQTT 5.0 and 3.1.1, without I/O: bytes and time in, events and bytes out."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from gateway.core.errors import LocalProtocolError
from gateway.core.session import Address
from gateway.uplink.mqtt.wire import encode, handshake
from gateway.uplink.mqtt.wire.decode import decode, extent
from gateway.uplink.mqtt.wire.events import (
    Acknowledged,
    Connected,
    Disconnected,
    Event,
    Message,
    NoResponse,
    RoundTrip,
    Server,
    Unsent,
)
from gateway.uplink.mqtt.wire.fields import Violation, protocol_error
from gateway.uplink.mqtt.wire.incoming import Incoming
from gateway.uplink.mqtt.wire.keepalive import NS_PER_S, KeepAlive
from gateway.uplink.mqtt.wire.outgoing import Outgoing
from gateway.uplink.mqtt.wire.packets import (
    Acknowledgement,
    Connack,
    Disconnect,
    Packet,
    Pingresp,
    Publish,
    Suback,
    Subscription,
    Unsuback,
)
from gateway.uplink.mqtt.wire.properties import NONE, Properties
from gateway.uplink.mqtt.wire.reasons import FAILURE, ReasonCode
from gateway.uplink.mqtt.wire.requests import Requests
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import PacketType, Version

_PUBACK: Final = 0x40
_QOS_2: Final = 0x34


class State(enum.Enum):
    """Where the link stands."""

    DOWN = "down"  # no link: `connect` comes next
    CONNECTING = "connecting"  # CONNECT queued, no CONNACK yet
    CONNECTED = "connected"
    OVER = "over"  # this link is of no more use: drop it, then `lost`


class ClientSession:
    """One MQTT session over many links, one after the other.

    The owner opens a link and calls `connect`, moves bytes (`receive`, `to_send`, `sent`, `on_deadline`), and
    calls `lost` when the link is gone for whatever reason. Unacknowledged publishes survive that and go out
    again after the next `Connected`, with the same token: with DUP where the server kept the session, as new
    ones where it did not. The first link is always clean (MQTT 5.0 §3.2.2.1.1): a session at the server
    that is unknown here could swallow a QoS 2 publish under an identifier it remembers.

    `publish(topic, payload, *, qos, retain, token, properties=b"") -> bool` takes one message, or nothing:
    False while not connected, while what a lost link left is being sent again, or when the window is used up
    (Receive Maximum of the server, `Settings.in_flight_max`, in 3.1.1 `qos_2_in_flight_max`). `properties`
    come from `publish_properties`. The token comes back once, in `Acknowledged`, `Rejected`, `TooLarge` or
    (QoS 0) `Unsent`; the two refusals that need no server are handed out by the next call that returns
    events, which `deadline_ns` makes due at once. Raises LocalProtocolError for an ill-formed topic, QoS or
    property. It is an attribute bound to `Outgoing.publish`, because one call less matters here.

    A server may send at any time whatever fits our limits: `receive` raises `Violation`
    (a RemoteProtocolError) for everything else. What was understood before it comes with `lost`.
    """

    __slots__ = (
        "_alive",
        "_buffer",
        "_client_id",
        "_connect_ns",
        "_draining",
        "_events",
        "_has_state",
        "_incoming",
        "_need",
        "_out",
        "_outgoing",
        "_requests",
        "_server",
        "_settings",
        "_state",
        "_strays",
        "_timeout_ns",
        "_unsent",
        "_version",
        "publish",
    )

    def __init__(self, settings: Settings) -> None:
        self._settings: Final = settings
        self._version: Final = settings.version
        self._timeout_ns: Final = int(settings.response_timeout_s * NS_PER_S)
        # bounded by in_flight_max and by what our limits let the server ask
        self._out: Final[list[bytes]] = []
        self._events: Final[list[Event]] = []
        self._outgoing: Final = Outgoing(settings, out=self._out, events=self._events)
        self._incoming: Final = Incoming(settings, out=self._out)
        self._alive: Final = KeepAlive(response_timeout_s=settings.response_timeout_s)
        self._requests: Final = Requests(version=settings.version, outgoing=self._outgoing, out=self._out)
        self._buffer = bytearray()  # the start of a packet, at most `maximum_packet_size`
        self._need = 0  # bytes the buffer must hold before it is looked at again
        self._draining: list[object] = []  # tokens of QoS 0 publishes given out, not drained
        self._unsent: list[object] = []  # tokens of QoS 0 publishes that went with their link
        self._state = State.DOWN
        self._client_id = settings.client_id
        self._connect_ns = 0
        self._has_state = False
        self._server = Server()
        self._strays = 0
        self.publish: Final = self._outgoing.publish

    # What can be asked at any time

    @property
    def state(self) -> State:
        """Where the link stands."""
        return self._state

    @property
    def quota(self) -> int:
        """How many more QoS 1 and 2 publishes are taken now."""
        return self._outgoing.quota

    @property
    def in_flight(self) -> int:
        """QoS 1 and 2 publishes taken and not acknowledged yet."""
        return len(self._outgoing.in_flight)

    @property
    def oldest_in_flight(self) -> object:
        """Stands for the publish that waits longest: the same object while it is the same; else None."""
        return next(iter(self._outgoing.in_flight.values()), None)

    @property
    def client_id(self) -> str:
        """Our Client Identifier, or the one the server assigned."""
        return self._client_id

    @property
    def server(self) -> Server:
        """What the server granted last."""
        return self._server

    @property
    def strays(self) -> int:
        """Acknowledgements for identifiers not in use, since the start: above 0, the server has a fault."""
        return self._strays

    # Our verbs

    def connect(self, now_ns: int) -> None:
        """A new link is up: queue CONNECT. Raises LocalProtocolError unless the last one was `lost`."""
        if self._state is not State.DOWN:
            raise LocalProtocolError(
                f"connect: found a link that is {self._state.value}, expected lost() first"
            )
        clean_start = self._settings.clean_start or not self._has_state
        self._out.append(
            handshake.connect_bytes(self._settings, client_id=self._client_id, clean_start=clean_start)
        )
        self._connect_ns = now_ns
        self._state = State.CONNECTING

    def acknowledge(self, message: Message, reason: ReasonCode = ReasonCode.SUCCESS) -> bool:
        """The message is safe (or refused, 5.0): PUBACK or PUBREC, in the order of arrival (MQTT 5.0 §4.6).

        False when it is too late: its link is gone and a QoS 1 message will come again, or the session ended.
        For QoS 2 it may come while no link is up. For QoS 0 nothing happens.
        """
        return self._incoming.acknowledge(message, reason)

    def subscribe(
        self,
        subscriptions: Sequence[Subscription],
        now_ns: int,
        *,
        subscription_identifier: int | None = None,
        user_properties: tuple[tuple[str, str], ...] = (),
    ) -> int:
        """Queue SUBSCRIBE; `Subscribed.request` is the number returned. A request dies with its link.

        Filters this server announced not to support are not sent: they fail in `Subscribed` with its reason.
        To a server without Subscription Identifiers none is sent (MQTT 5.0 §3.2.2.3.12).
        """
        self._check_connected("subscribe")
        identifiers = () if subscription_identifier is None else (subscription_identifier,)
        if not self._server.subscription_identifier_available:
            identifiers = ()
        properties = Properties(subscription_identifiers=identifiers, user_properties=user_properties)
        request = self._requests.subscribe(subscriptions, properties, server=self._server, now_ns=now_ns)
        if isinstance(request, int):
            return request
        self._events.append(request)
        return request.request

    def unsubscribe(self, filters: Sequence[str], now_ns: int) -> int:
        """Queue UNSUBSCRIBE; `Unsubscribed.request` is the number returned. A request dies with its link."""
        self._check_connected("unsubscribe")
        return self._requests.unsubscribe(filters, server=self._server, now_ns=now_ns)

    def round_trip(self, token: object, now_ns: int) -> bool:
        """Queue PINGREQ; `RoundTrip` comes when the server has read all that was queued before it.

        False, and nothing happens, while one is under way. It dies with its link.
        """
        self._check_connected("round_trip")
        if self._alive.has_round_trip:
            return False
        self._out.append(encode.PINGREQ)
        self._alive.pinged(now_ns, token)
        return True

    def disconnect(
        self, reason: ReasonCode = ReasonCode.SUCCESS, *, session_expiry_s: int | None = None
    ) -> None:
        """Queue DISCONNECT as the last packet of this link; send what is queued, then close it.

        Publishes in flight stay so; wait for `in_flight` 0 first where that is wanted. In 3.1.1 there is no
        reason: to have the Will published, close the link without this call.
        """
        self._check_connected("disconnect")
        properties = NONE
        if session_expiry_s is not None:
            if session_expiry_s and not self._settings.session_expiry_s:
                raise LocalProtocolError(
                    f"disconnect: found session expiry {session_expiry_s} s after 0 in CONNECT, expected 0"
                    " (MQTT 5.0 section 3.14.2.2.2)"
                )
            properties = Properties(session_expiry_interval=session_expiry_s)
        self._out.append(encode.encode(Disconnect(reason=reason, properties=properties), self._version))
        self._outgoing.close()
        self._alive.stop()
        self._state = State.OVER

    # The verbs of every session

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Event]:  # noqa: ARG002
        """Bytes came in. Raises `Violation`; the events before it are then returned by `lost`."""
        if self._state is State.DOWN:
            raise LocalProtocolError("receive: found no link, expected connect() first")
        if self._state is State.OVER:
            return self._take_events()
        self._alive.received(now_ns)
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return self._take_events()
            data = bytes(self._buffer)
            self._buffer.clear()
        done: list[object] = []
        try:
            self._read(data, done, now_ns)
        except Violation as violation:
            self._give_up(violation)
            raise
        finally:
            if done:
                self._events.append(Acknowledged(done))
            if self._outgoing.waiting:
                self._outgoing.send_waiting()
        return self._take_events()

    def to_send(self, now_ns: int) -> list[bytes]:
        """Everything queued, in one piece."""
        if not self._out:
            return []
        self._alive.sent(now_ns)
        if self._outgoing.unsent:
            self._draining += self._outgoing.unsent
            self._outgoing.unsent.clear()
        data = b"".join(self._out)
        self._out.clear()
        return [data]

    def sent(self, now_ns: int) -> list[Event]:  # noqa: ARG002
        """The wire drained: QoS 0 publishes given out so far are done."""
        if self._draining:
            self._events.append(Acknowledged(self._draining))
            self._draining = []
        return self._take_events()

    def lost(self, now_ns: int) -> list[Event]:  # noqa: ARG002
        """The link is gone, or the owner dropped it. The session stays."""
        self._end(None)
        unsent = self._draining + self._unsent
        self._draining, self._unsent = [], []
        if unsent:
            self._events.append(Unsent(unsent))
        self._incoming.close()
        self._requests.close()
        self._state = State.DOWN
        return self._take_events()

    def deadline_ns(self) -> int | None:
        """When `on_deadline` is due; 0 while events wait to be handed out."""
        if self._events:
            return 0
        if self._state is State.CONNECTING:
            return self._connect_ns + self._timeout_ns
        if self._state is not State.CONNECTED:
            return None
        due = [at for at in (self._alive.ping_ns(), self._alive.dead_ns()) if at is not None]
        oldest = self._requests.oldest()
        if oldest is not None:
            due.append(oldest[0] + self._timeout_ns)
        return min(due, default=None)

    def on_deadline(self, now_ns: int) -> list[Event]:
        """Queue PINGREQ where due (MQTT 5.0 §3.1.2.10), or find that the server is silent."""
        if self._state is State.CONNECTING:
            if now_ns >= self._connect_ns + self._timeout_ns:
                self._end(NoResponse(expected="CONNACK", waited_ns=now_ns - self._connect_ns))
        elif self._state is State.CONNECTED:
            self._watch(now_ns)
        return self._take_events()

    # Reading

    def _read(self, data: bytes, done: list[object], now_ns: int) -> None:
        """Every whole packet in `data`; the rest waits in the buffer. Bursts of PUBACK stay in this loop."""
        position, end = 0, len(data)
        in_flight = self._outgoing.in_flight
        is_connected = self._state is State.CONNECTED
        is_v5 = self._version is Version.V5
        while position < end:
            if data[position] == _PUBACK and is_connected and end - position > 3:
                length = data[position + 1]
                if length == 2:
                    step = 4
                elif length == 3 and is_v5 and end - position > 4 and data[position + 4] < FAILURE:
                    step = 5  # with a reason, such as No matching subscribers
                else:
                    step = 0
                entry = in_flight.get(data[position + 2] << 8 | data[position + 3]) if step else None
                if entry is not None and entry[1] < _QOS_2:
                    del in_flight[data[position + 2] << 8 | data[position + 3]]
                    done.append(entry[0])
                    position += step
                    continue
            size = self._take_packet(data, position, done, now_ns)
            if not size:
                break
            position += size
            if self._state is State.OVER:
                return
            is_connected = self._state is State.CONNECTED
        if position < end:
            self._buffer += data[position:] if position else data

    def _take_packet(self, data: bytes, position: int, done: list[object], now_ns: int) -> int:
        """Handle the packet at `position`; its size, or 0 while it is not whole (then `_need` is set)."""
        if self._state is State.CONNECTING and data[position] >> 4 != PacketType.CONNACK:
            raise protocol_error(
                "first packet (MQTT 5.0 section 3.2)",
                found=f"packet type {data[position] >> 4}",
                expected="CONNACK (is this an MQTT broker?)",
            )
        header, length = extent(data, position)
        if length < 0:
            self._need = header + 1
            return 0
        size = header + length
        if size > self._settings.maximum_packet_size:
            raise Violation(
                f"packet type {data[position] >> 4} (MQTT 5.0 section 3.1.2.11.4)",
                found=f"{size} bytes",
                expected=f"at most our Maximum Packet Size {self._settings.maximum_packet_size}",
                reason=ReasonCode.PACKET_TOO_LARGE,
            )
        if len(data) - position < size:
            self._need = size
            return 0
        body = data[position + header : position + size]
        may_be_old = self._state is State.CONNECTING and self._version is Version.V5
        refused = handshake.old_refusal(body) if may_be_old else None
        if refused is not None:
            self._end(refused)
        else:
            self._handle(decode(data[position], body, self._version), done, now_ns)
        return size

    def _handle(self, packet: Packet, done: list[object], now_ns: int) -> None:
        match packet:
            case Publish():
                message = self._incoming.publish(packet)
                if message is not None:
                    self._events.append(message)
            case Acknowledgement():
                self._handle_acknowledgement(packet, done)
            case Pingresp():
                token = self._alive.answered()
                if token is not None:
                    self._events.append(RoundTrip(token))
            case Suback() | Unsuback():
                self._events.append(self._requests.answered(packet))
            case Connack() if self._state is State.CONNECTING:
                self._connack(packet, now_ns)
            case Disconnect() if self._version is Version.V5:
                self._end(
                    Disconnected(
                        reason=packet.reason,
                        reason_string=packet.properties.reason_string or "",
                        server_reference=packet.properties.server_reference or "",
                    )
                )
            case _:
                raise protocol_error(
                    f"{type(packet).__name__.upper()} (MQTT {self._version.name} section 3)",
                    found="it from the server of this connection",
                    expected="a packet a server may send here",
                )

    def _handle_acknowledgement(self, packet: Acknowledgement, done: list[object]) -> None:
        match packet.type:
            case PacketType.PUBACK:
                is_known = self._outgoing.puback(packet, done)
            case PacketType.PUBREC:
                is_known = self._outgoing.pubrec(packet, done)
            case PacketType.PUBCOMP:
                is_known = self._outgoing.pubcomp(packet, done)
            case _:
                is_known = self._incoming.pubrel(packet)
        self._strays += not is_known

    def _connack(self, packet: Connack, now_ns: int) -> None:
        refused = handshake.refusal(packet, self._version)
        if refused is not None:
            self._end(refused)
            return
        if packet.session_present and (self._settings.clean_start or not self._has_state):
            raise protocol_error(
                "CONNACK (MQTT 5.0 section 3.2.2.1.1)",
                found="Session Present 1",
                expected="0, the connection was asked to start clean",
            )
        self._server = handshake.granted(packet.properties, self._settings)
        self._client_id = packet.properties.assigned_client_identifier or self._client_id
        self._has_state = True
        self._state = State.CONNECTED
        self._alive.start(keep_alive_s=self._server.keep_alive_s, now_ns=now_ns)
        self._events.append(
            Connected(session_present=packet.session_present, client_id=self._client_id, server=self._server)
        )
        self._incoming.open(session_present=packet.session_present)
        self._outgoing.open(self._server, session_present=packet.session_present)

    # Ends and deadlines

    def _check_connected(self, verb: str) -> None:
        if self._state is not State.CONNECTED:
            raise LocalProtocolError(f"{verb}: found a link that is {self._state.value}, expected connected")

    def _watch(self, now_ns: int) -> None:
        dead_ns, oldest, ping_ns = self._alive.dead_ns(), self._requests.oldest(), self._alive.ping_ns()
        if dead_ns is not None and now_ns >= dead_ns:
            self._end(NoResponse(expected="PINGRESP", waited_ns=self._alive.silent_ns(now_ns)))
        elif oldest is not None and now_ns >= oldest[0] + self._timeout_ns:
            self._end(NoResponse(expected=oldest[1], waited_ns=now_ns - oldest[0]))
        elif ping_ns is not None and now_ns >= ping_ns:
            self._out.append(encode.PINGREQ)
            self._alive.pinged(now_ns)

    def _give_up(self, violation: Violation) -> None:
        """Tell the server why (MQTT 5.0 §4.13.1); the owner may still send it before it drops the link."""
        was_connected = self._state is State.CONNECTED
        self._end(None)
        if was_connected and self._version is Version.V5:
            self._out.append(encode.encode(Disconnect(reason=violation.reason), Version.V5))

    def _end(self, event: Event | None) -> None:
        """Nothing more is understood from this link, and what is queued is of no use."""
        if event is not None:
            self._events.append(event)
        self._state = State.OVER
        self._alive.stop()
        self._outgoing.close()
        self._unsent += self._outgoing.unsent
        self._outgoing.unsent.clear()
        self._out.clear()
        self._buffer.clear()

    def _take_events(self) -> list[Event]:
        if not self._events:
            return []
        events = self._events.copy()
        self._events.clear()
        return events
