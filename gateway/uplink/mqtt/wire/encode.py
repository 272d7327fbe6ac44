"""Control packets to bytes, MQTT 5.0 and 3.1.1 (§3 of both)."""

from __future__ import annotations

from typing import Final

from gateway.core.errors import LocalProtocolError
from gateway.uplink.mqtt.wire import fields, topics
from gateway.uplink.mqtt.wire import properties as props
from gateway.uplink.mqtt.wire.packets import (
    Acknowledgement,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from gateway.uplink.mqtt.wire.properties import Carrier, Properties
from gateway.uplink.mqtt.wire.terms import PACKET_ID_MAX, PacketType, Version

PINGREQ: Final = b"\xc0\x00"
_RESERVED_2: Final = frozenset({PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE})
_CONNECT_USERNAME: Final = 0x80  # Connect Flags, §3.1.2.3
_CONNECT_PASSWORD: Final = 0x40
_CONNECT_WILL_RETAIN: Final = 0x20
_CONNECT_WILL: Final = 0x04
_CONNECT_CLEAN_START: Final = 0x02


def encode(packet: Packet, version: Version) -> bytes:
    """One control packet. Raises LocalProtocolError for what the standard forbids to send."""
    match packet:
        case Publish():
            return _publish(packet, version)
        case Acknowledgement():
            return acknowledgement(packet, version)
        case Connect():
            return _packet(PacketType.CONNECT, _connect(packet))
        case Connack():
            head = bytes((packet.session_present, packet.reason))
            return _packet(
                PacketType.CONNACK, head + _properties(packet.properties, Carrier.CONNACK, version)
            )
        case Subscribe():
            return _packet(PacketType.SUBSCRIBE, _subscribe(packet, version))
        case Unsubscribe():
            return _packet(PacketType.UNSUBSCRIBE, _unsubscribe(packet, version))
        case Suback():
            return _packet(PacketType.SUBACK, _results(packet, Carrier.SUBACK, version))
        case Unsuback():
            return _packet(PacketType.UNSUBACK, _results(packet, Carrier.UNSUBACK, version))
        case Pingreq():
            return PINGREQ
        case Pingresp():
            return b"\xd0\x00"
        case Disconnect():
            return _packet(PacketType.DISCONNECT, _reason(packet, Carrier.DISCONNECT, version))
        case Auth():
            if version is not Version.V5:
                raise LocalProtocolError("AUTH: found MQTT 3.1.1, expected 5.0 (MQTT 5.0 section 3.15)")
            return _packet(PacketType.AUTH, _reason(packet, Carrier.AUTH, version))


def acknowledgement(packet: Acknowledgement, version: Version) -> bytes:
    """PUBACK, PUBREC, PUBREL or PUBCOMP; success without properties is four bytes (§3.4.2.1)."""
    body = _packet_id(packet.packet_id)
    encoded = _properties(packet.properties, Carrier(packet.type), version) if version is Version.V5 else b""
    if version is Version.V5 and (packet.reason or len(encoded) > 1):
        body += bytes((packet.reason,))
        if len(encoded) > 1:
            body += encoded
    elif packet.reason or packet.properties != props.NONE:
        raise LocalProtocolError(f"{packet.type.name}: MQTT 3.1.1 has no reason codes and no properties")
    return _packet(packet.type, body)


def _packet(packet_type: PacketType, body: bytes) -> bytes:
    flags = 2 if packet_type in _RESERVED_2 else 0  # MQTT 5.0 §2.1.3
    return bytes((packet_type << 4 | flags,)) + fields.varint(len(body)) + body


def _packet_id(value: int) -> bytes:
    if not 0 < value <= PACKET_ID_MAX:
        raise LocalProtocolError(f"packet identifier: found {value}, expected 1 to {PACKET_ID_MAX} (2.2.1)")
    return value.to_bytes(2, "big")


def _properties(properties: Properties, carrier: Carrier, version: Version) -> bytes:
    if version is Version.V5:
        return props.encode_with_length(properties, carrier)
    if properties != props.NONE:
        raise LocalProtocolError(f"{carrier.name}: found properties, expected none in MQTT 3.1.1")
    return b""


def _qos(qos: int, what: str) -> int:
    if qos not in (0, 1, 2):
        raise LocalProtocolError(f"{what}: found QoS {qos}, expected 0, 1 or 2 (MQTT 5.0 section 3.3.1.2)")
    return qos


def _topic(topic: str, what: str) -> bytes:
    if fault := topics.name_fault(topic.encode("utf-8", "surrogatepass")):
        raise LocalProtocolError(f"{what}, topic {topic!r}: found {fault}")
    return fields.text(topic, what=f"{what}, topic")


def _publish(packet: Publish, version: Version) -> bytes:
    if packet.dup and not packet.qos:
        raise LocalProtocolError("PUBLISH: found DUP with QoS 0, expected DUP 0 (MQTT 5.0 section 3.3.1.1)")
    flags = packet.dup << 3 | _qos(packet.qos, "PUBLISH") << 1 | packet.retain
    if packet.topic or packet.properties.topic_alias is None:
        topic = _topic(packet.topic, "PUBLISH")
    else:
        topic = b"\0\0"
    body = topic + (_packet_id(packet.packet_id) if packet.qos else b"")
    body += _properties(packet.properties, Carrier.PUBLISH, version) + packet.payload
    return bytes((PacketType.PUBLISH << 4 | flags,)) + fields.varint(len(body)) + body


def _connect(packet: Connect) -> bytes:
    version = packet.version
    flags = _CONNECT_CLEAN_START if packet.clean_start else 0
    payload = fields.text(packet.client_id, what="CONNECT, client identifier")
    if packet.will is not None:
        flags |= _CONNECT_WILL | _qos(packet.will.qos, "CONNECT, will") << 3
        flags |= _CONNECT_WILL_RETAIN if packet.will.retain else 0
        payload += _will(packet.will, version)
    if packet.username is not None:
        flags |= _CONNECT_USERNAME
        payload += fields.text(packet.username, what="CONNECT, user name")
    if packet.password is not None:
        if packet.username is None and version is Version.V311:
            raise LocalProtocolError(
                "CONNECT: found a password without a user name, expected both (MQTT 3.1.1 section 3.1.2.9)"
            )
        flags |= _CONNECT_PASSWORD
        payload += fields.binary(packet.password, what="CONNECT, password")
    head = (
        b"\0\x04MQTT"
        + bytes((version, flags))
        + fields.uint(packet.keep_alive, 2, what="CONNECT, keep alive")
    )
    return head + _properties(packet.properties, Carrier.CONNECT, version) + payload


def _will(will: Will, version: Version) -> bytes:
    return (
        _properties(will.properties, Carrier.WILL, version)
        + _topic(will.topic, "CONNECT, will")
        + fields.binary(will.payload, what="CONNECT, will payload")
    )


def _subscribe(packet: Subscribe, version: Version) -> bytes:
    if not packet.subscriptions:
        raise LocalProtocolError(
            "SUBSCRIBE: found no topic filter, expected one or more (MQTT 5.0 section 3.8.3)"
        )
    body = [_packet_id(packet.packet_id), _properties(packet.properties, Carrier.SUBSCRIBE, version)]
    for subscription in packet.subscriptions:
        body.append(_filter(subscription.filter, "SUBSCRIBE"))
        body.append(bytes((_options(subscription, version),)))
    return b"".join(body)


def _options(subscription: Subscription, version: Version) -> int:
    options = _qos(subscription.qos, f"SUBSCRIBE {subscription.filter}")
    if subscription.no_local and topics.is_shared(subscription.filter):
        raise LocalProtocolError(
            f"SUBSCRIBE {subscription.filter}: found No Local on a share (MQTT 5.0 section 3.8.3.1)"
        )
    options |= subscription.no_local << 2 | subscription.retain_as_published << 3
    options |= subscription.retain_handling << 4
    if version is Version.V311 and options > 2:
        raise LocalProtocolError(
            f"SUBSCRIBE {subscription.filter}: found options of MQTT 5.0, expected only a QoS in 3.1.1"
        )
    return options


def _filter(topic_filter: str, what: str) -> bytes:
    if fault := topics.filter_fault(topic_filter):
        raise LocalProtocolError(f"{what}, filter {topic_filter!r}: found {fault}")
    return fields.text(topic_filter, what=f"{what}, filter")


def _unsubscribe(packet: Unsubscribe, version: Version) -> bytes:
    if not packet.filters:
        raise LocalProtocolError("UNSUBSCRIBE: found no topic filter, expected one or more (section 3.10.3)")
    body = [_packet_id(packet.packet_id), _properties(packet.properties, Carrier.UNSUBSCRIBE, version)]
    body += [_filter(topic_filter, "UNSUBSCRIBE") for topic_filter in packet.filters]
    return b"".join(body)


def _results(packet: Suback | Unsuback, carrier: Carrier, version: Version) -> bytes:
    if version is Version.V311 and carrier is Carrier.UNSUBACK and packet.reasons:
        raise LocalProtocolError("UNSUBACK: found reason codes, expected none in MQTT 3.1.1 (section 3.11.3)")
    return (
        _packet_id(packet.packet_id)
        + _properties(packet.properties, carrier, version)
        + bytes(packet.reasons)
    )


def _reason(packet: Disconnect | Auth, carrier: Carrier, version: Version) -> bytes:
    if version is Version.V311:
        if packet.reason or packet.properties != props.NONE:
            raise LocalProtocolError("DISCONNECT: MQTT 3.1.1 has no reason codes and no properties")
        return b""
    encoded = props.encode_with_length(packet.properties, carrier)
    if len(encoded) == 1 and not packet.reason:
        return b""  # MQTT 5.0 §3.14.2.1 and §3.15.2.1: both may be left out
    return bytes((packet.reason,)) + encoded
