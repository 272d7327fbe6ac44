"""A Modbus server in front of the gateway's points: it shows the last values, and writes become commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from drivers.modbus.decode import Decoder
from drivers.modbus.role import role_of
from drivers.modbus.sheet import Look, Served, Sheet, Write
from drivers.modbus.wire.line_server_session import LineServerSession
from drivers.modbus.wire.model import Later
from drivers.modbus.wire.pdu import ExceptionCode, Table, pack_bits, unpack_bits
from drivers.modbus.wire.pdu_identity import Identity
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import Indication, ServerSession, UnknownUnit
from gateway.aio.endpoint import Endpoint, LinkState
from gateway.aio.listener import Connection, Listener
from gateway.core.bounded import Level
from gateway.core.command import CommandResult, Outcome
from gateway.core.point import Value
from gateway.core.ports import CommandDoor

WRITES_MAX: Final = 64  # points that one request may write
Launch: TypeAlias = Callable[[str, Coroutine[Any, Any, None]], None]
AnySession: TypeAlias = ServerSession | LineServerSession


class Permission(msgspec.Struct, frozen=True):
    """What somebody at the other end may do."""

    reads: bool = True
    writes: bool = True


class Limits(msgspec.Struct, frozen=True):
    """In engineering units."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: Value) -> bool:
        """Whether a value is within."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


class ServedUnit:
    """The sheets of one unit, and how to read back what is written to them."""

    def __init__(
        self,
        sheets: Mapping[Table, Sheet],
        decoders: Mapping[Served, Decoder],
        *,
        limits: Mapping[str, Limits],
    ) -> None:
        """`limits`: of what may be written, by the point's name."""
        self.sheets: Final = sheets
        self._decoders: Final = decoders
        self.limits: Final = limits

    def decode(self, served: Served, data: bytes) -> Value:
        """What a client wrote."""
        if served.table.has_bits:
            data = pack_bits([bool(octet) for octet in data])
        return self._decoders[served](data)[0][0]


class ConnectionHost(Protocol):
    """What a model tells its connection."""

    def carry_out(self, writes: list[Write], limits: Mapping[str, Limits]) -> Later:
        """Start commands; the outcome comes with the token."""
        ...


class PointModel:
    """The data model of one connection: the units of the server, with what this client may do."""

    def __init__(
        self,
        units: Mapping[int, ServedUnit],
        look: Look,
        permission: Permission,
        host: ConnectionHost,
        *,
        now_ns: Callable[[], int],
    ) -> None:
        """`now_ns`: the monotonic clock."""
        self._now_ns: Final = now_ns
        self._units: Final = units
        self._look: Final = look
        self._permission: Final = permission
        self._host: Final = host

    def has_unit(self, unit: int) -> bool:
        """Whether that unit is served here."""
        return unit in self._units

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Coils or discrete inputs, packed."""
        found = self._read(unit, table, start, count)
        return found if isinstance(found, ExceptionCode) else pack_bits(map(bool, found))

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Holding or input registers."""
        found = self._read(unit, table, start, count)
        return found if isinstance(found, ExceptionCode) else bytes(found)

    def _read(self, unit: int, table: Table, start: int, count: int) -> bytes | bytearray | ExceptionCode:
        if not self._permission.reads:
            return ExceptionCode.ILLEGAL_FUNCTION
        sheet = self._units[unit].sheets.get(table)
        if sheet is None:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        return sheet.read(start, count, self._look, self._now_ns())

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | Later | None:
        """Coils become commands."""
        return self._write(unit, Table.COILS, start, bytes(unpack_bits(data, count)))

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | Later | None:
        """Holding registers become commands."""
        return self._write(unit, Table.HOLDING_REGISTERS, start, data)

    def _write(self, unit: int, table: Table, start: int, data: bytes) -> ExceptionCode | Later | None:
        if not self._permission.writes:
            return ExceptionCode.ILLEGAL_FUNCTION
        served = self._units[unit]
        sheet = served.sheets.get(table)
        if sheet is None:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        writes = sheet.writes(start, data, served.decode, self._look, self._now_ns())
        if isinstance(writes, ExceptionCode):
            return writes
        if len(writes) > WRITES_MAX:
            return ExceptionCode.ILLEGAL_DATA_VALUE
        if any(one.value is None for one in writes):  # NaN, or what the map calls no value
            return ExceptionCode.ILLEGAL_DATA_VALUE
        return self._host.carry_out(writes, served.limits) if writes else None


class Client:
    """One connection to the server, or the line it answers on. An `Owner` for the pump."""

    def __init__(self, server: ModbusServer, name: str, permission: Permission) -> None:
        self._server: Final = server
        self._wake: Callable[[], None] = lambda: None
        self.name: Final = name
        model = PointModel(server.units, server.look, permission, self, now_ns=server.now_ns)
        responder = Responder(model, identity=server.identity)
        self.session: Final[AnySession] = server.make_session(responder)

    def connect(self, wake: Callable[[], None]) -> None:
        """What sends the answers."""
        self._wake = wake

    def link_up(self) -> None:
        """Nothing to say before somebody asks."""

    def link_events(self, events: list[Indication]) -> None:
        """Requests were taken."""
        self._server.count(events)

    def link_closing(self) -> None:
        """Modbus has no farewell."""

    def link_down(self, reason: str) -> None:
        """Commands under way go on: they were taken."""

    def carry_out(self, writes: list[Write], limits: Mapping[str, Limits]) -> Later:
        """One command for each point, in order, until one fails; the answer tells of that one."""
        token = object()
        self._server.launch("modbus write", self._write(token, writes, limits))
        return Later(token)

    async def _write(self, token: object, writes: list[Write], limits: Mapping[str, Limits]) -> None:
        door, issuer = self._server.door, f"{self._server.name}:{self.name}"
        refusal: ExceptionCode | None = None
        for one in writes:
            result = await door.command(one.point.device, one.point.tag, one.value, issuer=issuer)
            refusal = _refusal(result, one, limits.get(one.point.name), door)
            if refusal is not None:
                break  # what follows is not tried: the client hears that its write failed
        self.session.conclude(token, refusal)
        self._wake()


def _refusal(
    result: CommandResult, write: Write, limits: Limits | None, door: CommandDoor
) -> ExceptionCode | None:
    """Never 6, which invites a client to try again."""
    if result.outcome in {Outcome.SENT, Outcome.VERIFIED, Outcome.ACCEPTED}:
        return None
    if result.outcome in {Outcome.UNKNOWN, Outcome.EXPIRED} or door.offline_reason(write.point.device):
        return ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND
    if limits is not None and not limits.holds(write.value):
        return ExceptionCode.ILLEGAL_DATA_VALUE
    return ExceptionCode.SERVER_DEVICE_FAILURE


class ModbusServer:
    """One server link. `run` until cancelled; `bind` gives it the last values."""

    def __init__(
        self,
        *,
        name: str,
        units: Mapping[int, ServedUnit],
        door: CommandDoor,
        launch: Launch,
        now_ns: Callable[[], int],
        roles: Mapping[str, Permission],
        unknown_unit: UnknownUnit,
        identity: Identity | None = None,
        listener: Callable[[Callable[[Connection], Client | str]], Listener] | None = None,
        line: Callable[[Responder], LineServerSession] | None = None,
        endpoint: Endpoint | None = None,
    ) -> None:
        """Over a network: `listener(accept)`. On a serial line: `endpoint` opens it. `line(responder)`
        makes the session of a line, on a port or over TCP; without it frames are those of Modbus TCP.
        """
        self.name: Final = name
        self.units: Final = units
        self.door: Final = door
        self.launch: Final = launch
        self.now_ns: Final = now_ns
        self.identity: Final = identity
        self.points: Final = sum(len(sheet) for unit in units.values() for sheet in unit.sheets.values())
        self.requests = 0
        self.exceptions: Final[Counter[int]] = Counter()
        self._roles: Final = roles
        self._unknown_unit: Final = unknown_unit
        self._line: Final = line
        self._image: Look | None = None
        self.endpoint: Final = endpoint
        self.listener: Final = None if listener is None else listener(self._accept)

    # For the status

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.endpoint.address if self.endpoint is not None else self._listening().address

    @property
    def is_up(self) -> bool:
        """Whether clients can ask."""
        if self.endpoint is not None:
            return self.endpoint.state is LinkState.UP
        return self._listening().bound is not None

    @property
    def last_error(self) -> str:
        """Why it is not up."""
        return self.endpoint.last_error if self.endpoint is not None else self._listening().last_error

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here; nothing grows on a line."""
        return () if self.listener is None else self.listener.levels()

    def _listening(self) -> Listener:
        assert self.listener is not None  # one of the two is there
        return self.listener

    def bind(self, look: Look) -> None:
        """Where the last values are, from now on."""
        self._image = look

    def look(self, layout: Any) -> Any:
        """The snapshot of one layout."""
        assert self._image is not None  # bound before it runs
        return self._image(layout)

    async def run(self) -> None:
        """Serve until cancelled."""
        if self.listener is not None:
            await self.listener.serve()
        elif self.endpoint is not None:
            client = Client(self, "line", Permission())
            client.connect(self.endpoint.wake)
            await self.endpoint.keep(client)

    def make_session(self, responder: Responder) -> AnySession:
        """The session of one connection."""
        if self._line is not None:
            return self._line(responder)
        return ServerSession(responder, unknown_unit=self._unknown_unit)

    def count(self, events: Sequence[Indication]) -> None:
        """Requests and the exceptions they got."""
        self.requests += len(events)
        for event in events:
            if event.code is not None:
                self.exceptions[event.code] += 1

    def _accept(self, connection: Connection) -> Client | str:
        permission = Permission()
        if self._roles:
            try:
                role = role_of(connection.peer.certificate or b"")
            except ValueError as error:
                return str(error)
            permission = self._roles.get(role or "", Permission(reads=False, writes=False))
        client = Client(self, connection.peer.host, permission)
        client.connect(connection.wake)
        return client
