"""Scanning: ranges found by few reads, units that answer, a draft that loads; nothing is ever written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.asker import Asker
from drivers.modbus.link import ModbusLink
from drivers.modbus.survey.draft import draft
from drivers.modbus.survey.ranges import Range, Verdict, search
from drivers.modbus.survey.survey import Limits, Survey, UnitFound, Wanted
from drivers.modbus.wire.pdu import Table
from gateway.config.load import check
from tests.aio.memory import LoopClock
from tests.config.kinds import kinds
from tests.drivers.modbus.rig import Plc, Request, frame
from tests.virtual_time import run

HR, IR, CO, DI = Table.HOLDING_REGISTERS, Table.INPUT_REGISTERS, Table.COILS, Table.DISCRETE_INPUTS
LINK = ModbusLink.model_validate({"driver": "modbus", "host": "10.0.0.1:502"})


def play(there: set[int], first: int, last: int, *, step: int, most: int = 125) -> tuple[list[Range], int]:
    """The ranges that a search finds in a device, and its requests. `most`: what the device gives at once."""
    steps = search(first, last, read_max=125, step=step)
    requests = 0
    try:
        read = next(steps)
        while True:
            requests += 1
            assert 1 <= read.size <= 125
            assert first <= read.start <= read.start + read.size - 1 <= last
            if read.size > most:
                verdict = Verdict.TOO_MANY
            elif all(at in there for at in range(read.start, read.start + read.size)):
                verdict = Verdict.THERE
            else:
                verdict = Verdict.NOT_THERE
            read = steps.send(verdict)
    except StopIteration as end:
        return end.value, requests


def runs(there: set[int]) -> list[Range]:
    found: list[Range] = []
    for at in sorted(there):
        if found and found[-1].last == at - 1:
            found[-1] = Range(found[-1].first, at)
        else:
            found.append(Range(at, at))
    return found


spans = st.lists(st.tuples(st.integers(0, 950), st.sampled_from([1, 2, 3, 8, 9, 20, 60, 200])), max_size=8)


@settings(max_examples=300, deadline=None)
@given(parts=spans, step=st.sampled_from([1, 2, 8, 16]), most=st.sampled_from([125, 125, 60, 10]))
def test_what_is_found_is_there_and_what_is_long_enough_is_found(
    parts: list[tuple[int, int]], step: int, most: int
) -> None:
    there = {at for start, size in parts for at in range(start, min(1000, start + size))}
    found, _requests = play(there, 0, 999, step=step, most=most)
    assert all(at in there for one in found for at in range(one.first, one.last + 1))
    assert [one for one in runs(there) if one.size >= step and one not in found] == []


@pytest.mark.parametrize(
    ("there", "expected", "requests_max"),
    [
        (range(1000), [Range(0, 999)], 8),
        ((), [], 200),
        (range(3, 120), [Range(3, 119)], 250),
        ([*range(18), 20, 21, *range(30, 34)], [Range(0, 17), Range(20, 21), Range(30, 33)], 320),
    ],
)
def test_it_takes_few_requests(there: list[int], expected: list[Range], requests_max: int) -> None:
    found, requests = play(set(there), 0, 999, step=8)
    assert found == expected
    assert requests <= requests_max


# --- on a wire ---------------------------------------------------------------------------------------------


def survey(
    plc: Plc, *, units: list[int], wanted: list[Wanted], limits: Limits | None = None
) -> tuple[list[UnitFound], Survey]:
    async def main() -> tuple[list[UnitFound], Survey]:
        plc.network.install()
        async with Asker(LINK, clock=LoopClock()) as asker:
            found = Survey(asker, limits or Limits(), clock=LoopClock())
            answering = await found.units(units, has_any=True)
            for unit in answering:
                await found.identify(unit)
                await found.tables(unit, wanted)
            return answering, found

    result = run(main())
    assert {pdu[0] for pdu in plc.requests()} <= {1, 2, 3, 4, 17, 43}, "it never writes"
    return result


def loaded(text: str, folder: Path) -> list[str]:
    (folder / "gateway.yaml").write_text(text)
    report = check(folder, kinds())
    assert (report.errors, report.warnings) == ((), ()), text
    assert report.site is not None
    return [tag.point.name for device in report.site.devices.values() for tag in device.tags.values()]


class Readable(Plc):
    """Knows functions 1 to 4 and no other."""

    def respond(self, unit: int, pdu: bytes) -> bytes:
        return super().respond(unit, pdu) if pdu[0] <= 4 else bytes((pdu[0] | 0x80, 1))


class Sparse(Plc):
    """Units 3 and 9 have some registers; there is neither identification nor any coil."""

    def __init__(self) -> None:
        super().__init__(3, 9)
        self.registers[3] = {at: at for at in (*range(5), 40, 41, *range(100, 130))}
        self.registers[9] = dict.fromkeys(range(20), 0)

    def respond(self, unit: int, pdu: bytes) -> bytes:
        if pdu[0] not in {3, 4}:
            return bytes((pdu[0] | 0x80, 1))
        return super().respond(unit, pdu)


WANTED = [Wanted(HR, 0, 499, 8), Wanted(CO, 0, 99, 8)]


def test_units_their_ranges_and_a_draft(tmp_path: Path) -> None:
    plc = Sparse()
    plc.silent = set(range(256)) - {3, 9}
    found, made = survey(plc, units=list(range(1, 20)), wanted=WANTED)
    assert [one.unit for one in found] == [3, 9]
    (table,) = found[0].tables
    assert table.ranges == [Range(0, 4), Range(40, 41), Range(100, 129)]
    assert table.data[41] == 41
    assert table.note == ""
    text = draft(LINK, "plc", found, made.notes, made="today")
    assert '      hr41:    {at: "hr:41",    type: uint16}  #    41  0x0029\n' in text
    assert "repeat: {count: 20, stride: 1, first: 0}}  # all 0\n" in text
    names = loaded(text, tmp_path)
    assert len(names) == len(set(names)) == 37 + 20
    assert {"unit-3/hr129", "unit-9/hr0.19"} <= set(names)


def test_a_server_that_answers_for_every_unit_is_one_device() -> None:
    plc = Readable()
    plc.reply = lambda plc, request: frame(request[0], request[1], plc.respond(1, request[2]))
    found, made = survey(plc, units=list(range(1, 248)), wanted=[])
    assert [one.unit for one in found] == [1]
    assert made.notes == ["it answers for every unit, also for 201: taken for one device"]


def test_a_gateway_that_says_that_a_unit_is_missing_is_believed() -> None:
    def reply(plc: Plc, request: Request) -> bytes:
        if request[1] == 5:
            return plc.answer((request[0], 1, request[2]))[:6] + b"\5" + plc.respond(1, request[2])
        return frame(request[0], request[1], bytes((request[2][0] | 0x80, 0x0B)))

    plc = Readable()
    plc.reply = reply
    found, _made = survey(plc, units=list(range(1, 12)), wanted=[Wanted(HR, 0, 300, 8)])
    assert [one.unit for one in found] == [5]
    assert found[0].tables[0].ranges == [Range(0, 199)]


def test_a_device_that_gives_few_at_once_is_asked_for_few(tmp_path: Path) -> None:
    class Small(Readable):
        def respond(self, unit: int, pdu: bytes) -> bytes:
            if pdu[0] in {3, 4} and int.from_bytes(pdu[3:5], "big") > 20:
                return bytes((pdu[0] | 0x80, 3))
            return super().respond(unit, pdu)

    found, made = survey(Small(), units=[1], wanted=[Wanted(HR, 0, 300, 8)])
    assert found[0].tables[0].ranges == [Range(0, 199)]
    assert 8 <= found[0].read_max <= 20
    text = draft(LINK, "plc", found, made.notes, made="today")
    assert f"max_registers: {found[0].read_max}" in text
    assert len(loaded(text, tmp_path)) == 200


def test_it_ends_when_its_requests_or_its_time_are_spent_and_says_where() -> None:
    plc = Readable()
    limits = Limits(requests_max=50)
    found, _made = survey(plc, units=[1], wanted=[Wanted(HR, 0, 9999, 1)], limits=limits)
    (table,) = found[0].tables
    assert table.ranges == [Range(0, 199)]
    assert table.note.startswith("not searched from hr:2")
    assert len(plc.asked) < 60
    plc = Readable()
    plc.delay_s = 0.2
    found, _made = survey(
        plc, units=[1], wanted=[Wanted(HR, 0, 9999, 1)], limits=Limits(time_max_ns=5 * 10**9)
    )
    assert found[0].tables[0].note.startswith("not searched from")
    assert len(plc.asked) < 40


def test_a_device_that_is_silent_where_it_has_nothing_is_not_asked_for_ever() -> None:
    plc = Readable()
    plc.reply = lambda plc, request: b"" if plc.respond(1, request[2])[0] & 0x80 else plc.answer(request)
    found, _made = survey(plc, units=[1], wanted=[Wanted(HR, 0, 9999, 8)])
    (table,) = found[0].tables
    assert table.ranges == [Range(0, 199)]
    assert "does not answer any more" in table.note


def test_a_device_that_hangs_up_at_what_it_does_not_know_is_called_again() -> None:
    plc = Sparse()

    def reply(plc: Plc, request: Request) -> bytes:
        if request[2][0] in {17, 43, 1}:
            asyncio.get_running_loop().call_soon(plc.network.wire.close_by_peer)
            return b""
        return plc.answer(request)

    plc.reply = reply
    found, _made = survey(plc, units=[3], wanted=WANTED)
    assert found[0].tables[0].ranges == [Range(0, 4), Range(40, 41), Range(100, 129)]


@pytest.mark.parametrize("number", [0, 300])
def test_many_registers_become_an_array_with_their_digits(number: int, tmp_path: Path) -> None:
    from drivers.modbus.survey.survey import TableFound

    data = {at: at + 1 for at in range(300)}
    bits = {at: at % 3 == 0 and number > 0 for at in range(120)}
    unit = UnitFound(unit=1, answer_ns=10**6, identity=[("VendorName", "A\x00\nB: #")], server_id='01, "x"')
    unit.tables = [
        TableFound(table=HR, ranges=[Range(0, 299)], data=data),
        TableFound(table=DI, ranges=[Range(0, 119)], data={at: int(bit) for at, bit in bits.items()}),
    ]
    text = draft(LINK, "plc", [unit], [], made="today")
    assert max(map(len, text.splitlines())) <= 110
    assert len(loaded(text, tmp_path)) == 420
    assert "hr:296    0129 012a 012b 012c" in text
    assert ("1001001001 0010010010" in text) is (number > 0)


def test_no_unit_at_all(tmp_path: Path) -> None:
    assert loaded(draft(LINK, "plc", [], ["nobody"], made="today"), tmp_path) == []
