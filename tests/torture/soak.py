"""Months of a gateway's life in minutes: every kind of outage in each cycle, and nothing has grown.

Counted where everything is quiet again: objects and memory blocks of the interpreter, tasks, timers, open
files, what waits in each queue, files and bytes of the journal and the audit.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.aio.memory import Network
from tests.torture.virtual import GATEWAY, VirtualSite
from tests.virtual_time import run

HOUR_NS: Final = 3600 * 10**9
MONTH_HOURS: Final = 30 * 24
WARM_UP: Final = 3  # cycles before anything is compared: caches fill, configurations have been seen twice
GROWTH_MAX: Final = 1.01  # of the largest sample of the last third above the largest of the first
SLACK: Final = {"objects": 300, "blocks": 1500, "journal_bytes": 200_000, "audit_bytes": 100_000}
SLACK_OTHERS: Final = 2
SHOWN: Final = ("objects", "blocks", "tasks", "timers", "open files", "journal_bytes")
QUIET_S: Final = 300  # for everything to be delivered again


class Sample(msgspec.Struct, frozen=True):
    """What there is at one quiet moment. `blocks` are those of the interpreter's own allocator."""

    hour: float
    counts: dict[str, int]

    def line(self) -> str:
        """What a person looks at; the rest of the counts is depths of queues."""
        named = ", ".join(f"{name} {self.counts[name]}" for name in SHOWN if name in self.counts)
        others = [count for name, count in self.counts.items() if "limit" not in name and name not in SHOWN]
        return f"day {self.hour / 24:.1f}: {named}, in {len(others)} queues {sum(others)}"


class Soaked(msgspec.Struct, kw_only=True):
    """What a soak did and found."""

    seed: int
    hours: float
    samples: list[Sample]
    values: int
    duplicates: int
    outages: dict[str, int]
    faults: list[str]

    def line(self) -> str:
        """All of it in one."""
        first, last = self.samples[min(WARM_UP, len(self.samples) - 1)], self.samples[-1]
        counts = ", ".join(
            f"{name} {first.counts.get(name, 0)} → {count}"
            for name, count in last.counts.items()
            if name in SHOWN
        )
        outages = ", ".join(f"{count} {name}" for name, count in self.outages.items())
        verdict = f"FAULTS {len(self.faults)}" if self.faults else "no growth, lost 0"
        return (
            f"soak of {self.hours / 24:.1f} days: {verdict}, {self.values} values, "
            f"{self.duplicates} duplicates; {outages}; {counts} (seed {self.seed})"
        )


def growth(samples: list[Sample]) -> list[str]:
    """What is larger at the end than at the beginning, in words."""
    settled = samples[WARM_UP:]
    third = len(settled) // 3
    if not third:
        return [f"{len(samples)} samples are too few to judge: expected {WARM_UP + 3} or more"]
    found = []
    for name in settled[-1].counts:
        early = max(sample.counts.get(name, 0) for sample in settled[:third])
        late = max(sample.counts.get(name, 0) for sample in settled[-third:])
        if late > early * GROWTH_MAX + SLACK.get(name, SLACK_OTHERS):
            found.append(f"{name} grew from {early} to {late}")
    return found


class Soak:
    """`run`, once."""

    def __init__(self, folder: Path, *, seed: int, cycle_hours: float, scan: str) -> None:
        self.site = VirtualSite(folder, scan=scan, keep="30d")
        self._chance = random.Random(seed)
        self._seed = seed
        self._cycle_hours = cycle_hours
        self._outages: dict[str, int] = {}
        self._faults: list[str] = []
        self._is_extended = False

    def run(self, *, cycles: int, say: Callable[[str], None] = lambda _line: None) -> Soaked:
        """So many cycles of outages and quiet; the result is in the order of time."""
        samples: list[Sample] = []

        async def main() -> None:
            async with self.site.running():
                for cycle in range(cycles):
                    await self._cycle()
                    samples.append(self._sample((cycle + 1) * self._cycle_hours))
                    say(samples[-1].line())

        run(main(), limit_ns=round((cycles + 1) * self._cycle_hours * HOUR_NS))
        known = self.site.subscriber.known
        known_gaps = known.gaps(GATEWAY)
        if known_gaps:
            self._faults.append(f"lost: {known_gaps[:5]}")
        return Soaked(
            seed=self._seed,
            hours=cycles * self._cycle_hours,
            samples=samples,
            values=self.site.subscriber.values,
            duplicates=known.duplicates,
            outages=self._outages,
            faults=self._faults + growth(samples),
        )

    # One cycle

    async def _cycle(self) -> None:
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._cycle_hours * 3600
        kinds = (
            self._broker_away, self._broker_silent, self._broker_cuts, self._device_silent, self._plant_away,
            self._disk_full, self._clock_steps, self._reload,
        )  # fmt: skip
        order = list(kinds)
        self._chance.shuffle(order)
        share_s = (self._cycle_hours * 3600 - QUIET_S) / len(order)
        for outage in order:
            until_s = loop.time() + share_s
            await self._once(outage, share_s * self._chance.uniform(0.2, 0.6))
            await asyncio.sleep(max(0.0, until_s - loop.time()))
        await asyncio.sleep(max(0.0, end_s - loop.time()))

    async def _once(self, outage: Callable[[float], Awaitable[None]], for_s: float) -> None:
        name = outage.__name__.removeprefix("_").replace("_", " ")
        self._outages[name] = self._outages.get(name, 0) + 1
        await outage(for_s)

    async def _broker_away(self, for_s: float) -> None:
        network = self.site.subscriber.network
        network.is_listening = False
        _reset(network)
        await asyncio.sleep(for_s)
        network.is_listening = True

    async def _broker_silent(self, for_s: float) -> None:
        """Half open: nothing it says or takes, until the keep-alive finds out; then no answer to anybody."""
        network = self.site.subscriber.network
        network.is_reachable = False
        for wire in network.wires:
            wire.is_stalled = True
        await asyncio.sleep(for_s)
        network.is_reachable = True
        _reset(network)

    async def _broker_cuts(self, for_s: float) -> None:
        for _ in range(10):
            _reset(self.site.subscriber.network)
            await asyncio.sleep(for_s / 10)

    async def _device_silent(self, for_s: float) -> None:
        self.site.plant.silent.add(1)
        await asyncio.sleep(for_s)
        self.site.plant.silent.clear()

    async def _plant_away(self, for_s: float) -> None:
        network = self.site.plant.network
        network.is_listening = False
        _reset(network)
        await asyncio.sleep(for_s)
        network.is_listening = True

    async def _disk_full(self, for_s: float) -> None:
        self.site.disk.is_full = True
        await asyncio.sleep(for_s)
        self.site.disk.is_full = False

    async def _clock_steps(self, for_s: float) -> None:
        clock = self.site.clock
        was_ns = clock.step_ns
        clock.set_wall_ns(self._chance.choice((10**12, clock.wall_ns() + 24 * HOUR_NS)))
        clock.synchronised = False
        await asyncio.sleep(for_s)
        clock.step_ns, clock.synchronised = was_ns, True

    async def _reload(self, for_s: float) -> None:
        """A tag comes, or goes."""
        self._is_extended = not self._is_extended
        path = self.site.config / "gateway.yaml"
        text = path.read_text()
        extra = '      extra: {at: "hr:3", type: uint16}\n'
        text = (
            text.replace("devices:\n", f"{extra}devices:\n") if self._is_extended else text.replace(extra, "")
        )
        path.write_text(text)
        self.site.gateway._ask_reload()
        await asyncio.sleep(for_s)
        if self.site.gateway.site.version == self._version:
            self._faults.append("a reload changed nothing")
        self._version = self.site.gateway.site.version

    _version = ""

    # What there is

    def _sample(self, hour: float) -> Sample:
        site, gateway = self.site, self.site.gateway
        loop: Any = asyncio.get_running_loop()
        status = gateway.status.status()
        (uplink,) = status.uplinks
        if uplink.dropped_total or uplink.quarantined_total or status.journal.damaged_total:
            self._faults.append(f"hour {hour}: dropped, set aside or damaged: {uplink} {status.journal}")
        if not gateway.status.health().ok:
            self._faults.append(f"hour {hour}: {gateway.status.health().reasons}")
        if any(gateway.crashes.values()):
            self._faults.append(f"hour {hour}: crashed: {dict(gateway.crashes)}")
        counts = {
            "tasks": len(asyncio.all_tasks()),
            "timers": len([timer for timer in loop._scheduled if not timer.cancelled()]),
            "open files": len(list(Path("/proc/self/fd").iterdir())),
            "journal_bytes": site.journal_bytes(),
            "journal files": len(list((site.state / "journal").rglob("*"))),
            "audit_bytes": sum(path.stat().st_size for path in (site.state / "audit").glob("*")),
            "backlog": uplink.backlog,
            "in flight": uplink.in_flight,
        }
        for family in gateway.status.families():
            if family.kind == "gauge":
                for sample in family.samples:
                    counts[sys.intern(f"{family.name} {sample.labels}")] = int(sample.value)
        del status, uplink
        gc.collect()
        counts["objects"] = len(gc.get_objects())
        counts["blocks"] = sys.getallocatedblocks()
        return Sample(hour, counts)


def _reset(network: Network) -> None:
    for wire in network.wires:
        if wire.is_open:
            wire.reset()


def soak(months: float, *, seed: int, say: Callable[[str], None]) -> Soaked:
    """A cycle a day; devices are read every 10 s."""
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # nothing is synced: memory is enough
    with tempfile.TemporaryDirectory(prefix="gateway-soak-", dir=where) as folder:
        cycles = max(WARM_UP + 3, round(months * 30))
        return Soak(Path(folder), seed=seed, cycle_hours=24, scan="10s").run(cycles=cycles, say=say)
