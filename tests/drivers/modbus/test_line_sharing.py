"""32 slaves on one RTU wire at 115,200 baud, three of them dead: what the living lose by it.

The driver, its endpoint and its session are those of production; the wire is simulated in virtual time with
the time of every character, the silence between frames, and slaves that take a while to answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from drivers.modbus.assemble import make_driver
from drivers.modbus.wire import rtu
from drivers.modbus.wire.client import Counters as WireCounters
from drivers.modbus.wire.line import Mode, Timing
from drivers.modbus.wire.line_client import LineClientSession
from drivers.modbus.wire.rtu import Framer, Hears
from tests.aio.memory import LoopClock, Network, Wire
from tests.drivers.modbus.rig import Shown, parts_of
from tests.virtual_time import now_ns, run

S = 1_000_000_000
TIMING = Timing.serial(Mode.RTU, baud=115_200, character_bits=11)
TURNAROUND_NS = 3_000_000  # what a slave takes before its answer
FIFO = 16  # characters that a port hands over at once
LIVING, DEAD = range(1, 30), range(30, 33)
SETTLED_NS = 10 * S  # since the start: until then the driver finds out who is dead
START_NS = 1000 * S  # of virtual time


class SharedWire:
    """29 living slaves, and dead ones until `back_ns`. Whoever speaks into another's frame fails the test."""

    def __init__(self, back_ns: int = 1 << 63) -> None:
        self.back_ns = back_ns
        self.first_ns: dict[int, int] = {}  # when each slave answered first, after `back_ns`
        self.network = Network(self._on_data)
        self.answered: Counter[int] = Counter()
        self.asked: Counter[int] = Counter()
        self._free_ns = 0
        self._framer = Framer(Hears.ALL, WireCounters(), own=range(256))

    def _on_data(self, wire: Wire, data: bytes) -> None:
        frames: list[rtu.Frame] = []
        self._framer.feed(data, frames)
        ((unit, request),) = frames
        now = now_ns()
        assert now >= self._free_ns + TIMING.silence_ns, "sent into another's frame, or without the silence"
        since_ns = now - START_NS
        self.asked[unit] += 1
        heard_ns = now + len(data) * TIMING.character_ns
        self._free_ns = heard_ns
        if unit in DEAD and since_ns < self.back_ns:
            return
        if since_ns >= self.back_ns:
            self.first_ns.setdefault(unit, since_ns)
        count = int.from_bytes(request[3:5], "big")
        answer = rtu.encode(unit, bytes((request[0], 2 * count)) + bytes(2 * count))
        start_ns = heard_ns + TURNAROUND_NS
        for at in range(0, len(answer), FIFO):
            piece = answer[at : at + FIFO]
            end_ns = start_ns + (at + len(piece)) * TIMING.character_ns
            wire.feed_later(piece, (end_ns - now) / 1e9)
        self._free_ns = start_ns + len(answer) * TIMING.character_ns
        self.answered[unit] += since_ns >= SETTLED_NS


def polled(units: list[int], *, every: str, seconds: int, back_ns: int = 1 << 63) -> SharedWire:
    """What happens on a wire with these slaves, ten registers each."""
    text = f"scan: {{normal: {every}}}\nlinks:\n  plc: {{driver: modbus, host: 10.0.0.1}}\ndevices:\n"
    for unit in units:
        tags = ", ".join(f"t{at}: {{at: 'hr:{at}', type: uint16}}" for at in range(10))
        text += f"  d{unit}: {{link: plc, unit: {unit}, tags: {{{tags}}}}}\n"
    parts = parts_of(text)
    assert parts.problems == ()
    shared = SharedWire(back_ns)

    async def main() -> None:
        shared.network.install()
        driver = make_driver(parts, sink=Shown(), clock=LoopClock())
        driver.session = LineClientSession(mode=Mode.RTU, timing=TIMING)  # type: ignore[misc,assignment]  # a Final
        task = asyncio.get_running_loop().create_task(driver.run())
        await asyncio.sleep(seconds)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        counters = driver.session.counters
        assert (counters.check_errors, counters.late, counters.mismatched) == (0, 0, 0)

    run(main())
    return shared


@pytest.mark.parametrize("every", ["500ms", "continuous"])
def test_three_dead_slaves_of_32_take_less_than_a_twentieth_from_the_living(every: str) -> None:
    # 100 s hold a whole turn of asking the dead once more: each of them once.
    undisturbed = polled([*LIVING], every=every, seconds=110)
    shared = polled([*LIVING, *DEAD], every=every, seconds=110)
    for unit in LIVING:
        assert shared.answered[unit] >= 0.95 * undisturbed.answered[unit] > 0, unit
    assert all(3 <= shared.asked[unit] <= 4 for unit in DEAD)


def test_when_one_comes_back_the_others_are_tried_at_once() -> None:
    shared = polled([*LIVING, *DEAD], every="1s", seconds=130, back_ns=30 * S)
    back = [shared.first_ns[unit] for unit in DEAD]
    assert max(back) <= 30 * S + 91 * S
    assert max(back) - min(back) <= S
