"""What users write for a Modbus link: what its frames travel on, and how it is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

from drivers.modbus.wire.client import IN_FLIGHT_MAX
from gateway.config.lines import LINE_EXPECTED, PORT_EXPECTED, Line, Port, Rs485Mode, wire_of
from gateway.config.model import Model, defaults
from gateway.config.models import Link
from gateway.config.scalars import one_of
from gateway.config.values import Duration, FileRef, HostPort, Text, duration_text, fault, host_port
from gateway.core.errors import Problem

PORT: Final = 502  # MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.3.1
PORT_TLS: Final = 802  # MODBUS/TCP Security Protocol Specification; IANA mbap-s
TransportName = Literal["tcp", "tls", "udp", "rtu", "ascii", "rtu_over_tcp", "ascii_over_tcp"]

SERIAL: Final = frozenset({"rtu", "ascii"})
LINES: Final = SERIAL | {"rtu_over_tcp", "ascii_over_tcp"}  # no transaction identifiers: one at a time
NETWORK: Final = frozenset({"tcp", "tls", "udp", "rtu_over_tcp", "ascii_over_tcp"})
KEYS: Final = {
    "host": NETWORK,
    "port": SERIAL,
    "serial": SERIAL,
    "rs485": SERIAL,
    "echo": LINES,
    "turnaround": LINES,
    "max_in_flight": NETWORK - LINES,
    "socket": NETWORK,
    "ca": frozenset({"tls"}),
    "cert": frozenset({"tls"}),
    "key_file": frozenset({"tls"}),
    "server_name": frozenset({"tls"}),
}
"""Which keys belong to which transports. All others belong to every one."""
_ALIASES: Final = {"turnaround": "turnaround_ns"}


def _host(value: object, info: ValidationInfo) -> HostPort | None:
    transport = info.data.get("transport")
    default = PORT_TLS if transport == "tls" else PORT
    if value is None and transport in NETWORK:
        raise fault("no 'host'", f"host: Address and port of the server; without a port {default}")
    if value is None or isinstance(value, HostPort):
        return value
    address = host_port(value, default)
    if not address.port:
        raise fault("the port 0", "a port from 1 to 65535")
    return address


def _needed_on_a_line(value: object, info: ValidationInfo) -> object:
    if value is None and info.data.get("transport") in SERIAL:
        key = str(info.field_name)
        raise fault(f"no '{key}'", f"{key}: {PORT_EXPECTED if key == 'port' else LINE_EXPECTED}")
    return value


class Reconnect(Model):
    """How long to wait before the next attempt to connect: growing, with jitter."""

    min_ns: Annotated[int, Duration("10ms", "1h")] = Field(
        "1s", validate_default=True, alias="min", description="First wait."
    )
    max_ns: Annotated[int, Duration("10ms", "1d")] = Field(
        "1m", validate_default=True, alias="max", description="Longest wait."
    )


class ModbusLink(Link):
    """One wire: a connection to a server, to a gateway with several units behind it, or a serial line."""

    driver: Literal["modbus"] = Field(description="The protocol of the link.")
    role: Literal["client"] = Field(
        "client", description="client: the gateway asks. With `role: server` the link is one of its own kind."
    )
    transport: TransportName = Field(
        "tcp",
        description="What the frames travel on: tcp, tls (Modbus/TCP Security) or udp; rtu or ascii on a "
        "serial port; rtu_over_tcp or ascii_over_tcp to a serial device server.",
    )
    host: Annotated[HostPort | None, PlainValidator(_host), WithJsonSchema({"type": "string"})] = Field(
        None,
        validate_default=True,
        description=f"Address and port of the server; without a port {PORT}, with tls {PORT_TLS}. "
        "IPv6 in brackets. Not with rtu and ascii.",
    )
    port: Annotated[Port | None, AfterValidator(_needed_on_a_line)] = Field(
        None,
        validate_default=True,
        description="Serial port, best as /dev/serial/by-id/…. Only with rtu and ascii.",
    )
    serial: Annotated[Line | None, AfterValidator(_needed_on_a_line)] = Field(
        None,
        validate_default=True,
        description="Baud rate, data bits, parity, stop bits: `19200-8E1`. Only with rtu and ascii.",
    )
    rs485: Rs485Mode | None = Field(
        None,
        description="Direction control by the kernel, where the port's driver has it; `{}` for its defaults. "
        "Most USB adapters need none. Only with rtu and ascii.",
    )
    socket: int = Field(
        1,
        ge=1,
        le=16,
        description="2 and more: a further connection to the host of another link, where the device takes "
        "several. Each link has its own devices.",
    )
    echo: bool = Field(
        False,
        description="Whether what is sent comes back and is to be taken off. Not with tcp, tls and udp.",
    )
    turnaround_ns: Annotated[int, Duration("0s", "10s")] = Field(
        "100ms",
        validate_default=True,
        alias="turnaround",
        description="Pause behind a broadcast, for all to carry it out. Not with tcp, tls and udp.",
    )
    ca: Annotated[str, FileRef()] | None = Field(
        None,
        description="File with the certificates that the server's must come from (PEM). Default: the "
        "system's. Only with tls, as the next three.",
    )
    cert: Annotated[str, FileRef()] | None = Field(
        None, description="File with our certificate (PEM), which names our role."
    )
    key_file: Annotated[str, FileRef(secret=True)] | None = Field(
        None, description="File with the private key of our certificate (PEM)."
    )
    server_name: Text | None = Field(
        None, min_length=1, description="Name in the server's certificate. Default: the host."
    )
    timeout_ns: Annotated[int, Duration("10ms", "60s")] = Field(
        "1s", validate_default=True, alias="timeout", description="Longest wait for an answer."
    )
    min_timeout_ns: Annotated[int, Duration("5ms", "60s")] | None = Field(
        None,
        alias="min_timeout",
        description="Shortest wait: between it and timeout the wait follows what each device takes. "
        "Default: always timeout.",
    )
    attempts: int = Field(3, ge=1, le=10, description="Attempts of one read before its values are bad.")
    max_in_flight: int = Field(
        1,
        ge=1,
        le=IN_FLIGHT_MAX,
        description="Requests sent before the first answer, up to 16; 1: one after the other. Only with tcp, "
        "tls and udp.",
    )
    gap_ns: Annotated[int, Duration("0s", "10s")] = Field(
        "0s",
        validate_default=True,
        alias="gap",
        description="Pause between an answer and the next request; on a serial line at least 3.5 characters.",
    )
    max_hole: int = Field(
        8,
        ge=0,
        le=124,
        description="Unused registers or bits between two values that one request may read in vain; 0: none.",
    )
    max_registers: int = Field(125, ge=1, le=125, description="Most registers in one read.")
    max_bits: int = Field(2000, ge=1, le=2000, description="Most coils or discrete inputs in one read.")
    reconnect: Reconnect = Field(
        default_factory=defaults(Reconnect), description="Waits between attempts to connect."
    )

    def wire(self) -> str | None:
        if self.port is not None:
            return wire_of(self.port)
        if self.host is None:
            return None
        further = f" socket {self.socket}" if self.socket > 1 else ""
        return f"{'udp' if self.transport == 'udp' else 'tcp'} {self.host}{further}"

    def wire_key(self) -> str:
        return "host" if self.port is None else "port"

    def peer(self) -> str:
        return str(self.host) if self.port is None else f"{self.port} {self.serial}"

    def files(self) -> tuple[str, ...]:
        return tuple(file for file in (self.ca, self.cert, self.key_file) if file is not None)

    def problems(self) -> Iterable[Problem]:
        yield from self._misplaced()
        yield from self._line_problems()
        if (self.cert is None) != (self.key_file is None):
            key, other = ("cert", "key_file") if self.key_file is None else ("key_file", "cert")
            yield Problem((key,), f"{key} without {other}", "both or none of them")
        if self.min_timeout_ns is not None and self.min_timeout_ns > self.timeout_ns:
            found = f"min_timeout {duration_text(self.min_timeout_ns)} above timeout"
            yield Problem(("min_timeout",), found, f"at most {duration_text(self.timeout_ns)}")
        if self.reconnect.min_ns > self.reconnect.max_ns:
            found = (
                f"min {duration_text(self.reconnect.min_ns)} above max {duration_text(self.reconnect.max_ns)}"
            )
            yield Problem(("reconnect",), found, "min at or below max")

    def _misplaced(self) -> Iterable[Problem]:
        for key, transports in KEYS.items():
            if self.transport in transports or _ALIASES.get(key, key) not in self.model_fields_set:
                continue
            expected = f"no {key}: it belongs to {one_of(_in_order(transports))}"
            if key == "max_in_flight" and self.max_in_flight == 1:
                continue
            if key == "max_in_flight":
                expected = "1: these frames have no number that says which request an answer belongs to"
            if key == "port":
                expected = "no port: that is a serial port; the one of a server stands behind its host"
            yield Problem((key,), f"{key} with transport: {self.transport}", expected)

    def _line_problems(self) -> Iterable[Problem]:
        if self.serial is not None and self.transport in SERIAL:
            if self.transport == "rtu" and self.serial.data_bits != 8:
                found = f"{self.serial.data_bits} data bits with transport: rtu"
                yield Problem(("serial",), found, "8 data bits, or transport: ascii")
            elif self.serial.data_bits not in {7, 8}:
                yield Problem(("serial",), f"{self.serial.data_bits} data bits", "7 or 8 data bits")
        if self.rs485 is not None:
            yield from (
                Problem(("rs485", *one.path), one.found, one.expected) for one in self.rs485.problems()
            )
            if self.rs485.receive_during_send and not self.echo:
                found = "receive_during_send without echo"
                yield Problem(("rs485", "receive_during_send"), found, "echo: true beside rs485")


def _in_order(transports: Iterable[str]) -> list[str]:
    order = list(TransportName.__args__)  # type: ignore[attr-defined]  # what Literal[…] was made of
    return sorted(transports, key=order.index)
