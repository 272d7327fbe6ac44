"""A network in memory: connections that a test opens, refuses, stalls, cuts and speaks on, by script."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.virtual_time import now_ns


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that tells nobody; in virtual time looking costs nothing."""
    while not condition():  # noqa: ASYNC110 - there is nothing to wait on
        await asyncio.sleep(0.01)


class LoopClock:
    """Monotonic time of the virtual loop; a wall clock that tests step."""

    def __init__(self) -> None:
        self.step_ns = 0

    def monotonic_ns(self) -> int:
        return now_ns()

    def wall_ns(self) -> int:
        return now_ns() + 1_700_000_000_000_000_000 + self.step_ns

    def is_synchronised(self) -> bool:
        return True


class Wire(asyncio.Transport):
    """Our end of one connection; `sent` is what we wrote, below it what the peer does."""

    def __init__(self, protocol: asyncio.Protocol, on_data: Callable[[Wire, bytes], None]) -> None:
        super().__init__()
        self.protocol = protocol
        self.sent: list[bytes] = []
        self.is_stalled = False  # the peer takes nothing
        self.is_open = True
        self.closed_by = ""
        self._on_data = on_data
        self._waiting = bytearray()
        self._high = 1 << 16
        self._low = 1 << 14
        self._is_closing = False
        self._is_paused = False
        self._loop = asyncio.get_running_loop()

    # What the protocol under test calls

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high, self._low = high or 0, low or 0

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def is_closing(self) -> bool:
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closed_by == "reset":  # `connection_lost` is on its way: asyncio drops what comes before it
            return
        assert not self._is_closing, "written to a closing transport"
        if self.is_stalled:
            self._waiting += data
            if len(self._waiting) > self._high and not self._is_paused:
                self._is_paused = True
                self.protocol.pause_writing()
            return
        self.sent.append(bytes(data))
        self._on_data(self, bytes(data))

    def close(self) -> None:
        self._is_closing = True
        if not self._waiting:
            self._lose(None, "close")

    def abort(self) -> None:
        self._is_closing = True
        self._lose(None, "abort")

    # What the peer does

    def feed(self, data: bytes) -> None:
        """Bytes arrive in this turn of the loop."""
        self._loop.call_soon(self._arrive, data)

    def feed_later(self, data: bytes, delay_s: float) -> None:
        """Bytes arrive later."""
        self._loop.call_later(delay_s, self._arrive, data)

    def take(self) -> None:
        """The peer takes all that waited."""
        self.is_stalled = False
        data, self._waiting = bytes(self._waiting), bytearray()
        if data:
            self.sent.append(data)
            self._on_data(self, data)
        if self._is_paused:
            self._is_paused = False
            self.protocol.resume_writing()
        if self._is_closing:
            self._lose(None, "close")

    def close_by_peer(self) -> None:
        """FIN."""
        if not self.protocol.eof_received():
            self.close()

    def reset(self) -> None:
        """RST."""
        self._is_closing = True
        self._lose(ConnectionResetError(104, "Connection reset by peer"), "reset")

    def _arrive(self, data: bytes) -> None:
        if self.is_open and not self._is_closing:
            self.protocol.data_received(data)

    def _lose(self, error: Exception | None, by: str) -> None:
        if self.is_open:
            self.is_open = False
            self.closed_by = by
            self._loop.call_soon(self.protocol.connection_lost, error)


class Network:
    """What answers `create_connection`. `is_listening` False refuses, `is_reachable` False never answers."""

    def __init__(self, on_data: Callable[[Wire, bytes], None] = lambda _wire, _data: None) -> None:
        self.is_listening = True
        self.is_reachable = True
        self.wires: list[Wire] = []
        self.attempts_ns: list[int] = []
        self._on_data = on_data

    @property
    def wire(self) -> Wire:
        """The newest connection."""
        return self.wires[-1]

    def install(self) -> None:
        """Stand in for the running loop's network."""
        asyncio.get_running_loop().create_connection = self._connect  # type: ignore[method-assign,assignment]  # the loop's own method is stood in for

    async def _connect(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int, **_more: object
    ) -> tuple[Wire, asyncio.Protocol]:
        loop = asyncio.get_running_loop()
        self.attempts_ns.append(now_ns())
        if not self.is_reachable:
            await loop.create_future()
        if not self.is_listening:
            raise ConnectionRefusedError(111, "Connect call failed")
        protocol = factory()
        wire = Wire(protocol, self._on_data)
        self.wires.append(wire)
        made = loop.create_future()

        def make() -> None:
            protocol.connection_made(wire)
            if not made.done():
                made.set_result(None)

        loop.call_soon(make)
        try:
            await made
        except BaseException:
            wire.close()
            raise
        return wire, protocol
