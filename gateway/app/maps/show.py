"""`gateway maps` and `gateway test-maps`: what there is, what is in it, and whether its cases hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from gateway.app.kinds import kinds
from gateway.app.maps.trial import Trial, run_cases, try_map, untested
from gateway.config.files import MAIN_FILE
from gateway.config.maps import MapFile, Maps, load_map
from gateway.core.errors import ConfigError, GatewayError

_EXAMPLES: Final = {"document": "from a source", "computed": "computed"}


def print_maps(config: Path) -> None:
    """One line for each map that the configuration in `config` can use."""
    maps = _maps(config)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True, min_width=max(map(len, maps.paths), default=0))
    for title in ("tags", "writable", "cases"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("checked", no_wrap=True)
    table.add_column("for")
    faults: list[str] = []
    for path in maps.paths.values():
        try:
            trial = try_map(load_map(path))
        except ConfigError as error:
            faults += str(error).splitlines()
            continue
        tags = trial.device.tags.values()
        about = trial.map.about
        table.add_row(
            trial.map.name,
            str(len(tags)),
            str(sum(tag.point.writable for tag in tags)),
            str(len(trial.map.cases)),
            about.checked,
            f"{about.maker} {about.model}",
        )
    Console().print(table)
    click.echo("devices: {NAME: {link: LINK, unit: 1, use: MAP}} takes one; `gateway maps MAP` shows it")
    if faults:
        raise ConfigError("\n".join(faults))


def print_map(name: str, config: Path) -> None:
    """One map: where it is from, what to know, and its tags."""
    trial = try_map(_named(name, config))
    one = trial.map
    click.echo(f"{one.name}: {one.about.maker} {one.about.model}")
    click.echo(f"file     {one.path}")
    for index, source in enumerate(one.about.sources):
        revision = f", {source.revision}" if source.revision else ""
        click.echo(f"{'sources' if not index else '':8} {source.title}{revision}")
        click.echo(f"{'':8} {source.address}")
        if source.used_for:
            click.echo(f"{'':8} for {source.used_for}")
    click.echo(f"checked  {one.about.checked}; {_case_counts(one)}")
    for index, note in enumerate(one.about.notes):
        click.echo(f"{'notes' if not index else '':8} {note}")
    click.echo()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("tag", "at", "type", "unit", "scale", "write", "meaning"):
        table.add_column(title, no_wrap=title != "meaning")
    for tag, spec in trial.device.tags.items():
        table.add_row(
            tag,
            str(getattr(spec.model, "at", "")),
            _type(spec.model),
            spec.point.unit,
            _scale(getattr(spec.model, "scale", None)),
            _write(spec.model.write),
            ", ".join(f"{number} {text}" for number, text in (*spec.point.labels, *spec.point.flags)),
        )
    Console().print(table)


def check_maps(names: Sequence[str], config: Path) -> int:
    """Run the cases of the maps named, or of all; 1 where one does not hold."""
    maps = _maps(config)
    files = [_named(name, config) for name in names] or [load_map(path) for path in maps.paths.values()]
    failed = 0
    for one in files:
        trial = try_map(one)
        faults = run_cases(trial)
        missing = untested(trial)
        failed += len(faults)
        click.echo(
            f"{one.name}: {len(one.cases)} cases, {len(faults) or 'none'} wrong, {_missing(trial, missing)}"
        )
        for fault in faults:
            click.echo(f"  {fault}")
    return 1 if failed else 0


def _missing(trial: Trial, missing: Sequence[str]) -> str:
    total = len(trial.device.tags)
    if not missing:
        return f"all {total} tags in them"
    more = " …" if len(missing) > 5 else ""
    return f"{total - len(missing)} of {total} tags in them; not {', '.join(missing[:5])}{more}"


def _maps(config: Path) -> Maps:
    return Maps.of_site(config / MAIN_FILE if config.is_dir() else config, kinds().maps)


def _named(name: str, config: Path) -> MapFile:
    if name.endswith(".yaml"):
        return load_map(Path(name))
    maps = _maps(config)
    path = maps.paths.get(name)
    if path is None:
        raise GatewayError(f"no map '{name}'{maps.near(name)}; `gateway maps` lists them")
    return load_map(path)


def _case_counts(one: MapFile) -> str:
    counts = {kind: sum(case.example == kind for case, _ in one.cases) for kind in _EXAMPLES}
    said = [f"{count} {_EXAMPLES[kind]}" for kind, count in counts.items() if count]
    return f"{len(one.cases)} cases: {', '.join(said)}" if said else "no cases"


def _type(model: Any) -> str:
    words = [getattr(model, "type_name", "")]
    for key in ("length", "bit", "bits", "byte"):
        value = getattr(model, key, None)
        if value is not None:
            words.append(f"{key} {'-'.join(map(str, value)) if isinstance(value, tuple) else value}")
    order = getattr(model, "order", "ABCD")
    return " ".join(words + ([order] if order != "ABCD" else []))


def _scale(scale: Any) -> str:
    if scale is None:
        return ""
    if hasattr(scale, "numerator"):
        factor = f"{scale.numerator / scale.denominator:g}"
        return factor + (f" {scale.shift / scale.denominator:+g}" if scale.shift else "")
    return f"10^{scale}" if not hasattr(scale, "raw") else "table"


def _write(write: Any) -> str:
    if write is None:
        return ""
    low, high = write.min, write.max
    ends = [f"{end:g}" if end is not None else "" for end in (low, high)]
    return "yes" if low is None and high is None else " to ".join(ends).strip()
