"""From the configuration of one server link and what is exposed on it to a server that runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from drivers.modbus.decode import Decoder, compile_block
from drivers.modbus.field import Family
from drivers.modbus.link import LINES
from drivers.modbus.server import Client, Launch, Limits, ModbusServer, Permission, ServedUnit
from drivers.modbus.server_link import ModbusExposed, ModbusExposure, ModbusServerLink
from drivers.modbus.sheet import Served, Sheet, overlap
from drivers.modbus.transport import line_timing, make_rs485
from drivers.modbus.wire.line import ADDRESS_MAX, BROADCAST, Mode
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.line_server_session import LineServerSession
from drivers.modbus.wire.pdu_identity import OBJECT_SIZE_MAX, Identity
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import UnknownUnit
from gateway.aio.endpoint import Backoff, Endpoint
from gateway.aio.listener import Connection, Full, Listener, Over
from gateway.aio.listener import Limits as ListenerLimits
from gateway.aio.serial import SerialOpener
from gateway.aio.tls import TlsFault, TlsFiles, server_context
from gateway.config.site import ExposedPoint, ExposeRule, LinkSpec, Site
from gateway.core.clock import Clock
from gateway.core.errors import Problem
from gateway.core.point import Layout, Point, ValueType
from gateway.core.ports import CommandDoor
from gateway.flow.image import stale_after_ns

_OPEN_TIMEOUT_S: Final = 5.0
_PRODUCT: Final = "Edge Gateway"
_PACKAGE: Final = "edge-gateway"


class ServerParts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a server that needs no I/O on a wire."""

    link: LinkSpec
    made_from: tuple[object, ...]  # to see whether a new configuration changes anything of it
    units: dict[int, ServedUnit]
    tls: ssl.SSLContext | None
    problems: tuple[Problem, ...]


def compile_server(site: Site, link: LinkSpec, layouts: Iterable[Layout]) -> ServerParts:
    """Work out every register. What only shows here is in `problems`."""
    rules = [rule for rule in site.expose if rule.link == link.name]
    places = {
        point.name: (layout, column) for layout in layouts for column, point in enumerate(layout.points)
    }
    problems: list[Problem] = []
    served: dict[int, list[Served]] = {}
    fills: dict[int, bool] = {}
    paths: dict[Served, ExposedPoint] = {}
    for rule in rules:
        exposure = _exposure(rule)
        problems += _unit_problems(_link(link), exposure, rule)
        fills[exposure.unit] = fills.get(exposure.unit, False) or exposure.gaps == "zero"
        for one in rule.points:
            if one.point.name not in places:
                continue  # its device has a fault of its own
            problems += _type_problems(one)
            layout, column = places[one.point.name]
            found = _served(one, layout, column)
            served.setdefault(exposure.unit, []).append(found)
            paths[found] = one
    units: dict[int, ServedUnit] = {}
    for unit, of_unit in served.items():
        clash = overlap(of_unit)
        if clash is not None:
            first, second = clash
            found_text = f"{second.point.name} where {first.point.name} is already"
            problems.append(Problem(paths[second].path, found_text, "addresses of its own, or another unit"))
        units[unit] = _unit(site, of_unit, fills_gaps=fills[unit])
    tls, faults = _tls(link)
    limits = tuple(tuple(unit.limits.items()) for unit in units.values())
    used = {layout for of_unit in served.values() for layout in (one.layout for one in of_unit)}
    return ServerParts(
        link=link,
        made_from=(link, tuple(rules), frozenset(used), _digest(link), limits),
        units=units,
        tls=tls,
        problems=(*problems, *faults),
    )


def make_server(parts: ServerParts, *, door: CommandDoor, launch: Launch, clock: Clock) -> ModbusServer:
    """The server of a link; nothing is opened before `run`."""
    model, name = _link(parts.link), parts.link.name
    roles = {role: Permission(writes=what == "write") for role, what in model.roles.items()}
    line: Callable[[Responder], LineServerSession] | None = None
    if model.transport in LINES:
        line = _line(model, [unit for unit in parts.units if unit != BROADCAST])
    listener: Callable[[Callable[[Connection], Client | str]], Listener] | None = None
    endpoint: Endpoint | None = None
    if model.listen is not None:
        listener = _listener(name, model, parts.tls, clock)
    elif model.port is not None and model.serial is not None:
        endpoint = Endpoint(
            name,
            SerialOpener(model.port, model.serial, clock=clock, rs485=make_rs485(model.rs485)),
            clock=clock,
            open_timeout_s=_OPEN_TIMEOUT_S,
            backoff=Backoff(first_s=1.0, limit_s=60.0),
        )
    return ModbusServer(
        name=name,
        units=parts.units,
        door=door,
        launch=launch,
        now_ns=clock.monotonic_ns,
        roles=roles,
        unknown_unit=UnknownUnit(model.unknown_unit),
        identity=_identity(name),
        listener=listener,
        line=line,
        endpoint=endpoint,
    )


def _listener(
    name: str, model: ModbusServerLink, tls: ssl.SSLContext | None, clock: Clock
) -> Callable[[Callable[[Connection], Client | str]], Listener]:
    assert model.listen is not None
    listen = model.listen
    over = {"tls": Over.TLS, "udp": Over.UDP}.get(model.transport, Over.TCP)
    limits = ListenerLimits(
        connections_max=model.connections,
        full=Full.DROP_IDLE if over is Over.UDP else Full(model.full),
        idle_ns=model.idle_ns,
        allow=tuple(model.allow),
    )
    return lambda accept: Listener(
        name, listen.host, listen.port, accept=accept, clock=clock, over=over, tls=tls, limits=limits
    )


def _line(model: ModbusServerLink, units: Sequence[int]) -> Callable[[Responder], LineServerSession]:
    mode = Mode.ASCII if model.transport.startswith("ascii") else Mode.RTU
    timing = line_timing(mode, model.serial)

    def session(responder: Responder) -> LineServerSession:
        station = LineServer(responder)
        made = LineServerSession(station, units=units, mode=mode, timing=timing, has_echo=model.echo)
        if mode is Mode.ASCII:
            station.set_delimiter = made.set_delimiter
        return made

    return session


def _identity(link: str) -> Identity:
    """What function 43/14 answers: who made this, and by which link it is asked."""
    try:
        revision = version(_PACKAGE)
    except PackageNotFoundError:  # run from a source tree that was never installed
        revision = "source"
    objects = {0: _PRODUCT, 1: _PACKAGE, 2: revision, 4: _PRODUCT, 6: link}
    return Identity({key: text.encode()[:OBJECT_SIZE_MAX] for key, text in objects.items()})


def _link(spec: LinkSpec) -> ModbusServerLink:
    assert isinstance(spec.model, ModbusServerLink)
    return spec.model


def _exposure(rule: ExposeRule) -> ModbusExposure:
    assert isinstance(rule.model, ModbusExposure)
    return rule.model


def _exposed(one: ExposedPoint) -> ModbusExposed:
    assert isinstance(one.model, ModbusExposed)
    return one.model


def _unit_problems(link: ModbusServerLink, exposure: ModbusExposure, rule: ExposeRule) -> Iterable[Problem]:
    if link.transport in LINES and not BROADCAST < exposure.unit <= ADDRESS_MAX:
        found = f"unit {exposure.unit} on a serial line"
        yield Problem((*rule.path, "unit"), found, f"1 to {ADDRESS_MAX}")


def _type_problems(one: ExposedPoint) -> Iterable[Problem]:
    model = _exposed(one)
    kind, family = one.point.type, model.data_type.family
    path, found = (*one.path, "type"), f"{one.point.name}, a {one.point.type.value}, as {model.type_name}"
    if (kind is ValueType.BOOL) is not (family is Family.BOOL):
        expected = (
            "a coil, or a bit of a register" if kind is ValueType.BOOL else "a type for numbers or text"
        )
        yield Problem(path, found, expected)
    elif (kind is ValueType.STRING) is not (family in {Family.STRING, Family.TIME}):
        yield Problem(path, found, "string" if kind is ValueType.STRING else "a type for numbers")
    elif kind is ValueType.FLOAT and model.value_type() is ValueType.INT:
        yield Problem(path, found, "float32 or float64, or a scale that makes it whole")


def _served(one: ExposedPoint, layout: Layout, column: int) -> Served:
    model = _exposed(one)
    return Served(
        point=one.point,
        layout=layout,
        column=column,
        table=model.at.table,
        field=model.field(),
        sentinel=model.sentinel(),
        holds=model.bad == "hold",
        quality_at=None if model.quality is None else model.quality.offset,
        is_writable=model.write,
    )


def _unit(site: Site, served: Sequence[Served], *, fills_gaps: bool) -> ServedUnit:
    tables = {one.table for one in served}
    stale_ns = {one.layout: stale_after_ns(site.scans[one.layout.scan].every_ns) for one in served}
    decoders: dict[Served, Decoder] = {
        one: compile_block([one.field], table=one.table, start=one.start, count=one.field.count)
        for one in served
        if one.is_writable
    }
    return ServedUnit(
        {
            table: Sheet(
                table,
                [one for one in served if one.table is table],
                fills_gaps=fills_gaps,
                stale_ns=stale_ns,
            )
            for table in tables
        },
        decoders,
        limits={one.point.name: _limits(site, one.point) for one in served if one.is_writable},
    )


def _limits(site: Site, point: Point) -> Limits:
    write = site.devices[point.device].tags[point.tag].model.write
    return Limits() if write is None else Limits(write.min, write.max)


def _files(spec: LinkSpec) -> TlsFiles:
    model = _link(spec)
    named = {key: getattr(model, key) for key in ("ca", "cert", "key_file")}
    return TlsFiles(**{key: None if name is None else Path(name) for key, name in named.items()})


def _digest(spec: LinkSpec) -> str:
    return _files(spec).digest() if _link(spec).transport == "tls" else ""


def _tls(spec: LinkSpec) -> tuple[ssl.SSLContext | None, list[Problem]]:
    if _link(spec).transport != "tls":
        return None, []
    try:
        return server_context(_files(spec)), []
    except TlsFault as fault:
        return None, [Problem((*spec.path, fault.key), fault.found, fault.expected)]
