"""Line protocol, read back by a parser that nobody here wrote (line-protocol-parser)."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_protocol_parser import parse_line

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.core.quality import (
    BAD,
    CLOCK_NOT_SYNCHRONISED,
    COMM_LOST,
    INVALID,
    OVERFLOW,
    UNCERTAIN,
    describe,
    worst,
)
from gateway.translate.faults import RuleError
from gateway.translate.influx import INTEGER_MAX
from gateway.translate.payload import Format, TimeUnit, honest
from gateway.translate.plan import Plan, compile_rule
from gateway.translate.rule import INFLUX_FIELDS, RuleSpec

RECEIVED = 1_700_000_000_123_456_789
LOST = BAD | COMM_LOST


def layout_of(**types: ValueType) -> Layout:
    points = [Point(device="pump-07", tag=tag, type=kind, unit="°C") for tag, kind in types.items()]
    return Layout(device="pump-07", scan="fast", points=points, attributes={"area": "hall 1,a=b"})


LAYOUT = layout_of(speed=ValueType.FLOAT, mode=ValueType.INT, on=ValueType.BOOL)
MIXED = layout_of(speed=ValueType.FLOAT, mode=ValueType.INT, on=ValueType.BOOL, name=ValueType.STRING,
                  blob=ValueType.BYTES)  # fmt: skip


def plan(layout: Layout = LAYOUT, **rule: Any) -> Plan:
    given_rule = {"topic": "{device}", "fields": INFLUX_FIELDS, "time": TimeUnit.NS} | rule
    made = compile_rule(RuleSpec(format=Format.INFLUX, **given_rule), layout, gateway="gw1", site="north")
    assert made is not None
    return made


def batch(*values: Value, layout: Layout = LAYOUT, **columns: Any) -> Batch:
    return Batch(
        **{"values": values, "layout": layout, "received_ns": RECEIVED, "epoch": 3, "seq": 41} | columns
    )


def text(made: Plan, given_batch: Batch, **how: bool) -> str:
    return "\n".join(payload.decode() for _, payload in made.messages(given_batch, **how))


def test_a_good_scan_is_one_line() -> None:
    line = 'pump-07 speed=1480.5,mode=1i,on=true,ts="gateway" 1700000000123456789'
    assert text(plan(), batch(1480.5, 1, True)) == line
    assert text(plan(), batch(1, 1480.5, columns=(1, 0))) == line.replace(",on=true", "").replace(
        "speed=1480.5,mode=1i", "mode=1i,speed=1480.5"
    )


def test_a_bad_value_is_left_out_and_its_quality_said() -> None:
    said = 'pump-07 speed=1480.5,on=true,mode_q="bad/comm-lost",ts="gateway" 1700000000123456789'
    for value in (None, 7):
        assert text(plan(), batch(1480.5, value, True, quality=(0, LOST, 0))) == said
    assert 'speed_q="bad/invalid"' in text(plan(), batch(math.nan, 1, True))
    assert 'mode_q="bad/overflow"' in text(plan(), batch(1.0, INTEGER_MAX + 1, True))
    assert f"mode={INTEGER_MAX}i" in text(plan(), batch(1.0, INTEGER_MAX, True))


def test_without_a_quality_field_a_line_of_bad_values_is_none() -> None:
    made = plan(fields=(("v", "value"),))
    assert made.messages(batch(None, None, None, quality=LOST)) == []
    assert text(made, batch(None, 1, None, quality=(LOST, 0, LOST))) == "pump-07 mode=1i 1700000000123456789"


def test_a_line_for_each_value() -> None:
    made = plan(
        topic="{device}/{tag}",
        measurement="{area}",
        tags=(("dev", "device"), ("tag", "tag"), ("unit", "unit"), ("q", "quality")),
        fields=(("v", "value"), ("quality", "quality")),
        time=TimeUnit.MS,
    )
    assert made.messages(batch(1480.5, None, True, quality=(0, LOST, 0)))[:2] == [
        (
            b"pump-07/speed",
            "hall\\ 1\\,a=b,dev=pump-07,tag=speed,unit=°C,q=good "
            'v=1480.5,quality="good" 1700000000123'.encode(),
        ),
        (
            b"pump-07/mode",
            "hall\\ 1\\,a=b,dev=pump-07,tag=mode,unit=°C,q=bad/comm-lost "
            'quality="bad/comm-lost" 1700000000123'.encode(),
        ),
    ]


def test_times_that_differ_are_lines_of_their_own_in_one_message() -> None:
    told = batch(
        1.0, 2, True, source_time_ns=(5, None, 5), time_quality=(0, UNCERTAIN | CLOCK_NOT_SYNCHRONISED, 0)
    )
    assert text(plan(), told).splitlines() == [
        'pump-07 speed=1.0,on=true,ts="device" 5',
        'pump-07 mode=2i,ts="gateway-unsynchronised" 1700000000123456789',
    ]
    burst = batch(0, 1, columns=(1, 1))
    assert [line.split()[1] for line in text(plan(), burst).splitlines()] == [
        'mode=0i,ts="gateway"', 'mode=1i,ts="gateway"'
    ]  # fmt: skip


def test_counts_of_what_is_missing_and_of_replays() -> None:
    made = plan(fields=(("v", "value"), ("m", "missing"), ("h", "historical"), ("n", "seq")))
    said = text(made, batch(1.0, 2, True, missing=(0, 3, 0)), historical=True)
    assert said == "pump-07 speed=1.0,mode=2i,on=true,mode_m=3i,h=true,n=41i 1700000000123456789"


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ({"time": TimeUnit.RFC3339}, "time"),
        ({"fields": (("v", "value"), ("t", "time"))}, "fields.t"),
        ({"fields": (("v", "value"), ("_x", "seq"))}, "fields"),
        ({"fields": (("v", "value"), ("speed", "seq"))}, "fields"),
        ({"fields": (("v", "value"), ("time", "seq"))}, "fields"),
        ({"tags": (("q", "quality"),)}, "tags.q"),
        ({"tags": (("x", "value"),)}, "tags.x"),
        ({"tags": (("v", "device"),)}, "tags.v"),
        ({"measurement": "{tag}"}, "measurement"),
        ({"measurement": "{nothing}"}, "measurement"),
        ({"measurement": "_a"}, "measurement"),
        ({"measurement": "a\\"}, "measurement"),
    ],
)
def test_faulty_rules_say_where(rule: dict[str, Any], path: str) -> None:
    with pytest.raises(RuleError) as caught:
        plan(**rule)
    assert path in {".".join(map(str, problem.path)) for problem in caught.value.problems}


def test_a_tag_whose_field_another_one_takes_is_found() -> None:
    with pytest.raises(RuleError, match="'speed_q'"):
        plan(layout_of(speed=ValueType.FLOAT, speed_q=ValueType.INT))


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "speed": st.floats(allow_subnormal=False) | st.integers(-(2**53), 2**53),  # the parser refuses subnormals
    "mode": st.integers(-(2**63), 2**64 - 1),
    "on": st.booleans(),
    "name": st.text(st.sampled_from('\\" ,=ab'), max_size=6)
    | st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=9),
    "blob": st.binary(max_size=9),
}
QUALITIES = st.sampled_from([0, 0, LOST, UNCERTAIN, BAD | INVALID])


@settings(max_examples=300, deadline=None)
@given(st.data(), st.booleans(), st.sampled_from([LAYOUT, MIXED]))
def test_what_is_written_is_read_by_a_foreign_parser(
    data: st.DataObject, per_tag: bool, layout: Layout
) -> None:
    columns = data.draw(
        st.none() | st.lists(st.integers(0, len(layout) - 1), unique=True, min_size=1).map(tuple)
    )
    used = range(len(layout)) if columns is None else columns
    values = tuple(data.draw(VALUES[layout.points[column].tag]) for column in used)
    quality = data.draw(
        st.just(0) | st.lists(QUALITIES, min_size=len(values), max_size=len(values)).map(tuple)
    )
    given_batch = batch(*values, layout=layout, columns=columns, quality=quality)
    made = plan(layout, topic="{device}/{tag}" if per_tag else "{device}")
    messages = made.messages(given_batch)
    assert messages == made.messages(given_batch)
    said: dict[str, Any] = {}
    for topic, payload in messages:
        [line] = payload.decode().split("\n")
        found = parse_line(line)
        assert found["time"] == RECEIVED
        assert found["fields"].pop("ts") == "gateway"
        if per_tag:
            tag = topic.decode().partition("/")[2]
            said[f"{tag}_q"] = found["fields"]["q"]
            if "v" in found["fields"]:
                said[tag] = found["fields"]["v"]
        else:
            said |= found["fields"]
    expected: dict[str, Any] = {}
    for point, value, doubt, _ in given_batch.rows():
        shown, doubt = honest(value, doubt)
        if isinstance(shown, int) and shown > INTEGER_MAX:
            shown, doubt = None, worst(doubt, BAD | OVERFLOW)
        if isinstance(shown, bytes):
            shown = base64.b64encode(shown).decode()
        if shown is not None:
            expected[point.tag] = float(shown) if point.type is ValueType.FLOAT else shown
        if doubt or per_tag:
            expected[f"{point.tag}_q"] = describe(doubt)
    assert {name: repr(one) for name, one in said.items()} == {
        name: repr(one) for name, one in expected.items()
    }
