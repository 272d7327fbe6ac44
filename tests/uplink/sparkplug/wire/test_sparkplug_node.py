"""The life of an edge node in virtual time, by the numbered statements of Sparkplug 3.0."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.batch import Batch
from gateway.core.errors import LocalProtocolError
from gateway.core.point import Layout, Point, ValueType
from gateway.uplink.sparkplug.wire.columns import BirthRow
from gateway.uplink.sparkplug.wire.commands import (
    FIELDS_MAX,
    METRICS_MAX,
    PAYLOAD_BYTES_MAX,
    MetricCommand,
    MetricRefused,
)
from gateway.uplink.sparkplug.wire.node import (
    REBIRTH_EVERY_NS,
    EdgeNode,
    HostOffline,
    Ignored,
    Outgoing,
)
from gateway.uplink.sparkplug.wire.payload import (
    DataSet,
    DataType,
    Metric,
    Payload,
    Template,
    decode_payload,
    encode_payload,
    value_of,
)
from gateway.uplink.sparkplug.wire.topics import Address, name_fault

S = 1_000_000_000
START_NS = 100 * S  # monotonic
START_MS = 1_700_000_000_000
NCMD = "spBv1.0/north/NCMD/gw1"
DCMD = "spBv1.0/north/DCMD/gw1/"
STATE = "spBv1.0/STATE/h1"


def layout(device: str, scan: str, *points: tuple[str, ValueType]) -> Layout:
    made = [Point(device=device, tag=tag, type=kind) for tag, kind in points]
    return Layout(device=device, scan=scan, points=made)


PUMP_FAST = layout("pump", "fast", ("speed", ValueType.FLOAT), ("running", ValueType.BOOL))
PUMP_SLOW = layout("pump", "slow", ("hours", ValueType.INT))
VALVE = layout("valve", "fast", ("name", ValueType.STRING), ("raw", ValueType.BYTES))
LAYOUTS = {PUMP_FAST: (0, 1), PUMP_SLOW: (0,), VALVE: (0, 1)}
VALUES = {PUMP_FAST: (1.5, True), PUMP_SLOW: (7,), VALVE: ("v1", b"\x01")}


def known(of: Layout) -> Iterable[BirthRow]:
    return [BirthRow(column, value, 0, START_MS * 10**6) for column, value in enumerate(VALUES[of])]


class Life:
    """One node with a clock, and everything it sent."""

    def __init__(self, *, primary_host: str | None = None) -> None:
        self.node = EdgeNode(Address("north", "gw1"), primary_host=primary_host, layouts=LAYOUTS)
        self.now_ns = START_NS
        self.sent: list[tuple[str, Payload]] = []

    @property
    def now_ms(self) -> int:
        return START_MS + (self.now_ns - START_NS) // 10**6

    def connect(self, bd_seq: int = 0) -> Payload:
        """Up to the answer to SUBSCRIBE; the will."""
        topic, will = self.node.begin(bd_seq, self.now_ms)
        assert topic == b"spBv1.0/north/NDEATH/gw1"
        self.node.subscribed()
        return decode_payload(will)

    def be_born(self) -> list[tuple[str, Payload]]:
        return self.take(*self.node.births(known, now_ns=self.now_ns, now_ms=self.now_ms))

    def take(self, *outgoing: Outgoing | None) -> list[tuple[str, Payload]]:
        taken = [(topic.decode(), decode_payload(data)) for topic, data in filter(None, outgoing)]
        self.sent += taken
        return taken

    def data(self, of: Layout = PUMP_FAST, *, historical: bool = False) -> list[tuple[str, Payload]]:
        batch = Batch(layout=of, values=VALUES[of], received_ns=START_MS * 10**6)
        return self.take(self.node.data(batch, historical=historical, now_ms=self.now_ms))

    def hear(self, topic: str, payload: bytes, *, retained: bool = False) -> list[object]:
        return list(self.node.receive(topic, payload, retained=retained, now_ns=self.now_ns))

    def state(self, online: object, timestamp: object = START_MS) -> list[object]:
        said = msgspec.json.encode({"online": online, "timestamp": timestamp})
        return self.hear(STATE, said, retained=True)

    def wait(self, ns: int) -> bool:
        """Whether births are due then."""
        self.now_ns += ns
        self.node.on_deadline(self.now_ns)
        return self.node.births_due


def command(*metrics: Metric, timestamp: int | None = START_MS) -> bytes:
    return encode_payload(Payload(timestamp=timestamp, metrics=list(metrics)))


REBIRTH = command(Metric(name="Node Control/Rebirth", datatype=11, boolean_value=True))


@pytest.fixture
def alive() -> Life:
    life = Life()
    life.connect()
    life.be_born()
    return life


# Births and deaths


def test_the_will_is_an_ndeath_with_the_bdseq_of_the_birth() -> None:
    """tck-id-payloads-ndeath-bdseq, -ndeath-seq, -nbirth-bdseq-repeat"""
    life = Life()
    will = life.connect(bd_seq=7)
    (metric,) = will.metrics
    assert (metric.name, metric.datatype, value_of(metric), will.seq) == ("bdSeq", DataType.INT64, 7, None)
    (_, nbirth), *_ = life.be_born()
    assert value_of(nbirth.metrics[0]) == 7
    assert life.node.death(life.now_ms)[1] == encode_payload(will)


def test_births_are_the_node_then_every_device_with_every_metric() -> None:
    """tck-id-payloads-dbirth-order, -nbirth-rebirth-req, tck-id-payloads-alias-uniqueness"""
    life = Life()
    life.connect()
    (topic, nbirth), *devices = life.be_born()
    assert topic == "spBv1.0/north/NBIRTH/gw1"
    assert [(m.name, m.alias, value_of(m)) for m in nbirth.metrics] == [
        ("bdSeq", None, 0),
        ("Node Control/Rebirth", None, False),
    ]
    assert [topic for topic, _ in devices] == [
        "spBv1.0/north/DBIRTH/gw1/pump",
        "spBv1.0/north/DBIRTH/gw1/valve",
    ]
    found = [[(m.name, value_of(m)) for m in birth.metrics] for _, birth in devices]
    assert found == [[("speed", 1.5), ("running", True), ("hours", 7)], [("name", "v1"), ("raw", b"\x01")]]
    assert [m.alias for _, birth in devices for m in birth.metrics] == [0, 1, 2, 3, 4]
    assert [payload.seq for _, payload in life.sent] == [0, 1, 2]
    assert {payload.timestamp for _, payload in life.sent} == {START_MS}


def test_seq_goes_from_255_to_0_over_data_births_and_deaths(alive: Life) -> None:
    """tck-id-payloads-sequence-num-incrementing, -dbirth-seq-inc, -ddata-seq-inc, -ddeath-seq-inc"""
    for turn in range(600):
        if turn % 7 == 3:
            alive.take(alive.node.device_death("valve", now_ms=alive.now_ms))
            alive.take(alive.node.device_birth("valve", known, now_ms=alive.now_ms))
        alive.data(PUMP_SLOW if turn % 2 else PUMP_FAST)
    numbers = [payload.seq for _, payload in alive.sent]
    assert len(numbers) > 700
    assert numbers == [number % 256 for number in range(len(numbers))]


def test_data_goes_by_alias_to_the_topic_of_its_device(alive: Life) -> None:
    """tck-id-payloads-alias-data-cmd-requirement"""
    ((topic, payload),) = alive.data(PUMP_SLOW, historical=True)
    (metric,) = payload.metrics
    assert topic == "spBv1.0/north/DDATA/gw1/pump"
    assert (metric.name, metric.alias, metric.long_value, metric.is_historical) == (None, 2, 7, True)


def test_nothing_of_a_device_goes_out_between_its_death_and_its_birth(alive: Life) -> None:
    """tck-id-operational-behavior-device-ddeath"""
    ((topic, payload),) = alive.take(alive.node.device_death("valve", now_ms=alive.now_ms))
    assert (topic, payload.metrics) == ("spBv1.0/north/DDEATH/gw1/valve", [])
    assert not alive.node.is_device_alive("valve")
    with pytest.raises(LocalProtocolError, match="DDATA of valve"):
        alive.data(VALVE)
    with pytest.raises(LocalProtocolError, match="DDEATH of valve"):
        alive.node.device_death("valve", now_ms=alive.now_ms)
    assert alive.data(PUMP_FAST)
    alive.take(alive.node.device_birth("valve", known, now_ms=alive.now_ms))
    assert alive.data(VALVE)


def test_nothing_goes_out_before_the_births_of_this_connection(alive: Life) -> None:
    """tck-id-payloads-ndata-order, tck-id-message-flow-device-birth-publish-nbirth-wait"""
    alive.node.begin(1, alive.now_ms)
    for verb in (alive.data, lambda: alive.node.device_birth("pump", known, now_ms=0)):
        with pytest.raises(LocalProtocolError, match="not out yet"):
            verb()
    with pytest.raises(LocalProtocolError, match="the broker to take our subscriptions"):
        alive.be_born()
    alive.node.subscribed()
    assert [payload.seq for _, payload in alive.be_born()] == [0, 1, 2]


def test_aliases_stay_over_connections(alive: Life) -> None:
    first = [metric.alias for _, payload in alive.sent for metric in payload.metrics]
    alive.connect(bd_seq=1)
    assert [metric.alias for _, payload in alive.be_born() for metric in payload.metrics] == first


@pytest.mark.parametrize("bd_seq", [-1, 256])
def test_bdseq_is_0_to_255(bd_seq: int) -> None:
    with pytest.raises(LocalProtocolError, match="expected 0 to 255"):
        Life().connect(bd_seq)


def test_of_a_layout_that_only_the_journal_knows_goes_what_is_still_a_metric(alive: Life) -> None:
    points = (("hours", ValueType.INT), ("speed", ValueType.INT), ("gone", ValueType.INT))
    old = layout("pump", "old", *points)
    batch = Batch(layout=old, values=(1, 2, 3), received_ns=0)
    ((_, payload),) = alive.take(alive.node.data(batch, historical=True, now_ms=alive.now_ms))
    assert [(m.alias, m.long_value) for m in payload.metrics] == [(2, 1)]
    seq = payload.seq
    for other in (layout("pump", "o", ("gone", ValueType.INT)), layout("gone", "o", ("a", ValueType.INT))):
        gone = Batch(layout=other, values=(1,), received_ns=0)
        assert alive.node.data(gone, historical=True, now_ms=alive.now_ms) is None
    assert alive.data()[0][1].seq == (seq or 0) + 1  # no number was used up


@pytest.mark.parametrize("name", ["", "a/b", "a+b", "a#", "a\n"])
def test_a_name_no_topic_can_hold_is_refused(name: str) -> None:
    """tck-id-intro-group-id-chars"""
    assert "expected" in name_fault(name)
    with pytest.raises(LocalProtocolError, match="Sparkplug name"):
        EdgeNode(Address(name, "gw1"), primary_host=None, layouts={})


def test_subscriptions() -> None:
    """tck-id-message-flow-edge-node-ncmd-subscribe, tck-id-message-flow-device-dcmd-subscribe"""
    assert Life().node.subscriptions() == (NCMD, f"{DCMD}+")
    assert Life(primary_host="h1").node.subscriptions() == (NCMD, f"{DCMD}+", STATE)


# The primary host


def test_births_wait_for_the_primary_host() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait, -phid-wait-online"""
    life = Life(primary_host="h1")
    life.connect()
    assert life.node.waits_for == "primary host h1, which has not said that it is online"
    with pytest.raises(LocalProtocolError, match="waits for primary host h1"):
        life.be_born()
    assert life.state(False) == []
    assert life.node.waits_for == "primary host h1, which is offline"
    assert not life.node.births_due
    assert life.state(True) == []
    assert (life.node.waits_for, life.node.births_due) == ("", True)
    assert life.be_born()
    assert life.state(True, START_MS + 1) == []
    assert not life.node.births_due  # said again


def test_a_state_that_comes_before_the_answer_to_subscribe_is_kept() -> None:
    life = Life(primary_host="h1")
    life.node.begin(0, life.now_ms)
    life.state(True)
    assert not life.node.births_due
    life.node.subscribed()
    assert life.node.births_due


def test_without_a_primary_host_births_are_due_once_subscribed() -> None:
    life = Life()
    assert not life.node.births_due
    life.connect()
    assert life.node.births_due
    life.be_born()
    assert not life.node.births_due


def test_another_host_changes_nothing() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait-id"""
    life = Life(primary_host="h1")
    life.connect()
    (event,) = life.hear("spBv1.0/STATE/h2", b'{"online":true,"timestamp":1}')
    assert isinstance(event, Ignored)
    assert life.node.waits_for


def test_a_host_that_goes_offline_ends_the_connection() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-offline"""
    life = Life(primary_host="h1")
    life.connect()
    life.state(True)
    life.be_born()
    assert life.state(False, START_MS) == [HostOffline()]  # its will has the timestamp of its birth
    life.connect(bd_seq=1)
    assert not life.node.is_alive
    assert life.state(False, START_MS) == []  # retained
    assert not life.node.births_due
    assert life.state(True, START_MS + 5) == []
    assert life.node.births_due


def test_a_state_that_is_older_than_the_last_is_ignored() -> None:
    """tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp"""
    life = Life(primary_host="h1")
    life.connect()
    life.state(True)
    life.be_born()
    (event,) = life.state(False, START_MS - 1)
    assert isinstance(event, Ignored)
    assert f"found timestamp {START_MS - 1}, expected at least {START_MS}" in event.reason
    assert life.node.is_alive


def test_the_first_state_of_a_connection_is_valid_whatever_its_time() -> None:
    life = Life(primary_host="h1")
    life.connect()
    life.state(True)
    life.connect(bd_seq=1)
    life.state(True, 5)
    assert life.node.births_due


@pytest.mark.parametrize("timestamp", ["1.7e12", "1700000000000.75", "0"])
def test_the_timestamp_of_a_state_is_any_number(timestamp: str) -> None:
    """tck-id-payloads-state-birth-payload"""
    life = Life(primary_host="h1")
    life.connect()
    assert life.hear(STATE, f'{{"online": true, "bdSeq": 1, "timestamp": {timestamp}}}'.encode()) == []
    assert life.node.births_due


@pytest.mark.parametrize(
    "payload",
    [
        b"ONLINE", b"", b"{}", b'{"online":"true","timestamp":1}', b'{"online":true}', b"[]", b"\xff",
        b'{"online":true,"timestamp":"1"}', b'{"online":true,"timestamp":1e400}',
        b'{"online":true,"timestamp":-1}', b'{"online":true,"timestamp":9007199254740993}',
        b'{"x":' + b"[" * 30_000, b" " * (PAYLOAD_BYTES_MAX + 1),
    ],
)  # fmt: skip
def test_what_is_no_state_changes_nothing(payload: bytes) -> None:
    """tck-id-payloads-state-birth-payload"""
    life = Life(primary_host="h1")
    life.connect()
    (event,) = life.hear(STATE, payload)
    assert isinstance(event, Ignored)
    assert "expected" in event.reason
    assert life.node.waits_for


# Commands


def test_a_rebirth_starts_anew_with_the_same_bdseq(alive: Life) -> None:
    """tck-id-operational-behavior-data-commands-rebirth-action-1, -2, -3"""
    alive.data()
    alive.now_ns += REBIRTH_EVERY_NS
    assert alive.hear(NCMD, REBIRTH) == []
    assert alive.node.births_due
    with pytest.raises(LocalProtocolError, match="births that are due"):
        alive.data()
    (_, nbirth), *devices = alive.be_born()
    assert (nbirth.seq, value_of(nbirth.metrics[0]), len(devices)) == (0, 0, 2)
    assert alive.data()[0][1].seq == 3


def test_rebirths_are_answered_once_a_second(alive: Life) -> None:
    for _ in range(50):
        assert alive.hear(NCMD, REBIRTH) == []
    assert alive.node.deadline_ns() == START_NS + REBIRTH_EVERY_NS
    assert not alive.wait(REBIRTH_EVERY_NS - 1)
    assert alive.data()
    assert alive.wait(1)
    alive.be_born()
    assert alive.node.deadline_ns() is None
    assert not alive.wait(10 * REBIRTH_EVERY_NS)


def test_a_host_that_goes_offline_while_a_rebirth_is_due_ends_the_connection() -> None:
    life = Life(primary_host="h1")
    life.connect()
    life.state(True)
    life.be_born()
    life.now_ns += REBIRTH_EVERY_NS
    life.hear(NCMD, REBIRTH)
    assert life.state(False) == [HostOffline()]
    assert not life.node.births_due


def test_a_rebirth_before_the_birth_asks_for_nothing_new() -> None:
    life = Life(primary_host="h1")
    life.connect()
    (event,) = life.hear(NCMD, REBIRTH)
    assert isinstance(event, Ignored)
    assert life.node.deadline_ns() is None


@pytest.mark.parametrize(
    "metric",
    [
        Metric(name="Node Control/Rebirth", datatype=11, boolean_value=False),
        Metric(name="Node Control/Reboot", datatype=11, boolean_value=True),
        Metric(name="Node Control/Rebirth", datatype=3, int_value=1),
        Metric(alias=0, datatype=11, boolean_value=True),
    ],
)
def test_other_commands_to_the_node_are_refused(alive: Life, metric: Metric) -> None:
    alive.now_ns += REBIRTH_EVERY_NS
    (event,) = alive.hear(NCMD, command(metric))
    assert isinstance(event, Ignored | MetricRefused)
    assert "expected" in event.reason


def test_a_retained_command_is_refused(alive: Life) -> None:
    """tck-id-payloads-ncmd-retain, -dcmd-retain"""
    alive.now_ns += REBIRTH_EVERY_NS
    for topic in (NCMD, f"{DCMD}pump"):
        (event,) = alive.hear(topic, REBIRTH, retained=True)
        assert isinstance(event, Ignored)
        assert "retained" in event.reason


@pytest.mark.parametrize(
    ("device", "metric", "tag", "value"),
    [
        ("pump", Metric(name="speed", datatype=10, double_value=2.5), "speed", 2.5),
        ("pump", Metric(alias=0, double_value=2.5), "speed", 2.5),
        ("pump", Metric(alias=0, datatype=9, float_value=0.5), "speed", 0.5),
        ("pump", Metric(alias=0, datatype=3, int_value=2**32 - 1), "speed", -1.0),
        ("pump", Metric(name="running", alias=1, boolean_value=False), "running", False),
        ("pump", Metric(name="hours", datatype=2, int_value=0), "hours", 0),
        ("valve", Metric(name="name", datatype=14, string_value=""), "name", ""),
        ("valve", Metric(alias=4, bytes_value=b"x"), "raw", b"x"),
    ],
)
def test_a_command_sets_a_point(alive: Life, device: str, metric: Metric, tag: str, value: object) -> None:
    (event,) = alive.hear(DCMD + device, command(metric))
    assert event == MetricCommand(device, tag, value, START_MS)  # type: ignore[arg-type]  # a value, by the case
    assert type(event.value) is type(value)  # type: ignore[attr-defined]  # compared right above


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (Metric(name="sped", datatype=10, double_value=1.0), "found 'sped', expected a metric of pump"),
        (Metric(alias=3, string_value="x"), "found alias 3, expected one of the birth of pump"),
        (Metric(alias=99, double_value=1.0), "found alias 99"),
        (Metric(name="hours", alias=0, double_value=1.0), "found alias 0 of speed for hours"),
        (Metric(datatype=10, double_value=1.0), "found a metric without name, expected a metric of pump"),
        (Metric(name="hours", datatype=10, double_value=1.0), "found float (DOUBLE), expected int"),
        (Metric(name="hours", datatype=11, boolean_value=True), "found bool (BOOLEAN), expected int"),
        (Metric(name="running", datatype=3, int_value=1), "found int (INT32), expected bool"),
        (Metric(name="speed", datatype=12, string_value="1"), "found str (STRING), expected float"),
        (Metric(name="speed", datatype=8, long_value=2**53 + 1), "found int (UINT64), expected float"),
        (Metric(name="speed", is_null=True), "found no value (DOUBLE), expected float"),
        (Metric(name="speed", datatype=16, dataset_value=DataSet()), "found DataSet (DATA_SET)"),
        (Metric(name="speed", datatype=19, template_value=Template()), "found Template (TEMPLATE)"),
        (Metric(name="speed", datatype=10, int_value=1), "found int_value, expected double_value"),
        (Metric(name="speed", datatype=77, int_value=1), "datatype 77"),
    ],
)
def test_a_metric_that_sets_nothing_says_why(alive: Life, metric: Metric, reason: str) -> None:
    (event,) = alive.hear(f"{DCMD}pump", command(metric))
    assert isinstance(event, MetricRefused)
    assert reason in event.reason


def test_metrics_of_one_command_are_judged_one_by_one(alive: Life) -> None:
    later = Metric(name="hours", datatype=4, long_value=1, timestamp=START_MS + 9)
    events = alive.hear(f"{DCMD}pump", command(Metric(name="x"), later))
    assert isinstance(events[0], MetricRefused)
    assert events[1:] == [MetricCommand("pump", "hours", 1, START_MS + 9)]
    (event,) = alive.hear(f"{DCMD}pump", command(Metric(alias=2, long_value=1), timestamp=None))
    assert event == MetricCommand("pump", "hours", 1, None)


def test_a_command_has_bounds(alive: Life) -> None:
    one = Metric(alias=2, long_value=1)
    assert len(alive.hear(f"{DCMD}pump", command(*[one] * METRICS_MAX))) == METRICS_MAX
    for payload in (
        command(*[one] * (METRICS_MAX + 1)),
        command(),
        b"\0" * (PAYLOAD_BYTES_MAX + 1),
        b"\xff",
        command(one) + b"\x38\x01" * FIELDS_MAX,
    ):
        (event,) = alive.hear(f"{DCMD}pump", payload)
        assert isinstance(event, MetricRefused)


TOPICS = [NCMD, STATE, f"{DCMD}pump", f"{DCMD}no", DCMD, "spBv1.0/north/DCMD/gw1", "x"]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TOPICS), st.binary(max_size=80), st.booleans())
def test_any_message_is_an_event_or_nothing(topic: str, payload: bytes, retained: bool) -> None:
    life = Life(primary_host="h1")
    life.connect()
    life.state(True)
    life.be_born()
    for event in life.hear(topic, payload, retained=retained):
        assert isinstance(event, Ignored | MetricRefused | MetricCommand)
