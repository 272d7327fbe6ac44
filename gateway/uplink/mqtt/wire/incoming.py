"""Publishes from the server: topic aliases, exactly once by packet identifier, answers in order."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from gateway.core.errors import LocalProtocolError
from gateway.uplink.mqtt.wire import encode
from gateway.uplink.mqtt.wire.events import Message
from gateway.uplink.mqtt.wire.fields import Violation, protocol_error
from gateway.uplink.mqtt.wire.packets import Acknowledgement, Publish
from gateway.uplink.mqtt.wire.reasons import FAILURE, ReasonCode
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import PacketType, Version

_REPLY: Final = {1: PacketType.PUBACK, 2: PacketType.PUBREC}


class _Lane:
    """Messages of one QoS that wait for the owner. PUBACKs and PUBRECs keep the order of arrival (§4.6)."""

    __slots__ = ("decided", "held", "order")

    def __init__(self) -> None:
        self.order: Final[OrderedDict[int, None]] = OrderedDict()  # arrived on this link, not answered yet
        self.held: Final[dict[int, Message]] = {}  # given to the owner, not answered yet
        self.decided: Final[dict[int, int]] = {}  # the owner's answers that wait for their turn

    def clear(self) -> None:
        self.order.clear()
        self.held.clear()
        self.decided.clear()


class Incoming:
    """State of the server's publishes. That of QoS 2 belongs to the session, the rest to a link.

    Bounded by `Settings.receive_maximum` and `receive_overrun_max` in 5.0, by the 65,535 packet identifiers
    in 3.1.1.
    """

    __slots__ = ("_aliases", "_lanes", "_on_this_link", "_out", "_received", "_settings")

    def __init__(self, settings: Settings, *, out: list[bytes]) -> None:
        self._settings: Final = settings
        self._out: Final = out
        self._lanes: Final = {1: _Lane(), 2: _Lane()}
        self._received: Final[set[int]] = set()  # QoS 2, PUBREC sent, PUBREL not yet here
        self._on_this_link: Final[set[int]] = set()  # QoS 2 that count against our Receive Maximum
        self._aliases: Final[dict[int, str]] = {}

    def open(self, *, session_present: bool) -> None:
        """The server accepted us."""
        if not session_present:
            self._lanes[2].clear()
            self._received.clear()

    def close(self) -> None:
        """The link is gone: QoS 1 will come again, QoS 2 goes on where it was."""
        self._aliases.clear()
        self._on_this_link.clear()
        self._lanes[1].clear()
        self._lanes[2].order.clear()

    def publish(self, packet: Publish) -> Message | None:
        """The message for the owner; None for a QoS 2 message it already has (MQTT 5.0 §4.3.3)."""
        topic = self._topic(packet)
        if packet.qos:
            lane, packet_id = self._lanes[packet.qos], packet.packet_id
            if packet.qos == 1 and packet_id in lane.held:
                raise protocol_error(
                    "PUBLISH (MQTT 5.0 section 2.2.1)",
                    found=f"packet identifier {packet_id} again",
                    expected="another one until PUBACK was sent",
                )
            if packet.qos == 2:
                self._on_this_link.add(packet_id)
            lane.order[packet_id] = None
            self._check_receive_maximum()
            if packet.qos == 2 and (packet_id in self._received or packet_id in lane.held):
                self._answer(2)
                return None
        message = Message(
            topic=topic,
            payload=packet.payload,
            qos=packet.qos,
            retain=packet.retain,
            dup=packet.dup,
            packet_id=packet.packet_id,
            properties=packet.properties,
        )
        if packet.qos:
            lane.held[packet_id] = message
        return message

    def acknowledge(self, message: Message, reason: int) -> bool:
        """Take the owner's answer. False: too late, the message is not ours to answer any more."""
        if not message.qos:
            return True
        lane = self._lanes[message.qos]
        if lane.held.get(message.packet_id) is not message:
            return False
        if message.packet_id in lane.decided:
            raise LocalProtocolError(f"message on {message.topic}: found a second acknowledge, expected one")
        lane.decided[message.packet_id] = reason if self._settings.version is Version.V5 else 0
        self._answer(message.qos)
        return True

    def pubrel(self, packet: Acknowledgement) -> bool:
        """PUBREL: the identifier is free again. False: it was not in use (MQTT 5.0 §4.3.3)."""
        if packet.packet_id in self._lanes[2].held:
            raise protocol_error(
                "PUBREL (MQTT 5.0 section 4.3.3)",
                found=f"it for packet identifier {packet.packet_id} before our PUBREC",
                expected="it after",
            )
        is_known = packet.packet_id in self._received
        self._received.discard(packet.packet_id)
        self._on_this_link.discard(packet.packet_id)
        reason = 0
        if not is_known and self._settings.version is Version.V5:
            reason = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        self._reply(PacketType.PUBCOMP, packet.packet_id, reason)
        return is_known

    def _answer(self, qos: int) -> None:
        """Send what has been decided, up to the first message that still waits for its owner."""
        lane = self._lanes[qos]
        while lane.order:
            packet_id = next(iter(lane.order))
            if packet_id in lane.decided:
                reason = lane.decided.pop(packet_id)
                del lane.held[packet_id]
            elif qos == 2 and packet_id in self._received:
                reason = 0
            else:
                return
            del lane.order[packet_id]
            self._reply(_REPLY[qos], packet_id, reason)
            if qos == 2 and reason < FAILURE:
                self._received.add(packet_id)
            else:
                self._on_this_link.discard(packet_id)

    def _reply(self, packet_type: PacketType, packet_id: int, reason: int) -> None:
        reply = Acknowledgement(type=packet_type, packet_id=packet_id, reason=reason)
        self._out.append(encode.acknowledgement(reply, self._settings.version))

    def _check_receive_maximum(self) -> None:
        if self._settings.version is Version.V311:
            return
        waiting = len(self._lanes[1].order) + len(self._on_this_link)
        if waiting > self._settings.receive_maximum + self._settings.receive_overrun_max:
            raise Violation(
                "PUBLISH (MQTT 5.0 section 3.3.4)",
                found=f"{waiting} messages of QoS 1 and 2 unacknowledged",
                expected=f"at most our Receive Maximum {self._settings.receive_maximum}, and"
                f" {self._settings.receive_overrun_max} more for servers that miscount",
                reason=ReasonCode.RECEIVE_MAXIMUM_EXCEEDED,
            )

    def _topic(self, packet: Publish) -> str:
        """The topic, through the aliases of this link (MQTT 5.0 §3.3.2.3.4)."""
        alias = packet.properties.topic_alias
        if alias is None:
            return packet.topic
        where = "PUBLISH, topic alias (MQTT 5.0 section 3.3.2.3.4)"
        if alias > self._settings.topic_alias_maximum:
            raise Violation(
                where,
                found=str(alias),
                expected=f"at most our Topic Alias Maximum {self._settings.topic_alias_maximum}",
                reason=ReasonCode.TOPIC_ALIAS_INVALID,
            )
        if packet.topic:
            self._aliases[alias] = packet.topic
        elif alias not in self._aliases:
            raise protocol_error(
                where, found=f"{alias} without a topic", expected="a topic with its first use"
            )
        return self._aliases[alias]
