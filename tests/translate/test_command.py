"""Commands: what a message means, and that what we publish we also understand."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.batch import Batch
from gateway.core.command import CommandResult, Outcome
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.translate.command import (
    CommandMap,
    CommandSpec,
    ParsedCommand,
    Refusal,
    build_reply,
    check_command_rule,
    compile_command_rule,
)
from gateway.translate.faults import RuleError
from gateway.translate.payload import OBJECTS, Format
from gateway.translate.plan import compile_rule
from gateway.translate.rule import RuleSpec

READERS = {Format.CBOR: cbor2.loads, Format.MSGPACK: msgpack.unpackb}
TAGS = {
    "on": ValueType.BOOL,
    "level": ValueType.INT,
    "sp": ValueType.FLOAT,
    "name": ValueType.STRING,
    "blob": ValueType.BYTES,
    "mode": ValueType.INT,
    "valve": ValueType.BOOL,
}
LABELS = {"mode": ((0, "off"), (1, "auto"), (2, "both"), (3, "both")), "valve": ((0, "closed"), (1, "open"))}
LAYOUT = Layout(
    device="p1",
    scan="fast",
    points=[
        Point(device="p1", tag=tag, type=kind, writable=True, labels=LABELS.get(tag, ()))
        for tag, kind in TAGS.items()
    ],
    attributes={"link": "plc1"},
)
SPEC = CommandSpec(topic="plant/{site}/{device}/{tag}/set", reply="plant/{site}/{device}/{tag}/ack")


def command_map(spec: CommandSpec = SPEC, *layouts: Layout) -> CommandMap:
    return compile_command_rule(spec, layouts or (LAYOUT,), gateway="gw1", site="north")


MAP = command_map()
RAW_MAP = command_map(CommandSpec(topic="{device}/{tag}", format=Format.RAW))
MAPS = {
    form: command_map(CommandSpec(topic="{device}/{tag}", format=form))
    for form in (Format.MSGPACK, Format.CBOR)
} | {Format.RAW: RAW_MAP, Format.JSON: MAP}


def parse(tag: str, payload: bytes, using: CommandMap = MAP) -> ParsedCommand | Refusal:
    topic = f"plant/north/p1/{tag}/set" if using is MAP else f"p1/{tag}"
    return using.backward(topic.encode(), payload)


def test_a_bare_value_is_a_command() -> None:
    assert parse("sp", b"20.5") == ParsedCommand(
        device="p1",
        tag="sp",
        value=20.5,
        id=None,
        issued_ns=None,
        ttl_ns=None,
        reply_topic=b"plant/north/p1/sp/ack",
    )
    assert MAP.filters == ("plant/north/+/+/set",)


def test_an_object_names_id_and_time() -> None:
    found = parse("on", b'{"id":"a-1","v":true,"t":1700000000123,"ttl":2.5}')
    assert isinstance(found, ParsedCommand)
    assert (found.id, found.value) == ("a-1", True)
    assert (found.issued_ns, found.ttl_ns) == (1_700_000_000_123_000_000, 2_500_000_000)


@pytest.mark.parametrize(
    ("tag", "payload", "value"),
    [
        ("on", b"1", True),
        ("on", b"0", False),
        ("on", b"1.0", True),
        ("on", b"false", False),
        ("level", b"5.0", 5),
        ("level", b"-9223372036854775808", -(2**63)),
        ("level", b"18446744073709551615", 2**64 - 1),
        ("sp", b"5", 5.0),
        ("sp", b"0", 0.0),
        ("sp", b"1e3", 1000.0),
        ("name", b'"5"', "5"),
        ("name", b'""', ""),
        ("blob", b'"/wA="', b"\xff\x00"),
        ("mode", b'"auto"', 1),
        ("mode", b"7", 7),
        ("valve", b'"open"', True),
        ("valve", b"false", False),
        ("level", b" \n5\t", 5),
    ],
)
def test_values_of_each_type(tag: str, payload: bytes, value: Value) -> None:
    found = parse(tag, payload)
    assert isinstance(found, ParsedCommand)
    assert found.value == value
    assert type(found.value) is type(value)


@pytest.mark.parametrize(
    ("tag", "payload", "reason"),
    [
        ("on", b"2", "found 2, expected true or false (or 1 or 0)"),
        ("on", b'"true"', "found 'true', expected true or false"),
        ("level", b"5.5", "found 5.5, expected a whole number"),
        ("level", b"true", "found true, expected a whole number"),
        ("level", b"18446744073709551616", "expected -9223372036854775808 to 18446744073709551615"),
        ("level", b"1e999", "found inf, expected a whole number"),
        ("level", b"9" * 5000, "found a number too long to read"),
        ("sp", b"NaN", "found NaN, which is not JSON"),
        ("sp", b"-Infinity", "found -Infinity, which is not JSON"),
        ("sp", b"1e999", "beyond what 64-bit floating point holds"),
        ("sp", b"9" * 400, "beyond what 64-bit floating point holds"),
        ("sp", b"true", "found true, expected a number"),
        ("sp", b"null", "found null, expected a number"),
        ("sp", b'"20"', "found '20', expected a number"),
        ("sp", b"20,5", "which is not JSON (character 3: Extra data)"),
        ("sp", b"", "found '', which is not JSON"),
        ("sp", b"\xff", "found bytes that are not UTF-8 at 0"),
        ("sp", b"[1]", "found a list, expected a number"),
        ("sp", b'{"v":{}}', "found an object, expected a number"),
        ("sp", b"{}", 'found no "v"'),
        ("sp", b'{"v":1,"v":2}', "found 'v' twice"),
        ("sp", b'{"v":1,"tll":2}', "found 'tll', expected one of id, v, t, ttl (did you mean 'ttl'?)"),
        ("sp", b'{"v":1,"id":5}', "found id 5, expected printable text"),
        ("sp", b'{"v":1,"id":""}', "found id ''"),
        ("sp", b'{"v":1,"t":-1}', "found t -1, expected milliseconds"),
        ("sp", b'{"v":1,"t":true}', "found t true"),
        ("sp", b'{"v":1,"ttl":0}', "found ttl 0, expected seconds above 0 up to 86400"),
        ("sp", b"[" * 60_000, "nested too deeply"),
        ("sp", b" " * 70_000, "found 70000 bytes, expected at most 65536"),
        ("name", b'"\\ud800"', "half a surrogate pair"),
        ("blob", b'"?"', "expected base64 text"),
        (
            "mode",
            b'"aut"',
            "expected one of 'off', 'auto', 'both', 'both', or a whole number (did you mean 'auto'?)",
        ),
        ("mode", b'"both"', "found 'both', which means 2 and 3, expected the number"),
    ],
)
def test_what_is_no_command_says_what_was_found_and_expected(tag: str, payload: bytes, reason: str) -> None:
    found = parse(tag, payload)
    assert isinstance(found, Refusal), found
    assert reason in found.reason
    assert found.reason.startswith(f"p1/{tag}: ")
    assert found.reply_topic == f"plant/north/p1/{tag}/ack".encode()


def test_a_refusal_keeps_the_id_so_that_it_can_be_answered() -> None:
    found = parse("level", b'{"id":"a-1","v":5.5}')
    assert isinstance(found, Refusal)
    assert found.id == "a-1"


def test_an_unknown_tag_of_ours_is_answered_and_another_gateways_device_is_not() -> None:
    ours = MAP.backward(b"plant/north/p1/levle/set", b"1")
    assert isinstance(ours, Refusal)
    assert ours.reply_topic == b"plant/north/p1/levle/ack"
    assert "did you mean 'level'?" in ours.reason
    for topic in (b"plant/north/p2/sp/set", b"elsewhere", b"\xff\xfe"):
        theirs = MAP.backward(topic, b"1")
        assert isinstance(theirs, Refusal)
        assert theirs.reply_topic is None


@pytest.mark.parametrize(
    ("tag", "payload", "value"),
    [
        ("on", b"true", True),
        ("level", b"5", 5),
        ("sp", b"0.5", 0.5),
        ("name", b'"', '"'),
        ("blob", b"\xff", b"\xff"),
        ("mode", b"auto", 1),
    ],
)
def test_raw_payloads(tag: str, payload: bytes, value: Value) -> None:
    found = parse(tag, payload, RAW_MAP)
    assert isinstance(found, ParsedCommand)
    assert found.value == value


@pytest.mark.parametrize(
    ("tag", "payload"), [("sp", b""), ("name", b""), ("sp", b"x"), ("sp", b"\xff"), ("on", b"[]")]
)
def test_raw_payloads_that_are_no_value(tag: str, payload: bytes) -> None:
    assert isinstance(parse(tag, payload, RAW_MAP), Refusal)


def test_faulty_rules() -> None:
    assert [p.path for p in check_command_rule(CommandSpec(topic="p/{device}/set"))] == [("topic",)]
    assert [p.path for p in check_command_rule(CommandSpec(topic="p/{tag}", reply="p/{tga}"))] == [("reply",)]
    other = Layout(device="p2", scan="", points=[Point(device="p2", tag="sp", type=ValueType.INT)])
    with pytest.raises(RuleError, match="'c/sp' for p1/sp and for p2/sp"):
        command_map(CommandSpec(topic="c/{tag}"), LAYOUT, other)
    with pytest.raises(RuleError, match="'c/p1/on', a command topic itself"):
        command_map(CommandSpec(topic="c/{device}/{tag}", reply="c/{device}/{tag}"))


def test_one_device_in_two_scan_classes_knows_all_its_tags() -> None:
    slow = Layout(device="p1", scan="slow", points=[Point(device="p1", tag="hours", type=ValueType.INT)])
    both = command_map(SPEC, LAYOUT, slow)
    found = both.backward(b"plant/north/p1/huors/set", b"1")
    assert isinstance(found, Refusal)
    assert "did you mean 'hours'?" in found.reason
    assert len(both) == len(TAGS) + 1


def test_replies_are_the_same_each_time() -> None:
    done = CommandResult(id="a", outcome=Outcome.VERIFIED, value=20.5)
    assert build_reply(done, now_ns=5_999_999) == b'{"id":"a","outcome":"verified","v":20.5,"t":5}'
    no = CommandResult(id="", outcome=Outcome.REJECTED, reason="read-only")
    assert build_reply(no, now_ns=0) == b'{"id":"","outcome":"rejected","reason":"read-only","t":0}'


# --- properties -------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "v", "t", "ttl", "x"]), inner)
    ),
    max_leaves=6,
)


@given(
    st.sampled_from(sorted(TAGS)), st.binary(max_size=40) | JSON.map(lambda found: json.dumps(found).encode())
)
@example("level", b"\xef\xbb\xbf5")
def test_any_bytes_are_a_command_or_a_reason(tag: str, payload: bytes) -> None:
    for using in MAPS.values():
        found = parse(tag, payload, using)
        if isinstance(found, Refusal):
            assert found.reason
            assert len(found.reason) < 700
        else:
            assert found.value is not None


VALUES: dict[ValueType, st.SearchStrategy[Any]] = {
    ValueType.BOOL: st.booleans(),
    ValueType.INT: st.integers(-(2**63), 2**64 - 1),
    ValueType.FLOAT: st.floats(allow_nan=False, allow_infinity=False),
    ValueType.STRING: st.text(max_size=12),
    ValueType.BYTES: st.binary(max_size=12),
}


@given(st.data(), st.sampled_from(sorted(TAGS)), st.sampled_from(sorted(MAPS, key=str)))
def test_what_is_published_is_understood_as_a_command(data: st.DataObject, tag: str, form: Format) -> None:
    value = data.draw(VALUES[TAGS[tag]])
    if form is Format.RAW and value in ("", b""):
        return  # `raw` has no word for an empty text: nothing is what it says of a bad value
    rule = RuleSpec(topic="{device}/{tag}", match=(f"p1/{tag}",), format=form)
    plan = compile_rule(rule, LAYOUT, gateway="gw1", site="north")
    assert plan is not None
    column = LAYOUT.index[tag]
    [(_, payload)] = plan.messages(Batch(layout=LAYOUT, values=(value,), columns=(column,), received_ns=0))
    if form is Format.JSON:
        payload = json.dumps({"v": json.loads(payload)["v"]}, ensure_ascii=data.draw(st.booleans())).encode()
    elif form in OBJECTS:
        said = {"v": READERS[form](payload)["v"]}
        payload = cbor2.dumps(said) if form is Format.CBOR else msgpack.packb(said)
    found = parse(tag, payload, MAPS[form])
    assert isinstance(found, ParsedCommand), found
    assert repr(found.value) == repr(value)


@pytest.mark.parametrize(
    ("form", "payload", "reason"),
    [
        (Format.MSGPACK, "c1", "not MessagePack"),
        (Format.MSGPACK, "82a17601a17602", "a name twice"),
        (Format.MSGPACK, "8101c0", "found 1, expected one of id, v, t, ttl"),
        (Format.MSGPACK, "cb7ff8000000000000", "expected a whole number"),
        (Format.MSGPACK, "0101", "not MessagePack"),
        (Format.CBOR, "a2617601617602", "not CBOR"),
        (Format.CBOR, "0101", "bytes behind"),
        (Format.CBOR, "c24101", "not CBOR"),
        (Format.CBOR, "f7", "of the kind UndefinedType"),
        (Format.CBOR, "81" * 100 + "01", "not CBOR"),
        (Format.CBOR, "d81c81d81d00", "not CBOR"),
        (Format.CBOR, "f97e00", "expected a whole number"),
        (Format.CBOR, "c4821b00000000ffffffff01", "expected a finite number"),
        (Format.CBOR, "44deadbeef", "found 4 bytes, expected a whole number"),
    ],
)
def test_binary_payloads_that_are_no_command(form: Format, payload: str, reason: str) -> None:
    found = parse("level", bytes.fromhex(payload), MAPS[form])
    assert isinstance(found, Refusal)
    assert reason in found.reason


def test_binary_commands_have_the_names_of_json() -> None:
    said = {"id": "a-17", "v": 1500.5, "t": 1_700_000_000_123, "ttl": 5}
    for form, payload in ((Format.CBOR, cbor2.dumps(said)), (Format.MSGPACK, msgpack.packb(said))):
        found = parse("sp", payload, MAPS[form])
        assert isinstance(found, ParsedCommand)
        assert (found.id, found.value, found.ttl_ns) == ("a-17", 1500.5, 5_000_000_000)
        assert found.issued_ns == 1_700_000_000_123_000_000


def test_a_format_without_commands_is_refused() -> None:
    [problem] = check_command_rule(CommandSpec(topic="{device}/{tag}", format=Format.INFLUX))
    assert "commands in influx" in problem.found
