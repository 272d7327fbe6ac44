"""Aggregates over equal spans of time, after OPC UA Part 13; values are held (stepped), never sloped.

Followed: intervals [start, start + every), the last one as short as what is left (§5.4.2.2); stepped simple
bounding values (§3.1.9): what was last recorded before a span holds at its beginning, unless it was bad;
Count (§5.4.3.21) counts good raw values; minimum and maximum of good values with the one held at the
beginning, as MinimumActualTime2 (§5.4.3.17) has it; the mean weighs good values by the time they held, and
the length of good time is what Total2 (§5.4.3.9) multiplies it by; PercentGood (§5.4.3.33) as a share of 1.
Uncertain counts as not good, the default of TreatUncertainAsBad (§4.2.1.2). `first` and `last` are ours: of
the good raw values in the span.
"""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.core.point import Point, Value
from gateway.core.quality import is_good
from gateway.journal.samples import Sample

STEP_NS: Final = 1_000_000_000  # wall clock and running time apart by more: the clock was set


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """One point in [start_ns, end_ns). None where there was nothing good, or no number."""

    point: Point
    start_ns: int
    end_ns: int
    count: int  # good values recorded in it
    not_good: int  # others recorded in it
    minimum: float | None
    maximum: float | None
    mean: float | None
    first: Value
    last: Value
    good: float  # share of the span with a good value, 0 to 1


def is_late(held: Sample, sample: Sample) -> bool:
    """A device's event from before what is known already: it is counted in its span and holds nothing."""
    return sample.is_device_time and sample.time_ns < held.time_ns


class Spans(msgspec.Struct, frozen=True):
    """Where buckets begin and end: [from_ns, to_ns) in steps of `every_ns`."""

    from_ns: int
    to_ns: int
    every_ns: int

    @property
    def count(self) -> int:
        """How many."""
        return -((self.from_ns - self.to_ns) // self.every_ns)

    def bounds(self, index: int) -> tuple[int, int]:
        """Of one bucket; the last may be shorter."""
        start = self.from_ns + index * self.every_ns
        return start, min(start + self.every_ns, self.to_ns)


class _Sums:
    __slots__ = (
        "area",
        "count",
        "first",
        "good_ns",
        "has_value",
        "last",
        "maximum",
        "minimum",
        "not_good",
        "number_ns",
    )

    def __init__(self) -> None:
        self.count = self.not_good = self.good_ns = self.number_ns = 0
        self.area = 0.0
        self.minimum: float | None = None
        self.maximum: float | None = None
        self.has_value = False
        self.first: Value = None
        self.last: Value = None

    def see(self, number: float) -> None:
        if self.minimum is None or number < self.minimum:
            self.minimum = number
        if self.maximum is None or number > self.maximum:
            self.maximum = number


class Track:
    """One point through the spans, fed in the order of recording."""

    def __init__(self, spans: Spans, point: Point) -> None:
        self.point = point
        self.lane = ""
        self.held: Sample | None = None  # what holds from its time on
        self._spans = spans
        self._sums: dict[int, _Sums] = {}

    def take(self, sample: Sample) -> None:
        """The next value of the run; end the run before with `hold_until`."""
        held = self.held
        if held is not None and is_late(held, sample):
            self._count(sample)
            return
        if held is not None and not sample.missing:  # else something else held in between, nobody knows what
            self._hold(held, self._end(held, sample))
        self._count(sample)
        self.held = sample

    def hold_until(self, end_ns: int) -> None:
        """From here on nothing is known until the next value."""
        if self.held is not None:
            self._hold(self.held, end_ns)
            self.held = None

    def bucket(self, index: int) -> Bucket:
        """What came together for one span."""
        start_ns, end_ns = self._spans.bounds(index)
        sums = self._sums.get(index) or _Sums()
        return Bucket(
            point=self.point,
            start_ns=start_ns,
            end_ns=end_ns,
            count=sums.count,
            not_good=sums.not_good,
            minimum=sums.minimum,
            maximum=sums.maximum,
            mean=sums.area / sums.number_ns if sums.number_ns else None,
            first=sums.first,
            last=sums.last,
            good=min(1.0, sums.good_ns / (end_ns - start_ns)),
        )

    @staticmethod
    def _end(held: Sample, sample: Sample) -> int:
        """Until when it held, by the clock as it was then."""
        if held.monotonic_ns and sample.monotonic_ns and not (held.is_device_time or sample.is_device_time):
            end_ns = held.time_ns + sample.monotonic_ns - held.monotonic_ns
            if abs(end_ns - sample.time_ns) > STEP_NS:
                return end_ns
        return sample.time_ns

    def _at(self, index: int) -> _Sums:
        return self._sums.setdefault(index, _Sums())

    def _count(self, sample: Sample) -> None:
        spans = self._spans
        if not spans.from_ns <= sample.time_ns < spans.to_ns:
            return
        sums = self._at((sample.time_ns - spans.from_ns) // spans.every_ns)
        if not is_good(sample.quality):
            sums.not_good += 1
            return
        sums.count += 1
        if not sums.has_value:
            sums.first, sums.has_value = sample.value, True
        sums.last = sample.value
        number = _number(sample.value)
        if number is not None:
            sums.see(number)

    def _hold(self, held: Sample, end_ns: int) -> None:
        spans = self._spans
        start_ns, end_ns = max(held.time_ns, spans.from_ns), min(end_ns, spans.to_ns)
        if not is_good(held.quality):
            return
        number = _number(held.value)
        while start_ns < end_ns:
            index = (start_ns - spans.from_ns) // spans.every_ns
            upto_ns = min(end_ns, spans.from_ns + (index + 1) * spans.every_ns)
            sums = self._at(index)
            sums.good_ns += upto_ns - start_ns
            if number is not None:
                sums.number_ns += upto_ns - start_ns
                sums.area += number * (upto_ns - start_ns)
                sums.see(number)
            start_ns = upto_ns


def _number(value: Value) -> float | None:
    """What can be compared and averaged: off is 0 and on is 1; NaN is no number."""
    if isinstance(value, bool):
        return int(value)
    return value if isinstance(value, (int, float)) and value == value else None
