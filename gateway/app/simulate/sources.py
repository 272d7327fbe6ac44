"""What is simulated: a whole configuration, one link of it, or a file with nothing but a map of a device."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from gateway.app.kinds import kinds
from gateway.config.faults import Collector
from gateway.config.files import MAIN_FILE, main_file, read_files
from gateway.config.load import load
from gateway.config.scalars import choice
from gateway.config.site import DeviceSpec, LinkSpec, Site
from gateway.config.tree import Mapping
from gateway.core.errors import ConfigError

_UNIT_FIRST: Final = 1
_UNITS_MAX: Final = 247


def load_map(path: Path) -> Site:
    """A configuration as it is; of a file with templates only, each is a device: units 1, 2, 3 …

    Raises `ConfigError` with every fault of it.
    """
    file = main_file(path)
    faults = Collector()
    root = read_files(file, faults)
    templates = root.items.get("templates")
    if root.items.get("devices") is not None or not isinstance(templates, Mapping):
        return load(path, kinds())
    names = [str(name) for name in templates.items][:_UNITS_MAX]
    lines = ["version: 1", "gateway: {name: simulator}"]
    lines += [f"include: [{_quoted(str(file.resolve()))}]"]
    lines += ["links: {simulated: {driver: modbus, host: 127.0.0.1}}", "devices:"]
    lines += [
        f"  {_quoted(name)}: {{link: simulated, unit: {unit}, use: {_quoted(name)}}}"
        for unit, name in enumerate(names, _UNIT_FIRST)
    ]
    with tempfile.TemporaryDirectory(prefix="gateway-simulate-") as folder:
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
