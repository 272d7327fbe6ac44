"""Somebody sets the wall clock of a running gateway: values say what it says, and nothing else moves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.torture.virtual import VirtualSite
from tests.virtual_time import run

S = 1_000_000_000
DAY_NS = 86_400 * S
BEFORE_S, AFTER_S = 120, 300


@pytest.mark.parametrize("is_away", [False, True], ids=["delivering", "with a backlog"])
@pytest.mark.parametrize("unsynchronised", ["mark", "trust"])
@pytest.mark.parametrize("step", ["a day ahead", "a day back", "1970"])
def test_a_step_of_the_wall_clock_closes_nothing_deletes_nothing_and_hurries_nobody(
    step: str, unsynchronised: str, is_away: bool, tmp_path: Path
) -> None:
    site = VirtualSite(tmp_path, unsynchronised=unsynchronised)
    plant, subscriber, clock = site.plant, site.subscriber, site.clock

    async def main() -> None:
        async with site.running() as gateway:
            await asyncio.sleep(10)
            plant.is_keeping = subscriber.is_keeping = True
            if is_away:
                subscriber.network.is_listening = False
                subscriber.network.wire.reset()
            await asyncio.sleep(BEFORE_S)
            wall_ns = clock.wall_ns()
            to_ns = {"a day ahead": wall_ns + DAY_NS, "a day back": wall_ns - DAY_NS, "1970": 1000 * S}[step]
            clock.set_wall_ns(to_ns)
            clock.synchronised = (
                False  # so the kernel says after a step, until the time server is heard again
            )
            await asyncio.sleep(AFTER_S)
            if is_away:
                assert subscriber.values == 2 * 10 or subscriber.values < 2 * 13
                assert gateway.status.status().uplinks[0].backlog >= 2 * (BEFORE_S + AFTER_S) - 4
                subscriber.network.is_listening = True
                await asyncio.sleep(120)
            status = gateway.status.status()
            assert status.uplinks[0].dropped_total == 0
            assert status.journal.damaged_total == 0
            assert gateway.status.health().ok
            assert status.uplinks[0].reconnects_total == int(is_away)
            assert status.links[0].reconnects_total == 0
            assert status.links[0].timeouts_total == 0
            assert sum(device.overruns_total for device in status.links[0].devices) == 0
        assert len(plant.network.wires) == 1
        assert plant.network.wires[0].closed_by == "close", "ours, at the end"
        assert subscriber.connects == 1 + is_away

    run(main())
    # no burst, no pause: a scan of each unit in each second, before and after
    for second in range(len(plant.scans_ns) // 2 - 1):
        spent_ns = plant.scans_ns[2 * second + 2] - plant.scans_ns[2 * second]
        assert abs(spent_ns - S) < 50_000_000, f"{spent_ns} between two scans"
    counts = [row["v"]["count"] for row in subscriber.rows]
    assert len(counts) >= 2 * (BEFORE_S + AFTER_S)
    for own in (counts[0::2], counts[1::2]):
        assert own == list(range(own[0], own[0] + len(own))), "one is missing, twice or out of order"
    # times are what the clock said, say what they are worth, and jump once
    times_ms = [row["t"] for row in subscriber.rows]
    jumps = [n for n in range(2, len(times_ms)) if abs(times_ms[n] - times_ms[n - 2] - 1000) > 100]
    assert len(jumps) == 2, "each device once"
    before, after = subscriber.rows[: jumps[0]], subscriber.rows[jumps[0] :]
    is_marked = unsynchronised == "mark"
    # what waited in the journal is dated by the running time of a boot whose clock was right once: no jump
    dated = {"gateway-dated"} if is_marked and is_away else set()
    assert {row["ts"] for row in before} == {"gateway"} | dated
    assert {row["ts"] for row in after} == ({"gateway-unsynchronised"} if is_marked else {"gateway"})
    assert not subscriber.known.gaps("gw")
