"""What is simulated: a whole configuration, one link of it, or a file with nothing but a map of a device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from gateway.app.kinds import kinds
from gateway.config.files import MAIN_FILE, main_file
from gateway.config.load import load
from gateway.config.maps import OWN_DIRECTORY
from gateway.config.reader import read
from gateway.config.scalars import choice
from gateway.config.site import DeviceSpec, LinkSpec, Site
from gateway.config.tree import Mapping
from gateway.config.values import is_name
from gateway.core.errors import ConfigError

_UNIT_FIRST: Final = 1
_UNITS_MAX: Final = 247


def load_map(source: Path) -> Site:
    """A configuration as it is; of a device map, or of templates alone, devices with units 1, 2, 3 …

    `source`: a file or directory, or the name of a map that comes with the gateway. Raises `ConfigError` with
    every fault of it.
    """
    if not source.exists():
        if is_name(str(source)):
            return _of_templates([str(source)])
        raise ConfigError(f"{source}: found no such file, expected a configuration, a device map or its name")
    file = main_file(source)
    keys, templates = _outline(file)
    if "template" in keys and "map" in keys:
        return _of_templates([file.stem], own_map=file)
    if templates and "devices" not in keys:
        return _of_templates(templates[:_UNITS_MAX], include=file)
    return load(source, kinds())


def _outline(file: Path) -> tuple[set[str], list[str]]:
    """The sections of a file and the names of its templates; nothing where it cannot be read."""
    try:
        node, _faults = read(file.read_bytes(), str(file))
    except OSError:
        return set(), []
    if not isinstance(node, Mapping):
        return set(), []
    templates = node.items.get("templates")
    names = [str(name) for name in templates.items] if isinstance(templates, Mapping) else []
    return {str(key) for key in node.items}, names


def _of_templates(names: list[str], *, own_map: Path | None = None, include: Path | None = None) -> Site:
    """A site with a device for each template."""
    lines = ["version: 1", "gateway: {name: simulator}"]
    if include is not None:
        lines.append(f"include: [{_quoted(str(include.resolve()))}]")
    lines += ["links: {simulated: {driver: modbus, host: 127.0.0.1}}", "devices:"]
    lines += [
        f"  {_quoted(name)}: {{link: simulated, unit: {unit}, use: {_quoted(name)}}}"
        for unit, name in enumerate(names, _UNIT_FIRST)
    ]
    with tempfile.TemporaryDirectory(prefix="gateway-simulate-") as folder:
        if own_map is not None:
            Path(folder, OWN_DIRECTORY).mkdir()
            Path(folder, OWN_DIRECTORY, own_map.name).symlink_to(own_map.resolve())
        made = Path(folder, MAIN_FILE)
        made.write_text("\n".join(lines) + "\n")
        return load(made, kinds())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def modbus_links(site: Site, only: str | None) -> list[tuple[LinkSpec, list[DeviceSpec]]]:
    """The Modbus links with their devices. Raises `ConfigError` where there is none, or not that one."""
    known = {
        name: spec for name, spec in site.links.items() if spec.driver == "modbus" and not spec.is_server
    }
    if only is not None and only not in known:
        raise ConfigError(f"--link: found {only!r}, expected {choice(only, known)}")
    found: list[tuple[LinkSpec, list[DeviceSpec]]] = []
    for name, spec in known.items():
        devices = [device for device in site.devices.values() if device.link == name]
        if devices and only in (None, name):
            found.append((spec, devices))
    if not found:
        raise ConfigError(f"{site.directory}: found no Modbus device, expected at least one to simulate")
    return found
