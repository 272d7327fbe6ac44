"""Two clocks: one for people, one for timers."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """The time, as an argument. Timers use `monotonic_ns`; a step of the wall clock moves nothing."""

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC. May step, either way."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never step, counted while the machine runs."""
        ...

    def is_synchronised(self) -> bool:
        """Whether the operating system says that the wall clock follows a reference."""
        ...
