"""The one error of this room: a rule that cannot be compiled, with every fault in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from gateway.core.errors import ConfigError, Problem


class RuleError(ConfigError):
    """A rule is wrong. `problems` has each fault; their paths start at the rule, for example ("topic",)."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where a known word is near, else an empty text."""
    near = difflib.get_close_matches(word, sorted(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
