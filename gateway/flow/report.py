"""Report by exception: what of a scan is worth sending, for one layout and one policy."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from itertools import compress
from operator import itemgetter, ne
from typing import Any, Final

import msgspec

from gateway.core.batch import Batch, Kind
from gateway.core.errors import LocalProtocolError
from gateway.core.point import Layout, Value
from gateway.core.quality import Quality

_NEVER_NS: Final = 1 << 63
_TOGETHER_SHARE: Final = 20  # heartbeats due within 1/20 of their period go out together


class ReportOn(enum.Enum):
    """What makes a value worth sending."""

    CHANGE = "change"  # it differs from what was last sent by more than its deadband, or its quality does
    SCAN = "scan"  # it was read


class ReportPolicy(msgspec.Struct, frozen=True):
    """Durations in ns; 0 is off. Never applied to events."""

    on: ReportOn = ReportOn.CHANGE
    min_ns: int = 0  # at least so long between two reports of one point; the change is sent when it is over
    heartbeat_ns: int = 0  # at least one report of each point in this time


class Reporter:
    """The memory of one layout under one policy: what was last sent of each point, and when.

    Works on whole tuples first: a scan equal to the one before costs one comparison.
    """

    __slots__ = (
        "_columns",
        "_deadbands",
        "_held",
        "_last",
        "_last_quality",
        "_latest",
        "_layout",
        "_pick",
        "_place",
        "_policy",
        "_sent_ns",
        "deadline_ns",
    )

    def __init__(
        self, layout: Layout, *, policy: ReportPolicy, columns: tuple[int, ...] | None = None
    ) -> None:
        """`columns`: the part of the layout that this reporter is for, in order; None for all of it."""
        self._layout = layout
        self._policy = policy
        if columns == tuple(range(len(layout))):
            columns = None
        self._columns = columns
        self._pick = None if columns is None else _picker(columns)
        own = range(len(layout)) if columns is None else columns
        self._place = {column: place for place, column in enumerate(own)}
        bands = [_deadband(layout, column) for column in own]
        self._deadbands: list[float] | None = bands if any(bands) else None
        self._latest: Batch | None = None  # of our columns, whole
        self._last: list[Value] = []
        self._last_quality: Quality | list[Quality] = 0
        self._sent_ns: list[int] = []
        self._held: list[int] = []  # changed, but too early by `min_ns`
        self.deadline_ns = _NEVER_NS

    def is_like(self, other: Reporter) -> bool:
        """Whether it reports the same points under the same policy."""
        return (self._layout, self._policy, self._columns) == (other._layout, other._policy, other._columns)

    def offer(self, batch: Batch, now_ns: int) -> Batch | None:
        """What of `batch` goes out now, as a batch of its own; None for nothing."""
        if batch.kind is Kind.EVENT:
            return self._events(batch)
        latest = self._latest
        if batch.columns is not None:
            raise LocalProtocolError("a scan must cover its layout; what reads single points reports events")
        if self._pick is not None:
            batch = self._picked(batch)
        if latest is None or self._policy.on is ReportOn.SCAN:
            self._latest = batch
            return self._send_all(batch, now_ns)
        if batch.values is latest.values and batch.quality == latest.quality:
            self._latest = batch
            return self.due(now_ns) if now_ns >= self.deadline_ns else None
        self._latest = batch
        changed = self._changed(batch)
        if self._policy.min_ns and changed:
            changed = self._not_too_early(changed, now_ns)
        if len(changed) == len(self._place):
            return self._send_all(batch, now_ns)
        if now_ns >= self.deadline_ns:
            changed = self._with_heartbeats(changed, now_ns)
        return self._send(batch, changed, now_ns) if changed else None

    def due(self, now_ns: int) -> Batch | None:
        """The deadline has come: what was held back, and heartbeats; values and times as last read."""
        batch = self._latest
        if batch is None or now_ns < self.deadline_ns:
            return None
        ready: list[int] = []
        if self._held:
            changed = self._changed(batch)
            ready = self._not_too_early(changed, now_ns)
        ready = self._with_heartbeats(ready, now_ns)
        if ready:
            return self._send(batch, ready, now_ns)
        self._set_deadline()
        return None

    # What changed

    def _changed(self, batch: Batch) -> list[int]:
        last, bands = self._last, self._deadbands
        changed = _places_that_differ(batch.values, last)
        if bands is not None and changed:
            values = batch.values
            changed = [p for p in changed if not bands[p] or _exceeds(values[p], last[p], bands[p])]
        quality, old_quality = batch.quality, self._last_quality
        if quality.__class__ is int and old_quality.__class__ is int:
            return changed if quality == old_quality else list(range(len(last)))
        new_column = batch.quality_column()
        old_column = _as_list(old_quality, len(last))
        moved = _places_that_differ(new_column, old_column)
        return sorted({*moved, *changed}) if moved else changed

    def _not_too_early(self, changed: list[int], now_ns: int) -> list[int]:
        limit, sent = now_ns - self._policy.min_ns, self._sent_ns
        ready = [place for place in changed if sent[place] <= limit]
        if len(ready) == len(changed):
            self._held = []
        else:
            taken = set(ready)
            self._held = [place for place in changed if place not in taken]
            first_ns = min(sent[place] for place in self._held) + self._policy.min_ns
            self.deadline_ns = min(self.deadline_ns, first_ns)
        return ready

    def _with_heartbeats(self, ready: list[int], now_ns: int) -> list[int]:
        heartbeat_ns = self._policy.heartbeat_ns
        if not heartbeat_ns or min(self._sent_ns) + heartbeat_ns > now_ns:
            return ready
        limit = now_ns - heartbeat_ns + heartbeat_ns // _TOGETHER_SHARE
        alive = {place for place, sent_ns in enumerate(self._sent_ns) if sent_ns <= limit}
        return sorted(alive.union(ready))

    # What goes out

    def _send_all(self, batch: Batch, now_ns: int) -> Batch:
        quality = batch.quality
        self._last = list(batch.values)
        self._last_quality = list(quality) if isinstance(quality, tuple) else quality
        self._held = []
        if self._policy.min_ns or self._policy.heartbeat_ns:
            self._sent_ns = [now_ns] * len(self._last)
            self._set_deadline()
        return _copy(batch, columns=self._columns, rows=None)

    def _send(self, batch: Batch, places: list[int], now_ns: int) -> Batch:
        values, last = batch.values, self._last
        for place in places:
            last[place] = values[place]
        quality = batch.quality
        if quality != self._last_quality:
            column = _as_list(self._last_quality, len(last))
            new_column = batch.quality_column()
            for place in places:
                column[place] = new_column[place]
            same = column.count(column[0]) == len(column)
            self._last_quality = column[0] if same else column
        if self._sent_ns:
            sent = self._sent_ns
            for place in places:
                sent[place] = now_ns
            if self._held:
                done = set(places)
                self._held = [place for place in self._held if place not in done]
            self._set_deadline()
        own = self._columns
        columns = tuple(places) if own is None else tuple([own[place] for place in places])
        return _copy(batch, columns=columns, rows=places)

    def _set_deadline(self) -> None:
        deadline_ns = _NEVER_NS
        if self._policy.heartbeat_ns:
            deadline_ns = min(self._sent_ns) + self._policy.heartbeat_ns
        if self._held:
            held_ns = min(self._sent_ns[place] for place in self._held) + self._policy.min_ns
            deadline_ns = min(deadline_ns, held_ns)
        self.deadline_ns = deadline_ns

    # Parts of a layout

    def _picked(self, batch: Batch) -> Batch:
        assert self._pick is not None
        latest, pick = self._latest, self._pick
        values = pick(batch.values)
        if latest is not None and values == latest.values:
            values = latest.values  # the same object, so that the next comparison is one of identity
        return Batch(
            layout=batch.layout,
            values=values,
            received_ns=batch.received_ns,
            monotonic_ns=batch.monotonic_ns,
            quality=pick(batch.quality) if isinstance(batch.quality, tuple) else batch.quality,
            columns=self._columns,
            kind=batch.kind,
            cause=batch.cause,
            source_time_ns=pick(batch.source_time_ns)
            if isinstance(batch.source_time_ns, tuple)
            else batch.source_time_ns,
            time_quality=pick(batch.time_quality)
            if isinstance(batch.time_quality, tuple)
            else batch.time_quality,
            native=pick(batch.native) if isinstance(batch.native, tuple) else batch.native,
        )

    def _events(self, batch: Batch) -> Batch | None:
        """Events go out as they are: those of our columns, repeated points included."""
        columns = batch.columns if batch.columns is not None else tuple(range(len(batch.values)))
        if self._columns is None:
            rows: list[int] | None = None
        else:
            rows = [row for row, column in enumerate(columns) if column in self._place]
            if not rows:
                return None
            columns = tuple([columns[row] for row in rows])
        return _copy(batch, columns=columns, rows=rows)


def _copy(batch: Batch, *, columns: tuple[int, ...] | None, rows: list[int] | None) -> Batch:
    """`batch` with only `rows` (None: all), ready to be numbered."""
    values, quality, source = batch.values, batch.quality, batch.source_time_ns
    time_quality, native = batch.time_quality, batch.native
    if rows is not None:
        values = tuple([values[row] for row in rows])
        if isinstance(quality, tuple):
            quality = tuple([quality[row] for row in rows])
        if isinstance(source, tuple):
            source = tuple([source[row] for row in rows])
        if isinstance(time_quality, tuple):
            time_quality = tuple([time_quality[row] for row in rows])
        if isinstance(native, tuple):
            native = tuple([native[row] for row in rows])
    if isinstance(quality, tuple) and quality.count(quality[0]) == len(quality):
        quality = quality[0]
    return Batch(
        layout=batch.layout,
        values=values,
        received_ns=batch.received_ns,
        monotonic_ns=batch.monotonic_ns,
        quality=quality,
        columns=columns,
        kind=batch.kind,
        cause=batch.cause,
        source_time_ns=source,
        time_quality=time_quality,
        native=native,
    )


def _places_that_differ(new: Sequence[object], old: Sequence[object]) -> list[int]:
    """Without a step of ours for each place: this looks at every value of every scan that is not equal."""
    return list(compress(range(len(old)), map(ne, new, old)))


def _picker(columns: tuple[int, ...]) -> Any:
    if len(columns) == 1:
        only = columns[0]
        return lambda column: (column[only],)
    return itemgetter(*columns)


def _deadband(layout: Layout, column: int) -> float:
    point = layout.points[column]
    if point.deadband_percent and point.low is not None and point.high is not None:
        return max(point.deadband, (point.high - point.low) * point.deadband_percent / 100)
    return point.deadband


def _exceeds(new: Value, old: Value, band: float) -> bool:
    if isinstance(new, (int, float)) and isinstance(old, (int, float)):
        return abs(new - old) > band
    return True  # to or from "no value" is always worth a report


def _as_list(quality: Quality | Sequence[Quality], count: int) -> list[Quality]:
    return [quality] * count if isinstance(quality, int) else list(quality)
