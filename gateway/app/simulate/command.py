"""The options of `gateway simulate modbus`, and what they come to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from drivers.modbus.link import SERIAL, ModbusLink, TransportName
from drivers.modbus.simulator.faults import MEANINGS, Fault, Kind, parse
from drivers.modbus.simulator.serve import Place
from gateway.aio.loop import run as run_loop
from gateway.aio.tls import TlsFault, TlsFiles, server_context
from gateway.app.simulate.run import Simulated, simulate
from gateway.app.simulate.sources import load_map, modbus_links
from gateway.config.site import DeviceSpec, LinkSpec
from gateway.config.values import HostPort
from gateway.core.errors import ConfigError
from gateway.core.line import SerialLine

PORT: Final = 5020
_LINE: Final = SerialLine(19_200, 8, "E", 1)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for."""

    transport: TransportName | None = None
    listen: HostPort | None = None
    serial: str = ""
    line: SerialLine | None = None
    is_pty: bool = False
    tls: TlsFiles = TlsFiles()

    @property
    def is_on_line(self) -> bool:
        """A port or a pseudo-terminal was asked for."""
        return self.is_pty or bool(self.serial)

    def place(self, link: ModbusLink, number: int) -> Place:
        """Where the `number`th link is served: as it says, unless the options say otherwise."""
        transport = self.transport or _fitting(
            link.transport, on_line=self.is_on_line, listens=self.listen is not None
        )
        line = self.line or link.serial or _LINE
        if transport in SERIAL:
            if self.listen is not None:
                raise click.UsageError(
                    f"--listen with --transport {transport}: {transport}_over_tcp is the one that listens"
                )
            return Place(transport=transport, serial_port=self.serial, line=line)
        if self.is_on_line:
            raise click.UsageError(
                f"--serial or --pty with --transport {transport}: on a line it is rtu or ascii"
            )
        at = self.listen or HostPort("127.0.0.1", PORT)
        port = at.port + number if at.port else 0
        try:
            context = server_context(self.tls) if transport == "tls" else None
        except TlsFault as fault:
            raise click.UsageError(f"--transport tls: {fault}") from None
        return Place(transport=transport, host=at.host, port=port, tls=context)


def _fitting(transport: TransportName, *, on_line: bool, listens: bool) -> TransportName:
    """What a link's transport becomes on a line, or on a network."""
    if on_line and transport not in SERIAL:
        return "ascii" if transport == "ascii_over_tcp" else "rtu"
    if listens and transport in SERIAL:
        return "ascii_over_tcp" if transport == "ascii" else "rtu_over_tcp"
    return transport


def simulated(links: Sequence[tuple[LinkSpec, list[DeviceSpec]]], options: Options) -> list[Simulated]:
    """What is served where. Raises `click.UsageError`, `ConfigError`."""
    found: list[Simulated] = []
    networks = 0
    for spec, devices in links:
        assert isinstance(spec.model, ModbusLink)
        place = options.place(spec.model, networks)
        networks += place.is_network
        found.append(Simulated(name=spec.name, place=place, devices=tuple(devices)))
    if options.serial and len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ConfigError(f"--serial: found links {names}, expected one on a port: choose it with --link")
    return found


def run_modbus(
    source: Path,
    *,
    link: str | None,
    listen: HostPort | None,
    transport: TransportName | None,
    serial: str | None,
    line: SerialLine | None,
    is_pty: bool,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    faults: Sequence[str],
    seed: int,
    fills_holes: bool,
    for_ns: int | None,
) -> int:
    """Serve; returns the exit code. Raises `ConfigError`, `LinkError`, `click.UsageError`."""
    if sum(map(bool, (listen, serial, is_pty))) > 1:
        raise click.UsageError("--listen, --serial and --pty exclude each other")
    options = Options(
        transport=transport,
        listen=listen,
        serial=serial or "",
        line=line,
        is_pty=is_pty,
        tls=TlsFiles(ca=ca, cert=cert, key_file=key),
    )
    links = simulated(modbus_links(load_map(source), link), options)
    rules = [read_fault(text) for text in faults]
    logging.getLogger("gateway").addHandler(logging.NullHandler())  # what matters is on the screen
    for_s = None if for_ns is None else for_ns / 1e9
    return run_loop(simulate(links, faults=rules, seed=seed, fills_holes=fills_holes, for_s=for_s))


def read_fault(text: str) -> Fault:
    """A rule from an option. Raises `click.BadParameter`."""
    try:
        return parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None


def faults_help() -> str:
    """All kinds of faults, a line each, and the keys of a rule."""
    width = max(len(kind.value) for kind in Kind)
    lines = [f"  {kind.value:<{width}}  {MEANINGS[kind].replace('`', '')}" for kind in Kind]
    keys = (
        "link=NAME unit=N function=N probability=0.1 count=N for=10s; time, code, bytes, pieces where named"
    )
    return "\n".join(
        ["kind=…", *lines, "", f"and {keys}", "for example --fault unit=3,kind=drop,probability=0.1"]
    )
