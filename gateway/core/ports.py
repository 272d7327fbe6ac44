"""What rooms offer each other: protocols that others implement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from gateway.core.batch import Batch
from gateway.core.command import Command, CommandResult
from gateway.core.point import Value


class Receipt(Protocol):
    """The promise that goes with an accepted batch."""

    def is_committed(self) -> bool:
        """Whether it is on disk."""
        ...

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back once it is on disk; at once if it is."""
        ...


class Sink(Protocol):
    """Where drivers put what they read. Called from the event loop, never blocks."""

    def put(self, batch: Batch) -> Receipt:
        """Number, show, journal and send a batch."""
        ...

    def is_blocked(self) -> bool:
        """Whether storage pushes back: readers pause until it no longer does; nothing else may be put."""
        ...

    def is_hurried(self) -> bool:
        """Whether a command is on its way: a reader without a period lets it go first."""
        ...

    def pause_ns(self) -> int:
        """How long a reader without a period waits before it reads again; 0 while uplinks can follow."""
        ...


class CommandDoor(Protocol):
    """Where a protocol's server takes what its clients want written: the gatekeeper is behind it."""

    def offline_reason(self, device: str) -> str:
        """Why a device cannot be written to now; empty while it can."""
        ...

    async def command(self, device: str, tag: str, value: Value, *, issuer: str) -> CommandResult:
        """Judge, write down and carry out one command; the result is final."""
        ...


class CommandTarget(Protocol):
    """A driver that can be told to write."""

    async def execute(self, command: Command, on_sent: Callable[[], None]) -> CommandResult:
        """Carry out one command; the result is final. Never raises for a device's refusal.

        `on_sent` is called at most once, when the device has confirmed and a read-back follows.
        """
        ...
