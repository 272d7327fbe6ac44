"""Blocking work off the event loop, on a thread of its own, one piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One named thread. `run` waits its turn behind what was asked before."""

    def __init__(self, name: str) -> None:
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

    def close(self) -> None:
        """Wait for what is under way; nothing more is taken."""
        self._pool.shutdown(wait=True, cancel_futures=True)
