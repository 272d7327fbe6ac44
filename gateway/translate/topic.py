"""Topic templates: `plant/{site}/{device}/{tag}`, compiled to the final bytes of each point.

Names and filters obey MQTT 5.0 §4.7 and §1.5.4 (3.1.1 has the same clauses).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Final

from gateway.core.errors import Problem
from gateway.core.point import Layout, Point
from gateway.translate.faults import RuleError, nearest

TOPIC_BYTES_MAX: Final = 65_535  # MQTT 5.0 §1.5.4: the length of a string is a two byte integer
PLACEHOLDERS: Final = ("site", "gateway", "device", "tag", "link", "template", "unit", "scan", "group")
IDENTITY: Final = ("device", "tag")  # one level each, so that a topic can be read backward
SINGLE_LEVEL: Final = "+"
_PIECE: Final = re.compile(r"\{([^{}]*)\}|([{}])")
_ILLEGAL: Final = {"+": "the wildcard '+'", "#": "the wildcard '#'", "\0": "a NUL character"}


class TopicTemplate:
    """A parsed template. `names` are its placeholders in order, each once."""

    __slots__ = ("_pieces", "names", "text")

    def __init__(self, text: str, *, attributes: Collection[str] = ()) -> None:
        """Parse; `attributes` are names allowed besides PLACEHOLDERS. Raises `RuleError`."""
        if problems := check_topic(text, attributes=attributes):
            raise RuleError(problems)
        self.text: Final = text
        # re.split with one group: literal, name, literal, name … literal
        self._pieces: Final = tuple(re.split(r"\{([^{}]*)\}", text))
        self.names: Final = tuple(dict.fromkeys(self._pieces[1::2]))

    @property
    def has_tag(self) -> bool:
        """Whether each tag has a topic of its own."""
        return "tag" in self.names

    def render(self, values: Mapping[str, str]) -> bytes:
        """The topic as UTF-8. Raises `RuleError` where a value is missing or cannot stand in a topic."""
        problems = [
            Problem(
                ("topic",),
                f"{{{name}}} = {values[name]!r} with {fault}",
                "a name that MQTT allows in a topic",
            )
            for name in self.names
            if name in values and (fault := _fault_of_name(name, values[name]))
        ]
        problems += [
            Problem(
                ("topic",), f"{{{name}}}, which {_owner(values)} does not have", "a placeholder that it has"
            )
            for name in self.names
            if name not in values
        ]
        if problems:
            raise RuleError(problems)
        text = self._fill(values.__getitem__)
        encoded = text.encode()
        if fault := _fault_of_topic(text, encoded):
            raise RuleError(
                [Problem(("topic",), f"{self.text!r} for {_owner(values)}: {fault}", "an MQTT topic name")]
            )
        return encoded

    def filter(self, constants: Mapping[str, str]) -> str:
        """The subscription that covers every topic of this template: a level that varies becomes `+`."""
        wild = "\0"  # cannot stand in a topic, so it marks what varies
        text = self._fill(lambda name: constants.get(name, wild))
        return "/".join(SINGLE_LEVEL if wild in level else level for level in text.split("/"))

    def pattern(self, constants: Mapping[str, str]) -> re.Pattern[str]:
        """Finds what varies in a topic of this template: a named group for each placeholder not constant."""
        seen: set[str] = set()
        expressions: list[str] = []
        for position, piece in enumerate(self._pieces):
            if position % 2 == 0 or piece in constants:
                expressions.append(re.escape(constants[piece] if position % 2 else piece))
            elif piece in seen:
                expressions.append(f"(?P={piece})")
            else:
                seen.add(piece)
                expressions.append(f"(?P<{piece}>[^/]+)" if piece in IDENTITY else f"(?P<{piece}>.+)")
        return re.compile("".join(expressions))

    def _fill(self, value_of: Callable[[str], str]) -> str:
        return "".join(
            value_of(piece) if position % 2 else piece for position, piece in enumerate(self._pieces)
        )


def check_topic(text: str, *, attributes: Collection[str] = ()) -> list[Problem]:
    """Every fault in a template that shows without a point, each at ("topic",)."""
    known = (*PLACEHOLDERS, *attributes)
    problems: list[Problem] = []
    for piece in _PIECE.finditer(text):
        if piece[2]:
            problems.append(
                Problem(("topic",), f"{piece[2]!r} alone at character {piece.start() + 1}", "{name}")
            )
        elif piece[1] not in known:
            expected = f"one of {', '.join(f'{{{name}}}' for name in known)}{nearest(piece[1], known)}"
            problems.append(Problem(("topic",), f"unknown placeholder {{{piece[1]}}}", expected))
    literal = _PIECE.sub("x", text)
    if fault := _fault_of_topic(literal, literal.encode(errors="replace")):
        problems.append(Problem(("topic",), f"{text!r}: {fault}", "an MQTT topic name"))
    return problems


def names_of(layout: Layout, point: Point | None, *, gateway: str, site: str) -> dict[str, str]:
    """What placeholders stand for. `unit` is the device's address on its link, not the engineering unit."""
    names = {
        **layout.attributes,
        "gateway": gateway,
        "site": site,
        "device": layout.device,
        "scan": layout.scan,
    }
    if point is not None:
        names["device"] = point.device
        names["tag"] = point.tag
    return names


def _owner(values: Mapping[str, str]) -> str:
    return "/".join(values[name] for name in IDENTITY if name in values) or "this rule"


def _fault_of_name(name: str, value: str) -> str:
    if not value:
        return "nothing in it"
    if name in IDENTITY and "/" in value:
        return "a '/'"
    return _fault_of_characters(value)


def _fault_of_topic(text: str, encoded: bytes) -> str:
    if not text:
        return "it is empty"
    if "" in text.split("/"):
        return "it has an empty level"
    if len(encoded) > TOPIC_BYTES_MAX:
        return f"it has {len(encoded)} bytes, {TOPIC_BYTES_MAX} are allowed"
    return _fault_of_characters(text)


def _fault_of_characters(text: str) -> str:
    for character in text:
        if fault := _ILLEGAL.get(character):
            return fault
        # MQTT 5.0 §1.5.4: a receiver may close the connection on control characters, must on surrogates.
        if character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff":
            return f"the character U+{ord(character):04X}"
    return ""
