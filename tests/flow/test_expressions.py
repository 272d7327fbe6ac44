"""Tags with an expression: values, qualities and commands on their way through."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.batch import Batch
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.core.quality import (
    BAD,
    COMM_LOST,
    INVALID,
    NOT_YET_READ,
    OUT_OF_RANGE,
    OVERFLOW,
    STALE,
    UNCERTAIN,
)
from gateway.flow.expressions import BlockExpressions, ScaledTarget, TagExpression
from gateway.translate.expression import KIND_OF, compile_expression
from gateway.translate.expression_inverse import invert

LOST = BAD | COMM_LOST
SECOND = 1_000_000_000


def block(source: str, *, given: ValueType = ValueType.FLOAT, shown: ValueType = ValueType.FLOAT,
          **more: Any) -> tuple[Layout, BlockExpressions]:  # fmt: skip
    beyond = {key: more.pop(key) for key in ("below", "above") if key in more}
    points = [
        Point(device="p1", tag="a", type=shown, **more),
        Point(device="p1", tag="b", type=ValueType.FLOAT),
    ]
    layout = Layout(device="p1", scan="f", points=points)
    expression = compile_expression(source, value=KIND_OF[given])
    return layout, BlockExpressions(layout, {"a": TagExpression(points[0], given, expression, **beyond)})


def shown(made: tuple[Layout, BlockExpressions], *values: Value, **columns: Any) -> tuple[Any, Any]:
    given = Batch(**{"layout": made[0], "values": values, "received_ns": 5 * SECOND} | columns)
    made[1].apply(given)
    return given.values, given.quality


def test_the_result_takes_the_place_of_the_value_and_others_stay() -> None:
    made = block("value / 60")
    assert shown(made, 90.0, 7.0) == ((1.5, 7.0), 0)
    assert shown(made, 7.0, 90.0, 30.0, columns=(1, 0, 0)) == ((7.0, 1.5, 0.5), 0)
    assert shown(made, 7.0, columns=(1,)) == ((7.0,), 0)
    assert shown(made, columns=()) == ((), 0)


def test_a_bad_value_stays_bad_and_doubt_stays_doubt() -> None:
    made = block("value / 60")
    assert shown(made, None, None, quality=LOST) == ((None, None), LOST)
    assert shown(made, 90.0, 7.0, quality=(LOST, 0)) == ((None, 7.0), (LOST, 0))
    assert shown(made, 90.0, 7.0, quality=(UNCERTAIN | STALE, 0)) == ((1.5, 7.0), (UNCERTAIN | STALE, 0))


@pytest.mark.parametrize(
    ("source", "value", "quality"),
    [
        ("1 / value", 0.0, BAD | INVALID),
        ("sqrt(value)", -1.0, BAD | INVALID),
        ("value * 1e308", 1e308, BAD | OVERFLOW),
        ("value - value * 1e308 * 1e308", math.inf, BAD | INVALID),
        ("exp(value)", 1000.0, BAD | OVERFLOW),
        ("value / 60", "text", BAD | INVALID),
    ],
)
def test_what_has_no_result_is_bad_and_stops_nothing(source: str, value: Value, quality: int) -> None:
    assert shown(block(source), value, 7.0) == ((None, 7.0), (quality, 0))


def test_integers_beyond_64_bits_are_bad() -> None:
    made = block("value * 2", given=ValueType.INT, shown=ValueType.INT)
    assert shown(made, 2**63 - 1, 7.0) == ((2**64 - 2, 7.0), 0)
    assert shown(made, 2**63, 7.0) == ((None, 7.0), (BAD | OVERFLOW, 0))
    assert shown(block("value", given=ValueType.INT), 3, 7.0)[0] == (3.0, 7.0)


def test_the_range_is_judged_behind_the_expression() -> None:
    made = block("value / 60", low=0.0, high=1.0, below="bad", above="uncertain")
    assert shown(made, 60.0, 7.0) == ((1.0, 7.0), 0)
    assert shown(made, 61.0 * 60, 7.0) == ((61.0, 7.0), (UNCERTAIN | OUT_OF_RANGE, 0))
    assert shown(made, -1.0, 7.0) == ((None, 7.0), (BAD | OUT_OF_RANGE, 0))
    assert shown(block("value", low=0.0, high=1.0, above="good"), 2.0, 7.0) == ((2.0, 7.0), 0)


def test_a_rate_has_no_value_before_there_are_two() -> None:
    made = block("(value - prev) / dt")
    assert shown(made, 10.0, 7.0, monotonic_ns=SECOND) == ((None, 7.0), (BAD | NOT_YET_READ, 0))
    assert shown(made, 30.0, 7.0, monotonic_ns=3 * SECOND) == ((10.0, 7.0), 0)
    assert shown(made, None, 7.0, quality=(LOST, 0), monotonic_ns=4 * SECOND) == ((None, 7.0), (LOST, 0))
    assert shown(made, 31.0, 7.0, monotonic_ns=5 * SECOND) == ((0.5, 7.0), 0)  # since the last good one
    assert shown(made, 31.0, 7.0, monotonic_ns=5 * SECOND) == ((None, 7.0), (BAD | INVALID, 0))  # dt is 0
    assert shown(made, "text", 7.0, monotonic_ns=6 * SECOND) == ((None, 7.0), (BAD | INVALID, 0))
    assert shown(made, 33.0, 7.0, monotonic_ns=7 * SECOND) == ((1.0, 7.0), 0)


def test_the_time_of_the_device_is_the_one_that_passes() -> None:
    made = block("(value - prev) / dt")
    shown(made, 10.0, 7.0, source_time_ns=SECOND, monotonic_ns=50 * SECOND)
    said = shown(
        made, 10.0, 12.0, source_time_ns=(3 * SECOND, 7 * SECOND), columns=(0, 0), monotonic_ns=51 * SECOND
    )
    assert said == ((0.0, 0.5), 0)
    assert shown(block("value + now"), 1.0, 7.0) == ((6.0, 7.0), 0)
    assert shown(block("value + now"), 1.0, 7.0, source_time_ns=9 * SECOND) == ((10.0, 7.0), 0)


VALUES = st.floats() | st.integers(-(2**70), 2**70) | st.none() | st.text(max_size=2)


@given(
    st.lists(VALUES, min_size=4, max_size=4),
    st.sampled_from(["value / 60", "1 / value", "sqrt(value)", "value * 1e300", "3 if value > 0 else value"]),
)
def test_all_at_once_is_the_same_as_one_by_one(values: list[Value], source: str) -> None:
    types = (ValueType.FLOAT, ValueType.INT, ValueType.FLOAT, ValueType.BOOL)
    results = (ValueType.FLOAT, ValueType.INT, ValueType.FLOAT, ValueType.BOOL)
    sources = (source, "value * 2", "value + 1", "not value")
    points = [
        Point(device="p1", tag=f"t{number}", type=kind, **({"low": 0.0, "high": 1e6} if number == 2 else {}))
        for number, kind in enumerate(results)
    ]
    layout = Layout(device="p1", scan="f", points=points)
    made = BlockExpressions(
        layout,
        {
            point.tag: TagExpression(point, kind, compile_expression(text, value=KIND_OF[kind]))
            for point, kind, text in zip(points, types, sources, strict=True)
        },
    )
    at_once = shown((layout, made), *values)
    columns = tuple(range(4))
    one_by_one = shown((layout, made), *values, columns=columns)
    assert repr(at_once) == repr(one_by_one)
    good = (1.5, 2, 3.5, True)
    assert shown((layout, made), *good) == shown((layout, made), *good, columns=columns)


def test_what_does_the_same_may_keep_its_memory() -> None:
    assert block("value / 60")[1].is_like(block("value / 60")[1])
    assert not block("value / 60")[1].is_like(block("value / 61")[1])
    assert not block("value / 60")[1].is_like(block("value / 60", low=0.0, high=1.0)[1])


class Device:
    """Takes what it is given and says that it reads so."""

    def __init__(self) -> None:
        self.given: list[Value] = []

    async def execute(self, command: Command, on_sent: Callable[[], None]) -> CommandResult:
        self.given.append(command.value)
        return CommandResult(id=command.id, outcome=Outcome.VERIFIED, value=command.value)


def test_a_command_is_turned_around_and_its_read_back_shown_as_everybody_sees_it() -> None:
    layout, made = block("value / 10", given=ValueType.INT)
    inverse = invert(made.tags["a"].expression, into=ValueType.INT)
    assert inverse is not None
    device = Device()
    target = ScaledTarget(device, {"p1/a": inverse}, {"p1/a": made.tags["a"]})

    def sent(tag: str, value: Value) -> CommandResult:
        command = Command(id="1", device="p1", tag=tag, value=value, issuer="test", received_ns=0,
                          deadline_monotonic_ns=0)  # fmt: skip
        return asyncio.run(target.execute(command, lambda: None))

    assert sent("a", 20.5).value == 20.5
    assert sent("a", 20.56).value == 20.6  # the nearest that the device has
    assert sent("b", 3.5).value == 3.5
    assert device.given == [205, 206, 3.5]
    refused = ScaledTarget(device, {"p1/a": lambda value: 1 / 0}, {})
    target = refused
    result = sent("a", 1.0)
    assert result.outcome is Outcome.REJECTED
    assert "p1/a: found 1.0, for which its expression has no value" in result.reason
    assert len(device.given) == 3
    assert len(layout) == 2
