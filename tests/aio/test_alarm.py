"""One timer for a deadline that moves: on time, once, and without a turn of the loop in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.aio.alarm import Alarm
from gateway.aio.clock import SystemClock
from gateway.aio.loop import loop_factory
from tests.aio.memory import LoopClock
from tests.virtual_time import now_ns, run

MS = 1_000_000


@given(st.lists(st.tuples(st.integers(0, 50), st.none() | st.integers(0, 100)), max_size=12))
def test_fires_at_the_deadline_that_was_set_last(moves: list[tuple[int, int | None]]) -> None:
    fired: list[int] = []

    async def main() -> None:
        alarm = Alarm(loop=asyncio.get_running_loop(), clock=LoopClock(), fire=fired.append)
        expected: list[int] = []
        due: int | None = None
        for wait_ms, ahead_ms in moves:
            until = now_ns() + wait_ms * MS
            if due is not None and due < until:
                expected.append(due)
                due = None
            elif due == until:  # at the same moment: the order of the two timers decides
                due = None
                expected.append(until)
            await asyncio.sleep(wait_ms / 1e3)
            await asyncio.sleep(0)
            due = None if ahead_ms is None else now_ns() + ahead_ms * MS
            alarm.set(due)
        await asyncio.sleep(1)
        if due is not None:
            expected.append(due)
        assert [(at - 1000 * 10**9) // MS for at in fired] == [(at - 1000 * 10**9) // MS for at in expected]

    run(main())


def test_cancelled_it_never_fires() -> None:
    async def main() -> None:
        fired: list[int] = []
        alarm = Alarm(loop=asyncio.get_running_loop(), clock=LoopClock(), fire=fired.append)
        alarm.set(now_ns() + 10)
        alarm.cancel()
        await asyncio.sleep(1)
        assert fired == []
        alarm.set(now_ns() + 10)
        await asyncio.sleep(1)
        assert len(fired) == 1

    run(main())


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()], ids=["asyncio", "fastest"])
def test_it_does_not_look_again_and_again(
    factory: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop's timers are early by parts of a millisecond: that must not become a busy wait."""
    looks = 0
    look = Alarm._look

    def counted(alarm: Alarm) -> None:
        nonlocal looks
        looks += 1
        look(alarm)

    monkeypatch.setattr(Alarm, "_look", counted)

    async def main() -> None:
        clock, loop = SystemClock(), asyncio.get_running_loop()
        done = loop.create_future()
        left = 20

        def fire(fired_ns: int) -> None:
            nonlocal left
            assert fired_ns >= clock.monotonic_ns() - 10**9
            left -= 1
            if left:
                alarm.set(clock.monotonic_ns() + 2_300_000)
            else:
                done.set_result(None)

        alarm = Alarm(loop=loop, clock=clock, fire=fire)
        alarm.set(clock.monotonic_ns() + 2_300_000)
        await done

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert looks <= 60
