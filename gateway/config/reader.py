"""YAML text → tree, with the place of every key and value. Never raises for bad text: it says what is wrong.

Of YAML we take mappings, lists and scalars. Anchors, aliases, merge keys (`<<`), tags (`!!str`) and more than one
document in a file are refused: a reader of the file shall see what is there, and templates do what anchors are used
for. libyaml's parser does the work where PyYAML has it, PyYAML's own parser elsewhere: both give the same events.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import yaml

from gateway.config.scalars import BadScalar, clip, resolve, shown
from gateway.config.tree import Key, Mapping, Node, Place, Scalar, Sequence

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


class _Stop(Exception):
    """Nothing useful can be read after this."""


def read(data: bytes, file: str) -> tuple[Node | None, list[Fault]]:
    """The tree of one file and what is wrong with it; None for the tree where the file cannot be read to its end."""
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
        self.root: Node | None = None
        self.faults: list[Fault] = []

    def _fault(self, place: Place, found: str, expected: str) -> None:
        self.faults.append(Fault(place, found, expected))
        if len(self.faults) >= FAULTS_MAX:
            raise _Stop

    def document(self) -> None:
        """Events → nodes, with a stack of our own: nesting costs no recursion."""
        loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)(self._text)
        stack: list[Mapping | Sequence] = []
        keys: list[tuple[Key | None, Place] | None] = []  # one for each open mapping: the key that waits
        ended = False
        while not isinstance(event := loader.get_event(), yaml.StreamEndEvent):
            mark = event.start_mark
            if isinstance(event, yaml.DocumentEndEvent):
                ended = True
            elif isinstance(event, yaml.DocumentStartEvent):
                if ended:
                    self._fault(self._place(mark), "a second document (---)", "one document in a file")
                    raise _Stop
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                keys.pop()
                self._attach(stack.pop(), stack, keys)
            elif isinstance(event, yaml.NodeEvent):
                self._node(event, self._place(mark), stack, keys)

    def _node(
        self,
        event: Any,
        place: Place,
        stack: list[Mapping | Sequence],
        keys: list[tuple[Key | None, Place] | None],
    ) -> None:
        is_key = bool(stack) and isinstance(stack[-1], Mapping) and keys[-1] is None
        if event.anchor is not None:
            what = "an alias (*)" if isinstance(event, yaml.AliasEvent) else "an anchor (&)"
            self._fault(
                place, f"{what} '{clip(event.anchor)}'", "the value itself; equal devices share a template"
            )
        if isinstance(event, yaml.AliasEvent):
            self._value(Scalar(None, place), stack, keys, is_key)
            return
        if event.tag is not None and event.tag != "!":
            self._fault(place, f"the YAML tag '{clip(event.tag)}'", "a plain value; quotes make text")
        if isinstance(event, yaml.ScalarEvent):
            self._value(self._scalar(event, place), stack, keys, is_key)
            return
        if len(stack) >= DEPTH_MAX:
            self._fault(place, f"more than {DEPTH_MAX} levels", "a flatter file")
            raise _Stop
        if is_key:
            self._fault(place, "a list or mapping as a key", "a name")
        stack.append(Mapping(place) if isinstance(event, yaml.MappingStartEvent) else Sequence(place))
        keys.append(None)

    def _scalar(self, event: Any, place: Place) -> Scalar:
        if event.style or event.tag == "!":  # quoted or block text; plain is "" or None
            return Scalar(event.value, place)
        try:
            return Scalar(resolve(event.value), place)
        except BadScalar as bad:
            self._fault(place, bad.found, bad.expected)
            return Scalar(event.value, place)

    def _value(
        self,
        node: Scalar,
        stack: list[Mapping | Sequence],
        keys: list[tuple[Key | None, Place] | None],
        is_key: bool,  # noqa: FBT001
    ) -> None:
        if is_key:
            keys[-1] = (self._key(node, stack[-1]), node.place)
        else:
            self._attach(node, stack, keys)

    def _key(self, node: Scalar, mapping: Node) -> Key | None:
        key = node.value
        if isinstance(key, bool) or not isinstance(key, str | int):
            self._fault(node.place, f"{shown(key)} as a key", "a name or a whole number; quotes make text")
            return None
        if key == "<<":
            self._fault(node.place, "a merge key (<<)", "a template: use: NAME")
            return None
        assert isinstance(mapping, Mapping)
        if key in mapping.items:
            self._fault(
                node.place, f"the key '{clip(str(key))}' again", f"it once (first: {mapping.places[key]})"
            )
            return None
        return key

    def _attach(
        self,
        node: Node,
        stack: list[Mapping | Sequence],
        keys: list[tuple[Key | None, Place] | None],
    ) -> None:
        if not stack:
            self.root = node
        elif isinstance(above := stack[-1], Sequence):
            above.items.append(node)
        elif (waiting := keys[-1]) is None:  # a collection stood where a key belongs: it was reported
            keys[-1] = (None, node.place)
        else:
            key, place = waiting
            keys[-1] = None
            if key is not None:
                above.put(key, place, node)

    def _place(self, mark: Any) -> Place:
        return Place(self._file, mark.line + 1, mark.column + 1)


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
