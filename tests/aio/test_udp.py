"""Datagrams as a link: one for each item, from one peer only, and what ICMP says ends it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Back, Backoff, Endpoint, LinkState
from gateway.aio.loop import loop_factory
from gateway.aio.udp import UdpOpener
from tests.aio.memory import until
from tests.aio.talk import Listener

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])


def peer(host: str = "127.0.0.1") -> socket.socket:
    near = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    near.bind((host, 0))
    near.setblocking(False)
    return near


async def next_of(far: socket.socket) -> tuple[bytes, Any]:
    """uvloop has no `sock_recvfrom`."""
    while True:
        try:
            return far.recvfrom(100)
        except BlockingIOError:
            await asyncio.sleep(0.002)


def endpoint(host: str, port: int) -> Endpoint:
    backoff = Backoff(first_s=0.01, limit_s=0.02)
    return Endpoint("u", UdpOpener(host, port), clock=SystemClock(), backoff=backoff, back=Back.HEARD)


@LOOPS
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_item_is_a_datagram_and_strangers_are_not_heard(
    factory: Callable[[], asyncio.AbstractEventLoop], host: str
) -> None:
    owner = Listener()

    async def main() -> None:
        with peer(host) as far, peer(host) as stranger:
            link = endpoint(host, far.getsockname()[1])
            task = asyncio.get_running_loop().create_task(link.keep(owner))
            await until(lambda: link.state is LinkState.UP)
            owner.session.out += [b"one", b"", b"three"]
            link.wake()
            said = [await next_of(far) for _ in range(3)]
            assert [data for data, _ in said] == [b"one", b"", b"three"]
            near = said[0][1]
            stranger.sendto(b"STRANGER", near)
            far.sendto(b"first", near)
            far.sendto(b"second", near)
            await until(lambda: b"second" in owner.told)
            task.cancel()
            await asyncio.wait([task])
            assert link.traffic.bytes_sent == len(b"onethree") + len(b"bye")

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert owner.told == ["up", b"first", b"second", "closing", ("down", "stopping")]


@LOOPS
def test_nobody_there_is_said_once_and_back_only_when_something_is_heard(
    factory: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.link")
    owner = Listener()

    async def main() -> None:
        with peer() as far:
            address = far.getsockname()
        link = endpoint("127.0.0.1", address[1])
        owner.react = lambda what: owner.session.out.append(b"hello") if what == "up" else None
        task = asyncio.get_running_loop().create_task(link.keep(owner))
        await until(lambda: link.traffic.losses >= 3)
        assert link.last_error == "port unreachable: nothing listens there"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
            far.bind(address)
            far.setblocking(False)
            _, near = await next_of(far)
            far.sendto(b"here", near)
            await until(lambda: b"here" in owner.told)
            task.cancel()
            await asyncio.wait([task])

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert [record.message for record in caplog.records] == [
        "link is down, trying again until it is back",
        "link is back",
    ]
