"""Control packets to bytes and back, both versions: vectors, any packet, any bytes, tshark.

Vectors that name a figure or a table are those of MQTT Version 5.0, OASIS Standard, 07 March 2019, or of MQTT
Version 3.1.1, OASIS Standard, 29 October 2014. Others are ours: the clause beside them is the rule they obey
or break.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.uplink.mqtt.wire import topics
from gateway.uplink.mqtt.wire.decode import decode
from gateway.uplink.mqtt.wire.encode import encode
from gateway.uplink.mqtt.wire.fields import Reader, varint
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
from gateway.uplink.mqtt.wire.properties import (
    NONE,
    TABLE,
    Carrier,
    Properties,
    decode_block,
    publish_properties,
)
from gateway.uplink.mqtt.wire.properties import encode as encode_properties
from gateway.uplink.mqtt.wire.reasons import ReasonCode, describe
from gateway.uplink.mqtt.wire.terms import VARINT_MAX, PacketType, Version
from tests.uplink.mqtt.wire.dissect import dissect, fields

relaxed = settings(deadline=None)  # others run on the same machine
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TOPIC = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0+#"), min_size=1, max_size=12)
FILTER = st.sampled_from(["a", "a/b", "+", "#", "a/+/b", "/", "a/#", "$share/g/a/+", "$SYS/#"])
IDS = st.integers(1, 65_535)
BYTES = st.binary(max_size=40)


def u(bits: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << bits) - 1)


def properties_of(carrier: Carrier) -> st.SearchStrategy[Properties]:
    """Any properties this carrier may have, values from the table's ranges."""
    by_name: dict[str, st.SearchStrategy[object]] = {}
    for row in TABLE.values():
        if carrier not in row.carriers or row.name == "topic_alias":
            continue
        kind = row.type.name
        value: st.SearchStrategy[object]
        if row.name == "response_topic":
            value = TOPIC
        elif kind == "TEXT":
            value = TEXT
        elif kind == "BINARY":
            value = BYTES
        elif kind == "PAIR":
            by_name[row.name] = st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple)
            continue
        else:
            high = {"BYTE": 255, "TWO_BYTES": 65_535, "FOUR_BYTES": 0xFFFFFFFF, "VARINT": VARINT_MAX}[kind]
            value = st.integers(row.low, row.high if row.high is not None else high)
        if row.name == "subscription_identifiers":
            many = 3 if carrier in row.repeats else 1
            by_name[row.name] = st.lists(value, max_size=many).map(tuple)
        else:
            by_name[row.name] = st.none() | value
    return st.fixed_dictionaries({}, optional=by_name).map(lambda chosen: Properties(**chosen))


@st.composite
def packets(draw: st.DrawFn, version: Version) -> Packet:  # noqa: C901  # one case for each packet type
    v5 = version is Version.V5

    def props(carrier: Carrier) -> Properties:
        return draw(properties_of(carrier)) if v5 else NONE

    def reason() -> int:
        return draw(st.sampled_from(list(ReasonCode))) if v5 else 0

    kind = draw(
        st.sampled_from(list(PacketType) if v5 else [p for p in PacketType if p is not PacketType.AUTH])
    )
    match kind:
        case PacketType.CONNECT:
            will = None
            if draw(st.booleans()):
                will = Will(
                    topic=draw(TOPIC),
                    payload=draw(BYTES),
                    qos=draw(st.integers(0, 2)),
                    retain=draw(st.booleans()),
                    properties=props(Carrier.WILL),
                )
            username = draw(st.none() | TEXT)
            password = draw(st.none() | BYTES) if v5 or username is not None else None
            return Connect(
                client_id=draw(TEXT),
                version=version,
                clean_start=draw(st.booleans()),
                keep_alive=draw(u(16)),
                username=username,
                password=password,
                will=will,
                properties=props(Carrier.CONNECT),
            )
        case PacketType.CONNACK:
            return Connack(
                session_present=draw(st.booleans()), reason=reason(), properties=props(Carrier.CONNACK)
            )
        case PacketType.PUBLISH:
            qos = draw(st.integers(0, 2))
            return Publish(
                topic=draw(TOPIC),
                payload=draw(BYTES),
                qos=qos,
                retain=draw(st.booleans()),
                dup=draw(st.booleans()) if qos else False,
                packet_id=draw(IDS) if qos else 0,
                properties=props(Carrier.PUBLISH),
            )
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            return Acknowledgement(
                type=kind, packet_id=draw(IDS), reason=reason(), properties=props(Carrier(kind))
            )
        case PacketType.SUBSCRIBE:
            options = st.builds(
                Subscription,
                filter=st.just("a/+/b") | FILTER.filter(lambda f: not topics.is_shared(f)),
                qos=st.integers(0, 2),
                no_local=st.booleans(),
                retain_as_published=st.booleans(),
                retain_handling=st.sampled_from(RetainHandling),
            )
            plain = st.builds(Subscription, filter=FILTER, qos=st.integers(0, 2))
            many = draw(st.lists(options | plain if v5 else plain, min_size=1, max_size=4))
            return Subscribe(
                packet_id=draw(IDS), subscriptions=tuple(many), properties=props(Carrier.SUBSCRIBE)
            )
        case PacketType.UNSUBSCRIBE:
            filters = tuple(draw(st.lists(FILTER, min_size=1, max_size=4)))
            return Unsubscribe(packet_id=draw(IDS), filters=filters, properties=props(Carrier.UNSUBSCRIBE))
        case PacketType.SUBACK:
            reasons = tuple(draw(st.lists(u(8), max_size=4)))
            return Suback(packet_id=draw(IDS), reasons=reasons, properties=props(Carrier.SUBACK))
        case PacketType.UNSUBACK:
            reasons = tuple(draw(st.lists(u(8), max_size=4))) if v5 else ()
            return Unsuback(packet_id=draw(IDS), reasons=reasons, properties=props(Carrier.UNSUBACK))
        case PacketType.PINGREQ:
            return Pingreq()
        case PacketType.PINGRESP:
            return Pingresp()
        case PacketType.DISCONNECT:
            return Disconnect(reason=reason(), properties=props(Carrier.DISCONNECT))
        case PacketType.AUTH:
            return Auth(reason=reason(), properties=props(Carrier.AUTH))


def split(encoded: bytes) -> tuple[int, bytes]:
    """First byte and what follows the Remaining Length, which must be right."""
    reader = Reader(encoded, where="test")
    first, length = reader.uint(1, "first"), reader.varint("length")
    assert length == reader.remaining()
    return first, reader.rest()


@pytest.mark.parametrize("version", Version)
@relaxed
@given(data=st.data())
def test_what_is_encoded_is_decoded(version: Version, data: st.DataObject) -> None:
    packet = data.draw(packets(version))
    first, body = split(encode(packet, version))
    assert decode(first, body, version) == packet


@pytest.mark.parametrize("version", Version)
@relaxed
@given(first=u(8), body=st.binary(max_size=80))
def test_any_bytes_give_a_packet_or_a_remote_error(version: Version, first: int, body: bytes) -> None:
    try:
        packet = decode(first, body, version)
    except RemoteProtocolError:
        return
    if not isinstance(packet, Connect):
        first, body = split(encode(packet, version))
        assert decode(first, body, version) == packet


@pytest.mark.parametrize("version", Version)
@relaxed
@given(data=st.data())
def test_a_damaged_packet_gives_a_packet_or_a_remote_error(version: Version, data: st.DataObject) -> None:
    first, body = split(encode(data.draw(packets(version)), version))
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        if damaged:
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(u(8))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        decode(first, bytes(damaged[:cut]), version)
    except RemoteProtocolError as error:
        message = str(error)
    else:
        return
    assert "found" in message
    assert "expected" in message


# MQTT 5.0 §1.5.5, table 1-1: the first and last value of each size.
@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (127, "7f"),
        (128, "80 01"),
        (16_383, "ff 7f"),
        (16_384, "80 80 01"),
        (2_097_151, "ff ff 7f"),
        (2_097_152, "80 80 80 01"),
        (268_435_455, "ff ff ff 7f"),
    ],
)
def test_variable_byte_integers_of_table_1_1(value: int, encoded: str) -> None:
    assert varint(value) == bytes.fromhex(encoded)
    assert Reader(bytes.fromhex(encoded), where="test").varint("value") == value


def test_a_variable_byte_integer_has_four_bytes_at_most() -> None:
    with pytest.raises(RemoteProtocolError, match="fifth byte"):
        Reader(bytes.fromhex("ff ff ff ff 01"), where="test").varint("value")
    for value in (-1, VARINT_MAX + 1):
        with pytest.raises(LocalProtocolError, match="268435455"):
            varint(value)


def test_strings_carry_any_unicode_but_null() -> None:
    """MQTT 5.0 §1.5.4, figure 1-2: "A" and U+2A6D4 as 00 05 41 F0 AA 9B 94."""
    reader = Reader(bytes.fromhex("00 05 41 f0 aa 9b 94"), where="test")
    assert reader.text("string") == "A\U0002a6d4"
    for bad in ("00 03 ed a0 80", "00 01 00", "00 02 c3 28", "00 05 41"):
        with pytest.raises(RemoteProtocolError):
            Reader(bytes.fromhex(bad), where="test").text("string")


def test_connect_of_the_3_1_1_standard() -> None:
    """MQTT 3.1.1 §3.1.2.11, figure 3.6: user name, password, will QoS 1, clean session, keep alive 10.

    That is the variable header; the payload is ours, in the order of §3.1.3.
    """
    head = bytes.fromhex("00 04 4d 51 54 54 04 ce 00 0a")
    payload = bytes.fromhex("0001 63 0001 77 0001 70 0001 75 0001 78")
    packet = Connect(
        client_id="c",
        version=Version.V311,
        clean_start=True,
        keep_alive=10,
        username="u",
        password=b"x",
        will=Will(topic="w", payload=b"p", qos=1),
    )
    assert encode(packet, Version.V311) == bytes((0x10, len(head + payload))) + head + payload
    assert decode(0x10, head + payload, Version.V311) == packet


def test_subscribe_of_the_3_1_1_standard() -> None:
    """MQTT 3.1.1 figures 3.20, 3.21 and 3.23: identifier 10, a/b with QoS 1, c/d with QoS 2."""
    body = bytes.fromhex("000a 0003 61 2f 62 01 0003 63 2f 64 02")
    packet = Subscribe(
        packet_id=10, subscriptions=(Subscription(filter="a/b", qos=1), Subscription(filter="c/d", qos=2))
    )
    assert encode(packet, Version.V311) == b"\x82\x0e" + body
    assert decode(0x82, body, Version.V311) == packet


def test_an_acknowledgement_of_success_is_four_bytes_and_may_be_longer() -> None:
    """MQTT 5.0 §3.4.2.1 and §3.4.2.2.1: reason and properties may be left out."""
    packet = Acknowledgement(type=PacketType.PUBACK, packet_id=0x1234)
    assert encode(packet, Version.V5) == bytes.fromhex("40 02 12 34")
    for body in ("1234", "1234 00", "1234 00 00"):
        assert decode(0x40, bytes.fromhex(body), Version.V5) == packet
    with pytest.raises(RemoteProtocolError, match="1 bytes more"):
        decode(0x40, bytes.fromhex("1234 00"), Version.V311)


@pytest.mark.parametrize(
    ("first", "body", "version", "what"),
    [
        (0x00, "", Version.V5, "2.1.2"),
        (0x41, "0001", Version.V5, "2.1.3"),
        (0x60, "0001", Version.V5, "2.1.3"),
        (0xF0, "", Version.V311, "AUTH"),
        (0x36, "0001 61 0001 00", Version.V5, "3.3.1.2"),
        (0x38, "0001 61 00", Version.V5, "3.3.1.1"),
        (0x30, "0000 00", Version.V5, "4.7.3"),
        (0x30, "0000", Version.V311, "4.7.3"),
        (0x30, "0003 61 2f 23", Version.V311, "4.7.1"),
        (0x30, "0001 61 03 23 0000", Version.V5, "topic_alias"),
        (0x30, "0001 61 02 0b 00", Version.V5, "subscription_identifiers"),
        (0x30, "0001 61 04 01 00 01 00", Version.V5, "twice"),
        (0x30, "0001 61 02 01 02", Version.V5, "payload_format_indicator"),
        (0x30, "0001 61 02 7f 00", Version.V5, "0x7f"),
        (0x30, "0001 61 03 12 0000", Version.V5, "assigned_client_identifier"),
        (0x30, "0001 61 04 08 0001 23", Version.V5, "3.3.2.3.5"),
        (0x32, "0001 61 0000", Version.V311, "2.2.1"),
        (0x20, "02 00 00", Version.V5, "3.2.2.1"),
        (0x20, "00 00 02 24 02", Version.V5, "maximum_qos"),
        (0x20, "00 00 03 21 0000", Version.V5, "receive_maximum"),
        (0xD0, "00", Version.V5, "bytes more"),
        (0x82, "0001 00 0001 61 03", Version.V5, "3.8.3.1"),
        (0x82, "0001 00", Version.V5, "3.8.3"),
        (0xA2, "0001 00", Version.V5, "3.10.3"),
        (0x10, "0004 4d515454 04 40 0000 0000", Version.V311, "3.1.2.3"),
        (0x10, "0004 4d515454 06 02 0000 0000", Version.V5, "3.1.2.2"),
    ],
)
def test_what_the_standard_forbids_is_named(first: int, body: str, version: Version, what: str) -> None:
    with pytest.raises(RemoteProtocolError, match=what):
        decode(first, bytes.fromhex(body), version)


@pytest.mark.parametrize(
    ("packet", "version", "what"),
    [
        (Publish(topic="a/#", payload=b""), Version.V5, "wildcard"),
        (Publish(topic="", payload=b""), Version.V311, "empty"),
        (Publish(topic="a\0", payload=b""), Version.V5, "U\\+0000"),
        (Publish(topic="a", payload=b"", qos=3), Version.V5, "QoS 3"),
        (Publish(topic="a", payload=b"", dup=True), Version.V5, "DUP"),
        (Publish(topic="a", payload=b"", qos=1), Version.V5, "packet identifier"),
        (Publish(topic="x" * 65_536, payload=b""), Version.V5, "65536"),
        (
            Publish(topic="a", payload=b"", properties=Properties(content_type="t")),
            Version.V311,
            "properties",
        ),
        (Publish(topic="a", payload=b"", properties=Properties(maximum_qos=1)), Version.V5, "maximum_qos"),
        (Publish(topic="a", payload=b"", properties=Properties(topic_alias=0)), Version.V5, "at least 1"),
        (Publish(topic="a", payload=b"", properties=Properties(content_type="\ud800")), Version.V5, "UTF-8"),
        (
            Connect(client_id="a", version=Version.V311, clean_start=True, keep_alive=0, password=b""),
            Version.V311,
            "3.1.2.9",
        ),
        (
            Connect(client_id="a", version=Version.V5, clean_start=True, keep_alive=70_000),
            Version.V5,
            "65535",
        ),
        (Subscribe(packet_id=1, subscriptions=()), Version.V5, "3.8.3"),
        (
            Subscribe(packet_id=1, subscriptions=(Subscription(filter="$share/a/b", no_local=True),)),
            Version.V5,
            "No Local",
        ),
        (
            Subscribe(packet_id=1, subscriptions=(Subscription(filter="a", no_local=True),)),
            Version.V311,
            "5.0",
        ),
        (Subscribe(packet_id=1, subscriptions=(Subscription(filter="a#"),)), Version.V5, "4.7.1.2"),
        (
            Subscribe(
                packet_id=1,
                subscriptions=(Subscription(filter="a"),),
                properties=Properties(subscription_identifiers=(1, 2)),
            ),
            Version.V5,
            "expected one",
        ),
        (Unsubscribe(packet_id=1, filters=()), Version.V5, "3.10.3"),
        (Unsubscribe(packet_id=1, filters=("$share//a",)), Version.V5, "4.8.2"),
        (Unsuback(packet_id=1, reasons=(0,)), Version.V311, "3.11.3"),
        (Acknowledgement(type=PacketType.PUBACK, packet_id=1, reason=0x87), Version.V311, "3.1.1"),
        (Disconnect(reason=4), Version.V311, "3.1.1"),
        (Auth(), Version.V311, "3.15"),
    ],
)
def test_what_must_not_be_sent_is_refused(packet: Packet, version: Version, what: str) -> None:
    with pytest.raises(LocalProtocolError, match=what):
        encode(packet, version)


@pytest.mark.parametrize(
    ("topic_filter", "is_good"),
    [
        # Examples of MQTT 5.0 §4.7.1.2 and §4.7.1.3, then §4.8.2
        ("#", True),
        ("sport/tennis/#", True),
        ("sport/tennis#", False),
        ("sport/tennis/#/ranking", False),
        ("+", True),
        ("+/tennis/#", True),
        ("sport+", False),
        ("sport/+/player1", True),
        ("$share/consumer1/sport/tennis/+", True),
        ("$share/c", False),
        ("$share/a+/x", False),
        ("$share//x", False),
        ("$share/a/", False),
        ("", False),
        ("/", True),
        ("a\0", False),
    ],
)
def test_topic_filters(topic_filter: str, *, is_good: bool) -> None:
    assert (topics.filter_fault(topic_filter) == "") is is_good


def test_publish_properties_are_what_the_server_reads() -> None:
    block = publish_properties(
        payload_is_utf8=True,
        message_expiry_s=60,
        content_type="application/json",
        response_topic="r",
        correlation_data=b"\x01",
        user_properties=[("a", "b"), ("a", "b")],
    )
    assert decode_block(block, Carrier.PUBLISH) == Properties(
        payload_format_indicator=1,
        message_expiry_interval=60,
        content_type="application/json",
        response_topic="r",
        correlation_data=b"\x01",
        user_properties=(("a", "b"), ("a", "b")),
    )
    assert publish_properties() == b""
    assert encode_properties(NONE, Carrier.PUBLISH) == b""


def test_reasons_are_described() -> None:
    assert describe(0x87) == "not authorized (0x87)"
    assert describe(0x7E) == "reason code not in the standard (0x7e)"


@pytest.mark.interop
def test_wireshark_reads_what_we_send_in_5_0(tmp_path: Path) -> None:
    stream = b"".join(
        encode(packet, Version.V5)
        for packet in (
            Connect(
                client_id="gw-1",
                version=Version.V5,
                clean_start=False,
                keep_alive=30,
                username="u",
                password=b"pw",
                will=Will(
                    topic="gw/status",
                    payload=b"gone",
                    qos=1,
                    retain=True,
                    properties=Properties(will_delay_interval=7),
                ),
                properties=Properties(
                    session_expiry_interval=3600,
                    receive_maximum=20,
                    maximum_packet_size=100_000,
                    topic_alias_maximum=5,
                ),
            ),
            Publish(
                topic="a/b",
                payload=b"{}",
                qos=1,
                packet_id=7,
                properties=Properties(
                    topic_alias=3, content_type="application/json", user_properties=(("k", "v"),)
                ),
            ),
            Subscribe(
                packet_id=9,
                subscriptions=(
                    Subscription(
                        filter="$share/g/cmd/+",
                        qos=1,
                        retain_as_published=True,
                        retain_handling=RetainHandling.DO_NOT_SEND,
                    ),
                ),
                properties=Properties(subscription_identifiers=(300,)),
            ),
            Unsubscribe(packet_id=10, filters=("x/#",)),
            Acknowledgement(type=PacketType.PUBACK, packet_id=11, reason=ReasonCode.NOT_AUTHORIZED),
            Acknowledgement(type=PacketType.PUBREL, packet_id=12),
            Pingreq(),
            Disconnect(reason=ReasonCode.DISCONNECT_WITH_WILL_MESSAGE),
        )
    )
    seen = [fields(packet) for packet in dissect(stream, tmp_path)]
    assert [packet["mqtt.msgtype"] for packet in seen] == ["1", "3", "8", "10", "4", "6", "12", "14"]
    connect, publish, subscribe, unsubscribe, puback, pubrel, _, disconnect = seen
    assert connect["mqtt.clientid"] == "gw-1"
    assert connect["mqtt.ver"] == "5"
    assert connect["mqtt.kalive"] == "30"
    assert connect["mqtt.willtopic"] == "gw/status"
    assert connect["mqtt.conflag.qos"] == "1"
    assert connect["mqtt.conflag.retain"] == "1"
    assert connect["mqtt.conflag.cleansess"] == "0"
    assert sorted(connect["mqtt.prop_number"]) == sorted(["3600", "20", "100000", "5", "7"])
    assert publish["mqtt.topic"] == "a/b"
    assert publish["mqtt.msgid"] == "7"
    assert publish["mqtt.property.topic_alias"] == "3"
    assert bytes.fromhex(publish["mqtt.msg"].replace(":", "")) == b"{}"
    assert subscribe["mqtt.topic"] == "$share/g/cmd/+"
    assert subscribe["mqtt.subscription_options_retain"] == "2"
    assert subscribe["mqtt.prop_number"] == "300"
    assert unsubscribe["mqtt.topic"] == "x/#"
    assert puback["mqtt.puback.reason_code"] == "135"
    assert pubrel["mqtt.msgid"] == "12"
    assert disconnect["mqtt.disconnect.reason_code"] == "4"


@pytest.mark.interop
def test_wireshark_reads_what_we_send_in_3_1_1(tmp_path: Path) -> None:
    stream = b"".join(
        encode(packet, Version.V311)
        for packet in (
            Connect(client_id="gw-1", version=Version.V311, clean_start=True, keep_alive=30),
            Publish(topic="a/b", payload=b"x" * 300, qos=2, packet_id=7, dup=True, retain=True),
            Subscribe(packet_id=9, subscriptions=(Subscription(filter="cmd/+", qos=1),)),
            Disconnect(),
        )
    )
    seen = [fields(packet) for packet in dissect(stream, tmp_path)]
    assert [packet["mqtt.msgtype"] for packet in seen] == ["1", "3", "8", "14"]
    assert seen[0]["mqtt.ver"] == "4"
    assert seen[1]["mqtt.qos"] == "2"
    assert seen[1]["mqtt.dupflag"] == "1"
    assert seen[1]["mqtt.retain"] == "1"
    assert seen[1]["mqtt.len"] == str(2 + 3 + 2 + 300)
    assert seen[2]["mqtt.sub.qos"] == "1"
