"""Patterns over device/tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.point import Layout, Point, ValueType
from gateway.translate.faults import RuleError
from gateway.translate.match import Match, check_match, select

TAGS = ("speed", "speed.max", "mode")
LAYOUT = Layout(
    device="pump-07", scan="", points=[Point(device="pump-07", tag=t, type=ValueType.INT) for t in TAGS]
)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*/*"], None),
        (["pump-*/*"], None),
        (["pump-07/*"], None),
        (["pump-0*7/*d*"], None),
        (["bay-*/*"], ()),
        (["*/speed"], (0,)),
        (["*/speed*"], (0, 1)),
        (["*/speed.*"], (1,)),  # a dot is a dot
        (["*/speedXmax"], ()),
        (["*/mode", "*/speed"], (0, 2)),
        (["*/*", "!*/speed"], (1, 2)),
        (["!*/speed", "*/*"], (1, 2)),
        (["*/*", "!pump-*/*"], ()),
        (["*-07/m*e"], (2,)),
        (["p/*"], ()),
    ],
)
def test_select(patterns: list[str], expected: tuple[int, ...] | None) -> None:
    assert select(LAYOUT, Match(patterns)) == expected


def test_a_star_stays_within_its_part() -> None:
    assert not Match(["a*z/x"]).covers("a", "z/x")
    assert Match(["*/*"]).covers("d", "a/b")


@pytest.mark.parametrize("pattern", ["", "speed", "/", "a/", "/b", "a/b/c", "!x", "!"])
def test_a_faulty_pattern_says_where(pattern: str) -> None:
    problems = check_match(["*/*", pattern])
    assert [problem.path for problem in problems] == [("match", 1)]
    with pytest.raises(RuleError, match=r"match\.1"):
        Match(["*/*", pattern])


def test_a_list_of_excludes_alone_is_a_fault() -> None:
    assert [problem.path for problem in check_match(["!a/b"])] == [("match",)]
    assert [problem.path for problem in check_match([])] == [("match",)]


NAMES = st.text(st.characters(exclude_characters="*!/\0", exclude_categories=["Cs"]), min_size=1, max_size=8)


@given(NAMES, NAMES, NAMES, NAMES)
def test_a_name_without_a_star_means_itself(device: str, tag: str, other_device: str, other_tag: str) -> None:
    covers = Match([f"{device}/{tag}"]).covers
    assert covers(device, tag)
    assert covers(other_device, other_tag) == ((other_device, other_tag) == (device, tag))
    assert not Match(["*/*", f"!{device}/{tag}"]).covers(device, tag)
