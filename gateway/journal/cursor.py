"""How far one reader of a lane is, and what happens when it falls too far behind."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

from gateway.disk.record import Position
from gateway.journal.acknowledged import Acknowledged, Range
from gateway.journal.codec import CursorNote

NO_MARK: Final[Position] = (1 << 32, 0)  # behind every position


class Full(enum.Enum):
    """What gives way when a cursor's bound is reached."""

    DROP_OLDEST = "drop_oldest"  # the cursor jumps forward, and what it lost is counted
    THIN = "thin"  # of the oldest values each second one is taken out, and so on, each counted and marked
    BLOCK = "block"  # the journal pushes back until it is below the bound again


class Cursor:
    """Belongs to one (uplink, buffer policy) in one lane. For the owner's thread only, except `low`.

    `keep_ns` is running time of the journal, `max_bytes` bytes of the lane between low mark and end.
    """

    def __init__(
        self,
        name: str,
        *,
        streams: frozenset[str],
        low: Position,
        ranges: tuple[Range, ...],
        keep_ns: int,
        max_bytes: int,
        full: Full,
        ranges_max: int,
        changed: Callable[[], None],
        marks_at: Callable[[Position], tuple[Position, Position]] = lambda _: ((0, 0), NO_MARK),
    ) -> None:
        """`marks_at(position)`: the last mark of the lane that is not behind it, and the first that is."""
        self.name = name
        self.streams = streams
        self.keep_ns = keep_ns
        self.max_bytes = max_bytes
        self.full = full
        self.is_configured = True
        self.dropped = 0  # records, all runs
        self.dropped_upto: Position = (0, 0)  # the last position that was dropped, with everything before it
        self.thinned = 0  # values taken out, all runs
        self._acknowledged = Acknowledged(low, ranges, ranges_max=ranges_max)
        self._changed = changed
        self._marks_at = marks_at
        self._mark: Position = (0, 0)  # the last one not behind the low mark, when that last moved
        self._next_mark: Position = (0, 0)
        self._passed = 0  # records acknowledged one by one between that mark and the low mark

    @property
    def low(self) -> Position:
        """Everything of this cursor's up to here is done with."""
        return self._acknowledged.low

    @property
    def ranges(self) -> tuple[Range, ...]:
        """Acknowledged ranges above `low`; pass it to `Reader.read` to have them left out."""
        return self._acknowledged.ranges

    @property
    def forgotten(self) -> int:
        """Acknowledged ranges given up for lack of room: what they held is delivered again."""
        return self._acknowledged.forgotten

    def acknowledge(self, after: Position, upto: Position) -> None:
        """Everything of this cursor's streams in (after, upto] is acknowledged.

        Chain your own records: `after` is the position of the one before. The first one of a run has
        `after` = (epoch, 0), one from a `Reader` has `record.after`.
        """
        low = self._acknowledged.low
        self._acknowledged.add(after, upto)
        if self._acknowledged.low != low:
            self._count_passed()
        self._changed()

    def mark_added(self, position: Position) -> None:
        """The lane has one more mark, the last."""
        self._next_mark = min(self._next_mark, position)

    def _count_passed(self) -> None:
        low = self._acknowledged.low
        if low < self._next_mark:
            self._passed += 1
        else:
            self._mark, self._next_mark = self._marks_at(low)
            self._passed = 1 if low > self._mark else 0

    def is_acknowledged(self, position: Position) -> bool:
        """Whether it need not be sent."""
        return position in self._acknowledged

    def pass_by(self, position: Position) -> None:
        """Nothing of this cursor's lies between its low mark and `position`."""
        self._acknowledged.raise_to(position)

    def drop(
        self, position: Position, before: Mapping[str, int], after: Mapping[str, int], *, mark: Position
    ) -> int:
        """Give up everything up to `position`; counts at `mark`, not behind the low mark, and at `position`.

        How many records: too many only by those acknowledged out of order, or before this run.
        """
        lost = sum(after.get(stream, 0) - before.get(stream, 0) for stream in self.streams)
        if mark == self._mark:
            lost = max(0, lost - self._passed)
        self._mark, self._next_mark, self._passed = position, (0, 0), 0
        self.dropped += lost
        self.dropped_upto = position
        self._acknowledged.raise_to(position)
        return lost

    def note(self) -> CursorNote:
        """To be saved."""
        return CursorNote(
            self.name,
            tuple(sorted(self.streams)),
            self.low,
            self.ranges,
            self.keep_ns,
            self.max_bytes,
            self.full.value,
            self.dropped,
            self.dropped_upto,
            self.thinned,
        )
