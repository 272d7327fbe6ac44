"""Blocking work off the event loop, on a thread of its own, one piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from gateway.core.bounded import Bound, Level

T = TypeVar("T")


JOBS: Final = Bound(
    noun="thread_waiting",
    unit="jobs",
    what="work for a thread: reading the journal, writing the audit file, reading the configuration",
    beyond="cannot be: so many are all that may be asked for at once",
    lost="",
    labels=("thread",),
)


class Worker:
    """One named thread. `run` waits its turn behind what was asked before."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work()`, computed on the thread; its exception is raised here."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def submit(
        self, work: Callable[[], T], *, done: Callable[[T], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Like `run` without a task: exactly one of the callbacks is called, on the loop."""
        loop = asyncio.get_running_loop()

        def carry_out() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - handed to the loop, which decides
                loop.call_soon_threadsafe(failed, error)
            else:
                loop.call_soon_threadsafe(done, result)

        self._pool.submit(carry_out)

    def level(self, jobs_max: int) -> Level:
        """How many wait; `jobs_max`: how many those who ask may have asked for."""
        return JOBS.at(self._pool._work_queue.qsize(), jobs_max, 0, self._name)  # noqa: SLF001 - it has no other

    def close(self) -> None:
        """Wait for what is under way; nothing more is taken."""
        self._pool.shutdown(wait=True, cancel_futures=True)
