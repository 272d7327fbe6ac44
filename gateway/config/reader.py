"""YAML text → tree, with the place of every key and value. Never raises for bad text: it says what is wrong.

Of YAML we take mappings, lists and scalars. Anchors, aliases, merge keys (`<<`), tags (`!!str`) and a second
document in a file are refused: a reader of the file shall see what is there, and templates do what anchors
are used for. libyaml's parser does the work where PyYAML has it, PyYAML's own elsewhere: same events.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import yaml

from gateway.config.scalars import BadScalar, clip, resolve, shown
from gateway.config.tree import Atom, Key, Mapping, Node, Place, Scalar, Sequence

FILE_BYTES_MAX: Final = 16 * 1024 * 1024
DEPTH_MAX: Final = 32  # a tag's `write.on.op` is at depth 8
FAULTS_MAX: Final = 200  # of one file: after that it is some other kind of file


class Fault(msgspec.Struct, frozen=True):
    """What is wrong at one place."""

    place: Place
    found: str
    expected: str
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.place}: found {self.found}, expected {self.expected}{note}"


_UNKNOWN: Final = object()


class _Stop(Exception):
    """Nothing useful can be read after this."""


def read(data: bytes, file: str) -> tuple[Node | None, list[Fault]]:
    """The tree of one file and what is wrong with it; None for the tree where the file cannot be "
    "read to its end."""
    start = Place(file, 1, 1)
    if len(data) > FILE_BYTES_MAX:
        return None, [Fault(start, f"{len(data)} bytes", f"at most {FILE_BYTES_MAX}")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        place = Place(file, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return None, [Fault(place, f"the byte 0x{data[error.start]:02x}", "text in UTF-8")]
    reader = _Reader(text, file)
    try:
        reader.document()
    except _Stop:
        return None, reader.faults
    except yaml.YAMLError as error:
        return None, [*reader.faults, _syntax_fault(error, text, file)]
    return reader.root, reader.faults


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._stack: list[Mapping | Sequence] = []
        self._keys: list[tuple[Key | None, Place] | None] = []  # of each open collection: the key that waits
        self._known: dict[str, Atom | object] = {}  # plain scalars seen: a file repeats few words very often
        self._line = 0
        self.root: Node | None = None
        self.faults: list[Fault] = []

    def _fault(self, place: Place, found: str, expected: str) -> None:
        self.faults.append(Fault(place, found, expected))
        if len(self.faults) >= FAULTS_MAX:
            raise _Stop

    def document(self) -> None:
        """Events → nodes, with a stack of our own: nesting costs no recursion."""
        next_event = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(self._text).get_event
        ended = False
        while not isinstance(event := next_event(), yaml.StreamEndEvent):
            if isinstance(event, yaml.ScalarEvent):
                self._scalar(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._keys.pop()
                self._attach(self._stack.pop())
            elif isinstance(event, yaml.CollectionStartEvent):
                self._collection(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentEndEvent):
                ended = True
            elif isinstance(event, yaml.DocumentStartEvent) and ended:
                self._fault(self._place(event), "a second document (---)", "one document in a file")
                raise _Stop

    def _scalar(self, event: Any) -> None:
        place = self._place(event)
        if event.anchor is not None or event.tag is not None:
            self._refuse_extras(event, place)
        value: Atom = event.value
        if not event.style and event.tag != "!":  # plain: neither quoted nor block text
            value = self._plain(event.value, place)
        if self._wants_key():
            self._keys[-1] = (self._key(value, place), place)
        else:
            self._attach(Scalar(value, place))

    def _plain(self, text: str, place: Place) -> Atom:
        value = self._known.get(text, _UNKNOWN)
        if value is _UNKNOWN:
            try:
                value = self._known[text] = resolve(text)
            except BadScalar as bad:
                self._fault(place, bad.found, bad.expected)
                return text
        return value  # type: ignore[return-value]  # _UNKNOWN is gone

    def _alias(self, event: Any) -> None:
        place = self._place(event)
        self._fault(
            place, f"an alias (*) '{clip(event.anchor)}'", "the value itself; equal devices share a template"
        )
        if self._wants_key():
            self._keys[-1] = (None, place)
        else:
            self._attach(Scalar(None, place))

    def _collection(self, event: Any) -> None:
        place = self._place(event)
        self._refuse_extras(event, place)
        if len(self._stack) >= DEPTH_MAX:
            self._fault(place, f"more than {DEPTH_MAX} levels", "a flatter file")
            raise _Stop
        if self._wants_key():
            self._fault(place, "a list or mapping as a key", "a name")
        self._stack.append(Mapping(place) if isinstance(event, yaml.MappingStartEvent) else Sequence(place))
        self._keys.append(None)

    def _refuse_extras(self, event: Any, place: Place) -> None:
        if event.anchor is not None:
            found = f"an anchor (&) '{clip(event.anchor)}'"
            self._fault(place, found, "the value itself; equal devices share a template")
        if event.tag is not None and event.tag != "!":
            self._fault(place, f"the YAML tag '{clip(event.tag)}'", "a plain value; quotes make text")

    def _wants_key(self) -> bool:
        return bool(self._keys) and self._keys[-1] is None and isinstance(self._stack[-1], Mapping)

    def _key(self, key: Atom, place: Place) -> Key | None:
        """The key, or None for one that is refused: its value is dropped."""
        if isinstance(key, bool) or not isinstance(key, str | int):
            self._fault(place, f"{shown(key)} as a key", "a name or a whole number; quotes make text")
            return None
        if key == "<<":
            self._fault(place, "a merge key (<<)", "a template: use: NAME")
            return None
        mapping = self._stack[-1]
        if isinstance(mapping, Mapping) and key in mapping.items:
            self._fault(place, f"the key '{clip(str(key))}' again", f"it once (first: {mapping.places[key]})")
            return None
        return key

    def _attach(self, node: Node) -> None:
        if not self._stack:
            self.root = node
        elif isinstance(above := self._stack[-1], Sequence):
            above.items.append(node)
        elif (waiting := self._keys[-1]) is None:  # a collection stood where a key belongs: it was reported
            self._keys[-1] = (None, node.place)
        else:
            key, place = waiting
            self._keys[-1] = None
            if key is not None:
                above.items[key] = node
                above.places[key] = place

    def _place(self, event: Any) -> Place:
        mark = event.start_mark
        line = mark.line + 1
        if line == self._line:
            line = self._line  # one integer for all places of a line: there are many
        else:
            self._line = line
        return Place(self._file, line, mark.column + 1)


def _syntax_fault(error: yaml.YAMLError, text: str, file: str) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # the reader: a character that YAML forbids
        position = getattr(error, "position", 0) or 0
        before = text[:position]
        place = Place(file, before.count("\n") + 1, position - before.rfind("\n"))
        return Fault(place, "a control character", "printable text")
    place = Place(file, mark.line + 1, mark.column + 1)
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return Fault(place, "a tab in the indentation", "spaces")
    problem = getattr(error, "problem", None) or "text that is not YAML"
    context = getattr(error, "context", None)
    return Fault(
        place,
        f"broken YAML ({clip(str(problem))})",
        f"YAML 1.2{f', {clip(str(context))}' if context else ''}",
    )
