"""Tasks that are started again when they crash, and stopped by name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Self

from gateway.aio.endpoint import Backoff
from gateway.core.errors import InvariantError

_log = logging.getLogger("gateway.supervisor")

_FIRST_WAIT_S: Final = 0.5
_LIMIT_WAIT_S: Final = 60.0


class Supervisor:
    """A task group whose members crash alone: one is restarted with backoff, the rest go on.

    Only `InvariantError` (something that cannot be is) goes through and ends the group.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._launched: set[asyncio.Task[None]] = set()
        self.crashes: Final[dict[str, int]] = {}

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        for task in (*self._tasks.values(), *self._launched):
            task.cancel()
        await self._group.__aexit__(kind, error, trace)  # type: ignore[arg-type]  # traceback

    def spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Keep `run` running under `name` until stopped; a normal return ends it."""
        if name in self._tasks:
            raise InvariantError(f"a task named {name} runs already")
        task = self._group.create_task(self._keep(name, run), name=name)
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._forget(name, done))

    def launch(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` once, beside everything else; its crash is logged and goes no further."""
        task = self._group.create_task(self._once(name, work), name=name)
        self._launched.add(task)
        task.add_done_callback(self._launched.discard)

    async def stop(self, name: str, *, timeout_s: float = 3.0) -> None:
        """Cancel one and wait for its end, at most `timeout_s`."""
        task = self._tasks.get(name)
        if task is None:
            return
        task.cancel()
        _done, pending = await asyncio.wait([task], timeout=timeout_s)
        if pending:
            _log.error("task does not stop", extra={"task": name, "waited_s": timeout_s})

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def _once(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except InvariantError:
            raise
        except Exception:  # noqa: BLE001 - as in `_keep`
            self.crashes[name] = self.crashes.get(name, 0) + 1
            _log.exception("task crashed", extra={"task": name})

    async def _keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        backoff = Backoff(first_s=_FIRST_WAIT_S, limit_s=_LIMIT_WAIT_S)
        clock_s = asyncio.get_running_loop().time
        while True:
            started_s = clock_s()
            try:
                await run()
            except InvariantError:
                raise
            except Exception:  # noqa: BLE001 - the crash of one must not be the crash of all; it is logged whole
                self.crashes[name] = self.crashes.get(name, 0) + 1
                if _is_stopping():
                    _log.exception("task crashed while it was stopped", extra={"task": name})
                    return
                if clock_s() - started_s > _LIMIT_WAIT_S:
                    backoff.reset()
                wait_s = backoff.wait_s()
                facts = {"task": name, "wait_s": round(wait_s, 1)}
                _log.exception("task crashed, starting it again", extra=facts)
                await asyncio.sleep(wait_s)
            else:
                return


def _is_stopping() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
