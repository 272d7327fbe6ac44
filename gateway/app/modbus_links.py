"""Which wire a tool works on: a link of a configuration, or one made of options."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from pydantic import ValidationError

from drivers.modbus.asker import Asker
from drivers.modbus.link import SERIAL, ModbusLink
from drivers.modbus.transport import open_tls
from gateway.aio.clock import SystemClock
from gateway.app.kinds import kinds
from gateway.config.load import load
from gateway.config.scalars import choice
from gateway.config.site import LinkSpec
from gateway.core.errors import ConfigError, LinkError

_OPTIONS: Final = {"serial": "--line", "cert": "--cert", "key_file": "--key", "ca": "--ca"}


class Wire(msgspec.Struct, frozen=True):
    """One link, as its model has it. `name`: the configuration's, or "device"."""

    name: str
    model: ModbusLink
    tls: ssl.SSLContext | None = None

    def asker(self) -> Asker:
        """A connection of its own."""
        return Asker(self.model, clock=SystemClock(), tls=self.tls)

    @property
    def is_serial(self) -> bool:
        """A port that only one process can have."""
        return self.model.transport in SERIAL


def wire_of_config(directory: str, name: str) -> Wire:
    """A Modbus link of the configuration in a directory. Raises `ConfigError`."""
    site = load(Path(directory), kinds())
    links = {key: spec for key, spec in site.links.items() if spec.driver == "modbus" and not spec.is_server}
    spec = links.get(name)
    if spec is None or not isinstance(spec.model, ModbusLink):
        raise ConfigError(f"{directory}: found no Modbus link {name!r}, expected {choice(name, links)}")
    context, problems = open_tls(spec, spec.model)
    if problems:
        raise ConfigError("\n".join(site.located(problems)))
    return Wire(name, spec.model, context)


def wire_of_options(options: dict[str, Any]) -> Wire:
    """A link made of what would stand in YAML; None is not there. Raises `click.UsageError`."""
    given = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    given = {key: value for key, value in given.items() if value is not None}
    if "transport" not in given and "port" in given:
        given["transport"] = "rtu"
    try:
        model = ModbusLink.model_validate({"driver": "modbus", **given})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise click.UsageError(f"{_option(detail['loc'])}{detail['msg']}") from None
    for problem in model.problems():
        raise click.UsageError(f"{_option(problem.path)}found {problem.found}, expected {problem.expected}")
    context, problems = open_tls(LinkSpec(name="device", driver="modbus", model=model, path=()), model)
    for problem in problems:
        raise click.UsageError(f"{_option(problem.path)}found {problem.found}, expected {problem.expected}")
    return Wire("device", model, context)


def _option(path: tuple[str | int, ...]) -> str:
    return f"{_OPTIONS.get(str(path[0]), f'--{path[0]}')}: " if path else ""


def explained(error: LinkError, wire: Wire) -> LinkError:
    """The same, with what to do about a port that a gateway holds."""
    if wire.is_serial and "in use" in str(error):
        return LinkError(
            f"{error}\nA serial port has one owner. If that is a running gateway, stop it first "
            f"(systemctl stop edge-gateway), or look at what it says and hears: gateway frames {wire.name}"
        )
    return error
