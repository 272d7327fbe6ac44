"""One timer for a thing that knows its own next deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from gateway.core.clock import Clock

_COARSE_TICK_NS: Final = 1_000_000  # uvloop counts its timers in whole milliseconds and may be early by one


class Alarm:
    """Calls `fire(now_ns)` once `deadline_ns` has come. Moving a deadline later costs nothing.

    A timer that is set for an earlier time than needed is left alone and looks again when it fires, so
    a session whose deadline moves with every frame does not touch the loop's timer heap.
    """

    __slots__ = ("_armed_ns", "_clock", "_deadline_ns", "_fire", "_handle", "_loop", "_tick_ns")

    def __init__(self, *, loop: asyncio.AbstractEventLoop, clock: Clock, fire: Callable[[int], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._fire = fire
        self._handle: asyncio.TimerHandle | None = None
        self._armed_ns = 0
        self._deadline_ns: int | None = None
        self._tick_ns = 1 if isinstance(loop, asyncio.BaseEventLoop) else _COARSE_TICK_NS

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
        tick_ns = self._tick_ns
        # Whole ticks, rounded up: rounded down, the last fraction of one would be spent in looking again.
        ticks = max(0, -(-(deadline_ns - self._clock.monotonic_ns()) // tick_ns))
        self._handle = self._loop.call_later(ticks * tick_ns / 1e9, self._look)

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
