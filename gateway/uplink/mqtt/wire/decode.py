"""Bytes to control packets, MQTT 5.0 and 3.1.1 (§3 of both). Raises `Violation`, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.uplink.mqtt.wire import properties as props
from gateway.uplink.mqtt.wire import topics
from gateway.uplink.mqtt.wire.fields import Reader, malformed, protocol_error
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
    RetainHandling,
    Suback,
    Subscribe,
    Subscription,
    Unsuback,
    Unsubscribe,
    Will,
)
from gateway.uplink.mqtt.wire.properties import Carrier, Properties
from gateway.uplink.mqtt.wire.terms import PacketType, Version

_FLAGS: Final[dict[PacketType, int]] = {
    packet_type: 2 if packet_type in (PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE) else 0
    for packet_type in PacketType
    if packet_type is not PacketType.PUBLISH
}


FIXED_HEADER_BYTES_MAX: Final = 5  # MQTT 5.0 §2.1.1


def extent(data: bytes, position: int) -> tuple[int, int]:
    """(bytes of its fixed header, Remaining Length) of the packet at `position`.

    The length is -1 while the header, of which that many bytes are there, is not whole.
    """
    length, shift, at = 0, 0, position + 1
    while at < len(data):
        byte = data[at]
        length |= (byte & 0x7F) << shift
        shift += 7
        at += 1
        if byte < 0x80:
            return at - position, length
        if at - position == FIXED_HEADER_BYTES_MAX:
            raise malformed(
                "fixed header (MQTT 5.0 section 2.1.4)",
                found="a Remaining Length of five bytes",
                expected="at most 4 (is this an MQTT broker?)",
            )
    return at - position, -1


def decode(first: int, body: bytes, version: Version) -> Packet:
    """One control packet: its first byte, and what follows its Remaining Length."""
    try:
        packet_type = PacketType(first >> 4)
    except ValueError:
        raise malformed(
            "fixed header (MQTT 5.0 section 2.1.2)",
            found="packet type 0",
            expected="1 to 15 (is this an MQTT broker?)",
        ) from None
    if packet_type is PacketType.PUBLISH:
        return _publish(first & 0x0F, body, version)
    if first & 0x0F != _FLAGS[packet_type]:
        raise malformed(
            f"{packet_type.name}, fixed header (MQTT 5.0 section 2.1.3)",
            found=f"flags {first & 0x0F}",
            expected=f"{_FLAGS[packet_type]}",
        )
    reader = Reader(body, where=packet_type.name)
    packet = _DECODERS[packet_type](reader, packet_type, version)
    reader.done()
    return packet


def _properties(reader: Reader, carrier: Carrier, version: Version) -> Properties:
    return props.decode(reader, carrier) if version is Version.V5 else props.NONE


def _publish(flags: int, body: bytes, version: Version) -> Publish:
    reader = Reader(body, where="PUBLISH")
    qos, dup = flags >> 1 & 3, bool(flags & 8)
    if qos == 3:
        raise malformed("PUBLISH (MQTT 5.0 section 3.3.1.2)", found="QoS 3", expected="0, 1 or 2")
    if dup and not qos:
        raise protocol_error("PUBLISH (MQTT 5.0 section 3.3.1.1)", found="DUP with QoS 0", expected="DUP 0")
    topic = reader.text("topic name")
    packet_id = reader.packet_id() if qos else 0
    properties = _properties(reader, Carrier.PUBLISH, version)
    if topic or properties.topic_alias is None:  # §3.3.2.3.4: an alias stands for an empty Topic Name
        _check_name(topic, "PUBLISH, topic")
    if properties.response_topic is not None:
        _check_name(properties.response_topic, "PUBLISH, response topic (MQTT 5.0 section 3.3.2.3.5)")
    return Publish(
        topic=topic,
        payload=reader.rest(),
        qos=qos,
        retain=bool(flags & 1),
        dup=dup,
        packet_id=packet_id,
        properties=properties,
    )


def _acknowledgement(reader: Reader, packet_type: PacketType, version: Version) -> Acknowledgement:
    """Reason Code and properties may be left out (MQTT 5.0 §3.4.2.1, §3.4.2.2.1; alike §3.5 to §3.7)."""
    packet_id, reason, properties = reader.packet_id(), 0, props.NONE
    if version is Version.V5 and reader.remaining():
        reason = reader.uint(1, "reason code")
        if reader.remaining():
            properties = props.decode(reader, Carrier(packet_type))
    return Acknowledgement(type=packet_type, packet_id=packet_id, reason=reason, properties=properties)


def _connack(reader: Reader, _type: PacketType, version: Version) -> Connack:
    flags = reader.uint(1, "connect acknowledge flags")
    if flags > 1:
        raise malformed("CONNACK (MQTT 5.0 section 3.2.2.1)", found=f"flags 0x{flags:02x}", expected="0 or 1")
    reason = reader.uint(1, "reason code")
    return Connack(
        session_present=bool(flags), reason=reason, properties=_properties(reader, Carrier.CONNACK, version)
    )


def _suback(reader: Reader, _type: PacketType, version: Version) -> Suback:
    packet_id, properties = reader.packet_id(), _properties(reader, Carrier.SUBACK, version)
    return Suback(packet_id=packet_id, properties=properties, reasons=tuple(reader.rest()))


def _unsuback(reader: Reader, _type: PacketType, version: Version) -> Unsuback:
    packet_id, properties = reader.packet_id(), _properties(reader, Carrier.UNSUBACK, version)
    reasons = tuple(reader.rest()) if version is Version.V5 else ()
    return Unsuback(packet_id=packet_id, properties=properties, reasons=reasons)


def _disconnect(reader: Reader, _type: PacketType, version: Version) -> Disconnect:
    reason, properties = _reason(reader, Carrier.DISCONNECT) if version is Version.V5 else (0, props.NONE)
    return Disconnect(reason=reason, properties=properties)


def _auth(reader: Reader, _type: PacketType, version: Version) -> Auth:
    if version is not Version.V5:
        raise malformed("AUTH (MQTT 3.1.1 section 2.2.1)", found="packet type 15", expected="1 to 14")
    reason, properties = _reason(reader, Carrier.AUTH)
    return Auth(reason=reason, properties=properties)


def _reason(reader: Reader, carrier: Carrier) -> tuple[int, Properties]:
    """Both may be left out (MQTT 5.0 §3.14.2.1, §3.14.2.2.1, §3.15.2.1)."""
    if not reader.remaining():
        return 0, props.NONE
    reason = reader.uint(1, "reason code")
    return reason, props.decode(reader, carrier) if reader.remaining() else props.NONE


def _pingreq(_reader: Reader, _type: PacketType, _version: Version) -> Pingreq:
    return Pingreq()


def _pingresp(_reader: Reader, _type: PacketType, _version: Version) -> Pingresp:
    return Pingresp()


def _connect(reader: Reader, _type: PacketType, _version: Version) -> Connect:
    name, level = reader.text("protocol name"), reader.uint(1, "protocol version")
    if name != "MQTT" or level not in tuple(Version):
        raise malformed(
            "CONNECT (sections 3.1.2.1, 3.1.2.2)", found=f"{name!r} version {level}", expected="'MQTT' 4 or 5"
        )
    version = Version(level)
    flags, keep_alive = reader.uint(1, "connect flags"), reader.uint(2, "keep alive")
    _check_connect_flags(flags, version)
    properties = _properties(reader, Carrier.CONNECT, version)
    client_id = reader.text("client identifier")
    will = None
    if flags & 0x04:
        will_properties = _properties(reader, Carrier.WILL, version)
        topic = reader.text("will topic")
        _check_name(topic, "CONNECT, will topic")
        will = Will(
            topic=topic,
            payload=reader.binary("will payload"),
            qos=flags >> 3 & 3,
            retain=bool(flags & 0x20),
            properties=will_properties,
        )
    return Connect(
        client_id=client_id,
        version=version,
        clean_start=bool(flags & 0x02),
        keep_alive=keep_alive,
        username=reader.text("user name") if flags & 0x80 else None,
        password=reader.binary("password") if flags & 0x40 else None,
        will=will,
        properties=properties,
    )


def _check_connect_flags(flags: int, version: Version) -> None:
    will_flags_without_will = not flags & 0x04 and flags & 0x38
    password_alone = version is Version.V311 and flags & 0xC0 == 0x40
    if flags & 1 or will_flags_without_will or flags >> 3 & 3 == 3 or password_alone:
        raise malformed(
            "CONNECT, connect flags (section 3.1.2.3)", found=f"0x{flags:02x}", expected="a consistent set"
        )


def _subscribe(reader: Reader, _type: PacketType, version: Version) -> Subscribe:
    packet_id, properties = reader.packet_id(), _properties(reader, Carrier.SUBSCRIBE, version)
    subscriptions = []
    while reader.remaining():
        topic_filter, options = _filter(reader), reader.uint(1, "subscription options")
        reserved = 0xC0 if version is Version.V5 else 0xFC
        bad_no_local = options & 4 and topics.is_shared(topic_filter)
        if options & reserved or options & 3 == 3 or options >> 4 & 3 == 3 or bad_no_local:
            raise malformed(
                "SUBSCRIBE (section 3.8.3.1)",
                found=f"options 0x{options:02x}",
                expected="those of the standard",
            )
        subscriptions.append(
            Subscription(
                filter=topic_filter,
                qos=options & 3,
                no_local=bool(options & 4),
                retain_as_published=bool(options & 8),
                retain_handling=RetainHandling(options >> 4 & 3),
            )
        )
    _not_empty(subscriptions, "SUBSCRIBE (section 3.8.3)")
    return Subscribe(packet_id=packet_id, subscriptions=tuple(subscriptions), properties=properties)


def _unsubscribe(reader: Reader, _type: PacketType, version: Version) -> Unsubscribe:
    packet_id, properties = reader.packet_id(), _properties(reader, Carrier.UNSUBSCRIBE, version)
    filters = []
    while reader.remaining():
        filters.append(_filter(reader))
    _not_empty(filters, "UNSUBSCRIBE (section 3.10.3)")
    return Unsubscribe(packet_id=packet_id, filters=tuple(filters), properties=properties)


def _check_name(topic: str, where: str) -> None:
    if fault := topics.name_fault(topic.encode()):
        raise protocol_error(f"{where} {topic!r}", found=fault, expected="a topic name")


def _filter(reader: Reader) -> str:
    topic_filter = reader.text("topic filter")
    if fault := topics.filter_fault(topic_filter):
        raise protocol_error(f"{reader.where}, {topic_filter!r}", found=fault, expected="a topic filter")
    return topic_filter


def _not_empty(filters: list[str] | list[Subscription], where: str) -> None:
    if not filters:
        raise protocol_error(where, found="no topic filter", expected="one or more")


_Decoder = Callable[[Reader, PacketType, Version], Packet]
_DECODERS: Final[dict[PacketType, _Decoder]] = {
    PacketType.CONNECT: _connect,
    PacketType.CONNACK: _connack,
    PacketType.PUBACK: _acknowledgement,
    PacketType.PUBREC: _acknowledgement,
    PacketType.PUBREL: _acknowledgement,
    PacketType.PUBCOMP: _acknowledgement,
    PacketType.SUBSCRIBE: _subscribe,
    PacketType.SUBACK: _suback,
    PacketType.UNSUBSCRIBE: _unsubscribe,
    PacketType.UNSUBACK: _unsuback,
    PacketType.PINGREQ: _pingreq,
    PacketType.PINGRESP: _pingresp,
    PacketType.DISCONNECT: _disconnect,
    PacketType.AUTH: _auth,
}
