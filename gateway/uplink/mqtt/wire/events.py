"""What a `ClientSession` tells its owner. `reason` is a Reason Code byte; `reasons.describe` names it."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from gateway.uplink.mqtt.wire.properties import NONE, Properties


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What the server grants on this link (CONNACK, MQTT 5.0 §3.2.2.3), with the standard's defaults."""

    receive_maximum: int = 65_535
    maximum_qos: int = 2
    retain_available: bool = True
    maximum_packet_size: int | None = None  # bytes; None: only the protocol's own limit
    topic_alias_maximum: int = 0
    keep_alive_s: int = 0  # in force: Server Keep Alive, or ours
    session_expiry_s: int = 0  # in force: the server's, or ours
    wildcard_subscription_available: bool = True
    subscription_identifier_available: bool = True
    shared_subscription_available: bool = True
    response_information: str = ""
    server_reference: str = ""
    reason_string: str = ""
    user_properties: tuple[tuple[str, str], ...] = ()


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """The server accepted us. Without `session_present` it knows no subscription of ours: subscribe again."""

    session_present: bool
    client_id: str
    server: Server


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """CONNACK with a failure; the link is of no more use. 3.1.1 return codes come as 5.0 reasons."""

    reason: int
    reason_string: str = ""
    server_reference: str = ""


class Acknowledged(msgspec.Struct, frozen=True, gc=False):
    """These publishes are done, in order: PUBACK, PUBCOMP, or drained to the wire for QoS 0."""

    tokens: list[object]


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """The server refused this publish, or does not allow its QoS or RETAIN (then it was not sent)."""

    token: object
    reason: int
    reason_string: str = ""


class TooLarge(msgspec.Struct, frozen=True, kw_only=True):
    """This publish is above the Maximum Packet Size and was not sent."""

    token: object
    size_bytes: int
    limit_bytes: int


class Unsent(msgspec.Struct, frozen=True):
    """The link went before these QoS 0 publishes drained: unknown whether they went out; not kept."""

    tokens: list[object]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A publish for us. QoS 1 and 2: `acknowledge(message)` once it is safe."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int = 0
    properties: Properties = NONE


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """One result for each filter, in order: the granted QoS, or a failure (0x80 and above)."""

    request: int
    results: tuple[int, ...]
    reason_string: str = ""


class Unsubscribed(msgspec.Struct, frozen=True, kw_only=True):
    """One result for each filter, in order; all 0 in 3.1.1, which has none."""

    request: int
    results: tuple[int, ...]
    reason_string: str = ""


class Disconnected(msgspec.Struct, frozen=True, kw_only=True):
    """The server sent DISCONNECT and says why (5.0 only); drop the link."""

    reason: int
    reason_string: str = ""
    server_reference: str = ""


class RoundTrip(msgspec.Struct, frozen=True):
    """PINGRESP to a `round_trip`: the server, which reads in order, has read every QoS 0 sent before it."""

    token: object


class NoResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The server is silent where it owes `expected` (CONNACK, PINGRESP, SUBACK, UNSUBACK); drop the link."""

    expected: str
    waited_ns: int


Event: TypeAlias = (
    Connected
    | Refused
    | Acknowledged
    | Rejected
    | TooLarge
    | Unsent
    | Message
    | Subscribed
    | Unsubscribed
    | Disconnected
    | RoundTrip
    | NoResponse
)
