"""Virtual time keeps its own promises: it jumps, it is exact, and it says when a run cannot end."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from tests.virtual_time import (
    START_NS,
    Deadlock,
    Outside,
    OutsideRefused,
    TimeExhausted,
    VirtualTimeError,
    now_ns,
    run,
)

HOUR_NS = 3600 * 10**9


def test_hours_pass_at_once_and_exactly() -> None:
    async def main() -> list[int]:
        seen = [now_ns()]
        for seconds in (3600, 0.001, 86_400 * 3):
            await asyncio.sleep(seconds)
            seen.append(now_ns())
        return seen

    before = time.monotonic()
    seen = run(main())
    assert time.monotonic() - before < 2
    assert seen == [START_NS, START_NS + HOUR_NS, START_NS + HOUR_NS + 10**6, START_NS + 73 * HOUR_NS + 10**6]


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def main() -> list[tuple[str, int]]:
        loop, fired = asyncio.get_running_loop(), []
        for name, seconds in (("late", 3.0), ("early", 1.0), ("middle", 2.0)):
            loop.call_later(seconds, lambda name=name: fired.append((name, now_ns() - START_NS)))
        await asyncio.sleep(5)
        return fired

    assert run(main()) == [("early", 10**9), ("middle", 2 * 10**9), ("late", 3 * 10**9)]


def test_the_clock_starts_where_told_and_never_stalls_far_from_zero() -> None:
    async def main() -> int:
        for _ in range(100):
            await asyncio.sleep(0.0001)
        return now_ns()

    start_ns = 1_700_000_000 * 10**9  # a float second there is coarser than the clock's resolution
    assert run(main(), start_ns=start_ns) - start_ns == pytest.approx(10**7, rel=0.01)


def test_timeouts_are_virtual() -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        run(main())


def test_a_deadlock_names_the_tasks_that_wait() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(forever(), name="the stuck one")

    with pytest.raises(Deadlock, match=r"the stuck one .*forever"):
        run(main())


def test_a_timer_that_never_ends_is_found() -> None:
    async def main() -> None:
        async def heartbeat() -> None:
            while True:  # noqa: ASYNC110  a timer without end is the point
                await asyncio.sleep(3600)

        asyncio.get_running_loop().create_task(heartbeat(), name="heartbeat")
        await asyncio.Event().wait()

    with pytest.raises(TimeExhausted, match="heartbeat"):
        run(main())


def test_real_sockets_are_refused() -> None:
    async def connect() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    async def bare() -> None:
        left, right = socket.socketpair()
        with left, right:
            asyncio.get_running_loop().add_reader(left.fileno(), lambda: None)

    for main in (connect, bare):
        with pytest.raises(OutsideRefused, match="memory link"):
            run(main())


def test_real_sockets_work_where_asked() -> None:
    async def main() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(4))
            await writer.drain()
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"ping")
        answer = await reader.readexactly(4)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return answer

    assert run(main(), outside=Outside.SOCKETS) == b"ping"


class MemoryTransport(asyncio.Transport):
    """Hands what is written to the peer's protocol, on the loop's next turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop, self.peer = loop, None

    def write(self, data: bytes) -> None:
        self.loop.call_soon(self.peer.data_received, bytes(data))


def test_streams_over_a_memory_transport() -> None:
    async def main() -> tuple[bytes, int]:
        loop = asyncio.get_running_loop()
        here, there = MemoryTransport(loop), MemoryTransport(loop)
        reader_here, reader_there = asyncio.StreamReader(), asyncio.StreamReader()
        protocol_here = asyncio.StreamReaderProtocol(reader_here)
        protocol_there = asyncio.StreamReaderProtocol(reader_there)
        here.peer, there.peer = protocol_there, protocol_here

        async def answer() -> None:
            request = await reader_there.readexactly(4)
            await asyncio.sleep(7)
            there.write(request[::-1])

        async with asyncio.TaskGroup() as group:
            group.create_task(answer())
            here.write(b"ping")
            return await reader_here.readexactly(4), now_ns() - START_NS

    assert run(main()) == (b"gnip", 7 * 10**9)


def test_a_job_in_a_thread_takes_no_virtual_time() -> None:
    async def main() -> int:
        await asyncio.to_thread(time.sleep, 0.05)
        return now_ns()

    assert run(main()) == START_NS


def test_what_main_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run(main())


def test_a_callback_that_raises_fails_the_run() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    assert caught.group_contains(ZeroDivisionError)


def test_a_task_that_fails_while_cancelled_fails_the_run() -> None:
    async def main() -> None:
        async def rude() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                raise RuntimeError("while cleaning up")

        asyncio.get_running_loop().create_task(rude())
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        run(main())
    assert caught.group_contains(RuntimeError, match="cleaning up")


def test_now_ns_belongs_to_virtual_time() -> None:
    async def main() -> None:
        with pytest.raises(VirtualTimeError, match="not a VirtualLoop"):
            now_ns()

    asyncio.run(main())
