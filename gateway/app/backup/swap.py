"""Puts prepared directories in the places of others: all of them or none, whatever happens in between.

What shall be renamed is written down first, durably. From then on it will be done: by whoever looks next
where the one who began was stopped. Before, nothing but files under names that nobody reads was written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from gateway.app.backup.archive import BackupError
from gateway.app.backup.places import INTENT, LOCK, STAGED
from gateway.core.errors import StorageError
from gateway.disk.filesystem import RealFileSystem

_files = RealFileSystem()


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """One place. What is there goes to `aside`; `staged`, where there is something, comes there."""

    place: str
    aside: str | None  # None: nothing was there
    staged: str | None  # None: nothing comes there


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore is about to do."""

    backup: str
    swaps: tuple[Swap, ...]


def staged_path(place: Path) -> Path:
    """Where what shall come to `place` is prepared."""
    return place.with_name(place.name + STAGED)


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Keep a gateway and another restore out of a state directory. Raises `BackupError`."""
    try:
        lock = _files.lock(state / LOCK)
    except (OSError, StorageError) as error:
        raise BackupError(f"{state} is in use: stop the gateway first ({error})") from error
    try:
        yield
    finally:
        lock.close()


def write_intent(state: Path, intent: Intent) -> None:
    """From here on it will be done. Raises `OSError`."""
    path = state / INTENT
    draft = path.with_name(INTENT + STAGED)
    with draft.open("wb") as file:
        file.write(msgspec.json.encode(intent))
        file.flush()
        os.fsync(file.fileno())
    _files.rename(draft, path)
    _files.sync_directory(state)


def finish(state: Path) -> Intent | None:
    """Do what a restore was about to do; None where there is nothing. Needs the lock; raises `OSError`."""
    path = state / INTENT
    try:
        intent = msgspec.json.decode(path.read_bytes(), type=Intent)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackupError(f"{path}: cannot be understood: {error}; look at it, then remove it") from error
    for swap in intent.swaps:
        place = Path(swap.place)
        if swap.aside is not None and not Path(swap.aside).exists():
            _files.rename(place, Path(swap.aside))
        if swap.staged is not None and Path(swap.staged).exists():
            _files.rename(Path(swap.staged), place)
        _files.sync_directory(place.parent)
    _files.unlink(path)
    _files.sync_directory(state)
    return intent


def finish_if_begun(state: Path) -> Intent | None:
    """For a start: finish what a restore was stopped in. Raises `BackupError`."""
    if not (state / INTENT).exists():
        return None
    with locked(state):
        try:
            return finish(state)
        except OSError as error:
            raise BackupError(
                f"a restore into {state} was stopped in the middle and cannot be finished by this user:"
                f" {error}; run `gateway restore --finish --state {state}` as the one who began it"
            ) from error


def remove_tree(path: Path) -> None:
    """What an earlier restore prepared and never used."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
