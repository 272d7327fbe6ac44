"""A wire between two processes that can be held, cut and frayed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from tests.system.waiting import LOOPBACK, Background


class Wire:
    """A TCP path that can be cut, held and refused: connections to `port` go on to `target`.

    `cut_after`: how many bytes a connection may carry before it is cut (both ways together), None for any.
    """

    def __init__(self, background: Background, target: int) -> None:
        self.port = 0
        self.cut_after: Callable[[], int | None] = lambda: None
        self.cuts = 0
        self.connections: Final[set[_Side]] = set()
        self.accepted = 0
        self.target = target
        self._background = background
        self.is_held = False  # what the target says is kept back
        self.is_swallowing = False  # nothing gets through, either way
        self._server: asyncio.Server | None = None
        background.at_end.append(self.stop)

    def start(self) -> None:
        """Listen, on the same port as before where there was one."""

        async def listen() -> None:
            self._server = await self._background.loop.create_server(
                lambda: _Side(self, None), LOOPBACK, self.port
            )
            self.port = self._server.sockets[0].getsockname()[1]

        self._background.call(listen())

    def hold(self) -> None:
        """From now on nothing that the target says comes through; what we say does."""
        self._background.do(lambda: setattr(self, "is_held", True))

    def release(self) -> None:
        """Cut what was held and let the next connection through."""
        self._background.do(lambda: setattr(self, "is_held", False))
        self.cut()

    def cut(self) -> None:
        """Reset every connection now."""
        self._background.do(lambda: [side.cut() for side in tuple(self.connections)])

    def stop(self) -> None:
        """Refuse connections, and cut those there are."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
                await asyncio.sleep(0)
            for side in tuple(self.connections):
                side.cut()

        self._background.call(close())


class _Side(asyncio.Protocol):
    """One end of a connection through a wire."""

    def __init__(self, wire: Wire, other: _Side | None) -> None:
        self._wire = wire
        self._other = other
        self._is_far = other is not None
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.left: int | None = None  # bytes until the cut, kept at the near end
        self._connecting: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        wire = self._wire
        if self._is_far:
            assert self._other is not None
            self._other.adopt(self)
            return
        wire.connections.add(self)
        wire.accepted += 1
        self.left = wire.cut_after()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Side(self._wire, self), LOOPBACK, self._wire.target)
        except OSError:
            self.abort()

    def adopt(self, far: _Side) -> None:
        self._other = far
        far.write(b"".join(self._early))
        self._early.clear()
        if self._transport is None:
            far.abort()

    def data_received(self, data: bytes) -> None:
        near = self._other if self._is_far else self
        assert near is not None
        if self._wire.is_swallowing or (self._is_far and self._wire.is_held):
            return
        if near.left is not None:
            if len(data) >= near.left:  # the first half of a packet goes out, then the path breaks
                self._forward(data[: near.left])
                self._wire.cuts += 1
                near.cut()
                return
            near.left -= len(data)
        self._forward(data)

    def _forward(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def cut(self) -> None:
        self.abort()
        if self._other is not None:
            self._other.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._wire.connections.discard(self)
        if self._other is not None:
            self._other.abort()


def seeded_cuts(seed: int, *, low: int, high: int) -> Callable[[], int]:
    """Where each connection breaks, in bytes."""
    chance = random.Random(seed)
    return lambda: chance.randint(low, high)


# Who listens
