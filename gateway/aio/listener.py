"""Takes connections over TCP, TLS and UDP, and pumps a session for each; who may not come is refused by name.

The server end of a serial line is not here: it is one port with one session, kept by an `Endpoint`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import msgspec

from gateway.aio.endpoint import STOPPING, Backoff
from gateway.aio.pump import Owner, Pump, Traffic, explain
from gateway.aio.tcp import socket_address
from gateway.aio.udp_server import DatagramServer
from gateway.core.bounded import Bound, Level
from gateway.core.clock import Clock
from gateway.core.errors import InvariantError

_log = logging.getLogger("gateway.listener")

CONNECTIONS_MAX: Final = 64
BACKLOG_MAX: Final = 128  # connections that the kernel holds for us, listen(2)
_HANDSHAKE_S: Final = 10.0  # what a TLS client gets for it
_CLOSE_TIMEOUT_S: Final = 1.0
_EXHAUSTED_WAIT_S: Final = 0.5  # no file descriptors: others may give some back
_LOOKS_A_LIMIT: Final = 4  # an idle connection is noticed at most a quarter of the limit too late

CONNECTIONS: Final = Bound(
    noun="server",
    unit="connections",
    what="clients connected to a server of the gateway, handshakes under way too",
    beyond="one more is refused; with `full: drop_idle` the one silent longest has to go",
    lost="refused",
    labels=("server",),
)

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Over(enum.Enum):
    """What the connections travel on."""

    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"


class Full(enum.Enum):
    """Who goes when there is no room for one more."""

    REFUSE = "refuse"  # the new one
    DROP_IDLE = "drop_idle"  # the one that was silent longest


class Refusal(enum.Enum):
    """Why somebody was not let in."""

    NOT_ALLOWED = "not in allow"
    FULL = "too many connections"
    HANDSHAKE = "TLS handshake failed"
    OWNER = "refused by the protocol"
    EXHAUSTED = "no file descriptors left"


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end. `certificate`: DER, verified, where there is TLS."""

    host: str
    port: int
    certificate: bytes | None = None

    def __str__(self) -> str:
        return socket_address(self.host, self.port)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How many, how long idle (0: for ever), and from where (empty: from anywhere)."""

    connections_max: int = CONNECTIONS_MAX
    full: Full = Full.REFUSE
    idle_ns: int = 0
    allow: tuple[Network, ...] = ()


class Connection:
    """One peer's connection, as its owner sees it."""

    def __init__(self, peer: Peer, now_ns: int) -> None:
        self.peer: Final = peer
        self.traffic: Final = Traffic()
        self.heard_ns = now_ns  # as of the last look
        self._pump: Pump | None = None
        self._heard_bytes = 0

    def adopt(self, pump: Pump) -> None:
        """The pump that carries it."""
        self._pump = pump

    def wake(self) -> None:
        """The session has something to send."""
        if self._pump is not None:
            self._pump.wake()

    def flush(self) -> None:
        """The session has something urgent to send."""
        if self._pump is not None:
            self._pump.flush()

    def drop(self, reason: str) -> None:
        """Close it at once."""
        if self._pump is not None:
            self._pump.drop(reason)

    async def close(self) -> None:
        """Send what is queued, then close."""
        if self._pump is not None:
            await self._pump.close(STOPPING, timeout_s=_CLOSE_TIMEOUT_S)

    def look(self, now_ns: int) -> None:
        """Note whether something was heard since the last look."""
        if self.traffic.bytes_received != self._heard_bytes:
            self._heard_bytes = self.traffic.bytes_received
            self.heard_ns = now_ns


Accept: TypeAlias = Callable[[Connection], Owner | str]
"""Who owns a new connection, with a session of its own; or why it is refused."""


class Listener:
    """Listens on `host:port` until cancelled; binding is tried again until it works."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        accept: Accept,
        clock: Clock,
        over: Over = Over.TCP,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """`host`: an address of this machine; `::` for all, `0.0.0.0` for all of IPv4. `port` 0: any free.

        `tls` with `Over.TLS`: from `gateway.aio.tls.server_context`.
        """
        if (over is Over.TLS) is not (tls is not None):
            raise InvariantError(f"listener {name}: a TLS context goes with {Over.TLS}, and only with it")
        self.name: Final = name
        self.connections: Final[set[Connection]] = set()
        self.refused: Final = dict.fromkeys(Refusal, 0)
        self.accepted = 0
        self.idle = 0  # closed for being idle
        self.crashes = 0  # connections that a fault of ours ended
        self.last_error = ""
        self.bound: tuple[str, int] | None = None  # where it listens now
        self._host: Final = host
        self._port: Final = port
        self._accept: Final = accept
        self._clock: Final = clock
        self._over: Final = over
        self._tls: Final = tls
        self.limits: Final = limits or Limits()
        self._backoff: Final = backoff or Backoff(first_s=0.5, limit_s=30.0)
        self._said: set[tuple[Refusal, str]] = set()
        self._greeted: set[socket.socket] = set()  # handshakes under way; they count as connections

    @property
    def address(self) -> str:
        """Where it listens, or is to."""
        return socket_address(*(self.bound or (self._host, self._port)))

    def levels(self) -> tuple[Level, ...]:
        """How many are connected, how many may be, and how many were refused, for whatever reason."""
        depth = len(self.connections) + len(self._greeted)
        return (CONNECTIONS.at(depth, self.limits.connections_max, sum(self.refused.values())),)

    async def serve(self) -> None:
        """Take connections until cancelled; then every session sends what it has queued, and closes."""
        near = await self._bind()
        try:
            async with asyncio.TaskGroup() as group:
                if self.limits.idle_ns:
                    group.create_task(self._watch_idle())
                if self._over is Over.UDP:
                    server = DatagramServer(near, asyncio.get_running_loop(), self._new_datagram_peer)
                    group.create_task(server.serve())
                else:
                    await self._take(near, group)
        finally:
            self.bound = None
            near.close()
            await asyncio.gather(*(one.close() for one in list(self.connections)))

    async def _bind(self) -> socket.socket:
        was_said = False
        while True:
            try:
                near = _bound(self._host, self._port, self._over)
            except OSError as error:
                self.last_error = (
                    f"cannot listen on {socket_address(self._host, self._port)}: {explain(error)}"
                )
                if not was_said:
                    was_said = True
                    facts = {"listener": self.name, "reason": self.last_error}
                    _log.error("cannot listen, trying again until it works", extra=facts)
                await asyncio.sleep(self._backoff.wait_s())
                continue
            self.bound = near.getsockname()[:2]
            self.last_error = ""
            _log.info("listening", extra={"listener": self.name, "address": socket_address(*self.bound)})
            return near

    async def _take(self, near: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                far, address = await loop.sock_accept(near)
            except OSError as error:
                self._refuse(Refusal.EXHAUSTED, "", explain(error))
                await asyncio.sleep(_EXHAUSTED_WAIT_S)
                continue
            peer = Peer(_plain(address[0]), address[1])
            if self._may_enter(peer):
                group.create_task(self._greet(far, peer))
            else:
                far.close()

    async def _greet(self, far: socket.socket, peer: Peer) -> None:
        loop = asyncio.get_running_loop()
        self._greeted.add(far)

        def enter(transport: asyncio.BaseTransport) -> Pump | None:
            self._greeted.discard(far)  # from here on it is a connection, or refused
            return self._enter(peer, transport)

        try:
            await loop.connect_accepted_socket(
                lambda: _Gate(enter),
                far,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_S if self._tls else None,
            )
        except (OSError, ssl.SSLError) as error:  # TimeoutError of the handshake, too
            far.close()
            self._refuse(Refusal.HANDSHAKE, peer.host, explain(error))
        finally:
            self._greeted.discard(far)

    def _may_enter(self, peer: Peer) -> bool:
        limits = self.limits
        if limits.allow and not _is_in(peer.host, limits.allow):
            self._refuse(Refusal.NOT_ALLOWED, peer.host, "")
            return False
        if len(self.connections) + len(self._greeted) < limits.connections_max:
            return True
        if limits.full is Full.DROP_IDLE and self.connections:
            now_ns = self._clock.monotonic_ns()
            for one in self.connections:
                one.look(now_ns)
            idlest = min(self.connections, key=lambda one: one.heard_ns)
            self.connections.discard(idlest)
            idlest.drop("room was needed for another, and it was silent longest")
            return True
        self._refuse(Refusal.FULL, peer.host, f"{limits.connections_max} are there")
        return False

    def _enter(self, peer: Peer, transport: asyncio.BaseTransport) -> Pump | None:
        """A peer that was let in gets an owner and a pump; None where the owner refuses it."""
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            peer = Peer(peer.host, peer.port, tls.getpeercert(binary_form=True))
        connection = Connection(peer, self._clock.monotonic_ns())
        owner = self._accept(connection)
        if isinstance(owner, str):
            self._refuse(Refusal.OWNER, peer.host, owner)
            return None
        pump = Pump(owner, clock=self._clock, loop=asyncio.get_running_loop(), traffic=connection.traffic)
        connection.adopt(pump)
        self.connections.add(connection)
        self.accepted += 1
        pump.lost.add_done_callback(lambda _lost: self._leave(connection, pump))
        return pump

    def _leave(self, connection: Connection, pump: Pump) -> None:
        self.connections.discard(connection)
        if pump.error is not None:
            self.crashes += 1
            facts = {"listener": self.name, "peer": str(connection.peer)}
            _log.error("a fault of ours ended a connection", extra=facts, exc_info=pump.error)

    def _new_datagram_peer(self, address: tuple[str, int], transport: asyncio.BaseTransport) -> Pump | None:
        peer = Peer(_plain(address[0]), address[1])
        return self._enter(peer, transport) if self._may_enter(peer) else None

    async def _watch_idle(self) -> None:
        idle_ns = self.limits.idle_ns
        while True:
            await asyncio.sleep(idle_ns / _LOOKS_A_LIMIT / 1e9)
            now_ns = self._clock.monotonic_ns()
            for one in list(self.connections):
                one.look(now_ns)
                if now_ns - one.heard_ns >= idle_ns:
                    self.idle += 1
                    one.drop(f"nothing was heard for {idle_ns / 1e9:g} s")

    def _refuse(self, why: Refusal, host: str, more: str) -> None:
        """Count it, and say it once for each host."""
        self.refused[why] += 1
        if (why, host) not in self._said and len(self._said) < BACKLOG_MAX:
            self._said.add((why, host))
            facts = {"listener": self.name, "peer": host, "reason": f"{why.value}{more and f': {more}'}"}
            _log.warning("connection refused, said once for this peer", extra=facts)


class _Gate(asyncio.Protocol):
    """What a connection has until it is known who owns it."""

    def __init__(self, enter: Callable[[asyncio.BaseTransport], Pump | None]) -> None:
        self._enter = enter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open, and its handshake done."""
        pump = self._enter(transport)
        if pump is None:
            transport.abort()  # type: ignore[attr-defined]  # every stream transport has it
            return
        transport.set_protocol(pump)
        pump.connection_made(transport)


def _bound(host: str, port: int, over: Over) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if over is Over.UDP:
        near = socket.socket(family, socket.SOCK_DGRAM)
    else:
        near = socket.socket(family, socket.SOCK_STREAM)
    try:
        near.setblocking(False)
        if over is not Over.UDP:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            near.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        near.bind((host, port))
        if over is not Over.UDP:
            near.listen(BACKLOG_MAX)
    except BaseException:
        near.close()
        raise
    return near


def _plain(host: str) -> str:
    """An IPv4 address that came in over an IPv6 socket, as everybody writes it."""
    mapped = None
    with contextlib.suppress(ValueError):
        mapped = ipaddress.IPv6Address(host.partition("%")[0]).ipv4_mapped
    return host if mapped is None else str(mapped)


def _is_in(host: str, networks: Iterable[Network]) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return any(address in network for network in networks)
