"""Signs of life both ways, time-outs that follow the device, and commands that are not sent twice blindly."""

from __future__ import annotations

import asyncio
import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.patience import Patience
from tests.drivers.modbus.rig import MS, Plc, Request, Rig, driven, frame

LINK = "links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 500ms, attempts: 1%s}}\n"
COUNTER = """
scan: {normal: 1s, slow: 5s}
devices:
  d:
    link: plc
    unit: 1
    watch: {tag: alive, within: 3s}
    tags:
      alive: {at: "hr:0", type: uint16}
      a: {at: "hr:1", type: uint16}
      s: {at: "hr:50", type: uint16, scan: slow}
"""


def test_a_device_whose_counter_stands_still_has_stale_values_and_good_ones_when_it_moves() -> None:
    async def script(rig: Rig) -> None:
        words = rig.plc.registers[1]
        for _ in range(5):
            await asyncio.sleep(1)
            words[0] += 1
        assert rig.shown.points["d/a"] == (7, "good")
        await asyncio.sleep(2.5)
        assert rig.shown.points["d/a"] == (7, "good"), "not yet"
        await asyncio.sleep(7)
        assert rig.shown.points["d/a"] == (7, "uncertain/stale")
        assert rig.shown.points["d/alive"] == (12, "uncertain/stale")
        assert rig.shown.points["d/s"] == (7, "uncertain/stale"), "also of its other scan classes"
        assert rig.driver.devices["d"].state == "degraded"
        words[0] += 1
        await asyncio.sleep(6)
        words[0] += 1
        await asyncio.sleep(1.1)
        assert rig.shown.points["d/a"] == (7, "good")
        assert rig.driver.devices["d"].state == "ok"

    driven(LINK % "" + COUNTER, script)


def test_a_heartbeat_counts_up_begins_again_and_stops_while_the_device_is_away() -> None:
    site = (
        LINK % ""
        + """
scan: {slow: 1h}
devices:
  d:
    link: plc
    unit: 1
    demote: {after: 2, retry: 60s}
    heartbeat: {at: "hr:100", every: 2s, first: 1, last: 3}
    tags: {a: {at: "hr:0", type: uint16}}
"""
    )

    async def script(rig: Rig) -> None:
        await asyncio.sleep(9)
        written = [struct.unpack(">HH", pdu[1:]) for pdu in rig.plc.requests(6)]
        assert written == [(100, 1), (100, 2), (100, 3), (100, 1), (100, 2)]
        rig.plc.silent.add(1)
        await asyncio.sleep(10)
        rig.plc.asked.clear()
        await asyncio.sleep(40)
        assert rig.plc.requests(6) == [], "the device counts as gone, its wire is for the others"

    driven(site, script)


def test_a_coil_toggles() -> None:
    site = (
        LINK % ""
        + "devices: {d: {link: plc, unit: 1, heartbeat: {at: 'co:3', every: 1s},"
        + " tags: {a: {at: 'hr:0', type: uint16}}}}\n"
    )

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3.5)
        assert [pdu[3] for pdu in rig.plc.requests(5)][:3] == [0, 0xFF, 0]

    driven(site, script)


def test_the_wait_for_an_answer_follows_what_the_device_takes() -> None:
    site = (
        LINK % ", min_timeout: 20ms"
        + "devices: {d: {link: plc, unit: 1, tags: {a: {at: 'hr:0', type: uint16}}}}\n"
    )
    plc = Plc()
    plc.delay_s = 0.03

    async def script(rig: Rig) -> None:
        device = rig.driver.devices["d"]
        assert device.timeout_ns == 500 * MS
        await asyncio.sleep(60)
        assert 30 * MS < device.timeout_ns < 40 * MS
        plc.silent.add(1)
        await asyncio.sleep(2)
        assert device.timeout_ns > 60 * MS, "doubled by silence"
        await asyncio.sleep(200)
        assert device.timeout_ns == 500 * MS, "never above the timeout"

    driven(site, script, plc=plc)


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**10)), max_size=50))
def test_patience_stays_within_its_bounds(history: list[int | None]) -> None:
    patience = Patience(least_ns=10 * MS, most_ns=1000 * MS)
    for took_ns in history:
        if took_ns is None:
            patience.silent()
        else:
            patience.answered(took_ns)
        assert 10 * MS <= patience.timeout_ns <= 1000 * MS


SETPOINT = "devices: {d: {link: plc, unit: 1, tags: {sp: {at: 'hr:5', type: uint16, write: {%s}}}}}\n"


def test_only_the_latest_of_commands_that_wait_is_sent() -> None:
    plc = Plc()
    plc.delay_s = 0.1

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.02)  # a scan is under way: what comes now waits
        results = await asyncio.gather(*(rig.command("d/sp", value) for value in (1, 2, 3)))
        assert [one.outcome.value for one in results] == ["rejected", "rejected", "sent"]
        assert "a newer command" in results[0].reason
        assert [pdu[3:] for pdu in plc.requests(6)] == [b"\0\x03"]

    driven(LINK % "" + SETPOINT % "queue: latest", script, plc=plc)


def test_only_the_latest_is_sent_also_where_the_scale_factor_is_read_first() -> None:
    plc = Plc()
    powers = itertools.cycle(
        (0, 1)
    )  # another one at each reading: these are commands for one point all the same
    slow = "devices: {d: {link: plc, unit: 1, tags: {sp: {at: 'hr:5', type: int16, scale: {power: 'hr:22'}, "

    def reply(plc: Plc, request: Request) -> bytes:
        plc.registers[1][22] = next(powers)
        return plc.answer(request)

    plc.reply = reply

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        results = await asyncio.gather(*(rig.command("d/sp", value) for value in (10, 20, 30, 40)))
        # The last one was still reading its factor when the third had its turn.
        assert [one.outcome.value for one in results] == ["rejected", "rejected", "sent", "sent"]
        assert len(plc.requests(6)) == 2

    driven(LINK % "" + slow + "write: {queue: latest}}}}}\n", script, plc=plc)


@pytest.mark.parametrize(
    ("lost", "is_done", "outcome", "writes"),
    [
        (1, True, "verified", 1),  # the answer was lost, not the write: it is not repeated
        (1, False, "verified", 2),  # the write was lost, as the read-back shows: it is
        (9, False, "unknown", 3),
    ],
)
def test_a_write_is_repeated_only_when_the_value_reads_back_as_it_was(
    lost: int, is_done: bool, outcome: str, writes: int
) -> None:
    left = [lost]

    def reply(plc: Plc, request: Request) -> bytes:
        if request[2][0] == 6 and left[0]:
            left[0] -= 1
            if is_done:
                plc.answer(request)
            return b""
        return plc.answer(request)

    plc = Plc()
    plc.reply = reply

    async def script(rig: Rig) -> None:
        await asyncio.sleep(1.5)
        result = await rig.command("d/sp", 42, within_s=20)
        assert result.outcome.value == outcome, result.reason
        assert len(plc.requests(6)) == writes

    driven(LINK % "" + SETPOINT % "verify: readback, attempts: 3", script, plc=plc)


@pytest.mark.parametrize("queue", ["every", "latest"])
def test_a_write_is_not_repeated_over_a_newer_one(queue: str) -> None:
    left = [1]

    def reply(plc: Plc, request: Request) -> bytes:
        if request[2][0] == 6 and left[0]:
            left[0] -= 1
            return b""
        return plc.answer(request)

    plc = Plc()
    plc.reply = reply

    async def script(rig: Rig) -> None:
        await asyncio.sleep(1.5)
        older = asyncio.ensure_future(rig.command("d/sp", 1, within_s=20))
        await asyncio.sleep(0.3)  # the first write is lost: its time-out is not over
        newer = await rig.command("d/sp", 2, within_s=20)
        assert newer.outcome.value == "verified", newer.reason
        first = await older
        assert first.outcome.value == "unknown", first.reason
        assert "reads back" in first.reason
        assert [pdu[3:] for pdu in plc.requests(6)] == [b"\0\x01", b"\0\x02"]
        assert plc.registers[1][5] == 2
        assert not rig.driver._newest, "nothing is remembered of what has ended"

    driven(LINK % "" + SETPOINT % f"verify: readback, attempts: 3, queue: {queue}", script, plc=plc)


def test_a_refusal_after_a_write_without_an_answer_leaves_it_unknown() -> None:
    def reply(plc: Plc, request: Request) -> bytes:
        if request[2][0] != 6:
            return plc.answer(request)
        if len(plc.requests(6)) == 1:
            return b""
        return frame(request[0], 1, b"\x86\x02")

    plc = Plc()
    plc.reply = reply

    async def script(rig: Rig) -> None:
        await asyncio.sleep(1.5)
        result = await rig.command("d/sp", 42, within_s=20)
        assert result.outcome.value == "unknown", "the first one may be carried out yet"
        assert "no answer in time; once more: " in result.reason
        assert "exception 2" in result.reason

    driven(LINK % "" + SETPOINT % "verify: readback, attempts: 3", script, plc=plc)


def test_the_answer_to_a_repeated_request_teaches_no_wait() -> None:
    """Karn: on a line it may be the late answer to the one before, which came quickly after the second."""
    site = (
        LINK.replace("attempts: 1", "attempts: 2") % ", min_timeout: 20ms"
        + "devices: {d: {link: plc, unit: 1, tags: {a: {at: 'hr:0', type: uint16}}}}\n"
    )
    plc = Plc()
    plc.delay_s = 0.03

    async def script(rig: Rig) -> None:
        device = rig.driver.devices["d"]
        await asyncio.sleep(60)
        assert device.timeout_ns < 50 * MS
        is_answered = itertools.cycle((False, True))
        plc.reply = lambda plc, request: plc.answer(request) if next(is_answered) else b""
        plc.delay_s = 0.001
        await asyncio.sleep(10)
        assert device.timeout_ns == 500 * MS, "doubled by each silence, and taken back by no second answer"
        assert rig.shown.points["d/a"] == (7, "good")

    driven(site, script, plc=plc)


def test_what_a_frozen_counter_says_is_said_of_slow_scans_at_once() -> None:
    async def script(rig: Rig) -> None:
        words = rig.plc.registers[1]
        for _ in range(5):
            await asyncio.sleep(1)
            words[0] += 1
        await asyncio.sleep(5)
        assert rig.shown.points["d/s"] == (7, "uncertain/stale"), "its own slot is in an hour"
        words[0] += 1
        await asyncio.sleep(1.5)
        assert rig.shown.points["d/s"] == (7, "good")
        assert len(rig.shown.of("d/s")) == 3

    driven(LINK % "" + COUNTER.replace("slow: 5s", "slow: 1h"), script)
