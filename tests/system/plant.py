"""A plant of Modbus units whose registers count, so that each value says whether it was served."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Final

from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession
from tests.system.waiting import LOOPBACK, Background

VALUES: Final = 6  # derived registers beside the counter


SETPOINTS: Final = 100  # the first of the writable registers; they keep what is written


def derived(unit: int, count: int, column: int) -> int:
    """What register `column` of a unit shows at a count: anybody can check it, nobody can guess it."""
    return (count * 40_503 + column * 2_654 + unit * 97) & 0xFFFF


class Plant:
    """Modbus units whose holding registers 0 and 1 count the reads, 2 … follow from the count.

    Registers from 100 on and coils keep what is written. A `DataModel`; lives on the loop of its background.
    """

    def __init__(self, background: Background, *, units: int = 1) -> None:
        self.counts: Final = dict.fromkeys(range(1, units + 1), 0)
        self.writes: Final[list[tuple[int, int, int]]] = []  # (unit, register, value), also of coils
        self.setpoints: Final[dict[tuple[int, int], int]] = {}
        self.is_frozen = False  # each read shows the same
        self.is_silent = False  # requests are taken and never answered
        self.is_silent_on_write = False  # writes are done and never answered
        self.refuses_writes = False  # with exception 2
        self.connections: Final[set[_PlantConnection]] = set()
        self.accepted = 0
        self._background = background
        self._server: asyncio.Server | None = None
        self.port = 0
        background.at_end.append(self.stop)

    def start(self) -> None:
        """Listen, on the same port as before where there was one."""

        async def listen() -> None:
            self._server = await self._background.loop.create_server(
                lambda: _PlantConnection(self), LOOPBACK, self.port
            )
            self.port = self._server.sockets[0].getsockname()[1]

        self._background.call(listen())

    def stop(self) -> None:
        """Off: nothing listens, what was open is cut."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
                await asyncio.sleep(0)
            for connection in tuple(self.connections):
                connection.abort()

        self._background.call(close())

    def has_unit(self, unit: int) -> bool:
        """Units are numbered from 1."""
        return unit in self.counts

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Coils as written."""
        bits = sum(1 << i for i in range(count) if self.setpoints.get((unit, 10_000 + start + i)))
        return bits.to_bytes((count + 7) // 8, "little")

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """The counting block, or set-points."""
        if start >= SETPOINTS:
            values = [self.setpoints.get((unit, start + i), 0) for i in range(count)]
            return struct.pack(f">{count}H", *values)
        if start == 0 and not self.is_frozen:
            self.counts[unit] += 1
        now = self.counts[unit]
        row = [now >> 16, now & 0xFFFF, *(derived(unit, now, column) for column in range(2, start + count))]
        return struct.pack(f">{count}H", *row[start : start + count])

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        """Counted."""
        if self.refuses_writes:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        bits = int.from_bytes(data, "little")
        for i in range(count):
            self._write(unit, 10_000 + start + i, bits >> i & 1)
        return None

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        """Counted."""
        if self.refuses_writes:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        for i, value in enumerate(struct.unpack(f">{len(data) // 2}H", data)):
            self._write(unit, start + i, value)
        return None

    def _write(self, unit: int, register: int, value: int) -> None:
        self.setpoints[unit, register] = value
        self.writes.append((unit, register, value))


class _PlantConnection(asyncio.Protocol):
    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._session = ServerSession(Responder(plant))
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._plant.connections.add(self)
        self._plant.accepted += 1

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        plant = self._plant
        if plant.is_silent:
            return
        before = len(plant.writes)
        self._session.receive(data, 0)
        answers = self._session.to_send(0)
        if plant.is_silent_on_write and len(plant.writes) > before:
            return
        if self._transport is not None:
            self._transport.writelines(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._plant.connections.discard(self)


# The way to the broker


def counting_tags(scan: str) -> dict[str, Any]:
    """The counting block of a unit, read in one request."""
    tags: dict[str, Any] = {"count": {"at": "hr:0", "type": "uint32", "scan": scan, "atomic": "row"}}
    for column in range(2, 2 + VALUES):
        tags[f"r{column}"] = {"at": f"hr:{column}", "type": "uint16", "scan": scan, "atomic": "row"}
    return tags


def wrong_values(device: str, values: dict[str, int], *, unit: int, served: int) -> str:
    """What a row says that the plant cannot have served; empty where all is true."""
    count = values["count"]
    if not 0 < count <= served:
        return f"{device}: count {count}, the plant served 1 to {served}"
    for column in range(2, 2 + VALUES):
        found, expected = values[f"r{column}"], derived(unit, count, column)
        if found != expected:
            return f"{device}: r{column} {found} at count {count}, expected {expected}"
    return ""
