"""How long and how much of the past is kept beyond what uplinks still need."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from gateway.disk.segment import Segment
from gateway.disk.writer import State

_log = logging.getLogger("gateway.history")

ROOM_SEGMENTS: Final = 2  # so many segments stay free on the disk, as far as history can give way


class RetainedLane(Protocol):
    """What retention asks of a lane."""

    keeps_history: bool

    def passed(self) -> tuple[Segment, ...]:
        """Segments that no cursor needs, oldest first, never the active one."""
        ...

    def delete_passed(self, count: int) -> None:
        """Unlink the oldest of them."""
        ...

    def age_ns(self, segment: Segment) -> int | None:
        """Running time since it was sealed, None where it is not known."""
        ...

    def size_bytes(self) -> int:
        """Of all its segments."""
        ...

    def writing(self) -> State:
        """Whether its disk takes data."""
        ...


class RetentionStats(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept for history alone, and what went. Counts since start."""

    kept_bytes: int  # in segments that every cursor passed
    limit_bytes: int
    keep_ns: int
    oldest_ns: int | None  # wall clock of the oldest record there is
    deleted_segments: int
    deleted_bytes: int
    gave_way_segments: int  # of them: for room on a full disk, before their time
    gave_way_bytes: int


class Retention:
    """Deletes what every cursor passed once it is too old or too much, or the disk needs the room.

    Age is running time of the journal: no step of the clock, and no time switched off, deletes anything.
    `max_bytes` bounds the whole journal, backlog included; a backlog that needs more takes it, and history
    goes.
    For the owner's thread; `free_bytes` must not block.
    """

    def __init__(
        self, *, keep_ns: int, max_bytes: int, segment_bytes: int, free_bytes: Callable[[], int | None]
    ) -> None:
        self._keep_ns = keep_ns
        self._max_bytes = max_bytes
        self._room_bytes = ROOM_SEGMENTS * segment_bytes
        self._free_bytes = free_bytes
        self._lanes: Sequence[RetainedLane] = ()
        self._deleted = self._deleted_bytes = 0
        self._gave_way = self._gave_way_bytes = 0
        self._is_short = False

    def attach(self, lanes: Sequence[RetainedLane]) -> None:
        """From now on these lanes delete what was passed only when told."""
        self._lanes = lanes
        for lane in lanes:
            lane.keeps_history = True

    def enforce(self) -> None:
        """Call it each second or so."""
        for lane in self._lanes:
            for segment in self._too_old(lane):
                self._delete(lane, segment)
        excess = sum(lane.size_bytes() for lane in self._lanes) - self._max_bytes
        while excess > 0 and (oldest := self._oldest()) is not None:
            excess -= oldest[1].size
            self._delete(*oldest)
        self._make_room()

    def stats(self) -> RetentionStats:
        """For the status."""
        passed = [segment for lane in self._lanes for segment in lane.passed()]
        oldest = min((segment.first_time_ns for segment in passed if segment.first_time_ns), default=None)
        return RetentionStats(
            kept_bytes=sum(segment.size for segment in passed),
            limit_bytes=self._max_bytes,
            keep_ns=self._keep_ns,
            oldest_ns=oldest,
            deleted_segments=self._deleted,
            deleted_bytes=self._deleted_bytes,
            gave_way_segments=self._gave_way,
            gave_way_bytes=self._gave_way_bytes,
        )

    def _too_old(self, lane: RetainedLane) -> list[Segment]:
        """One that does not say when it was sealed (its footer is damaged) is as old as the one behind it."""
        passed = lane.passed()
        count = 0
        for number, segment in enumerate(passed, 1):
            age_ns = lane.age_ns(segment)
            if age_ns is None:
                continue
            if age_ns <= self._keep_ns:
                break
            count = number
        return list(passed[:count])

    def _make_room(self) -> None:
        """A disk that gets full takes history before it stops anything."""
        missing = self._room_bytes if any(lane.writing() is State.FULL for lane in self._lanes) else 0
        free = self._free_bytes()
        if free is not None:
            missing = max(missing, self._room_bytes - free)
        went = 0
        while missing > 0 and (oldest := self._oldest()) is not None:
            missing -= oldest[1].size
            went += oldest[1].size
            self._gave_way += 1
            self._gave_way_bytes += oldest[1].size
            self._delete(*oldest)
        if went and not self._is_short:
            _log.warning(
                "the disk gets full: history is deleted before its time", extra={"deleted_bytes": went}
            )
        self._is_short = bool(went)

    def _oldest(self) -> tuple[RetainedLane, Segment] | None:
        """The one sealed first; what does not say when was sealed by an older version."""
        first = [(lane, passed[0]) for lane in self._lanes if (passed := lane.passed())]
        never = 1 << 62
        return max(
            first, key=lambda one: never if (age := one[0].age_ns(one[1])) is None else age, default=None
        )

    def _delete(self, lane: RetainedLane, segment: Segment) -> None:
        lane.delete_passed(1)
        self._deleted += 1
        self._deleted_bytes += segment.size
