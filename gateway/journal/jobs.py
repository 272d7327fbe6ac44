"""Long file work of a journal that nobody waits for, one piece at a time for each lane."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from gateway.disk.writer import Notify

T = TypeVar("T")


class Writing(enum.Enum):
    """Who does the file work."""

    THREAD = "thread"  # one thread for each lane, and one more while a backlog is made thinner
    CALLER = "caller"  # whoever calls `commit`: tests and virtual time


class Jobs:
    """`submit`, `step` and `close` are for the owner's thread."""

    def __init__(self, writing: Writing, notify: Notify) -> None:
        self._writing = writing
        self._notify = notify
        self._waiting: deque[Callable[[], None]] = deque()
        self._threads: list[threading.Thread] = []
        self._is_closing = False

    def is_closing(self) -> bool:
        """Whether work that can be done again later should end now. From any thread."""
        return self._is_closing

    def submit(
        self, work: Callable[[], T], *, done: Callable[[T], None], failed: Callable[[Exception], None]
    ) -> None:
        """Carry out `work` and call exactly one of the callbacks on the owner's thread."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - the owner is told, whatever it is
                reason = error
                self._notify(lambda: failed(reason))
            else:
                self._notify(lambda: done(result))

        if self._writing is Writing.CALLER:
            self._waiting.append(run)
            return
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=run, name="journal-thin", daemon=True)
        self._threads.append(thread)
        thread.start()

    def step(self) -> None:
        """Do what waits, where the caller does the file work."""
        for _ in range(len(self._waiting)):
            self._waiting.popleft()()

    def close(self) -> None:
        """Wait for what is under way, which hears of it by `is_closing`."""
        self._is_closing = True
        self.step()
        for thread in self._threads:
            thread.join()
