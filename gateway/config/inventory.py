"""Which files a configuration consists of, and which of those it names hold secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.config.faults import Collector
from gateway.config.files import main_file, read_files
from gateway.config.kinds import Kinds
from gateway.config.links import file_reference
from gateway.config.maps import Maps
from gateway.config.model import Model
from gateway.config.tree import Mapping, Node, Scalar, Sequence, walk
from gateway.core.errors import ConfigError, PathPart


class NamedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the configuration names: a certificate, a password."""

    path: Path  # absolute
    key: str  # where it is named, for example uplinks.broker.password_file
    is_secret: bool


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What `read_inventory` found."""

    gateway: str
    journal_directory: str | None  # `journal: directory`, as written
    files: tuple[Path, ...]  # the main file, everything it includes, and the site's own maps that it uses
    named: tuple[NamedFile, ...]


def read_inventory(path: Path, kinds: Kinds) -> Inventory:
    """Of the configuration in a file or in DIR/gateway.yaml, which may have faults but must be readable.

    Raises `ConfigError` where a file cannot be read as YAML: what it names is not known then.
    """
    faults = Collector()
    taken: list[Path] = []
    file = main_file(path)
    root = read_files(file, faults, taken)
    if faults.is_readable:
        taken += Maps.of_site(file, kinds.maps).use(root, faults)
    if not faults.is_readable:
        raise ConfigError("\n".join(faults.errors()))
    return Inventory(
        gateway=_text(root, ("gateway", "name")) or "",
        journal_directory=_text(root, ("journal", "directory")),
        files=tuple(taken),
        named=tuple(_named(root, (), _file_keys(kinds))),
    )


def _file_keys(kinds: Kinds) -> dict[str, bool]:
    """Every key of any model that names a file → whether that is a secret."""
    models: list[type[Model]] = [*kinds.uplinks.values()]
    models += [model for one in kinds.drivers.values() for model in (one.link, one.device, one.tag)]
    keys: dict[str, bool] = {}
    for model in models:
        for name, field in model.model_fields.items():
            reference = file_reference(field)
            if reference is not None:
                key = field.alias or name
                keys[key] = keys.get(key, False) or reference.secret
    return keys


def _named(node: Node, path: tuple[PathPart, ...], keys: dict[str, bool]) -> Iterator[NamedFile]:
    if isinstance(node, Mapping):
        for key, child in node.items.items():
            if isinstance(child, Scalar):
                if key in keys and isinstance(child.value, str) and child.value and "\0" not in child.value:
                    where = ".".join(map(str, (*path, key)))
                    file = (Path(child.place.file).parent / child.value).absolute()
                    yield NamedFile(path=file, key=where, is_secret=keys[str(key)])
            else:
                yield from _named(child, (*path, key), keys)
    elif isinstance(node, Sequence):
        for index, child in enumerate(node.items):
            yield from _named(child, (*path, index), keys)


def _text(root: Mapping, path: tuple[str, ...]) -> str | None:
    found = list(walk(root, path))
    last = found[-1] if len(found) == len(path) else None
    return last.value if isinstance(last, Scalar) and isinstance(last.value, str) else None
