"""Which points a rule is about: globs over `device/tag`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from gateway.core.errors import Problem
from gateway.core.point import Layout
from gateway.translate.faults import RuleError

EXCLUDE: Final = "!"
Parts: TypeAlias = tuple[re.Pattern[str], re.Pattern[str]]  # of device and tag: a name may have any character


class Match:
    """A compiled list of patterns: a name matches where any pattern does and no "!pattern" does.

    `*` stands for any run of characters within one part; the order of the patterns does not matter.
    """

    __slots__ = ("_exclude", "_include", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises `RuleError` for what `check_match` finds."""
        self.patterns: Final = tuple(patterns)
        if problems := check_match(self.patterns):
            raise RuleError(problems)
        self._include = tuple(_parts(text) for text in self.patterns if not text.startswith(EXCLUDE))
        self._exclude = tuple(_parts(text[1:]) for text in self.patterns if text.startswith(EXCLUDE))

    def covers(self, device: str, tag: str) -> bool:
        """Whether `device/tag` is meant."""
        if not _is_any(self._include, device, tag):
            return False
        return not _is_any(self._exclude, device, tag)


def check_match(patterns: Iterable[str]) -> list[Problem]:
    """Every fault in a list of patterns, each at ("match", position)."""
    problems: list[Problem] = []
    includes = 0
    for position, pattern in enumerate(patterns):
        text = pattern.removeprefix(EXCLUDE)
        includes += text == pattern
        device, slash, tag = text.partition("/")
        if not slash or not device or not tag or "/" in tag:
            problems.append(
                Problem(
                    ("match", position),
                    repr(pattern),
                    "device/tag with one slash, for example 'pump-*/speed'",
                )
            )
    if not includes:
        problems.append(
            Problem(("match",), "no pattern that takes anything in", "at least one, for example '*/*'")
        )
    return problems


def select(layout: Layout, match: Match) -> tuple[int, ...] | None:
    """Columns of the layout that a match covers: None for all of them, () for none."""
    columns = tuple(
        column for column, point in enumerate(layout.points) if match.covers(point.device, point.tag)
    )
    return None if columns and len(columns) == len(layout.points) else columns


def _parts(pattern: str) -> Parts:
    device, _, tag = pattern.partition("/")
    return _glob(device), _glob(tag)


def _glob(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*"), re.DOTALL)


def _is_any(patterns: tuple[Parts, ...], device: str, tag: str) -> bool:
    return any(one.fullmatch(device) and other.fullmatch(tag) for one, other in patterns)
