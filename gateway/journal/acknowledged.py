"""What of a lane one reader has acknowledged: everything up to a low mark, and some ranges above it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final, TypeAlias

from gateway.disk.record import Position

Range: TypeAlias = tuple[Position, Position]
"""(after, upto]: the first is not part of it, the second is."""

RANGES_MAX: Final = 256
"""Ranges kept above the low mark; the highest is forgotten beyond it and will be delivered again."""


class Acknowledged:
    """A low mark and disjoint, sorted ranges above it that neither touch it nor each other."""

    __slots__ = ("_ranges", "_ranges_max", "forgotten", "low")

    def __init__(
        self, low: Position, ranges: tuple[Range, ...] = (), *, ranges_max: int = RANGES_MAX
    ) -> None:
        self.low = low
        self.forgotten = 0  # ranges given up: they become duplicates
        self._ranges: list[Range] = []
        self._ranges_max = ranges_max
        for after, upto in ranges:
            self.add(after, upto)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """A snapshot, lowest first."""
        return tuple(self._ranges)

    def add(self, after: Position, upto: Position) -> None:
        """Everything in (after, upto] is acknowledged."""
        if upto <= self.low or upto <= after:
            return
        if after > self.low:
            self._insert(after, upto)
            return
        self.low = upto
        self._absorb()

    def raise_to(self, position: Position) -> None:
        """Everything up to `position` counts as acknowledged."""
        self.add(self.low, position)

    def __contains__(self, position: Position) -> bool:
        return position <= self.low or covers(self._ranges, position)

    def _absorb(self) -> None:
        ranges, count = self._ranges, 0
        while count < len(ranges) and ranges[count][0] <= self.low:
            self.low = max(self.low, ranges[count][1])
            count += 1
        del ranges[:count]

    def _insert(self, after: Position, upto: Position) -> None:
        ranges = self._ranges
        first = bisect_left(ranges, after, key=lambda item: item[1])  # the first that reaches `after`
        last = bisect_right(ranges, upto, key=lambda item: item[0])  # behind the last that `upto` reaches
        if first < last:
            after = min(after, ranges[first][0])
            upto = max(upto, ranges[last - 1][1])
        ranges[first:last] = [(after, upto)]
        if len(ranges) > self._ranges_max:
            ranges.pop()
            self.forgotten += 1


def covers(ranges: list[Range] | tuple[Range, ...], position: Position) -> bool:
    """Whether one of the sorted, disjoint ranges has `position` in it."""
    index = bisect_left(ranges, position, key=lambda item: item[1])
    return index < len(ranges) and ranges[index][0] < position
