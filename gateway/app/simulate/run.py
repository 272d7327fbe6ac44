"""`gateway simulate modbus`: the devices of a map, served until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from rich.console import Console

from drivers.modbus.simulator.faults import Fault, Faults
from drivers.modbus.simulator.serve import Place, Server
from drivers.modbus.simulator.units import Units, make_units
from gateway.aio.clock import SystemClock
from gateway.app.simulate.board import Board
from gateway.app.simulate.screen import say, show
from gateway.app.simulate.words import Quit, Words
from gateway.config.site import DeviceSpec
from gateway.core.errors import GatewayError, LinkError

STEP_NS: Final = 100_000_000  # values move once in so long, so that what is read together fits together


class Simulated(msgspec.Struct, frozen=True, kw_only=True):
    """One link to simulate."""

    name: str
    place: Place
    devices: tuple[DeviceSpec, ...]


async def simulate(
    links: Sequence[Simulated],
    *,
    faults: Sequence[Fault] = (),
    seed: int = 0,
    fills_holes: bool = False,
    for_s: float | None = None,
    console: Console | None = None,
) -> int:
    """Serve all links until SIGINT, SIGTERM, `quit` or for `for_s` seconds; returns 0.

    Prints `listening on …` for each link once clients can come. Raises `LinkError` where it cannot.
    """
    return await _Run(
        links, faults=faults, seed=seed, fills_holes=fills_holes, console=console or Console()
    ).run(for_s)


class _Run:
    def __init__(
        self,
        links: Sequence[Simulated],
        *,
        faults: Sequence[Fault],
        seed: int,
        fills_holes: bool,
        console: Console,
    ) -> None:
        self._clock: Final = SystemClock()
        self._began_ns: Final = self._clock.monotonic_ns()
        self._console: Final = console
        self._board: Final = Board({}, began_s=self._began_ns / 1e9)
        self._faults: Final = Faults(faults, seed=seed, now_ns=self._clock.monotonic_ns, struck=self._struck)
        self._units: Final[list[Units]] = []
        self._servers: Final[list[Server]] = []
        self._stop: Final = asyncio.Event()
        for link in links:
            units = make_units(
                link.devices,
                seed=seed,
                start_ns=self._clock.wall_ns(),
                second=self._second,
                fills_holes=fills_holes,
            )
            self._units.append(units)
            self._servers.append(self._server(link, units))
            for unit, name in units.names.items():
                self._board.add_unit(link.name, unit, name)
        self._words: Final = Words(self._faults, self._units)

    def _server(self, link: Simulated, units: Units) -> Server:
        def seen(unit: int, request: bytes, answer: bytes | None) -> None:
            self._board.seen(link.name, unit, request, answer, at_s=time.monotonic())

        return Server(link.name, units, link.place, faults=self._faults, clock=self._clock, seen=seen)

    def _second(self) -> float:
        return (self._clock.monotonic_ns() - self._began_ns) // STEP_NS * STEP_NS / 1e9

    def _struck(self, link: str, fault: Fault, unit: int) -> None:
        self._board.struck(link, fault, unit, at_s=time.monotonic())

    async def run(self, for_s: float | None) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        failure: GatewayError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [await self._started(group, server) for server in self._servers]
                tasks.append(group.create_task(show(self._draw, self._take, console=self._console)))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(for_s):
                        await self._stop.wait()
                for task in tasks:
                    task.cancel()
        except* GatewayError as errors:
            failure = _first(errors)
        if failure is not None:  # raised in there, it would come out in a group
            raise failure
        say(self._board.summary(self._faults, now_s=time.monotonic()))
        return 0

    async def _started(self, group: asyncio.TaskGroup, server: Server) -> asyncio.Task[None]:
        is_ready = asyncio.Event()

        def ready() -> None:
            transport = server.place.transport
            self._board.addresses[server.name] = server.address
            units = ", ".join(map(str, sorted(server.units.units)))
            say(f"listening on {transport} {server.address} for link {server.name}, units {units}")
            is_ready.set()

        task = group.create_task(server.serve(ready))
        task.add_done_callback(lambda _task: is_ready.set())
        await is_ready.wait()
        return task

    def _draw(self, typed: str | None) -> object:
        return self._board.draw(self._faults, now_s=time.monotonic(), typed=typed)

    def _take(self, line: str) -> None:
        try:
            answer = self._words.obey(line)
        except Quit:
            self._stop.set()
            return
        self._board.said = answer
        if answer and not self._console.is_terminal:
            say(answer)


def _first(errors: BaseExceptionGroup[GatewayError]) -> GatewayError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, GatewayError) else LinkError(str(error))
