"""The models of Modbus: what they make of what users write."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.modbus.address import Address
from drivers.modbus.coding import TYPES, TypeName
from drivers.modbus.config import ModbusDevice, Span
from drivers.modbus.field import ORDERS, DataType, Field
from drivers.modbus.link import ModbusLink
from drivers.modbus.scale import Scale
from drivers.modbus.tag import ModbusTag
from drivers.modbus.transport import make_session
from drivers.modbus.wire.pdu import Table
from gateway.core.point import ValueType


def tag(**keys: Any) -> ModbusTag:
    return ModbusTag.model_validate({"at": 40001, "type": "uint16", **keys})


def said(**keys: Any) -> list[str]:
    """Paths of the faults between fields."""
    return [".".join(map(str, problem.path)) for problem in tag(**keys).problems()]


def test_the_types_are_those_of_the_codec() -> None:
    assert set(TypeName.__args__) == {kind.value for kind in DataType} == set(TYPES)  # type: ignore[attr-defined]  # a Literal


@pytest.mark.parametrize("name", sorted(TYPES))
def test_size_and_value_type_are_those_of_the_codec(name: str) -> None:
    keys: dict[str, Any] = {"type": name}
    field: dict[str, Any] = {"type": DataType(name), "start": 0}
    if name == "string":
        keys["length"], field["length"] = 7, 4
    if name == "bits":
        keys["length"] = field["length"] = 20
    if name == "bool":
        keys["bit"] = field["bit"] = 3
    one = tag(**keys)
    assert (one.count, one.value_type()) == (Field(**field).count, Field(**field).value_type)
    assert not list(one.problems())


@pytest.mark.parametrize(
    ("scale", "value_type"), [(0.1, ValueType.FLOAT), (10, ValueType.INT), (2.0, ValueType.INT)]
)
def test_whole_values_stay_whole_under_a_whole_scale(scale: float, value_type: ValueType) -> None:
    assert tag(scale=scale).value_type() is value_type
    assert (
        tag(scale=scale).value_type()
        is Field(type=DataType.UINT16, start=0, scale=tag(scale=scale).scale).value_type
    )


def test_a_factor_is_the_decimal_number_that_was_written() -> None:
    scale = tag(scale=0.1).scale
    assert scale is not None
    assert Fraction(scale.numerator, scale.denominator) == Fraction(1, 10)
    assert tag(scale={"raw": [0, 27648], "eu": [0, 100]}).scale == Scale.from_points((0, 27648), (0, 100))


@pytest.mark.parametrize(
    ("order", "name"),
    [
        ("CDAB", "CDAB"), ({"word": "little"}, "CDAB"), ({"byte": "little"}, "BADC"),
        ({"word": "little", "byte": "little"}, "DCBA"), ({"word": "big", "byte": "big"}, "ABCD"),
    ],
)  # fmt: skip
def test_orders_have_a_short_and_a_long_form(order: object, name: str) -> None:
    assert tag(order=order).order == name
    if isinstance(order, dict):
        known = ORDERS[name]
        assert (known.word.value, known.byte.value) == (order.get("word", "big"), order.get("byte", "big"))


def test_bits_need_no_type() -> None:
    for keys in ({"at": "co:0"}, {"at": "di:7"}, {"at": "hr:109", "bit": 3}):
        one = ModbusTag.model_validate(keys)
        assert one.value_type() is ValueType.BOOL
        assert one.count == 1
        assert not list(one.problems())


@pytest.mark.parametrize(
    ("keys", "paths"),
    [
        ({"at": 30001, "write": {}}, ["write"]),
        ({"type": "uint32", "write": {"function": "single"}}, ["write.function"]),
        ({"type": "int16", "write": {"min": -32768, "max": 32767}}, []),
        ({"type": "int16", "write": {"min": -32769, "max": 32768}}, ["write.min", "write.max"]),
        ({"scale": 0.1, "write": {"max": 6553.5}}, []),
        ({"scale": 0.1, "write": {"max": 6553.6}}, ["write.max"]),
        ({"type": "float32", "write": {"min": -1e30, "max": 1e30}}, []),
        ({"at": "hr:65535", "type": "float32"}, ["at"]),
        ({"at": "hr:65534", "type": "float32"}, []),
        ({"invalid": [0x8000, 0xFFFF]}, []),
        ({"invalid": [0x10000, 1.0]}, ["invalid.0", "invalid.1"]),
        ({"type": "int16", "invalid": [0x8000, -32768]}, []),
        ({"type": "string", "length": 8, "scale": 2, "invalid": [0]}, ["scale", "invalid"]),
    ],
)
def test_faults_between_fields(keys: dict[str, Any], paths: list[str]) -> None:
    assert said(**keys) == paths


def test_what_the_model_lets_pass_the_codec_takes() -> None:
    for keys in (
        {"invalid": [0x8000, 5]},
        {"type": "int32", "invalid": [0xFFFFFFFF, -1]},
        {"type": "bcd16", "invalid": [0xFFFF]},
    ):
        one = tag(**keys)
        assert not list(one.problems())
        Field(type=one.data_type, start=one.at.offset, invalid=tuple(one.invalid))


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("hr:100-110", (Table.HOLDING_REGISTERS, 100, 110)),
        ("hr:100-hr:110", (Table.HOLDING_REGISTERS, 100, 110)),
        ("40101-40111", (Table.HOLDING_REGISTERS, 100, 110)), (30001, (Table.INPUT_REGISTERS, 0, 0)),
        ("co:5", (Table.COILS, 5, 5)),
    ],
)  # fmt: skip
def test_forbidden_ranges(text: object, span: tuple[Table, int, int]) -> None:
    device = ModbusDevice.model_validate({"unit": 1, "forbid": [text]})
    assert device.forbid == [Span(*span)]
    assert device.station() == "1"


@pytest.mark.parametrize("text", ["hr:110-100", "hr:1-ir:5", "hr:", "", "1-2-3", None, 1.5, "hr:1-99999"])
def test_forbidden_ranges_that_are_none(text: object) -> None:
    with pytest.raises(ValidationError):
        ModbusDevice.model_validate({"unit": 1, "forbid": [text]})


def test_a_link_names_its_wire_in_one_way() -> None:
    wires = {
        ModbusLink.model_validate({"driver": "modbus", "host": host}).wire()
        for host in ("PLC.example", "plc.example:502", "plc.EXAMPLE:0502")
    }
    assert wires == {"tcp plc.example:502"}


def test_defaults_of_a_link() -> None:
    link = ModbusLink.model_validate({"driver": "modbus", "host": "10.0.0.1"})
    assert (link.host.port, link.timeout_ns, link.max_in_flight, link.max_registers) == (
        502,
        1_000_000_000,
        1,
        125,
    )
    assert (link.reconnect.min_ns, link.reconnect.max_ns) == (1_000_000_000, 60_000_000_000)


def test_zero_is_a_value_that_may_be_written() -> None:
    one = tag(write={"min": 0, "max": 0})
    assert one.write is not None
    assert (one.write.min, one.write.max) == (0, 0)
    assert not list(one.problems())


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
INNER_KEYS = st.sampled_from(["raw", "eu", "word", "x"])
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(INNER_KEYS, inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from("at type order scale invalid bit length range deadband enum write".split())


@given(VALUES, KEYS)
def test_any_value_of_any_key_gives_a_tag_or_a_validation_error(value: object, key: str) -> None:
    try:
        one = tag(**{key: value})
    except ValidationError:
        return
    list(one.problems())
    assert isinstance(one.at, Address)


def link_faults(**keys: Any) -> list[tuple[str, str]]:
    """Path and finding of the faults of a link."""
    link = ModbusLink.model_validate({"driver": "modbus", "host": "10.0.0.1", **keys})
    return [(".".join(map(str, one.path)), one.found) for one in link.problems()]


def test_what_two_keys_of_a_link_say_together_is_checked() -> None:
    assert link_faults() == link_faults(min_timeout="1s", timeout="1s") == []
    assert link_faults(min_timeout="2s", timeout="1s") == [("min_timeout", "min_timeout 2s above timeout")]
    assert link_faults(reconnect={"min": "2s", "max": "1s"}) == [("reconnect", "min 2s above max 1s")]
    assert link_faults(transport="tls", cert="us.pem") == [("cert", "cert without key_file")]


def test_the_echo_of_a_write_is_taken_off_where_it_is_configured_and_only_there() -> None:
    """A write is answered by its own repetition: without `echo` the echo is the answer."""
    answered = {}
    for echo in (False, True):
        session = make_session(
            ModbusLink.model_validate(
                {"driver": "modbus", "host": "10.0.0.1", "transport": "rtu_over_tcp", "echo": echo}
            )
        )
        session.request(1, bytes.fromhex("06 0001 0005"), token=1, timeout_ns=10**9, now_ns=10**12)
        (frame,) = session.to_send(10**12)
        answered[echo] = [len(session.receive(frame, 10**12)), len(session.receive(frame, 10**12))]
    assert answered == {False: [1, 0], True: [0, 1]}
