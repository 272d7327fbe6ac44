"""What `gateway backup` and `gateway restore` print."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import click

from gateway.app.backup.archive import BackupError, Head
from gateway.app.backup.places import INSTALLED_CONFIG, usual_state
from gateway.app.backup.restore import Restored, restore, verify
from gateway.app.backup.save import save
from gateway.app.backup.swap import finish_if_begun
from gateway.config.files import MAIN_FILE

NICE: Final = 10  # the gateway's work goes first


def configuration(given: Path | None) -> Path:
    """What was given, else this directory where it holds a configuration, else the installed service's."""
    if given is not None:
        return given
    return Path() if Path(MAIN_FILE).exists() else INSTALLED_CONFIG


def back_up(file: Path, *, config: Path | None, state: Path | None, with_secrets: bool) -> None:
    """Make one and say what is in it."""
    os.nice(NICE)
    where = configuration(config)
    saved = save(
        file, config=where, state=state or usual_state(where), with_secrets=with_secrets, version=_version()
    )
    click.echo(
        f"{file}: {saved.head.gateway or 'a gateway'}, epoch {saved.head.epoch}: "
        f"{saved.config_files} configuration files, {saved.state_files} state files, "
        f"{size_text(saved.raw_bytes)} in {size_text(saved.size)}"
    )
    if with_secrets:
        click.echo("it holds secrets: keep it as you keep them")
    _say_secrets(saved.head)


def list_backup(file: Path) -> None:
    """What is in one, after all of it was read and found sound."""
    read = verify(file)
    assert read.manifest is not None
    head = read.head
    click.echo(f"gateway  {head.gateway or '-'}")
    click.echo(f"made     {_time(head.created_ns)} by version {head.version}")
    click.echo(f"epoch    {head.epoch}")
    click.echo(f"journal  {head.journal_directory or 'in the state directory'}")
    items = read.manifest.files
    click.echo(f"files    {len(items)}, {size_text(sum(item.size for item in items))}, all sound\n")
    for item in items:
        click.echo(f"{item.size:>12,}  {item.mode:03o}  {item.name}")
    _say_secrets(head)


def put_back(
    file: Path | None, *, config: Path | None, state: Path | None, force: bool, is_finish: bool
) -> None:
    """Restore, or finish one that was stopped."""
    where = configuration(config)
    to_state = state or usual_state(where)
    if is_finish:
        intent = finish_if_begun(to_state)
        click.echo("nothing to finish" if intent is None else f"the restore of {intent.backup} is finished")
        return
    if file is None:
        raise BackupError("which backup? gateway restore FILE")
    _say_restored(restore(file, config=where, state=to_state, force=force))


def _say_restored(done: Restored) -> None:
    click.echo(f"{done.head.gateway or 'a gateway'}, as of {_time(done.head.created_ns)}, is back:")
    for place in done.places:
        click.echo(f"  {place}")
    if done.aside:
        click.echo("what was there before, until you remove it:")
        for place in done.aside:
            click.echo(f"  {place}")
    click.echo(f"the next run's epoch is {done.epoch}, above every one used before")
    for member, path in done.head.outside.items():
        click.echo(
            f"{path} stood outside of the configuration: it is in {member} there, put it back yourself"
        )
    _say_secrets(done.head)


def _say_secrets(head: Head) -> None:
    if head.secrets:
        click.echo("secrets that are not in it:")
        for path, key in head.secrets.items():
            click.echo(f"  {path} ({key})")


def _time(wall_ns: int) -> str:
    return f"{datetime.fromtimestamp(wall_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def size_text(size: float) -> str:
    """`12.3 MB`; powers of 1000."""
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _version() -> str:
    try:
        return version("edge-gateway")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "source"
