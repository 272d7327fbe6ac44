"""One link of a `ClientSession`: handshake, publishing, acknowledging, limits, keep alive, violations."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.uplink.mqtt.wire.encode import encode
from gateway.uplink.mqtt.wire.events import (
    Acknowledged,
    Connected,
    Disconnected,
    Message,
    NoResponse,
    Refused,
    Rejected,
    RoundTrip,
    Server,
    Subscribed,
    TooLarge,
    Unsent,
    Unsubscribed,
)
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
from gateway.uplink.mqtt.wire.properties import Properties, publish_properties
from gateway.uplink.mqtt.wire.reasons import ReasonCode
from gateway.uplink.mqtt.wire.session import ClientSession, State
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import PacketType, Version
from tests.uplink.mqtt.wire.script import S, Script, ack, feed, flat, packets_in

relaxed = settings(deadline=None)  # others run on the same machine
BOTH = pytest.mark.parametrize("version", Version)
PUBREC, PUBREL, PUBCOMP = PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP


# Handshake


def test_connect_carries_every_setting() -> None:
    will = Will(
        topic="gw/status", payload=b"gone", qos=1, retain=True, properties=Properties(will_delay_interval=5)
    )
    script = Script(
        username="u",
        password=b"p",
        will=will,
        keep_alive_s=30,
        receive_maximum=10,
        maximum_packet_size=5000,
        topic_alias_maximum=3,
        request_response_information=True,
        request_problem_information=False,
        user_properties=(("a", "b"),),
        clean_start=True,
    )
    assert script.connect() == Connect(
        client_id="gw",
        version=Version.V5,
        clean_start=True,
        keep_alive=30,
        username="u",
        password=b"p",
        will=will,
        properties=Properties(
            session_expiry_interval=3600,
            receive_maximum=10,
            maximum_packet_size=5000,
            topic_alias_maximum=3,
            request_response_information=1,
            request_problem_information=0,
            user_properties=(("a", "b"),),
        ),
    )


def test_connect_of_3_1_1_has_no_properties() -> None:
    assert Script(Version.V311, keep_alive_s=0).connect() == Connect(
        client_id="gw", version=Version.V311, clean_start=True, keep_alive=0
    )


def test_what_connack_grants_is_in_force() -> None:
    """MQTT 5.0 §3.2.2.3: server keep alive, assigned identifier, session expiry and the rest."""
    script = Script(client_id="", keep_alive_s=60)
    script.connect(
        Properties(
            receive_maximum=5,
            maximum_qos=1,
            retain_available=0,
            maximum_packet_size=1000,
            topic_alias_maximum=2,
            server_keep_alive=7,
            session_expiry_interval=9,
            assigned_client_identifier="auto-1",
            wildcard_subscription_available=0,
            subscription_identifier_available=0,
            shared_subscription_available=0,
            response_information="resp/",
            server_reference="other",
            reason_string="hello",
            user_properties=(("x", "y"),),
        )
    )
    assert script.events == [
        Connected(
            session_present=False,
            client_id="auto-1",
            server=Server(
                receive_maximum=5,
                maximum_qos=1,
                retain_available=False,
                maximum_packet_size=1000,
                topic_alias_maximum=2,
                keep_alive_s=7,
                session_expiry_s=9,
                wildcard_subscription_available=False,
                subscription_identifier_available=False,
                shared_subscription_available=False,
                response_information="resp/",
                server_reference="other",
                reason_string="hello",
                user_properties=(("x", "y"),),
            ),
        )
    ]
    assert script.session.deadline_ns() == 7 * S
    assert script.session.quota == 5
    script.lose()
    assert script.connect().client_id == "auto-1"


@pytest.mark.parametrize(
    ("version", "code", "reason"),
    [(Version.V5, 0x86, 0x86), (Version.V5, 0x9D, 0x9D)]
    + [(Version.V311, code, reason) for code, reason in enumerate((0x84, 0x85, 0x88, 0x86, 0x87), start=1)],
)
def test_a_refusal_says_why(version: Version, code: int, reason: int) -> None:
    script = Script(version)
    script.session.connect(0)
    more = Properties(reason_string="why", server_reference="b:1") if version is Version.V5 else Properties()
    events = script.say(Connack(session_present=False, reason=code, properties=more))
    v5 = version is Version.V5
    assert events == [
        Refused(reason=reason, reason_string="why" if v5 else "", server_reference="b:1" if v5 else "")
    ]
    assert script.session.state is State.OVER
    assert script.session.receive(b"garbage", 0) == []
    assert script.session.deadline_ns() is None


def test_a_server_of_3_1_1_refuses_5_0_in_its_own_form() -> None:
    """MQTT 3.1.1 §3.1.2.2: an unacceptable level is answered with return code 1, without properties."""
    script = Script()
    script.session.connect(0)
    (event,) = script.session.receive(bytes.fromhex("20 02 00 01"), 0)
    assert isinstance(event, Refused)
    assert event.reason == ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
    assert "3.1.1" in event.reason_string


@pytest.mark.parametrize(
    ("stream", "what"),
    [
        ("d0 00", "expected CONNACK"),
        ("20 03 01 00 00", "3.2.2.1.1"),  # Session Present on the first, clean link
        ("20 03 00 01 00", "3.2.2.2"),
        ("20 03 00 00 00 20 03 00 00 00", "CONNACK"),  # a second one
        ("20 03 00 00 00 f0 00", "AUTH"),  # without an Authentication Method of ours, §4.12
        ("20 03 00 00 00 82 06 00 01 00 00 01 61 00", "2.1.3|SUBSCRIBE|bytes"),
        ("20 03 00 00 00 c0 00", "PINGREQ"),
        ("20 03 00 00 00 90 04 00 05 00 00", "packet identifier 5"),
        ("20 03 00 00 00 ff ff ff ff ff 01", "2.1.4"),
        ("20 03 00 00 00 30 ff ff ff 7f", "Maximum Packet Size"),
        ("48 54 54 50", "expected CONNACK"),  # an HTTP server: "HTTP"
    ],
)
def test_a_server_that_breaks_the_protocol(stream: str, what: str) -> None:
    script = Script()
    script.session.connect(0)
    script.out()
    with pytest.raises(RemoteProtocolError, match=what):
        script.session.receive(bytes.fromhex(stream), 0)
    assert script.session.state is State.OVER
    assert script.publish("t") is False


def test_3_1_1_knows_no_disconnect_from_the_server() -> None:
    script = Script(Version.V311)
    script.connect()
    with pytest.raises(RemoteProtocolError, match="DISCONNECT"):
        script.session.receive(b"\xe0\x00", 0)
    assert script.out() == []
    script = Script(Version.V311)
    script.session.connect(0)
    with pytest.raises(RemoteProtocolError, match=r"3\.2\.2\.3"):
        script.session.receive(bytes.fromhex("20 02 00 06"), 0)


def test_the_server_is_told_what_it_broke_and_nothing_understood_is_lost() -> None:
    """MQTT 5.0 §4.13.1: DISCONNECT with the reason; the events before it come with `lost`."""
    script = Script()
    script.connect()
    assert script.publish("a")
    script.out()
    with pytest.raises(RemoteProtocolError, match="QoS 3"):
        script.session.receive(bytes.fromhex("40 02 00 01 36 00"), 0)
    assert script.out() == [Disconnect(reason=ReasonCode.MALFORMED_PACKET)]
    assert script.lose() == [Acknowledged(["a"])]


# Publishing


@BOTH
def test_a_burst_of_acknowledgements_is_one_event(version: Version) -> None:
    script = Script(version)
    script.connect()
    for token in range(100):
        assert script.publish(token, payload=b"%d" % token)
    sent = script.out()
    assert [(p.packet_id, p.payload) for p in sent if isinstance(p, Publish)] == [
        (i + 1, b"%d" % i) for i in range(100)
    ]
    assert script.say(*(ack(i + 1) for i in range(100))) == [Acknowledged(list(range(100)))]
    assert script.session.in_flight == 0


@BOTH
def test_a_publish_is_encoded_as_the_codec_does(version: Version) -> None:
    """Sizes around each step of the Remaining Length, with and without properties (MQTT 5.0 §1.5.5)."""
    block = publish_properties(content_type="c" * 130)
    for size in (0, 100, 116, 121, 125, 130, 16_370, 16_378, 16_384, 70_000):
        for properties in (b"", publish_properties(payload_is_utf8=True), block):
            if properties and version is Version.V311:
                continue
            for qos in (0, 1, 2):
                script = Script(version)
                script.connect()
                assert script.publish(1, qos=qos, payload=b"x" * size, properties=properties, retain=True)
                (stream,) = script.session.to_send(0)
                (packet,) = packets_in(stream, version)
                assert isinstance(packet, Publish)
                assert encode(packet, version) == stream
                assert (packet.topic, packet.qos, packet.retain, packet.dup) == ("t", qos, True, False)
                assert packet.payload == b"x" * size
                assert (packet.properties != Properties()) is bool(properties)


def test_qos_0_is_done_when_the_wire_drained() -> None:
    script = Script(in_flight_max=2)
    script.connect()
    assert script.publish("a", qos=0)
    assert script.publish("b", qos=0)
    assert script.publish("c", qos=0) is False
    assert script.drain() == []
    script.out()
    assert script.publish("c", qos=0)
    assert script.drain() == [Acknowledged(["a", "b"])]
    assert script.lose() == [Unsent(["c"])]
    assert script.publish("d", qos=0) is False


def test_qos_0_given_out_but_not_drained_comes_back() -> None:
    script = Script()
    script.connect()
    script.publish("a", qos=0)
    script.out()
    assert script.lose() == [Unsent(["a"])]


@BOTH
def test_qos_2_takes_four_packets(version: Version) -> None:
    """MQTT 5.0 §4.3.3."""
    script = Script(version)
    script.connect()
    assert script.publish("a", qos=2)
    script.out()
    assert script.say(ack(1, PUBREC)) == []
    assert script.out() == [ack(1, PUBREL)]
    assert script.session.in_flight == 1
    assert script.say(ack(1, PUBREC)) == []
    assert script.out() == [ack(1, PUBREL)]
    assert script.say(ack(1, PUBCOMP)) == [Acknowledged(["a"])]
    assert (script.session.in_flight, script.session.strays) == (0, 0)


@pytest.mark.parametrize(("qos", "answer"), [(1, PacketType.PUBACK), (2, PUBREC)])
def test_a_rejected_publish_frees_its_place(qos: int, answer: PacketType) -> None:
    script = Script(in_flight_max=1)
    script.connect()
    assert script.publish("a", qos=qos)
    assert script.publish("b", qos=qos) is False
    script.out()
    refusal = Acknowledgement(
        type=answer, packet_id=1, reason=0x97, properties=Properties(reason_string="quota of the tenant")
    )
    assert script.say(refusal) == [Rejected(token="a", reason=0x97, reason_string="quota of the tenant")]
    assert script.session.quota == 1
    assert script.out() == []


def test_reasons_of_success_and_reasons_not_in_the_table() -> None:
    """MQTT 5.0 §2.4: below 0x80 is success; a code that is not listed decides by that too."""
    script = Script()
    script.connect()
    for token in range(4):
        script.publish(token)
    script.out()
    stream = bytes.fromhex("40 03 0001 10  40 04 0002 10 00  40 03 0003 7d  40 03 0004 fe")
    assert flat(script.session.receive(stream, 0)) == [
        Rejected(token=3, reason=0xFE),
        ("done", 0),
        ("done", 1),
        ("done", 2),
    ]


@pytest.mark.parametrize(("qos", "answer"), [(1, PUBREC), (1, PUBCOMP), (2, PacketType.PUBACK), (2, PUBCOMP)])
def test_an_answer_of_the_wrong_kind(qos: int, answer: PacketType) -> None:
    script = Script()
    script.connect()
    script.publish("a", qos=qos)
    with pytest.raises(RemoteProtocolError, match=f"{answer.name}.*4.3|4.3.*{answer.name}"):
        script.say(ack(1, answer))


def test_answers_to_nothing_are_counted_and_harmless() -> None:
    script = Script()
    script.connect()
    assert script.say(ack(9), ack(9, PUBREC), ack(9, PUBCOMP), ack(9, PUBREC, 0x91), ack(9, PUBREL)) == []
    assert script.session.strays == 5
    not_found = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    assert script.out() == [ack(9, PUBREL, not_found), ack(9, PUBCOMP, not_found)]
    old = Script(Version.V311)
    old.connect()
    assert old.say(ack(9, PUBREC), ack(9, PUBREL)) == []
    assert old.out() == [ack(9, PUBREL), ack(9, PUBCOMP)]


def test_the_receive_maximum_of_the_server_is_the_window() -> None:
    """MQTT 5.0 §3.3.4 and §4.9: QoS 0 is outside of it."""
    script = Script(in_flight_max=100)
    script.connect(Properties(receive_maximum=3))
    assert [script.publish(i, qos=1 + i % 2) for i in range(4)] == [True, True, True, False]
    assert script.session.quota == 0
    assert script.publish("free", qos=0)
    script.out()
    script.say(ack(1))
    assert script.session.quota == 1
    script.say(ack(2, PUBREC))
    assert script.session.quota == 1
    script.say(ack(2, PUBCOMP))
    assert script.session.quota == 2


def test_3_1_1_has_a_small_window_of_its_own_for_qos_2() -> None:
    """Its server has no Receive Maximum; mosquitto 2.0.11 acknowledges and loses what is too much."""
    script = Script(Version.V311, qos_2_in_flight_max=2, outgoing_packet_size_max=30)
    script.connect()
    assert [script.publish(token, qos=2) for token in "abc"] == [True, True, False]
    assert script.publish("c", qos=2, payload=b"x" * 20) is False
    assert script.publish("d", qos=1)
    script.say(ack(1, PUBREC), ack(1, PUBCOMP), ack(2, PUBREC))
    assert [script.publish(token, qos=2, payload=b"x" * 20) for token in "cd"] == [True, False]
    script.lose()
    script.connect(session_present=True)
    script.say(ack(2, PUBCOMP, 0), ack(4, PUBREC), ack(4, PUBCOMP))
    assert [script.publish(token, qos=2) for token in "efg"] == [True, True, False]


def test_packet_identifiers_are_not_reused_while_in_flight() -> None:
    """MQTT 5.0 §2.2.1: 65,535 of them, and requests take from the same."""
    script = Script(in_flight_max=65_471)
    script.connect()
    for token in range(65_471):
        assert script.publish(token)
    assert script.publish("one more") is False
    request = script.session.subscribe([Subscription(filter="a")], 0)
    assert request == 65_472
    script.session.to_send(0)
    assert flat(script.say(ack(5), ack(7))) == [("done", 4), ("done", 6)]
    seen = []
    for token in ("x", "y"):
        assert script.publish(token)
    for packet in script.out():
        assert isinstance(packet, Publish)
        seen.append(packet.packet_id)
    assert seen == [65_473, 65_474]
    script.say(*(ack(i) for i in range(10, 100)))
    for token in range(90):
        assert script.publish(token)
    ids = [packet.packet_id for packet in script.out() if isinstance(packet, Publish)]
    assert len(set(ids)) == 90
    assert set(ids) <= {*range(65_475, 65_536), 5, 7, *range(10, 100)}
    assert script.session.in_flight == 65_471


def test_what_the_server_does_not_take_is_refused_before_it_is_sent() -> None:
    """MQTT 5.0 §3.2.2.3.4, §3.2.2.3.5, §3.2.2.3.6; the next publish is not held up."""
    script = Script()
    script.connect(Properties(maximum_qos=1, retain_available=0, maximum_packet_size=50))
    assert script.publish("qos", qos=2)
    assert script.publish("retain", retain=True)
    assert script.publish("large", payload=b"x" * 44)
    assert script.publish("exact", payload=b"x" * 42)
    assert script.session.deadline_ns() == 0
    refused = script.session.on_deadline(0)
    assert [(type(event), event.token) for event in refused if isinstance(event, Rejected | TooLarge)] == [
        (Rejected, "qos"),
        (Rejected, "retain"),
        (TooLarge, "large"),
    ]
    assert [event.reason for event in refused if isinstance(event, Rejected)] == [0x9B, 0x9A]
    assert TooLarge(token="large", size_bytes=52, limit_bytes=50) in refused
    (stream,) = script.session.to_send(0)
    assert len(stream) == 50
    assert script.session.in_flight == 1


@relaxed
@given(size=st.integers(0, 40), topic=st.integers(1, 30), limit=st.integers(20, 60), qos=st.integers(0, 2))
def test_nothing_above_the_servers_maximum_packet_size_is_ever_sent(
    size: int, topic: int, limit: int, qos: int
) -> None:
    script = Script()
    script.connect(Properties(maximum_packet_size=limit, topic_alias_maximum=2))
    for turn in range(3):
        assert script.publish(turn, topic=b"t" * topic, payload=b"x" * size, qos=qos)
        sent = script.session.to_send(0)
        assert all(len(one) <= limit for one in sent)
        events = script.session.on_deadline(0)
        assert bool(sent) is not bool(events)
        needed = 2 + 2 + topic + (2 if qos else 0) + 1 + size
        assert bool(sent) is (needed <= limit)


def test_hot_topics_take_an_alias_with_their_second_publish() -> None:
    """MQTT 5.0 §3.3.2.3.4, within the Topic Alias Maximum of the server, which ends with the link."""
    script = Script()
    script.connect(Properties(topic_alias_maximum=2))
    for topic in (b"once", b"hot", b"hot", b"hot", b"warm", b"warm", b"late", b"late", b"hot", b"warm"):
        assert script.publish(topic, topic=topic)
    seen = [(p.topic, p.properties.topic_alias) for p in script.out() if isinstance(p, Publish)]
    assert seen == [
        ("once", None),
        ("hot", None),
        ("hot", 1),
        ("", 1),
        ("warm", None),
        ("warm", 2),
        ("late", None),
        ("late", None),
        ("", 1),
        ("", 2),
    ]
    script.lose()
    script.connect(Properties(topic_alias_maximum=2), session_present=True)
    again = [(p.topic, p.properties.topic_alias) for p in script.out() if isinstance(p, Publish)]
    assert [topic for topic, _ in again] == [
        "once",
        "hot",
        "hot",
        "hot",
        "warm",
        "warm",
        "late",
        "late",
        "hot",
        "warm",
    ]
    assert {alias for _, alias in again} == {None}
    for topic in (b"hot", b"hot"):
        script.publish(topic, topic=topic, payload=b"x", properties=publish_properties(content_type="j"))
    assert [(p.topic, p.properties.topic_alias) for p in script.out() if isinstance(p, Publish)] == [
        ("hot", None),
        ("hot", 1),
    ]


@BOTH
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"topic": b"a/#"}, "4.7.1"),
        ({"topic": b""}, "4.7.3"),
        ({"topic": b"\xff"}, "1.5.4"),
        ({"topic": b"x" * 65_536}, "4.7.3"),
        ({"qos": 3}, "QoS 3"),
        ({"qos": 4}, "QoS 4"),
        ({"properties": b"\x24\x01"}, "maximum_qos|3.1.1"),
        ({"properties": b"\x23\x00\x01"}, "alias|3.1.1"),
    ],
)
def test_misuse_is_loud_and_takes_nothing(version: Version, arguments: dict[str, Any], what: str) -> None:
    script = Script(version)
    script.connect()
    with pytest.raises(LocalProtocolError, match=what):
        script.publish("x", **arguments)
    assert script.out() == []
    assert script.session.in_flight == 0


def test_verbs_out_of_turn() -> None:
    script = Script()
    for call in (
        lambda: script.session.receive(b"", 0),
        lambda: script.session.subscribe([Subscription(filter="a")], 0),
        lambda: script.session.unsubscribe(["a"], 0),
        script.session.disconnect,
    ):
        with pytest.raises(LocalProtocolError):
            call()
    assert script.publish("a") is False
    assert (script.session.deadline_ns(), script.out(), script.lose()) == (None, [], [])
    script.connect()
    with pytest.raises(LocalProtocolError, match=r"lost\(\) first"):
        script.session.connect(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep_alive_s": 65_536},
        {"receive_maximum": 0},
        {"maximum_packet_size": 0},
        {"topic_alias_maximum": -1},
        {"in_flight_max": 0},
        {"in_flight_max": 65_535},
        {"response_timeout_s": 0},
        {"session_expiry_s": 1 << 32},
        {"client_id": "", "version": Version.V311},
    ],
)
def test_settings_that_mqtt_does_not_allow(wrong: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError, match="expected"):
        Settings(**({"client_id": "gw"} | wrong))


# Receiving


@BOTH
@pytest.mark.parametrize(("qos", "answer"), [(1, PacketType.PUBACK), (2, PUBREC)])
def test_messages_are_acknowledged_when_the_owner_says_so_in_their_order(
    version: Version, qos: int, answer: PacketType
) -> None:
    """MQTT 5.0 §4.6 and 3.1.1 §4.6: PUBACK and PUBREC in the order of arrival."""
    script = Script(version)
    script.connect()
    events = script.say(*(Publish(topic="cmd", payload=b"%d" % i, qos=qos, packet_id=i) for i in (3, 1, 2)))
    messages = [event for event in events if isinstance(event, Message)]
    assert [message.payload for message in messages] == [b"3", b"1", b"2"]
    assert script.out() == []
    assert script.session.acknowledge(messages[2])
    assert script.session.acknowledge(messages[1])
    assert script.out() == []
    assert script.session.acknowledge(messages[0])
    assert script.out() == [ack(3, answer), ack(1, answer), ack(2, answer)]
    assert script.session.acknowledge(messages[0]) is False


def test_a_message_can_be_refused_in_5_0_and_is_acknowledged_in_3_1_1() -> None:
    for version in Version:
        script = Script(version)
        script.connect()
        (message,) = script.say(Publish(topic="cmd", payload=b"", qos=1, packet_id=1))
        assert isinstance(message, Message)
        assert script.session.acknowledge(message, ReasonCode.NOT_AUTHORIZED)
        assert script.out() == [ack(1, reason=0x87 if version is Version.V5 else 0)]


def test_acknowledging_twice_before_its_turn_is_misuse() -> None:
    script = Script()
    script.connect()
    _, second = script.say(*(Publish(topic="c", payload=b"", qos=1, packet_id=i) for i in (1, 2)))
    assert isinstance(second, Message)
    assert script.session.acknowledge(second)
    with pytest.raises(LocalProtocolError, match="second"):
        script.session.acknowledge(second)


@BOTH
def test_qos_2_is_delivered_exactly_once(version: Version) -> None:
    """MQTT 5.0 §4.3.3: by packet identifier, until PUBREL."""
    script = Script(version)
    script.connect()
    publish = Publish(topic="c", payload=b"x", qos=2, packet_id=5)
    again = msgspec.structs.replace(publish, dup=True)
    (message,) = script.say(publish)
    assert script.say(again) == []
    assert script.out() == []
    assert isinstance(message, Message)
    script.session.acknowledge(message)
    assert script.out() == [ack(5, PUBREC)]
    assert script.say(again) == []
    assert script.out() == [ack(5, PUBREC)]
    assert script.say(ack(5, PUBREL)) == []
    assert script.out() == [ack(5, PUBCOMP)]
    assert len(script.say(publish)) == 1


def test_a_refused_qos_2_message_frees_its_identifier() -> None:
    script = Script(receive_maximum=1, receive_overrun_max=0)
    script.connect()
    for _ in range(3):
        (message,) = script.say(Publish(topic="c", payload=b"x", qos=2, packet_id=5))
        assert isinstance(message, Message)
        script.session.acknowledge(message, ReasonCode.QUOTA_EXCEEDED)
        assert script.out() == [ack(5, PUBREC, 0x97)]


@pytest.mark.parametrize(
    ("packets", "what"),
    [
        ([Publish(topic="c", payload=b"", qos=1, packet_id=1)] * 2, "packet identifier 1 again"),
        (
            [Publish(topic="c", payload=b"", qos=1 + i % 2, packet_id=i) for i in (1, 2, 3)],
            "Receive Maximum 2",
        ),
        ([Publish(topic="c", payload=b"", qos=2, packet_id=1), ack(1, PUBREL)], "before our PUBREC"),
        ([Publish(topic="", payload=b"", properties=Properties(topic_alias=1))], "3.3.2.3.4"),
        ([Publish(topic="a", payload=b"", properties=Properties(topic_alias=3))], "Topic Alias Maximum 2"),
        ([Auth(reason=0x18)], "AUTH"),
    ],
)
def test_a_server_that_overruns_our_limits(packets: list[Packet], what: str) -> None:
    script = Script(receive_maximum=2, receive_overrun_max=0, topic_alias_maximum=2)
    script.connect()
    with pytest.raises(RemoteProtocolError, match=what):
        script.say(*packets)
    (disconnect,) = script.out()
    assert isinstance(disconnect, Disconnect)
    assert disconnect.reason >= 0x80


def test_receive_maximum_counts_until_pubcomp() -> None:
    script = Script(receive_maximum=1, receive_overrun_max=0)
    script.connect()
    for packet_id in (1, 2, 3):
        (message,) = script.say(Publish(topic="c", payload=b"", qos=2, packet_id=packet_id))
        assert isinstance(message, Message)
        script.session.acknowledge(message)
        script.say(ack(packet_id, PUBREL))
    script.say(Publish(topic="c", payload=b"", qos=1, packet_id=4))
    with pytest.raises(RemoteProtocolError, match=r"3\.3\.4"):
        script.say(Publish(topic="c", payload=b"", qos=1, packet_id=5))


def test_messages_come_with_all_their_properties_and_aliases_resolved() -> None:
    script = Script()
    script.connect()
    properties = Properties(
        content_type="json",
        response_topic="r",
        correlation_data=b"1",
        message_expiry_interval=5,
        subscription_identifiers=(1, 2),
        user_properties=(("a", "b"),),
        topic_alias=1,
    )
    events = script.say(
        Publish(topic="first", payload=b"1", retain=True, properties=properties),
        Publish(topic="", payload=b"2", properties=Properties(topic_alias=1)),
        Publish(topic="second", payload=b"3", properties=Properties(topic_alias=1)),
        Publish(topic="", payload=b"4", properties=Properties(topic_alias=1)),
    )
    assert [(e.topic, e.payload) for e in events if isinstance(e, Message)] == [
        ("first", b"1"),
        ("first", b"2"),
        ("second", b"3"),
        ("second", b"4"),
    ]
    first = events[0]
    assert isinstance(first, Message)
    assert (first.properties, first.retain, first.qos) == (properties, True, 0)
    assert script.session.acknowledge(first)
    script.lose()
    script.connect(session_present=True)
    with pytest.raises(RemoteProtocolError, match="without a topic"):
        script.say(Publish(topic="", payload=b"", properties=Properties(topic_alias=1)))


def test_a_server_that_miscounts_our_receive_maximum_is_borne_up_to_a_limit() -> None:
    script = Script(receive_maximum=2, receive_overrun_max=3)
    script.connect()
    messages = [Publish(topic="c", payload=b"", qos=1, packet_id=i) for i in range(1, 7)]
    assert len(script.say(*messages[:5])) == 5
    with pytest.raises(RemoteProtocolError, match="found 6 messages"):
        script.say(messages[5])


# Subscribing


@BOTH
def test_subscribe_and_unsubscribe(version: Version) -> None:
    script = Script(version)
    script.connect()
    filters = [Subscription(filter="a/#", qos=2), Subscription(filter="$share/g/b", qos=1)]
    first = script.session.subscribe(filters, 0)
    second = script.session.unsubscribe(["a/#", "x"], 0)
    assert script.out() == [
        Subscribe(packet_id=first, subscriptions=tuple(filters)),
        Unsubscribe(packet_id=second, filters=("a/#", "x")),
    ]
    reasons = (0, 0x11) if version is Version.V5 else ()
    assert script.say(
        Unsuback(packet_id=second, reasons=reasons), Suback(packet_id=first, reasons=(1, 0x80))
    ) == [
        Unsubscribed(request=second, results=reasons or (0, 0)),
        Subscribed(request=first, results=(1, 0x80)),
    ]


def test_what_the_server_does_not_support_is_not_asked() -> None:
    """MQTT 5.0 §3.2.2.3.11 to §3.2.2.3.13."""
    script = Script()
    script.connect(
        Properties(
            wildcard_subscription_available=0,
            shared_subscription_available=0,
            subscription_identifier_available=0,
        )
    )
    wanted = [Subscription(filter=name) for name in ("a/#", "plain", "$share/g/b")]
    request = script.session.subscribe(wanted, 0, subscription_identifier=4)
    assert script.out() == [Subscribe(packet_id=request, subscriptions=(Subscription(filter="plain"),))]
    assert script.say(Suback(packet_id=request, reasons=(0,))) == [
        Subscribed(request=request, results=(0xA2, 0, 0x9E))
    ]
    request = script.session.subscribe([Subscription(filter="+")], 0)
    assert script.session.on_deadline(0) == [Subscribed(request=request, results=(0xA2,))]
    assert script.out() == []


def test_subscription_identifiers_and_user_properties_go_along() -> None:
    script = Script()
    script.connect()
    script.session.subscribe(
        [Subscription(filter="a")], 0, subscription_identifier=9, user_properties=(("k", "v"),)
    )
    (packet,) = script.out()
    assert isinstance(packet, Subscribe)
    assert packet.properties == Properties(subscription_identifiers=(9,), user_properties=(("k", "v"),))


def test_an_answer_must_fit_its_request() -> None:
    for answer in (Suback(packet_id=1, reasons=(0, 0)), Unsuback(packet_id=1, reasons=(0,))):
        script = Script()
        script.connect()
        script.session.subscribe([Subscription(filter="a")], 0)
        with pytest.raises(RemoteProtocolError, match=r"reason codes|packet identifier"):
            script.say(answer)


def test_requests_are_bounded_and_checked() -> None:
    script = Script()
    script.connect(Properties(maximum_packet_size=30))
    for bad in ([Subscription(filter="a#")], [], [Subscription(filter="x" * 30)]):
        with pytest.raises(LocalProtocolError):
            script.session.subscribe(bad, 0)
    with pytest.raises(LocalProtocolError, match="fewer filters"):
        script.session.unsubscribe(["x" * 30], 0)
    for _ in range(64):
        script.session.subscribe([Subscription(filter="a")], 0)
    with pytest.raises(LocalProtocolError, match="64"):
        script.session.unsubscribe(["a"], 0)


# Ends, time


def test_the_server_says_goodbye() -> None:
    script = Script()
    script.connect()
    properties = Properties(reason_string="maintenance", server_reference="b2:1883")
    assert script.say(Disconnect(reason=0x8B, properties=properties)) == [
        Disconnected(reason=0x8B, reason_string="maintenance", server_reference="b2:1883")
    ]
    assert script.session.state is State.OVER
    assert script.out() == []


@BOTH
def test_disconnect_is_the_last_packet(version: Version) -> None:
    script = Script(version)
    script.connect()
    script.publish("a", qos=0)
    script.session.disconnect()
    assert script.publish("b") is False
    assert script.out() == [Publish(topic="t", payload=b""), Disconnect()]
    assert script.drain() == [Acknowledged(["a"])]
    assert script.lose() == []


def test_disconnect_with_reason_and_session_expiry() -> None:
    script = Script()
    script.connect()
    script.session.disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE, session_expiry_s=1)
    assert script.out() == [Disconnect(reason=4, properties=Properties(session_expiry_interval=1))]
    script = Script(session_expiry_s=0)
    script.connect()
    with pytest.raises(LocalProtocolError, match=r"3\.14\.2\.2\.2"):
        script.session.disconnect(session_expiry_s=1)
    old = Script(Version.V311)
    old.connect()
    with pytest.raises(LocalProtocolError, match=r"3\.1\.1"):
        old.session.disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE)


def test_a_ping_goes_out_when_nothing_else_did() -> None:
    """MQTT 5.0 §3.1.2.10."""
    script = Script(keep_alive_s=10, response_timeout_s=3)
    script.connect()
    assert script.session.deadline_ns() == 10 * S
    script.now_ns = 4 * S
    script.publish("a")
    script.out()
    script.now_ns = 9 * S
    script.say(ack(1))
    assert script.session.deadline_ns() == 14 * S
    assert script.session.on_deadline(13 * S) == []
    assert script.out() == []
    script.now_ns = 14 * S
    assert script.session.on_deadline(14 * S) == []
    assert script.out() == [Pingreq()]
    assert script.session.deadline_ns() == 17 * S
    script.now_ns = 15 * S
    assert script.say(Pingresp()) == []
    assert script.session.deadline_ns() == 24 * S


def test_a_server_that_falls_silent_is_found_also_while_we_send() -> None:
    script = Script(keep_alive_s=10, response_timeout_s=3)
    script.connect()
    for second in range(1, 10):
        script.now_ns = second * S
        script.publish(second, qos=0)
        script.out()
        script.drain()
    assert script.session.deadline_ns() == 10 * S
    script.session.on_deadline(10 * S)
    script.now_ns = 10 * S
    assert script.out() == [Pingreq()]
    assert script.session.on_deadline(12 * S) == []
    assert script.session.on_deadline(13 * S) == [NoResponse(expected="PINGRESP", waited_ns=13 * S)]
    assert script.session.state is State.OVER
    assert script.session.deadline_ns() is None


def test_a_slow_server_that_still_sends_is_not_dead() -> None:
    script = Script(keep_alive_s=10, response_timeout_s=3)
    script.connect()
    script.session.on_deadline(10 * S)
    script.session.receive(bytes.fromhex("30 64 00 01"), 12 * S)
    assert script.session.on_deadline(13 * S) == []
    assert script.session.deadline_ns() == 15 * S
    assert script.session.on_deadline(15 * S) == [NoResponse(expected="PINGRESP", waited_ns=3 * S)]


def test_a_round_trip_is_a_ping_behind_what_was_published() -> None:
    """MQTT 5.0 §3.12.4: one PINGRESP for each PINGREQ."""
    script = Script(keep_alive_s=10, response_timeout_s=3)
    script.connect()
    script.publish("a", qos=0)
    assert script.session.round_trip("behind a", 0)
    assert [type(packet) for packet in script.out()] == [Publish, Pingreq]
    assert not script.session.round_trip("another", 0)  # one at a time
    assert script.out() == []
    script.drain()
    assert script.say(Pingresp()) == [RoundTrip("behind a")]
    assert script.say(Pingresp()) == []  # to nothing that was asked
    assert script.session.round_trip("another", 0)


def test_a_round_trip_is_not_answered_by_the_ping_before_it() -> None:
    script = Script(keep_alive_s=10, response_timeout_s=3)
    script.connect()
    script.session.on_deadline(10 * S)
    script.now_ns = 11 * S
    assert script.session.round_trip("mine", 11 * S)
    assert script.out() == [Pingreq(), Pingreq()]
    assert script.say(Pingresp()) == []
    assert script.session.deadline_ns() == 14 * S  # still owed
    assert script.say(Pingresp()) == [RoundTrip("mine")]
    assert script.session.deadline_ns() == 21 * S


def test_a_round_trip_that_never_ends_is_a_silent_server_also_without_keep_alive() -> None:
    script = Script(keep_alive_s=0, response_timeout_s=3)
    script.connect()
    script.session.round_trip("mine", 1 * S)
    assert script.session.deadline_ns() == 4 * S
    assert script.session.on_deadline(4 * S) == [NoResponse(expected="PINGRESP", waited_ns=4 * S)]


def test_a_round_trip_dies_with_its_link() -> None:
    script = Script()
    with pytest.raises(LocalProtocolError, match="round_trip"):
        script.session.round_trip("early", 0)
    script.connect()
    script.session.round_trip("old", 0)
    script.lose()
    script.connect()
    assert script.say(Pingresp()) == []
    assert script.session.round_trip("new", 0)
    assert script.say(Pingresp()) == [RoundTrip("new")]


def test_keep_alive_0_never_pings() -> None:
    script = Script(keep_alive_s=0)
    script.connect()
    assert script.session.deadline_ns() is None


def test_a_connack_or_suback_that_never_comes() -> None:
    script = Script(response_timeout_s=2, keep_alive_s=0)
    script.session.connect(5 * S)
    assert script.session.deadline_ns() == 7 * S
    assert script.session.on_deadline(6 * S) == []
    assert script.session.on_deadline(7 * S) == [NoResponse(expected="CONNACK", waited_ns=2 * S)]
    script.lose()
    script.connect()
    script.session.subscribe([Subscription(filter="a")], 3 * S)
    assert script.session.deadline_ns() == 5 * S
    assert script.session.on_deadline(5 * S) == [NoResponse(expected="SUBACK", waited_ns=2 * S)]


# Any cut, any bytes


def a_day_of_packets(version: Version) -> bytes:
    """What a server may send to a session with ten QoS 1 and two QoS 2 publishes in flight."""
    v5 = version is Version.V5
    some = Properties(content_type="json", user_properties=(("a", "b" * 200),)) if v5 else Properties()
    packets: list[Packet] = [
        *(ack(i) for i in range(1, 6)),
        Publish(topic="cmd/a", payload=b"x" * 300, qos=1, packet_id=1, properties=some),
        ack(6, reason=0x10 if v5 else 0),
        ack(11, PUBREC),
        Pingresp(),
        Suback(packet_id=13, reasons=(1,)),
        *(ack(i) for i in range(7, 11)),
        Publish(topic="cmd/b", payload=b"", qos=2, packet_id=2, dup=True),
        ack(12, PUBREC),
        ack(12, PUBCOMP),
        Publish(topic="cmd/c", payload=b"y"),
        ack(11, PUBCOMP),
    ]
    return b"".join(encode(packet, version) for packet in packets)


def busy(version: Version) -> ClientSession:
    script = Script(version)
    script.connect()
    for token in range(12):
        script.publish(token, qos=1 if token < 10 else 2)
    script.session.subscribe([Subscription(filter="cmd/#", qos=1)], 0)
    script.out()
    return script.session


@BOTH
@relaxed
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5))
def test_the_same_events_however_the_stream_is_cut(version: Version, sizes: list[int]) -> None:
    stream = a_day_of_packets(version)
    whole, _ = feed(busy(version), stream, [len(stream)])

    def key(event: object) -> str:
        return repr(event)

    for cut in ([1], sizes):
        session = busy(version)
        pieces, error = feed(session, stream, cut)
        assert error == ""
        assert sorted(flat(pieces), key=key) == sorted(flat(whole), key=key)
        order = [one for one in flat(pieces) if isinstance(one, tuple)]
        assert order == [one for one in flat(whole) if isinstance(one, tuple)]
        assert session.in_flight == 0
    assert len(flat(whole)) == 12 + 3 + 1


@BOTH
@relaxed
@given(stream=st.binary(max_size=200), sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_any_bytes_give_events_or_a_remote_error(version: Version, stream: bytes, sizes: list[int]) -> None:
    for session in (busy(version), ClientSession(Settings(client_id="a", version=version))):
        if session.state is State.DOWN:
            session.connect(0)
        feed(session, stream, sizes)
        session.to_send(0)
        session.on_deadline(1)
        session.lost(1)


@BOTH
@relaxed
@given(data=st.data())
def test_a_damaged_stream_loses_no_token_and_gives_none_twice(version: Version, data: st.DataObject) -> None:
    stream = bytearray(a_day_of_packets(version))
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    session = busy(version)
    events, _ = feed(session, bytes(stream), [data.draw(st.integers(1, 50))])
    tokens = [token for event in events if isinstance(event, Acknowledged) for token in event.tokens]
    tokens += [event.token for event in events if isinstance(event, Rejected)]
    assert len(tokens) == len(set(map(repr, tokens)))
    assert len(tokens) + session.in_flight == 12


def test_the_inbound_buffer_is_bounded_by_our_maximum_packet_size() -> None:
    script = Script(maximum_packet_size=1000)
    script.connect()
    assert script.session.receive(b"\x30\xe5\x07" + b"\0" * 500, 0) == []
    script = Script(Version.V311, maximum_packet_size=1000)
    script.connect()
    with pytest.raises(
        RemoteProtocolError, match="found 1001 bytes, expected at most our Maximum Packet Size 1000"
    ):
        script.session.receive(b"\x30\xe6\x07", 0)


@BOTH
def test_our_own_limit_holds_where_the_server_announces_none(version: Version) -> None:
    script = Script(version, outgoing_packet_size_max=100)
    script.connect()
    assert script.publish("large", payload=b"x" * 100)
    assert script.publish("good")
    (refused,) = script.session.on_deadline(0)
    assert isinstance(refused, TooLarge)
    assert (refused.token, refused.limit_bytes) == ("large", 100)
    assert len(script.out()) == 1
