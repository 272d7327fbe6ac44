"""One timer for a thing that knows its own next deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.clock import Clock


class Alarm:
    """Calls `fire(now_ns)` once `deadline_ns` has come. Moving a deadline later costs nothing.

    A timer that is set for an earlier time than needed is left alone and looks again when it fires, so
    a session whose deadline moves with every frame does not touch the loop's timer heap.
    """

    __slots__ = ("_armed_ns", "_clock", "_deadline_ns", "_fire", "_handle", "_loop")

    def __init__(self, *, loop: asyncio.AbstractEventLoop, clock: Clock, fire: Callable[[int], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None
        self._armed_ns = 0
        self._deadline_ns: int | None = None

    def set(self, deadline_ns: int | None) -> None:
        """Fire at `deadline_ns` of the monotonic clock; None for never."""
        self._deadline_ns = deadline_ns
        if deadline_ns is None or (self._handle is not None and self._armed_ns <= deadline_ns):
            return
        self._arm(deadline_ns)

    def cancel(self) -> None:
        """Never fire again unless set again."""
        self._deadline_ns = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, deadline_ns: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_ns = deadline_ns
        delay_ns = max(0, deadline_ns - self._clock.monotonic_ns())
        self._handle = self._loop.call_later(delay_ns / 1e9, self._look)

    def _look(self) -> None:
        self._handle = None
        deadline = self._deadline_ns
        if deadline is None:
            return
        now = self._clock.monotonic_ns()
        if now < deadline:
            self._arm(deadline)
            return
        self._deadline_ns = None
        self._fire(now)
