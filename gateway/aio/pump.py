"""Moves bytes between one sans-IO session and one transport."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from gateway.aio.alarm import Alarm
from gateway.core.bounded import Bound, Level
from gateway.core.clock import Clock
from gateway.core.errors import RemoteProtocolError
from gateway.core.session import Session

_WRITE_HIGH_BYTES: Final = 256 * 1024  # above it the session keeps what it has
UNSENT: Final = Bound(
    noun="link_unsent",
    unit="bytes",
    what="given to a link, not yet taken by the operating system",
    beyond="the session keeps what it has",
    lost="",
    labels=("link",),
)
_DRAIN_LOOK_S: Final = 0.002
_UNACKNOWLEDGED_MS: Final = 20_000  # TCP_USER_TIMEOUT, tcp(7): a peer that vanished without a word is noticed


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


def unsent_level(pump: Pump | None) -> Level:
    """Of a link that may be closed."""
    return UNSENT.at(0 if pump is None else pump.unsent_bytes, _WRITE_HIGH_BYTES)


class Pump(asyncio.Protocol):
    """One connection's life: from `connection_made` to `connection_lost`.

    What the owner or the session raises, other than `RemoteProtocolError`, ends the link and is left in
    `error`: whoever awaits `lost` raises it, so that a fault shows and does not leave a link half alive.
    """

    def __init__(
        self,
        owner: Owner,
        *,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        traffic: Traffic,
        made: Callable[[Pump], None] = lambda _pump: None,
        heard: Callable[[], None] | None = None,
    ) -> None:
        """`made` is called before the owner hears of the open link, `heard` with the first bytes."""
        self.lost: asyncio.Future[str] = loop.create_future()
        self.error: Exception | None = None
        self._owner = owner
        self._session = owner.session
        self._is_drain_looked_for = not getattr(owner.session, "ignores_sent", False)
        self._clock = clock
        self._loop = loop
        self._traffic = traffic
        self._alarm = Alarm(loop=loop, clock=clock, fire=self._on_deadline)
        self._made = made
        self._heard = heard
        self._transport: asyncio.Transport | None = None
        self._is_datagram = False
        self._drain_wait_s: Callable[[], float] = self._buffer_wait_s
        self._socket: socket.socket | None = None  # the same one as the transport's, for its options
        self._expected_bytes = 1
        self._is_paused = False
        self._is_wake_due = False
        self._is_drain_due = False
        self._reason = ""

    # What the owner calls

    def wake(self) -> None:
        """The session has something to send: do so in this turn of the loop, once for all callers."""
        if not self._is_wake_due:
            self._is_wake_due = True
            self._loop.call_soon(self._on_wake)

    def expect(self, size_bytes: int) -> None:
        """Do not wake for less: so much will come for certain (SO_RCVLOWAT, socket(7)). 1 for anything."""
        if self._socket is not None and size_bytes != self._expected_bytes:
            self._expected_bytes = size_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size_bytes)

    def flush(self) -> None:
        """As `wake`, at once: for what cannot wait for the other work of this turn."""
        self._flush()

    def drop(self, reason: str) -> None:
        """Close the link at once because of `reason`."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def abandon(self, reason: str) -> None:
        """The attempt to connect was given up: what is open is closed, what is not never will be."""
        self.drop(reason)
        self.connection_lost(None)  # uvloop does not say so where the link was made just now

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
            try:
                await asyncio.wait([self.lost], timeout=timeout_s)
            finally:
                transport.abort()
            await asyncio.wait([self.lost], timeout=timeout_s)  # the owner is told before this returns

    @property
    def unsent_bytes(self) -> int:
        """Given to the transport and not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The link is open."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        if self._reason:  # dropped while it was being made
            transport.abort()  # type: ignore[attr-defined]  # uvloop's transports only duck-type
            return
        self._transport = transport  # type: ignore[assignment]  # as above
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES, low=_WRITE_HIGH_BYTES // 4)  # type: ignore[union-attr]  # as above
        _notice_silence(transport)
        plain = transport.get_extra_info("socket")
        if plain is not None:
            self._socket = socket.socket(fileno=os.dup(plain.fileno()))
        self._is_datagram = bool(transport.get_extra_info("is_datagram"))
        self._drain_wait_s = transport.get_extra_info("drain_wait_s") or self._buffer_wait_s
        self._traffic.connects += 1
        try:
            self._made(self)
            self._owner.link_up()
            self._flush()
        except Exception as error:  # noqa: BLE001 - raised where the link is kept
            self._crash(error)

    def data_received(self, data: bytes) -> None:
        """Bytes came in."""
        self._traffic.bytes_received += len(data)
        try:
            if self._heard is not None:
                self._heard()
                self._heard = None
            events = self._session.receive(data, self._clock.monotonic_ns())
            if events:
                self._owner.link_events(events)
            self._flush()
        except RemoteProtocolError as error:
            self._traffic.protocol_errors += 1
            self.drop(str(error))
        except Exception as error:  # noqa: BLE001 - raised where the link is kept
            self._crash(error)

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
        self._on_wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The link is gone."""
        self._alarm.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        reason = self._reason or (explain(exc) if exc else "closed")
        if self._transport is not None:  # else the owner never heard of it
            self._transport = None
            self._traffic.losses += 1
            self._tell_lost(reason)
        if not self.lost.done():
            self.lost.set_result(reason)

    # Inside

    def _tell_lost(self, reason: str) -> None:
        try:
            try:
                self._owner.link_down(reason)
            finally:
                events = self._session.lost(self._clock.monotonic_ns())
                if events:
                    self._owner.link_events(events)
        except Exception as error:  # noqa: BLE001 - raised where the link is kept
            self._crash(error)

    def _crash(self, error: Exception) -> None:
        """A fault of ours: end the link, for what the owner knows of it is no longer sure."""
        self.error = self.error or error
        self.drop(f"a fault of the gateway itself: {type(error).__name__}: {error}")

    def _on_wake(self) -> None:
        try:
            self._flush()
        except Exception as error:  # noqa: BLE001 - raised where the link is kept
            self._crash(error)

    def _flush(self) -> None:
        self._is_wake_due = False
        transport = self._transport
        if transport is None:
            return
        if not self._is_paused:
            chunks = self._session.to_send(self._clock.monotonic_ns())
            if chunks:
                if self._is_datagram:
                    for chunk in chunks:
                        self._traffic.bytes_sent += len(chunk)
                        transport.write(chunk)
                else:
                    data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                    self._traffic.bytes_sent += len(data)
                    transport.write(data)
                if self._is_drain_looked_for and not self._is_drain_due:
                    self._is_drain_due = True
                    self._loop.call_soon(self._look_drained)
        self._alarm.set(self._session.deadline_ns())  # also of a peer that takes nothing

    def _look_drained(self) -> None:
        transport = self._transport
        if transport is None:
            self._is_drain_due = False
            return
        if wait_s := self._drain_wait_s():
            self._loop.call_later(wait_s, self._look_drained)
            return
        self._is_drain_due = False
        try:
            events = self._session.sent(self._clock.monotonic_ns())
            if events:
                self._owner.link_events(events)
                self._flush()
        except Exception as error:  # noqa: BLE001 - raised where the link is kept
            self._crash(error)

    def _buffer_wait_s(self) -> float:
        return _DRAIN_LOOK_S if self._transport is not None and self._transport.get_write_buffer_size() else 0

    def _on_deadline(self, now_ns: int) -> None:
        if self._transport is None:
            return
        try:
            events = self._session.on_deadline(now_ns)
            if events:
                self._owner.link_events(events)
            self._flush()
        except RemoteProtocolError as error:
            self._traffic.protocol_errors += 1
            self.drop(str(error))
        except Exception as error:  # noqa: BLE001 - raised where the link is kept
            self._crash(error)


def _notice_silence(transport: asyncio.BaseTransport) -> None:
    peer = transport.get_extra_info("socket")
    if peer is not None and peer.family in {socket.AF_INET, socket.AF_INET6}:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)


_PLAIN_WORDS: Final[dict[int, str]] = {
    errno.ECONNREFUSED: "connection refused: nothing listens there",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.ECONNRESET: "connection reset by peer",
    errno.EPIPE: "connection closed by peer",
    errno.ETIMEDOUT: "the peer vanished: nothing sent was acknowledged in time",
}


def explain(error: BaseException) -> str:
    """An operating system error in one line for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"the host's name cannot be looked up: {error.strerror}"
    if isinstance(error, OSError) and error.errno in _PLAIN_WORDS:
        return _PLAIN_WORDS[error.errno]
    return str(error) or type(error).__name__
