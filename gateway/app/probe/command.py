"""`gateway probe`: one question by hand, over a connection of its own."""

from __future__ import annotations

import sys
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.text import Text

from drivers.modbus.address import parse
from drivers.modbus.asker import Asker, Exchange
from drivers.modbus.wire.client import Answer, Broadcast
from drivers.modbus.wire.describe import request_words
from gateway.aio.loop import run as run_loop
from gateway.app.modbus_links import Wire, explained
from gateway.app.probe import report
from gateway.app.probe.question import Span, Wrong, changes_something, raw_pdu, span_of
from gateway.core.errors import LinkError
from gateway.core.point import Value

_UNIT_MAX: Final = 255


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, in order; `span` says what the values of a read are."""

    unit: int
    request: bytes
    span: Span | None = None
    is_write: bool = False
    written: str = ""


def question_of(
    unit: str,
    address: str | None,
    *,
    kind: str | None,
    order: str,
    count: int | None,
    length: int | None,
    write: str | None,
    is_multiple: bool,
    pdu: str | None,
) -> Question:
    """From what was typed. Raises `click.UsageError`."""
    if not unit.isdecimal() or int(unit) > _UNIT_MAX:
        raise click.UsageError(f"UNIT: found {unit!r}, expected 0 to {_UNIT_MAX}")
    try:
        if pdu is not None:
            if address is not None or write is not None:
                raise Wrong("--pdu: found an address or --write beside it, expected the PDU alone")
            return Question(unit=int(unit), request=raw_pdu(pdu))
        if address is None:
            raise Wrong("found no ADDRESS, expected one such as hr:100 or 40101, or --pdu")
        span = span_of(parse(address), kind=kind, order=order, count=count, length=length)
        if write is None:
            return Question(unit=int(unit), request=span.request(), span=span)
        if span.values != 1 or (span.field is None and span.count != 1):
            raise Wrong(f"--count: found {count} with --write, expected one value")
        request = span.write(write, is_multiple=is_multiple)
        return Question(unit=int(unit), request=request, span=span, is_write=True, written=write)
    except ValueError as error:  # `Wrong`, and what `parse` raises
        raise click.UsageError(str(error)) from None


def probe(
    wire: Wire, question: Question, *, timeout_ns: int | None, is_sure: bool, console: Console | None = None
) -> int:
    """Ask and print; 0 for an answer, 1 for a refusal or none. Raises `LinkError`, `click.UsageError`."""
    console = console or Console(highlight=False)
    if changes_something(question.request) and not is_sure:
        words = f"unit {question.unit} at {wire.model.peer()}: {request_words(question.request)}"
        if not sys.stdin.isatty():
            raise click.UsageError(f"{words}: this may change something; --yes if it is meant")
        if not click.confirm(f"{words}. Send it?"):
            return 1
    try:
        return run_loop(_Probe(wire, question, timeout_ns or wire.model.timeout_ns, console).run())
    except LinkError as error:
        raise explained(error, wire) from None


class _Probe:
    def __init__(self, wire: Wire, question: Question, timeout_ns: int, console: Console) -> None:
        self._wire: Final = wire
        self._question: Final = question
        self._timeout_ns: Final = timeout_ns
        self._console: Final = console

    async def run(self) -> int:
        question, span = self._question, self._question.span
        asker = self._wire.asker()
        head = f"{asker.address}, unit {question.unit}"
        note = "" if self._wire.is_serial else "  a connection of its own, beside that of any gateway"
        self._print(Text.assemble((head, "bold"), (note, "dim")))
        async with asker:
            exchange = await self._ask(asker, question.request)
            event = exchange.event
            if not isinstance(event, Answer):
                return 0 if isinstance(event, Broadcast) else 1
            if span is None:
                return 0
            if not question.is_write:
                self._show(span, event.data)
                return 0
            return await self._read_back(asker, span)

    async def _read_back(self, asker: Asker, span: Span) -> int:
        event = (await self._ask(asker, span.request())).event
        if not isinstance(event, Answer):
            self._print(Text("  written; it cannot be read back", style="yellow"))
            return 0
        self._show(span, event.data)
        wanted, found = self._sent_value(span), _raw(span, event.data)
        if found != wanted:
            self._print(Text("  the device shows another value than the one written", style="yellow"))
            return 1
        return 0

    def _sent_value(self, span: Span) -> Value:
        """What the write carried, as a read shows it."""
        request = self._question.request
        if span.at.table.has_bits:
            return request[3] == 0xFF if request[0] == 5 else bool(request[6] & 1)
        return request[3:5].hex() if request[0] == 6 else request[6:].hex()

    async def _ask(self, asker: Asker, request: bytes) -> Exchange:
        exchange = await asker.ask(self._question.unit, request, timeout_ns=self._timeout_ns)
        for line in report.asked(request, exchange) + report.answered(
            request, exchange, timeout_ns=self._timeout_ns
        ):
            self._print(line)
        return exchange

    def _show(self, span: Span, data: bytes) -> None:
        for table in report.values(span, data):
            self._console.print()
            self._console.print(table)

    def _print(self, line: Text) -> None:
        self._console.print(line, soft_wrap=True)


def _raw(span: Span, data: bytes) -> Value:
    return bool(data[0] & 1) if span.at.table.has_bits else data.hex()
