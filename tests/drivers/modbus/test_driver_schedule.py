"""Scans in virtual time: on the grid for hours, never two of one device, paused and resumed."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from tests.drivers.modbus.rig import Plc, Rig, S, Shown, driven

ONE = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 500ms%s}}
scan: {normal: %s, slow: 10s}
devices:
  d: {link: plc, unit: 1, tags: {a: {at: "hr:0", type: uint16}%s}}
"""
TWO_CLASSES = ', s: {at: "hr:100", type: uint16, scan: slow}'
FIVE_BLOCKS = "".join(f', b{n}: {{at: "hr:{n * 20}", type: uint16}}' for n in range(1, 5))


def test_no_drift_over_hours_whatever_a_scan_takes() -> None:
    plc = Plc()
    plc.delay_s = 0.0373

    async def script(rig: Rig) -> None:
        await asyncio.sleep(1.5)
        first = plc.times()[-1]
        await asyncio.sleep(4 * 3600)
        times = [at for at in plc.times() if at >= first]
        assert times == list(range(first, first + 4 * 3600 * 1000 + 1, 1000))
        assert rig.driver.overruns() == {"d": 0}

    driven(ONE % ("", "1s", ""), script, plc=plc)


def test_a_scan_that_takes_longer_than_its_period_is_not_started_twice_and_counted() -> None:
    plc = Plc()
    plc.delay_s = 0.25

    async def script(rig: Rig) -> None:
        await asyncio.sleep(60.05)
        assert plc.under_way_max == 1
        assert len(plc.asked) == pytest.approx(200, abs=2)  # every third slot of 100 ms
        assert rig.driver.overruns()["d"] == pytest.approx(400, abs=4)

    driven(ONE % ("", "100ms", ""), script, plc=plc)


def test_scan_classes_of_one_device_never_overlap() -> None:
    plc = Plc()
    plc.delay_s = 0.3

    async def script(rig: Rig) -> None:
        await asyncio.sleep(100)
        assert plc.under_way_max == 1
        assert all(later - sooner >= 300 for sooner, later in pairwise(plc.times()))
        assert len(rig.shown.of("d/s")) == 10

    driven(ONE % (", max_in_flight: 8", "1s", TWO_CLASSES), script, plc=plc)


def test_continuous_is_as_fast_as_the_device_and_lets_others_in() -> None:
    plc = Plc()
    plc.delay_s = 0.01

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10)
        assert 650 <= len(rig.shown.of("d/a")) <= 1000  # 10 ms for the answer, 1 for its way
        assert len(rig.shown.of("d/s")) == 1
        assert plc.under_way_max == 1

    driven(ONE % ("", "continuous", TWO_CLASSES), script, plc=plc)


def test_continuous_does_not_spin_while_the_device_is_gone() -> None:
    plc = Plc()
    plc.delay_s = 0.01  # without it no time would pass between two scans

    async def script(rig: Rig) -> None:
        await asyncio.sleep(1)
        plc.silent = {1}
        await asyncio.sleep(2)
        before = len(plc.asked)
        await asyncio.sleep(300)
        assert 9 <= len(plc.asked) - before <= 11  # once in 30 s
        plc.network.is_listening = False
        plc.network.wire.reset()
        await asyncio.sleep(300)
        plc.network.is_listening, plc.silent = True, set()
        await asyncio.sleep(61)
        assert rig.shown.points["d/a"] == (7, "good")

    driven(ONE % ("", "continuous", ""), script, plc=plc)


def test_storage_that_pushes_back_pauses_scans_and_they_go_on() -> None:
    async def script(rig: Rig) -> None:
        await asyncio.sleep(5.5)
        count = len(rig.shown.batches)
        rig.shown.blocked = True
        await asyncio.sleep(60)
        assert len(rig.shown.batches) == count
        assert len(rig.plc.asked) == count
        assert rig.driver.paused_scans >= 60
        rig.shown.blocked = False
        await asyncio.sleep(0.3)
        assert len(rig.shown.of("d/s")) == 2  # its slot passed meanwhile: made up for, not left out
        await asyncio.sleep(10)
        assert len(rig.shown.of("d/a")) >= 16

    driven(ONE % ("", "1s", TWO_CLASSES), script)


def test_nothing_is_put_while_storage_pushes_back_and_a_lost_link_is_told_afterwards() -> None:
    async def script(rig: Rig) -> None:
        await asyncio.sleep(5.5)
        count = len(rig.shown.batches)
        rig.shown.blocked = True
        rig.plc.network.is_listening = False
        rig.plc.network.wire.reset()
        await asyncio.sleep(5)
        assert len(rig.shown.batches) == count
        rig.shown.blocked = False
        await asyncio.sleep(1.1)
        assert rig.shown.points["d/a"] == (None, "bad/comm-lost")

    driven(ONE % ("", "1s", ""), script)


@pytest.mark.parametrize("step_s", [-86_400, 3_600, 86_400 * 365])
def test_a_step_of_the_wall_clock_changes_times_shown_and_nothing_else(step_s: int) -> None:
    async def script(rig: Rig) -> None:
        await asyncio.sleep(10.5)
        before = rig.shown.batches[-1].received_ns
        rig.clock.step_ns = step_s * S
        await asyncio.sleep(20)
        assert [later - sooner for sooner, later in pairwise(rig.plc.times()[2:])] == [1000] * (
            len(rig.plc.times()) - 3
        )
        assert {text for _at, _p, _v, text in rig.shown.history} == {"good"}
        assert len(rig.plc.network.wires) == 1
        moved_ns = rig.shown.batches[-1].received_ns - before
        assert abs(moved_ns - (20 + step_s) * S) <= S

    driven(ONE % ("", "1s", ""), script)


def test_the_gap_between_an_answer_and_the_next_request_is_kept() -> None:
    plc = Plc()
    plc.delay_s = 0.02

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10.5)
        assert len(plc.asked) >= 50
        assert min(later - sooner for sooner, later in pairwise(plc.times())) == 50  # 20 answer + 30 gap
        asked = len(plc.asked)
        result = await rig.command("d/a", 1)
        assert result.outcome.value == "sent"
        assert len(plc.asked) == asked + 1

    writable = ONE.replace("uint16}%s", "uint16, write: {}}%s")
    driven(writable % (", gap: 30ms", "1s", FIVE_BLOCKS), script, plc=plc)


def test_a_gap_costs_no_work_while_an_answer_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    plc = Plc()
    plc.delay_s = 0.4

    async def script(rig: Rig) -> None:
        ticks = 0
        tick = rig.driver._tick

        def counted(now_ns: int) -> None:
            nonlocal ticks
            ticks += 1
            tick(now_ns)

        monkeypatch.setattr(rig.driver, "_tick", counted)
        await asyncio.sleep(20)
        assert ticks < 200

    driven(ONE % (", gap: 30ms", "10s", FIVE_BLOCKS), script, plc=plc)


@pytest.mark.parametrize("depth", [1, 3, 16])
def test_requests_in_flight_reach_their_limit_and_never_exceed_it(depth: int) -> None:
    plc = Plc(count=2000)
    plc.delay_s = 0.05
    many = "".join(f', b{n}: {{at: "hr:{n * 20}", type: uint16}}' for n in range(1, 40))

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10.5)
        assert plc.under_way_max == depth
        assert {text for _at, _p, _v, text in rig.shown.history} == {"good"}

    driven(ONE % (f", max_in_flight: {depth}", "5s", many), script, plc=plc)


def test_devices_of_a_class_are_spread_where_that_is_asked_for() -> None:
    text = "links: {plc: {driver: modbus, host: 10.0.0.1}}\nscan: {normal: {every: 10s, spread: true}}\n"
    text += "devices:\n"
    for n in range(10):
        text += f"  d{n}: {{link: plc, unit: {n}, tags: {{a: {{at: 'hr:0', type: uint16}}}}}}\n"
    plc = Plc(*range(10))

    async def script(rig: Rig) -> None:
        await asyncio.sleep(60)
        last = sorted(plc.times(unit)[-1] for unit in range(10))
        assert all(900 <= later - sooner <= 1100 for sooner, later in pairwise(last))

    driven(text, script, plc=plc)


def test_the_same_values_are_the_same_objects_from_scan_to_scan() -> None:
    """What comes after compares by identity first."""
    shown = Shown()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3.5)
        assert len({id(batch.values) for batch in shown.batches}) == 1
        rig.plc.registers[1][0] = 8
        await asyncio.sleep(3)
        assert len({id(batch.values) for batch in shown.batches}) == 2

    driven(ONE % ("", "1s", FIVE_BLOCKS), script, shown=shown)


def test_a_scan_of_several_requests_is_as_old_as_its_first_answer() -> None:
    plc = Plc()
    plc.delay_s = 0.3

    async def script(rig: Rig) -> None:
        await asyncio.sleep(15)
        asked = plc.times()[5:10]
        assert asked[4] - asked[0] == 4 * 300
        batch = rig.shown.batches[1]
        answered_ms = asked[0] + 300
        assert (batch.monotonic_ns - 1000 * S) // 10**6 == answered_ms
        shown_ms = rig.shown.of("d/a")[1][0]
        assert shown_ms - answered_ms == 4 * 300
        wall_ns = rig.clock.wall_ns() - rig.clock.monotonic_ns() + batch.monotonic_ns
        assert batch.received_ns == wall_ns

    driven(ONE % ("", "10s", FIVE_BLOCKS), script, plc=plc)
