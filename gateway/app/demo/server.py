"""The demo plant as a process of its own: `python -m gateway.app.demo.server --port 15020`.

Prints `ready 127.0.0.1:<port>` once it listens. Loopback only. Ends on SIGTERM, and when its parent is gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from typing import Final

import click

from drivers.modbus.simulator.faults import Faults
from drivers.modbus.simulator.serve import Place, Server
from drivers.modbus.wire.pdu_identity import Identity
from gateway.aio import loop as event_loop
from gateway.aio.clock import SystemClock
from gateway.app.demo.plant import Plant
from gateway.app.demo.registers import PlantRegisters
from gateway.core.errors import LinkError

CONNECTIONS_MAX: Final = 32
IDENTITY: Final = Identity(
    {0: b"Edge Gateway", 1: b"demo-plant", 2: b"1.0", 4: b"Boiler, tank and power meter"}
)
STEP_S: Final = 0.05


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


async def run(*, port: int, seed: int | None) -> None:
    """Serve a living plant until SIGTERM or SIGINT. Raises `LinkError` where the port is taken."""
    plant = Plant()
    registers = PlantRegisters(plant)
    simulation = Simulation(plant, registers, seed=seed)
    clock = SystemClock()
    server = Server(
        "plant",
        registers,
        Place(transport="tcp", host="127.0.0.1", port=port),
        faults=Faults(now_ns=clock.monotonic_ns),
        clock=clock,
        connections_max=CONNECTIONS_MAX,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    simulation.tick()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(lambda: click.echo(f"ready {server.address}")))
        await stop.wait()
        serving.cancel()


@click.command()
@click.option("--port", default=15020, show_default=True, help="TCP port on 127.0.0.1; 0 takes a free one.")
@click.option("--seed", type=int, default=None, help="Makes the noise repeat itself.")
def main(port: int, seed: int | None) -> None:
    """A simulated boiler, tank and power meter behind Modbus TCP, on loopback."""
    logging.getLogger("gateway").addHandler(logging.NullHandler())  # what matters is said here
    failure = ""
    try:
        event_loop.run(run(port=port, seed=seed))
    except* LinkError as errors:
        failure = f"{errors.exceptions[0]}; choose another --port"
    if failure:  # raised in there, it would come out in a group
        raise click.ClickException(failure)


if __name__ == "__main__":
    main()
