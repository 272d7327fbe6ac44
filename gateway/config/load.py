"""Load a configuration: every fault in one run, or a `Site`.

site = load(Path("configs/demo"), kinds)          # raises ConfigErrors with all of them
report = check(Path("configs/demo"), kinds)       # errors and warnings as lines for people
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.config.devices import Devices
from gateway.config.exposures import Exposures
from gateway.config.faults import Collector, validate
from gateway.config.files import MAIN_FILE, main_file, read_files
from gateway.config.journal import JournalSection
from gateway.config.kinds import Kinds
from gateway.config.links import Links, uplinks
from gateway.config.maps import Maps
from gateway.config.model import Model
from gateway.config.models import GatewaySection, HttpSection, ScanSection
from gateway.config.rules import Rules
from gateway.config.scalars import shown
from gateway.config.site import CONTINUOUS, ScanClass, Site
from gateway.config.tree import Mapping, Place, Sequence, is_null, merged, place_of, plain
from gateway.config.values import NAME_EXPECTED, is_name
from gateway.core.errors import ConfigError, Problem

FORMAT_VERSION: Final = 1
DEFAULT_SCAN: Final = ScanClass(name="normal", every_ns=1_000_000_000)
"""The scan class of tags that name none, where the section `scan` does not define it."""


class ConfigErrors(ConfigError):
    """Everything that is wrong with a configuration, a line each, in the order of files and lines."""

    def __init__(self, errors: Iterable[str], warnings: Iterable[str] = ()) -> None:
        self.errors = tuple(errors)
        self.warnings = tuple(warnings)
        super().__init__("\n".join(self.errors))


class Report(msgspec.Struct, frozen=True):
    """What `check` found, a line each: `file:line:column: found …, expected …`."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    site: Site | None = None


def load(path: Path, kinds: Kinds) -> Site:
    """The configuration in a file or in DIR/gateway.yaml. Raises `ConfigErrors` with every fault."""
    report = check(path, kinds)
    if report.site is None:
        raise ConfigErrors(report.errors, report.warnings)
    return report.site


def check(path: Path, kinds: Kinds) -> Report:
    """Every fault and every warning; never raises for what is wrong in a file."""
    faults = Collector()
    file = main_file(path)
    try:
        root = read_files(file, faults)
    except ConfigError as error:
        return Report((f"{error} (a file, or a directory with {MAIN_FILE})",), ())
    faults.root = root
    maps = Maps.of_site(file, kinds.maps)
    if faults.is_readable:
        maps.use(root, faults)
    if not faults.is_readable:
        return Report(tuple(faults.errors()), tuple(faults.warnings()))
    site = _assemble(file, root, kinds, maps, faults)
    errors = tuple(faults.errors())
    return Report(errors, tuple(faults.warnings()), None if errors else site)


def digest(root: Mapping) -> str:
    """A name for what the user wrote: 16 hex digits, the same after reformatting or reordering of keys."""
    digest = hashlib.sha256()
    for key, node in sorted(root.items.items(), key=lambda item: str(item[0])):
        digest.update(_canonical(key))
        if isinstance(node, Mapping):  # one entry at a time: the whole would be the peak of memory
            for name in sorted(node.items, key=lambda name: (str(name), type(name).__name__)):
                digest.update(_canonical({name: plain(node.items[name])}))
        else:
            digest.update(_canonical(plain(node)))
    return digest.hexdigest()[:16]


def _canonical(value: Any) -> bytes:
    return msgspec.json.encode(_text_keys(value), order="sorted") + b"\n"


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {f"{type(key).__name__}:{key}": _text_keys(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_text_keys(child) for child in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"number": repr(value)}  # JSON has neither infinity nor whole numbers of any size
    return value


def _assemble(file: Path, root: Mapping, kinds: Kinds, maps: Maps, faults: Collector) -> Site | None:
    _version(root, faults)
    if "bridge" in root.items:
        faults.add((root.places["bridge"], "the section 'bridge', which is not there yet", "no such section"))
    gateway = _single(GatewaySection, "gateway", root, faults)
    http = _single(HttpSection, "http", root, faults)
    journal = _single(JournalSection, "journal", root, faults)
    scans = _scans(root, faults)
    links = Links(section=root.items.get("links"), kinds=kinds, faults=faults)
    devices = Devices(root=root, kinds=kinds, links=links, scans=scans, maps=maps, faults=faults)
    specs = devices.build()
    uplink_specs, uplink_names = uplinks(root.items.get("uplinks"), kinds, faults)
    names = {"gateway": gateway.name} if gateway is not None else {"gateway": "gateway", "site": "site"}
    if gateway is not None and gateway.site is not None:
        names["site"] = gateway.site
    rules = Rules(
        names=names,
        devices=specs,
        uplinks=uplink_specs,
        uplink_names=uplink_names,
        is_whole=devices.is_whole,
        attributes=devices.attribute_names(),
        faults=faults,
    )
    publish = rules.publish(root.items.get("publish"))
    commands = rules.commands(root.items.get("commands"))
    expose = Exposures(devices=specs, links=links, kinds=kinds, faults=faults).build(root.items.get("expose"))
    rules.history(None if journal is None else journal.history, root.items.get("journal"))
    if gateway is None or http is None or journal is None or faults:
        return None
    return Site(
        version=digest(root),
        name=gateway.name,
        site=gateway.site or "",
        directory=file.parent,
        http=http.listen,
        journal=journal,
        links=links.specs,
        scans=scans,
        devices=specs,
        uplinks=uplink_specs,
        publish=publish,
        commands=commands,
        expose=expose,
        locate=_Locator(root, devices.effective, faults.templates),
    )


class _Locator:
    """Turns problems of other rooms into lines; holds the tree, so drop the site once all is compiled."""

    def __init__(self, root: Mapping, devices: Mapping, templates: dict[str, Mapping]) -> None:
        effective = Mapping(root.place)
        effective.put("devices", root.places.get("devices", root.place), devices)
        self._root = merged(root, effective)
        self._root.items["devices"] = devices
        self._templates = templates

    def __call__(self, problems: Iterable[Problem]) -> list[str]:
        faults = Collector()
        faults.templates = self._templates
        for problem in problems:
            is_device = problem.path[:1] == ("devices",) and len(problem.path) > 1
            device = str(problem.path[1]) if is_device else None
            faults.add((place_of(self._root, problem.path), problem.found, problem.expected), device=device)
        return faults.errors()


def _version(root: Mapping, faults: Collector) -> None:
    node = root.items.get("version")
    if node is None:
        faults.add((root.place, "no 'version'", f"version: {FORMAT_VERSION}"))
    elif plain(node) is True or plain(node) != FORMAT_VERSION:
        faults.add(
            (
                node.place,
                f"version {shown(plain(node)).removeprefix('the number ')}",
                f"version: {FORMAT_VERSION}",
            )
        )


def _single(model: type[Model], key: str, root: Mapping, faults: Collector) -> Any:
    node = root.items.get(key)
    if node is None or is_null(node):
        node = Mapping(root.places.get(key, root.place))
        if model is GatewaySection:
            faults.add((node.place, "no 'gateway'", "gateway: {name: NAME, site: SITE}"))
            return None
    result, found = validate(model, node, plain(node), root.places.get(key, root.place))
    for fault in found:
        faults.add(fault)
    return None if found else result


def _scans(root: Mapping, faults: Collector) -> dict[str, ScanClass]:
    scans: dict[str, ScanClass] = {}
    section = root.items.get("scan")
    if isinstance(section, Mapping):
        for name, node in section.items.items():
            place: Place = section.places[name]
            if not is_name(name):
                faults.add((place, f"{shown(name)} as the name of a scan class", NAME_EXPECTED))
                continue
            value = plain(node)
            if value == "continuous":
                scans[str(name)] = ScanClass(name=str(name), every_ns=CONTINUOUS)
                continue
            data = value if isinstance(node, Mapping) else {"every": value}
            model, found = validate(
                ScanSection, node, data, node.place if isinstance(node, Sequence) else place
            )
            for where, what, expected in found:
                where = where if isinstance(node, Mapping) else node.place
                faults.add((where, what, f"{expected}, or continuous" if what == shown(value) else expected))
            every_ns = model.every_ns if model is not None else DEFAULT_SCAN.every_ns
            spread = model.spread if model is not None else False
            scans[str(name)] = ScanClass(name=str(name), every_ns=every_ns, spread=spread)
    scans.setdefault(DEFAULT_SCAN.name, DEFAULT_SCAN)
    return scans
