"""A payload says how much its time is worth, and how many values are missing before it."""

from __future__ import annotations

import msgspec
import pytest

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, ValueType
from gateway.core.quality import CLOCK_NOT_SYNCHRONISED, DATED_LATER, UNCERTAIN
from gateway.translate.plan import compile_rule
from gateway.translate.rule import DEFAULT_FIELDS, RuleSpec

LAYOUT = Layout(
    device="pump",
    scan="fast",
    points=[Point(device="pump", tag=tag, type=ValueType.INT) for tag in ("a", "b")],
    attributes={},
)
DOUBT = UNCERTAIN | CLOCK_NOT_SYNCHRONISED
EVERYTHING = (*DEFAULT_FIELDS, ("tq", "time_quality"), ("r", "received"))


def said(topic: str, fields: tuple[tuple[str, str], ...], **more: object) -> list[dict[str, object]]:
    plan = compile_rule(RuleSpec(topic=topic, fields=fields), LAYOUT, gateway="g", site="s")
    assert plan is not None
    batch = Batch(layout=LAYOUT, values=(1, 2), received_ns=5_000_000, epoch=3, seq=4, **more)  # type: ignore[arg-type]  # by name
    return [msgspec.json.decode(payload) for _, payload in plan.messages(batch)]


@pytest.mark.parametrize("topic", ["{device}", "{device}/{tag}"])
@pytest.mark.parametrize(
    ("more", "time", "origin"),
    [
        ({}, 5, "gateway"),
        ({"time_quality": DOUBT}, 5, "gateway-unsynchronised"),
        ({"time_quality": UNCERTAIN | DATED_LATER, "dated_ns": 9_000_000}, 9, "gateway-dated"),
        ({"source_time_ns": 7_000_000}, 7, "device"),
        ({"source_time_ns": 7_000_000, "time_quality": DOUBT}, 7, "device"),
    ],
)
def test_the_origin_of_a_time_is_in_every_payload(
    topic: str, more: dict[str, object], time: int, origin: str
) -> None:
    plain, full = said(topic, DEFAULT_FIELDS, **more), said(topic, EVERYTHING, **more)
    for fast, slow in zip(plain, full, strict=True):
        assert (fast["t"], fast["ts"]) == (slow["t"], slow["ts"]) == (time, origin)
        assert slow["r"] == 5  # as it was received
        assert {key: value for key, value in slow.items() if key in fast} == fast


def test_missing_values_are_counted_by_tag_and_only_where_there_are_some() -> None:
    assert said("{device}", DEFAULT_FIELDS, missing=(0, 7))[0]["m"] == {"b": 7}
    assert said("{device}", DEFAULT_FIELDS, missing=3)[0]["m"] == {"a": 3, "b": 3}
    assert [one.get("m") for one in said("{device}/{tag}", DEFAULT_FIELDS, missing=(0, 7))] == [None, 7]
    assert "m" not in said("{device}", DEFAULT_FIELDS)[0]
