"""Publishes to the server: packet identifiers, window, topic aliases, and sending again after a lost link.

This is the hot path. A publish makes one dict entry and four byte strings in the output list, which is joined
once per write; nothing else is allocated for it.
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import Final, TypeAlias

from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.uplink.mqtt.wire import topics
from gateway.uplink.mqtt.wire.events import Event, Rejected, Server, TooLarge
from gateway.uplink.mqtt.wire.fields import Violation, protocol_error, varint
from gateway.uplink.mqtt.wire.packets import Acknowledgement
from gateway.uplink.mqtt.wire.properties import Carrier, decode_block
from gateway.uplink.mqtt.wire.reasons import FAILURE, ReasonCode
from gateway.uplink.mqtt.wire.settings import IN_FLIGHT_MAX, Settings
from gateway.uplink.mqtt.wire.terms import PACKET_BYTES_MAX, PACKET_ID_MAX, VARINT_MAX, Version

TOPICS_REMEMBERED_MAX: Final = 65_536  # encoded topic names kept for the hot path; ours
PROPERTIES_REMEMBERED_MAX: Final = 1_024  # property blocks known to be well-formed; ours
FIXED_BYTES_MAX: Final = 2 + 2 + 4 + 3  # topic length, packet identifier, property length, alias property

_BYTE_BYTE: Final = Struct(">BB").pack
_BYTE_BYTE_BYTE: Final = Struct(">BBB").pack
_ID_AND_LENGTH: Final = Struct(">HB").pack
_DUP: Final = 0x08
_QOS_2: Final = 0x34  # the first byte of a PUBLISH is this or more exactly for QoS 2
_NOTHING_PERMITTED: Final[frozenset[int]] = frozenset()

Entry: TypeAlias = tuple[object, int, bytes, bytes, bytes]
"""Token, first byte, topic, properties, payload: all it takes to send it again."""


class Outgoing:
    """State of our publishes: `in_flight`, `released`, `reserved` of the session, the rest of one link."""

    __slots__ = (
        "_aliases_left",
        "_checked_properties",
        "_easy_bytes",
        "_events",
        "_in_flight_max",
        "_is_v5",
        "_limit",
        "_next_alias",
        "_next_id",
        "_out",
        "_packet_bytes_cap",
        "_packet_bytes_max",
        "_permitted",
        "_qos_2",
        "_qos_2_max",
        "_resend_dup",
        "_seen_once",
        "_topics",
        "in_flight",
        "released",
        "reserved",
        "unsent",
        "waiting",
    )

    def __init__(self, settings: Settings, *, out: list[bytes], events: list[Event]) -> None:
        self._is_v5: Final = settings.version is Version.V5
        self._in_flight_max: Final = settings.in_flight_max
        self._qos_2_max: Final = IN_FLIGHT_MAX if self._is_v5 else settings.qos_2_in_flight_max
        self._qos_2: Final[set[int]] = set()  # those of QoS 2 in flight
        self._packet_bytes_cap: Final = settings.outgoing_packet_size_max
        self._out = out  # shared: bytes for the wire, in order
        self._events: Final = events  # refusals, for the session to hand out
        self.in_flight: Final[dict[int, Entry]] = {}  # packet identifier → publish, in the order first sent
        self.released: Final[dict[int, bool]] = {}  # QoS 2 after PUBREC → whether PUBREL went out again
        self.reserved: Final[set[int]] = set()  # identifiers of requests, or not safe to use in this session
        self.unsent: Final[list[object]] = []  # tokens of QoS 0 publishes not given out yet
        self.waiting: Final[deque[int]] = deque()  # to be sent again, beyond the window of this link
        self._checked_properties: Final[set[bytes]] = set()
        self._next_id = 1
        self._permitted = _NOTHING_PERMITTED
        self._topics: dict[bytes, tuple[bytes, bytes]] = {}  # → topic field, alias property
        self._seen_once: Final[set[bytes]] = set()
        self._aliases_left = 0
        self._next_alias = 1
        self._packet_bytes_max = PACKET_BYTES_MAX
        self._easy_bytes = 0
        self._limit = 0  # window of this link; what waits to be sent again counts as in flight
        self._resend_dup = 0

    @property
    def quota(self) -> int:
        """How many more QoS 1 and 2 publishes are taken now (MQTT 5.0 §4.9)."""
        return max(0, self._limit - len(self.in_flight))

    def publish(
        self, topic: bytes, payload: bytes, *, qos: int, retain: bool, token: object, properties: bytes = b""
    ) -> bool:
        """Take one message; see `ClientSession.publish`."""
        first = 0x30 | qos << 1 | retain
        if (
            first not in self._permitted
            or len(topic) + len(payload) + len(properties) > self._easy_bytes
            or (properties and properties not in self._checked_properties)
        ):
            return self._publish_carefully(topic, payload, first=first, token=token, properties=properties)
        in_flight = self.in_flight
        if (len(in_flight) >= self._limit) if qos else (len(self.unsent) >= self._in_flight_max):
            return False
        if qos == 2 and len(self._qos_2) >= self._qos_2_max:
            return False
        field, alias = self._topics.get(topic) or self._learn(topic)
        length = len(alias) + len(properties)
        if qos:
            packet_id = self._next_id
            while packet_id in in_flight or packet_id in self.reserved:
                packet_id = packet_id % PACKET_ID_MAX + 1
            self._next_id = packet_id % PACKET_ID_MAX + 1
            in_flight[packet_id] = (token, first, topic, properties, payload)
            if qos == 2:
                self._qos_2.add(packet_id)
            if not self._is_v5:
                middle = packet_id.to_bytes(2, "big")
            elif length < 0x80:
                middle = _ID_AND_LENGTH(packet_id, length)
            else:
                middle = packet_id.to_bytes(2, "big") + varint(length)
        else:
            self.unsent.append(token)
            middle = varint(length) if self._is_v5 else b""
        remaining = len(field) + len(middle) + length + len(payload)
        if remaining < 0x80:
            head = _BYTE_BYTE(first, remaining)
        elif remaining < 0x4000:
            head = _BYTE_BYTE_BYTE(first, remaining & 0x7F | 0x80, remaining >> 7)
        else:
            head = bytes((first,)) + varint(remaining)
        if length:
            self._out += (head, field, middle, alias, properties, payload)
        else:
            self._out += (head, field, middle, payload)
        return True

    def open(self, server: Server, *, session_present: bool) -> None:
        """The server accepted us: its limits hold, and what is in flight goes out again (MQTT 5.0 §4.4)."""
        self._packet_bytes_max = min(server.maximum_packet_size or PACKET_BYTES_MAX, self._packet_bytes_cap)
        self._easy_bytes = min(self._packet_bytes_max - 5, VARINT_MAX) - FIXED_BYTES_MAX
        self._permitted = frozenset(
            0x30 | qos << 1 | retain
            for qos in range(server.maximum_qos + 1)
            for retain in ((0, 1) if server.retain_available else (0,))
        )
        self._aliases_left = server.topic_alias_maximum
        self._next_alias = 1
        if not session_present:
            self.released.clear()
            self.reserved.clear()
        self._limit = min(server.receive_maximum, self._in_flight_max, IN_FLIGHT_MAX - len(self.reserved))
        self._resend_dup = _DUP if session_present else 0
        for packet_id in self.released:
            self.released[packet_id] = True
            self._out.append(_pubrel(packet_id))
        self.waiting.extend(packet_id for packet_id in self.in_flight if packet_id not in self.released)
        self.send_waiting()

    def close(self) -> None:
        """No more publishes on this link."""
        self._permitted = _NOTHING_PERMITTED
        self._limit = 0
        self.waiting.clear()
        self._topics = {}
        self._seen_once.clear()

    def send_waiting(self) -> None:
        """Send again as many as the window holds; new publishes are taken only after the last of them."""
        waiting = self.waiting
        room = self._limit - (len(self.in_flight) - len(waiting))
        while waiting and room > 0:
            packet_id = waiting.popleft()
            if packet_id in self.in_flight and packet_id not in self.released and self._send_again(packet_id):
                room -= 1

    def new_id(self) -> int:
        """A packet identifier for a request; `reserved` until it is discarded there."""
        packet_id = self._next_id
        while packet_id in self.in_flight or packet_id in self.reserved:
            packet_id = packet_id % PACKET_ID_MAX + 1
        self._next_id = packet_id % PACKET_ID_MAX + 1
        self.reserved.add(packet_id)
        return packet_id

    def puback(self, packet: Acknowledgement, done: list[object]) -> bool:
        """PUBACK off the fast path (MQTT 5.0 §4.3.2). False: nothing waits for it."""
        entry = self.in_flight.get(packet.packet_id)
        if entry is None:
            return False
        if entry[1] >= _QOS_2:
            raise _mismatch(packet, expected="PUBREC, it was sent with QoS 2")
        self._finish(packet, done)
        return True

    def pubrec(self, packet: Acknowledgement, done: list[object]) -> bool:
        """PUBREC (MQTT 5.0 §4.3.3): answered with PUBREL, unless it refuses. False: nothing waits for it."""
        entry = self.in_flight.get(packet.packet_id)
        if entry is not None and entry[1] < _QOS_2:
            raise _mismatch(packet, expected="PUBACK, it was sent with QoS 1")
        if packet.reason >= FAILURE:
            self.released.pop(packet.packet_id, None)
            if entry is not None:
                self._finish(packet, done)
            return entry is not None
        if entry is not None:
            self.released.setdefault(packet.packet_id, False)
        self._out.append(_pubrel(packet.packet_id, is_known=entry is not None or not self._is_v5))
        return entry is not None

    def pubcomp(self, packet: Acknowledgement, done: list[object]) -> bool:
        """PUBCOMP (MQTT 5.0 §4.3.3). False: nothing waits for it."""
        if packet.packet_id not in self.in_flight:
            return False
        if packet.packet_id not in self.released:
            raise _mismatch(packet, expected="PUBREC or PUBACK first")
        was_sent_again = self.released.pop(packet.packet_id)
        if was_sent_again and packet.reason == ReasonCode.PACKET_IDENTIFIER_NOT_FOUND:
            # No error while recovering (MQTT 5.0 §3.7.2.1): the first PUBCOMP was lost with its link.
            self._qos_2.discard(packet.packet_id)
            done.append(self.in_flight.pop(packet.packet_id)[0])
        else:
            self._finish(packet, done)
        return True

    def _finish(self, packet: Acknowledgement, done: list[object]) -> None:
        self._qos_2.discard(packet.packet_id)
        token = self.in_flight.pop(packet.packet_id)[0]
        if packet.reason < FAILURE:
            done.append(token)
            return
        why = packet.properties.reason_string or ""
        self._events.append(Rejected(token=token, reason=packet.reason, reason_string=why))

    def _publish_carefully(
        self, topic: bytes, payload: bytes, *, first: int, token: object, properties: bytes
    ) -> bool:
        """What the fast path could not decide: misuse, refusals, sizes near the limit, new properties."""
        if not self._permitted:
            return False
        if not 0x30 <= first < 0x36:
            raise LocalProtocolError(f"PUBLISH: found QoS {first - 0x30 >> 1}, expected 0, 1 or 2 (3.3.1.2)")
        self._check(topic, properties)
        qos = first >> 1 & 3
        if (self.quota == 0) if qos else (len(self.unsent) >= self._in_flight_max):
            return False
        if qos == 2 and len(self._qos_2) >= self._qos_2_max:
            return False
        entry = (token, first, topic, properties, payload)
        if not self._is_sendable(entry):
            return True
        if len(topic) + len(payload) + len(properties) <= self._easy_bytes:
            return self.publish(
                topic, payload, qos=qos, retain=bool(first & 1), token=token, properties=properties
            )
        packet_id = 0
        if qos:
            packet_id = self.new_id()
            self.reserved.discard(packet_id)
            self.in_flight[packet_id] = entry
            if qos == 2:
                self._qos_2.add(packet_id)
        else:
            self.unsent.append(token)
        self._out += self._encoded(entry, packet_id=packet_id, dup=0)
        return True

    def _check(self, topic: bytes, properties: bytes) -> None:
        if fault := topics.name_fault(topic):
            raise LocalProtocolError(f"PUBLISH, topic {topic[:80]!r}: found {fault}")
        if not properties or properties in self._checked_properties:
            return
        if not self._is_v5:
            raise LocalProtocolError("PUBLISH: found properties, expected none in MQTT 3.1.1")
        try:
            decoded = decode_block(properties, Carrier.PUBLISH)
        except RemoteProtocolError as error:
            raise LocalProtocolError(f"PUBLISH, our own properties: {error}") from None
        if decoded.topic_alias is not None or decoded.subscription_identifiers:
            raise LocalProtocolError(
                "PUBLISH, our own properties: found a topic alias or a subscription identifier, expected"
                " neither: aliases are chosen here, identifiers by the server (MQTT 5.0 section 3.3.4)"
            )
        if len(self._checked_properties) >= PROPERTIES_REMEMBERED_MAX:
            self._checked_properties.clear()
        self._checked_properties.add(properties)

    def _learn(self, topic: bytes) -> tuple[bytes, bytes]:
        """Topic field and alias property of a topic the fast path does not know.

        The second publish to a topic gets an alias while the server has some left; what is published once
        (a birth, a status) takes none from the hot ones.
        """
        if fault := topics.name_fault(topic):
            raise LocalProtocolError(f"PUBLISH, topic {topic[:80]!r}: found {fault}")
        field = len(topic).to_bytes(2, "big") + topic
        if self._aliases_left and topic not in self._seen_once:
            if len(self._seen_once) >= TOPICS_REMEMBERED_MAX:
                self._seen_once.clear()
            self._seen_once.add(topic)
            return field, b""
        if len(self._topics) >= TOPICS_REMEMBERED_MAX:
            self._topics = {name: known for name, known in self._topics.items() if known[1]}
        if not self._aliases_left:
            self._topics[topic] = field, b""
            return field, b""
        alias = b"\x23" + self._next_alias.to_bytes(2, "big")
        self._next_alias += 1
        self._aliases_left -= 1
        self._topics[topic] = b"\0\0", alias
        return field, alias

    def _send_again(self, packet_id: int) -> bool:
        """Whether it went out; what this server does not take is refused instead."""
        entry = self.in_flight[packet_id]
        if self._is_sendable(entry):
            self._out += self._encoded(entry, packet_id=packet_id, dup=self._resend_dup)
            return True
        del self.in_flight[packet_id]
        self._qos_2.discard(packet_id)
        if entry[1] >= _QOS_2 and self._resend_dup:
            # The server may hold this identifier as received: a new publish under it would be swallowed.
            self.reserved.add(packet_id)
            self._limit = min(self._limit, IN_FLIGHT_MAX - len(self.reserved))
        return False

    def _is_sendable(self, entry: Entry) -> bool:
        """Whether the server takes it; if not, says so in an event."""
        token, first, topic, properties, payload = entry
        if first not in self._permitted:
            is_retain = first & 1 and first & ~1 in self._permitted
            reason = ReasonCode.RETAIN_NOT_SUPPORTED if is_retain else ReasonCode.QOS_NOT_SUPPORTED
            why = "not sent: the server announced that it does not take this"
            self._events.append(Rejected(token=token, reason=reason, reason_string=why))
            return False
        remaining = 2 + len(topic) + (2 if first & 6 else 0) + len(payload)
        if self._is_v5:
            remaining += len(varint(len(properties))) + len(properties)
        size = 1 + (len(varint(remaining)) if remaining <= VARINT_MAX else 5) + remaining
        if size > self._packet_bytes_max:
            self._events.append(TooLarge(token=token, size_bytes=size, limit_bytes=self._packet_bytes_max))
            return False
        return True

    def _encoded(self, entry: Entry, *, packet_id: int, dup: int) -> tuple[bytes, ...]:
        _, first, topic, properties, payload = entry
        middle = packet_id.to_bytes(2, "big") if packet_id else b""
        if self._is_v5:
            middle += varint(len(properties))
        remaining = 2 + len(topic) + len(middle) + len(properties) + len(payload)
        head = bytes((first | dup,)) + varint(remaining)
        return head, len(topic).to_bytes(2, "big"), topic, middle, properties, payload


def _pubrel(packet_id: int, *, is_known: bool = True) -> bytes:
    if is_known:
        return b"\x62\x02" + packet_id.to_bytes(2, "big")
    return b"\x62\x03" + packet_id.to_bytes(2, "big") + bytes((ReasonCode.PACKET_IDENTIFIER_NOT_FOUND,))


def _mismatch(packet: Acknowledgement, *, expected: str) -> Violation:
    return protocol_error(
        f"packet identifier {packet.packet_id} (MQTT 5.0 section 4.3)",
        found=packet.type.name,
        expected=expected,
    )
