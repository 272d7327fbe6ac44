"""A simulated link at work: its units behind a listener, a serial port or a pseudo-terminal."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from drivers.modbus.link import LINES, TransportName
from drivers.modbus.simulator.faults import Faults
from drivers.modbus.simulator.session import FaultySession
from drivers.modbus.simulator.station import FaultyResponder, FaultyStation, Gate, Seen
from drivers.modbus.wire.line import ADDRESS_MAX, Mode, Timing
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.line_server_session import LineServerSession
from drivers.modbus.wire.model import DataModel
from drivers.modbus.wire.pdu_identity import Identity
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession, UnknownUnit
from gateway.aio.endpoint import Endpoint
from gateway.aio.listener import Limits, Listener, Over
from gateway.aio.pty import PtyOpener
from gateway.aio.serial import SerialOpener
from gateway.aio.tcp import socket_address
from gateway.core.clock import Clock
from gateway.core.errors import LinkError
from gateway.core.line import SerialLine

_OVER: Final = {"tls": Over.TLS, "udp": Over.UDP}  # all other networks are TCP


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a link is served. Port 0 is any free one; without host and serial port: a pseudo-terminal."""

    transport: TransportName
    host: str = ""
    port: int = 0
    serial_port: str = ""
    line: SerialLine = SerialLine(19_200, 8, "E", 1)
    tls: ssl.SSLContext | None = None

    @property
    def is_network(self) -> bool:
        """Whether clients connect; otherwise there is a line."""
        return bool(self.host)

    @property
    def mode(self) -> Mode | None:
        """Of a line; None for tcp, tls and udp."""
        if self.transport not in LINES:
            return None
        return Mode.ASCII if self.transport.startswith("ascii") else Mode.RTU


class Units(DataModel, Protocol):
    """What is served: a data model that knows its units."""

    @property
    def units(self) -> Any:
        """Their numbers; a mapping will do."""
        ...


class _Owner:
    """The pump's owner of one session; nothing that happens needs an answer from here."""

    def __init__(self, session: FaultySession, ready: Callable[[], None] = lambda: None) -> None:
        """`ready` is called when the link is open for the first time."""
        self.session: Final = session
        self.was_up = False
        self._ready: Final = ready

    def link_up(self) -> None:
        """Nothing is said first."""
        if not self.was_up:
            self.was_up = True
            self._ready()

    def link_events(self, events: list[Any]) -> None:
        """The gate has seen them."""

    def link_closing(self) -> None:
        """Nothing is said last."""

    def link_down(self, reason: str) -> None:
        """Clients come and go."""


class Server:
    """Serves one data model on one place until cancelled."""

    def __init__(
        self,
        name: str,
        units: Units,
        place: Place,
        *,
        faults: Faults,
        clock: Clock,
        seen: Seen = lambda _unit, _request, _answer: None,
        unknown_unit: UnknownUnit = UnknownUnit.EXCEPTION,
        connections_max: int = 64,
    ) -> None:
        self.name: Final = name
        self.place: Final = place
        self.units: Final = units
        self._faults: Final = faults
        self._clock: Final = clock
        self._unknown_unit: Final = unknown_unit
        self._gate: Final = Gate(name, faults, seen)
        identity = Identity(
            {0: b"Edge Gateway", 1: b"simulator", 2: b"1", 4: name.encode()[:100]},
            server_id=b"\x01\xffsimulator",
        )
        self._responder: Final = Responder(units, identity=identity)
        self._listener: Listener | None = None
        self._pty: PtyOpener | None = None
        self._limits: Final = Limits(connections_max=connections_max)

    @property
    def address(self) -> str:
        """Where it can be reached: `127.0.0.1:5020`, `/dev/pts/3`."""
        if self._pty is not None:
            return self._pty.name
        if not self.place.is_network:
            return self.place.serial_port
        bound = None if self._listener is None else self._listener.bound
        return socket_address(*(bound or (self.place.host, self.place.port)))

    async def serve(self, ready: Callable[[], None]) -> None:
        """Until cancelled; `ready` is called once clients can come. Raises `LinkError` where they cannot."""
        if self.place.is_network:
            await self._listen(ready)
        else:
            await self._keep_line(ready)

    async def _listen(self, ready: Callable[[], None]) -> None:
        place = self.place
        listener = Listener(
            self.name,
            place.host,
            place.port,
            accept=lambda connection: _Owner(self.session(connection.drop)),
            clock=self._clock,
            over=_OVER.get(place.transport, Over.TCP),
            tls=place.tls,
            limits=self._limits,
        )
        self._listener = listener
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(listener.serve())
            await asyncio.sleep(0)  # by then it is bound, or knows why not
            if listener.bound is None:
                serving.cancel()
            else:
                ready()
        raise LinkError(listener.last_error)  # it would listen until it is cancelled

    async def _keep_line(self, ready: Callable[[], None]) -> None:
        place = self.place
        opener: SerialOpener | PtyOpener
        if place.serial_port:
            opener = SerialOpener(place.serial_port, place.line, clock=self._clock)
        else:
            opener = self._pty = PtyOpener(clock=self._clock, character_ns=place.line.character_ns)
        endpoint = Endpoint(self.name, opener, clock=self._clock)
        owner = _Owner(self.session(endpoint.drop), ready)
        try:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(endpoint.keep(owner))
                while not owner.was_up and not endpoint.last_error:  # noqa: ASYNC110 - the endpoint tells nobody
                    await asyncio.sleep(0.01)
                if not owner.was_up:
                    keeping.cancel()
            raise LinkError(f"{place.serial_port}: {endpoint.last_error}")  # as above
        finally:
            if self._pty is not None:
                self._pty.close()

    def session(self, close: Callable[[str], None]) -> FaultySession:
        """What speaks to one client, or on the line. `close(reason)` drops its connection."""
        place, mode = self.place, self.place.mode
        if mode is None:
            inner: ServerSession | LineServerSession = ServerSession(
                FaultyResponder(self._responder, self._gate),
                unknown_unit=self._unknown_unit,
                has_datagrams=place.transport == "udp",
            )
            return FaultySession(inner, link=self.name, mode=None, faults=self._faults, close=close)
        timing = Timing.over_tcp()
        if not place.is_network:
            bits = place.line.character_bits
            timing = Timing.serial(mode, baud=place.line.baud, character_bits=bits)
        own = [unit for unit in self.units.units if 0 < unit <= ADDRESS_MAX]
        line = LineServer(self._responder)
        inner = LineServerSession(FaultyStation(line, self._gate), units=own, mode=mode, timing=timing)
        return FaultySession(inner, link=self.name, mode=mode, faults=self._faults, close=close)
