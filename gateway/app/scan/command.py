"""`gateway scan modbus`: a survey of a wire, its progress, and the draft that comes of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from pydantic_core import PydanticCustomError
from rich.console import Console
from rich.status import Status

from drivers.modbus.asker import Asker
from drivers.modbus.config import Span, read_span
from drivers.modbus.link import LINES
from drivers.modbus.survey.draft import draft
from drivers.modbus.survey.survey import Limits, Survey, UnitFound, Wanted
from drivers.modbus.wire.line import ADDRESS_MAX
from drivers.modbus.wire.pdu import Table
from gateway.aio.clock import SystemClock
from gateway.aio.loop import run as run_loop
from gateway.app.modbus_links import Wire, explained
from gateway.core.errors import GatewayError, LinkError

TIMEOUT_NS: Final = 300_000_000
SERIAL_PAUSE_NS: Final = 20_000_000  # others may use the line, too
_BITS: Final = 8  # for each register of a step
_FAR: Final = 4  # how much coarser the far ones are
_NEAR: Final = (
    Span(Table.HOLDING_REGISTERS, 0, 999),
    Span(Table.INPUT_REGISTERS, 0, 999),
    Span(Table.COILS, 0, 1999),
    Span(Table.DISCRETE_INPUTS, 0, 1999),
    Span(Table.HOLDING_REGISTERS, 40_000, 40_249),  # where SunSpec begins
)
"""Where things usually are; searched first, and finely."""
_ELSEWHERE: Final = (
    *(Span(Table.HOLDING_REGISTERS, 10_000 * number, 10_000 * number + 249) for number in (1, 2, 3, 5)),
    Span(Table.HOLDING_REGISTERS, 1000, 9999),
    Span(Table.INPUT_REGISTERS, 1000, 9999),
    Span(Table.INPUT_REGISTERS, 30_000, 30_249),
    Span(Table.COILS, 2000, 9999),
    Span(Table.DISCRETE_INPUTS, 2000, 9999),
)
_UNITS: Final = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")


def scan(
    wire: Wire,
    *,
    units: str | None,
    ranges: Sequence[str],
    step: int,
    timeout_ns: int | None,
    pause_ns: int | None,
    requests: int,
    for_ns: int,
    out: Path | None,
) -> int:
    """Survey, print the draft (or write it to `out`); 0 where a unit answered, 1 where none did.

    Raises `LinkError`, `click.UsageError`, `GatewayError` where `out` cannot be written.
    """
    is_line = wire.model.transport in LINES
    asked = _units(units) if units else list(range(1, ADDRESS_MAX + 1))
    spans = [_wanted(_span(text), step) for text in ranges]
    if not spans:
        spans = [_wanted(span, step) for span in _NEAR]
        spans += [_wanted(span, step if step == 1 else step * _FAR) for span in _ELSEWHERE]
    limits = Limits(
        timeout_ns=timeout_ns or TIMEOUT_NS,
        requests_max=requests,
        time_max_ns=for_ns,
        pause_ns=(SERIAL_PAUSE_NS if wire.is_serial else 0) if pause_ns is None else pause_ns,
    )
    console = Console(stderr=True, highlight=False)
    try:
        found, notes = run_loop(_Scan(wire, limits, console).run(asked, spans, may_answer_all=not is_line))
    except LinkError as error:
        raise explained(error, wire) from None
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    text = draft(wire.model, wire.name, found, notes, made=made)
    if out is None:
        click.echo(text, nl=False)
    else:
        try:
            out.write_text(text)
        except OSError as error:
            raise GatewayError(f"{out}: {error.strerror or error}") from error
        console.print(f"wrote {out}")
    return 0 if found else 1


class _Scan:
    def __init__(self, wire: Wire, limits: Limits, console: Console) -> None:
        self._wire: Final = wire
        self._limits: Final = limits
        self._console: Final = console

    async def run(
        self, asked: Sequence[int], spans: Sequence[Wanted], *, may_answer_all: bool
    ) -> tuple[list[UnitFound], list[str]]:
        asker = self._wire.asker()
        patience = f"{self._limits.timeout_ns / 1e6:g} ms for each that is silent"
        self._say(f"{asker.address}: asking {_counted(len(asked), 'units')}, {patience}")
        async with asker:
            if not self._console.is_terminal:
                return await self._look(asker, asked, spans, None, may_answer_all=may_answer_all)
            with self._console.status("…") as status:
                return await self._look(asker, asked, spans, status, may_answer_all=may_answer_all)

    async def _look(
        self,
        asker: Asker,
        asked: Sequence[int],
        spans: Sequence[Wanted],
        status: Status | None,
        *,
        may_answer_all: bool,
    ) -> tuple[list[UnitFound], list[str]]:
        tell = (lambda _text: None) if status is None else status.update
        survey = Survey(asker, self._limits, clock=SystemClock(), tell=tell)
        found = await survey.units(asked, has_any=may_answer_all)
        self._say(
            f"{len(found)} of them answer{': ' if found else ''}{', '.join(str(one.unit) for one in found)}"
        )
        for unit in found:
            await survey.identify(unit)
            await survey.tables(unit, spans)
            self._say(_summary(unit))
        for note in survey.notes:
            self._say(note)
        return found, survey.notes

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _summary(unit: UnitFound) -> str:
    parts = [
        _counted(sum(one.size for one in table.ranges), table.table.name.lower().replace("_", " "))
        for table in unit.tables
        if table.ranges
    ]
    name = " ".join(value for _key, value in unit.identity[:2])
    what = ", ".join(parts) or "nothing that can be read where it was looked for"
    return f"unit {unit.unit}{f' ({name})' if name else ''}: {what}; {unit.requests} requests"


def _counted(number: int, things: str) -> str:
    return f"{number} {things if number != 1 else things.removesuffix('s')}"


def _units(text: str) -> list[int]:
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _UNITS.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not match or not first <= last <= 255:
            raise click.UsageError(f"--units: found {part!r}, expected units from 0 to 255 such as 1-32,100")
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)


def _wanted(span: Span, step: int) -> Wanted:
    return Wanted(
        span.table, span.first, span.last, step * _BITS if span.table.has_bits and step > 1 else step
    )


def _span(text: str) -> Span:
    try:
        return read_span(text)
    except (ValueError, PydanticCustomError) as error:
        message = error.message() if isinstance(error, PydanticCustomError) else str(error)
        raise click.UsageError(f"--range: {message}") from None
