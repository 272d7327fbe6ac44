"""What users write for a Modbus server: who may connect, and where points show as registers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from drivers.modbus.address import Address
from drivers.modbus.coding import At, Coding
from drivers.modbus.encode import encode
from drivers.modbus.link import LINES, NETWORK, SERIAL, TransportName
from drivers.modbus.wire.pdu import Table
from gateway.config.lines import LINE_EXPECTED, PORT_EXPECTED, Line, Port, Rs485Mode, wire_of
from gateway.config.models import Exposed, Exposure, ServerLink
from gateway.config.scalars import one_of, shown
from gateway.config.values import Duration, FileRef, Host, HostPort, fault
from gateway.core.errors import Problem

CONNECTIONS_MAX: Final = 1024
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_EXPECTED: Final = "an address or a network such as 10.0.0.5 or 10.0.0.0/24"


def _network(value: object) -> Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    try:
        return ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError as error:
        hint = " (bits of the host are set)" if "host bits" in str(error) else ""
        raise fault(f"{shown(value)}{hint}", _EXPECTED) from None


NetworkField = Annotated[Network, PlainValidator(_network), WithJsonSchema({"type": "string"})]
_KEYS: Final = {
    "listen": NETWORK,
    "allow": NETWORK,
    "connections": NETWORK,
    "idle_ns": NETWORK,
    "full": NETWORK - {"udp"},  # nobody takes leave there: the silent one has to go
    "port": SERIAL,
    "serial": SERIAL,
    "rs485": SERIAL,
    "echo": SERIAL,
    "ca": frozenset({"tls"}),
    "cert": frozenset({"tls"}),
    "key_file": frozenset({"tls"}),
    "roles": frozenset({"tls"}),
    "unknown_unit": NETWORK - LINES,
}


class ModbusServerLink(ServerLink):
    """A Modbus server: others read points of the gateway as registers, and write where that is allowed."""

    driver: Literal["modbus"] = Field(description="The protocol of the link.")
    transport: TransportName = Field("tcp", description="What the frames travel on, as for a client.")
    listen: Annotated[HostPort, Host(port_low=0)] | None = Field(
        None, description="Address and port to listen on: `0.0.0.0:502` for all. Not with rtu and ascii."
    )
    allow: list[NetworkField] = Field(
        default_factory=list, description="Who may connect: addresses or networks. Default: anybody."
    )
    connections: int = Field(64, ge=1, le=CONNECTIONS_MAX, description="Most connections at once.")
    full: Literal["refuse", "drop_idle"] = Field(
        "refuse",
        description="One connection too many: refuse it, or drop the one silent longest, as always with udp.",
    )
    idle_ns: Annotated[int, Duration("0s", "1d")] = Field(
        "0s", validate_default=True, alias="idle", description="Close what is silent so long; 0s: never."
    )
    unknown_unit: Literal["exception", "silence"] = Field(
        "exception", description="A unit that is not served: exception 11, or no answer."
    )
    port: Port | None = Field(None, description="Serial port. Only with rtu and ascii.")
    serial: Line | None = Field(None, description="`19200-8E1`. Only with rtu and ascii.")
    rs485: Rs485Mode | None = Field(None, description="Direction control. Only with rtu and ascii.")
    echo: bool = Field(False, description="Whether what is sent comes back. Only with rtu and ascii.")
    ca: Annotated[str, FileRef()] | None = Field(
        None, description="Certificates that clients' must come from (PEM). Only with tls, as the next three."
    )
    cert: Annotated[str, FileRef()] | None = Field(None, description="Our certificate (PEM).")
    key_file: Annotated[str, FileRef(secret=True)] | None = Field(
        None, description="Private key of our certificate (PEM)."
    )
    roles: dict[str, Literal["read", "write"]] = Field(
        default_factory=dict,
        description="What the role in a client's certificate may do: `{operator: write, viewer: read}`. "
        "Others get exception 1. Default: any role, or none, may do everything.",
    )

    def wire(self) -> str | None:
        if self.port is not None:
            return wire_of(self.port)
        if self.listen is None or not self.listen.port:
            return None
        return f"listen {'udp' if self.transport == 'udp' else 'tcp'} {self.listen}"

    def wire_key(self) -> str:
        return "listen" if self.port is None else "port"

    def peer(self) -> str:
        return str(self.listen) if self.port is None else f"{self.port} {self.serial}"

    def files(self) -> tuple[str, ...]:
        return tuple(file for file in (self.ca, self.cert, self.key_file) if file is not None)

    def problems(self) -> Iterable[Problem]:
        for key, transports in _KEYS.items():
            name = "idle" if key == "idle_ns" else key
            if key in self.model_fields_set and self.transport not in transports:
                expected = f"no {name}: it belongs to {one_of(sorted(transports))}"
                yield Problem((name,), f"{name} with transport: {self.transport}", expected)
        if self.transport in SERIAL:
            if self.port is None:
                yield Problem((), "no 'port'", f"port: {PORT_EXPECTED}")
            if self.serial is None:
                yield Problem((), "no 'serial'", f"serial: {LINE_EXPECTED}")
        elif self.listen is None:
            yield Problem((), "no 'listen'", "listen: 0.0.0.0:502, or another address and port")
        if self.transport == "tls":
            for key in ("ca", "cert", "key_file"):
                if getattr(self, key) is None:
                    yield Problem((), f"no '{key}'", f"{key}: both sides show certificates")


class ModbusExposure(Exposure):
    """Points of the gateway on one unit of a server."""

    unit: int = Field(ge=0, le=255, description="Unit identifier under which the points are read.")
    gaps: Literal["refuse", "zero"] = Field(
        "refuse",
        description="Addresses between points: refuse (exception 2), or zero, for clients that read blocks.",
    )

    def problems(self) -> Iterable[Problem]:
        yield from ()


def _bad(value: object) -> object:
    if value in ("exception", "hold") or (
        isinstance(value, dict) and set(value) == {"value"} and isinstance(value["value"], int | float)
    ):
        return value
    raise fault(shown(value), "exception, hold, or {value: a number that stands for no value}")


Bad = Annotated[
    Any,
    BeforeValidator(_bad),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["exception", "hold"]},
                {
                    "type": "object",
                    "properties": {"value": {"type": "number"}},
                    "required": ["value"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


def _register(address: Address) -> Address:
    if address.table.has_bits:
        raise fault(str(address), "a register (hr:, ir:)")
    return address


class ModbusExposed(Coding, Exposed):
    """One point as registers or coils of a server."""

    bad: Bad = Field(
        "exception",
        description="What a bad value shows: exception (4, or 11 where the device is gone), {value: …} in "
        "the register, or hold (the last good one; only with quality).",
    )
    quality: Annotated[At, AfterValidator(_register)] | None = Field(
        None, description="A register for the quality: 0 good, 1 uncertain, 2 bad. In the same table."
    )

    @property
    def is_written(self) -> bool:
        return self.write

    def sentinel(self) -> bytes | None:
        """The raw registers of `bad: {value: …}`; None without it. Raises ValueError, for people."""
        if not isinstance(self.bad, dict):
            return None
        number = self.bad["value"]
        plain = msgspec.structs.replace(self.field(), scale=None, invalid=(), low=None, high=None)
        if not plain.type.is_float:  # 0x8000 stands for -32768 where the type is signed
            number = msgspec.structs.replace(plain, invalid=(number,)).sentinels()[0]
        return encode(plain, number)

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        if isinstance(self.scale, Address):
            yield Problem(("scale",), "a power from a register", "a factor, two points or a table")
        if self.write and not self.at.table.is_writable:
            kind = "an input register" if self.at.table is Table.INPUT_REGISTERS else "a discrete input"
            yield Problem(("write",), f"write for {kind}", "a coil or holding register, or no write")
        if self.bad == "hold" and self.quality is None:
            yield Problem(("bad",), "hold without quality", "quality: a register beside it, which tells")
        if isinstance(self.bad, dict) and not self.data_type.is_number:
            yield Problem(("bad",), f"a value for a {self.type_name}", "exception, as only numbers have one")
        elif isinstance(self.bad, dict):
            yield from self._sentinel_problems()
        if self.quality is not None and self.quality.table is not self.at.table:
            found = f"{self.quality} for a value at {self.at}"
            yield Problem(("quality",), found, "a register of the same table")

    def _sentinel_problems(self) -> Iterable[Problem]:
        try:
            self.sentinel()
        except ValueError as error:
            expected = str(error).partition("expected ")[2] or f"what a {self.type_name} holds"
            yield Problem(("bad", "value"), shown(self.bad["value"]), expected)
