"""What goes into a backup: files opened at one moment, each as long as it is then.

Logs only grow at their end and start with what their readers need, so a log's files opened in order are a
valid state of it, however much is written or deleted meanwhile; at worst its last record is torn.
"""

from __future__ import annotations

import os
import pwd
import resource
import stat
from collections.abc import Callable, Iterator
from grp import getgrgid
from pathlib import Path
from typing import Final

import msgspec

from gateway.app.backup.archive import CHUNK_BYTES, BackupError
from gateway.app.backup.places import JOURNAL, VERSION_CONTROL, is_ours, journal_home
from gateway.config.inventory import Inventory

PRIVATE_KEY: Final = b"PRIVATE KEY-----"  # RFC 7468 §10, §11 and the older kinds
ATTEMPTS_MAX: Final = 100  # to open all files of a directory before one of them is gone
PRIVATE_KEY_LOOK_BYTES: Final = 1 << 18


class OpenFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file as it was when it was opened."""

    name: str  # in the backup
    descriptor: int
    size: int
    mode: int
    owner: str = ""

    def chunks(self) -> Iterator[bytes]:
        """Exactly `size` bytes; zeros for what was cut off meanwhile, which nobody had been promised."""
        offset = 0
        while offset < self.size:
            chunk = os.pread(self.descriptor, min(CHUNK_BYTES, self.size - offset), offset)
            if not chunk:
                chunk = bytes(min(CHUNK_BYTES, self.size - offset))
            offset += len(chunk)
            yield chunk


class Collected:
    """Opened files, directories with their permissions, and what was left out."""

    def __init__(self) -> None:
        self.files: list[OpenFile] = []
        self.directories: dict[str, int] = {}
        self.outside: dict[str, str] = {}  # member → path
        self.secrets: dict[str, str] = {}  # left out: path → where it is named

    def close(self) -> None:
        """Give every file back."""
        for file in self.files:
            os.close(file.descriptor)
        self.files.clear()


def allow_many_files() -> None:
    """A journal of many segments needs as many descriptors as it has: as many as we may have."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def collect_config(
    into: Collected,
    config: Path,
    inventory: Inventory,
    *,
    with_secrets: bool,
    leave_out: Callable[[Path], bool],
) -> None:
    """The whole configuration directory, and what the configuration reads outside of it.

    `leave_out(path)`: what lies in it and is none of it, such as the state. Raises `BackupError`, `OSError`.
    """
    secrets = {_identity(file.path): file.key for file in inventory.named if file.is_secret}
    wanted: dict[str, Path] = {}
    if config.is_dir():
        for path in _below(config, leave_out, into.directories, "config"):
            wanted[f"config/{path.relative_to(config)}"] = path
    directory = config if config.is_dir() else config.parent
    inside = {_identity(path) for path in wanted.values()}
    for path in (*inventory.files, *(file.path for file in inventory.named)):
        if _identity(path) in inside or not path.is_file():
            continue
        inside.add(_identity(path))
        absolute = Path(os.path.normpath(path.absolute()))
        if absolute.is_relative_to(directory.absolute()):
            wanted[f"config/{absolute.relative_to(directory.absolute())}"] = path
        else:
            wanted[f"outside/{str(absolute).lstrip('/')}"] = path
    for name, path in wanted.items():
        key = secrets.get(_identity(path)) or ("holds a private key" if _has_private_key(path) else "")
        if key and not with_secrets:
            into.secrets[name.removeprefix("config/") if name.startswith("config/") else str(path)] = key
            continue
        if name.startswith("outside/"):
            into.outside[name] = str(path)
        into.files.append(_open(name, path, has_owner=True))


def collect_state(
    into: Collected, state: Path, inventory: Inventory, *, leave_out: Callable[[Path], bool]
) -> None:
    """Everything in the state directory and in the journal's, opened now. Raises `BackupError`, `OSError`."""
    journal = journal_home(state, inventory.journal_directory) / JOURNAL
    found = len(into.files)
    if journal.is_dir():
        _collect_tree(into, journal, JOURNAL)
    if state.is_dir():
        for path in sorted(state.iterdir()):
            entry = path.name
            if is_ours(entry) and _identity(path) != _identity(journal) and not leave_out(path):
                if path.is_dir():
                    _collect_tree(into, path, f"state/{entry}")
                elif path.is_file():
                    into.files.append(_open(f"state/{entry}", path, has_owner=False))
    if len(into.files) == found:
        where = str(state) if journal.parent == state else f"{state} and {journal}"
        raise BackupError(f"no state in {where}: say where it is with --state")


def _collect_tree(into: Collected, directory: Path, name: str) -> None:
    """Names first, sorted, so that the files of a log are opened in its order."""
    into.directories[name] = stat.S_IMODE(directory.stat().st_mode) & 0o777
    for path in _open_all(into, directory, name):
        _collect_tree(into, path, f"{name}/{path.name}")


def _open_all(into: Collected, directory: Path, name: str) -> list[Path]:
    """The files in a directory, all of those that were there at one moment; its directories are returned.

    What is gone before it is opened was deleted because nobody wants it any more, or because another file
    stands for it now: then the names are read again.
    """
    for _ in range(ATTEMPTS_MAX):
        opened: list[OpenFile] = []
        below: list[Path] = []
        try:
            for path in sorted(directory.iterdir()):
                if not is_ours(path.name):
                    continue
                if path.is_dir():
                    below.append(path)
                else:
                    opened.append(_open(f"{name}/{path.name}", path, has_owner=False))
        except FileNotFoundError:
            for file in opened:
                os.close(file.descriptor)
            continue
        into.files += opened
        return below
    raise BackupError(f"{directory}: its files come and go faster than they can be opened: try again")


def _open(name: str, path: Path, *, has_owner: bool) -> OpenFile:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise  # for who knows what that means
    except OSError as error:
        raise BackupError(f"{path}: cannot be read: {error.strerror or error}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BackupError(f"{path}: found no regular file, expected only files and directories there")
    return OpenFile(
        name=name,
        descriptor=descriptor,
        size=status.st_size,
        mode=stat.S_IMODE(status.st_mode) & 0o777,
        owner=_owner(status) if has_owner else "",
    )


def _owner(status: os.stat_result) -> str:
    try:
        return f"{pwd.getpwuid(status.st_uid).pw_name}:{getgrgid(status.st_gid).gr_name}"
    except KeyError:  # a number without a name means nothing elsewhere
        return ""


def _below(
    directory: Path, leave_out: Callable[[Path], bool], directories: dict[str, int], name: str
) -> Iterator[Path]:
    """Every file below, links followed, each directory once."""
    seen: set[tuple[int, int]] = set()
    ways = [(directory, name)]
    while ways:
        here, member = ways.pop()
        status = here.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        directories[member] = stat.S_IMODE(status.st_mode) & 0o777
        for path in sorted(here.iterdir()):
            entry = path.name
            if entry in VERSION_CONTROL or leave_out(path):
                continue
            if path.is_dir():
                ways.append((path, f"{member}/{entry}"))
            elif path.is_file():
                yield path


def _has_private_key(path: Path) -> bool:
    with path.open("rb") as file:
        return PRIVATE_KEY in file.read(PRIVATE_KEY_LOOK_BYTES)


def _identity(path: Path) -> Path:
    return path.resolve()
