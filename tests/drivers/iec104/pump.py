"""The smallest thing that moves a session's octets over a socket, and c104 at its other end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from drivers.iec104.wire.events import Event
from drivers.iec104.wire.session import Session

PEER = Path(__file__).parent / "c104_peer.py"
PATIENCE_S = 15.0


class Pump:
    """One connection: octets in, events to `heard` and `answer`, octets out, timers."""

    def __init__(
        self,
        session: Session,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.session = session
        self.heard: list[Event] = []
        self._reader, self._writer, self._answer = reader, writer, answer
        self._news = asyncio.Event()
        self.closed = asyncio.Event()

    async def run(self) -> None:
        """Until the link ends."""
        self.session.connected(time.monotonic_ns())
        self.flush()
        while True:
            deadline_ns = self.session.deadline_ns()
            left_s = None if deadline_ns is None else max(0.0, (deadline_ns - time.monotonic_ns()) / 1e9)
            try:
                data = await asyncio.wait_for(self._reader.read(65_536), left_s)
            except TimeoutError:
                self._take(self.session.on_deadline(time.monotonic_ns()))
            else:
                if not data:
                    self._take(self.session.lost(time.monotonic_ns()))
                    return
                self._take(self.session.receive(data, time.monotonic_ns()))
            self.flush()

    def flush(self) -> None:
        """Write what is to be sent."""
        self._writer.writelines(self.session.to_send(time.monotonic_ns()))

    async def close(self) -> None:
        """End the link."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        self.closed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for news that make it so. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    def _take(self, events: list[Event]) -> None:
        for event in events:
            self.heard.append(event)
            self._answer(event)
        self._news.set()


class Peer:
    """c104 in a process of its own, with what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    async def listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said.append(json.loads(line))
            self._news.set()

    def order(self, words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n".encode())

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for words that make it so. Raises TimeoutError."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def done(self, words: str) -> bool:
        """Give an order to a client and wait for how it went."""
        self.order(words)
        await self.until(lambda: any(one.get("order") == words for one in self.said))
        return bool(
            self.said.pop(next(n for n, one in enumerate(self.said) if one.get("order") == words))["done"]
        )


@contextlib.asynccontextmanager
async def c104(role: str, port: int) -> AsyncIterator[Peer]:
    """A running c104 `server` or `client`, ended on the way out."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PEER), role, str(port), stdin=pipe, stdout=pipe, env={**os.environ, "TZ": "UTC"}
    )
    peer = Peer(process)
    listening = asyncio.create_task(peer.listen())
    try:
        await peer.until(lambda: bool(peer.said))
        yield peer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening
