"""Names of hosts: a name server that does not answer holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Endpoint
from gateway.aio.loop import loop_factory
from gateway.aio.names import Lookup
from gateway.aio.tcp import TcpOpener
from tests.aio.memory import until
from tests.aio.talk import Listener

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])


class NameServer:
    """Stands in for `socket.getaddrinfo`; names that end in `.slow` wait for `gate`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, port: int, *more: Any, **named: Any) -> Any:
        self.asked.append(host)
        if host.endswith(".slow"):
            self.gate.wait(8)
            return self._real("127.0.0.1", port, *more, **named)
        if host.endswith(".none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host.endswith(".two"):  # nothing listens at the first
            return [
                *self._real("127.0.0.2", port, *more, **named),
                *self._real("127.0.0.1", port, *more, **named),
            ]
        return self._real(host, port, *more, **named)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    return NameServer(monkeypatch)


@LOOPS
def test_many_names_without_an_answer_hold_up_neither_another_nor_the_end(
    factory: Callable[[], asyncio.AbstractEventLoop], names: NameServer
) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            stuck = [
                Endpoint("l", TcpOpener(f"{number}.slow", port), clock=SystemClock(), open_timeout_s=0.05)
                for number in range(12)
            ]
            fine = Endpoint("f", TcpOpener("localhost", port), clock=SystemClock())
            owner = Listener()
            tasks = [loop.create_task(endpoint.keep(Listener())) for endpoint in stuck]
            tasks.append(loop.create_task(fine.keep(owner)))
            await until(lambda: fine.state.value == "up" and all(one.last_error for one in stuck))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            return [one.last_error for one in stuck]

    with asyncio.Runner(loop_factory=factory) as runner:
        reasons = runner.run(main())
    assert not names.gate.is_set()  # the loop ended although nobody answered
    assert reasons[3] == "no answer to the name 3.slow within 0.05 s"
    names.gate.set()


def test_an_answer_that_came_too_late_is_what_the_next_attempt_uses(names: NameServer) -> None:
    async def main() -> None:
        lookup = Lookup("plc.slow", 502)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await lookup.addresses()
        under_way = [lookup.is_under_way]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await lookup.addresses()
        assert names.asked == ["plc.slow"]  # one thread, however often it is tried
        names.gate.set()
        assert await lookup.addresses() == ["127.0.0.1"]
        under_way.append(lookup.is_under_way)
        assert await lookup.addresses() == ["127.0.0.1"]
        assert names.asked == ["plc.slow"] * 2
        assert under_way == [True, False]

    asyncio.run(main())


def test_addresses_are_not_looked_up_and_names_that_cannot_be_are_said(names: NameServer) -> None:
    async def main() -> None:
        for address in ("127.0.0.1", "::1", "fe80::1%lo"):
            assert await Lookup(address, 502).addresses() == [address]
        assert names.asked == []
        with pytest.raises(socket.gaierror):
            await Lookup("plc.none", 502).addresses()
        with pytest.raises(OSError, match="cannot be the name of a host"):
            await Lookup("a" * 70 + ".example", 502).addresses()

    asyncio.run(main())


@LOOPS
def test_the_second_address_is_tried_and_a_name_that_is_not_there_is_said_in_words(
    factory: Callable[[], asyncio.AbstractEventLoop], names: NameServer
) -> None:
    async def main() -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            two = Endpoint("t", TcpOpener("plc.two", port), clock=SystemClock())
            none = Endpoint("n", TcpOpener("plc.none", port), clock=SystemClock())
            tasks = [loop.create_task(one.keep(Listener())) for one in (two, none)]
            await until(lambda: two.state.value == "up" and bool(none.last_error))
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return two.address, none.last_error

    with asyncio.Runner(loop_factory=factory) as runner:
        address, reason = runner.run(main())
    assert address.startswith("plc.two:")
    assert reason == "the host's name cannot be looked up: Name or service not known"
    assert set(names.asked) == {"plc.two", "plc.none"}
