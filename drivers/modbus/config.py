"""What users write for Modbus links and devices; tags are in `tag`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from drivers.modbus.address import Address, parse
from drivers.modbus.tag import TEXT_OR_INT, At
from drivers.modbus.wire.client import IN_FLIGHT_MAX
from drivers.modbus.wire.pdu import Table
from gateway.config.models import Device, Link, Model, Name, defaults
from gateway.config.scalars import shown
from gateway.config.values import Duration, Host, HostPort, duration_text, fault
from gateway.core.errors import Problem

PORT: Final = 502  # MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.3.1


class Span(NamedTuple):
    """Addresses of one table, both ends included."""

    table: Table
    first: int
    last: int

    def __str__(self) -> str:
        return f"{Address(self.table, self.first)}-{self.last}"


def _span(value: object) -> Span:
    expected = "a range such as hr:100-110 or 40101-40111, or one address"
    if isinstance(value, Span):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise fault(shown(value), expected)
    first_text, dash, last_text = value.partition("-")
    first = parse(first_text)
    if not dash:
        return Span(first.table, first.offset, first.offset)
    prefix = re.match(r"\s*([a-z]+:)", first_text)
    last = parse(last_text if not prefix or ":" in last_text else prefix[1] + last_text.strip())
    if last.table is not first.table or last.offset < first.offset:
        raise fault(shown(value), f"{expected}, from low to high in one table")
    return Span(first.table, first.offset, last.offset)


def _transport(value: object) -> object:
    if value in {"rtu", "ascii", "udp", "rtu_over_tcp", "tls"}:
        raise fault(f"transport '{value}', which is not there yet", "tcp")
    return value


SpanField = Annotated[Span, PlainValidator(_span), WithJsonSchema(TEXT_OR_INT)]


class Reconnect(Model):
    """How long to wait before the next attempt to connect: growing, with jitter."""

    min_ns: Annotated[int, Duration("10ms", "1h")] = Field(
        "1s", validate_default=True, alias="min", description="First wait."
    )
    max_ns: Annotated[int, Duration("10ms", "1d")] = Field(
        "1m", validate_default=True, alias="max", description="Longest wait."
    )


class ModbusLink(Link):
    """One connection to a Modbus server or to a gateway with several units behind it."""

    driver: Literal["modbus"] = Field(description="The protocol of the link.")
    transport: Annotated[Literal["tcp"], BeforeValidator(_transport)] = Field(
        "tcp", description="What the frames travel on."
    )
    host: Annotated[HostPort, Host(default_port=PORT)] = Field(
        description=f"Address and port of the server; without a port {PORT}. IPv6 in brackets."
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
        description="Requests sent before the first answer, up to 16; 1: one after the other.",
    )
    gap_ns: Annotated[int, Duration("0s", "10s")] = Field(
        "0s", validate_default=True, alias="gap", description="Pause between an answer and the next request."
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
        return f"tcp {self.host}"

    def problems(self) -> Iterable[Problem]:
        if self.min_timeout_ns is not None and self.min_timeout_ns > self.timeout_ns:
            found = f"min_timeout {duration_text(self.min_timeout_ns)} above timeout"
            yield Problem(("min_timeout",), found, f"at most {duration_text(self.timeout_ns)}")
        if self.reconnect.min_ns > self.reconnect.max_ns:
            found = (
                f"min {duration_text(self.reconnect.min_ns)} above max {duration_text(self.reconnect.max_ns)}"
            )
            yield Problem(("reconnect",), found, "min at or below max")


class Watch(Model):
    """A counter of the device that must keep moving."""

    tag: Name = Field(description="The tag that shows the counter.")
    within_ns: Annotated[int, Duration("100ms", "1d")] = Field(
        alias="within", description="Longest time that it may stand still; then all tags are uncertain/stale."
    )


class Beat(Model):
    """A register or coil that the gateway keeps moving."""

    at: At = Field(description="A holding register, which counts up, or a coil, which toggles.")
    every_ns: Annotated[int, Duration("100ms", "1h")] = Field(
        alias="every", description="Time from write to write."
    )
    first: int = Field(0, ge=0, le=0xFFFF, description="Where the register begins again.")
    last: int = Field(0xFFFF, ge=1, le=0xFFFF, description="Its highest value.")

    def problems(self) -> Iterable[Problem]:
        if not self.at.table.is_writable:
            yield Problem(("at",), f"{self.at}", "a coil or holding register, which can be written")
        if self.first >= self.last:
            yield Problem(("first",), f"first {self.first} and last {self.last}", "first below last")


class ModbusDevice(Device):
    """One unit behind a link."""

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        if self.heartbeat is not None:
            for one in self.heartbeat.problems():
                yield Problem(("heartbeat", *one.path), one.found, one.expected)

    unit: int = Field(ge=0, le=255, description="Unit identifier, 0 to 255; many TCP servers take 1 or 255.")
    max_registers: int | None = Field(
        None, ge=1, le=125, description="Most registers in one read. Default: the link's."
    )
    max_bits: int | None = Field(
        None, ge=1, le=2000, description="Most bits in one read. Default: the link's."
    )
    max_hole: int | None = Field(
        None, ge=0, le=124, description="Unused items one request may read. Default: the link's."
    )
    forbid: list[SpanField] = Field(
        default_factory=list,
        description='Addresses that are never read, not even between others: `["hr:100-110"]`.',
    )
    watch: Watch | None = Field(
        None, description="A counter of the device by which to see that it works, not only answers."
    )
    heartbeat: Beat | None = Field(
        None, description="A register or coil that the gateway keeps moving, for the device to see."
    )
    write_function: Literal["auto", "single", "multiple"] = Field(
        "auto",
        description="auto: FC 5 and 6 for one item, 15 and 16 for more; single: only 5 and 6; "
        "multiple: only 15 and 16.",
    )
    bit_write: Literal["refuse", "mask", "rmw"] = Field(
        "refuse",
        description="Writing a bit of a register: refuse, mask (FC 22), or rmw (read, change, write: "
        "others may interfere).",
    )

    def station(self) -> str:
        return str(self.unit)
