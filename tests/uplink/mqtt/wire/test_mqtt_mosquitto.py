"""`ClientSession` against a real mosquitto, with paho as the other party."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.enums import MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties as PahoProperties

from gateway.uplink.mqtt.wire.events import (
    Disconnected,
    NoResponse,
    Refused,
    Subscribed,
    TooLarge,
    Unsubscribed,
)
from gateway.uplink.mqtt.wire.packets import RetainHandling, Subscription, Will
from gateway.uplink.mqtt.wire.properties import publish_properties
from gateway.uplink.mqtt.wire.reasons import ReasonCode
from gateway.uplink.mqtt.wire.session import State
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import Version
from tests.peers import Broker, mosquitto, require
from tests.uplink.mqtt.wire.pump import Paho, Pump

pytestmark = pytest.mark.interop
BOTH = pytest.mark.parametrize("version", Version)
S = 1_000_000_000


class Bench:
    """One broker and whoever talks to it; all closed at the end."""

    def __init__(self, broker: Broker, stack: ExitStack) -> None:
        self.broker = broker
        self._stack = stack

    def pump(self, version: Version, **settings: Any) -> Pump:
        given: dict[str, Any] = {"client_id": "gw", "version": version}
        if version is Version.V5:
            given["session_expiry_s"] = 300
        pump = Pump(self.broker.port, Settings(**(given | settings)))
        self._stack.callback(pump.close)
        return pump

    def paho(self, client_id: str = "other", version: Version = Version.V5, **options: Any) -> Paho:
        protocol = MQTTProtocolVersion.MQTTv5 if version is Version.V5 else MQTTProtocolVersion.MQTTv311
        peer = Paho(self.broker.port, client_id, protocol=protocol, **options)
        self._stack.callback(peer.close)
        return peer


Start = Callable[[str], Bench]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    require("paho")
    with ExitStack() as stack:
        yield lambda config: Bench(stack.enter_context(mosquitto(tmp_path, config)), stack)


@BOTH
def test_publishes_of_every_qos_arrive_once_and_in_order(start: Start, version: Version) -> None:
    bench = start("")
    reader = bench.paho(version=version)
    reader.subscribe("plant/#", 2)
    pump = bench.pump(version)
    assert pump.open().session_present is False
    for number in range(90):
        payload = b"%d" % number + b"x" * (number * 30)
        while not pump.session.publish(
            b"plant/q%d" % (number % 3), payload, qos=number % 3, retain=False, token=number
        ):
            pump.turn()
    pump.until(lambda: len(pump.done()) == 90)
    reader.until(lambda: len(reader.messages) == 90)
    assert sorted(map(str, pump.done())) == sorted(map(str, range(90)))
    for qos in range(3):
        got = [m.payload for m in reader.messages if m.topic == f"plant/q{qos}"]
        assert got == [b"%d" % n + b"x" * (n * 30) for n in range(90) if n % 3 == qos]
        assert {m.qos for m in reader.messages if m.topic == f"plant/q{qos}"} == {qos}
    assert pump.session.strays == 0


@BOTH
def test_messages_of_every_qos_are_received_and_acknowledged(start: Start, version: Version) -> None:
    bench = start("")
    pump = bench.pump(version)
    pump.open()
    pump.session.subscribe([Subscription(filter="cmd/+", qos=2)], pump.now_ns())
    assert pump.until_event(Subscribed).results == (2,)
    writer = bench.paho(version=version)
    for number in range(30):
        writer.client.publish(f"cmd/{number % 3}", b"%d" % number, qos=number % 3)
        writer.client.loop(0.01)
        pump.turn(0.01)
    acknowledged = 0

    def all_there() -> bool:
        nonlocal acknowledged
        for message in pump.messages()[acknowledged:]:
            assert pump.session.acknowledge(message)
            acknowledged += 1
        writer.client.loop(0.01)
        return len(pump.messages()) == 30

    pump.until(all_there)
    assert sorted(int(m.payload) for m in pump.messages()) == list(range(30))
    assert all(m.qos == int(m.payload) % 3 for m in pump.messages())
    request = pump.session.unsubscribe(["cmd/+"], pump.now_ns())
    assert pump.until_event(Unsubscribed).request == request


@BOTH
def test_credentials(start: Start, version: Version, tmp_path: Path) -> None:
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.fail("mosquitto_passwd is part of the Debian package mosquitto and is missing")
    passwords = tmp_path / "passwords"
    subprocess.run([program, "-b", "-c", str(passwords), "gw", "secret"], check=True, capture_output=True)
    bench = start(f"allow_anonymous false\npassword_file {passwords}")
    for username, password, reason in ((None, None, 0x87), ("gw", b"wrong", 0x87), ("gw", b"secret", None)):
        pump = bench.pump(version, username=username, password=password)
        if reason is None:
            pump.open()
            continue
        pump.link()
        assert pump.until_event(Refused).reason == reason
        assert pump.session.state is State.OVER


@BOTH
def test_the_will_is_published_when_the_link_is_cut_and_not_after_disconnect(
    start: Start, version: Version
) -> None:
    bench = start("")
    reader = bench.paho(version=version)
    reader.subscribe("gw/status", 1)
    will = Will(topic="gw/status", payload=b"gone", qos=1, retain=True)
    pump = bench.pump(version, will=will)
    pump.open()
    pump.session.disconnect()
    pump.turn()
    pump.close()
    pump.open()
    assert reader.messages == []
    pump.cut()
    reader.until(lambda: reader.payloads() == [b"gone"])


@BOTH
def test_retained_messages(start: Start, version: Version) -> None:
    bench = start("")
    pump = bench.pump(version)
    pump.open()
    assert pump.session.publish(b"gw/birth", b"alive", qos=1, retain=True, token="birth")
    pump.until(lambda: pump.done() == ["birth"])
    pump.session.subscribe([Subscription(filter="gw/birth", qos=1)], pump.now_ns())
    pump.until(lambda: len(pump.messages()) == 1)
    assert pump.messages()[0].retain is True
    late = bench.paho(version=version)
    late.subscribe("gw/birth", 0)
    late.until(lambda: late.payloads() == [b"alive"])
    assert late.messages[0].retain is True


def test_retain_handling_keeps_retained_messages_away(start: Start) -> None:
    bench = start("")
    writer = bench.paho()
    writer.publish("cmd/a", b"old", qos=1, retain=True)
    pump = bench.pump(Version.V5)
    pump.open()
    never = RetainHandling.DO_NOT_SEND
    pump.session.subscribe([Subscription(filter="cmd/#", qos=1, retain_handling=never)], pump.now_ns())
    pump.until_event(Subscribed)
    writer.publish("cmd/a", b"new", qos=1)
    pump.until(lambda: bool(pump.messages()))
    assert [message.payload for message in pump.messages()] == [b"new"]


def test_the_receive_maximum_of_the_broker_is_honoured(start: Start) -> None:
    bench = start("max_inflight_messages 5")
    reader = bench.paho()
    reader.subscribe("t", 1)
    pump = bench.pump(Version.V5)
    assert pump.open().server.receive_maximum == 5
    sent = 0

    def feed() -> bool:
        nonlocal sent
        while sent < 500 and pump.session.publish(
            b"t", b"%d" % sent, qos=1 + sent % 2, retain=False, token=sent
        ):
            sent += 1
        assert pump.session.in_flight <= 5
        reader.client.loop(0.0001)
        return len(pump.done()) == 500

    pump.until(feed)
    reader.until(lambda: len(reader.messages) == 500)
    for qos in (1, 2):
        got = [m.payload for m in reader.messages if int(m.payload) % 2 == qos - 1]
        assert got == [b"%d" % n for n in range(qos - 1, 500, 2)]


def test_our_receive_maximum_holds_the_broker_back(start: Start) -> None:
    bench = start("")
    pump = bench.pump(Version.V5, receive_maximum=3)
    pump.open()
    pump.session.subscribe([Subscription(filter="cmd", qos=1)], pump.now_ns())
    pump.until_event(Subscribed)
    writer = bench.paho()
    for number in range(10):
        writer.publish("cmd", b"%d" % number, qos=1)
    pump.until(lambda: len(pump.messages()) == 3)
    pump.session.publish(b"else", b"", qos=1, retain=False, token="round trip")
    pump.until(lambda: pump.done() == ["round trip"])
    assert len(pump.messages()) == 3
    for turn in range(
        10
    ):  # mosquitto 2.0.11 sends several for each PUBACK: more than 3 may be open from here
        pump.until(lambda turn=turn: len(pump.messages()) > turn)  # type: ignore[misc]  # bound now, not later
        pump.session.acknowledge(pump.messages()[turn])
    assert [message.payload for message in pump.messages()] == [b"%d" % n for n in range(10)]


def test_aliased_topics_arrive_under_their_names(start: Start) -> None:
    bench = start("")
    reader = bench.paho()
    reader.subscribe("site/#", 1)
    pump = bench.pump(Version.V5)
    assert pump.open().server.topic_alias_maximum == 10
    want = [(f"site/device-{n % 15}/data", b"%d" % n) for n in range(150)]
    for topic, payload in want:
        pump.until(lambda: pump.session.quota > 0)
        assert pump.session.publish(topic.encode(), payload, qos=1, retain=False, token=payload)
    pump.until(lambda: len(pump.done()) == 150)
    reader.until(lambda: len(reader.messages) == 150)
    assert [(message.topic, message.payload) for message in reader.messages] == want


def test_properties_arrive(start: Start) -> None:
    bench = start("")
    reader = bench.paho()
    reader.subscribe("p", 1)
    pump = bench.pump(Version.V5)
    pump.open()
    block = publish_properties(
        payload_is_utf8=True,
        message_expiry_s=100,
        content_type="application/json",
        response_topic="answers",
        correlation_data=b"\x00\x01",
        user_properties=[("k", "v"), ("k", "w")],
    )
    for token in (1, 2, 3):
        assert pump.session.publish(b"p", b"{}", qos=1, retain=False, token=token, properties=block)
    pump.until(lambda: len(pump.done()) == 3)
    reader.until(lambda: len(reader.messages) == 3)
    for message in reader.messages:
        seen = message.properties
        assert seen is not None
        assert seen.PayloadFormatIndicator == 1
        assert 98 <= seen.MessageExpiryInterval <= 100
        assert seen.ContentType == "application/json"
        assert seen.ResponseTopic == "answers"
        assert seen.CorrelationData == b"\x00\x01"
        assert seen.UserProperty == [("k", "v"), ("k", "w")]


def test_shared_subscriptions_identifiers_and_properties_inbound(start: Start) -> None:
    bench = start("")
    pump = bench.pump(Version.V5)
    pump.open()
    pump.session.subscribe(
        [Subscription(filter="$share/gateways/cmd/#", qos=1)], pump.now_ns(), subscription_identifier=77
    )
    pump.until_event(Subscribed)
    writer = bench.paho()
    properties = PahoProperties(PacketTypes.PUBLISH)
    properties.ResponseTopic = "answers"
    properties.CorrelationData = b"42"
    properties.UserProperty = [("a", "b")]
    writer.publish("cmd/x", b"go", qos=1, properties=properties)
    pump.until(lambda: bool(pump.messages()))
    seen = pump.messages()[0].properties
    assert seen.subscription_identifiers == (77,)
    assert (seen.response_topic, seen.correlation_data) == ("answers", b"42")
    assert seen.user_properties == (("a", "b"),)


def test_a_publish_above_the_brokers_maximum_packet_size_holds_up_nothing(start: Start) -> None:
    bench = start("max_packet_size 2000")
    reader = bench.paho()
    reader.subscribe("t", 1)
    pump = bench.pump(Version.V5)
    assert pump.open().server.maximum_packet_size == 2000
    for token, size in (("a", 10), ("large", 2000), ("b", 10)):
        assert pump.session.publish(b"t", token.encode() * size, qos=1, retain=False, token=token)
    refused = pump.until_event(TooLarge)
    assert (refused.token, refused.limit_bytes) == ("large", 2000)
    pump.until(lambda: pump.done() == ["a", "b"])
    exact = 2000 - 3 - 3 - 2 - 1
    assert pump.session.publish(b"t", b"e" * exact, qos=1, retain=False, token="exact")
    pump.until(lambda: "exact" in pump.done())
    reader.until(lambda: reader.payloads() == [b"a" * 10, b"b" * 10, b"e" * exact])


@BOTH
def test_publishes_survive_links_that_are_cut_in_mid_flight(start: Start, version: Version) -> None:
    """QoS 1 at least once, QoS 2 exactly once wherever the broker kept the session."""
    bench = start("max_queued_messages 0")
    reader = bench.paho(version=version)
    reader.subscribe("t/#", 2)
    pump = bench.pump(version)
    present = [pump.open().session_present]
    sent = 0
    for turn in range(40):
        for _ in range(20):
            qos = 2 if present[-1] and sent % 2 else 1
            if pump.session.publish(b"t/%d" % qos, b"%d" % sent, qos=qos, retain=False, token=sent):
                sent += 1
        for _ in range(turn * 7 % 13):
            pump.turn(0.002)
        pump.cut()
        present.append(pump.open().session_present)
    pump.until(lambda: pump.session.in_flight == 0)
    assert present[:2] == [False, version is Version.V5]
    assert all(present[2:])
    assert sorted(map(str, pump.done())) == sorted(map(str, range(sent)))
    reader.until(lambda: {int(p) for p in reader.payloads()} == set(range(sent)))
    exactly_once = [m.payload for m in reader.messages if m.topic == "t/2"]
    assert len(exactly_once) == len(set(exactly_once)) > 20


def test_messages_that_came_while_the_link_was_down_are_delivered(start: Start) -> None:
    bench = start("")
    pump = bench.pump(Version.V5)
    pump.open()
    pump.session.subscribe([Subscription(filter="cmd", qos=2)], pump.now_ns())
    pump.until_event(Subscribed)
    writer = bench.paho()
    writer.publish("cmd", b"held", qos=2)
    pump.until(lambda: len(pump.messages()) == 1)
    pump.cut()
    writer.publish("cmd", b"one", qos=1)
    writer.publish("cmd", b"two", qos=2)
    held = pump.messages()[0]
    assert pump.session.acknowledge(held)
    assert pump.open().session_present is True
    pump.until(lambda: len(pump.messages()) == 3)
    assert sorted(m.payload for m in pump.messages()) == [b"held", b"one", b"two"]
    for message in pump.messages()[1:]:
        assert pump.session.acknowledge(message)
    pump.session.publish(b"x", b"", qos=1, retain=False, token="round trip")
    pump.until(lambda: pump.done() == ["round trip"])
    assert len(pump.messages()) == 3


@BOTH
def test_keep_alive_and_a_broker_that_stops_answering(start: Start, version: Version) -> None:
    bench = start("")
    pump = bench.pump(version, keep_alive_s=30, response_timeout_s=5)
    pump.open()
    for _ in range(3):
        pump.forward_ns += 31 * S
        pump.turn(1.0)
        deadline_ns = pump.session.deadline_ns()
        assert deadline_ns is not None
        assert deadline_ns > pump.now_ns() + 25 * S, "PINGRESP came"
    bench.broker.freeze()
    pump.forward_ns += 31 * S
    pump.turn(0.01)
    pump.forward_ns += 6 * S
    pump.turn(0.01)
    assert pump.until_event(NoResponse).expected == "PINGRESP"
    bench.broker.thaw()


def test_the_broker_says_why_it_disconnects(start: Start) -> None:
    bench = start("")
    pump = bench.pump(Version.V5)
    pump.open()
    assert pump.session.publish(b"a", b"", qos=0, retain=False, token=1)
    pump.forge(bytes.fromhex("30 06 0000 03 23 0063"))  # alias 99, never introduced and above its maximum
    assert pump.until_event(Disconnected).reason == ReasonCode.TOPIC_ALIAS_INVALID


def test_an_assigned_client_identifier_is_kept(start: Start) -> None:
    bench = start("")
    pump = bench.pump(Version.V5, client_id="")
    assigned = pump.open().client_id
    assert assigned
    pump.cut()
    assert pump.open().session_present is True
    assert pump.session.client_id == assigned


def test_a_broker_that_was_killed_is_resumed_as_new(start: Start) -> None:
    bench = start("persistence false")
    pump = bench.pump(Version.V5)
    pump.open()
    for token in range(10):
        assert pump.session.publish(b"t", b"%d" % token, qos=1 + token % 2, retain=False, token=token)
    bench.broker.restart()
    pump.cut()
    reader = bench.paho()
    reader.subscribe("t", 2)
    assert pump.open().session_present is False
    pump.until(lambda: len(pump.done()) == 10)
    reader.until(lambda: len(reader.messages) == 10)
    assert sorted(reader.payloads()) == [b"%d" % n for n in range(10)]
