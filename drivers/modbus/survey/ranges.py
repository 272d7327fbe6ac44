"""Which addresses of a table can be read: found by asking, with few requests.

A device refuses a read of which it has not all, so a block that is answered is there as a whole. Of a refused
block some single addresses are tried, from coarse to fine; where one is there, both ends of its range are
found by halving. Every range of at least `step` addresses is found; of shorter ones those that are met, and
those near to the beginning or to another one, where addresses are tried one by one.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import Final, NamedTuple, TypeAlias

NEAR: Final = 40  # addresses


class Verdict(enum.Enum):
    """What a read came to."""

    THERE = "there"
    NOT_THERE = "not there"  # refused, or no answer where others are answered
    TOO_MANY = "too many"  # the device does not give so many at once
    STOP = "stop"  # the table is not to be asked any more


class Read(NamedTuple):
    """A request to make."""

    start: int
    size: int  # items


class Range(NamedTuple):
    """Addresses that can be read, both ends included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many."""
        return self.last - self.first + 1


Search: TypeAlias = Generator[Read, Verdict, list[Range]]
"""Yields what to read, is sent what came of it, and returns the ranges in order."""


class _Stop(Exception):
    """The table is not to be asked any more."""


class _Searcher:
    def __init__(self, first: int, last: int, read_max: int, step: int) -> None:
        self._first: Final = first
        self._last: Final = last
        self._step: Final = step
        self.read_max = read_max  # shrinks where the device gives less at once
        self.found: list[Range] = []
        self._near = first + NEAR

    def run(self) -> Generator[Read, Verdict, None]:
        at = self._first
        while at <= self._last:
            count = min(self.read_max, self._last - at + 1)
            if (yield from self._is_there(at, count)):
                low = yield from self._grow_down(at, self._floor(at))
                self._add(low, at + count - 1)
                at += count
            elif count <= self.read_max:  # refused, and not for being too many
                at = yield from self._within(at, at + count)

    def _within(self, start: int, end: int) -> Generator[Read, Verdict, int]:
        """Search a refused block; returns where to go on."""
        step = self._step
        if start < self._near:  # what is near to something, or to the beginning, is looked at closely
            end, step = min(end, self._near), 1
        for at in _coarse_to_fine(start, end, step):
            if (yield from self._is_there(at, 1)):
                break
        else:
            return end
        low = yield from self._grow_down(at, self._floor(start))
        high = yield from self._grow_up(at, end)
        if low - start >= step:  # tried too coarsely to be sure of what is in front
            yield from self._rest(start, low - 1)
        self._add(low, high)
        return high + 1

    def _floor(self, start: int) -> int:
        """How far a range may reach down in front of `start`: a longer one would have been met there."""
        behind = max((one.last + 1 for one in self.found if one.last < start), default=self._first)
        return max(behind, start - self._step + 1, self._first)

    def _rest(self, start: int, end: int) -> Generator[Read, Verdict, None]:
        at = start
        while at < end:
            at = yield from self._within(at, end)

    def _grow_up(self, at: int, end: int) -> Generator[Read, Verdict, int]:
        """The last address of the range with `at`; all of start..end together is refused."""
        good, bad = at, end
        while bad - good > 1:
            middle = (good + bad) // 2
            if (yield from self._is_there(good + 1, middle - good)):
                good = middle
            else:
                bad = middle
        return good

    def _grow_down(self, at: int, start: int) -> Generator[Read, Verdict, int]:
        """The first address of the range with `at`, not before `start`."""
        good, bad = at, start - 1
        while good - bad > 1:
            middle = (good + bad) // 2
            if (yield from self._is_there(middle, good - middle)):
                good = middle
            else:
                bad = middle
        return good

    def _is_there(self, start: int, count: int) -> Generator[Read, Verdict, bool]:
        """Ask for a span, in parts where the device gives less at once."""
        while count:
            size = min(count, self.read_max)
            verdict = yield Read(start, size)
            if verdict is Verdict.STOP:
                raise _Stop
            if verdict is Verdict.TOO_MANY and size > 1:
                self.read_max = max(1, size // 2)
                continue
            if verdict is not Verdict.THERE:
                return False
            start, count = start + size, count - size
        return True

    def _add(self, first: int, last: int) -> None:
        self._near = max(self._near, last + 1 + NEAR)
        if self.found and self.found[-1].last + 1 == first:
            first = self.found.pop().first
        self.found.append(Range(first, last))


def search(first: int, last: int, *, read_max: int, step: int) -> Search:
    """Ranges within first..last. `read_max`: most items of one read; `step`: 1 finds everything."""
    searcher = _Searcher(first, last, read_max, step)
    try:
        yield from searcher.run()
    except _Stop:
        pass
    return _joined(searcher.found)


def _joined(found: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for one in sorted(found):
        if joined and one.first <= joined[-1].last + 1:
            joined[-1] = Range(joined[-1].first, max(joined[-1].last, one.last))
        else:
            joined.append(one)
    return joined


def _coarse_to_fine(start: int, end: int, step: int) -> list[int]:
    """Start, then the middle, then the quarters … down to `step`."""
    size = end - start
    stride = 1
    while stride < size:
        stride *= 2
    order = [start]
    while stride > step:
        stride //= 2
        order += range(start + stride, end, 2 * stride)
    return order
