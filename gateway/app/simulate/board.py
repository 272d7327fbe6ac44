"""What a simulator has seen, counted by unit, and drawn."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from drivers.modbus.simulator.faults import Fault, Faults
from drivers.modbus.wire.describe import exchange_words, request_words
from drivers.modbus.wire.pdu import EXCEPTION_FLAG, meaning
from gateway.app.table import count, duration, rate

LATEST_SHOWN: Final = 6  # exchanges and faults
LATEST_ROUGH_MAX: Final = 2000  # characters of one that are kept
_UNITS_SHOWN_MAX: Final = 40
_READS: Final = frozenset({1, 2, 3, 4})


class Tally(msgspec.Struct):
    """What came for one unit."""

    name: str
    link: str
    reads: int = 0
    writes: int = 0
    others: int = 0
    refused: int = 0
    unanswered: int = 0
    faults: int = 0


class Latest(msgspec.Struct):
    """One thing that happened, put into words when it is drawn."""

    at_s: float
    unit: int
    request: bytes
    answer: bytes | None
    fault: str = ""

    def words(self) -> str:
        """In one line."""
        if self.fault:
            return f"fault on unit {self.unit}: {self.fault}"
        if self.answer is not None and self.answer[0] & EXCEPTION_FLAG and len(self.answer) == 2:
            return f"unit {self.unit} {request_words(self.request)} → refused: {meaning(self.answer[1])}"
        return exchange_words(self.unit, self.request, self.answer)


class Board:
    """Counts by link and unit; `faults` of all links together."""

    def __init__(self, addresses: dict[str, str], *, began_s: float) -> None:
        """`addresses`: link → where it is served; filled as they come up."""
        self.units: Final[dict[tuple[str, int], Tally]] = {}
        self.latest: Final[deque[Latest]] = deque(maxlen=LATEST_SHOWN)
        self.addresses: Final = addresses
        self.requests = 0
        self.said = ""  # the last word to whoever types
        self._began_s: Final = began_s
        self._rate = 0.0
        self._rated = (began_s, 0)

    def add_unit(self, link: str, unit: int, name: str) -> None:
        """One that is served."""
        self.units[link, unit] = Tally(name=name, link=link)

    def seen(self, link: str, unit: int, request: bytes, answer: bytes | None, *, at_s: float) -> None:
        """One exchange."""
        self.requests += 1
        self.latest.append(Latest(at_s, unit, request, answer))
        tally = self.units.get((link, unit))
        if tally is None:
            return
        if request[0] in _READS:
            tally.reads += 1
        elif request[0] in {5, 6, 15, 16, 21, 22, 23}:
            tally.writes += 1
        else:
            tally.others += 1
        if answer is None:
            tally.unanswered += 1
        elif answer[0] & EXCEPTION_FLAG:
            tally.refused += 1

    def struck(self, link: str, fault: Fault, unit: int, *, at_s: float) -> None:
        """One injected fault."""
        self.latest.append(Latest(at_s, unit, b"", None, str(fault)))
        tally = self.units.get((link, unit))
        if tally is not None:
            tally.faults += 1

    def draw(self, faults: Faults, *, now_s: float, typed: str | None) -> RenderableType:
        """All of it. `typed`: what is being typed; None where nothing can be."""
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        table.add_column(" unit", justify="right")
        table.add_column("device", overflow="ellipsis", no_wrap=True, min_width=12)
        table.add_column("at", overflow="ellipsis", no_wrap=True, style="dim")
        for name in ("reads", "writes", "refused", "silent", "faults"):
            table.add_column(name, justify="right", no_wrap=True)
        for (_link, unit), tally in list(self.units.items())[:_UNITS_SHOWN_MAX]:
            table.add_row(
                f" {unit}", tally.name, self.addresses.get(tally.link, ""),
                count(tally.reads), count(tally.writes), _or_nothing(tally.refused, "yellow"),
                _or_nothing(tally.unanswered, "yellow"), _or_nothing(tally.faults, "red"),
            )  # fmt: skip
        parts: list[RenderableType] = [self._head(faults, now_s), Text(""), table]
        hidden = len(self.units) - _UNITS_SHOWN_MAX
        if hidden > 0:
            parts.append(Text(f" … {hidden} more units", style="dim"))
        parts += [Text(""), *(self._line(one) for one in self.latest)]
        if faults.rules:
            parts.append(Text(""))
            parts += [
                Text(f" fault {rule.number}  {rule.fault}  struck {rule.struck}", style="red")
                for rule in faults.rules
            ]
        if typed is not None:
            parts += [
                Text(""),
                Text.assemble((" > ", "bold"), typed, ("▏", "dim")),
                Text(f"   {self.said}", style="dim"),
            ]
        return Group(*(part if isinstance(part, Table) else _one_line(part) for part in parts))

    def _head(self, faults: Faults, now_s: float) -> Text:
        since_s, before = self._rated
        if now_s - since_s >= 1:
            self._rate = (self.requests - before) / (now_s - since_s)
            self._rated = (now_s, self.requests)
        return Text.assemble(
            (" simulator", "bold"),
            f"  up {duration(now_s - self._began_s)} · {count(self.requests)} requests "
            f"({rate(self._rate)}/s) · {count(faults.total)} faults",
        )

    def _line(self, one: Latest) -> Text:
        at = f" {duration(max(0.0, one.at_s - self._began_s)):>7}  "
        return Text.assemble((at, "dim"), (one.words()[:LATEST_ROUGH_MAX], "red" if one.fault else ""))

    def summary(self, faults: Faults, *, now_s: float) -> str:
        """One line for the end of a run."""
        tallies = self.units.values()
        refused, silent = sum(one.refused for one in tallies), sum(one.unanswered for one in tallies)
        return (
            f"{self.requests} requests in {duration(now_s - self._began_s)}: {refused} refused, "
            f"{silent} not answered, {faults.total} faults injected"
        )


def _or_nothing(number: int, style: str) -> Text:
    return Text(count(number) if number else "-", style=style if number else "dim")


def _one_line(part: RenderableType) -> RenderableType:
    if isinstance(part, Text):
        part.no_wrap = True
        part.overflow = "ellipsis"
    return part
