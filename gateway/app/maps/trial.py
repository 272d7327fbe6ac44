"""A map put to use: a site of one device with it, and its cases through the loader and the driver."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from gateway.app.kinds import case_parts, driver_parts, kinds
from gateway.config.load import ConfigErrors, load
from gateway.config.maps import Case, CaseFault, Expected, MapFile, is_equal
from gateway.config.site import DeviceSpec
from gateway.config.tree import Place
from gateway.core.errors import ConfigError
from gateway.core.quality import describe

DEVICE = "device"


class Trial(msgspec.Struct, frozen=True):
    """A map, as its driver would run it."""

    map: MapFile
    device: DeviceSpec
    parts: Any


def try_map(one: MapFile) -> Trial:
    """Load and compile a site with one device that uses the map. Raises `ConfigError` with every fault."""
    driver = one.about.driver
    table = kinds()
    if driver not in table.drivers:
        raise ConfigError(f"{one.place}: found a map for {driver}, expected one for a driver that is there")
    site = {
        "version": 1,
        "gateway": {"name": "trial"},
        "links": {"link": case_parts(driver).MODEL},
        "devices": {DEVICE: {"link": "link", "unit": 1, "use": one.name}},
    }
    with TemporaryDirectory(prefix="gateway-map-") as directory:
        main = Path(directory) / "gateway.yaml"
        main.write_text(json.dumps(site))
        near = msgspec.structs.replace(table, maps=(one.path.parent, *table.maps))
        found = load(main, near)
        spec = found.devices[DEVICE]
        parts = driver_parts(driver).compile_link(found.links["link"], [spec], found.scans)
        if parts.problems:
            raise ConfigErrors(found.located(parts.problems))
    return Trial(one, spec, parts)


def run_cases(trial: Trial) -> list[CaseFault]:
    """What the cases of a map show other than they expect."""
    return [fault for case, place in trial.map.cases for fault in _run(trial, case, place)]


def untested(trial: Trial) -> list[str]:
    """Tags that no case shows, and writable tags that no case writes."""
    read = {tag for case, _ in trial.map.cases for tag in case.expect}
    written = {case.command.tag for case, _ in trial.map.cases if case.command is not None}
    tags = trial.device.tags.items()
    return [name for name, tag in tags if name not in read or (tag.point.writable and name not in written)]


def _run(trial: Trial, case: Case, place: Place) -> Iterable[CaseFault]:
    try:
        if case.command is not None:
            yield from _run_command(trial, case, place)
            return
        shown = case_parts(trial.map.about.driver).read_case(trial.parts, case.given)
    except ValueError as error:
        yield CaseFault(place, case.name, *_facts(error))
        return
    for tag, expected in case.expect.items():
        assert isinstance(expected, Expected)
        if tag not in trial.device.tags:
            yield CaseFault(place, case.name, f"no tag {tag} in the map", "a tag of it")
        elif tag not in shown:
            yield CaseFault(place, case.name, f"{tag} without all that it is made of", "it in 'given'")
        else:
            value, quality = shown[tag]
            if not is_equal(value, expected.value) or describe(quality) != expected.quality:
                found = f"{tag} = {value!r}, {describe(quality)}"
                yield CaseFault(place, case.name, found, f"{expected.value!r}, {expected.quality}")


def _run_command(trial: Trial, case: Case, place: Place) -> Iterable[CaseFault]:
    assert case.command is not None
    try:
        sent = case_parts(trial.map.about.driver).write_case(
            trial.parts, case.command.tag, case.command.value, case.given
        )
    except ValueError as error:
        if case.refused is None or case.refused not in str(error):
            yield CaseFault(place, case.name, f"a refusal: {error}", case.refused or _listed(case.sent))
        return
    if case.refused is not None:
        yield CaseFault(place, case.name, _listed(sent), f"a refusal: {case.refused}")
    elif tuple(case.sent) != sent:
        yield CaseFault(place, case.name, _listed(sent), _listed(case.sent))


def _facts(error: ValueError) -> tuple[str, str]:
    found, _, expected = str(error).removeprefix("found ").partition(", expected ")
    return found, expected or "a case that fits the map"


def _listed(frames: Iterable[bytes]) -> str:
    return ", ".join(frame.hex(" ").upper() for frame in frames) or "nothing"
