"""Virtual time: an asyncio loop whose clock jumps to the next timer as soon as nothing is ready.

A test of hours runs in milliseconds and always the same way. Memory transports work as they are. Real
sockets and subprocesses are refused unless asked for, because their bytes arrive at a moment that no seed
fixes. Work given to the default executor is waited for in real time, with the virtual clock held still.

    from tests.virtual_time import run

    def test_backs_off() -> None:
        async def main() -> None:
            before_ns = now_ns()
            await asyncio.sleep(3600)
            assert now_ns() - before_ns == 3600 * 10**9
        run(main())
"""

from __future__ import annotations

import asyncio
import enum
import math
import selectors
import socket
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_NS = 1_000 * 10**9
LIMIT_NS = 30 * 86_400 * 10**9  # a test that needs more than a month spins on a timer that never ends it
EXECUTOR_PATIENCE_S = 5.0  # real seconds for one job in a thread
OUTSIDE_PATIENCE_S = 5.0  # real seconds without a byte from real sockets before it is a deadlock
OUTSIDE_GRACE_S = 0.002  # real seconds that real sockets get before each jump


class Outside(enum.Enum):
    """What a run may touch of the world outside the process."""

    NOTHING = "nothing"
    SOCKETS = "sockets"


class VirtualTimeError(Exception):
    """Something that virtual time cannot carry on with."""


class Deadlock(VirtualTimeError):
    """The main coroutine waits, and no timer, callback or thread is left that could wake it."""


class TimeExhausted(VirtualTimeError):
    """Timers kept firing until the limit and the main coroutine was still not done."""


class OutsideRefused(VirtualTimeError):
    """A real socket, pipe or process was asked for in a run that touches nothing outside."""


class _JumpingSelector(selectors.BaseSelector):
    """Asks the real selector without waiting; where asyncio would wait, the clock moves instead."""

    def __init__(self, outside: Outside) -> None:
        self._real = selectors.DefaultSelector()
        self._outside = outside
        self.loop: VirtualLoop | None = None

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self._outside is Outside.NOTHING and self._real.get_map():  # the first is the loop's own self-pipe
            raise OutsideRefused(
                f"a real file descriptor ({fileobj!r}) in virtual time: use a memory link, "
                "or run(..., outside=Outside.SOCKETS)"
            )
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self.loop
        ready = self._real.select(0)
        if ready or loop is None or (timeout is not None and timeout <= 0):
            return ready
        if loop.jobs_in_threads:
            ready = self._real.select(EXECUTOR_PATIENCE_S)
            if not ready:
                raise Deadlock(
                    f"{loop.jobs_in_threads} job(s) in the default executor did not end within "
                    f"{EXECUTOR_PATIENCE_S:g} real seconds\n{loop.pending()}"
                )
            return ready
        if self._outside is Outside.SOCKETS:
            ready = self._real.select(OUTSIDE_PATIENCE_S if timeout is None else OUTSIDE_GRACE_S)
            if ready:
                return ready
        if timeout is None:
            raise Deadlock(f"nothing is scheduled and the main coroutine is not done\n{loop.pending()}")
        loop.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop that `run` uses. `now_ns` is its clock; `time()` is the same in seconds."""

    def __init__(
        self, *, start_ns: int = START_NS, limit_ns: int = LIMIT_NS, outside: Outside = Outside.NOTHING
    ) -> None:
        self.now_ns = start_ns
        self.jobs_in_threads = 0
        self._end_ns = start_ns + limit_ns
        self._outside = outside
        selector = _JumpingSelector(outside)
        super().__init__(selector)
        selector.loop = self
        self._clock_resolution = max(1e-9, math.ulp(self._end_ns / 1e9))  # or a due timer far out never fires

    def time(self) -> float:
        return self.now_ns / 1e9

    def advance(self, seconds: float) -> None:
        """Move the clock by what asyncio was about to wait; at least 1 ns: rounding cannot stall it."""
        self.now_ns += max(1, round(seconds * 1e9))
        if self.now_ns > self._end_ns:
            raise TimeExhausted(
                f"the limit of virtual time is reached and the main coroutine is not done\n{self.pending()}"
            )

    def pending(self) -> str:
        """One line per task that is not done: its name and where it waits."""
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack(limit=1)
            where = f"{frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else "not started"
            lines.append(f"  {task.get_name()} {task.get_coro()!r} waits at {where}")
        return "pending tasks:\n" + "\n".join(lines or ["  none"])

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.jobs_in_threads += 1
        future.add_done_callback(self._job_ended)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        self.jobs_in_threads += 1  # it joins the pool from one more thread
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self.jobs_in_threads -= 1

    def _job_ended(self, _future: asyncio.Future[Any]) -> None:
        self.jobs_in_threads -= 1

    def _refuse(self, verb: str) -> None:
        if self._outside is Outside.NOTHING:
            raise OutsideRefused(
                f"loop.{verb} in virtual time: use a memory link, or run(..., outside=Outside.SOCKETS)"
            )

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("getaddrinfo")
        return await super().getaddrinfo(*args, **kwargs)

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("create_connection")
        return await super().create_connection(*args, **kwargs)

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("create_server")
        return await super().create_server(*args, **kwargs)

    async def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("create_datagram_endpoint")
        return await super().create_datagram_endpoint(*args, **kwargs)

    async def create_unix_connection(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("create_unix_connection")
        return await super().create_unix_connection(*args, **kwargs)

    async def create_unix_server(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("create_unix_server")
        return await super().create_unix_server(*args, **kwargs)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        self._refuse("sock_connect")
        return await super().sock_connect(sock, address)

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("subprocess_exec")
        return await super().subprocess_exec(*args, **kwargs)

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        self._refuse("subprocess_shell")
        return await super().subprocess_shell(*args, **kwargs)


def now_ns() -> int:
    """The virtual monotonic time, from inside a run. Raises `VirtualTimeError` elsewhere."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualLoop):
        raise VirtualTimeError(f"the running loop is a {type(loop).__name__}, not a VirtualLoop")
    return loop.now_ns


def run(
    main: Coroutine[Any, Any, T],
    *,
    start_ns: int = START_NS,
    limit_ns: int = LIMIT_NS,
    outside: Outside = Outside.NOTHING,
) -> T:
    """Run `main` to its end in virtual time, from `start_ns` on the monotonic clock, and return its result.

    Tasks left over are cancelled, as `asyncio.run` does. Raises what `main` raises; `Deadlock` or
    `TimeExhausted`, naming the pending tasks, where it cannot end; an `ExceptionGroup` of whatever callbacks
    and forgotten tasks raised, which asyncio would only have logged.
    """
    loop = VirtualLoop(start_ns=start_ns, limit_ns=limit_ns, outside=outside)
    unhandled: list[Exception] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(_as_exception(context)))
    asyncio.set_event_loop(loop)
    try:
        try:
            result = loop.run_until_complete(main)
        finally:
            _cancel_leftovers(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
    except BaseException as error:
        for other in unhandled:
            error.add_note(f"the loop also reported: {other!r}")
        raise
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    if unhandled:
        raise ExceptionGroup("callbacks or forgotten tasks raised", unhandled)
    return result


def _as_exception(context: dict[str, Any]) -> Exception:
    error = context.get("exception")
    if isinstance(error, Exception):
        error.add_note(str(context.get("message")))
        return error
    return VirtualTimeError(f"{context.get('message')}: {error!r}")


def _cancel_leftovers(loop: VirtualLoop) -> None:
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if not leftovers:
        return
    loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
    for task in leftovers:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {"message": f"{task.get_name()} raised while it was cancelled", "exception": task.exception()}
            )
