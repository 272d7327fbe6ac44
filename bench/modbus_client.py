"""A client reads a device as fast as it answers, one request at a time; values are checked afterwards.

    python -m bench.modbus_client WHO PORT READS REGISTERS

WHO: `gateway` is the shipped driver from YAML, with planning, health, qualities and batches; `gateway-8` the
same with 8 devices behind the connection and as many requests in flight as it has by itself; `raw` is a bare
protocol with one struct; `pymodbus` its asyncio client on uvloop, `pymodbus-asyncio` on asyncio's own loop.
Prints the CPU of the reads alone, from getrusage: no start, no check.
"""

from __future__ import annotations

import asyncio
import json
import resource
import struct
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.formula import PLACE, Mode, registers_of, version_at
from bench.sites import SiteSpec, Topics, write_site
from drivers.modbus.assemble import LinkParts, make_driver
from gateway.aio.clock import SystemClock
from gateway.aio.loop import loop_factory
from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.config.load import load
from gateway.core.batch import Batch

UNIT: Final = 1
WARM_UP: Final = 200  # reads before those that count


def cpu_s() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class Taken:
    """Keeps what was read, and says when it is enough."""

    def __init__(self, reads: int) -> None:
        self.blocks: list[tuple[int, Sequence[Any]]] = []  # with their unit
        self.cpu_s = 0.0
        self._reads = reads + WARM_UP
        self._done = asyncio.Event()

    def take(self, values: Sequence[Any], unit: int = 1) -> None:
        """One more."""
        blocks = self.blocks
        blocks.append((unit, values))
        if len(blocks) == WARM_UP:
            self.cpu_s = -cpu_s()
        elif len(blocks) == self._reads:
            self.cpu_s += cpu_s()
            self._done.set()

    async def enough(self) -> None:
        """Until there are so many."""
        await self._done.wait()


class _Receipt:
    def is_committed(self) -> bool:
        return True

    def on_commit(self, callback: Callable[[], None]) -> None:
        callback()


class _Sink:
    """In the hub's place."""

    def __init__(self, taken: Taken) -> None:
        self._taken, self._receipt = taken, _Receipt()

    def put(self, batch: Batch) -> _Receipt:
        self._taken.take(batch.values if batch.quality == 0 else (), int(batch.layout.device[3:]))
        return self._receipt

    def is_blocked(self) -> bool:
        return False

    def is_hurried(self) -> bool:
        return False

    def pause_ns(self) -> int:
        return 0


async def gateway(port: int, registers: int, taken: Taken, *, units: int = 1) -> None:
    """The driver as it is shipped, made from YAML."""
    spec = SiteSpec(
        devices=units, registers=registers, scan="continuous", topics=Topics.DEVICE, in_flight=units
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        site = load(write_site(Path(folder), spec, modbus_ports=[port], mqtt_port=1), kinds())
    (parts,) = compile_site(site).links.values()
    assert isinstance(parts, LinkParts)
    driver = make_driver(parts, sink=_Sink(taken), clock=SystemClock())
    running = asyncio.create_task(driver.run())
    await taken.enough()
    running.cancel()


class _Raw(asyncio.Protocol):
    def __init__(self, registers: int, taken: Taken) -> None:
        self._unpack, self._taken = struct.Struct(f">{registers}H").unpack_from, taken
        self._request = struct.pack(">HHHBBHH", 1, 0, 6, UNIT, 3, 0, registers)
        self._size, self._rest = 9 + 2 * registers, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if len(data) < self._size:
            self._rest = data
            return
        self._rest = b""
        self._transport.write(self._request)
        self._taken.take(self._unpack(data, 9))


async def raw(port: int, registers: int, taken: Taken) -> None:
    """What remains when everything that makes a client is left out."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: _Raw(registers, taken), "127.0.0.1", port)
    await taken.enough()
    transport.close()


async def pymodbus(port: int, registers: int, taken: Taken) -> None:
    """As its manual says."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port)
    await client.connect()
    while not taken.cpu_s > 0:
        result = await client.read_holding_registers(0, count=registers, device_id=UNIT)
        taken.take(result.registers)
    client.close()


def wrong_blocks(blocks: Sequence[Sequence[Any]], registers: int, *, unit: int) -> int:
    """How many are not what the plant showed next."""
    if not blocks or not blocks[0]:
        return max(1, len(blocks))
    first = version_at(PLACE[blocks[0][0]], unit=unit)
    return sum(
        list(block) != registers_of(first + number, unit=unit, count=registers, mode=Mode.ALL)
        for number, block in enumerate(blocks)
    )


CLIENTS: Final[dict[str, Callable[[int, int, Taken], Awaitable[None]]]] = {
    "gateway": gateway,
    "gateway-8": partial(gateway, units=8),
    "raw": raw,
    "pymodbus": pymodbus,
    "pymodbus-asyncio": pymodbus,
}


def main() -> None:
    """Read, check, print."""
    who, (port, reads, registers) = sys.argv[1], map(int, sys.argv[2:])

    async def measure() -> Taken:
        taken = Taken(reads)
        await CLIENTS[who](port, registers, taken)
        return taken

    factory = asyncio.new_event_loop if who == "pymodbus-asyncio" else loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        taken = runner.run(measure())
    wrong = sum(
        wrong_blocks([block for of, block in taken.blocks if of == unit], registers, unit=unit)
        for unit in {unit for unit, _ in taken.blocks}
    )
    print(json.dumps({"us": taken.cpu_s / reads * 1e6, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    main()
