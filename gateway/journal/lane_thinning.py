"""Thinning of one lane at work: one piece at a time, beside everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from gateway.core.clock import Clock
from gateway.disk.filesystem import NO_ROOM, FileSystem
from gateway.disk.record import Damage
from gateway.disk.segment import Segment
from gateway.disk.writer import State
from gateway.journal import choice, thinning
from gateway.journal.cursor import Cursor
from gateway.journal.jobs import Jobs
from gateway.journal.settings import JournalSettings

if TYPE_CHECKING:
    from gateway.journal.lane import Lane

GAIN_MIN: Final = 0.1  # share of its bytes that thinning must save, else a segment is not thinned again

_log = logging.getLogger("gateway.journal")


class LaneThinning:
    """For the owner's thread."""

    def __init__(
        self,
        lane: Lane,
        *,
        filesystem: FileSystem,
        settings: JournalSettings,
        clock: Clock,
        jobs: Jobs,
        report: Callable[[Damage], None],
    ) -> None:
        """`report`: damage that was found in what is rewritten."""
        self.sources: tuple[Segment, ...] = ()  # of the piece under way: they must stay where they are
        self._has_nothing = False  # since it was last looked for
        self._is_short = False  # of room on the disk, and it was told
        self._lane = lane
        self._filesystem = filesystem
        self._settings = settings
        self._clock = clock
        self._jobs = jobs
        self._report = report
        self._useless: set[str] = set()  # names of segments that it did not make smaller

    @property
    def is_ready(self) -> bool:
        """Whether it would begin with something once a backlog is long enough."""
        return not self.sources and not self._has_nothing

    def look_again(self) -> None:
        """There may be something to make thinner now."""
        self._has_nothing = False

    def look_at(self, cursor: Cursor) -> None:
        """Begin to make its backlog thinner where that is due and nothing else is being rewritten."""
        lane = self._lane
        if self.sources or not choice.is_due(lane.lag_bytes(cursor), cursor):
            return
        chosen = choice.choose(
            cursor,
            lane.log.segments(),
            segment_bytes=self._settings.segment_bytes,
            useless=self._useless,
        )
        self._has_nothing = chosen is None
        if chosen is None:
            return
        task = choice.task_of(
            chosen,
            cursor,
            lane.cursors.values(),
            log=lane.log,
            lane=int(lane.priority),
            settings=self._settings,
            created_ns=self._clock.wall_ns(),
            elapsed_ns=lane.elapsed_ns(),
            is_history_kept=lane.keeps_history,
        )
        if not self._has_room(chosen.sources):
            return
        self.sources = chosen.sources
        self._jobs.submit(
            lambda: thinning.thin(self._filesystem, task, is_stopping=self._jobs.is_closing),
            done=self._done,
            failed=self._failed,
        )

    def _done(self, result: thinning.Thinned) -> None:
        """The thinner segment is durable: it stands for its sources from now on."""
        lane, sources = self._lane, result.task.sources
        self.sources = ()
        if lane.log.writer.failure is not None or lane.log.writer.state is State.CLOSED:
            return  # the next start finds it
        for cursor in lane.cursors.values():
            cursor.thinned += sum(result.values.get(stream, 0) for stream in cursor.streams)
        for damage in result.damage:
            self._report(damage)
        self._is_short = False
        self._useless -= {segment.name for segment in sources}
        if result.saved_bytes < sum(segment.size for segment in sources) * GAIN_MIN:
            self._useless.add(result.segment.name)
        lane.shrunk(sources, result.segment, result.records)

    def _failed(self, error: Exception) -> None:
        """Nothing was changed; the oldest are dropped where the bound asks for it."""
        sources, self.sources = self.sources, ()
        if isinstance(error, thinning.Stopped):
            return
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            self._wait_for_room()
            return
        self._useless.update(segment.name for segment in sources)
        _log.error("a backlog cannot be made thinner", extra={**self._facts(), "reason": str(error)})

    def _facts(self) -> dict[str, str]:
        return {"lane": self._lane.priority.name.lower()}

    def _has_room(self, sources: Sequence[Segment]) -> bool:
        """Whether the disk takes the thinner ones beside them, which may be as large."""
        try:
            free_bytes = self._filesystem.free_bytes(self._lane.log.directory)
        except OSError:  # then writing tells
            return True
        if free_bytes <= sum(segment.size for segment in sources):
            self._wait_for_room()
            return False
        return True

    def _wait_for_room(self) -> None:
        """Until `look_again`: what does not fit now may later, so no segment is given up for it."""
        self._has_nothing = True
        if not self._is_short:
            self._is_short = True
            _log.warning("no room on the disk to make a backlog thinner beside itself", extra=self._facts())
