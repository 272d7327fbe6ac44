"""Tasks crash alone and are started again; what cannot be ends the group; the end comes in time."""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from gateway.aio.supervisor import Supervisor
from gateway.core.errors import InvariantError
from tests.virtual_time import now_ns, run

S = 1_000_000_000


def test_a_crash_leaves_the_others_running_and_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    starts: list[int] = []
    beats = 0

    async def crashes() -> None:
        starts.append(now_ns())
        raise ZeroDivisionError

    async def lives() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(1)
            beats += 1

    async def main() -> None:
        async with Supervisor() as supervisor:
            supervisor.spawn("crashes", crashes)
            supervisor.spawn("lives", lives)
            await asyncio.sleep(600.5)
            assert supervisor.crashes == {"crashes": len(starts)}

    run(main())
    assert beats == 600
    waits = [(later - sooner) / S for sooner, later in pairwise(starts)]
    assert len(waits) > 10
    assert 0.25 <= waits[0] <= 0.5
    assert all(30 <= wait <= 60 for wait in waits[8:])
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert "ZeroDivisionError" in caplog.text


def test_what_ran_for_long_starts_again_soon() -> None:
    starts: list[int] = []

    async def crashes_each_hour() -> None:
        starts.append(now_ns())
        await asyncio.sleep(3600)
        raise ZeroDivisionError

    async def main() -> None:
        async with Supervisor() as supervisor:
            supervisor.spawn("hourly", crashes_each_hour)
            await asyncio.sleep(20 * 3600)

    run(main())
    waits = [(later - sooner) / S - 3600 for sooner, later in pairwise(starts)]
    assert max(waits) <= 0.51


def test_an_invariant_that_does_not_hold_ends_the_group() -> None:
    ended: list[str] = []

    async def lives() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("lives")

    async def breaks() -> None:
        await asyncio.sleep(1)
        raise InvariantError("two and two are five")

    async def main() -> None:
        async with Supervisor() as supervisor:
            supervisor.spawn("lives", lives)
            supervisor.spawn("breaks", breaks)
            await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    assert caught.group_contains(InvariantError, match="two and two")
    assert ended == ["lives"]


def test_launched_work_crashes_alone_too() -> None:
    async def crashes() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        async with Supervisor() as supervisor:
            supervisor.launch("command", crashes())
            await asyncio.sleep(1)
            assert supervisor.crashes == {"command": 1}

    run(main())


def test_stop_waits_for_the_end_of_one_and_frees_its_name() -> None:
    async def main() -> None:
        ended: list[int] = []

        async def slow_to_end() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                await asyncio.sleep(1)
                ended.append(now_ns())

        async with Supervisor() as supervisor:
            supervisor.spawn("link", slow_to_end)
            await asyncio.sleep(1)
            await supervisor.stop("link")
            assert ended == [now_ns()]
            await asyncio.sleep(0)
            supervisor.spawn("link", slow_to_end)
            with pytest.raises(InvariantError):
                supervisor.spawn("link", slow_to_end)
            await supervisor.stop("nobody")

    run(main())


def test_a_crash_while_stopped_is_not_started_again() -> None:
    starts = 0

    async def crashes_when_stopped() -> None:
        nonlocal starts
        starts += 1
        try:
            await asyncio.sleep(3600)
        finally:
            raise ZeroDivisionError

    async def main() -> None:
        async with Supervisor() as supervisor:
            supervisor.spawn("link", crashes_when_stopped)
            await asyncio.sleep(1)
            await supervisor.stop("link")
            await asyncio.sleep(600)

    run(main())
    assert starts == 1


def test_the_end_waits_neither_for_tasks_nor_for_launched_work() -> None:
    ended: list[str] = []

    async def forever(name: str) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(name)

    async def main() -> None:
        async with Supervisor() as supervisor:
            supervisor.spawn("task", lambda: forever("task"))
            supervisor.launch("command", forever("command"))
            await asyncio.sleep(1)
            before = now_ns()
        assert now_ns() == before

    run(main())
    assert sorted(ended) == ["command", "task"]
