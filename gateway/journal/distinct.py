"""Each value once, though rules recorded it twice; and a word where the clock was set meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from gateway.core.point import Value
from gateway.core.quality import Quality
from gateway.disk.record import Position
from gateway.journal.buckets import STEP_NS
from gateway.journal.samples import Gap, Sample, Why

_Moment: TypeAlias = tuple[int, int, int]  # epoch, running time, wall clock
_Said: TypeAlias = tuple[int, Value, Quality]


class Distinct:
    """Fed in the order of recording, with the records of all lanes.

    What was read at one moment of the running clock and says the same is one value: two rules that record it,
    or a heartbeat, make records of their own. Several values of one record (a burst of events) are all kept.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[_Moment, dict[_Said, Position]]] = {}  # by point
        self._epoch = self._monotonic_ns = self._wall_ns = 0

    def take(self, item: list[Sample] | Gap) -> Iterator[Sample | Gap]:
        """What is new in it."""
        if isinstance(item, Gap):
            yield item
            return
        if item and (step := self._step(item[0])) is not None:
            yield step
        for sample in item:
            if not sample.monotonic_ns or self._is_new(sample):
                yield sample

    def _is_new(self, sample: Sample) -> bool:
        moment = (sample.key[0], sample.monotonic_ns, sample.received_ns)
        last = self._last.get(sample.point.name)
        if last is None or last[0] != moment:
            last = self._last[sample.point.name] = (moment, {})
        position = sample.key[:2]
        return last[1].setdefault((sample.time_ns, sample.value, sample.quality), position) == position

    def _step(self, sample: Sample) -> Gap | None:
        """Wall clock and running time went apart since the record before."""
        epoch, monotonic_ns, wall_ns = sample.key[0], sample.monotonic_ns, sample.received_ns
        expected_ns = self._wall_ns + monotonic_ns - self._monotonic_ns
        is_known = bool(self._monotonic_ns and monotonic_ns) and self._epoch == epoch
        self._epoch, self._monotonic_ns, self._wall_ns = epoch, monotonic_ns, wall_ns
        if not is_known or abs(wall_ns - expected_ns) <= STEP_NS:
            return None
        return Gap(key=(epoch, sample.key[1], -1), from_ns=expected_ns, to_ns=wall_ns, why=Why.STEPPED)
