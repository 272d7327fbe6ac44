"""A link that is kept open: connect, pump, lose, wait, connect again."""

from __future__ import annotations

import asyncio
import enum
import logging
import random
from collections.abc import Callable
from typing import Final, Protocol

from gateway.aio.pump import Owner, Pump, Traffic, explain, unsent_level
from gateway.core.bounded import Level
from gateway.core.clock import Clock

_log = logging.getLogger("gateway.link")

_STABLE_NS: Final = 5_000_000_000  # a connection that lived this long starts the backoff anew
_CLOSE_TIMEOUT_S: Final = 1.0
STOPPING: Final = "stopping"


class LinkState(enum.Enum):
    """What a link is doing."""

    DOWN = "down"
    CONNECTING = "connecting"
    UP = "up"


class Back(enum.Enum):
    """When a lost link counts as back, for people."""

    OPEN = "open"  # as soon as the peer takes the connection
    HEARD = "heard"  # with the first bytes that come in: opening alone proves nothing
    OWNER = "owner"  # when the owner calls `settled`: a peer that only refuses is not back


class Backoff:
    """Growing waits with full jitter in their upper half, capped. Seconds."""

    def __init__(self, *, first_s: float, limit_s: float, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._limit_s = limit_s
        self._rng = rng or random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._next_s = first_s

    def reset(self) -> None:
        """The last attempt was a success."""
        self._next_s = self._first_s

    def wait_s(self) -> float:
        """How long to wait before the next attempt."""
        wait = self._next_s
        self._next_s = min(self._limit_s, self._next_s * 2)
        return wait * self._rng.uniform(0.5, 1.0)


class Opener(Protocol):
    """Opens one kind of link, again and again: `TcpOpener`, `UdpOpener`, `SerialOpener`."""

    @property
    def address(self) -> str:
        """Where it leads, for people."""
        ...

    @property
    def awaited(self) -> str:
        """What is missing while `open` waits, as in "no connection within 5 s"."""
        ...

    async def open(self, new_pump: Callable[[], Pump]) -> Pump:
        """A pump with an open transport; each attempt takes a new one, and abandons it where it fails.

        Raises `OSError` with what is wrong. May be cancelled.
        """
        ...

    def release(self) -> None:
        """Nobody opens again for now: what is under way beside the loop is closed when it comes."""
        ...


class Endpoint:
    """Keeps one link open for one owner. Logs once when lost, once when back."""

    def __init__(
        self,
        name: str,
        opener: Opener,
        *,
        clock: Clock,
        open_timeout_s: float = 5.0,
        backoff: Backoff | None = None,
        back: Back = Back.OPEN,
    ) -> None:
        self.name: Final = name
        self.address: Final = opener.address
        self.traffic: Final = Traffic()
        self.state = LinkState.DOWN
        self.last_error = ""
        self._opener: Final = opener
        self._clock = clock
        self._open_timeout_s = open_timeout_s
        self._backoff = backoff or Backoff(first_s=0.25, limit_s=30.0)
        self._pump: Pump | None = None
        self._back: Final = back
        self._was_down = False  # whether the loss was logged already
        self._keeper: asyncio.Task[object] | None = None
        self._failure: Exception | None = None

    def settled(self) -> None:
        """The link does its work: say so. With `Back.OWNER` the owner calls it once the peer took us."""
        message = "link is back" if self._was_down else "link is up"
        _log.info(message, extra={"link": self.name, "address": self.address})
        self._was_down = False

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (unsent_level(self._pump),)

    def wake(self) -> None:
        """The session has something to send."""
        if self._pump is not None:
            self._pump.wake()

    def flush(self) -> None:
        """The session has something urgent to send."""
        if self._pump is not None:
            self._pump.flush()

    def expect(self, size_bytes: int) -> None:
        """So many bytes will come for certain: do not wake for less. 1 for anything."""
        if self._pump is not None:
            self._pump.expect(size_bytes)

    def drop(self, reason: str) -> None:
        """Close the current connection; a new one is made after the backoff."""
        if self._pump is not None:
            self._pump.drop(reason)

    def fail(self, error: Exception) -> None:
        """A fault of the owner outside of the pump's calls, a timer's say: `keep` ends and raises it."""
        if self._keeper is not None and self._failure is None:
            self._failure = error
            self._keeper.cancel()

    async def keep(self, owner: Owner) -> None:
        """Open and pump until cancelled; on cancellation what the session queued is still sent.

        Raises what the owner or its session raised, and what `fail` was given.
        """
        keeper = self._begin()
        try:
            while True:
                opened_ns = await self._connect_and_pump(owner)
                if opened_ns is not None and self._clock.monotonic_ns() - opened_ns > _STABLE_NS:
                    self._backoff.reset()
                await asyncio.sleep(self._backoff.wait_s())
        except asyncio.CancelledError:
            if self._failure is None or keeper.uncancel():
                raise
            raise self._failure from None
        finally:
            self._keeper = None
            try:
                if self._pump is not None:
                    await self._pump.close(STOPPING, timeout_s=_CLOSE_TIMEOUT_S)
            finally:
                self._pump = None
                self.state = LinkState.DOWN
                self._opener.release()

    def _begin(self) -> asyncio.Task[object]:
        keeper = asyncio.current_task()
        assert keeper is not None
        self._keeper = keeper
        self._failure = None
        return keeper

    async def _connect_and_pump(self, owner: Owner) -> int | None:
        self.state = LinkState.CONNECTING
        try:
            async with asyncio.timeout(self._open_timeout_s):
                pump = await self._opener.open(lambda: self._new_pump(owner))
        except TimeoutError:
            self._note_down(f"no {self._opener.awaited} within {self._open_timeout_s:g} s")
            return None
        except OSError as error:
            self._note_down(explain(error))
            return None
        self.state = LinkState.UP
        if self._back is Back.OPEN:
            self.settled()
        opened_ns = self._clock.monotonic_ns()
        reason = await asyncio.shield(pump.lost)
        self._pump = None
        self._note_down(reason)
        if pump.error is not None:
            raise pump.error
        return opened_ns

    def _new_pump(self, owner: Owner) -> Pump:
        return Pump(
            owner,
            clock=self._clock,
            loop=asyncio.get_running_loop(),
            traffic=self.traffic,
            made=self._adopt,
            heard=self.settled if self._back is Back.HEARD else None,
        )

    def _adopt(self, pump: Pump) -> None:
        self._pump = pump

    def _note_down(self, reason: str) -> None:
        self._pump = None
        self.state = LinkState.DOWN
        self.last_error = reason
        if not self._was_down:
            self._was_down = True
            _log.warning(
                "link is down, trying again until it is back",
                extra={"link": self.name, "address": self.address, "reason": reason},
            )
