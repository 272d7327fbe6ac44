"""Clients of a server role: each asks again as soon as it was answered, and every answer is checked.

    python -m bench.modbus_masters PORT CLIENTS REGISTERS

Registers must be a slice of the series, as the plant shows it. Prints counts ten times a second until ended.

    python -m bench.modbus_masters pymodbus|pymodbus-asyncio REGISTERS

is pymodbus' server with those registers, on uvloop or on asyncio's own loop; prints its port.
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from typing import Any, Final

import msgspec

from bench.formula import PLACE, SERIES, Mode, registers_of
from gateway.aio.loop import run

UNIT: Final = 1
EVERY_S: Final = 0.1
_SERIES_BYTES: Final = struct.pack(f">{len(SERIES)}H", *SERIES)


class Counts(msgspec.Struct):
    """Of all clients together."""

    answers: int = 0
    wrong: int = 0  # exceptions, too
    moves: int = 0  # answers that showed other values than the one before
    lost: int = 0  # connections
    t_ns: int = 0


class Master(asyncio.Protocol):
    """One connection, one request under way."""

    def __init__(self, counts: Counts, registers: int) -> None:
        self._counts, self._rest, self._last = counts, b"", b""
        self._size = 9 + 2 * registers
        self._request = struct.pack(">HHHBBHH", 7, 0, 6, UNIT, 3, 0, registers)
        self._head = struct.pack(">HHHBBB", 7, 0, 3 + 2 * registers, UNIT, 3, 2 * registers)

    def connection_made(self, transport: Any) -> None:
        """Ask."""
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Check and ask again."""
        data = self._rest + data
        if len(data) < self._size and data[7:8] in {b"", b"\x03"}:
            self._rest = data
            return
        self._rest = b""
        self._transport.write(self._request)
        counts = self._counts
        counts.answers += 1
        if data == self._last:
            return
        self._last = data
        counts.moves += 1
        place = 2 * PLACE[data[9] << 8 | data[10]] if len(data) > 10 else 0
        counts.wrong += data != self._head + _SERIES_BYTES[place : place + self._size - 9]

    def connection_lost(self, _error: Exception | None) -> None:
        """Nobody closes it but the other side."""
        self._counts.lost += 1


async def ask(port: int, clients: int, registers: int) -> None:
    """Until ended."""
    counts = Counts()
    loop = asyncio.get_running_loop()
    for _ in range(clients):
        await loop.create_connection(lambda: Master(counts, registers), "127.0.0.1", port)
    while True:
        await asyncio.sleep(EVERY_S)
        counts.t_ns = time.monotonic_ns()
        print(msgspec.json.encode(counts).decode(), flush=True)


async def pymodbus_server(registers: int) -> None:
    """Its server with one unit, until ended."""
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    words = registers_of(0, unit=1, count=registers, mode=Mode.ALL)
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    shown = [SimData(0, values=list(words), datatype=DataType.REGISTERS)]
    device = SimDevice(id=1, simdata=(bits, bits, shown, shown))
    server: Any = ModbusTcpServer(device, address=("127.0.0.1", 0))
    await server.listen()
    print(json.dumps({"port": server.transport.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.get_running_loop().create_future()


def main() -> None:
    """Either."""
    if sys.argv[1].startswith("pymodbus"):
        start = asyncio.run if sys.argv[1] == "pymodbus-asyncio" else run
        start(pymodbus_server(int(sys.argv[2])))
        return
    port, clients, registers = map(int, sys.argv[1:4])
    run(ask(port, clients, registers))


if __name__ == "__main__":
    main()
