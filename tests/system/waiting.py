"""A loop in a thread of its own, and looking at something until it is so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

ROOT: Final = Path(__file__).parents[2]
LOOPBACK: Final = "127.0.0.1"
READY_S: Final = 20.0  # a start on a busy machine
STOP_S: Final = 5.0  # what the gateway promises for SIGTERM
LOOK_S: Final = 0.01  # between two looks at something outside this process
T = TypeVar("T")


def until(true: Callable[[], T], what: str, *, within_s: float = READY_S) -> T:
    """The first truthy result of `true`, asked again until it comes; fails with `what` after `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(LOOK_S)


class Background:
    """An event loop on a thread of its own, for servers that must answer while a test waits."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test servers", daemon=True)
        self.at_end: Final[list[Callable[[], None]]] = []  # what lives on it and must be closed before it
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], *, within_s: float = READY_S) -> T:
        """The result of `work`, done there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within_s)

    def launch(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """`work`, done there without waiting."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def do(self, work: Callable[[], T]) -> T:
        """The result of a plain call, made there."""

        async def now() -> T:
            return work()

        return self.call(now())

    def close(self) -> None:
        """End everything on it."""
        while self.at_end:
            self.at_end.pop()()

        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(READY_S)
        self.loop.close()


# The plant
