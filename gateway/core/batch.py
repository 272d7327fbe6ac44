"""What moves through the gateway: one scan, one burst of events, or a snapshot, in columns."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import TypeAlias

import msgspec

from gateway.core.point import Layout, Point, Value
from gateway.core.quality import GOOD, Quality


class Kind(enum.IntEnum):
    """What a batch is. Events may repeat a point and are never conflated, deadbanded or rate-limited."""

    SCAN = 0
    EVENT = 1
    SNAPSHOT = 2


class Cause(enum.IntEnum):
    """Why values were sent."""

    CYCLIC = 0
    EVENT = 1
    INTERROGATION = 2
    INTEGRITY = 3


Times: TypeAlias = int | tuple[int | None, ...] | None


class Batch(msgspec.Struct, kw_only=True, gc=False):
    """Columns of equal length. A column that is the same for all values is stored once.

    `values[i]` belongs to `layout.points[columns[i]]`, or to `layout.points[i]` where `columns` is None.
    `quality`, `source_time_ns` and `native` are one value for all, or a tuple as long as `values`.
    Times are nanoseconds since 1970-01-01 UTC. A source time of None says that the device gave none:
    it is never invented, `received_ns` is ours: where several answers made a scan, the first one's.
    `time_quality` is about the time that a value has: the source time, or ours where there is none.
    """

    layout: Layout
    values: tuple[Value, ...]
    received_ns: int
    monotonic_ns: int = 0
    quality: Quality | tuple[Quality, ...] = GOOD
    columns: tuple[int, ...] | None = None
    kind: Kind = Kind.SCAN
    cause: Cause = Cause.CYCLIC
    source_time_ns: Times = None
    time_quality: Quality | tuple[Quality, ...] = GOOD
    native: int | tuple[int | None, ...] | None = None  # the protocol's own quality bits, as received
    epoch: int = 0  # 0 until the sequencer numbered it
    seq: int = 0
    missing: int | tuple[int, ...] = 0  # values of the same point taken out of the backlog right before
    dated_ns: int | None = None  # what `received_ns` was by a synchronised clock, told later

    def rows(self) -> Iterator[tuple[Point, Value, Quality, int | None]]:
        """One (point, value, quality, source time) at a time. For people and tests, not for the hot path."""
        columns = self.columns if self.columns is not None else range(len(self.values))
        quality, time = self.quality, self.source_time_ns
        for row, column in enumerate(columns):
            yield (
                self.layout.points[column],
                self.values[row],
                quality[row] if isinstance(quality, tuple) else quality,
                time[row] if isinstance(time, tuple) else time,
            )

    def quality_column(self) -> tuple[Quality, ...]:
        """Quality as a tuple, one for each value."""
        return self.quality if isinstance(self.quality, tuple) else (self.quality,) * len(self.values)
