"""A reload while the gateway works: reading the files holds up nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.aio.clock import SystemClock
from gateway.app import runtime
from gateway.app.kinds import kinds
from gateway.config.load import load
from gateway.config.site import Site
from tests.aio.memory import until

CONFIG = """
version: 1
gateway: {name: g%s}
http: {listen: "127.0.0.1:0"}
"""


def test_the_loop_goes_on_while_a_configuration_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG % 1)
    began, gate = threading.Event(), threading.Event()

    def slow(path: Path, known: object) -> Site:
        began.set()
        assert gate.wait(8)
        return load(path, known)  # type: ignore[arg-type]  # as it was called

    async def main() -> tuple[str, int]:
        gateway = runtime.Gateway(config, state=tmp_path / "state", clock=SystemClock())
        task = asyncio.get_running_loop().create_task(gateway.run(load(config, kinds())))
        await until(lambda: "maintenance" in gateway._supervisor._tasks)
        monkeypatch.setattr(runtime, "load", slow)
        config.write_text(CONFIG % 2)
        gateway._ask_reload()
        await until(began.is_set)  # this loop turns although the configuration is being read
        assert gateway.site.name == "g1"
        gate.set()
        await until(lambda: gateway.site.name == "g2")
        gateway._stop.set()
        return gateway.site.name, await task

    assert asyncio.run(main()) == ("g2", 0)
