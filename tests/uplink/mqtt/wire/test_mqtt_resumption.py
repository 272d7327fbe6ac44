"""One `ClientSession` over several links: what was not acknowledged goes out again."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import RemoteProtocolError
from gateway.uplink.mqtt.wire.events import Acknowledged, Event, Message, Rejected, TooLarge, Unsent
from gateway.uplink.mqtt.wire.packets import Acknowledgement, Publish, Suback, Subscription
from gateway.uplink.mqtt.wire.properties import Properties
from gateway.uplink.mqtt.wire.reasons import ReasonCode
from gateway.uplink.mqtt.wire.terms import PacketType, Version
from tests.uplink.mqtt.wire.script import Script, ack, flat

relaxed = settings(deadline=None)  # others run on the same machine
BOTH = pytest.mark.parametrize("version", Version)
PUBREC, PUBREL, PUBCOMP = PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP


def sent_again(script: Script) -> list[tuple[int, bytes, bool]]:
    return [(p.packet_id, p.payload, p.dup) for p in script.out() if isinstance(p, Publish)]


@BOTH
def test_the_first_link_is_clean_and_the_next_one_resumes(version: Version) -> None:
    """MQTT 5.0 §3.2.2.1.1: without state of our own a present session must not be accepted."""
    script = Script(version)
    assert script.connect().clean_start is True
    script.lose()
    assert script.connect(session_present=True).clean_start is False
    script.lose()
    always = Script(version, clean_start=True)
    for _ in range(2):
        assert always.connect().clean_start is True
        always.lose()
    always.session.connect(0)
    with pytest.raises(RemoteProtocolError, match="Session Present"):
        always.session.receive(bytes.fromhex("20 03 01 00 00" if version is Version.V5 else "20 02 01 00"), 0)


@BOTH
def test_with_the_session_present_publishes_go_out_again_as_duplicates_in_order(version: Version) -> None:
    """MQTT 5.0 §4.4 and §4.6, 3.1.1 §4.4: original packet identifiers, original order, DUP."""
    script = Script(version)
    script.connect()
    for token in (b"a", b"b", b"c", b"d"):
        script.publish(token, payload=token, qos=2 if token == b"b" else 1)
    script.out()
    script.say(ack(1))
    assert script.lose() == []
    script.connect(session_present=True)
    assert sent_again(script) == [(2, b"b", True), (3, b"c", True), (4, b"d", True)]
    assert flat(script.say(ack(3), ack(2, PUBREC), ack(2, PUBCOMP), ack(4))) == [
        ("done", b"c"),
        ("done", b"b"),
        ("done", b"d"),
    ]


@BOTH
def test_without_the_session_they_go_out_as_new_with_their_tokens(version: Version) -> None:
    script = Script(version)
    script.connect()
    script.publish("a", payload=b"a")
    script.publish("b", payload=b"b", qos=2)
    script.out()
    script.say(ack(2, PUBREC))
    script.out()
    script.lose()
    script.connect(session_present=False)
    assert sent_again(script) == [(1, b"a", False), (2, b"b", False)]
    assert script.say(ack(1), ack(2, PUBREC), ack(2, PUBCOMP)) == [Acknowledged(["a", "b"])]


@BOTH
def test_a_qos_2_publish_goes_on_with_pubrel(version: Version) -> None:
    """MQTT 5.0 §4.3.3 and §4.4: after PUBREC the PUBLISH is never sent again; PUBRELs keep their order."""
    script = Script(version)
    script.connect()
    for token in "abc":
        script.publish(token, qos=2)
    script.out()
    script.say(ack(2, PUBREC), ack(1, PUBREC))
    script.lose()
    script.connect(session_present=True)
    packets = script.out()
    assert packets[:2] == [ack(2, PUBREL), ack(1, PUBREL)]
    assert [p.packet_id for p in packets[2:] if isinstance(p, Publish)] == [3]
    assert flat(script.say(ack(1, PUBCOMP), ack(2, PUBCOMP))) == [("done", "a"), ("done", "b")]


def test_a_lost_pubcomp_is_no_failure_while_recovering_and_one_otherwise() -> None:
    """MQTT 5.0 §3.7.2.1, Packet Identifier not found."""
    not_found = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
    script = Script()
    script.connect()
    script.publish("a", qos=2)
    script.publish("b", qos=2)
    script.out()
    script.say(ack(1, PUBREC))
    script.lose()
    script.connect(session_present=True)
    assert script.say(ack(1, PUBCOMP, not_found)) == [Acknowledged(["a"])]
    script.say(ack(2, PUBREC))
    assert script.say(ack(2, PUBCOMP, not_found)) == [Rejected(token="b", reason=not_found)]


def test_a_smaller_window_after_resumption_is_honoured_and_new_publishes_wait() -> None:
    """MQTT 5.0 §4.9: the quota of the new link; §4.6: what is older goes first."""
    script = Script()
    script.connect()
    for token in range(5):
        script.publish(token, payload=b"%d" % token)
    script.out()
    script.lose()
    script.connect(Properties(receive_maximum=2), session_present=True)
    assert sent_again(script) == [(1, b"0", True), (2, b"1", True)]
    assert script.publish("new") is False
    assert script.session.quota == 0
    assert script.say(ack(1)) == [Acknowledged([0])]
    assert sent_again(script) == [(3, b"2", True)]
    assert script.say(ack(2), ack(3)) == [Acknowledged([1, 2])]
    assert sent_again(script) == [(4, b"3", True), (5, b"4", True)]
    assert script.publish("new") is False
    script.say(ack(4))
    assert script.publish("new")
    assert sent_again(script) == [(6, b"", False)]


def test_what_the_next_server_does_not_take_comes_back_and_holds_up_nothing() -> None:
    script = Script()
    script.connect()
    script.publish("large", payload=b"x" * 100)
    script.publish("qos 2", qos=2)
    script.publish("retain", retain=True)
    script.publish("good")
    script.out()
    script.lose()
    script.connect(
        Properties(maximum_packet_size=50, maximum_qos=1, retain_available=0), session_present=False
    )
    assert sent_again(script) == [(4, b"", False)]
    assert [event for event in script.events if isinstance(event, TooLarge | Rejected)] == [
        TooLarge(token="large", size_bytes=108, limit_bytes=50),
        Rejected(token="qos 2", reason=0x9B, reason_string=_WHY),
        Rejected(token="retain", reason=0x9A, reason_string=_WHY),
    ]
    assert script.say(ack(4)) == [Acknowledged(["good"])]


_WHY = "not sent: the server announced that it does not take this"


def test_an_identifier_a_resumed_server_may_hold_as_received_is_not_used_again() -> None:
    """A new QoS 2 publish under it would be taken for the old one and be swallowed (MQTT 5.0 §4.3.3)."""
    script = Script()
    script.connect()
    script.publish("large", payload=b"x" * 100, qos=2)
    script.out()
    script.lose()
    script.connect(Properties(maximum_packet_size=50), session_present=True)
    for token in range(70_000):
        assert script.publish(token, qos=1)
        (packet,) = script.out()
        assert isinstance(packet, Publish)
        assert packet.packet_id != 1
        script.say(ack(packet.packet_id))
        if packet.packet_id == 65_535:
            break
    assert script.publish("again")
    (packet,) = script.out()
    assert isinstance(packet, Publish)
    assert packet.packet_id == 2
    script.lose()
    script.connect(session_present=False)
    script.say(ack(2))
    assert script.session.in_flight == 0


def test_a_request_dies_with_its_link_and_frees_its_identifier() -> None:
    script = Script()
    script.connect()
    request = script.session.subscribe([Subscription(filter="a")], 0)
    script.lose()
    script.connect(session_present=True)
    with pytest.raises(RemoteProtocolError, match="packet identifier"):
        script.say(Suback(packet_id=request, reasons=(0,)))


# Inbound


@BOTH
def test_a_qos_1_message_of_a_lost_link_comes_again_and_its_old_acknowledge_is_too_late(
    version: Version,
) -> None:
    script = Script(version)
    script.connect()
    publish = Publish(topic="c", payload=b"x", qos=1, packet_id=1)
    (old,) = script.say(publish)
    script.lose()
    script.connect(session_present=True)
    (new,) = script.say(msgspec.structs.replace(publish, dup=True))
    assert isinstance(old, Message)
    assert isinstance(new, Message)
    assert new.dup is True
    assert script.session.acknowledge(old) is False
    assert script.out() == []
    assert script.session.acknowledge(new) is True
    assert script.out() == [ack(1)]


@BOTH
def test_a_qos_2_message_is_not_delivered_twice_over_a_lost_link(version: Version) -> None:
    """Acknowledged while no link was up: PUBREC follows when the server asks again (MQTT 5.0 §4.3.3)."""
    script = Script(version)
    script.connect()
    publish = Publish(topic="c", payload=b"x", qos=2, packet_id=9)
    (message,) = script.say(publish)
    script.lose()
    assert isinstance(message, Message)
    assert script.session.acknowledge(message) is True
    script.connect(session_present=True)
    assert script.out() == []
    assert script.say(msgspec.structs.replace(publish, dup=True)) == []
    assert script.out() == [ack(9, PUBREC)]
    script.lose()
    script.connect(session_present=True)
    assert script.say(ack(9, PUBREL)) == []
    assert script.out() == [ack(9, PUBCOMP)]


def test_a_held_qos_2_message_survives_and_dies_with_the_session_only() -> None:
    script = Script()
    script.connect()
    publish = Publish(topic="c", payload=b"x", qos=2, packet_id=9)
    (message,) = script.say(publish)
    assert isinstance(message, Message)
    script.lose()
    script.connect(session_present=True)
    assert script.say(msgspec.structs.replace(publish, dup=True)) == []
    assert script.out() == []
    assert script.session.acknowledge(message) is True
    assert script.out() == [ack(9, PUBREC)]
    script.lose()
    script.connect(session_present=False)
    assert len(script.say(publish)) == 1
    assert script.session.acknowledge(message) is False


# Anything at all


class Peer:
    """A server with a session that loses packets when the link is cut, and counts what it was given."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.received: set[int] = set()
        self.answers: list[Acknowledgement] = []

    def take(self, packets: list[object]) -> None:
        for packet in packets:
            if isinstance(packet, Publish) and packet.qos == 1:
                self.taken.append(packet.payload)
                self.answers.append(ack(packet.packet_id))
            elif isinstance(packet, Publish) and packet.qos == 2:
                if packet.packet_id not in self.received:
                    self.received.add(packet.packet_id)
                    self.taken.append(packet.payload)
                self.answers.append(ack(packet.packet_id, PUBREC))
            elif isinstance(packet, Acknowledgement) and packet.type is PUBREL:
                known = packet.packet_id in self.received
                self.received.discard(packet.packet_id)
                self.answers.append(ack(packet.packet_id, PUBCOMP, 0 if known else 0x92))

    def forget(self) -> None:
        self.received.clear()


@relaxed
@given(data=st.data())
def test_every_token_comes_back_once_whatever_happens_to_the_links(data: st.DataObject) -> None:
    """QoS 1 at least once; QoS 2 exactly once while the server keeps the session; each token once."""
    script, peer = Script(in_flight_max=6), Peer()
    script.connect()
    events: list[Event] = []
    accepted: dict[int, int] = {}
    forgot = False
    for _ in range(data.draw(st.integers(1, 40))):
        step = data.draw(st.sampled_from(["publish", "publish", "move", "move", "cut", "forget"]))
        if step == "publish":
            token, qos = len(accepted), data.draw(st.integers(0, 2))
            if script.publish(token, payload=b"%d" % token, qos=qos):
                accepted[token] = qos
        elif step == "move":
            peer.take(list(script.out()))
            events += script.drain()
            some = data.draw(st.integers(0, len(peer.answers)))
            events += script.say(*peer.answers[:some])
            del peer.answers[:some]
        else:
            if data.draw(st.booleans()):
                peer.take(list(script.out()))  # arrived, and the answers are lost
            events += script.lose()
            peer.answers.clear()
            if step == "forget":
                peer.forget()
                forgot = True
            window = Properties(receive_maximum=data.draw(st.integers(1, 8)))
            script.connect(window, session_present=step == "cut")
            events += script.events
    for _ in range(40):
        peer.take(list(script.out()))
        events += script.drain()
        events += script.say(*peer.answers)
        peer.answers.clear()
    back = [token for event in events if isinstance(event, Acknowledged | Unsent) for token in event.tokens]
    assert sorted(map(str, back)) == sorted(map(str, accepted))
    assert script.session.in_flight == 0
    assert script.session.strays == 0
    for token, qos in accepted.items():
        times = peer.taken.count(b"%d" % token)
        if qos == 1:
            assert times >= 1
        if qos == 2:
            assert times >= 1 if forgot else times == 1
