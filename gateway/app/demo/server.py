"""The demo plant as a process of its own: `python -m gateway.app.demo.server --port 15020`.

Prints `ready 127.0.0.1:<port>` once it listens. Loopback only. Ends on SIGTERM, and when its parent is gone.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import Final

import click

from drivers.modbus.wire.pdu_identity import Identity
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession
from gateway.aio import loop as event_loop
from gateway.app.demo.plant import Plant
from gateway.app.demo.registers import PlantRegisters
from gateway.core.errors import RemoteProtocolError

CONNECTIONS_MAX: Final = 32
IDENTITY: Final = Identity(
    {0: b"Edge Gateway", 1: b"demo-plant", 2: b"1.0", 4: b"Boiler, tank and power meter"}
)
STEP_S: Final = 0.05
WRITE_HIGH_BYTES: Final = 256 * 1024  # a client that does not take its answers is not read any more


class Simulation:
    """Lets the plant live in real time; a late timer makes a longer step, never a lost one."""

    def __init__(self, plant: Plant, registers: PlantRegisters, *, seed: int | None = None) -> None:
        self._plant = plant
        self._registers = registers
        self._random = random.Random(seed)  # noqa: S311 - measurement noise, guards nothing
        self._last_ns = time.monotonic_ns()
        self._registers.refresh(self._noise)

    def tick(self) -> None:
        """Catch up with the clock, and once more in `STEP_S`."""
        now_ns = time.monotonic_ns()
        self._plant.step((now_ns - self._last_ns) / 1e9, self._noise)
        self._last_ns = now_ns
        self._registers.refresh(self._noise)
        asyncio.get_running_loop().call_later(STEP_S, self.tick)

    def _noise(self, sigma: float) -> float:
        return self._random.gauss(0.0, sigma)


class Connection(asyncio.Protocol):
    """Bytes between one client and one session."""

    def __init__(self, registers: PlantRegisters, connections: set[Connection]) -> None:
        self._session = ServerSession(Responder(registers, identity=IDENTITY))
        self._connections = connections
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports only duck-type
        assert self._transport is not None
        if len(self._connections) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return
        now_ns = time.monotonic_ns()
        try:
            self._session.receive(data, now_ns)
        except RemoteProtocolError:
            transport.writelines(self._session.to_send(now_ns))  # answers to what came before the garbage
            transport.close()
            return
        transport.writelines(self._session.to_send(now_ns))

    def pause_writing(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._connections.discard(self)
        self._session.lost(time.monotonic_ns())
        self._transport = None


async def serve(registers: PlantRegisters, *, port: int) -> tuple[asyncio.Server, int]:
    """Listen on 127.0.0.1:`port` (0: any); returns the server and its port."""
    connections: set[Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(registers, connections), "127.0.0.1", port)
    name: tuple[str, int] = server.sockets[0].getsockname()
    return server, name[1]


async def run(*, port: int, seed: int | None) -> None:
    """Serve a living plant until SIGTERM or SIGINT."""
    plant = Plant()
    registers = PlantRegisters(plant)
    simulation = Simulation(plant, registers, seed=seed)
    server, port = await serve(registers, port=port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    simulation.tick()
    click.echo(f"ready 127.0.0.1:{port}")
    await stop.wait()
    server.close()


@click.command()
@click.option("--port", default=15020, show_default=True, help="TCP port on 127.0.0.1; 0 takes a free one.")
@click.option("--seed", type=int, default=None, help="Makes the noise repeat itself.")
def main(port: int, seed: int | None) -> None:
    """A simulated boiler, tank and power meter behind Modbus TCP, on loopback."""
    try:
        event_loop.run(run(port=port, seed=seed))
    except OSError as error:
        raise click.ClickException(
            f"127.0.0.1:{port}: {error.strerror or error}; choose another --port"
        ) from None


if __name__ == "__main__":
    main()
