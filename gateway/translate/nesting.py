"""Tags as paths: `motor.speed` and `motor.temp` as one object in another."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from gateway.core.errors import Problem
from gateway.translate.encoding import Encoding

SEPARATOR: Final = "."  # the one character of names that divides them
DEPTH_MAX: Final = 16


def nested(by_tag: Mapping[str, object]) -> dict[str, Any]:
    """The same values, each at its path; the tags have no fault that `check_paths` finds."""
    tree: dict[str, Any] = {}
    for tag, value in by_tag.items():
        *path, last = tag.split(SEPARATOR)
        here = tree
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return tree


def nested_text(tags: Collection[str], encoding: Encoding) -> bytes:
    """The object of all these tags with a `%b` for each value, in their order.

    Empty where that order cannot be kept: another tag stands between two of one branch.
    """
    slots = nested({tag: number for number, tag in enumerate(tags)})
    order: list[int] = []
    text = _text(slots, encoding, order)
    return text if order == list(range(len(order))) else b""


def check_paths(tags: Collection[str]) -> list[Problem]:
    """Every tag that is a branch for another one or has an empty part or too many."""
    problems: list[Problem] = []
    known = set(tags)
    for tag in tags:
        parts = tag.split(SEPARATOR)
        branches = {SEPARATOR.join(parts[:count]) for count in range(1, len(parts))} & known
        if branches:
            found = f"the tags {min(branches)!r} and {tag!r}, which are a value and what it consists of"
            problems.append(Problem(("nest",), found, "other names, or no nest"))
        elif "" in parts or len(parts) > DEPTH_MAX:
            expected = f"1 to {DEPTH_MAX} parts with {SEPARATOR!r} between them, or no nest"
            problems.append(Problem(("nest",), f"the tag {tag!r}", expected))
    return problems


def _text(tree: Mapping[str, Any], encoding: Encoding, order: list[int]) -> bytes:
    pairs: list[bytes] = []
    for name, inner in tree.items():
        if isinstance(inner, dict):
            text = _text(inner, encoding, order)
        else:
            order.append(inner)
            text = b"%b"
        pairs.append(_escaped(encoding.encode(name)) + encoding.colon + text)
    return _escaped(encoding.open(len(tree))) + encoding.between.join(pairs) + encoding.close


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
