"""Ranges against a set of numbers."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.journal.acknowledged import Acknowledged, covers

TOP = 60


class Ranges(RuleBasedStateMachine):
    """A cursor that overflows may forget what was acknowledged above its low mark, and nothing else."""

    @initialize(low=st.integers(0, 10), ranges_max=st.integers(1, 5))
    def start(self, low: int, ranges_max: int) -> None:
        self.real = Acknowledged((1, low), ranges_max=ranges_max)
        self.ranges_max = ranges_max
        self.naive = set(range(low + 1))

    @rule(after=st.integers(0, TOP), count=st.integers(-2, 8))
    def acknowledge(self, after: int, count: int) -> None:
        forgotten = self.real.forgotten
        self.real.add((1, after), (1, after + count))
        self.naive |= set(range(after + 1, after + count + 1))
        if self.real.forgotten > forgotten:
            kept = {seq for seq in self.naive if (1, seq) in self.real}
            top = max((upto[1] for _, upto in self.real.ranges), default=self.real.low[1])
            assert kept == {seq for seq in self.naive if seq <= top}  # only the highest range went
            self.naive = kept

    @rule(to=st.integers(0, TOP))
    def drop(self, to: int) -> None:
        self.real.raise_to((1, to))
        self.naive |= set(range(to + 1))

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "real"):
            return
        real, ranges = self.real, self.real.ranges
        assert {seq for seq in range(TOP + 20) if (1, seq) in real} == self.naive
        assert real.low[1] == min(seq for seq in range(TOP + 20) if seq not in self.naive) - 1
        assert len(ranges) <= self.ranges_max
        assert all(ranges[i][1] < ranges[i + 1][0] for i in range(len(ranges) - 1))
        assert all(real.low < after < upto for after, upto in ranges)
        above = {seq for seq in range(real.low[1] + 1, TOP + 20) if covers(ranges, (1, seq))}
        assert above == {seq for seq in self.naive if seq > real.low[1]}


TestRanges = Ranges.TestCase
TestRanges.settings = settings(max_examples=60, deadline=None)


def test_a_chain_merges_over_an_epoch() -> None:
    marks = Acknowledged((1, 0))
    marks.add((2, 0), (2, 7))  # live overtakes
    marks.add((1, 0), (1, 5))
    assert marks.low == (1, 5)
    marks.add((1, 5), (2, 0))  # the backlog had nothing more
    assert marks.low == (2, 7)
    assert marks.ranges == ()
