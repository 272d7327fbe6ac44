"""Collects what is wrong: once for each place, in the order of the files, with the devices it concerns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import ValidationError

from gateway.config.model import Model
from gateway.config.reader import Fault
from gateway.config.scalars import choice, clip, one_of, shown
from gateway.config.tree import Mapping, Node, Place, Scalar, key_place_of, place_of, walk
from gateway.config.values import NAME_EXPECTED
from gateway.core.errors import PathPart

USERS_NAMED: Final = 3  # devices that a message names; the others are counted
SECRETS: Final = frozenset(
    {"password", "passwd", "passphrase", "secret", "token", "api_key", "private_key", "key"}
)
_FOUND_EXPECTED: Final = re.compile(r"(?:\w+: )?found (.+?), expected (.+)", re.DOTALL)
_WORDS: Final = {
    "string_type": "text (quotes make text of anything)",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "model_attributes_type": "a mapping (key: value)",
    "list_type": "a list",
    "tuple_type": "a list",
    "finite_number": "a finite number",
}

Found = tuple[Place, str, str]  # place, found, expected


class Collector:
    """All faults and warnings of one run."""

    def __init__(self) -> None:
        self._faults: dict[Found, tuple[str, list[str]]] = {}  # → note, devices
        self._warnings: dict[Found, str] = {}
        self.is_readable = True  # False: a file is missing or broken, so what it holds is not known
        self._silent: set[Place] = set()  # the reader has complained: what follows from it is noise
        self.templates: dict[str, Mapping] = {}
        self.root: Node = Mapping(Place("", 1, 1))

    def place_of(self, path: tuple[PathPart, ...]) -> Place:
        """Where a path from the root was written, or what is nearest to it."""
        return place_of(self.root, path)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def read(self, faults: Iterable[Fault]) -> None:
        """Faults of the reader."""
        for fault in faults:
            self.add((fault.place, fault.found, fault.expected), note=fault.note)
            self._silent.add(fault.place)

    def unreadable(self, found: Found) -> None:
        """A fault that hides a part of the configuration: nothing more can be said of it as a whole."""
        self.is_readable = False
        self.add(found)

    def silence(self, place: Place) -> None:
        """Say nothing more of this place."""
        self._silent.add(place)

    def add(self, found: Found, *, note: str = "", device: str | None = None) -> None:
        """One fault; `device` is the one that uses what is wrong."""
        if found[0] in self._silent:
            return
        _, devices = self._faults.setdefault(found, (note, []))
        if device is not None and device not in devices:
            devices.append(device)

    def warn(self, found: Found, *, note: str = "") -> None:
        """Something that works but is hardly meant."""
        self._warnings.setdefault(found, note)

    def errors(self) -> list[str]:
        """One line for each fault, in the order of files and lines."""
        origins = self._template_places() if any(devices for _, devices in self._faults.values()) else {}
        lines: list[str] = []
        for found, (note, devices) in sorted(self._faults.items(), key=lambda item: item[0]):
            place, what, expected = found
            template = origins.get(place)
            if template is not None and devices:
                note = f"template {template}, used by {_listed(devices)}"
            lines.append(str(Fault(place, what, expected, note)))
        return lines

    def warnings(self) -> list[str]:
        """One line for each warning, in the order of files and lines."""
        return [str(Fault(*found, note)) for found, note in sorted(self._warnings.items())]

    def _template_places(self) -> dict[Place, str]:
        return {place: name for name, node in self.templates.items() for place in _places(node)}


def _places(node: Node) -> Iterable[Place]:
    yield node.place
    if isinstance(node, Mapping):
        yield from node.places.values()
        for child in node.items.values():
            yield from _places(child)
    elif not isinstance(node, Scalar):
        for child in node.items:
            yield from _places(child)


def _listed(devices: Sequence[str]) -> str:
    named = ", ".join(devices[:USERS_NAMED])
    more = len(devices) - USERS_NAMED
    return f"{named} and {more} more" if more > 0 else named


def validate(model: type[Model], node: Node, data: Any, places: Place) -> tuple[Any, list[Found]]:
    """The model of `data` (which is `plain(node)`, or a part of it) or None, and what is wrong with it.

    A model with faults has sound fields that do not go together.

    `places` is where to point for what the node as a whole lacks: its key.
    """
    try:
        result = model.model_validate(data)
    except ValidationError as error:
        return None, [_translate(model, node, detail, places) for detail in error.errors(include_url=False)]
    found = [
        (locate(node, problem.path, places), problem.found, problem.expected) for problem in result.problems()
    ]
    return result, found


def locate(node: Node, path: tuple[PathPart, ...], otherwise: Place) -> Place:
    """Where a path within a node was written; `otherwise` where its first key is missing."""
    if not path or (isinstance(node, Mapping) and path[0] not in node.items):
        return node.place if not path and isinstance(node, Scalar) else otherwise
    return place_of(node, path)


def _translate(model: type[Model], node: Node, detail: Any, otherwise: Place) -> Found:
    kind: str = detail["type"]
    path = tuple(part for part in detail["loc"] if part != "[key]")
    is_key = len(path) != len(detail["loc"])
    context: dict[str, Any] = detail.get("ctx", {})
    if kind == "missing":
        found, expected = _missing(model, path)
        return locate(node, path[:-1], otherwise) if path[:-1] else otherwise, found, expected
    if kind == "extra_forbidden":
        return _unknown_key(model, node, path)
    place = key_place_of(node, path) if is_key else locate(node, path, otherwise)
    value = detail.get("input")
    if kind == "fault":
        return place, context["found"], context["expected"]
    if kind == "value_error":
        text = str(context["error"])
        if match := _FOUND_EXPECTED.fullmatch(text):
            return place, match[1], match[2]
        return place, shown(value), text
    return place, shown(value), _expected(kind, context, detail["msg"], value)


def _expected(kind: str, context: dict[str, Any], message: str, value: object) -> str:
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", str(context["expected"]))
        return choice(value, words) if words else str(context["expected"])
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "greater_than_equal":
        return f"at least {context['ge']}"
    if kind == "less_than_equal":
        return f"at most {context['le']}"
    if kind == "greater_than":
        return f"more than {context['gt']}"
    if kind == "less_than":
        return f"less than {context['lt']}"
    if kind == "string_pattern_mismatch":
        return NAME_EXPECTED
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    if kind == "string_too_short":
        return f"at least {context['min_length']} character{'s' if context['min_length'] > 1 else ''}"
    return message


def _missing(model: type[Model], path: tuple[PathPart, ...]) -> tuple[str, str]:
    key = str(path[-1])
    field = _fields(model, path[:-1]).get(key)
    meaning = (field.description or "").split(". ")[0].rstrip(".") if field is not None else ""
    return f"no '{key}'", f"{key}: {meaning}" if meaning else f"the key {key}"


def _unknown_key(model: type[Model], node: Node, path: tuple[PathPart, ...]) -> Found:
    key = str(path[-1])
    place = key_place_of(node, path)
    known = [name for name in _fields(model, path[:-1]) if name.endswith("_file")]
    if known and key.lower() in SECRETS:
        return (
            place,
            f"the secret '{clip(key)}' in the YAML",
            f"the path of a file that holds it, with {one_of(known)}",
        )
    return place, f"unknown key '{clip(key)}'", unknown_key_expected(key, sorted(_fields(model, path[:-1])))


def unknown_key_expected(key: str, known: Iterable[str]) -> str:
    """`one of a, b or c — did you mean 'a'?`"""
    return f"one of {choice(key, known)}"


def _fields(model: type[Model], path: tuple[PathPart, ...]) -> dict[str, Any]:
    """The fields of the model that a path leads to, by the names that users write."""
    for part in path:
        field = next(
            (info for name, info in model.model_fields.items() if (info.alias or name) == part), None
        )
        inner = _model_in(field.annotation) if field is not None else None
        if inner is None:
            return {}
        model = inner
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _model_in(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inner := _model_in(argument)) is not None:
            return inner
    return None


def exists(node: Node, path: tuple[PathPart, ...]) -> bool:
    """Whether a path leads somewhere."""
    return len(list(walk(node, path))) == len(path)
