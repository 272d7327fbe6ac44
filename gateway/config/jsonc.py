"""JSON text → tree with places, as people write it: with comments and with a comma behind the last item.

RFC 8259, and `//` and `/* */` as JSON with comments has them. Of a key that stands twice the last counts.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from gateway.config.reader import DEPTH_MAX, FILE_BYTES_MAX
from gateway.config.scalars import NUMBER_CHARACTERS_MAX, clip
from gateway.config.tree import Mapping, Node, Place, Scalar, Sequence
from gateway.core.errors import ConfigError

_BLANK: Final = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_PIECE: Final = re.compile(
    r'(?P<mark>[{}\[\]:,])|(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<word>true|false|null)\b'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)(?![\w.])"
)
_WORDS: Final = {"true": True, "false": False, "null": None}


def read_json(data: bytes, file: str) -> Node:
    """The tree of one file. Raises `ConfigError` with file:line:column for what is no JSON."""
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{file}:1:1: found {len(data)} bytes, expected at most {FILE_BYTES_MAX}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}:1:1: found the byte 0x{data[error.start]:02x}, expected UTF-8") from None
    return _Reader(text, file).document()


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._counted = 0

    def document(self) -> Node:
        node = self._value(0)
        self._skip()
        if self._at < len(self._text):
            self._fail("text behind the end", "one value")
        return node

    def _value(self, depth: int) -> Node:
        self._skip()
        place = self._place()
        kind, piece = self._next("a value")
        if kind == "text":
            return Scalar(self._string(piece, place), place)
        if kind == "word":
            return Scalar(_WORDS[piece], place)
        if kind == "number":
            return Scalar(self._number(piece), place)
        if piece not in "{[":
            self._at -= 1
            self._fail(f"'{piece}'", "a value")
        if depth >= DEPTH_MAX:
            self._fail(f"more than {DEPTH_MAX} levels", "a flatter file")
        return self._mapping(place, depth) if piece == "{" else self._list(place, depth)

    def _list(self, place: Place, depth: int) -> Sequence:
        node = Sequence(place)
        while not self._ends("]"):
            node.items.append(self._value(depth + 1))
            self._separator("]")
        return node

    def _mapping(self, place: Place, depth: int) -> Mapping:
        node = Mapping(place)
        while not self._ends("}"):
            self._skip()
            where = self._place()
            kind, piece = self._next("a key in double quotes")
            if kind != "text":
                self._fail(f"'{clip(piece)}'", "a key in double quotes")
            self._skip()
            if not self._text.startswith(":", self._at):
                self._fail(self._shown(), "a colon behind the key")
            self._at += 1
            node.put(self._string(piece, where), where, self._value(depth + 1))
            self._separator("}")
        return node

    def _ends(self, mark: str) -> bool:
        self._skip()
        if self._text.startswith(mark, self._at):
            self._at += 1
            return True
        return False

    def _separator(self, end: str) -> None:
        self._skip()
        if self._text.startswith(",", self._at):
            self._at += 1
        elif not self._text.startswith(end, self._at):
            self._fail(self._shown(), f"a comma or '{end}'")

    def _next(self, expected: str) -> tuple[str, str]:
        match = _PIECE.match(self._text, self._at)
        if match is None or match.lastgroup is None:
            self._fail(self._shown(), expected)
        self._at = match.end()
        return match.lastgroup, match[0]

    def _string(self, piece: str, place: Place) -> str:
        try:
            text = str(json.loads(piece, strict=False))
            text.encode()
        except ValueError:  # also half of a surrogate pair
            raise ConfigError(f"{place}: found a wrong escape in text, expected one of JSON") from None
        return text

    def _number(self, piece: str) -> int | float:
        if len(piece) > NUMBER_CHARACTERS_MAX:
            self._fail(f"a number of {len(piece)} characters", f"at most {NUMBER_CHARACTERS_MAX}")
        return float(piece) if set(piece) & set(".eE") else int(piece)

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None  # it also matches nothing
        self._at = match.end()

    def _place(self) -> Place:
        count = self._text.count("\n", self._counted, self._at)
        if count:
            self._line += count
            self._line_start = self._text.rindex("\n", self._counted, self._at) + 1
        self._counted = self._at
        return Place(self._file, self._line, self._at - self._line_start + 1)

    def _shown(self) -> str:
        rest = self._text[self._at : self._at + 1]
        return f"'{clip(rest)}'" if rest else "the end of the file"

    def _fail(self, found: str, expected: str) -> NoReturn:
        raise ConfigError(f"{self._place()}: found {found}, expected {expected}")
