"""`gateway restore FILE`: configuration and state as they were, in the place of those that are there.

The file is read to its end before anything is touched. After that: everything is written beside its place and
synced, then `swap` puts it there.
"""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from grp import getgrnam
from pathlib import Path
from typing import Final

import msgspec

from gateway.app.backup.archive import ArchiveReader, BackupError, Head, Item, Manifest, Member
from gateway.app.backup.places import ASIDE, JOURNAL, LOCK, is_ours, journal_home
from gateway.app.backup.swap import Intent, Swap, finish, locked, remove_tree, staged_path, write_intent
from gateway.core.errors import StorageError
from gateway.disk.filesystem import RealFileSystem
from gateway.disk.segment import HEADER_BYTES, parse_name, read_header
from gateway.journal.epochs import EpochFile

EPOCHS_SPARE: Final = 1_000_000
"""Left free above what the original can have used by now: the number of its starts since the backup that are
covered even where this machine's clock is wrong."""
EPOCH_MAX: Final = (1 << 32) - 1  # u32 in every record
_PARTS_OF_A_STATE: Final = frozenset({JOURNAL, "audit"})

_files = RealFileSystem()


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One directory of the backup and where it goes."""

    member: str  # config, journal, state/audit …
    path: Path


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was put back."""

    head: Head
    manifest: Manifest
    epoch: int  # of the next run, at least
    places: tuple[str, ...]
    aside: tuple[str, ...]


def verify(file: Path) -> ArchiveReader:
    """Read all of it; the reader is closed and knows head, manifest and sizes. Raises `BackupError`."""
    reader = ArchiveReader(file)
    try:
        for member in reader.members():
            for _chunk in reader.checked(member):
                pass
    finally:
        reader.close()
    return reader


def restore(
    file: Path, *, config: Path, state: Path, force: bool, wall_ns: Callable[[], int] = time.time_ns
) -> Restored:
    """Raises `BackupError`, with everything as it was. Needs room for the backup beside what is there."""
    home, settings = state.resolve(), config.resolve()
    if home.is_relative_to(settings) or settings.is_relative_to(home):
        raise BackupError(f"one of {config} and {state} lies in the other: choose --config and --state apart")
    read = verify(file)
    manifest = read.manifest
    assert manifest is not None
    head = read.head
    epoch = next_epoch(head, wall_ns())
    places = _places(head, manifest, config=config, state=state)
    is_begun = False
    try:
        _files.make_directory(state)
        _refuse_what_is_no_state(state)
        with locked(state):
            finish(state)  # one that was stopped in the middle
            taken = [path for path in _all_places(places, state) if _is_taken(path)]
            if taken and not force:
                raise BackupError(
                    f"{', '.join(map(str, taken))}: not empty: --force keeps what is there aside"
                )
            swaps = _swaps(places, taken, wall_ns())
            with _no_gateway(places):
                try:
                    _stage(file, head, manifest, places, epoch)
                except BaseException:
                    for place in places:
                        remove_tree(staged_path(place.path))
                    raise
                is_begun = True
                write_intent(state, Intent(backup=str(file.absolute()), swaps=swaps))
                finish(state)
    except OSError as error:
        what = "stopped in the middle: run `gateway restore --finish`" if is_begun else "nothing was changed"
        raise BackupError(f"{error.filename or state}: {error.strerror or error}: {what}") from error
    return Restored(
        head=head,
        manifest=manifest,
        epoch=epoch,
        places=tuple(str(place.path) for place in places),
        aside=tuple(swap.aside for swap in swaps if swap.aside is not None),
    )


def next_epoch(head: Head, now_ns: int) -> int:
    """Above every epoch that the original can have used, before the backup and after it.

    An epoch is at least a second of a run apart from the next, and the first one is the time in seconds. So
    the original is at most at the time now, or as many above the backup's as seconds have passed. Where the
    clock is behind, here or there, `EPOCHS_SPARE` starts since the backup are still covered.
    """
    now_s, created_s = now_ns // 1_000_000_000, head.created_ns // 1_000_000_000
    epoch = max(now_s, head.epoch + max(0, now_s - created_s)) + EPOCHS_SPARE
    if epoch >= EPOCH_MAX:
        raise BackupError(
            f"the next epoch would be {epoch}, at most {EPOCH_MAX - 1} is possible: set this machine's clock"
        )
    return epoch


def _places(head: Head, manifest: Manifest, *, config: Path, state: Path) -> tuple[Place, ...]:
    """Every top directory of the backup, with where it goes."""
    tops: dict[str, None] = {}
    for name in (*(item.name for item in manifest.files), *manifest.directories):
        parts = name.split("/")
        if parts[0] in {"config", "journal"}:
            tops[parts[0]] = None
        elif parts[0] == "state" and len(parts) > 1:
            if not is_ours(parts[1]) or parts[1] == JOURNAL:
                raise BackupError(f"{name!r} in the backup is no part of a state: nothing was changed")
            tops["/".join(parts[:2])] = None
        elif parts[0] != "outside":
            raise BackupError(f"{name!r} in the backup belongs nowhere: nothing was changed")
    if "config" not in tops or JOURNAL not in tops:
        raise BackupError("the backup holds no configuration or no journal: nothing was changed")
    places = []
    for top in sorted(tops):
        if top == "config":
            path = config.resolve()
        elif top == "journal":
            path = journal_home(state, head.journal_directory).absolute() / JOURNAL
        else:
            path = state.resolve() / top.removeprefix("state/")
        if os.path.ismount(path):
            raise BackupError(f"{path} is a mount point and cannot be replaced: unmount it first")
        places.append(Place(member=top, path=path))
    return tuple(places)


def _all_places(places: tuple[Place, ...], state: Path) -> list[Path]:
    """Those of the backup, and what is in the state besides: it belongs to the state that goes."""
    found = {place.path for place in places}
    found |= {path for path in state.resolve().iterdir() if is_ours(path.name)}
    return sorted(found)


def _refuse_what_is_no_state(state: Path) -> None:
    found = {path.name for path in state.iterdir() if is_ours(path.name)}
    if found and not found & _PARTS_OF_A_STATE:
        raise BackupError(f"{state} is not empty and is no state of a gateway: choose another with --state")


def _is_taken(path: Path) -> bool:
    if path.is_dir():
        return any(entry.name != LOCK for entry in path.iterdir())
    return path.exists()


def _swaps(places: tuple[Place, ...], taken: list[Path], now_ns: int) -> tuple[Swap, ...]:
    stamp = f"{ASIDE}{datetime.fromtimestamp(now_ns / 1e9, UTC):%Y%m%dT%H%M%S}"
    coming = {place.path for place in places}
    swaps = []
    for path in sorted(coming | set(taken)):
        aside = path.with_name(path.name + stamp) if path.exists() else None
        while aside is not None and aside.exists():
            aside = aside.with_name(aside.name + "+")
        staged = str(staged_path(path)) if path in coming else None
        swaps.append(Swap(place=str(path), aside=None if aside is None else str(aside), staged=staged))
    return tuple(swaps)


class _no_gateway:  # noqa: N801 - reads as a sentence in `with`
    """Holds the lock of a journal that is there, which an older gateway may use without the state's."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._paths = [place.path / LOCK for place in places if place.member == JOURNAL]

    def __enter__(self) -> None:
        try:
            self._locks = [_files.lock(path) for path in self._paths if path.exists()]
        except StorageError as error:
            raise BackupError(f"a gateway is running: stop it first ({error})") from error

    def __exit__(self, *_: object) -> None:
        for lock in self._locks:
            lock.close()


def _stage(file: Path, head: Head, manifest: Manifest, places: tuple[Place, ...], epoch: int) -> None:
    """Everything beside its place, durable. Raises `OSError`, `BackupError`."""
    by_member = {place.member: place for place in places}
    items = {item.name: item for item in manifest.files}
    for place in places:
        remove_tree(staged_path(place.path))
        _files.make_directory(place.path.parent)
        if place.member in {"config", JOURNAL}:
            _make(staged_path(place.path), 0o750, place)
    for name, mode in sorted(manifest.directories.items()):
        where = _where(name, by_member)
        if where is not None:
            _make(where[1], mode, where[0])
    reader = ArchiveReader(file)
    try:
        for member in reader.members():
            where = _where(member.name, by_member)
            if where is None:  # outside of the configuration: kept in it, under its own path
                where = by_member["config"], staged_path(by_member["config"].path) / member.name
            _write(where[1], where[0], member, reader, items.get(member.name))
    finally:
        reader.close()
    if reader.manifest != manifest or reader.head != head:
        raise BackupError(f"{file} changed while it was read: nothing was changed")
    journal = by_member[JOURNAL]
    path = staged_path(journal.path) / "epoch"
    EpochFile(path, filesystem=_files).write(epoch - 1)
    _give(path, journal, "")
    for place in places:
        _sync_tree(staged_path(place.path))


def _where(name: str, places: dict[str, Place]) -> tuple[Place, Path] | None:
    """The place of a member and its path while it is prepared; None for what stood outside."""
    top, _, below = name.partition("/")
    if top == "outside":
        return None
    if top == "state":
        second, _, below = below.partition("/")
        top = f"state/{second}"
    place = places[top]
    staged = staged_path(place.path)
    return place, staged / below if below else staged


def _make(path: Path, mode: int, place: Place) -> None:
    for step in reversed([path, *path.parents]):
        if not step.exists():
            step.mkdir(mode=0o750)
            _give(step, place, "")
    path.chmod(mode & 0o777 | 0o700)


def _write(path: Path, place: Place, member: Member, reader: ArchiveReader, item: Item | None) -> None:
    if not path.parent.is_dir():
        _make(path.parent, 0o750, place)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        head = b""
        for chunk in reader.checked(member):
            head = head or chunk[:HEADER_BYTES]
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, member.mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _give(path, place, "" if item is None else item.owner)
    if place.member == JOURNAL and parse_name(path.name) is not None:
        try:
            read_header(head, path)
        except StorageError as error:
            raise BackupError(f"{member.name}: {error}: nothing was changed") from error


def _give(path: Path, place: Place, owner: str) -> None:
    """As root: to whom it belonged, where they exist here, else to the owner of what it comes into."""
    if os.geteuid() != 0:
        return
    try:
        user, _, group = owner.partition(":")
        uid, gid = pwd.getpwnam(user).pw_uid, getgrnam(group).gr_gid
    except KeyError:
        status = (place.path if place.path.exists() else place.path.parent).stat()
        uid, gid = status.st_uid, status.st_gid
    os.chown(path, uid, gid)


def _sync_tree(directory: Path) -> None:
    if not directory.is_dir():
        return
    for path in _directories(directory):
        _files.sync_directory(path)
    _files.sync_directory(directory.parent)


def _directories(directory: Path) -> Iterator[Path]:
    for root, _names, _files_in_it in os.walk(directory):
        yield Path(root)
