"""The files of one configuration, read and joined into one tree of sections."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from gateway.config.faults import Collector, unknown_key_expected
from gateway.config.reader import read
from gateway.config.scalars import clip, shown
from gateway.config.tree import Mapping, Node, Place, Scalar, Sequence, is_null
from gateway.core.errors import ConfigError

MAIN_FILE: Final = "gateway.yaml"
FILES_MAX: Final = 1000
NAMED: Final = ("links", "scan", "templates", "devices", "uplinks")
LISTED: Final = ("publish", "commands", "expose", "bridge")
SINGLE: Final = ("version", "gateway", "http", "journal")
SECTIONS: Final = ("version", "gateway", "include", "http", "journal", *NAMED, *LISTED)
_WILD: Final = frozenset("*?[")


def main_file(path: Path) -> Path:
    """`path`, or its gateway.yaml where it is a directory."""
    return path / MAIN_FILE if path.is_dir() else path


def read_files(path: Path, faults: Collector, taken: list[Path] | None = None) -> Mapping:
    """The main file with everything it includes. Raises `ConfigError` where the main file cannot be read.

    `taken` gets the path of every file that was read.
    """
    files = _Files(faults, [] if taken is None else taken)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: found no readable file ({error.strerror}), expected a configuration"
        ) from error
    files.take(path, data)
    return files.root


class _Files:
    def __init__(self, faults: Collector, taken: list[Path]) -> None:
        self._faults = faults
        self._taken = taken
        self._seen: set[Path] = set()
        self.root = Mapping(Place("", 1, 1))

    def take(self, path: Path, data: bytes) -> None:
        """One file and, after it, those it includes."""
        self._seen.add(_identity(path))
        self._taken.append(path)
        node, faults = read(data, str(path))
        self._faults.read(faults)
        if not self._seen - {_identity(path)}:
            self.root.place = Place(str(path), 1, 1)
        if node is None and faults:
            self._faults.is_readable = False
            return
        if not isinstance(node, Mapping):
            found = "an empty file" if node is None or is_null(node) else _shape(node)
            place = Place(str(path), 1, 1) if node is None else node.place
            self._faults.unreadable((place, found, f"sections: {', '.join(SECTIONS)}"))
            return
        refuse_variables(node, self._faults)
        for key, child in node.items.items():
            self._section(str(key), node.places[key], child)
        if "include" in node.items:
            self._include(node.items["include"], path.parent)

    def _section(self, key: str, place: Place, node: Node) -> None:
        if key in SINGLE:
            self._once(self.root, key, place, node, key)
        elif key in NAMED:
            if isinstance(node, Mapping):
                section = self._collection(key, place, Mapping(node.place))
                assert isinstance(section, Mapping)
                for name, child in node.items.items():
                    self._once(section, name, node.places[name], child, f"{key}.{name}")
            elif not is_null(node):
                self._faults.add((node.place, _shape(node), "a mapping of names"))
        elif key in LISTED:
            if isinstance(node, Sequence):
                section = self._collection(key, place, Sequence(node.place))
                assert isinstance(section, Sequence)
                section.items.extend(node.items)
            elif not is_null(node):
                self._faults.add((node.place, _shape(node), "a list of rules (- …)"))
        elif key != "include":
            self._faults.add((place, f"unknown section '{clip(key)}'", unknown_key_expected(key, SECTIONS)))

    def _collection(self, key: str, place: Place, empty: Node) -> Node:
        if key not in self.root.items:
            self.root.put(key, place, empty)
        return self.root.items[key]

    def _once(self, section: Mapping, key: str | int, place: Place, node: Node, name: str) -> None:
        if key in section.items:
            first = section.places[key]
            self._faults.add((place, f"{clip(name)} again", f"it once (first: {first})"))
        else:
            section.put(key, place, node)

    def _include(self, node: Node, directory: Path) -> None:
        items = node.items if isinstance(node, Sequence) else [node]
        for item in items:
            if (
                isinstance(item, Scalar)
                and isinstance(item.value, str)
                and item.value
                and "\0" not in item.value
            ):
                self._include_one(item.value, item.place, directory)
            else:
                self._faults.add((item.place, _shape(item), "a list of files, such as [devices/*.yaml]"))

    def _include_one(self, pattern: str, place: Place, directory: Path) -> None:
        if _WILD & set(pattern):
            paths = self._glob(pattern, place, directory)
        else:
            paths = [directory / pattern]
        for path in paths:
            if _identity(path) in self._seen:
                continue
            if len(self._seen) >= FILES_MAX:
                self._faults.add((place, f"more than {FILES_MAX} files", "fewer, larger files"))
                return
            try:
                data = path.read_bytes()
            except OSError as error:
                self._faults.unreadable(
                    (place, f"{shown(pattern)}, which cannot be read ({error.strerror})", "a readable file")
                )
                self._seen.add(_identity(path))
                continue
            self.take(path, data)

    def _glob(self, pattern: str, place: Place, directory: Path) -> list[Path]:
        try:
            paths = sorted(path for path in directory.glob(pattern) if path.is_file())
        except (ValueError, NotImplementedError, OSError) as error:
            self._faults.add(
                (place, shown(pattern), f"a pattern such as devices/*.yaml ({clip(str(error))})")
            )
            return []
        if not paths:
            self._faults.warn(
                (place, f"{shown(pattern)}, which no file matches", "a pattern that matches files")
            )
        return paths


def refuse_variables(node: Node, faults: Collector) -> None:
    """Say where a text has `${…}` in it: nothing is filled in from outside."""
    if isinstance(node, Mapping):
        for child in node.items.values():
            refuse_variables(child, faults)
    elif isinstance(node, Sequence):
        for child in node.items:
            refuse_variables(child, faults)
    elif isinstance(node.value, str) and "${" in node.value:
        faults.add(
            (
                node.place,
                "a ${…} variable",
                "the value itself; a secret is named by its file, such as password_file",
            )
        )
        faults.silence(node.place)


def _shape(node: Node) -> str:
    if isinstance(node, Scalar):
        return shown(node.value)
    return "a mapping" if isinstance(node, Mapping) else "a list"


def _identity(path: Path) -> Path:
    """One name for one file, so that each is read once."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a loop of symbolic links; reading it will say so
        return path.absolute()
