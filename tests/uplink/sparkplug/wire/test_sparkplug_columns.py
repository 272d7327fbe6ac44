"""Batches as metrics, read back by our decoder and by `sparkplug-payload`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core import quality as q
from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.uplink.sparkplug.wire.columns import DATATYPES, BirthRow, MetricColumns, quality_code
from gateway.uplink.sparkplug.wire.payload import DataType, Metric, decode_payload, value_of
from tests.uplink.sparkplug.node_peer import NodePeer, node_peer

NOW_NS = 1_700_000_000_123_456_789
NOW_MS = NOW_NS // 1_000_000
TYPES = (ValueType.FLOAT, ValueType.INT, ValueType.BOOL, ValueType.STRING, ValueType.BYTES)
GOOD_VALUES = (1.5, -7, True, "Gerät", b"\x00\x01")


def layout(*types: ValueType) -> Layout:
    points = [Point(device="pump", tag=f"t{n}", type=kind) for n, kind in enumerate(types)]
    return Layout(device="pump", scan="fast", points=points)


def columns(of: Layout) -> MetricColumns:
    return MetricColumns(of, range(100, 100 + len(of)))


def said(of: Layout, batch: Batch, *, historical: bool = False) -> list[Metric]:
    return decode_payload(columns(of).data(batch, historical=historical)).metrics


def batch(of: Layout, *values: Value, **fields: object) -> Batch:
    return Batch(layout=of, values=values, received_ns=NOW_NS, **fields)  # type: ignore[arg-type]  # the columns of a batch, by name


def properties(metric: Metric) -> dict[str, object]:
    if metric.properties is None:
        return {}
    pairs = zip(metric.properties.keys, metric.properties.values, strict=True)
    return {key: one.int_value if one.int_value is not None else one.string_value for key, one in pairs}


def test_data_has_alias_timestamp_and_value_alone() -> None:
    """tck-id-payloads-alias-data-cmd-requirement, -name-birth-data-requirement, -metric-datatype-not-req"""
    whole = layout(*TYPES)
    metrics = said(whole, batch(whole, *GOOD_VALUES))
    kinds = [DATATYPES[point.type] for point in whole.points]
    assert [value_of(*pair) for pair in zip(metrics, kinds, strict=True)] == list(GOOD_VALUES)
    assert [metric.alias for metric in metrics] == [100, 101, 102, 103, 104]
    assert {metric.timestamp for metric in metrics} == {NOW_MS}
    for metric in metrics:
        assert (metric.name, metric.datatype, metric.is_historical, metric.properties) == (None,) * 4


@pytest.mark.parametrize(
    "number", [0, 1, 127, 128, 16_383, 16_384, 2**31, 2**63 - 1, -1, -128, -(2**63), True]
)
def test_whole_numbers_are_int64(number: int) -> None:
    one = layout(ValueType.INT)
    (metric,) = said(one, batch(one, number))
    assert value_of(metric, DataType.INT64) == number


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ValueType.INT, 2**63), (ValueType.INT, -(2**63) - 1), (ValueType.INT, 1.5), (ValueType.INT, "1"),
        (ValueType.FLOAT, 10**400), (ValueType.FLOAT, "1"), (ValueType.BOOL, 1), (ValueType.STRING, b"x"),
        (ValueType.STRING, "\ud800"), (ValueType.BYTES, "x"),
    ],
)  # fmt: skip
def test_a_value_the_type_cannot_hold_is_null_and_bad(kind: ValueType, value: Value) -> None:
    one = layout(kind)
    (metric,) = said(one, batch(one, value))
    assert (metric.is_null, properties(metric)) == (True, {"Quality": 0, "Detail": "bad/overflow"})


@pytest.mark.parametrize(
    ("value", "detail"),
    [(math.nan, "bad/invalid"), (math.inf, "bad/overflow"), (-math.inf, "bad/overflow"), (None, "bad")],
)
@pytest.mark.parametrize("kinds", [(ValueType.FLOAT,) * 2, (ValueType.FLOAT, ValueType.INT)])
def test_what_is_no_number_is_null_and_bad(value: Value, detail: str, kinds: tuple[ValueType, ...]) -> None:
    two = layout(*kinds)
    first, second = said(two, batch(two, value, 3))
    assert (first.is_null, properties(first)) == (True, {"Quality": 0, "Detail": detail})
    assert (second.is_null, second.properties) == (None, None)


@pytest.mark.parametrize(
    ("quality", "code", "detail", "is_null"),
    [
        (q.GOOD, None, None, None),
        (q.GOOD | q.SUBSTITUTED, 192, "good/substituted", None),
        (q.UNCERTAIN | q.OUT_OF_RANGE, 500, "uncertain/out-of-range", None),
        (q.BAD | q.COMM_LOST, 0, "bad/comm-lost", True),
        (q.BAD | q.STALE, 0, "bad/stale", True),
    ],
)
def test_quality_is_0_192_or_500(
    quality: int, code: int | None, detail: str | None, is_null: bool | None
) -> None:
    """tck-id-payloads-propertyset-quality-value-type, -quality-value-value"""
    one = layout(ValueType.FLOAT)
    (metric,) = said(one, batch(one, 2.5, quality=quality))
    assert metric.is_null is is_null
    assert metric.double_value == (None if is_null else 2.5)
    assert properties(metric) == ({} if code is None else {"Quality": code, "Detail": detail})
    if metric.properties is not None:
        assert metric.properties.values[0].type == DataType.INT32


def test_what_the_journal_kept_is_historical() -> None:
    two = layout(ValueType.FLOAT, ValueType.INT)
    bad = batch(two, 1.0, None, quality=(q.GOOD, q.BAD))
    assert [metric.is_historical for metric in said(two, bad, historical=True)] == [True, True]
    assert [metric.is_historical for metric in said(two, batch(two, 1.0, 2), historical=True)] == [True] * 2
    floats = layout(ValueType.FLOAT)
    assert said(floats, batch(floats, 1.0), historical=True)[0].is_historical is True


@pytest.mark.parametrize(
    ("source_ns", "clock", "time_ms", "origin"),
    [
        (None, q.GOOD, NOW_MS, {}),
        (5_000_000_000, q.GOOD, 5000, {"TimeOrigin": "device"}),
        (None, q.CLOCK_NOT_SYNCHRONISED, NOW_MS, {"TimeOrigin": "gateway-unsynchronised"}),
        (None, q.DATED_LATER, NOW_MS, {"TimeOrigin": "gateway-dated"}),
    ],
)
def test_a_time_says_whose_clock_it_is_from(
    source_ns: int | None, clock: int, time_ms: int, origin: dict[str, str]
) -> None:
    for kinds in ((ValueType.FLOAT, ValueType.FLOAT), (ValueType.INT, ValueType.INT)):
        two = layout(*kinds)
        whole = said(two, batch(two, 1, 2, source_time_ns=source_ns, time_quality=clock))
        assert [(metric.timestamp, properties(metric)) for metric in whole] == [(time_ms, origin)] * 2
        mixed = said(two, batch(two, 1, 2, source_time_ns=(None, source_ns), time_quality=(q.GOOD, clock)))
        assert [(metric.timestamp, properties(metric)) for metric in mixed] == [
            (NOW_MS, {}),
            (time_ms, origin),
        ]


def test_events_repeat_a_point_and_keep_their_order() -> None:
    two = layout(ValueType.INT, ValueType.INT)
    metrics = said(two, batch(two, 1, 2, 3, columns=(1, 1, 0), source_time_ns=(10**6, 2 * 10**6, 3 * 10**6)))
    assert [(m.alias, m.long_value, m.timestamp) for m in metrics] == [(101, 1, 1), (101, 2, 2), (100, 3, 3)]


def test_a_point_that_is_no_metric_is_left_out() -> None:
    two = layout(ValueType.FLOAT, ValueType.FLOAT)
    one = MetricColumns(two, [None, 7])
    assert [m.alias for m in decode_payload(one.data(batch(two, 1.0, 2.0), historical=False)).metrics] == [7]
    assert one.data(batch(two, 1.0, columns=(0,)), historical=False) == b""
    born = decode_payload(one.births([BirthRow(column, 1.0, 0, NOW_NS) for column in (0, 1)])).metrics
    assert [metric.name for metric in born] == ["t1"]


def test_a_birth_has_name_alias_datatype_value_and_quality() -> None:
    """tck-id-payloads-alias-birth-requirement, -metric-datatype-req, -name-birth-data-requirement"""
    whole = layout(*TYPES)
    rows = [BirthRow(n, value, q.GOOD, NOW_NS) for n, value in enumerate(GOOD_VALUES)]
    metrics = decode_payload(columns(whole).births(rows)).metrics
    assert [(m.name, m.alias, m.datatype) for m in metrics] == [
        (point.tag, 100 + n, DATATYPES[point.type]) for n, point in enumerate(whole.points)
    ]
    assert [value_of(metric) for metric in metrics] == list(GOOD_VALUES)
    assert all(m.timestamp == NOW_MS and properties(m) == {"Quality": 192} for m in metrics)


def test_a_birth_of_what_was_never_read_is_null() -> None:
    """tck-id-operational-behavior-data-publish-nbirth-values"""
    one = layout(ValueType.FLOAT)
    row = BirthRow(0, None, q.BAD | q.NOT_YET_READ, NOW_NS)
    (metric,) = decode_payload(columns(one).births([row])).metrics
    assert (metric.is_null, metric.datatype) == (True, DataType.DOUBLE)
    assert properties(metric) == {"Quality": 0, "Detail": "bad/not-yet-read"}


VALUES = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=200)
    | st.binary(max_size=300)
)  # fmt: skip
QUALITIES = st.sampled_from([q.GOOD, q.GOOD | q.SUBSTITUTED, q.UNCERTAIN, q.BAD | q.COMM_LOST])
TIMES = st.none() | st.integers(-(10**18), 2**63)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_value_of_every_batch_is_said_as_it_is_or_as_bad(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
    of = layout(*kinds)
    rows = data.draw(st.lists(st.integers(0, len(kinds) - 1), max_size=6) | st.none())
    count = len(kinds) if rows is None else len(rows)
    column = [data.draw(st.tuples(*[one] * count)) for one in (VALUES, QUALITIES, TIMES)]
    values, qualities, times = column
    one = batch(
        of,
        *values,
        columns=None if rows is None else tuple(rows),
        quality=qualities if data.draw(st.booleans()) else q.GOOD,
        source_time_ns=times if data.draw(st.booleans()) else None,
    )
    metrics = said(of, one)
    assert len(metrics) == count
    for (point, value, quality, time_ns), metric in zip(one.rows(), metrics, strict=True):
        assert metric.timestamp == max(0, NOW_NS if time_ns is None else time_ns) // 1_000_000
        found = value_of(metric, DATATYPES[point.type])
        code = properties(metric).get("Quality", 192)
        if found is None:
            assert code == 0
            continue
        held = float(value) if point.type is ValueType.FLOAT and isinstance(value, int) else value
        assert (found, code) == (held, quality_code(quality))  # a Double has 53 bits, as its point says
        assert not quality & q.BAD


@pytest.fixture(scope="module")
def peer() -> Iterator[NodePeer]:
    with node_peer("peer.js") as program:
        yield program


@pytest.mark.interop
def test_sparkplug_payload_reads_a_birth(peer: NodePeer) -> None:
    whole = layout(*TYPES)
    rows = [BirthRow(n, value, q.UNCERTAIN, NOW_NS) for n, value in enumerate(GOOD_VALUES)]
    found = peer.request(op="decode", hex=columns(whole).births(rows).hex())["metrics"]
    assert [metric["value"] for metric in found] == [1.5, "-7", True, "Gerät", {"hex": "0001"}]
    assert [metric["type"] for metric in found] == ["Double", "Int64", "Boolean", "String", "Bytes"]
    assert [metric["timestamp"] for metric in found] == [str(NOW_MS)] * 5
    quality = {"type": "Int32", "value": 500}
    assert [metric["properties"]["Quality"] for metric in found] == [quality] * 5


@pytest.mark.interop
def test_the_official_schema_reads_ten_thousand_metrics(peer: NodePeer) -> None:
    many = layout(*TYPES * 2000)
    data = columns(many).data(batch(many, *GOOD_VALUES * 2000), historical=True)
    found = peer.request(op="raw", hex=data.hex())["metrics"]
    assert [metric["alias"] for metric in found] == [str(100 + n) for n in range(10_000)]
    assert [metric.get("doubleValue") for metric in found[::5]] == [1.5] * 2000
    assert {metric.get("longValue") for metric in found[1::5]} == {str(2**64 - 7)}
    assert all(metric["isHistorical"] for metric in found)
