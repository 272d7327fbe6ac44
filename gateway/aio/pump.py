"""Moves bytes between one sans-IO session and one transport."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

from gateway.aio.alarm import Alarm
from gateway.core.clock import Clock
from gateway.core.errors import RemoteProtocolError
from gateway.core.session import Session

_WRITE_HIGH_BYTES: Final = 256 * 1024  # above it the session keeps what it has
_DRAIN_LOOK_S: Final = 0.002


class Owner(Protocol):
    """Who owns a session: told of the link's fate and of what the session understood."""

    @property
    def session(self) -> Session[Any]:
        """The session to pump. Outlives the link."""
        ...

    def link_up(self) -> None:
        """The link is open; nothing was sent yet."""
        ...

    def link_events(self, events: list[Any]) -> None:
        """What came in, in order. May ask the session for more; what it queued goes out right after."""
        ...

    def link_closing(self) -> None:
        """We are about to close the link: the last chance to queue a farewell."""
        ...

    def link_down(self, reason: str) -> None:
        """The link is gone; the events of `session.lost` follow."""
        ...


class Traffic:
    """Counters of one link, over all its connections."""

    __slots__ = ("bytes_received", "bytes_sent", "connects", "losses", "protocol_errors")

    def __init__(self) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.connects = 0
        self.losses = 0
        self.protocol_errors = 0


class Pump(asyncio.Protocol):
    """One connection's life: from `connection_made` to `connection_lost`."""

    def __init__(
        self, owner: Owner, *, clock: Clock, loop: asyncio.AbstractEventLoop, traffic: Traffic
    ) -> None:
        self.lost: asyncio.Future[str] = loop.create_future()
        self._owner = owner
        self._session = owner.session
        self._clock = clock
        self._loop = loop
        self._traffic = traffic
        self._alarm = Alarm(loop=loop, clock=clock, fire=self._on_deadline)
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_wake_due = False
        self._is_drain_due = False
        self._reason = ""

    # What the owner calls

    def wake(self) -> None:
        """The session has something to send: do so in this turn of the loop, once for all callers."""
        if not self._is_wake_due:
            self._is_wake_due = True
            self._loop.call_soon(self._flush)

    def drop(self, reason: str) -> None:
        """Close the link at once because of `reason`."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    async def close(self, reason: str, *, timeout_s: float) -> None:
        """Send what the session still queued, then close; abort when the peer takes it too slowly."""
        if self._transport is None:
            return
        self._owner.link_closing()
        self._flush()
        self._reason = self._reason or reason
        transport = self._transport
        if transport is not None:
            transport.close()
            await asyncio.wait([self.lost], timeout=timeout_s)
            transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link is open."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports only duck-type
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES, low=_WRITE_HIGH_BYTES // 4)  # type: ignore[union-attr]  # as above
        self._traffic.connects += 1
        self._owner.link_up()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        self._traffic.bytes_received += len(data)
        try:
            events = self._session.receive(data, self._clock.monotonic_ns())
        except RemoteProtocolError as error:
            self._traffic.protocol_errors += 1
            self.drop(str(error))
            return
        if events:
            self._owner.link_events(events)
        self._flush()

    def eof_received(self) -> bool:
        """The peer closed its side: so do we."""
        self._reason = self._reason or "closed by peer"
        return False

    def pause_writing(self) -> None:
        """The peer takes less than we send."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The peer caught up."""
        self._is_paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The link is gone."""
        self._alarm.cancel()
        self._transport = None
        self._traffic.losses += 1
        reason = self._reason or (f"{exc}" if exc else "closed")
        self._owner.link_down(reason)
        events = self._session.lost(self._clock.monotonic_ns())
        if events:
            self._owner.link_events(events)
        if not self.lost.done():
            self.lost.set_result(reason)

    # Inside

    def _flush(self) -> None:
        self._is_wake_due = False
        transport = self._transport
        if transport is None or self._is_paused:
            return
        now = self._clock.monotonic_ns()
        chunks = self._session.to_send(now)
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            self._traffic.bytes_sent += len(data)
            transport.write(data)
            if not self._is_drain_due:
                self._is_drain_due = True
                self._loop.call_soon(self._look_drained)
        self._alarm.set(self._session.deadline_ns())

    def _look_drained(self) -> None:
        transport = self._transport
        if transport is None:
            self._is_drain_due = False
            return
        if transport.get_write_buffer_size():
            self._loop.call_later(_DRAIN_LOOK_S, self._look_drained)
            return
        self._is_drain_due = False
        events = self._session.sent(self._clock.monotonic_ns())
        if events:
            self._owner.link_events(events)
            self._flush()

    def _on_deadline(self, now_ns: int) -> None:
        if self._transport is None:
            return
        try:
            events = self._session.on_deadline(now_ns)
        except RemoteProtocolError as error:
            self._traffic.protocol_errors += 1
            self.drop(str(error))
            return
        if events:
            self._owner.link_events(events)
        self._flush()
