"""Expressions: what they may say, that nothing escapes or hangs, and that lines are turned around exactly."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core.point import ValueType
from gateway.translate.expression import (
    DEPTH_MAX,
    FUNCTIONS,
    NODES_MAX,
    SOURCE_CHARACTERS_MAX,
    ExpressionError,
    Kind,
    compile_expression,
)
from gateway.translate.expression_inverse import invert


@pytest.mark.parametrize(
    ("source", "kind", "value", "result"),
    [
        ("value / 60", Kind.INT, 90, 1.5),
        ("value * 2 + 1", Kind.INT, 2**63, 2**64 + 1),
        ("value // 7 % 3 - -value", Kind.INT, 100, 102),
        ("value ** 2", Kind.INT, 3, 9.0),
        ("(value & 0xF0) >> 4 | 1 << 3", Kind.INT, 0xA7, 10),
        ("bit(value, 3)", Kind.INT, 8, True),
        ('"high" if value > 80 else "normal"', Kind.FLOAT, 80.5, "high"),
        ("0 < value <= 10 and not value == 5", Kind.FLOAT, 5.0, False),
        ("value == 'auto' or value != value", Kind.STRING, "auto", True),
        ("not value", Kind.BOOL, True, False),
        ("float(value) * 100", Kind.BOOL, True, 100.0),
        ("clamp(round(sqrt(value), 2), 0, 1.5)", Kind.FLOAT, 2.0, 1.41),
        ("max(value,\n  floor(3.7), 2)", Kind.FLOAT, 1.0, 3),
        ("  value  # as it is", Kind.FLOAT, 1.0, 1.0),
    ],
)
def test_what_can_be_said(source: str, kind: Kind, value: Any, result: Any) -> None:
    made = compile_expression(source, value=kind)
    assert made.names == ("value",)
    found = made.call(value)
    assert found == result
    assert {Kind.BOOL: bool, Kind.STRING: str}.get(made.kind, type(found)) is type(found)


@pytest.mark.parametrize(
    ("source", "position", "found"),
    [
        ("10**10**10", 1, "no result"),
        ("value + 10**10**10", 9, "no result"),
        ("value + 1/0", 9, "no result"),
        ("value.real", 1, "'value.real'"),
        ("2 * value[0]", 5, "'value[0]'"),
        ("(lambda: 1)()", 1, "'(lambda: 1)()'"),
        ("[value]", 1, "'[value]'"),
        ("[0 for x in value]", 1, "'[0 for x in value]'"),
        ("value if value else 1", 10, "a whole number"),
        ("'a' * 10**9", 1, "a text"),
        ("value + 'a'", 9, "a text"),
        ("value < 'a'", 1, "in an order"),
        ("value << 64", 10, "'64'"),
        ("value << value", 10, "'value'"),
        ("round(value, True)", 14, "'True'"),
        ("exec('1')", 1, "the function 'exec'"),
        ("__import__('os')", 1, "the function '__import__'"),
        ("min(value)", 1, "min with 1 arguments"),
        ("min(*value, 1)", 5, "'*value'"),
        ("round(value, digits=1)", 1, "'round(value, digits=1)'"),
        ("vlaue / 2", 1, "the name 'vlaue'"),
        ("abs", 1, "the name 'abs'"),
        ("value := 1", 7, "invalid syntax"),
        ("value +", 8, "invalid syntax"),
        ("", 1, "syntax"),
        ("f'{value}'", 1, "\"f'{value}'\""),
        ("value @ 1", 1, "'value @ 1'"),
        ("value is 1", 1, "'value is 1'"),
        ("value + 1j", 9, "'1j'"),
        ("value + 1e999", 9, "'1e999'"),
        ("value + 99999999999999999999", 9, "'99999999999999999999'"),
        ("'é' == value", 1, "a text compared with a whole number"),
        ("(0 if 'é' == 'é' else 1) + x", 28, "the name 'x'"),
        ("1" * 1001, 1001, "1001 characters"),
        ("value\0", 6, "a NUL"),
        ("-" * 500 + "1", DEPTH_MAX + 2, "nesting"),
        ("(" * 150 + "1" + ")" * 150, 1, ""),
        ("+".join(["value"] * 160), 1, "nesting"),
        (f"max({','.join(['value'] * 17)})", 1, "max with 17"),
        (" and ".join(["1<2"] * 110), 1, "too many parts"),
    ],
)
def test_what_cannot_be_said_is_refused_with_its_place(source: str, position: int, found: str) -> None:
    if found == "":  # brackets leave nothing in the tree
        compile_expression(source, value=Kind.INT)
        return
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, value=Kind.INT)
    assert found in caught.value.found
    if "nesting" not in found and "too many" not in found and source:
        assert caught.value.position == position


def test_near_names_are_offered() -> None:
    for source, near in (("vlaue", "value"), ("sqr(value)", "sqrt")):
        with pytest.raises(ExpressionError, match=f"did you mean '{near}'"):
            compile_expression(source, value=Kind.FLOAT)


@pytest.mark.parametrize(
    "source", ["1 / value", "value % 0.0 + value", "log(value)", "exp(1000 + value)", "2.0 ** (value + 2000)",
               "(value - 8) ** 0.5", "sqrt(value - 1)", "floor(value * 1e300 * 1e300 + 1e308 * (value + 10))"]
)  # fmt: skip
def test_what_has_no_result_says_so_when_it_is_asked(source: str) -> None:
    made = compile_expression(source, value=Kind.FLOAT)
    try:
        assert not math.isfinite(made.call(0.0))
    except (ArithmeticError, ValueError):
        pass


# --- whatever the source ----------------------------------------------------

ATOMS = st.sampled_from(
    ["value", "prev", "dt", "now", "1", "0", "2.5", "-3", "1e308", "18446744073709551616", "True", "'a'",
     "''", "x", "None", "...", "__builtins__", "b'a'", "10", "63"]
)  # fmt: skip
OPERATORS = st.sampled_from("+ - * / // % ** & | ^ << >> < <= > >= == != and or is in @ . , := if".split())


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    functions = st.sampled_from([*FUNCTIONS, "eval", "getattr", "type", "sum"])
    calls = st.tuples(functions, st.lists(inner, max_size=3))
    return st.one_of(
        st.tuples(inner, OPERATORS, inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        calls.map(lambda call: f"{call[0]}({', '.join(call[1])})"),
        inner.map(lambda part: f"not {part}"),
        inner.map(lambda part: f"~{part}"),
        inner.map(lambda part: f"{part}.real"),
        inner.map(lambda part: f"[{part}]"),
        inner.map(lambda part: f"{part}[0]"),
    )


SOURCES = st.recursive(ATOMS, compound, max_leaves=12)
SAMPLES: dict[Kind, list[Any]] = {
    Kind.BOOL: [True, False],
    Kind.INT: [0, -1, 2**64 - 1, -(2**63)],
    Kind.FLOAT: [0.0, -1.5, 1e308, 5e-324],
    Kind.STRING: ["", "a"],
}
RESULTS: dict[Kind, tuple[type, ...]] = {
    Kind.BOOL: (bool,), Kind.INT: (int,), Kind.FLOAT: (int, float), Kind.STRING: (str,)
}  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(SOURCES | st.text(max_size=60), st.sampled_from(Kind))
@example("(((value*value)*value)*value)", Kind.INT)
@example("int(1e308)*int(1e308)*int(1e308)", Kind.INT)
def test_no_source_hangs_escapes_or_gives_another_kind(source: str, kind: Kind) -> None:
    refused: ExpressionError | None = None
    try:
        made = compile_expression(source, value=kind)
    except ExpressionError as error:
        refused = error
    if refused is not None:
        assert 1 <= refused.position <= len(source) + 1
        assert len(refused.found) < 300
        return
    for value in SAMPLES[kind]:
        given_values = {"value": value, "prev": SAMPLES[kind][0], "dt": 0.25, "now": 1.7e9}
        try:
            result = made.call(*(given_values[name] for name in made.names))
        except (ArithmeticError, ValueError):
            continue
        assert isinstance(result, RESULTS[made.kind])
        assert not isinstance(result, int) or result.bit_length() < 200_000


def test_the_largest_source_is_bounded_work() -> None:
    for source in (
        "+".join(["value"] * 38),
        "*".join(f"({'*'.join(['value'] * 6)})" for _ in range(16)),
        "1 if " + " and ".join(["value > 1"] * 60) + " else 2",
    ):
        assert len(source) <= SOURCE_CHARACTERS_MAX
        assert source.count("value") < NODES_MAX
        compile_expression(source, value=Kind.INT).call(2**64 - 1)


# --- turned around ----------------------------------------------------------

NUMBERS = st.decimals(min_value=-1000, max_value=1000, places=3).filter(bool).map(lambda found: f"({found})")


FORMS = ["({0} + {1})", "({1} + {0})", "({0} - {1})", "({1} - {0})", "({0} * {1})", "({1} * {0})",
         "({0} / {1})", "(-{0})"]  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> str:
    source = "value"
    for _ in range(draw(st.integers(1, 5))):
        number = draw(NUMBERS)
        form = draw(st.sampled_from(FORMS))
        source = form.format(source, number)
    return source


@given(lines(), st.integers(-(2**31), 2**31))
def test_a_line_is_turned_around(source: str, raw: int) -> None:
    made = compile_expression(source, value=Kind.INT)
    back = invert(made, into=ValueType.INT)
    assert back is not None
    assert back(made.call(raw)) == raw


@given(st.floats(-1e9, 1e9))
def test_floats_come_back_within_their_resolution(raw: float) -> None:
    made = compile_expression("(value - 32) / 1.8", value=Kind.FLOAT)
    back = invert(made, into=ValueType.FLOAT)
    assert back is not None
    found = back(made.call(raw))
    assert isinstance(found, float)
    assert math.isclose(found, raw, rel_tol=1e-12, abs_tol=1e-12)


def test_a_tenth_is_a_tenth_when_it_is_turned_around() -> None:
    made = compile_expression("value * 0.1", value=Kind.FLOAT)
    back = invert(made, into=ValueType.FLOAT)
    assert back is not None
    assert back(0.3) == float(Fraction(0.3) * 10)


@pytest.mark.parametrize("source", ["not value", "not (not value)", "value"])
def test_truth_values_are_turned_around(source: str) -> None:
    made = compile_expression(source, value=Kind.BOOL)
    back = invert(made, into=ValueType.BOOL)
    assert back is not None
    for raw in (True, False):
        assert back(made.call(raw)) is raw


@pytest.mark.parametrize(
    "source",
    ["value * value", "value ** 2", "abs(value)", "round(value)", "value // 2", "value * 0", "value - prev",
     "1 / value", "value if value > 0 else 0", "value + now", "value - value", "value % 10", "min(value, 5)"],
)  # fmt: skip
def test_what_is_no_line_has_no_inverse(source: str) -> None:
    assert invert(compile_expression(source, value=Kind.FLOAT), into=ValueType.FLOAT) is None
