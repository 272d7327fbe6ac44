"""TOML text → tree. `tomllib` reads it; places are those of tables, keys, and tables inside of lists.

What is not found by its shape in the text (a key with dots, a table within another one) has the place of
what is around it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Generator, Iterator
from typing import Any, Final

from gateway.config.reader import DEPTH_MAX, FILE_BYTES_MAX
from gateway.config.tree import Mapping, Node, Place, Scalar, Sequence
from gateway.core.errors import ConfigError

_TABLE: Final = re.compile(r"\s*(\[\[?)\s*([\w.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"\s*([\w-]+|\"[^\"]*\"|'[^']*')\s*=")
_PIECE: Final = re.compile(r"\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|#[^\n]*|[\[\]{}]|\n")
_LINE: Final = re.compile(r"line (\d+), column (\d+)")

Path = tuple[str | int, ...]


def read_toml(data: bytes, file: str) -> Mapping:
    """The tree of one file. Raises `ConfigError` with file:line:column for what is no TOML."""
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{file}:1:1: found {len(data)} bytes, expected at most {FILE_BYTES_MAX}")
    try:
        text = data.decode("utf-8-sig")
        value = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}:1:1: found the byte 0x{data[error.start]:02x}, expected UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{file}:1:1: found too many levels, expected a flatter file") from None
    except tomllib.TOMLDecodeError as error:
        match = _LINE.search(str(error))
        where = f"{match[1]}:{match[2]}" if match else "1:1"
        what = _LINE.sub("", str(error)).replace("(at )", "").strip()
        raise ConfigError(f"{file}:{where}: found broken TOML ({what}), expected TOML 1.0") from None
    places = dict(_places(text, file))
    root = _tree(value, (), places, Place(file, 1, 1))
    assert isinstance(root, Mapping)
    return root


def _tree(value: Any, path: Path, places: dict[Path, Place], around: Place) -> Node:
    place = places.get(path, around)
    if len(path) > DEPTH_MAX:
        raise ConfigError(f"{place}: found more than {DEPTH_MAX} levels, expected a flatter file")
    if isinstance(value, dict):
        node = Mapping(place)
        for key, child in value.items():
            where = places.get((*path, key)) or places.get((*path, key, 0), place)
            node.put(key, where, _tree(child, (*path, key), places, where))
        return node
    if isinstance(value, list):
        return Sequence(place, [_tree(one, (*path, n), places, place) for n, one in enumerate(value)])
    return Scalar(value if isinstance(value, str | int | float | bool) else str(value), place)


def _places(text: str, file: str) -> Iterator[tuple[Path, Place]]:
    table: Path = ()
    counts: dict[Path, int] = {}
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line = lines[number]
        if match := _TABLE.match(line):
            table = _table(match[2], counts, is_list=match[1] == "[[")
            yield table, Place(file, number + 1, len(line) - len(line.lstrip()) + 1)
            number += 1
        elif match := _KEY.match(line):
            path = (*table, match[1].strip("\"'"))
            yield path, Place(file, number + 1, match.start(1) + 1)
            number = yield from _items(lines, number, match.end(), path, file)
        else:
            number += 1


def _table(name: str, counts: dict[Path, int], *, is_list: bool) -> Path:
    path: Path = ()
    words = [word.strip().strip("\"'") for word in name.split(".")]
    for index, word in enumerate(words):
        path = (*path, word)
        if is_list and index == len(words) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _items(
    lines: list[str], number: int, column: int, path: Path, file: str
) -> Generator[tuple[Path, Place], None, int]:
    """Places of the tables in a list, and where the value ends: the number of the line behind it."""
    depth = found = 0
    quote = ""
    while True:
        for match in _PIECE.finditer(lines[number], column):
            piece = match[0]
            if piece in ('"""', "'''"):
                quote = "" if quote == piece else quote or piece
            elif quote:
                continue
            elif piece in "[{":
                if piece == "{" and depth == 1:
                    yield (*path, found), Place(file, number + 1, match.start() + 1)
                    found += 1
                depth += 1
            elif piece in "]}":
                depth -= 1
        number, column = number + 1, 0
        if (depth <= 0 and not quote) or number >= len(lines):
            return number
