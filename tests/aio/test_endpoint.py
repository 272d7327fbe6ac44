"""A link that is kept open: backoff, one line in the log per change, and every phase can be cancelled."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import socket
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import TypeAlias

import pytest

from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Backoff, Endpoint, LinkState
from gateway.aio.loop import loop_factory
from gateway.aio.tcp import TcpOpener
from tests.aio.memory import LoopClock, Network, until
from tests.aio.talk import Listener
from tests.virtual_time import now_ns, run

S = 1_000_000_000
Task: TypeAlias = asyncio.Task[None]


def kept(
    script: Callable[[Endpoint, Listener, Network, Task], Awaitable[None]],
    *,
    network: Network | None = None,
    rng: random.Random | None = None,
) -> Listener:
    """A kept endpoint in virtual time; cancelled where the script did not do it."""
    owner = Listener()

    async def main() -> None:
        world = network or Network()
        world.install()
        endpoint = Endpoint(
            "plc1",
            TcpOpener("10.0.0.11", 502),
            clock=LoopClock(),
            open_timeout_s=5,
            backoff=Backoff(first_s=1, limit_s=30, rng=rng or random.Random(1)),
        )
        task = asyncio.get_running_loop().create_task(endpoint.keep(owner))
        await script(endpoint, owner, world, task)
        task.cancel()
        await asyncio.wait([task])
        assert endpoint.state is LinkState.DOWN
        assert not [wire for wire in world.wires if wire.is_open]

    run(main())
    return owner


def test_waits_between_attempts_grow_with_jitter_up_to_the_cap() -> None:
    network = Network()
    network.is_listening = False

    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(300)

    assert kept(script, network=network).told == []
    at = network.attempts_ns
    waits = [(later - sooner) / S for sooner, later in pairwise(at)]
    for attempt, wait in enumerate(waits):
        full = min(30, 2**attempt)
        assert full / 2 - 1e-6 <= wait <= full + 1e-6
    assert len(set(waits)) == len(waits)
    assert len(waits) >= 12


def test_a_connection_that_lasted_starts_the_waits_anew_and_one_that_did_not_does_not() -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        for _ in range(8):  # accepts and hangs up at once
            await until(lambda: bool(world.wires) and world.wire.is_open)
            world.wire.close_by_peer()
            await asyncio.sleep(0.02)
        assert world.attempts_ns[-1] - world.attempts_ns[-2] > 14 * S
        await until(lambda: world.wire.is_open)
        await asyncio.sleep(10)
        lost_ns = now_ns()
        world.wire.reset()
        await asyncio.sleep(2)
        assert world.attempts_ns[-1] - lost_ns <= S

    kept(script)


def test_an_attempt_that_nobody_answers_is_given_up_and_says_so() -> None:
    network = Network()
    network.is_reachable = False

    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(1)
        assert (endpoint.state, endpoint.last_error) == (LinkState.CONNECTING, "")
        await asyncio.sleep(4.01)
        assert (endpoint.state, endpoint.last_error) == (LinkState.DOWN, "no connection within 5 s")
        network.is_reachable = True
        await asyncio.sleep(2)
        assert endpoint.state is LinkState.UP

    kept(script, network=network)


def test_lost_is_logged_once_and_back_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway.link")

    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(10)
        world.is_listening = False
        world.wire.reset()
        await asyncio.sleep(600)
        assert endpoint.last_error == "connection refused: nothing listens there"
        world.is_listening = True
        await asyncio.sleep(60)

    kept(script)
    lines = [(record.levelname, record.message) for record in caplog.records]
    assert (
        lines
        == [
            ("INFO", "link is up"),
            ("WARNING", "link is down, trying again until it is back"),
            ("INFO", "link is back"),
            ("WARNING", "link is down, trying again until it is back"),
        ][:3]
    )


def test_owner_drops_the_link_and_gets_a_new_one() -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(1)
        endpoint.drop("broker is silent")
        await asyncio.sleep(2)
        assert owner.told == ["up", ("down", "broker is silent"), "up"]

    kept(script)


@pytest.mark.parametrize("when_s", [0.0, 0.5, 5.2, 7.0], ids=["start", "connecting", "waiting", "again"])
def test_cancelled_while_there_is_no_link_it_ends_at_once(when_s: float) -> None:
    network = Network()
    network.is_reachable = False

    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(when_s)
        before = now_ns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert now_ns() == before

    assert kept(script, network=network).told == []


@pytest.mark.parametrize("turns", range(6))
def test_cancelled_in_any_turn_of_connecting_the_owner_is_left_with_no_open_link(turns: int) -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(1)
        assert owner.told.count("up") == len([what for what in owner.told if what[0] == "down"])

    kept(script)


def test_cancelled_while_up_it_says_farewell_and_closes() -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert world.wire.sent == [b"bye"]
        assert owner.told == ["up", "closing", ("down", "stopping")]

    kept(script)


def test_cancelled_while_the_peer_takes_nothing_it_ends_within_a_second() -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(1)
        world.wire.is_stalled = True
        before = now_ns()
        task.cancel()
        await asyncio.wait([task])
        assert now_ns() - before <= S
        assert owner.told[-1] == ("down", "stopping")

    kept(script)


def test_a_fault_of_the_owner_comes_out_of_keep() -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        def react(what: object) -> None:
            if what == b"in":
                raise ZeroDivisionError

        owner.react = react
        await asyncio.sleep(1)
        world.wire.feed(b"in")
        await asyncio.wait([task], timeout=10)
        assert isinstance(task.exception(), ZeroDivisionError)

    assert kept(script).told[-1][0] == "down"


@pytest.mark.parametrize("is_up", [True, False])
def test_a_fault_of_the_owners_timer_comes_out_of_keep_too(is_up: bool) -> None:
    network = Network()
    network.is_listening = is_up

    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(0.1)
        endpoint.fail(ZeroDivisionError("timer"))
        endpoint.fail(ValueError("second"))
        await asyncio.wait([task], timeout=10)
        assert isinstance(task.exception(), ZeroDivisionError)
        endpoint.fail(ValueError("nobody keeps it any more"))

    kept(script, network=network)


def test_a_stop_wins_over_a_fault() -> None:
    async def script(endpoint: Endpoint, owner: Listener, world: Network, task: asyncio.Task[None]) -> None:
        await asyncio.sleep(1)
        endpoint.fail(ZeroDivisionError("timer"))
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    kept(script)


# --- real sockets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()], ids=["asyncio", "fastest"])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 50])
def test_nothing_is_left_open_on_real_sockets(
    turns: int, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Cancelled anywhere between the first turn and a link that is up: no socket is left behind."""
    owner = Listener()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            endpoint = Endpoint("l", TcpOpener("127.0.0.1", listener.getsockname()[1]), clock=SystemClock())
            task = asyncio.get_running_loop().create_task(endpoint.keep(owner))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=5)
            assert task.done()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    gc.collect()  # a socket left open would be a ResourceWarning here, and warnings are errors
    assert owner.told.count("up") == len([what for what in owner.told if what[0] == "down"])


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()], ids=["asyncio", "fastest"])
def test_a_peer_that_vanishes_is_noticed(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> tuple[int, int]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            up = asyncio.Event()
            owner = Listener()
            owner.react = lambda what: up.set() if what == "up" else None
            endpoint = Endpoint("l", TcpOpener("127.0.0.1", listener.getsockname()[1]), clock=SystemClock())
            task = asyncio.get_running_loop().create_task(endpoint.keep(owner))
            await asyncio.wait_for(up.wait(), 5)
            assert endpoint._pump is not None
            assert endpoint._pump._transport is not None
            ours = endpoint._pump._transport.get_extra_info("socket")
            options = (
                ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            )
            task.cancel()
            await asyncio.wait([task])
            return options

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) == (20_000, 1)


def test_refused_for_real_says_so_in_plain_words() -> None:
    async def main() -> str:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        endpoint = Endpoint("l", TcpOpener("127.0.0.1", port), clock=SystemClock())
        task = asyncio.get_running_loop().create_task(endpoint.keep(Listener()))
        await until(lambda: bool(endpoint.last_error))
        task.cancel()
        await asyncio.wait([task])
        return endpoint.last_error

    assert asyncio.run(main()) == "connection refused: nothing listens there"
