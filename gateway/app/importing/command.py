"""`gateway import`: a file of another program → a configuration of ours, and what was not carried over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from gateway.app.compiled import compile_site
from gateway.app.importing.formats import FORMATS
from gateway.app.kinds import kinds
from gateway.app.maps.trial import try_map
from gateway.config.draft import Draft, map_text, site_text
from gateway.config.files import MAIN_FILE
from gateway.config.load import ConfigErrors, check
from gateway.config.maps import load_map
from gateway.core.errors import ConfigError, GatewayError

GATEWAY: Final = "imported"


def import_file(kind: str, path: Path, out: Path | None) -> int:
    """Print the configuration, or write it into `out`; the exit code: 1 where nothing was carried over."""
    one = FORMATS[kind]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GatewayError(f"{path}: {error.strerror or error}") from error
    draft = one.read(data, str(path))
    for remark in draft.remarks:
        click.echo(remark, err=True)
    if not draft.tag_count:
        click.echo(f"{path}: no tag could be carried over", err=True)
        return 1
    files = texts(draft, driver=one.driver)
    faults = faults_of(files)
    if out is None:
        click.echo("\n".join(f"# {name}\n{text}" if len(files) > 1 else text for name, text in files.items()))
    else:
        write(files, out)
    for fault in faults:
        click.echo(f"{fault} (to be put right by hand)", err=True)
    click.echo(_summary(draft, len(faults)), err=True)
    return 0


def texts(draft: Draft, *, driver: str) -> dict[str, str]:
    """The files of a draft: their names within a configuration → their text."""
    files = {
        f"maps/{name}.yaml": map_text(draft, one, driver=driver) for name, one in draft.templates.items()
    }
    if draft.devices:
        files[MAIN_FILE] = site_text(draft, gateway=GATEWAY)
    return files


def faults_of(files: Mapping[str, str]) -> list[str]:
    """What `gateway check` says of the files; empty for what can be run as it is."""
    found: list[str] = []
    with TemporaryDirectory(prefix="gateway-import-") as home:
        directory = Path(home)
        write(files, directory)
        for name in files:
            try:
                if name != MAIN_FILE:
                    try_map(load_map(directory / name))
                    continue
                report = check(directory, kinds())
                found += map(str, report.errors)
                if report.site is not None:
                    compile_site(report.site)
            except ConfigErrors as errors:
                found += map(str, errors.errors)
            except ConfigError as error:
                found += str(error).splitlines()
        return [line.replace(f"{home}/", "") for line in found]


def write(files: Mapping[str, str], out: Path) -> None:
    """Write the files. Raises `GatewayError` where one of them is there already: nothing is written then."""
    for name in files:
        if (out / name).exists():
            raise GatewayError(f"{out / name}: is there already; name another directory with --out")
    for name, text in files.items():
        try:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise GatewayError(f"{out / name}: {error.strerror or error}") from error


def _summary(draft: Draft, fault_count: int) -> str:
    counts = {
        "links": len(draft.links),
        "devices": len(draft.devices),
        "maps": len(draft.templates),
        "tags": draft.tag_count,
        "remarks": len(draft.remarks),
        "faults": fault_count,
    }
    said = [f"{count} {what if count != 1 else what[:-1]}" for what, count in counts.items() if count]
    return f"carried over: {', '.join(said)}"
