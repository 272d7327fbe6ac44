"""How an uplink fills the broker's window, and what it does when acknowledgements do not come."""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, ValueType
from gateway.flow.outbox import Entry
from gateway.uplink.mqtt.uplink import STATUS_EVERY_NS, MqttUplink, Route
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import Version
from tests.virtual_time import now_ns, run

LAYOUT = Layout(device="d", scan="s", points=[Point(device="d", tag="t", type=ValueType.INT)])
CONNACK = bytes.fromhex("20 02 00 00")  # accepted, no session: MQTT 3.1.1 section 3.2
SECOND_NS = 1_000_000_000


class FakeClock:
    def wall_ns(self) -> int:
        return now_ns()

    def monotonic_ns(self) -> int:
        return now_ns()

    def is_synchronised(self) -> bool:
        return True


class FakeEndpoint:
    """Stands in for the link: what the uplink asks of it is written down."""

    address = "broker:1883"

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.expected: list[int] = []

    def wake(self) -> None: ...

    def flush(self) -> None: ...

    def settled(self) -> None: ...

    def drop(self, reason: str) -> None:
        self.dropped.append(reason)

    def expect(self, size_bytes: int) -> None:
        self.expected.append(size_bytes)

    async def keep(self, owner: object) -> None:
        await asyncio.Event().wait()


class FakeOutbox:
    """Hands out what a test puts in."""

    def __init__(self, *, is_historical: bool = False) -> None:
        self.waiting: deque[int] = deque()
        self.acknowledged: list[int] = []
        self._is_historical = is_historical

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
            is_historical=self._is_historical,
        )

    def acknowledge(self, entry: Entry) -> None:
        self.acknowledged.append(entry.position[1])


def uplink_with(
    outbox: FakeOutbox, *, live_first: bool = False, retain: bool = False, packet_max: int = 1000
) -> MqttUplink:
    route = Route(
        rule=0,
        messages=lambda batch, *, historical: [(b"t", b"%d" % batch.seq * (100 if batch.seq == 2 else 1))],
        qos=1,
        retain=retain,
        live_first=live_first,
    )
    session = ClientSession(
        Settings(
            client_id="gw",
            version=Version.V311,
            clean_start=True,
            in_flight_max=20,
            keep_alive_s=0,
            outgoing_packet_size_max=packet_max,
        )
    )
    uplink = MqttUplink(
        name="u",
        endpoint=FakeEndpoint(),  # type: ignore[arg-type]  # a stand-in
        session=session,
        is_v5=False,
        clock=FakeClock(),
        subscriptions=(),
        on_command=lambda uplink, message: None,
        status_topic=b"status",
        status=dict,
    )
    uplink.connect_outboxes([[outbox]], lambda stream, layout: (route,))  # type: ignore[list-item]  # a stand-in
    return uplink


def receive(uplink: MqttUplink, data: bytes) -> bytes:
    events = uplink.session.receive(data, now_ns())
    if events:
        uplink.link_events(events)
    return b"".join(uplink.session.to_send(now_ns()))


def connected(uplink: MqttUplink) -> bytes:
    uplink.link_up()
    uplink.session.to_send(now_ns())
    return receive(uplink, CONNACK)


def publishes(data: bytes) -> list[tuple[int, int]]:
    """(packet identifier, RETAIN) of each QoS 1 PUBLISH on topic t: MQTT 3.1.1 section 3.3."""
    found = []
    while data:
        length = data[1]
        body = data[2 : 2 + length]
        assert length < 128 or body[2:8] == b"status"
        if length >= 128:  # the status message: two length bytes
            data = data[3 + (data[1] & 0x7F) + (data[2] << 7) :]
            continue
        if body[2:3] == b"t":
            found.append((int.from_bytes(body[3:5], "big"), data[0] & 1))
        data = data[2 + length :]
    return found


def puback(packet_id: int) -> bytes:
    return b"\x40\x02" + packet_id.to_bytes(2, "big")


def test_the_window_is_filled_and_then_refilled_by_halves() -> None:
    async def main() -> None:
        outbox = FakeOutbox()
        outbox.waiting.extend(range(1, 101))
        uplink = uplink_with(outbox)
        first = publishes(connected(uplink))
        assert uplink.session.in_flight == 20
        assert uplink.endpoint.expected[-1] == 40  # type: ignore[attr-defined]  # half of the acknowledgements
        assert len(first) == 19
        for packet_id in range(1, 10):
            assert publishes(receive(uplink, puback(packet_id))) == []
        assert len(publishes(receive(uplink, puback(10)))) == 10
        assert uplink.session.in_flight == 20

    run(main())


def test_every_record_is_acknowledged_and_small_traffic_waits_for_nothing() -> None:
    async def main() -> None:
        outbox = FakeOutbox()
        uplink = uplink_with(outbox)
        connected(uplink)
        receive(uplink, puback(1))
        for number in range(1, 6):
            outbox.waiting.append(number)
            uplink._send()
            sent = publishes(b"".join(uplink.session.to_send(now_ns())))
            assert len(sent) == 1
            assert uplink.endpoint.expected[-1] == 1  # type: ignore[attr-defined]  # a stand-in
            receive(uplink, puback(sent[0][0]))
        assert outbox.acknowledged == [1, 2, 3, 4, 5]

    run(main())


def test_late_values_that_live_ones_overtook_are_not_retained() -> None:
    async def main() -> None:
        for is_historical, live_first, expected in (
            (False, True, 1),
            (True, True, 0),  # the broker would keep an older value than it has
            (True, False, 1),  # newer ones follow
        ):
            outbox = FakeOutbox(is_historical=is_historical)
            outbox.waiting.append(1)
            uplink = uplink_with(outbox, live_first=live_first, retain=True)
            ((_id, retain),) = publishes(connected(uplink))
            assert retain == expected

    run(main())


def test_a_broker_that_owes_an_acknowledgement_gets_a_new_link() -> None:
    async def main() -> None:
        outbox = FakeOutbox()
        uplink = uplink_with(outbox)
        task = asyncio.get_running_loop().create_task(uplink.run())
        await asyncio.sleep(0)
        connected(uplink)
        receive(uplink, puback(1))
        outbox.waiting.append(1)
        uplink._send()
        await asyncio.sleep(STATUS_EVERY_NS / SECOND_NS + 1)
        assert uplink.endpoint.dropped == []  # type: ignore[attr-defined]  # it may still come
        await asyncio.sleep(STATUS_EVERY_NS / SECOND_NS)
        assert "no acknowledgement" in uplink.endpoint.dropped[0]  # type: ignore[attr-defined]  # a stand-in
        task.cancel()
        await asyncio.wait([task])

    run(main())


def test_what_a_broker_of_3_1_1_would_hang_up_on_is_set_aside_and_the_rest_flows() -> None:
    async def main() -> None:
        outbox = FakeOutbox()
        outbox.waiting.extend([1, 2, 3])
        uplink = uplink_with(outbox, packet_max=64)
        sent = publishes(connected(uplink))
        uplink.link_events(uplink.session.on_deadline(now_ns()))
        assert len(sent) == 2
        assert uplink.counters.quarantined == 1
        assert outbox.acknowledged == [2]

    run(main())
