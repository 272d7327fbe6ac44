"""Questions about the past of a running gateway: a worker thread reads, in turns, and never for too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gateway.aio.threads import Worker
from gateway.api.source import HistoryStatus, rfc3339
from gateway.app.rules import LANES
from gateway.core.bounded import Bound, Level
from gateway.core.clock import Clock
from gateway.core.errors import StorageError
from gateway.journal.historian import HistoryError, Now, Page, Pages, Question
from gateway.journal.journal import Journal
from gateway.journal.retention import RetentionStats

_log = logging.getLogger("gateway.history")

AT_ONCE_MAX: Final = 4  # questions at work; more are refused
ANSWER_NS_MAX: Final = 30_000_000_000  # for one page
QUESTIONS: Final = Bound(
    noun="history",
    unit="questions",
    what="questions about the past at work",
    beyond="the next one is answered 503",
    lost="refused",
)
COMMIT_NS_MAX: Final = 1_000_000_000  # waited for the disk to have what was accepted before the question
COMMIT_LOOK_S: Final = 0.005
STEPS_AT_ONCE: Final = 4  # pieces read before another question gets its turn


class HistoryDesk:
    """Implements `HistorySource`. For the loop's thread."""

    def __init__(self, journal: Journal, *, clock: Clock) -> None:
        self._journal = journal
        self._historian = journal.historian()
        self._clock = clock
        self._worker = Worker("history")
        self._at_work: set[_Asked] = set()
        self.refused = 0

    def levels(self) -> tuple[Level, ...]:
        """Questions, and pieces of work that wait for the thread."""
        return (
            QUESTIONS.at(len(self._at_work), AT_ONCE_MAX, self.refused),
            self._worker.level(AT_ONCE_MAX),
        )

    def wall_ns(self) -> int:
        """Now."""
        return self._clock.wall_ns()

    def ask(
        self, question: Question, *, done: Callable[[Page], None], failed: Callable[[int, str], None]
    ) -> Callable[[], None] | None:
        """See `HistorySource`."""
        if len(self._at_work) >= AT_ONCE_MAX:
            self.refused += 1
            return None
        self._journal.flush()
        started_ns = self._clock.monotonic_ns()
        asked = _Asked(Now(self._clock.wall_ns(), self._journal.epoch), done, failed)
        asked.deadline_ns = started_ns + ANSWER_NS_MAX
        self._at_work.add(asked)
        ends = {lane: self._journal.end(lane) for lane in LANES}

        def begin() -> None:
            """Once the disk has what was accepted so far: a value must not hold that was replaced already."""
            if not all(self._journal.committed(lane) >= end for lane, end in ends.items()):
                if self._clock.monotonic_ns() - started_ns < COMMIT_NS_MAX and not asked.is_given_up:
                    asyncio.get_running_loop().call_later(COMMIT_LOOK_S, begin)
                    return
                asked.now = Now(asked.now.wall_ns, 0)  # the disk does not follow: only what it says is known
            self._start(asked, question)

        begin()
        return lambda: self._give_up(asked)

    def close(self) -> None:
        """Wait for the piece under way; nothing more is answered."""
        for asked in self._at_work:
            asked.is_given_up = True
        self._worker.close()

    def _start(self, asked: _Asked, question: Question) -> None:
        try:
            asked.pages = self._historian.ask(question, asked.now)
        except HistoryError as error:
            self._fail(asked, error)
        else:
            self._next(asked)

    def _next(self, asked: _Asked) -> None:
        self._worker.submit(
            asked.work,
            done=lambda page: self._worked(asked, page),
            failed=lambda error: self._fail(asked, error),
        )

    def _worked(self, asked: _Asked, page: Page | None) -> None:
        if asked.is_given_up:
            self._at_work.discard(asked)
        elif page is not None:
            self._at_work.discard(asked)
            asked.done(page)
        elif self._clock.monotonic_ns() > asked.deadline_ns:
            asked.is_given_up = True
            self._at_work.discard(asked)
            asked.failed(
                503, f"not answered within {ANSWER_NS_MAX / 1e9:g} s: ask for less time or fewer tags"
            )
        else:
            self._next(asked)

    def _fail(self, asked: _Asked, error: BaseException) -> None:
        self._at_work.discard(asked)
        if asked.is_given_up:
            return
        if isinstance(error, HistoryError):
            asked.failed(400, str(error))
        elif isinstance(error, StorageError):
            asked.failed(500, str(error))
        else:
            _log.error("a question about the past failed", exc_info=error)
            asked.failed(500, "it failed; the log of the gateway has the details")

    def _give_up(self, asked: _Asked) -> None:
        asked.is_given_up = True


class _Asked:
    """One question at work."""

    def __init__(
        self,
        now: Now,
        done: Callable[[Page], None],
        failed: Callable[[int, str], None],
    ) -> None:
        self.now = now
        self.done = done
        self.failed = failed
        self.deadline_ns = 0
        self.is_given_up = False
        self.pages: Pages | None = None

    def work(self) -> Page | None:
        """On the worker's thread: some pieces; the page once it is whole."""
        assert self.pages is not None
        for _ in range(STEPS_AT_ONCE):
            if self.is_given_up:
                self.pages.close()
                return None
            try:
                next(self.pages)
            except StopIteration as end:
                page: Page = end.value
                return page
        return None


def history_status(stats: RetentionStats | None) -> HistoryStatus | None:
    """In the words of the API; None where no history is kept."""
    if stats is None:
        return None
    return HistoryStatus(
        size_bytes=stats.kept_bytes,
        limit_bytes=stats.limit_bytes,
        keep_s=stats.keep_ns / 1e9,
        oldest=None if stats.oldest_ns is None else rfc3339(stats.oldest_ns),
        deleted_bytes_total=stats.deleted_bytes,
        gave_way_bytes_total=stats.gave_way_bytes,
    )
