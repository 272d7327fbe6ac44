"""Properties (MQTT 5.0 §2.2.2): one table of identifiers, types and the packets that may carry them."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway.core.errors import LocalProtocolError
from gateway.uplink.mqtt.wire import fields
from gateway.uplink.mqtt.wire.fields import Reader, malformed, protocol_error
from gateway.uplink.mqtt.wire.terms import VARINT_MAX, PacketType


class Properties(msgspec.Struct, frozen=True, kw_only=True):
    """Every property of MQTT 5.0. `None` or empty means absent. Durations are seconds."""

    payload_format_indicator: int | None = None  # 1: the payload is UTF-8
    message_expiry_interval: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation_data: bytes | None = None
    subscription_identifiers: tuple[int, ...] = ()
    session_expiry_interval: int | None = None
    assigned_client_identifier: str | None = None
    server_keep_alive: int | None = None
    authentication_method: str | None = None
    authentication_data: bytes | None = None
    request_problem_information: int | None = None
    will_delay_interval: int | None = None
    request_response_information: int | None = None
    response_information: str | None = None
    server_reference: str | None = None
    reason_string: str | None = None
    receive_maximum: int | None = None
    topic_alias_maximum: int | None = None
    topic_alias: int | None = None
    maximum_qos: int | None = None
    retain_available: int | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    maximum_packet_size: int | None = None
    wildcard_subscription_available: int | None = None
    subscription_identifier_available: int | None = None
    shared_subscription_available: int | None = None


NONE: Final = Properties()
_LISTS: Final = ("subscription_identifiers", "user_properties")


class Carrier(enum.Enum):
    """What properties belong to: a packet type, or the Will inside CONNECT (MQTT 5.0 §3.1.3.2)."""

    CONNECT = PacketType.CONNECT
    CONNACK = PacketType.CONNACK
    PUBLISH = PacketType.PUBLISH
    PUBACK = PacketType.PUBACK
    PUBREC = PacketType.PUBREC
    PUBREL = PacketType.PUBREL
    PUBCOMP = PacketType.PUBCOMP
    SUBSCRIBE = PacketType.SUBSCRIBE
    SUBACK = PacketType.SUBACK
    UNSUBSCRIBE = PacketType.UNSUBSCRIBE
    UNSUBACK = PacketType.UNSUBACK
    DISCONNECT = PacketType.DISCONNECT
    AUTH = PacketType.AUTH
    WILL = 0


class _Type(enum.Enum):
    BYTE = 1
    TWO_BYTES = 2
    FOUR_BYTES = 4
    VARINT = 5
    TEXT = 6
    BINARY = 7
    PAIR = 8


class _Row(msgspec.Struct, frozen=True):
    """One line of table 2-4. `low` and `high` bound integers; `repeats` names the carriers where it may."""

    name: str
    type: _Type
    carriers: frozenset[Carrier]
    low: int = 0
    high: int | None = None
    repeats: frozenset[Carrier] = frozenset()


_MESSAGE: Final = frozenset({Carrier.PUBLISH, Carrier.WILL})
_CONNECTION: Final = frozenset({Carrier.CONNECT, Carrier.CONNACK})
_CONNACK: Final = frozenset({Carrier.CONNACK})
_CONNECT: Final = frozenset({Carrier.CONNECT})
_PUBLISH: Final = frozenset({Carrier.PUBLISH})
_AUTHENTICATION: Final = _CONNECTION | {Carrier.AUTH}
_REASON: Final = frozenset(Carrier) - _MESSAGE - _CONNECT - {Carrier.SUBSCRIBE, Carrier.UNSUBSCRIBE}
_ALL: Final = frozenset(Carrier)

TABLE: Final[dict[int, _Row]] = {
    0x01: _Row("payload_format_indicator", _Type.BYTE, _MESSAGE, high=1),
    0x02: _Row("message_expiry_interval", _Type.FOUR_BYTES, _MESSAGE),
    0x03: _Row("content_type", _Type.TEXT, _MESSAGE),
    0x08: _Row("response_topic", _Type.TEXT, _MESSAGE),
    0x09: _Row("correlation_data", _Type.BINARY, _MESSAGE),
    0x0B: _Row(
        "subscription_identifiers",
        _Type.VARINT,
        _PUBLISH | {Carrier.SUBSCRIBE},
        low=1,
        high=VARINT_MAX,
        repeats=_PUBLISH,
    ),
    0x11: _Row("session_expiry_interval", _Type.FOUR_BYTES, _CONNECTION | {Carrier.DISCONNECT}),
    0x12: _Row("assigned_client_identifier", _Type.TEXT, _CONNACK),
    0x13: _Row("server_keep_alive", _Type.TWO_BYTES, _CONNACK),
    0x15: _Row("authentication_method", _Type.TEXT, _AUTHENTICATION),
    0x16: _Row("authentication_data", _Type.BINARY, _AUTHENTICATION),
    0x17: _Row("request_problem_information", _Type.BYTE, _CONNECT, high=1),
    0x18: _Row("will_delay_interval", _Type.FOUR_BYTES, frozenset({Carrier.WILL})),
    0x19: _Row("request_response_information", _Type.BYTE, _CONNECT, high=1),
    0x1A: _Row("response_information", _Type.TEXT, _CONNACK),
    0x1C: _Row("server_reference", _Type.TEXT, _CONNACK | {Carrier.DISCONNECT}),
    0x1F: _Row("reason_string", _Type.TEXT, _REASON),
    0x21: _Row("receive_maximum", _Type.TWO_BYTES, _CONNECTION, low=1),
    0x22: _Row("topic_alias_maximum", _Type.TWO_BYTES, _CONNECTION),
    0x23: _Row("topic_alias", _Type.TWO_BYTES, _PUBLISH, low=1),
    0x24: _Row("maximum_qos", _Type.BYTE, _CONNACK, high=1),
    0x25: _Row("retain_available", _Type.BYTE, _CONNACK, high=1),
    0x26: _Row("user_properties", _Type.PAIR, _ALL, repeats=_ALL),
    0x27: _Row("maximum_packet_size", _Type.FOUR_BYTES, _CONNECTION, low=1),
    0x28: _Row("wildcard_subscription_available", _Type.BYTE, _CONNACK, high=1),
    0x29: _Row("subscription_identifier_available", _Type.BYTE, _CONNACK, high=1),
    0x2A: _Row("shared_subscription_available", _Type.BYTE, _CONNACK, high=1),
}
"""MQTT 5.0 §2.2.2.2, table 2-4, with the value ranges of the packets' own sections."""


def encode(properties: Properties, carrier: Carrier) -> bytes:
    """Properties without Property Length. Raises LocalProtocolError for one that may not be here."""
    if properties == NONE:
        return b""
    encoded = []
    for identifier, row in TABLE.items():
        value = getattr(properties, row.name)
        if value is None or value == ():
            continue
        what = f"{carrier.name}, {row.name}"
        if carrier not in row.carriers:
            raise LocalProtocolError(f"{what} (MQTT 5.0 section 2.2.2.2): not a property of this packet")
        values = value if isinstance(value, tuple) else (value,)
        if len(values) > 1 and carrier not in row.repeats:
            raise LocalProtocolError(f"{what} (MQTT 5.0 section 2.2.2): found {len(values)}, expected one")
        for one in values:
            encoded.append(fields.varint(identifier))
            encoded.append(_encode_value(one, row, what))
    return b"".join(encoded)


def encode_with_length(properties: Properties, carrier: Carrier) -> bytes:
    """Property Length and properties."""
    encoded = encode(properties, carrier)
    return fields.varint(len(encoded)) + encoded


def decode(reader: Reader, carrier: Carrier) -> Properties:
    """Property Length and properties (MQTT 5.0 §2.2.2)."""
    length = reader.varint("property length")
    if not length:
        return NONE
    return decode_block(reader.take(length, "properties"), carrier)


def decode_block(block: bytes, carrier: Carrier) -> Properties:
    """Properties without their Property Length. Raises `Violation`."""
    inner = Reader(block, where=f"{carrier.name} properties")
    found: dict[str, Any] = {}
    while inner.remaining():
        identifier = inner.varint("property identifier")
        row = TABLE.get(identifier)
        if row is None or carrier not in row.carriers:
            raise malformed(
                f"{inner.where} (MQTT 5.0 section 2.2.2.2)",
                found=f"identifier 0x{identifier:02x}" + (f", {row.name}" if row else ""),
                expected="a property of this packet",
            )
        value = _decode_value(inner, row)
        if row.name in _LISTS:
            several = found.setdefault(row.name, [])
            several.append(value)
            if len(several) > 1 and carrier not in row.repeats:
                raise _twice(inner, row)
        elif row.name in found:
            raise _twice(inner, row)
        else:
            found[row.name] = value
    for name in _LISTS:
        if name in found:
            found[name] = tuple(found[name])
    return Properties(**found)


def publish_properties(
    *,
    payload_is_utf8: bool | None = None,
    message_expiry_s: int | None = None,
    content_type: str | None = None,
    response_topic: str | None = None,
    correlation_data: bytes | None = None,
    user_properties: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Properties for `ClientSession.publish` (MQTT 5.0 §3.3.2.3); make them once and keep them."""
    return encode(
        Properties(
            payload_format_indicator=None if payload_is_utf8 is None else int(payload_is_utf8),
            message_expiry_interval=message_expiry_s,
            content_type=content_type,
            response_topic=response_topic,
            correlation_data=correlation_data,
            user_properties=tuple(user_properties),
        ),
        Carrier.PUBLISH,
    )


def _twice(reader: Reader, row: _Row) -> Exception:
    return protocol_error(
        f"{reader.where}, {row.name} (MQTT 5.0 section 2.2.2)", found="it twice", expected="it once"
    )


def _encode_value(value: Any, row: _Row, what: str) -> bytes:
    if row.type is _Type.TEXT:
        return fields.text(value, what=what)
    if row.type is _Type.BINARY:
        return fields.binary(value, what=what)
    if row.type is _Type.PAIR:
        name, content = value
        return fields.text(name, what=f"{what}, name") + fields.text(content, what=f"{what}, value")
    if value < row.low or (row.high is not None and value > row.high):
        raise LocalProtocolError(f"{what}: found {value}, expected {_range(row)}")
    if row.type is _Type.VARINT:
        return fields.varint(value)
    return fields.uint(value, row.type.value, what=what)


def _decode_value(reader: Reader, row: _Row) -> object:
    if row.type is _Type.TEXT:
        return reader.text(row.name)
    if row.type is _Type.BINARY:
        return reader.binary(row.name)
    if row.type is _Type.PAIR:
        return reader.text(f"{row.name}, name"), reader.text(f"{row.name}, value")
    value = reader.varint(row.name) if row.type is _Type.VARINT else reader.uint(row.type.value, row.name)
    if value < row.low or (row.high is not None and value > row.high):
        raise protocol_error(f"{reader.where}, {row.name}", found=str(value), expected=_range(row))
    return value


def _range(row: _Row) -> str:
    return f"at least {row.low}" if row.high is None else f"{row.low} to {row.high}"
