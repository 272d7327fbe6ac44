"""CONNECT from the settings, and what CONNACK grants (MQTT 5.0 §3.1, §3.2)."""

from __future__ import annotations

from typing import Final

from gateway.uplink.mqtt.wire.encode import encode
from gateway.uplink.mqtt.wire.events import Refused, Server
from gateway.uplink.mqtt.wire.fields import malformed
from gateway.uplink.mqtt.wire.packets import Connack, Connect
from gateway.uplink.mqtt.wire.properties import NONE, Properties
from gateway.uplink.mqtt.wire.reasons import CONNECT_RETURN_CODES, FAILURE, ReasonCode
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import Version

_RECEIVE_MAXIMUM_DEFAULT: Final = 65_535  # MQTT 5.0 §3.1.2.11.3 and §3.2.2.3.3


def connect_bytes(settings: Settings, *, client_id: str, clean_start: bool) -> bytes:
    """The CONNECT packet."""
    return encode(
        Connect(
            client_id=client_id,
            version=settings.version,
            clean_start=clean_start,
            keep_alive=settings.keep_alive_s,
            username=settings.username,
            password=settings.password,
            will=settings.will,
            properties=_connect_properties(settings),
        ),
        settings.version,
    )


def refusal(packet: Connack, version: Version) -> Refused | None:
    """Why the server does not take us; None when it does. Raises `Violation`."""
    reason = packet.reason
    if version is Version.V311:
        if reason not in CONNECT_RETURN_CODES:
            raise malformed("CONNACK (MQTT 3.1.1 section 3.2.2.3)", found=f"code {reason}", expected="0 to 5")
        reason = CONNECT_RETURN_CODES[reason]
    if 0 < reason < FAILURE:
        raise malformed(
            "CONNACK (MQTT 5.0 section 3.2.2.2)", found=f"reason 0x{reason:02x}", expected="0 or a failure"
        )
    if not reason:
        return None
    return Refused(
        reason=reason,
        reason_string=packet.properties.reason_string or "",
        server_reference=packet.properties.server_reference or "",
    )


def old_refusal(body: bytes) -> Refused | None:
    """A refusal without properties: so answers a server of 3.1.1 to CONNECT of 5.0 (3.1.1 §3.1.2.2)."""
    if len(body) != 2 or not body[1]:
        return None
    reason = CONNECT_RETURN_CODES.get(body[1], ReasonCode.UNSUPPORTED_PROTOCOL_VERSION)
    return Refused(reason=reason, reason_string="the server answers in MQTT 3.1.1, ask for that version")


def granted(properties: Properties, settings: Settings) -> Server:
    """CONNACK properties with the defaults the standard gives to absent ones (MQTT 5.0 §3.2.2.3)."""

    def one(value: int | None, default: int) -> int:
        return default if value is None else value

    return Server(
        receive_maximum=one(properties.receive_maximum, _RECEIVE_MAXIMUM_DEFAULT),
        maximum_qos=one(properties.maximum_qos, 2),
        retain_available=bool(one(properties.retain_available, 1)),
        maximum_packet_size=properties.maximum_packet_size,
        topic_alias_maximum=one(properties.topic_alias_maximum, 0),
        keep_alive_s=one(properties.server_keep_alive, settings.keep_alive_s),
        session_expiry_s=one(properties.session_expiry_interval, settings.session_expiry_s),
        wildcard_subscription_available=bool(one(properties.wildcard_subscription_available, 1)),
        subscription_identifier_available=bool(one(properties.subscription_identifier_available, 1)),
        shared_subscription_available=bool(one(properties.shared_subscription_available, 1)),
        response_information=properties.response_information or "",
        server_reference=properties.server_reference or "",
        reason_string=properties.reason_string or "",
        user_properties=properties.user_properties,
    )


def _connect_properties(settings: Settings) -> Properties:
    if settings.version is Version.V311:
        return NONE
    is_default = settings.receive_maximum == _RECEIVE_MAXIMUM_DEFAULT
    return Properties(
        session_expiry_interval=settings.session_expiry_s or None,
        receive_maximum=None if is_default else settings.receive_maximum,
        maximum_packet_size=settings.maximum_packet_size,
        topic_alias_maximum=settings.topic_alias_maximum or None,
        request_response_information=1 if settings.request_response_information else None,
        request_problem_information=None if settings.request_problem_information else 0,
        user_properties=settings.user_properties,
    )
