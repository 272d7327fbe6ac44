"""What an uplink does with what the broker refuses: set aside and counted, said once, never in the way."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque

import pytest

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, ValueType
from gateway.flow.outbox import Entry
from gateway.uplink.mqtt.uplink import REPLIES_MAX, MqttUplink, Route
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import Settings
from tests.virtual_time import now_ns, run

LAYOUT = Layout(device="d", scan="s", points=[Point(device="d", tag="t", type=ValueType.INT)])
CONNACK = bytes.fromhex("20 03 00 00 00")  # accepted, no session: MQTT 5.0 section 3.2
SMALL = bytes.fromhex("20 08 00 00 05 27 00 00 00 40")  # the same with Maximum Packet Size 64
NOT_AUTHORIZED = bytes.fromhex("20 03 00 87 00")


class FakeClock:
    def wall_ns(self) -> int:
        return now_ns()

    def monotonic_ns(self) -> int:
        return now_ns()

    def is_synchronised(self) -> bool:
        return True


class FakeEndpoint:
    """Writes down what the uplink asks of its link."""

    address = "broker:1883"

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def wake(self) -> None: ...

    def drop(self, reason: str) -> None:
        self.dropped.append(reason)

    def expect(self, size_bytes: int) -> None: ...

    def settled(self) -> None: ...

    async def keep(self, owner: object) -> None:
        await asyncio.Event().wait()


class FakeOutbox:
    """Hands out records 1, 2 … as a test asks."""

    def __init__(self, records: int) -> None:
        self.waiting = deque(range(1, records + 1))
        self.acknowledged: list[int] = []
        self.sent_again: list[int] = []

    def online(self) -> None: ...

    def offline(self) -> None: ...

    def take(self) -> Entry | None:
        if not self.waiting:
            return None
        number = self.waiting.popleft()
        batch = Batch(layout=LAYOUT, values=(number,), received_ns=0, epoch=1, seq=number)
        return Entry(
            self,  # type: ignore[arg-type]  # a stand-in
            after=(1, number - 1),
            position=(1, number),
            batch=batch,
            stream="s",
            is_historical=False,
        )

    def acknowledge(self, entry: Entry) -> None:
        self.acknowledged.append(entry.position[1])

    def send_again(self, entry: Entry) -> None:
        self.sent_again.append(entry.position[1])


def uplink_with(outbox: FakeOutbox, *, payload: bytes = b"1", parts: int = 1, qos: int = 1) -> MqttUplink:
    route = Route(
        rule=0,
        messages=lambda batch, *, historical: [(b"t", payload)] * parts,
        qos=qos,
        retain=False,
        live_first=False,
    )
    uplink = MqttUplink(
        name="u",
        endpoint=FakeEndpoint(),  # type: ignore[arg-type]  # a stand-in
        session=ClientSession(Settings(client_id="gw", clean_start=True, keep_alive_s=0)),
        is_v5=True,
        clock=FakeClock(),
        subscriptions=(),
        on_command=lambda uplink, message: None,
        status_topic=b"status",
        status=dict,
    )
    uplink.connect_outboxes([[outbox]], lambda stream, layout: (route,))  # type: ignore[list-item]  # a stand-in
    return uplink


def receive(uplink: MqttUplink, data: bytes) -> list[bytes]:
    """The broker says something; the packets that go out for it."""
    events = uplink.session.receive(data, now_ns())
    if events:
        uplink.link_events(events)
    out = packets(b"".join(uplink.session.to_send(now_ns())))
    deadline_ns = uplink.session.deadline_ns()
    if deadline_ns == 0:
        uplink.link_events(uplink.session.on_deadline(now_ns()))
        out += packets(b"".join(uplink.session.to_send(now_ns())))
    return out


def connect(uplink: MqttUplink, connack: bytes = CONNACK) -> list[bytes]:
    uplink.link_up()
    uplink.session.to_send(now_ns())
    return receive(uplink, connack)


def packets(data: bytes) -> list[bytes]:
    """Short ones, MQTT 5.0 section 2.1."""
    found = []
    while data:
        size = 2 + data[1] if data[1] < 0x80 else 3 + (data[1] & 0x7F | data[2] << 7)
        found.append(data[:size])
        data = data[size:]
    return found


def identifiers(sent: list[bytes], topic: bytes = b"t") -> list[int]:
    """Packet identifiers of what was published with QoS 1 on a topic, or under an alias of it."""
    own = []
    for packet in sent:
        if packet[0] & 0xF6 == 0x32:
            at = 2 if packet[1] < 0x80 else 3
            length = packet[at] << 8 | packet[at + 1]
            name = packet[at + 2 : at + 2 + length]
            if name in {topic, b""}:
                own.append(packet[at + 2 + length] << 8 | packet[at + 3 + length])
    return own


def puback(identifier: int, reason: int = 0) -> bytes:
    """MQTT 5.0 section 3.4."""
    return bytes((0x40, 3)) + identifier.to_bytes(2, "big") + bytes((reason,))


def test_a_refused_record_is_done_with_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        outbox = FakeOutbox(4)
        uplink = uplink_with(outbox)
        sent = identifiers(connect(uplink))
        assert len(sent) == 4
        receive(uplink, puback(sent[0]) + puback(sent[1], 0x87) + puback(sent[2], 0x87) + puback(sent[3]))
        assert sorted(outbox.acknowledged) == [1, 2, 3, 4]
        assert uplink.counters.quarantined == 2

    with caplog.at_level(logging.ERROR):
        run(body())
    assert [record.message for record in caplog.records].count(
        "broker refuses a record for good, it is set aside; the next ones like it are only counted"
    ) == 1


def test_a_record_of_several_messages_is_done_with_when_each_was_answered() -> None:
    async def body() -> None:
        outbox = FakeOutbox(1)
        uplink = uplink_with(outbox, parts=3)
        sent = identifiers(connect(uplink))
        receive(uplink, puback(sent[0]) + puback(sent[1], 0x97))
        assert outbox.acknowledged == []
        receive(uplink, puback(sent[2]))
        assert outbox.acknowledged == [1]
        assert uplink.counters.quarantined == 1

    run(body())


def test_a_payload_above_the_brokers_maximum_is_not_sent() -> None:
    async def body() -> None:
        outbox = FakeOutbox(2)
        uplink = uplink_with(outbox, payload=b"x" * 80)
        assert identifiers(connect(uplink, SMALL)) == []
        assert outbox.acknowledged == [1, 2]
        assert uplink.counters.quarantined == 2

    run(body())


def test_a_refusal_to_let_us_in_is_said_once_until_it_changes(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        uplink = uplink_with(FakeOutbox(1))
        for _ in range(3):
            connect(uplink, NOT_AUTHORIZED)
            uplink.link_down("broker refuses")
            uplink.session.lost(now_ns())
        assert "not authorized" in uplink.refusal.lower()
        connect(uplink, bytes.fromhex("20 03 00 88 00"))  # server unavailable
        uplink.link_down("broker refuses")
        uplink.session.lost(now_ns())
        connect(uplink)
        assert uplink.refusal == ""
        assert uplink.is_connected

    with caplog.at_level(logging.INFO):
        run(body())
    said = [record.message.split(";")[0] for record in caplog.records]
    assert said == ["broker refuses us", "broker refuses us", "broker accepts us now"]


def test_what_went_down_with_its_link_at_qos_0_is_sent_again_once() -> None:
    async def body() -> None:
        outbox = FakeOutbox(2)
        uplink = uplink_with(outbox, qos=0, parts=2)
        connect(uplink)
        uplink.link_down("cut")
        uplink.link_events(uplink.session.lost(now_ns()))
        assert outbox.sent_again == [1, 2]
        assert uplink.counters.sent_again == 2
        assert outbox.acknowledged == []

    run(body())


def test_answers_wait_for_the_broker_within_a_bound() -> None:
    async def body() -> None:
        uplink = uplink_with(FakeOutbox(0))
        for number in range(REPLIES_MAX + 5):
            uplink.reply(b"t", b"%d" % number, qos=1)
        assert uplink.counters.replies_dropped == 5
        assert len(identifiers(connect(uplink))) > 0

    run(body())


def test_the_goodbye_is_the_status_then_disconnect_or_the_will_where_there_is_no_room() -> None:
    async def body() -> None:
        roomy = uplink_with(FakeOutbox(0))
        connect(roomy)
        roomy.link_closing()
        *_, status, goodbye = packets(b"".join(roomy.session.to_send(now_ns())))
        assert status[0] == 0x33  # PUBLISH, QoS 1, RETAIN
        assert json.loads(status[status.index(b"{") :])["state"] == "offline"
        assert goodbye[:1] == b"\xe0"
        full = uplink_with(FakeOutbox(5))
        connect(full, bytes.fromhex("20 06 00 00 03 21 00 02"))  # Receive Maximum 2
        full.link_closing()
        (goodbye,) = packets(b"".join(full.session.to_send(now_ns())))
        assert goodbye == bytes.fromhex(
            "e0 02 04 00"
        )  # Disconnect with Will Message, MQTT 5.0 section 3.14.2.1

    run(body())
