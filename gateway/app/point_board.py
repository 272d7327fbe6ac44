"""The points as people see them: which changed since they looked last, which are stale, how many are good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway.api.source import PointCounts, Points, PointView, point_view
from gateway.config.site import ScanClass
from gateway.core.clock import Clock
from gateway.core.point import Value
from gateway.core.quality import BAD, LEVEL_MASK, STALE, UNCERTAIN, Quality, is_bad, worst
from gateway.flow.image import Reading, View, stale_after_ns

_Seen = dict[str, tuple[Value, Quality, int]]  # point → value, quality, change counter


class PointBoard:
    """Remembers what was shown of each point. Views of the image are taken on the loop, which is cheap."""

    def __init__(self, scans: Mapping[str, ScanClass], *, clock: Clock) -> None:
        self._scans = scans
        self._clock = clock
        self._seen: _Seen = {}
        self._counter = 0

    def set_scans(self, scans: Mapping[str, ScanClass]) -> None:
        """A configuration was taken over: everything counts as changed."""
        self._scans = scans
        self._seen = {}

    def points(self, since: int, views: Sequence[View], *, epoch: int) -> Callable[[], Points]:
        """What makes the answer out of `views`: to be called once, by one thread at a time, in order."""
        seen, scans, now_ns = self._seen, self._scans, self._clock.monotonic_ns()

        def make() -> Points:
            shown: list[PointView] = []
            counter = self._counter + 1
            for view in views:
                every_ns = _every_ns(view, scans)
                for reading in view.readings():
                    quality = _quality(reading, every_ns, now_ns)
                    changed = self._note(seen, reading, quality, counter)
                    if changed > since:
                        shown.append(_shown(reading, quality, changed, now_ns))
            return Points(epoch=epoch, counter=self._counter, points=shown)

        return make

    def counts(self, views: Iterable[View]) -> PointCounts:
        """By level; a layout of one quality and one time costs no more than one point."""
        now_ns = self._clock.monotonic_ns()
        good = uncertain = bad = 0
        for view in views:
            every_ns = _every_ns(view, self._scans)
            readings = view.readings()
            is_uniform = not isinstance(view.quality, tuple) and not isinstance(view.monotonic_ns, tuple)
            share = len(view.layout) if is_uniform else 1
            for reading in readings:
                level = _quality(reading, every_ns, now_ns) & LEVEL_MASK
                if level & BAD:
                    bad += share
                elif level == UNCERTAIN:
                    uncertain += share
                else:
                    good += share
                if is_uniform:
                    break
        return PointCounts(good=good, uncertain=uncertain, bad=bad)

    def _note(self, seen: _Seen, reading: Reading, quality: Quality, counter: int) -> int:
        name = reading.point.name
        before = seen.get(name)
        if before is not None and before[0] == reading.value and before[1] == quality:
            return before[2]
        seen[name] = (reading.value, quality, counter)
        self._counter = counter
        return counter


def _every_ns(view: View, scans: Mapping[str, ScanClass]) -> int | None:
    scan = scans.get(view.layout.scan)
    return None if scan is None else scan.every_ns


def _quality(reading: Reading, every_ns: int | None, now_ns: int) -> Quality:
    """As it was read; stale where that was long ago: storage pushed back, or the wire is overloaded."""
    if every_ns is None or not reading.received_ns or is_bad(reading.quality):
        return reading.quality
    if now_ns - reading.monotonic_ns <= stale_after_ns(every_ns):
        return reading.quality
    return worst(reading.quality, UNCERTAIN | STALE)


def _shown(reading: Reading, quality: Quality, changed: int, now_ns: int) -> PointView:
    never = not reading.received_ns
    return point_view(
        reading.point,
        reading.value,
        quality,
        source_time_ns=reading.source_time_ns,
        received_ns=None if never else reading.received_ns,
        age_s=None if never else (now_ns - reading.monotonic_ns) / 1e9,
        changed=changed,
    )
