"""Payloads: golden cases, and properties that no batch can break."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import cbor2
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.batch import Batch, Cause, Kind
from gateway.core.errors import Problem
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.core.quality import (
    BAD,
    COMM_LOST,
    INVALID,
    OUT_OF_RANGE,
    OVERFLOW,
    SUBSTITUTED,
    UNCERTAIN,
    describe,
)
from gateway.translate.faults import RuleError
from gateway.translate.payload import OBJECTS, Format, TimeUnit, honest, rfc3339
from gateway.translate.plan import Plan, compile_rule
from gateway.translate.rule import RuleSpec, check_rule

DEVICE = "plant/{site}/{device}"
TAG = "plant/{site}/{device}/{tag}"
RECEIVED = 1_700_000_000_123_456_789
LOST = BAD | COMM_LOST


def points(*tags: str, device: str = "pump-07") -> list[Point]:
    units = {"speed": "rpm", "temp": "°C"}
    return [
        Point(
            device=device,
            tag=tag,
            type=ValueType.FLOAT,
            unit=units.get(tag, ""),
            labels=((0, "off"), (1, "auto")) if tag == "mode" else (),
        )
        for tag in tags
    ]


LAYOUT = Layout(
    device="pump-07", scan="fast", points=points("speed", "mode", "temp"), attributes={"link": "plc1"}
)


def plan(rule: RuleSpec, layout: Layout = LAYOUT) -> Plan:
    made = compile_rule(rule, layout, gateway="gw1", site="north")
    assert made is not None
    return made


def batch(*values: Value, **columns: Any) -> Batch:
    given = {"layout": LAYOUT, "received_ns": RECEIVED, "epoch": 3, "seq": 41} | columns
    return Batch(values=values, **given)


def test_a_good_scan_is_one_object_with_times_and_numbers_once() -> None:
    assert plan(RuleSpec(topic=DEVICE)).messages(batch(1480.5, 1, 20.25)) == [
        (
            b"plant/north/pump-07",
            b'{"v":{"speed":1480.5,"mode":1,"temp":20.25},"t":1700000000123,"ts":"gateway","e":3,"n":41}',
        )
    ]


def test_a_bad_value_is_null_and_its_quality_is_said_even_where_an_old_value_is_there() -> None:
    for value in (None, 1, 0):
        made = plan(RuleSpec(topic=DEVICE)).messages(batch(1480.5, value, 20.25, quality=(0, LOST, 0)))
        assert made[0][1] == (
            b'{"v":{"speed":1480.5,"mode":null,"temp":20.25},"q":{"mode":"bad/comm-lost"},'
            b'"t":1700000000123,"ts":"gateway","e":3,"n":41}'
        )


def test_one_quality_for_all_is_said_for_each() -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(batch(None, None, None, quality=LOST))
    said = json.loads(made[0][1])
    assert said["v"] == {"speed": None, "mode": None, "temp": None}
    assert said["q"] == dict.fromkeys(said["v"], "bad/comm-lost")


def test_an_uncertain_value_is_shown_with_its_doubt() -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(batch(1.0, 1, 2.0, quality=(UNCERTAIN | SUBSTITUTED, 0, 0)))
    said = json.loads(made[0][1])
    assert said["v"]["speed"] == 1.0
    assert said["q"] == {"speed": "uncertain/substituted"}


@pytest.mark.parametrize("topic", [DEVICE, TAG])
@pytest.mark.parametrize(
    ("value", "quality"),
    [(math.nan, BAD | INVALID), (math.inf, BAD | OVERFLOW), (-math.inf, BAD | OVERFLOW), (None, BAD)],
)
def test_what_json_cannot_say_is_null_and_bad(topic: str, value: Value, quality: int) -> None:
    made = plan(RuleSpec(topic=topic)).messages(batch(1.0, value, 2.0))
    said = [json.loads(payload) for _, payload in made]
    if topic == DEVICE:
        assert said[0]["v"]["mode"] is None
        assert said[0]["q"] == {"mode": describe(quality)}
    else:
        assert [one["v"] for one in said] == [1.0, None, 2.0]
        assert [one["q"] for one in said] == ["good", describe(quality), "good"]


def test_a_text_that_contains_null_is_still_good() -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(batch("null", 1, 2.0))
    said = json.loads(made[0][1])
    assert said["v"]["speed"] == "null"
    assert "q" not in said


def test_changed_columns_alone_are_sent() -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(batch(20.5, 1481.0, columns=(2, 0)))
    assert made[0][1].startswith(b'{"v":{"temp":20.5,"speed":1481.0},"t":')


def test_a_rule_takes_its_columns_and_nothing_else() -> None:
    some = plan(RuleSpec(topic=DEVICE, match=("*/*", "!*/mode")))
    assert json.loads(some.messages(batch(1.0, 1, 2.0))[0][1])["v"] == {"speed": 1.0, "temp": 2.0}
    assert json.loads(some.messages(batch(1, 2.0, columns=(1, 2)))[0][1])["v"] == {"temp": 2.0}
    assert some.messages(batch(1, columns=(1,))) == []
    bad = some.messages(batch(None, None, 3.0, quality=(LOST, LOST, 0)))
    assert json.loads(bad[0][1])["q"] == {"speed": "bad/comm-lost"}
    assert compile_rule(RuleSpec(topic=DEVICE, match=("x/*",)), LAYOUT, gateway="g", site="s") is None


def test_one_tag_of_a_layout_is_still_an_object() -> None:
    one = plan(RuleSpec(topic=DEVICE, match=("*/temp",)))
    assert json.loads(one.messages(batch(1.0, 1, 2.0))[0][1])["v"] == {"temp": 2.0}


def test_a_device_time_is_named_as_such_and_ours_too() -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(batch(1.0, 1, 2.0, source_time_ns=5_000_000))
    assert json.loads(made[0][1])["t"] == 5
    assert json.loads(made[0][1])["ts"] == "device"


def test_different_times_are_said_by_tag() -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(
        batch(1.0, 1, 2.0, source_time_ns=(5_000_000, None, 7_000_000))
    )
    said = json.loads(made[0][1])
    assert said["t"] == {"speed": 5, "mode": RECEIVED // 1_000_000, "temp": 7}
    assert said["ts"] == {"speed": "device", "mode": "gateway", "temp": "device"}
    same = plan(RuleSpec(topic=DEVICE)).messages(batch(1.0, 1, 2.0, source_time_ns=(5_000_000,) * 3))
    assert json.loads(same[0][1])["t"] == 5


def test_repeated_points_of_an_event_burst_are_several_messages_in_order_told_apart() -> None:
    burst = batch(1.0, 2.0, 9.0, 3.0, columns=(0, 0, 2, 0), kind=Kind.EVENT, cause=Cause.EVENT)
    said = [json.loads(payload) for _, payload in plan(RuleSpec(topic=DEVICE)).messages(burst)]
    assert [one["v"] for one in said] == [{"speed": 1.0}, {"speed": 2.0, "temp": 9.0}, {"speed": 3.0}]
    assert [one.get("p", 0) for one in said] == [0, 1, 2]
    tagged = plan(RuleSpec(topic=TAG)).messages(burst)
    assert [(topic.rsplit(b"/")[-1], json.loads(payload)["v"]) for topic, payload in tagged] == [
        (b"speed", 1.0),
        (b"speed", 2.0),
        (b"temp", 9.0),
        (b"speed", 3.0),
    ]
    assert [json.loads(payload).get("p", 0) for _, payload in tagged] == [0, 1, 0, 2]


def test_part_is_added_where_seq_is_asked_for() -> None:
    rule = RuleSpec(topic=TAG, fields=(("v", "value"), ("n", "seq")))
    burst = batch(1.0, 2.0, columns=(0, 0), kind=Kind.EVENT)
    assert [payload for _, payload in plan(rule).messages(burst)] == [
        b'{"v":1.0,"n":41}',
        b'{"v":2.0,"n":41,"p":1}',
    ]


def test_per_tag_messages() -> None:
    tail = b'"t":1700000000123,"ts":"gateway","e":3,"n":41}'
    assert plan(RuleSpec(topic=TAG)).messages(batch(1480.5, 1, 0.0, quality=(0, 0, LOST))) == [
        (b"plant/north/pump-07/speed", b'{"v":1480.5,"q":"good",' + tail),
        (b"plant/north/pump-07/mode", b'{"v":1,"q":"good",' + tail),
        (b"plant/north/pump-07/temp", b'{"v":null,"q":"bad/comm-lost",' + tail),
    ]


def test_every_source_per_tag() -> None:
    sources = (
        "value quality time time_origin time_quality received seq epoch unit label "
        "device tag site gateway kind cause"
    ).split()
    for left_out in ("", "label"):
        fields = tuple((source, source) for source in sources if source != left_out)
        rule = RuleSpec(topic=TAG, fields=(*fields, ("h", "historical")), time=TimeUnit.RFC3339)
        said = json.loads(plan(rule).messages(batch(1480.5, 1, 20.0))[0][1])
        expected = {
            "value": 1480.5,
            "quality": "good",
            "time": "2023-11-14T22:13:20.123456789Z",
            "time_origin": "gateway",
            "time_quality": "good",
            "received": "2023-11-14T22:13:20.123456789Z",
            "seq": 41,
            "epoch": 3,
            "unit": "rpm",
            "label": None,
            "device": "pump-07",
            "tag": "speed",
            "site": "north",
            "gateway": "gw1",
            "kind": "scan",
            "cause": "cyclic",
        }
        expected.pop(left_out, None)
        assert said == expected
        assert list(said) == list(expected)
        replayed = plan(rule).messages(batch(1480.5, 1, 20.0), historical=True)
        assert json.loads(replayed[0][1]) == said | {"h": True}


def test_every_source_per_device() -> None:
    sources = "value quality time_quality received unit label device site gateway kind cause".split()
    rule = RuleSpec(topic=DEVICE, fields=tuple((s, s) for s in sources), time=TimeUnit.NS)
    assert json.loads(plan(rule).messages(batch(1480.5, 1, 20.0))[0][1]) == {
        "value": {"speed": 1480.5, "mode": 1, "temp": 20.0},
        "received": RECEIVED,
        "unit": {"speed": "rpm", "temp": "°C"},
        "label": {"mode": "auto"},
        "device": "pump-07",
        "site": "north",
        "gateway": "gw1",
        "kind": "scan",
        "cause": "cyclic",
    }


def test_labels_are_only_what_the_map_declares() -> None:
    rule = RuleSpec(topic=TAG, match=("*/mode",), fields=(("v", "value"), ("l", "label")))
    said = [plan(rule).messages(batch(0.0, value, 0.0))[0][1] for value in (0, 1, 7)]
    assert said == [b'{"v":0,"l":"off"}', b'{"v":1,"l":"auto"}', b'{"v":7,"l":null}']
    assert plan(rule).messages(batch(0.0, 1, 0.0, quality=LOST))[0][1] == b'{"v":null,"l":null}'


def test_a_doubtful_device_clock_is_said() -> None:
    fields = (("v", "value"), ("tq", "time_quality"))
    doubt = UNCERTAIN | (1 << 7)
    made = plan(RuleSpec(topic=DEVICE, fields=fields)).messages(batch(1.0, 1, 2.0, time_quality=doubt))
    assert json.loads(made[0][1])["tq"]["speed"] == "uncertain/clock-not-synchronised"
    tagged = plan(RuleSpec(topic=TAG, fields=fields)).messages(batch(1.0, 1, 2.0, time_quality=doubt))
    assert json.loads(tagged[0][1])["tq"] == "uncertain/clock-not-synchronised"


def test_raw_is_the_text_of_the_value_and_nothing_where_it_is_bad() -> None:
    rule = RuleSpec(topic=TAG, format=Format.RAW)
    made = plan(rule).messages(batch(True, "off", 0.1))
    assert [payload for _, payload in made] == [b"true", b"off", b"0.1"]
    made = plan(rule).messages(batch(0.0, b"\x00\xff", math.nan, quality=(LOST, 0, 0)))
    assert [payload for _, payload in made] == [b"", b"\x00\xff", b""]


def test_names_with_percent_signs_and_quotes_survive() -> None:
    layout = Layout(device="50%", scan="", points=points('lev"el%d', "a\\b", device="50%"))
    rule = RuleSpec(topic="p/{device}", fields=(("v%", "value"), ("d", "device"), ("q", "quality")))
    made = plan(rule, layout).messages(Batch(layout=layout, values=(1, 2), received_ns=0))
    assert json.loads(made[0][1]) == {"v%": {'lev"el%d': 1, "a\\b": 2}, "d": "50%"}
    rule = RuleSpec(topic="p/{device}/{tag}", fields=(("v%", "value"), ("g", "tag")))
    made = plan(rule, layout).messages(Batch(layout=layout, values=(1, 2), received_ns=0))
    assert json.loads(made[0][1]) == {"v%": 1, "g": 'lev"el%d'}


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_700_000_000_250_000_000, "2023-11-14T22:13:20.250Z"),
        (1_700_000_000_000_250_000, "2023-11-14T22:13:20.000250Z"),
        (-62_000_000_000_000_000_000, "0005-04-19T09:46:40.000Z"),
        (2**63 * 1000, None),
    ],
)
def test_rfc3339_loses_nothing(time_ns: int, text: str | None) -> None:
    assert rfc3339(time_ns) == text


# --- faults -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (RuleSpec(topic="p/{devise}/{tag}"), "topic: found unknown placeholder {devise}, expected one of"),
        (RuleSpec(topic="p//{tag}"), "topic: found 'p//{tag}': it has an empty level"),
        (RuleSpec(topic="p/#/{tag}"), "the wildcard '#'"),
        (RuleSpec(topic="p/{tag"), "'{' alone at character 3"),
        (RuleSpec(topic=TAG, match=("pump",)), "match.0: found 'pump', expected device/tag"),
        (RuleSpec(topic=TAG, match=("!a/*",)), "match: found no pattern that takes anything in"),
        (RuleSpec(topic=TAG, fields=(("v", "valeu"),)), "fields.v: found unknown source 'valeu'"),
        (RuleSpec(topic=TAG, fields=(("v", "value"), ("v", "seq"))), "fields.v: found the name twice"),
        (RuleSpec(topic=TAG, fields=(("n", "epoch"),)), "found no field that shows the value"),
        (RuleSpec(topic=DEVICE, fields=(("v", "value"), ("g", "tag"))), "tag in a payload of many tags"),
        (RuleSpec(topic=DEVICE, format=Format.RAW), "raw with a topic that has no {tag}"),
        (RuleSpec(topic=TAG, fields=(("p", "value"), ("n", "seq"))), "fields.p: found the name that 'part'"),
        (RuleSpec(topic="p/{template}/{tag}"), "{template}, which pump-07/speed does not have"),
    ],
)
def test_a_faulty_rule_says_where(rule: RuleSpec, found: str) -> None:
    with pytest.raises(RuleError) as error:
        compile_rule(rule, LAYOUT, gateway="gw1", site="north")
    assert any(found in str(problem) for problem in error.value.problems), str(error.value)
    assert all(isinstance(problem, Problem) for problem in error.value.problems)


def test_near_names_are_offered() -> None:
    said = "; ".join(map(str, check_rule(RuleSpec(topic="p/{devise}/{tag}", fields=(("v", "valeu"),)))))
    assert "did you mean 'device'?" in said
    assert "did you mean 'value'?" in said


@pytest.mark.parametrize("name", ["a+b", "a#", "a\0", "a/b", "a\nb", "\x85", ""])
def test_a_name_that_mqtt_forbids_is_refused(name: str) -> None:
    layout = Layout(device="d", scan="", points=points(name, device="d"))
    with pytest.raises(RuleError):
        compile_rule(RuleSpec(topic="p/{device}/{tag}"), layout, gateway="g", site="s")


def test_a_topic_above_the_limit_is_refused() -> None:
    layout = Layout(device="d", scan="", points=points("x" * 65_533, "y" * 65_534, device="d"))
    with pytest.raises(RuleError, match=r"65536 bytes, 65535 are allowed"):
        compile_rule(RuleSpec(topic="p/{tag}"), layout, gateway="g", site="s")
    assert compile_rule(RuleSpec(topic="p/{tag}", match=("d/x*",)), layout, gateway="g", site="s")


def test_topics_name_their_owners() -> None:
    assert list(plan(RuleSpec(topic=DEVICE)).topics()) == [(b"plant/north/pump-07", "pump-07")]
    tagged = plan(RuleSpec(topic=TAG, match=("*/temp",)))
    assert list(tagged.topics()) == [(b"plant/north/pump-07/temp", "pump-07/temp")]


# --- properties -------------------------------------------------------------

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
)
QUALITIES = st.sampled_from([0, UNCERTAIN | OUT_OF_RANGE, LOST, BAD | INVALID, SUBSTITUTED])
TIMES = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    columns: tuple[int, ...] | None = None
    size = 3
    if draw(st.booleans()):
        columns = tuple(draw(st.lists(st.integers(0, 2), max_size=8)))
        size = len(columns)
    return Batch(
        layout=LAYOUT,
        columns=columns,
        values=tuple(draw(st.lists(VALUES, min_size=size, max_size=size))),
        quality=draw(QUALITIES | st.lists(QUALITIES, min_size=size, max_size=size).map(tuple)),
        source_time_ns=draw(TIMES | st.lists(TIMES, min_size=size, max_size=size).map(tuple)),
        time_quality=draw(QUALITIES | st.lists(QUALITIES, min_size=size, max_size=size).map(tuple)),
        received_ns=draw(st.integers(0, 2**63 - 1)),
        kind=draw(st.sampled_from(Kind)),
        epoch=3,
        seq=draw(st.integers(0, 2**63 - 1)),
    )


def as_json(value: Value) -> Any:
    """A value as JSON gives it back."""
    import base64

    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def no_constant(word: str) -> Any:
    raise AssertionError(f"{word} in a payload")


def read(form: Format, payload: bytes) -> Any:
    """A payload as a library that nobody here wrote reads it."""
    if form is Format.JSON:
        return json.loads(payload, parse_constant=no_constant)
    return (msgpack.unpackb if form is Format.MSGPACK else cbor2.loads)(payload)


@settings(max_examples=400, deadline=None)
@given(
    batches(),
    st.sampled_from(TimeUnit),
    st.sampled_from([("*/*",), ("*/*", "!*/mode")]),
    st.sampled_from(sorted(OBJECTS, key=str)),
)
def test_no_row_is_lost_invented_or_changed(
    given_batch: Batch, unit: TimeUnit, match: tuple[str, ...], form: Format
) -> None:
    def told(value: Value) -> Any:
        return as_json(value) if form is Format.JSON else value

    expected = []
    for point, value, quality, time in given_batch.rows():
        if point.tag != "mode" or len(match) == 1:
            shown, doubt = honest(value, quality)
            expected.append(
                (point.tag, told(shown), describe(doubt), "gateway" if time is None else "device")
            )
    tagged = plan(RuleSpec(topic=TAG, time=unit, match=match, format=form))
    said = []
    for topic, payload in tagged.messages(given_batch):
        one = read(form, payload)
        said.append((topic.decode().rsplit("/")[-1], one["v"], one["q"], one["ts"]))
    assert same(said, expected)
    by_device = plan(RuleSpec(topic=DEVICE, time=unit, match=match, format=form))
    said = []
    for _, payload in by_device.messages(given_batch):
        one = read(form, payload)
        for tag, value in one["v"].items():
            origin = one["ts"][tag] if isinstance(one["ts"], dict) else one["ts"]
            said.append((tag, value, one.get("q", {}).get(tag, "good"), origin))
        assert set(one.get("q", {})) <= set(one["v"])
    assert same(said, expected)
    for either in (tagged, by_device):
        assert either.messages(given_batch) == either.messages(given_batch)
        identities = [
            (topic, read(form, payload).get("p", 0)) for topic, payload in either.messages(given_batch)
        ]
        assert len(set(identities)) == len(identities)


def same(said: list[Any], expected: list[Any]) -> bool:
    """Equal in value, type and sign of zero."""
    return [repr(one) for one in said] == [repr(one) for one in expected]


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**64 - 1))
def test_numbers_keep_every_bit(number: float, whole: int) -> None:
    made = plan(RuleSpec(topic=DEVICE)).messages(batch(number, whole, 0.0))
    said = json.loads(made[0][1])["v"]
    assert struct.pack("d", said["speed"]) == struct.pack("d", number)
    assert said["mode"] == whole
    assert isinstance(said["mode"], int)


NESTED = Layout(device="m1", scan="fast", points=points("motor.speed", "motor.temp", "on", "x.y.z%"))


@pytest.mark.parametrize("form", sorted(OBJECTS, key=str))
def test_tags_by_path(form: Format) -> None:
    for layout, values in (
        (NESTED, (1.5, 2, True, "a")),
        (Layout(device="m1", scan="f", points=points("motor.speed", "on", "motor.temp")), (1.5, True, 2)),
    ):
        made = plan(RuleSpec(topic=DEVICE, nest=True, format=form), layout)
        [(_, whole)] = made.messages(batch(*values, layout=layout))
        by_tag = dict(zip((point.tag for point in layout.points), values, strict=True))
        assert read(form, whole)["v"]["motor"] == {"speed": 1.5, "temp": 2}
        assert read(form, whole)["v"]["on"] is by_tag["on"]
        columns = tuple(range(len(values)))
        [(_, changed)] = made.messages(batch(*values, layout=layout, columns=columns))
        assert read(form, changed) == read(form, whole)
        [(_, bad)] = made.messages(batch(*values, layout=layout, quality=(LOST, *(0,) * (len(values) - 1))))
        assert read(form, bad)["v"]["motor"] == {"speed": None, "temp": 2}
        assert read(form, bad)["q"] == {"motor.speed": "bad/comm-lost"}
        [(_, nan)] = made.messages(batch(math.nan, *values[1:], layout=layout))
        assert read(form, nan)["q"] == {"motor.speed": "bad/invalid"}
    wide = Layout(device="m1", scan="f", points=points(*(f"a.t{number}" for number in range(300))))
    [(_, whole)] = plan(RuleSpec(topic=DEVICE, nest=True, format=form), wide).messages(
        batch(*range(300), layout=wide)
    )
    assert read(form, whole)["v"]["a"] == {f"t{number}": number for number in range(300)}


@pytest.mark.parametrize("tags", [("a", "a.b"), ("a.b.c", "a.b"), ("a..b",), (".".join("a" * 17),)])
def test_paths_that_clash_are_found_when_compiled(tags: tuple[str, ...]) -> None:
    layout = Layout(device="m1", scan="f", points=points(*tags))
    with pytest.raises(RuleError, match="nest"):
        plan(RuleSpec(topic=DEVICE, nest=True), layout)
