"""The control packets as data (MQTT 5.0 §3). In 3.1.1 `properties` are empty and reasons are 0."""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from gateway.uplink.mqtt.wire.properties import NONE, Properties
from gateway.uplink.mqtt.wire.terms import PacketType, Version


class Will(msgspec.Struct, frozen=True, kw_only=True):
    """What the server publishes when we vanish (§3.1.2.5). Will Delay Interval is one of its properties."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = NONE


class RetainHandling(enum.IntEnum):
    """When retained messages are sent for a subscription (§3.8.3.1)."""

    SEND = 0
    SEND_IF_NEW = 1
    DO_NOT_SEND = 2


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """A Topic Filter and its Subscription Options (§3.8.3.1); 3.1.1 has only `qos`."""

    filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: RetainHandling = RetainHandling.SEND


class Connect(msgspec.Struct, frozen=True, kw_only=True):
    """§3.1. `keep_alive` in seconds, 0 turns it off."""

    client_id: str
    version: Version
    clean_start: bool
    keep_alive: int
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = NONE


class Connack(msgspec.Struct, frozen=True, kw_only=True):
    """§3.2. `reason` is the byte on the wire: a Reason Code in 5.0, a Connect Return code in 3.1.1."""

    session_present: bool
    reason: int
    properties: Properties = NONE


class Publish(msgspec.Struct, frozen=True, kw_only=True):
    """§3.3. `packet_id` is 0 for QoS 0."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = NONE


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """PUBACK, PUBREC, PUBREL or PUBCOMP (§3.4 to §3.7)."""

    type: PacketType
    packet_id: int
    reason: int = 0
    properties: Properties = NONE


class Subscribe(msgspec.Struct, frozen=True, kw_only=True):
    """§3.8."""

    packet_id: int
    subscriptions: tuple[Subscription, ...]
    properties: Properties = NONE


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True):
    """§3.10."""

    packet_id: int
    filters: tuple[str, ...]
    properties: Properties = NONE


class Suback(msgspec.Struct, frozen=True, kw_only=True):
    """§3.9: one reason for each subscription, in order."""

    packet_id: int
    reasons: tuple[int, ...]
    properties: Properties = NONE


class Unsuback(msgspec.Struct, frozen=True, kw_only=True):
    """§3.11: one reason for each filter, in order; none in 3.1.1."""

    packet_id: int
    reasons: tuple[int, ...] = ()
    properties: Properties = NONE


class Pingreq(msgspec.Struct, frozen=True):
    """§3.12."""


class Pingresp(msgspec.Struct, frozen=True):
    """§3.13."""


class Disconnect(msgspec.Struct, frozen=True, kw_only=True):
    """§3.14."""

    reason: int = 0
    properties: Properties = NONE


class Auth(msgspec.Struct, frozen=True, kw_only=True):
    """§3.15, only in 5.0."""

    reason: int = 0
    properties: Properties = NONE


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Acknowledgement
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
