"""pymodbus' TCP server in a thread of its own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 10.0
LOOPBACK = "127.0.0.1"
Parts = dict[int, list[int]]


@contextmanager
def pymodbus_server(
    *,
    unit: int,
    bits: list[list[bool]],
    words: list[list[int]] | list[dict[int, list[int]]],
    identity: Any = None,
) -> Iterator[int]:
    """One unit; `bits`: coils and inputs, `words`: holding and input registers, from 0. Yields the port.

    `words` with holes between them: by their first address.
    """
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType as SimType
    from pymodbus.simulator import SimData, SimDevice

    ready = threading.Event()
    state: dict[str, Any] = {}

    async def serve() -> None:
        tables = [[SimData(0, values=list(row), datatype=SimType.BITS)] for row in bits]
        for row in words:
            parts = row if isinstance(row, dict) else {0: row}
            tables.append(
                [SimData(at, values=list(part), datatype=SimType.REGISTERS) for at, part in parts.items()]
            )
        device = SimDevice(id=unit, simdata=tuple(tables))
        server = ModbusTcpServer(device, address=(LOOPBACK, 0), identity=identity)
        await server.listen()
        state["port"] = server.transport.sockets[0].getsockname()[1]
        state["stop"] = asyncio.Event()
        state["loop"] = asyncio.get_running_loop()
        ready.set()
        await state["stop"].wait()
        await server.shutdown()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield state["port"]
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(PATIENCE_S)
