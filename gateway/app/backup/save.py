"""`gateway backup FILE`: configuration and state of a gateway, which may be running, in one file."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from gateway.app.backup.archive import ArchiveWriter, BackupError, Head, is_backup
from gateway.app.backup.collect import Collected, allow_many_files, collect_config, collect_state
from gateway.app.backup.places import INTENT, JOURNAL, journal_home
from gateway.app.kinds import kinds
from gateway.config.inventory import Inventory, read_inventory
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.epochs import EpochFile

PARTIAL: Final = ".partial"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What was written."""

    head: Head
    config_files: int
    state_files: int
    raw_bytes: int
    size: int


def save(
    file: Path,
    *,
    config: Path,
    state: Path,
    with_secrets: bool,
    version: str,
    wall_ns: Callable[[], int] = time.time_ns,
) -> Saved:
    """Write `file`: under another name first, synced, then renamed. Raises `GatewayError`."""
    if file.exists() and not (file.is_file() and (not file.stat().st_size or is_backup(file))):
        raise BackupError(f"{file} is there and is no backup: choose another name")
    if (state / INTENT).exists():
        raise BackupError(f"a restore into {state} is not finished: run `gateway restore --finish` first")
    inventory = read_inventory(config, kinds())
    partial = file.with_name(file.name + PARTIAL)
    collected = Collected()
    try:
        created_ns = wall_ns()
        epoch = max(EpochFile(_journal(state, inventory) / "epoch", filesystem=RealFileSystem()).read())
        allow_many_files()
        made = {path.resolve() for path in (file, partial)}
        own = made | {path.resolve() for path in (state, _journal(state, inventory))}
        is_config = made | {config.resolve()}
        collect_state(collected, state, inventory, leave_out=lambda path: path.resolve() in is_config)
        collect_config(
            collected,
            config,
            inventory,
            with_secrets=with_secrets,
            leave_out=lambda path: path.resolve() in own,
        )
        head = Head(
            version=version,
            gateway=inventory.gateway,
            created_ns=created_ns,
            epoch=epoch,
            journal_directory=inventory.journal_directory,
            outside=collected.outside,
            secrets=collected.secrets,
        )
        return _write(file, partial, head, collected)
    except OSError as error:
        where = error.filename or file
        raise BackupError(f"{where}: {error.strerror or error}: no backup was made") from error
    finally:
        collected.close()


def _journal(state: Path, inventory: Inventory) -> Path:
    return journal_home(state, inventory.journal_directory) / JOURNAL


def _write(file: Path, partial: Path, head: Head, collected: Collected) -> Saved:
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BackupError(f"another backup to {file} is under way: wait for it") from error
        if os.fstat(descriptor).st_nlink == 0 or not os.path.samestat(os.fstat(descriptor), partial.stat()):
            raise BackupError(f"another backup to {file} has just ended: try again")
        os.ftruncate(descriptor, 0)
        os.fchmod(descriptor, 0o600)
        try:
            archive = ArchiveWriter(descriptor, head)
            for one in sorted(collected.files, key=lambda one: one.name):
                archive.add(one.name, one.size, one.mode, one.chunks(), owner=one.owner)
            archive.finish(collected.directories)
            os.fsync(descriptor)
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    finally:
        os.close(descriptor)
    RealFileSystem().sync_directory(file.absolute().parent)
    state_files = sum(1 for item in archive.items if not item.name.startswith(("config/", "outside/")))
    return Saved(
        head=head,
        config_files=len(archive.items) - state_files,
        state_files=state_files,
        raw_bytes=archive.raw_bytes,
        size=archive.size,
    )
