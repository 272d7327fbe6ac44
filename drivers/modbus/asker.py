"""One question at a time over a connection of its own: for tools, not for scans."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, Self

import msgspec

from drivers.modbus.link import ModbusLink
from drivers.modbus.transport import AnySession, make_opener, make_session
from drivers.modbus.wire.client import Event
from gateway.aio.pump import Pump, Traffic, explain
from gateway.core.clock import Clock
from gateway.core.errors import LinkError
from gateway.core.session import Address

OPEN_S_MIN: Final = 3.0
_CLOSE_S: Final = 1.0


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """One question and what came of it. `sent` and `received`: all bytes on the wire meanwhile."""

    event: Event
    sent: bytes
    received: bytes
    took_ns: int


class _Traced:
    """A session that keeps what passes."""

    def __init__(self, session: AnySession) -> None:
        self.inner: Final = session
        self.sent_bytes = b""
        self.received_bytes = b""

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Any]:
        self.received_bytes += data
        return list(self.inner.receive(data, now_ns, source))

    def to_send(self, now_ns: int) -> list[bytes]:
        out = self.inner.to_send(now_ns)
        self.sent_bytes += b"".join(out)
        return out

    def sent(self, now_ns: int) -> list[Any]:
        return list(self.inner.sent(now_ns))

    def lost(self, now_ns: int) -> list[Any]:
        return list(self.inner.lost(now_ns))

    def deadline_ns(self) -> int | None:
        return self.inner.deadline_ns()

    def on_deadline(self, now_ns: int) -> list[Any]:
        return list(self.inner.on_deadline(now_ns))


class Asker:
    """Opens a link, asks, opens it again where it was lost. The pump's owner.

    Use as a context: `async with Asker(link, clock=clock) as asker`. Entering raises `LinkError` in words.
    """

    def __init__(self, link: ModbusLink, *, clock: Clock, tls: ssl.SSLContext | None = None) -> None:
        self.session: Final = _Traced(make_session(link))
        self.traffic: Final = Traffic()
        self._link: Final = link
        self._clock: Final = clock
        self._opener: Final = make_opener(link, clock, tls)
        self._pump: Pump | None = None
        self._answer: asyncio.Future[Event] | None = None

    @property
    def address(self) -> str:
        """Where it leads, for people."""
        return self._opener.address

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the link once. Raises `LinkError` with what is wrong."""
        limit_s = max(OPEN_S_MIN, self._link.timeout_ns / 1e9)
        try:
            async with asyncio.timeout(limit_s):
                self._pump = await self._opener.open(self._new_pump)
        except TimeoutError:
            raise LinkError(f"{self.address}: no {self._opener.awaited} within {limit_s:g} s") from None
        except OSError as error:
            raise LinkError(f"{self.address}: {explain(error)}") from error

    async def close(self) -> None:
        """Close it."""
        pump, self._pump = self._pump, None
        if pump is not None:
            await pump.close("done", timeout_s=_CLOSE_S)
        self._opener.release()

    async def ask(self, unit: int, pdu: bytes, *, timeout_ns: int) -> Exchange:
        """Send one request and wait for its outcome; a lost link is opened again first.

        Raises `LinkError` where it cannot be, `LocalProtocolError` for a PDU that is none.
        """
        if self._pump is None or self._pump.lost.done():
            await self.open()
        pump = self._pump
        assert pump is not None
        session, clock = self.session, self._clock
        session.sent_bytes = session.received_bytes = b""
        began_ns = clock.monotonic_ns()
        self._answer = asyncio.get_running_loop().create_future()
        session.inner.request(unit, pdu, token=self._answer, timeout_ns=timeout_ns, now_ns=began_ns)
        pump.flush()
        try:
            event = await self._answer
        finally:
            self._answer = None
        if pump.error is not None:
            raise pump.error
        took_ns = clock.monotonic_ns() - began_ns
        return Exchange(
            event=event, sent=session.sent_bytes, received=session.received_bytes, took_ns=took_ns
        )

    def _new_pump(self) -> Pump:
        loop = asyncio.get_running_loop()
        return Pump(self, clock=self._clock, loop=loop, traffic=self.traffic)

    # gateway.aio.pump.Owner

    def link_up(self) -> None:
        """Nothing is asked yet."""

    def link_events(self, events: list[Any]) -> None:
        """The outcome, if it is that of the question under way."""
        for event in events:
            if event.token is self._answer and self._answer is not None:
                with contextlib.suppress(asyncio.InvalidStateError):
                    self._answer.set_result(event)

    def link_closing(self) -> None:
        """Nothing is said last."""

    def link_down(self, reason: str) -> None:
        """`Lost` events follow."""
