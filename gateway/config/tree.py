"""The tree that YAML text becomes: plain values, each with the place where it was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import msgspec

from gateway.core.errors import PathPart

Key: TypeAlias = str | int
Atom: TypeAlias = str | int | float | bool | None


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where something was written; line and column count from 1, columns in characters."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Scalar(msgspec.Struct, gc=False):
    """One value without structure."""

    value: Atom
    place: Place


class Sequence:
    """A list."""

    __slots__ = ("items", "place")

    def __init__(self, place: Place, items: Iterable[Node] = ()) -> None:
        self.items: list[Node] = list(items)
        self.place = place


class Mapping:
    """Keys and values in the order of the text; `places` says where each key was written."""

    __slots__ = ("items", "place", "places")

    def __init__(self, place: Place) -> None:
        self.items: dict[Key, Node] = {}
        self.places: dict[Key, Place] = {}
        self.place = place

    def put(self, key: Key, place: Place, node: Node) -> None:
        """Set one entry."""
        self.items[key] = node
        self.places[key] = place


Node: TypeAlias = Scalar | Sequence | Mapping


def is_null(node: Node) -> bool:
    """Whether the node is the empty value."""
    return isinstance(node, Scalar) and node.value is None


def plain(node: Node) -> Any:
    """The value without its places: dict, list and scalars, to be validated by a model."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Mapping):
        return {key: plain(child) for key, child in node.items.items()}
    return [plain(child) for child in node.items]


def without(node: Mapping, *keys: Key) -> Mapping:
    """A copy of the mapping without some of its keys."""
    rest = Mapping(node.place)
    for key, child in node.items.items():
        if key not in keys:
            rest.put(key, node.places[key], child)
    return rest


def merged(base: Mapping, over: Mapping) -> Mapping:
    """`over` laid upon `base`, leaf by leaf; every leaf keeps the place where it was written.

    Mappings merge, everything else replaces. An empty value (`null`) removes what the base says.
    A key known to the base keeps the base's place: that is where it is defined.
    """
    result = Mapping(over.place)
    result.items.update(base.items)
    result.places.update(base.places)
    for key, child in over.items.items():
        below = base.items.get(key)
        if below is None:
            result.put(key, over.places[key], child)
        elif is_null(child):
            del result.items[key], result.places[key]
        elif isinstance(below, Mapping) and isinstance(child, Mapping):
            result.items[key] = merged(below, child)
        else:
            result.items[key] = child
    return result


def walk(node: Node, path: Iterable[PathPart]) -> Iterator[Node]:
    """The nodes along a path, as far as they exist; a path into a scalar ends there."""
    for part in path:
        child: Node | None = None
        if isinstance(node, Mapping):
            child = node.items.get(part)
        elif isinstance(node, Sequence) and isinstance(part, int) and 0 <= part < len(node.items):
            child = node.items[part]
        if child is None:
            return
        yield child
        node = child


def place_of(root: Node, path: tuple[PathPart, ...]) -> Place:
    """Where to point for a path: at the value, or where it is missing, at the nearest key above it."""
    node, place = root, root.place
    for part in path:
        if isinstance(node, Mapping) and part in node.items:
            place, node = node.places[part], node.items[part]
        elif isinstance(node, Sequence) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
            place = node.place
        else:
            return place
    return node.place if isinstance(node, Scalar | Sequence) and path else place


def key_place_of(root: Node, path: tuple[PathPart, ...]) -> Place:
    """Where the last key of a path was written."""
    *above, last = path
    node = [root, *walk(root, above)][-1]
    if isinstance(node, Mapping) and last in node.places:
        return node.places[last]
    return place_of(root, path)
