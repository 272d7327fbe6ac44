"""`gateway plan`: what a configuration will cost on each wire, before it is deployed."""

from __future__ import annotations

from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from gateway.app.compiled import Compiled
from gateway.app.history_plan import history_lines

WARN_ABOVE: Final = 0.70  # of what a wire can carry: above it late scans are a matter of time
ANSWER_NS_DEFAULT: Final = 10_000_000  # what a device on a local network takes for one request, cautiously


class ClassCost(msgspec.Struct, frozen=True):
    """One scan class on one link. `every_ns` 0 is continuous: it takes what the wire has left."""

    name: str
    every_ns: int
    devices: int
    requests: int  # for one scan of all devices
    registers: int
    bits: int
    bytes: int  # both ways, without TCP/IP
    wire_ns: int = 0  # what the frames of one scan take on a serial line
    gap_ns: int = 0  # pauses behind the answers of one scan

    @property
    def requests_per_s(self) -> float:
        """0 for a continuous class."""
        return self.requests * 1e9 / self.every_ns if self.every_ns else 0.0

    @property
    def bytes_per_s(self) -> float:
        """0 for a continuous class."""
        return self.bytes * 1e9 / self.every_ns if self.every_ns else 0.0


class LinkCost(msgspec.Struct, frozen=True):
    """One wire."""

    name: str
    peer: str
    in_flight: int
    answer_ns: int
    classes: tuple[ClassCost, ...]

    @property
    def requests_per_s(self) -> float:
        """Of all classes with a period."""
        return sum(one.requests_per_s for one in self.classes)

    @property
    def is_continuous(self) -> bool:
        """Whether some class takes all that is left."""
        return any(not one.every_ns for one in self.classes)

    @property
    def remedy(self) -> str:
        """What makes this kind of wire faster."""
        is_line = any(one.wire_ns for one in self.classes)
        return "raise the baud rate" if is_line else "allow more in flight"

    @property
    def utilisation(self) -> float:
        """Share of the time that the wire is busy: the devices' answering, frames on a line, pauses."""
        if self.is_continuous:
            return 1.0
        waiting = self.requests_per_s * self.answer_ns / 1e9 / self.in_flight
        return waiting + sum((one.wire_ns + one.gap_ns) / one.every_ns for one in self.classes)


def link_costs(compiled: Compiled, *, answer_ns: int = ANSWER_NS_DEFAULT) -> list[LinkCost]:
    """What each link of a configuration costs."""
    return [_link_cost(parts, answer_ns) for parts in compiled.links.values()]


def _link_cost(parts: Any, answer_ns: int) -> LinkCost:
    return LinkCost(
        name=parts.link.name,
        peer=parts.link.model.peer(),
        in_flight=parts.link.model.max_in_flight,
        answer_ns=answer_ns,
        classes=tuple(
            ClassCost(
                name=cost.name,
                every_ns=cost.every_ns,
                devices=cost.devices,
                requests=cost.requests,
                registers=cost.registers,
                bits=cost.bits,
                bytes=cost.bytes,
                wire_ns=cost.wire_ns,
                gap_ns=cost.gap_ns,
            )
            for cost in parts.costs()
        ),
    )


def print_plan(
    compiled: Compiled, *, answer_ns: int = ANSWER_NS_DEFAULT, console: Console | None = None
) -> None:
    """A table for people; a warning for each wire above 70 %."""
    console = console or Console()
    costs = link_costs(compiled, answer_ns=answer_ns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("link", "scan", "every"):
        table.add_column(title, no_wrap=True)
    for title in ("devices", "req/scan", "registers/req", "req/s", "kB/s", "busy"):
        table.add_column(title, justify="right", no_wrap=True)
    for link in costs:
        for index, one in enumerate(link.classes):
            table.add_row(
                link.name if not index else "",
                one.name,
                duration(one.every_ns),
                str(one.devices),
                str(one.requests),
                _per_request(one),
                f"{one.requests_per_s:.1f}" if one.every_ns else "all it can",
                f"{one.bytes_per_s / 1000:.1f}" if one.every_ns else "",
                _busy(link) if not index else "",
            )
    console.print(table)
    console.print(
        f"busy: at {answer_ns / 1e6:g} ms for one request, requests in flight as configured, on serial lines "
        "with the time of the frames; measure yours and pass --answer-time",
        style="dim",
        highlight=False,
    )
    for line in (*server_lines(compiled), *history_lines(compiled)):
        click.echo(line)
    for link in costs:
        if link.utilisation > WARN_ABOVE and not link.is_continuous:
            click.echo(
                f"warning: {link.name} ({link.peer}) is {link.utilisation:.0%} busy, above {WARN_ABOVE:.0%}: "
                f"scans will be late; scan less often, read larger blocks (max_hole), or {link.remedy}"
            )


def server_lines(compiled: Compiled) -> list[str]:
    """A line for each server: what it shows, and to how many. It costs no wire: it answers from memory."""
    return [
        f"server {name} ({parts.link.model.peer()}): "
        + ", ".join(
            f"unit {unit} with {sum(map(len, served.sheets.values()))} points"
            for unit, served in sorted(parts.units.items())
        )
        for name, parts in compiled.servers.items()
    ]


def _per_request(one: ClassCost) -> str:
    if not one.requests:
        return "0"
    parts = []
    if one.registers:
        parts.append(f"{one.registers / one.requests:.1f}")
    if one.bits:
        parts.append(f"{one.bits / one.requests:.1f} bits")
    return " + ".join(parts)


def _busy(link: LinkCost) -> str:
    return "100%" if link.is_continuous else f"{link.utilisation:.1%}"


def duration(duration_ns: int) -> str:
    """As a user writes it."""
    if not duration_ns:
        return "continuous"
    for unit, size in (("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6)):
        if duration_ns % size == 0:
            return f"{duration_ns // size}{unit}"
    return f"{duration_ns / 1e6:g}ms"
