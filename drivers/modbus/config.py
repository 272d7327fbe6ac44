"""What users write for Modbus devices; links are in `link`, tags in `tag`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PlainValidator, WithJsonSchema

from drivers.modbus.address import Address, parse
from drivers.modbus.coding import TEXT_OR_INT, At
from drivers.modbus.wire.pdu import ADDRESS_COUNT, Table
from gateway.config.model import Model, Name
from gateway.config.models import Device
from gateway.config.scalars import shown
from gateway.config.values import Duration, fault
from gateway.core.errors import Problem


class Span(NamedTuple):
    """Addresses of one table, both ends included."""

    table: Table
    first: int
    last: int

    def __str__(self) -> str:
        return f"{Address(self.table, self.first)}-{self.last}"


def read_span(value: object) -> Span:
    """`hr:100-110`, `40101-40111` or one address; raises a fault, or ValueError."""
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


SpanField = Annotated[Span, PlainValidator(read_span), WithJsonSchema(TEXT_OR_INT)]


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
    shift: int = Field(
        0,
        ge=-(ADDRESS_COUNT - 1),
        le=ADDRESS_COUNT - 1,
        description="Added to the address of every tag: for a device whose map begins elsewhere than its "
        "template's.",
    )
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
    identify: bool = Field(
        False,
        description="Read who the device is (FC 43/14, else 17) after each connect; the status shows it.",
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
