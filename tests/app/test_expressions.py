"""Expressions in a configuration: types, commands, and faults with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.compiled import Compiled, compile_site
from gateway.app.kinds import kinds
from gateway.config.load import ConfigErrors, load
from gateway.core.point import ValueType

SITE = """\
version: 1
gateway: {name: gw1}
links:
  plc: {driver: modbus, host: 10.0.0.11}
devices:
  p1:
    link: plc
    unit: 1
    tags:
      other: {at: "hr:9", type: int16}
      t: {at: "hr:0", TAG}
"""


def compiled(tmp_path: Path, tag: str) -> Compiled:
    (tmp_path / "gateway.yaml").write_text(SITE.replace("TAG", tag))
    return compile_site(load(tmp_path, kinds()))


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("type: int16, expr: value / 60", ValueType.FLOAT),
        ("type: int16, expr: value + 1", ValueType.FLOAT),
        ("type: int16, expr: value + 1, result: int", ValueType.INT),
        ("type: int16, expr: value > 5, result: bool", ValueType.BOOL),
        ("type: int16, expr: \"'on' if value > 0 else 'off'\", result: string", ValueType.STRING),
        ("type: string, length: 4, expr: value == 'on', result: bool", ValueType.BOOL),
        ("type: bool, bit: 3, expr: not value", ValueType.BOOL),
        ("type: int16, convert: {from: psi, to: bar}", ValueType.FLOAT),
    ],
)
def test_the_point_has_the_type_of_the_result(tmp_path: Path, tag: str, kind: ValueType) -> None:
    [layout] = compiled(tmp_path, tag).layouts
    assert layout.points[layout.index["t"]].type is kind
    assert layout.points[layout.index["other"]].type is ValueType.INT


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        ("type: int16, expr: value /", "10:41: found invalid syntax at character 8, expected"),
        (
            "type: int16, expr: vale / 2",
            "found the name 'vale' at character 1, expected one of value, prev, dt, now (did",
        ),
        ("type: int16, expr: 10**10**10 + value", "which has no result"),
        (
            "type: int16, expr: value > 5",
            "an expression that gives true or false, expected a number, or another result:",
        ),
        ("type: int16, expr: value / 2, result: int", "gives a number, expected a whole number, or another"),
        ("type: int16, convert: {from: psy, to: bar}", "found the unit 'psy', expected one of K, °C"),
        ("type: int16, convert: {from: psi, to: kWh}", "found 'kWh' for 'psi', expected one of Pa, hPa"),
        ("type: int16, convert: {from: psi, to: bar}, expr: value", "found convert and expr"),
        ("type: int16, convert: {from: psi, to: bar}, unit: psi", "psi with convert to bar"),
        ("type: string, length: 2, convert: {from: psi, to: bar}", "found convert of a string"),
        ("type: int16, expr: 1 + 1", "an expression without value, expected value in it"),
        ("type: int16, result: int", "found result without expr, expected expr: beside it"),
        (
            "type: int16, expr: value * value, write: {}",
            "which cannot be turned around, expected expr: under write",
        ),
        (
            "type: int16, expr: value - prev, write: {}",
            "which cannot be turned around, expected expr: under write",
        ),
        (
            "type: int16, expr: value * value, write: {expr: value ** 0.5}",
            "gives a number, expected a whole number",
        ),
        ("type: int16, expr: value * value, write: {expr: prev}", "found the name 'prev'"),
        ("type: int16, write: {expr: value}", "found expr of write without expr"),
        ("type: int16, expr: value > 5, result: bool, range: [0, 1]", "range of a bool"),
    ],
)
def test_faults_have_their_place(tmp_path: Path, tag: str, found: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        compiled(tmp_path, tag)
    assert "gateway.yaml:11:" in str(caught.value)
    assert found.removeprefix("10:41: ") in str(caught.value)


def test_what_a_command_gives_the_device(tmp_path: Path) -> None:
    writes = compiled(
        tmp_path, "type: int16, expr: value / 10 - 40, write: {min: -40, max: 4000}"
    ).expressions.writes
    assert writes["p1/t"](20.5) == 605
    tag = "type: uint16, expr: sqrt(value), write: {expr: round(value ** 2)}"
    assert compiled(tmp_path, tag).expressions.writes["p1/t"](12.0) == 144
    tag = "type: float32, expr: sqrt(value), write: {expr: round(value)}"
    written = compiled(tmp_path, tag).expressions.writes["p1/t"](12.0)
    assert (written, type(written)) == (12.0, float)


def test_a_converted_tag_has_the_unit_it_is_converted_to_and_takes_commands_in_it(tmp_path: Path) -> None:
    made = compiled(tmp_path, "type: int16, scale: 0.1, convert: {from: °F, to: °C}, write: {max: 100}")
    [layout] = made.layouts
    assert layout.points[layout.index["t"]].unit == "°C"
    assert made.expressions.writes["p1/t"](100.0) == 212.0
    assert made.expressions.tags["p1/t"].result(212.0, 0) == (100.0, 0)
