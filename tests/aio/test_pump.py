"""The pump between a session and a transport: order of calls, pressure, deadlines, faults of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.aio.pump import Pump, Traffic
from tests.aio.memory import LoopClock, Wire
from tests.aio.talk import Listener
from tests.virtual_time import now_ns, run

S = 1_000_000_000


def pumped(script: Callable[[Pump, Listener, Wire], Awaitable[None]]) -> Listener:
    """A pump with an open wire in virtual time."""
    owner = Listener()

    async def main() -> None:
        pump = Pump(owner, clock=LoopClock(), loop=asyncio.get_running_loop(), traffic=Traffic())
        wire = Wire(pump, lambda _wire, _data: None)
        pump.connection_made(wire)
        await script(pump, owner, wire)

    run(main())
    return owner


async def turn() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def test_many_wakes_in_one_turn_are_one_look_and_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        turns: list[int] = []
        to_send = owner.session.to_send
        monkeypatch.setattr(owner.session, "to_send", lambda at_ns: turns.append(at_ns) or to_send(at_ns))
        for number in range(5):
            owner.session.out.append(bytes([number]))
            pump.wake()
        await turn()
        assert wire.sent == [bytes(range(5))]
        assert len(turns) == 1

    pumped(script)


def test_what_an_event_asks_for_goes_out_before_the_next_turn() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        owner.react = lambda what: owner.session.out.append(b"more") if what == b"in" else None
        pump.data_received(b"in")
        assert wire.sent == [b"more"]

    pumped(script)


def test_owner_hears_of_the_loss_before_the_session_fails_what_was_under_way() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        owner.session.on_loss = ["failed 1", "failed 2"]
        wire.reset()
        assert await pump.lost == "connection reset by peer"

    assert pumped(script).told == ["up", ("down", "connection reset by peer"), "failed 1", "failed 2"]


def test_nothing_is_written_while_the_peer_takes_nothing_and_all_of_it_after() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        wire.is_stalled = True
        owner.session.out.append(b"x" * 300_000)
        pump.wake()
        await turn()
        owner.session.out.append(b"later")
        pump.wake()
        await turn()
        assert owner.session.out == [b"later"]
        assert wire.get_write_buffer_size() == 300_000
        wire.take()
        assert wire.sent == [b"x" * 300_000, b"later"]

    pumped(script)


def test_deadlines_come_also_while_the_peer_takes_nothing() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        wire.is_stalled = True
        owner.session.out.append(b"x" * 300_000)
        pump.wake()
        await turn()
        for _ in range(2):
            owner.session.deadline = now_ns() + S
            pump.wake()
            await asyncio.sleep(2)
        assert len(owner.session.fired) == 2

    pumped(script)


def test_a_deadline_that_moves_fires_once_and_on_time() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        start = now_ns()
        for second in range(5):
            owner.session.deadline = start + (second + 3) * S
            pump.wake()
            await asyncio.sleep(1)
        owner.session.deadline = start + 6 * S  # and back
        pump.wake()
        await asyncio.sleep(10)
        assert owner.session.fired == [start + 6 * S]

    assert "deadline" in pumped(script).told


def test_drained_is_told_only_once_the_peer_took_it_all() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        await asyncio.sleep(1)
        assert owner.session.drained == 0  # nothing was sent
        wire.is_stalled = True
        owner.session.out.append(b"x")
        pump.wake()
        await asyncio.sleep(1)
        assert owner.session.drained == 0
        wire.take()
        await asyncio.sleep(1)
        assert owner.session.drained == 1

    pumped(script)


def test_garbage_drops_the_link_with_its_reason_and_is_counted() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        pump.data_received(b"GARBAGE")
        assert await pump.lost == "found garbage, expected sense"
        assert (pump._traffic.protocol_errors, pump.error) == (1, None)

    pumped(script)


def test_close_sends_the_farewell_and_waits_for_the_owner_to_hear() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        await pump.close("stopping", timeout_s=1)
        assert wire.sent == [b"bye"]
        assert wire.closed_by == "close"
        assert owner.told == ["up", "closing", ("down", "stopping")]

    pumped(script)


def test_close_ends_in_time_when_the_peer_takes_nothing() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        wire.is_stalled = True
        owner.session.out.append(b"x")
        pump.wake()
        await turn()
        before = now_ns()
        await pump.close("stopping", timeout_s=1)
        assert now_ns() - before == S
        assert wire.closed_by == "abort"
        assert owner.told[-1] == ("down", "stopping")

    pumped(script)


def test_close_cut_short_leaves_nothing_open() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        wire.is_stalled = True
        owner.session.out.append(b"x")
        pump.wake()
        await turn()
        closing = asyncio.ensure_future(pump.close("stopping", timeout_s=60))
        await asyncio.sleep(1)
        closing.cancel()
        await asyncio.wait([closing])
        assert wire.closed_by == "abort"

    pumped(script)


def test_dropped_before_it_was_open_is_never_told_to_the_owner() -> None:
    owner = Listener()

    async def main() -> None:
        pump = Pump(owner, clock=LoopClock(), loop=asyncio.get_running_loop(), traffic=Traffic())
        pump.abandon("too late")
        wire = Wire(pump, lambda _wire, _data: None)
        pump.connection_made(wire)
        assert await pump.lost == "too late"
        assert wire.closed_by == "abort"

    run(main())
    assert owner.told == []


def boom(at: Any) -> Callable[[Any], None]:
    def react(what: Any) -> None:
        if what == at:
            raise ZeroDivisionError(f"at {at}")

    return react


@pytest.mark.parametrize("at", ["up", b"in", "deadline"])
def test_a_fault_of_the_owner_ends_the_link_and_is_left_for_its_keeper(at: Any) -> None:
    owner = Listener()
    owner.react = boom(at)

    async def main() -> None:
        pump = Pump(owner, clock=LoopClock(), loop=asyncio.get_running_loop(), traffic=Traffic())
        wire = Wire(pump, lambda _wire, _data: None)
        owner.session.deadline = now_ns() + S
        pump.connection_made(wire)
        if at == b"in":
            pump.data_received(b"in")
        reason = await pump.lost
        assert "fault of the gateway" in reason
        assert isinstance(pump.error, ZeroDivisionError)
        assert wire.closed_by == "abort"

    run(main())
    assert owner.told[-1][0] == "down"


@pytest.mark.parametrize("verb", ["to_send", "sent"])
def test_a_fault_of_the_session_does_too(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        def fails(_now_ns: int) -> list[Any]:
            raise ZeroDivisionError(verb)

        monkeypatch.setattr(owner.session, verb, fails)
        owner.session.out.append(b"x")
        pump.wake()
        await pump.lost
        assert isinstance(pump.error, ZeroDivisionError)

    pumped(script)


def test_a_fault_while_the_loss_is_told_still_fails_what_was_under_way() -> None:
    async def script(pump: Pump, owner: Listener, wire: Wire) -> None:
        owner.session.on_loss = ["failed"]
        owner.react = boom(("down", "connection reset by peer"))
        wire.reset()
        await pump.lost
        assert isinstance(pump.error, ZeroDivisionError)
        assert owner.told[-1] == "failed"

    pumped(script)
