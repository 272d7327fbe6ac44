"""How far one reader of a lane is, and what happens when it falls too far behind."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping

from gateway.disk.record import Position
from gateway.journal.acknowledged import Acknowledged, Range
from gateway.journal.codec import CursorNote


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
    ) -> None:
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
        self._acknowledged.add(after, upto)
        self._changed()

    def is_acknowledged(self, position: Position) -> bool:
        """Whether it need not be sent."""
        return position in self._acknowledged

    def pass_by(self, position: Position) -> None:
        """Nothing of this cursor's lies between its low mark and `position`."""
        self._acknowledged.raise_to(position)

    def drop(self, position: Position, before: Mapping[str, int], after: Mapping[str, int]) -> int:
        """Give up everything up to `position`; counts at the old and the new low mark. How many records."""
        lost = sum(after.get(stream, 0) - before.get(stream, 0) for stream in self.streams)
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
