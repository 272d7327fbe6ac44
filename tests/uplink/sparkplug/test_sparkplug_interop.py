"""An edge node over mosquitto, followed by a host application built on `sparkplug-payload`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.core.quality import BAD, COMM_LOST, UNCERTAIN
from gateway.uplink.mqtt.wire.events import Message, RoundTrip, Subscribed
from gateway.uplink.mqtt.wire.packets import Subscription, Will
from gateway.uplink.mqtt.wire.reasons import ReasonCode
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.sparkplug.wire.columns import BirthRow
from gateway.uplink.sparkplug.wire.node import REBIRTH_EVERY_NS, EdgeNode, HostOffline, Outgoing
from gateway.uplink.sparkplug.wire.topics import Address
from tests.peers import mosquitto
from tests.uplink.mqtt.wire.pump import Paho, Pump
from tests.uplink.sparkplug.node_peer import NodePeer, node_peer

pytestmark = pytest.mark.interop

T_MS: Final = 1_700_000_000_000
TYPES: Final = (ValueType.FLOAT, ValueType.INT, ValueType.BOOL, ValueType.STRING)
FIRST: Final = (0.5, -1, False, "a")
SECOND: Final = (1.5, 2**40, True, "ä")
DEVICES: Final = 10
TAGS: Final = 1000  # of each device


def make_layout(device: str, tags: int) -> Layout:
    points = [Point(device=device, tag=f"tag/{n}", type=TYPES[n % 4]) for n in range(tags)]
    return Layout(device=device, scan="s", points=points)


def values(of: Layout, each: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(each[column % 4] for column in range(len(of)))


def known(of: Layout) -> Iterable[BirthRow]:
    return [BirthRow(column, FIRST[column % 4], 0, T_MS * 10**6) for column in range(len(of))]


class Link:
    """One connection of a node to a broker: its will, subscriptions and births, as an uplink would."""

    def __init__(self, port: int, node: EdgeNode, *, bd_seq: int) -> None:
        topic, will = node.begin(bd_seq, T_MS)
        self.node = node
        self.pump = Pump(
            port,
            Settings(
                client_id="node",
                clean_start=True,
                session_expiry_s=0,
                will=Will(topic=topic.decode(), payload=will, qos=1, retain=False),
            ),
        )
        self.pump.open()
        self.pump.session.subscribe(
            [Subscription(filter=one, qos=1) for one in node.subscriptions()], self.pump.now_ns()
        )
        assert max(self.pump.until_event(Subscribed).results) <= 1
        node.subscribed()

    def round_trip(self) -> None:
        """An answer of the broker to what was sent behind everything else: it took all of it."""
        assert self.pump.session.round_trip("behind it all", self.pump.now_ns())
        assert self.pump.until_event(RoundTrip).token == "behind it all"

    def publish(self, outgoing: Iterable[Outgoing | None]) -> None:
        for topic, payload in filter(None, outgoing):
            assert self.pump.session.publish(topic, payload, qos=0, retain=False, token=topic)
            self.pump.turn(0)

    def be_born(self) -> None:
        assert self.node.births_due
        self.publish(self.node.births(known, now_ns=self.pump.now_ns(), now_ms=T_MS))

    def data(self, of: Layout, *, quality: int = 0, historical: bool = False) -> None:
        batch = Batch(layout=of, values=values(of, SECOND), received_ns=T_MS * 10**6, quality=quality)
        self.publish([self.node.data(batch, historical=historical, now_ms=T_MS)])

    def hear(self, topic: str) -> list[object]:
        """What the next message on a topic means to the node."""
        self.pump.until(lambda: any(message.topic == topic for message in self.pump.messages()))
        message = next(message for message in self.pump.messages() if message.topic == topic)
        self.pump.events.remove(message)
        self.pump.session.acknowledge(message)
        return self.understand(message)

    def understand(self, message: Message) -> list[object]:
        return list(
            self.node.receive(
                message.topic, message.payload, retained=message.retain, now_ns=self.pump.now_ns()
            )
        )


class Host:
    """The application: an independent MQTT client in front of `host.js`."""

    def __init__(self, port: int, program: NodePeer) -> None:
        self.mqtt = Paho(port, "host")
        self.mqtt.subscribe("spBv1.0/#", 1)
        self._program = program
        self.said: list[dict[str, Any]] = []

    def follow(self, last: str) -> list[dict[str, Any]]:
        """What came up to the next message of type `last`."""
        begin, fed = len(self.said), 0

        def arrived() -> bool:
            nonlocal fed
            for message in self.mqtt.messages[fed:]:
                fed += 1
                if not message.topic.startswith("spBv1.0/STATE/"):
                    self.said.append(self._program.ask(f"{message.topic} {message.payload.hex()}"))
            return any(one["kind"] == last for one in self.said[begin:])

        self.mqtt.until(arrived)
        self.mqtt.messages.clear()
        return self.said[begin:]

    def state(self, *, online: bool, timestamp: int) -> None:
        payload = msgspec.json.encode({"online": online, "timestamp": timestamp})
        self.mqtt.publish("spBv1.0/STATE/h1", payload, qos=1, retain=True)

    def rebirth(self, program: NodePeer) -> None:
        metric = {"name": "Node Control/Rebirth", "type": "Boolean", "value": True}
        data = program.request(op="encode", payload={"timestamp": T_MS, "metrics": [metric]})
        self.mqtt.publish("spBv1.0/north/NCMD/gw1", bytes.fromhex(data))

    @property
    def faults(self) -> list[str]:
        return [fault for one in self.said for fault in one["faults"]]


@contextmanager
def followed(folder: Path) -> Iterator[tuple[int, Host, NodePeer]]:
    """A broker's port, the host on it, and the codec."""
    with mosquitto(folder) as broker, node_peer("host.js") as program, node_peer("peer.js") as codec:
        host = Host(broker.port, program)
        try:
            yield broker.port, host, codec
        finally:
            host.mqtt.close()


def node(layouts: Iterable[Layout], *, primary_host: str | None = None) -> EdgeNode:
    metrics = {one: range(len(one)) for one in layouts}
    return EdgeNode(Address("north", "gw1"), primary_host=primary_host, layouts=metrics)


def test_a_host_follows_ten_thousand_metrics_over_a_rebirth_and_a_restart_without_a_gap(
    tmp_path: Path,
) -> None:
    layouts = [make_layout(f"d{n}", TAGS) for n in range(DEVICES)]
    with followed(tmp_path) as (port, host, codec):
        link = Link(port, node(layouts), bd_seq=254)
        link.be_born()
        for _ in range(3):
            for one in layouts:
                link.data(one)
        host.rebirth(codec)
        link.pump.forward_ns += REBIRTH_EVERY_NS
        assert link.hear("spBv1.0/north/NCMD/gw1") == []
        link.be_born()
        link.data(layouts[0], historical=True)
        link.round_trip()
        link.pump.cut()  # no DISCONNECT: the broker publishes the will
        first = host.follow("NDEATH")

        again = Link(port, node(layouts), bd_seq=255)  # a restart knows nothing but the number
        again.be_born()
        for one in layouts * 30:  # beyond 255
            again.data(one)
        again.round_trip()
        again.pump.session.disconnect(ReasonCode.DISCONNECT_WITH_WILL_MESSAGE)
        again.pump.turn()
        second = host.follow("NDEATH")
        again.pump.close()

    assert host.faults == []
    births = ["NBIRTH", *["DBIRTH"] * DEVICES]
    kinds = [one["kind"] for one in first if one["kind"] != "NCMD"]
    assert kinds == [*births, *["DDATA"] * 3 * DEVICES, *births, "DDATA", "NDEATH"]
    assert [one["kind"] for one in second] == [*births, *["DDATA"] * 30 * DEVICES, "NDEATH"]
    assert {one["bdSeq"] for one in first if "bdSeq" in one} == {254}
    assert {one["bdSeq"] for one in second} == {255}
    assert max(one["seq"] for one in second if "seq" in one) == 255
    birth = first[1]["values"]
    assert [(one["name"], one["value"], one["quality"]) for one in birth] == [
        (f"tag/{n}", FIRST[n % 4], 192) for n in range(TAGS)
    ]
    for one in (first[1 + DEVICES], second[-2]):
        assert [(value["name"], value["value"]) for value in one["values"]] == [
            (f"tag/{n}", SECOND[n % 4]) for n in range(TAGS)
        ]
    assert all(one["historical"] for one in first[-2]["values"])


def test_a_primary_host_that_leaves_ends_the_session_and_is_waited_for(tmp_path: Path) -> None:
    pump = make_layout("pump", 4)
    with followed(tmp_path) as (port, host, _codec):
        edge = node([pump], primary_host="h1")
        link = Link(port, edge, bd_seq=0)
        assert not edge.births_due
        host.state(online=True, timestamp=T_MS)
        assert link.hear("spBv1.0/STATE/h1") == []
        link.be_born()
        link.data(pump, quality=UNCERTAIN)
        link.data(pump, quality=BAD | COMM_LOST)
        link.publish([edge.device_death("pump", now_ms=T_MS)])
        link.publish([edge.device_birth("pump", known, now_ms=T_MS)])
        link.data(pump)
        host.state(online=False, timestamp=T_MS)
        assert link.hear("spBv1.0/STATE/h1") == [HostOffline()]
        link.publish([edge.death(T_MS)])
        first = host.follow("NDEATH")
        link.pump.session.disconnect()
        link.pump.turn()
        link.pump.close()

        again = Link(port, edge, bd_seq=1)
        assert again.hear("spBv1.0/STATE/h1") == []  # retained
        assert edge.waits_for == "primary host h1, which is offline"
        host.state(online=True, timestamp=T_MS + 1)
        assert again.hear("spBv1.0/STATE/h1") == []
        again.be_born()
        second = host.follow("DBIRTH")
        again.pump.close()

    assert host.faults == []
    kinds = ["NBIRTH", "DBIRTH", "DDATA", "DDATA", "DDEATH", "DBIRTH", "DDATA", "NDEATH"]
    assert [one["kind"] for one in first] == kinds
    qualities = [[value["quality"] for value in one["values"]] for one in first[2:4]]
    assert qualities == [[500] * 4, [0] * 4]
    assert [value["value"] for value in first[2]["values"]] == list(SECOND)
    assert [value["value"] for value in first[3]["values"]] == [None] * 4
    assert [one["kind"] for one in second] == ["NBIRTH", "DBIRTH"]


def test_the_host_would_see_a_gap(tmp_path: Path) -> None:
    """The judge of the tests above can find fault."""
    pump = make_layout("pump", 4)
    with followed(tmp_path) as (port, host, _codec):
        link = Link(port, node([pump]), bd_seq=3)
        link.be_born()
        link.node.device_death("pump", now_ms=T_MS)  # numbered, and never sent
        link.node.device_birth("pump", known, now_ms=T_MS)
        link.data(pump)
        link.pump.turn()
        host.follow("DDATA")
        link.pump.close()
    assert host.faults == ["gap: 4 after 1"]
