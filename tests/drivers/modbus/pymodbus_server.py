"""pymodbus' servers, each in a thread with a loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_S = 10.0
LOOPBACK = "127.0.0.1"
Parts = dict[int, list[int]]


@contextmanager
def serving(start: Callable[[], Any]) -> Iterator[Any]:
    """A pymodbus server in a thread; yields the server once it listens."""
    ready, state = threading.Event(), dict[str, Any]()

    async def serve() -> None:
        server = start()
        await server.listen()
        state.update(server=server, stop=asyncio.Event(), loop=asyncio.get_running_loop())
        ready.set()
        await state["stop"].wait()
        await server.shutdown()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE_S)
        yield state["server"]
    finally:
        state["loop"].call_soon_threadsafe(state["stop"].set)
        thread.join(PATIENCE_S)


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
    from pymodbus import ModbusDeviceIdentification
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType as SimType
    from pymodbus.simulator import SimData, SimDevice

    def start() -> Any:
        tables = [[SimData(0, values=list(row), datatype=SimType.BITS)] for row in bits]
        for row in words:
            parts = row if isinstance(row, dict) else {0: row}
            tables.append(
                [SimData(at, values=list(part), datatype=SimType.REGISTERS) for at, part in parts.items()]
            )
        device = SimDevice(id=unit, simdata=tuple(tables))
        # The identity is one for the process: without its own a server would have that of another test.
        named = identity or ModbusDeviceIdentification()
        return ModbusTcpServer(device, address=(LOOPBACK, 0), identity=named)

    with serving(start) as server:
        yield server.transport.sockets[0].getsockname()[1]
