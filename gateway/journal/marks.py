"""A sparse index of a lane: bytes, running time and records that had passed at some positions."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping

import msgspec

from gateway.disk.record import Position


class Mark(msgspec.Struct, gc=False):
    """Taken right behind the record at `position`."""

    position: Position
    offset: int  # bytes of the lane before it, counted since its first segment that was there at start
    elapsed_ns: int  # running time of the journal: every record up to here is at least this old
    counts: dict[str, int]  # stream → records up to here


class Marks:
    """Sorted; position, offset and running time never fall."""

    def __init__(self, first: Mark) -> None:
        self._marks = [first]

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def last(self) -> Mark:
        """The newest."""
        return self._marks[-1]

    def add(self, mark: Mark) -> None:
        """One more, not before the last."""
        self._marks.append(mark)

    def before(self, position: Position) -> Mark:
        """The last mark not behind `position`; the oldest where all are."""
        return self._marks[max(0, bisect_right(self._marks, position, key=lambda mark: mark.position) - 1)]

    def after(self, position: Position) -> Mark | None:
        """The first mark behind `position`, None where none is."""
        index = bisect_right(self._marks, position, key=lambda mark: mark.position)
        return self._marks[index] if index < len(self._marks) else None

    def until_offset(self, offset: int) -> Mark | None:
        """The last mark with at most so many bytes before it."""
        index = bisect_right(self._marks, offset, key=lambda mark: mark.offset)
        return self._marks[index - 1] if index else None

    def until_elapsed(self, elapsed_ns: int) -> Mark | None:
        """The last mark that is not younger."""
        index = bisect_right(self._marks, elapsed_ns, key=lambda mark: mark.elapsed_ns)
        return self._marks[index - 1] if index else None

    def shrink(
        self, after: Position, upto: Position, size: int, removed: Mapping[str, int] | None = None
    ) -> None:
        """What stands in (after, upto] takes `size` bytes less and has so many records less by stream."""
        marks = self._marks
        if removed is not None:  # nobody knows what of it stood before a mark in the middle
            low = max(1, bisect_right(marks, after, key=lambda mark: mark.position))
            del marks[low : max(low, bisect_left(marks, upto, key=lambda mark: mark.position))]
        first = bisect_left(marks, upto, key=lambda mark: mark.position)
        for mark in marks[first:]:
            mark.offset -= size
            if removed:
                mark.counts = {name: count - removed.get(name, 0) for name, count in mark.counts.items()}
        for place in range(first - 1, -1, -1):  # a mark within what shrank
            if place + 1 == len(marks) or marks[place].offset <= marks[place + 1].offset:
                break
            marks[place].offset = marks[place + 1].offset

    def prune(self, position: Position) -> None:
        """Forget what lies below the last mark not behind `position`."""
        below = bisect_right(self._marks, position, key=lambda mark: mark.position) - 1
        del self._marks[: max(0, below)]
