"""A call that may never return, beside the loop: on a thread of its own, which no stop waits for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
_Outcome: TypeAlias = tuple[T | None, OSError | None]


class Aside(Generic[T]):
    """The same call, once at a time: name servers and device drivers that hang hold up nobody else.

    The loop's own threads are few and shared: five calls that hang would hold up every other, and the end of
    the process.
    """

    def __init__(self, name: str, work: Callable[[], T]) -> None:
        """`work` raises `OSError` for what may go wrong; anything else is a fault of ours and shows."""
        self._name: Final = name
        self._work: Final = work
        self._answer: asyncio.Future[_Outcome[T]] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the call was made and has not returned."""
        return self._answer is not None and not self._answer.done()

    async def result(self) -> T:
        """What the call returns. Raises its `OSError`.

        A cancelled wait leaves the call under way: the next one gets its result, and makes no second call.
        """
        answer = self._answer or self._call()
        try:
            value, error = await asyncio.shield(answer)
        except asyncio.CancelledError:
            raise
        except BaseException:
            self._answer = None
            raise
        self._answer = None
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # with no error it is what the call returned

    def forget(self, discard: Callable[[T], None]) -> None:
        """Nobody wants the result any more: `discard` gets it, whenever it comes."""
        answer, self._answer = self._answer, None
        if answer is None:
            return

        def dispose(done: asyncio.Future[_Outcome[T]]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            value, error = done.result()
            if error is None:
                discard(value)  # type: ignore[arg-type]  # as above

        answer.add_done_callback(dispose)

    def _call(self) -> asyncio.Future[_Outcome[T]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Outcome[T]] = loop.create_future()
        self._answer = answer

        def carry_out() -> None:
            try:
                outcome: _Outcome[T] = (self._work(), None)
            except OSError as error:
                outcome = (None, error)
            except Exception as fault:  # noqa: BLE001 - raised where the result is awaited
                _tell(loop, answer.set_exception, fault)
                return
            _tell(loop, answer.set_result, outcome)

        threading.Thread(target=carry_out, name=self._name, daemon=True).start()
        return answer


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[T], None], what: T) -> None:
    try:
        loop.call_soon_threadsafe(tell, what)
    except RuntimeError:
        pass  # the loop is closed: nobody waits any more
