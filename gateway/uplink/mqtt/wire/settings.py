"""What a client asks of a server when it connects (MQTT 5.0 §3.1)."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.core.errors import LocalProtocolError
from gateway.uplink.mqtt.wire.packets import Will
from gateway.uplink.mqtt.wire.terms import PACKET_BYTES_MAX, PACKET_ID_MAX, Version

SESSION_NEVER_EXPIRES: Final = 0xFFFFFFFF  # Session Expiry Interval, MQTT 5.0 §3.1.2.11.2
REQUESTS_MAX: Final = 64  # SUBSCRIBE and UNSUBSCRIBE without an answer; ours
IN_FLIGHT_MAX: Final = PACKET_ID_MAX - REQUESTS_MAX  # so that a packet identifier is always free


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Fixed for the life of a `ClientSession`. Raises LocalProtocolError for what MQTT does not allow.

    `clean_start` false resumes the session of an earlier link of the same `ClientSession`; its first link is
    always clean. `session_expiry_s`, `receive_maximum`, `topic_alias_maximum`, the two `request_` fields and
    `user_properties` go to the server in 5.0 only.
    """

    client_id: str  # "": the server assigns one (5.0), or the session is clean (3.1.1)
    version: Version = Version.V5
    clean_start: bool = False
    session_expiry_s: int = 0  # 0: the session ends with the link
    keep_alive_s: int = 60  # 0: off
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    receive_maximum: int = 256  # QoS 1 and 2 messages to us that may wait for `acknowledge`
    receive_overrun_max: int = 1024  # how many more are taken: mosquitto 2.0.11 sends several for one PUBACK
    maximum_packet_size: int = 1 << 20  # bytes; bounds our inbound buffer in both versions
    topic_alias_maximum: int = 16  # aliases the server may use towards us
    outgoing_packet_size_max: int = (
        PACKET_BYTES_MAX  # bytes; for a 3.1.1 server, which cannot announce its own
    )
    in_flight_max: int = 1024  # QoS 1 and 2 publishes without acknowledgement; QoS 0 not drained yet
    # In 3.1.1 only, whose server has no Receive Maximum: mosquitto 2.0.11 has 20 places for QoS 2, and sends
    # PUBACK for a QoS 1 publish that then finds none without keeping it.
    qos_2_in_flight_max: int = 10
    response_timeout_s: float = 10.0  # for CONNACK, SUBACK, UNSUBACK and PINGRESP
    request_response_information: bool = False
    request_problem_information: bool = True
    user_properties: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _within("keep_alive_s", self.keep_alive_s, 0, 65_535, "3.1.2.10")
        _within("session_expiry_s", self.session_expiry_s, 0, SESSION_NEVER_EXPIRES, "3.1.2.11.2")
        _within("receive_maximum", self.receive_maximum, 1, 65_535, "3.1.2.11.3")
        _within("receive_overrun_max", self.receive_overrun_max, 0, 65_535, "3.3.4")
        _within("maximum_packet_size", self.maximum_packet_size, 1, PACKET_BYTES_MAX, "3.1.2.11.4")
        _within("outgoing_packet_size_max", self.outgoing_packet_size_max, 1, PACKET_BYTES_MAX, "2.1.4")
        _within("topic_alias_maximum", self.topic_alias_maximum, 0, 65_535, "3.1.2.11.5")
        _within("in_flight_max", self.in_flight_max, 1, IN_FLIGHT_MAX, "2.2.1")
        _within("qos_2_in_flight_max", self.qos_2_in_flight_max, 1, IN_FLIGHT_MAX, "2.2.1")
        if self.response_timeout_s <= 0:
            raise LocalProtocolError(f"response_timeout_s: found {self.response_timeout_s}, expected above 0")
        if self.version is Version.V311 and not self.client_id and not self.clean_start:
            raise LocalProtocolError(
                "client_id: found none without clean_start, expected a name (MQTT 3.1.1 section 3.1.3.1)"
            )


def _within(name: str, value: int, low: int, high: int, section: str) -> None:
    if not low <= value <= high:
        raise LocalProtocolError(
            f"{name}: found {value}, expected {low} to {high} (MQTT 5.0 section {section})"
        )
