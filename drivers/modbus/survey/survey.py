"""Looks at a wire without writing: which units answer, who they are, what of their tables can be read.

Asks one thing at a time, gives up in a bounded number of requests and a bounded time, and says what it did
not look at. Guesses nothing about types.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from drivers.modbus.address import Address
from drivers.modbus.asker import Asker, Exchange
from drivers.modbus.survey.ranges import Range, Read, Verdict, search
from drivers.modbus.wire import pdu as p
from drivers.modbus.wire.client import Answer, Lost, Mismatched, Refused, TimedOut
from drivers.modbus.wire.describe import response_words
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.pdu_identity import OBJECT_NAMES, IdentityReader, ReadDeviceId, report_server_id
from gateway.core.clock import Clock
from gateway.core.errors import LinkError, RemoteProtocolError

_ELSEWHERE: Final = frozenset(
    {ExceptionCode.GATEWAY_PATH_UNAVAILABLE, ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND}
)
_BUSY: Final = frozenset(
    {ExceptionCode.SERVER_DEVICE_FAILURE, ExceptionCode.ACKNOWLEDGE, ExceptionCode.SERVER_DEVICE_BUSY}
)
_BUSY_WAIT_S: Final = 0.2
_FEW: Final = 8  # registers that any device gives at once: an exception 3 for so few is about their addresses
_SILENT_MAX: Final = 8  # reads in a row without an answer: the unit has gone
_ALL_ANSWER: Final = 4  # so many units in a row: does it answer for any?
_UNLIKELY: Final = (201, 218, 233, 246)
_FULL_PART: Final = 1 << 16


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is asked."""

    timeout_ns: int = 300_000_000
    requests_max: int = 3000  # for each unit
    time_max_ns: int = 60_000_000_000  # for each unit
    pause_ns: int = 0  # between an answer and the next question


class Wanted(NamedTuple):
    """Addresses to search, both ends included; ranges shorter than `step` may be missed."""

    table: Table
    first: int
    last: int
    step: int


class TableFound(msgspec.Struct, kw_only=True):
    """One table of one unit."""

    table: Table
    ranges: list[Range] = []
    data: dict[int, int] = {}  # address → raw value
    note: str = ""  # why it was not searched to its end


class UnitFound(msgspec.Struct, kw_only=True):
    """One unit that answers."""

    unit: int
    answer_ns: int
    identity: list[tuple[str, str]] = []
    server_id: str = ""
    tables: list[TableFound] = []
    read_max: int = p.READ_REGISTERS_MAX  # registers it gives at once
    requests: int = 0


Told = Callable[[str], None]


class Survey:
    """One wire. `tell` is told what is being looked at, as often as it changes."""

    def __init__(
        self, asker: Asker, limits: Limits, *, clock: Clock, tell: Told = lambda _text: None
    ) -> None:
        self.notes: Final[list[str]] = []
        self.requests = 0
        self._asker: Final = asker
        self._limits: Final = limits
        self._clock: Final = clock
        self._tell: Final = tell

    async def units(self, candidates: Sequence[int], *, has_any: bool) -> list[UnitFound]:
        """Those that answer anything. `has_any`: a network server may answer for every unit alike."""
        found: list[UnitFound] = []
        for number, unit in enumerate(candidates, 1):
            self._tell(f"unit {unit} ({number} of {len(candidates)}), {len(found)} found")
            answer_ns = await self._answers(unit)
            if answer_ns is not None:
                found.append(UnitFound(unit=unit, answer_ns=answer_ns))
            if has_any and number == len(found) == _ALL_ANSWER and await self._answers_all():
                note = f"it answers for every unit, also for {_UNLIKELY[0]}: taken for one device"
                self.notes.append(note)
                return found[:1]
        return found

    async def _answers_all(self) -> bool:
        return None not in [await self._answers(unit) for unit in _UNLIKELY]

    async def _answers(self, unit: int) -> int | None:
        """How long its answer takes, in ns; None for none."""
        exchange = await self._ask(unit, p.read(Table.HOLDING_REGISTERS, start=0, count=1))
        event = exchange.event
        if isinstance(event, Mismatched):
            self.notes.append(f"unit {unit}: a wrong answer: found {event.found}, expected {event.expected}")
        is_there = isinstance(event, Answer) or (isinstance(event, Refused) and event.code not in _ELSEWHERE)
        return exchange.took_ns if is_there else None

    async def identify(self, unit: UnitFound) -> None:
        """Device identification (43/14) and server id (17), where they are answered."""
        self._tell(f"unit {unit.unit}: who it is")
        reader = IdentityReader(ReadDeviceId.REGULAR)
        while (request := reader.request()) is not None:
            event = (await self._ask(unit.unit, request)).event
            if not isinstance(event, Answer):
                break
            try:
                reader.take(event.data)
            except RemoteProtocolError as error:
                self.notes.append(f"unit {unit.unit}: {error}")
                break
        unit.identity = [
            (OBJECT_NAMES.get(key, f"object {key}"), value.decode("latin-1"))
            for key, value in reader.objects.items()
        ]
        request = report_server_id()
        event = (await self._ask(unit.unit, request)).event
        if isinstance(event, Answer):
            unit.server_id = response_words(request + event.data, request).removeprefix("server id ")

    async def tables(self, unit: UnitFound, spans: Sequence[Wanted]) -> None:
        """Search spans, one after the other; what was found in a table stands together."""
        began_ns, before = self._clock.monotonic_ns(), self.requests
        found: dict[Table, TableFound] = {}
        for span in spans:
            one = found.setdefault(span.table, TableFound(table=span.table))
            if not one.note:
                budget = _Budget(before + self._limits.requests_max, began_ns + self._limits.time_max_ns)
                await self._search(unit, one, span, budget)
        unit.tables = [one for one in found.values() if one.ranges or one.note]
        unit.requests = self.requests - before

    async def _search(self, unit: UnitFound, one: TableFound, span: Wanted, budget: _Budget) -> None:
        table = one.table
        read_max = min(table.read_max, _FULL_PART if table.has_bits else unit.read_max)
        steps = search(span.first, span.last, read_max=read_max, step=span.step)
        ears = _Ears()
        try:
            read = next(steps)
            while True:
                verdict = await self._verdict(unit, one, read, ears, budget)
                if verdict is Verdict.TOO_MANY and not table.has_bits:
                    unit.read_max = min(unit.read_max, max(1, read.size // 2))
                read = steps.send(verdict)
        except StopIteration as end:
            one.ranges += end.value

    async def _verdict(
        self, unit: UnitFound, one: TableFound, read: Read, ears: _Ears, budget: _Budget
    ) -> Verdict:
        at = Address(one.table, read.start)
        if self.requests >= budget.requests or self._clock.monotonic_ns() >= budget.ends_ns:
            one.note = f"not searched from {at} on: as many requests, or as much time, as allowed"
            return Verdict.STOP
        self._tell(f"unit {unit.unit}: {at}, {len(one.data)} found")
        request = p.read(one.table, start=read.start, count=read.size)
        event = (await self._ask(unit.unit, request)).event
        if isinstance(event, TimedOut | Lost) or (isinstance(event, Refused) and event.code in _BUSY):
            await asyncio.sleep(_BUSY_WAIT_S)
            event = (await self._ask(unit.unit, request)).event
        if isinstance(event, Answer):
            ears.heard(read.size)
            one.data.update(_raw(one.table, read, event.data))
            return Verdict.THERE
        if isinstance(event, Refused):
            ears.silent = 0
            return self._refused(one, read, event.code, ears)
        ears.silent += 1
        if ears.silent >= _SILENT_MAX:
            one.note = f"not searched from {at} on: it does not answer any more"
            return Verdict.STOP
        return Verdict.NOT_THERE

    def _refused(self, one: TableFound, read: Read, code: int, ears: _Ears) -> Verdict:
        if code == ExceptionCode.ILLEGAL_FUNCTION and not one.data:
            return Verdict.STOP  # the device has no such table
        if code in _ELSEWHERE:
            one.note = f"not searched from {Address(one.table, read.start)} on: {p.meaning(code)}"
            return Verdict.STOP
        is_count = code == ExceptionCode.ILLEGAL_DATA_VALUE and read.size > max(_FEW, ears.most)
        return Verdict.TOO_MANY if is_count else Verdict.NOT_THERE

    async def _ask(self, unit: int, request: bytes) -> Exchange:
        """One question; a device that hangs up is called once more."""
        if self._limits.pause_ns and self.requests:
            await asyncio.sleep(self._limits.pause_ns / 1e9)
        self.requests += 1
        try:
            return await self._asker.ask(unit, request, timeout_ns=self._limits.timeout_ns)
        except LinkError:
            if self.requests == 1:
                raise
            await asyncio.sleep(_BUSY_WAIT_S)
            return await self._asker.ask(unit, request, timeout_ns=self._limits.timeout_ns)


class _Budget(msgspec.Struct, frozen=True):
    """Of one unit."""

    requests: int
    ends_ns: int


class _Ears(msgspec.Struct):
    """How a unit has answered in one table."""

    silent: int = 0  # in a row
    most: int = 0  # items that it gave at once

    def heard(self, count: int) -> None:
        """A good answer."""
        self.silent = 0
        self.most = max(self.most, count)


def _raw(table: Table, read: Read, data: bytes) -> dict[int, int]:
    if table.has_bits:
        bits = p.unpack_bits(data, read.size)
        return {read.start + number: int(bit) for number, bit in enumerate(bits)}
    words = memoryview(data).cast("B")
    return {
        read.start + number: words[2 * number] << 8 | words[2 * number + 1] for number in range(read.size)
    }
