"""Links where the gateway is the server: started, kept by a reload that changes nothing of them, stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from gateway.aio.supervisor import Supervisor
from gateway.app.compiled import Compiled
from gateway.app.kinds import server_parts
from gateway.core.clock import Clock
from gateway.core.ports import CommandDoor
from gateway.flow.image import Image


class Server(msgspec.Struct):
    """One server as it runs."""

    parts: Any
    driver: Any

    @property
    def task(self) -> str:
        """The name of its task."""
        return f"server {self.parts.link.name}"


class Servers:
    """All servers of a running gateway."""

    def __init__(self, *, supervisor: Supervisor, clock: Clock, door: CommandDoor) -> None:
        self._supervisor: Final = supervisor
        self._clock: Final = clock
        self._door: Final = door
        self._running: dict[str, Server] = {}

    @property
    def running(self) -> Mapping[str, Server]:
        """By the name of the link."""
        return self._running

    async def stop_changed(self, compiled: Compiled) -> int:
        """Stop those that are gone, or of which the configuration says something new. How many."""
        changed = [
            name
            for name, server in self._running.items()
            if name not in compiled.servers or compiled.servers[name].made_from != server.parts.made_from
        ]
        for name in changed:
            await self._supervisor.stop(self._running.pop(name).task)
        return len(changed)

    def start(self, compiled: Compiled, image: Image) -> None:
        """Start those that do not run yet; all show what `image` knows from now on."""
        for name, parts in compiled.servers.items():
            server = self._running.get(name)
            if server is None:
                driver = server_parts(parts.link.driver).make_server(
                    parts, door=self._door, launch=self._supervisor.launch, clock=self._clock
                )
                server = self._running[name] = Server(parts, driver)
                driver.bind(image.snapshot)
                self._supervisor.spawn(server.task, driver.run)
            else:
                server.driver.bind(image.snapshot)

    async def stop(self, *, timeout_s: float) -> None:
        """All of them."""
        for server in self._running.values():
            await self._supervisor.stop(server.task, timeout_s=timeout_s)
