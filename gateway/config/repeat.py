"""Arrays of equal tags: `phase{n}: {at: "hr:10", repeat: {count: 3, stride: 2}}` is phase1, phase2, phase3.

The address of each next one is `stride` further: the last number in `at` (or in another key, `over`) grows.
`{n}` counts from `first`, in the name and in every text of the tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from gateway.config.faults import Found
from gateway.config.scalars import choice, shown
from gateway.config.tree import Key, Mapping, Node, Place, Scalar, Sequence, plain, without

COUNT_MAX: Final = 10_000
NUMBER: Final = "{n}"
REPEAT_SCHEMA: Final[dict[str, Any]] = {
    "description": "Makes an array of the tag, whose name has {n} in it: the address of each next one is "
    "stride further.",
    "type": "object",
    "properties": {
        "count": {"type": "integer", "minimum": 1, "maximum": COUNT_MAX},
        "stride": {"type": "integer"},
        "first": {"type": "integer", "minimum": 0, "default": 1, "description": "What {n} counts from."},
        "over": {"enum": ["at", "bit"], "default": "at", "description": "The key that grows."},
    },
    "required": ["count", "stride"],
    "additionalProperties": False,
}
_LAST_NUMBER: Final = re.compile(r"(0x[0-9A-Fa-f]+|[0-9]+)(?!.*[0-9])", re.ASCII)
_MODICON_DIGITS: Final = 5  # or 6, with the table in front
_KEYS: Final = ("count", "stride", "first", "over")


_NUMBERS: Final = (
    ("count", 1, COUNT_MAX, True),
    ("stride", -65_535, 65_535, True),
    ("first", 0, COUNT_MAX, False),
)


def expand_tags(owner: Mapping) -> list[Found]:
    """Replace the arrays in `owner`'s tags by their members. What is wrong is left out and returned."""
    tags = owner.items.get("tags")
    found: list[Found] = []
    if not isinstance(tags, Mapping) or not any(_has_repeat(node) for node in tags.items.values()):
        return found
    expanded = Mapping(tags.place)
    for key, node in tags.items.items():
        place = tags.places[key]
        if not isinstance(node, Mapping) or not _has_repeat(node):
            expanded.put(key, place, node)
            continue
        faults = list(_faults(key, place, node)) or list(_clashes(str(key), node, tags, expanded))
        if faults:
            found += faults
        else:
            _expand(str(key), place, node, into=expanded)
    owner.items["tags"] = expanded
    return found


def _has_repeat(node: Node) -> bool:
    return isinstance(node, Mapping) and "repeat" in node.items


def _expand(name: str, place: Place, node: Mapping, *, into: Mapping) -> None:
    repeat = plain(node.items["repeat"])
    first, over = repeat.get("first", 1), repeat.get("over", "at")
    rest = without(node, "repeat")
    for index in range(repeat["count"]):
        number = str(first + index)
        member = Mapping(node.place)
        for key, child in rest.items.items():
            of_member = _named(child, number)
            if key == over:
                of_member = shifted(of_member, index * repeat["stride"])
            member.put(key, node.places[key], of_member)
        into.put(name.replace(NUMBER, number), place, member)


def _clashes(name: str, node: Mapping, tags: Mapping, expanded: Mapping) -> Iterator[Found]:
    """Members that are there already, and numbers of tables that the array runs out of."""
    repeat = plain(node.items["repeat"])
    for index in range(repeat["count"]):
        member = name.replace(NUMBER, str(repeat.get("first", 1) + index))
        if member in tags.items or member in expanded.items:
            yield (
                node.items["repeat"].place,
                f"'{member}' as a member, which is there already",
                "each tag once: another name for the array or for the tag",
            )
            return
    at = node.items.get("at")
    by = (repeat["count"] - 1) * repeat["stride"]
    if at is not None and repeat.get("over", "at") == "at" and leaves_table(at, by):
        last = shown(plain(shifted(at, by)))
        yield at.place, f"{last} as the last one, which is in another table", "fewer, or hr:, ir:, co:, di:"


def leaves_table(node: Node, by: int) -> bool:
    """Whether a Modicon number, which has its table as the first digit, has another one so much further."""
    before, after = str(plain(node)), str(plain(shifted(node, by)))
    return before.isdigit() and len(before) >= _MODICON_DIGITS and before[0] != after[0]


def _named(node: Node, number: str) -> Node:
    if isinstance(node, Scalar):
        if isinstance(node.value, str) and NUMBER in node.value:
            return Scalar(node.value.replace(NUMBER, number), node.place)
        return node
    if isinstance(node, Sequence):
        return Sequence(node.place, [_named(child, number) for child in node.items])
    copy = Mapping(node.place)
    for key, child in node.items.items():
        copy.put(key, node.places[key], _named(child, number))
    return copy


def shifted(node: Node, by: int) -> Node:
    """The value with its last number, or the number itself, raised."""
    if not isinstance(node, Scalar):
        return node
    if isinstance(node.value, int) and not isinstance(node.value, bool):
        return Scalar(node.value + by, node.place)
    return Scalar(_LAST_NUMBER.sub(lambda found: _sum(found[1], by), str(node.value), count=1), node.place)


def _sum(text: str, by: int) -> str:
    if text.lower().startswith("0x"):
        return f"{int(text, 16) + by:#x}"
    return f"{int(text) + by:0{len(text)}d}"  # "00005" is a coil: its zeros count


def _faults(key: Key, place: Place, tag: Mapping) -> Iterator[Found]:
    node = tag.items["repeat"]
    if not isinstance(node, Mapping):
        yield node.place, shown(plain(node)), "{count: 3, stride: 2}"
        return
    for name in node.items:
        if name not in _KEYS:
            yield node.places[name], f"unknown key '{name}' of repeat", choice(name, _KEYS)
    for name, low, high, is_required in _NUMBERS:
        child = node.items.get(name)
        value = None if child is None else plain(child)
        if child is None and is_required:
            yield node.place, f"repeat without '{name}'", f"{name}: {low} to {high}"
        elif child is not None and (type(value) is not int or not low <= value <= high):
            yield child.place, shown(value), f"a whole number from {low} to {high}"
    over_node = node.items.get("over")
    over = "at" if over_node is None else plain(over_node)
    if over_node is not None and over not in ("at", "bit"):
        yield over_node.place, shown(over), "at or bit"
    elif over not in tag.items:
        yield place, f"repeat without '{over}'", f"{over}: of the first one beside it"
    elif _is_without_number(tag.items[over]):
        yield tag.items[over].place, shown(plain(tag.items[over])), "a number in it, which repeat raises"
    if not isinstance(key, str) or NUMBER not in key:
        yield (
            place,
            f"repeat of the tag {shown(key)}",
            f"{NUMBER} in its name, as each needs one: {key}{NUMBER}",
        )


def _is_without_number(node: Node) -> bool:
    if not isinstance(node, Scalar) or isinstance(node.value, bool):
        return True
    return not isinstance(node.value, int) and _LAST_NUMBER.search(str(node.value)) is None
