"""Fields of one batch, evaluated: what is said once, and what each row says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value
from gateway.core.quality import Quality
from gateway.translate.payload import (
    CAUSE_NAMES,
    DEVICE_TIME,
    GATEWAY_TIME,
    KIND_NAMES,
    Source,
    encode,
    honest,
    label_of,
    quality_text,
)

Row: TypeAlias = tuple[int, int]  # (row of the batch, column of the layout)
WriteTime: TypeAlias = Callable[[int], int | str | None]
_KIND_BYTES: Final = {kind: text.encode() for kind, text in KIND_NAMES.items()}
_CAUSE_BYTES: Final = {cause: text.encode() for cause, text in CAUSE_NAMES.items()}
_SLOTS: Final = {
    Source.TIME: b"%(time)b",
    Source.TIME_ORIGIN: b'"%(time_origin)b"',
    Source.RECEIVED: b"%(received)b",
    Source.SEQ: b"%(seq)d",
    Source.EPOCH: b"%(epoch)d",
    Source.KIND: b'"%(kind)b"',
    Source.CAUSE: b'"%(cause)b"',
}


def has_one_time(batch: Batch) -> bool:
    """Whether every row has the same time, and that a good one."""
    return batch.time_quality == 0 and type(batch.source_time_ns) is not tuple


def slot(source: Source) -> bytes | None:
    """Where a template of bytes takes this source from `scalars`; None for what differs by point."""
    return _SLOTS.get(source)


def constant(value: Value) -> bytes:
    """JSON text of something known at compile time, safe inside a template of bytes."""
    return encode(value).replace(b"%", b"%%")


def scalars(batch: Batch, time_ns: int | None, write_time: WriteTime) -> dict[bytes, int | bytes]:
    """What the slots of a template take, for rows of one source time."""
    received = encode(write_time(batch.received_ns))
    return {
        b"time": received if time_ns is None else encode(write_time(time_ns)),
        b"time_origin": b"gateway" if time_ns is None else b"device",
        b"received": received,
        b"seq": batch.seq,
        b"epoch": batch.epoch,
        b"kind": _KIND_BYTES[batch.kind],
        b"cause": _CAUSE_BYTES[batch.cause],
    }


def columns_of(batch: Batch) -> Iterable[int]:
    """The column of the layout for each row."""
    return range(len(batch.values)) if batch.columns is None else batch.columns


def rows_of(batch: Batch, wanted: frozenset[int] | None) -> list[Row]:
    """Rows that a plan publishes; `wanted` are its columns, None for all."""
    if wanted is None:
        return list(enumerate(columns_of(batch)))
    return [(row, column) for row, column in enumerate(columns_of(batch)) if column in wanted]


def origin(time_ns: int | None) -> str:
    """Who read the clock."""
    return GATEWAY_TIME if time_ns is None else DEVICE_TIME


class Rows:
    """Chosen rows of a batch, column by column, values and qualities as they may be shown."""

    __slots__ = ("_once", "points", "qualities", "received_ns", "time_qualities", "times_ns", "values",
                 "write_time")  # fmt: skip

    def __init__(
        self,
        batch: Batch,
        rows: list[Row],
        layout: Layout,
        *,
        write_time: WriteTime,
        names: Mapping[str, str],
    ) -> None:
        values, quality = batch.values, batch.quality
        told = [
            honest(values[row], quality[row] if isinstance(quality, tuple) else quality) for row, _ in rows
        ]
        self.values: Final[list[Value]] = [value for value, _ in told]
        self.qualities: Final[list[Quality]] = [quality for _, quality in told]
        self.points: Final[list[Point]] = [layout.points[column] for _, column in rows]
        self.times_ns: Final[list[int | None]] = _chosen(batch.source_time_ns, rows)
        self.time_qualities: Final[list[Quality]] = _chosen(batch.time_quality, rows)
        self.received_ns: Final = batch.received_ns
        self.write_time: Final = write_time
        self._once: dict[Source, Value] = {
            Source.RECEIVED: write_time(batch.received_ns),
            Source.SEQ: batch.seq,
            Source.EPOCH: batch.epoch,
            Source.KIND: KIND_NAMES[batch.kind],
            Source.CAUSE: CAUSE_NAMES[batch.cause],
            Source.DEVICE: layout.device,
            Source.SITE: names["site"],
            Source.GATEWAY: names["gateway"],
        }

    def once(self, source: Source) -> Value:
        """What is the same for the whole batch."""
        return self._once[source]

    def column(self, source: Source) -> list[Any]:
        """What each row says."""
        if source is Source.VALUE:
            return self.values
        if source is Source.QUALITY:
            return [quality_text(quality) for quality in self.qualities]
        if source is Source.TIME:
            return [self.write_time(self.received_ns if time is None else time) for time in self.times_ns]
        if source is Source.TIME_ORIGIN:
            return [origin(time) for time in self.times_ns]
        if source is Source.TIME_QUALITY:
            return [quality_text(quality) for quality in self.time_qualities]
        if source is Source.LABEL:
            return [label_of(point, value) for point, value in zip(self.points, self.values, strict=True)]
        if source is Source.UNIT:
            return [point.unit for point in self.points]
        if source is Source.TAG:
            return [point.tag for point in self.points]
        return [self._once[source]] * len(self.points)


def _chosen(column: Any, rows: list[Row]) -> list[Any]:
    if isinstance(column, tuple):
        return [column[row] for row, _ in rows]
    return [column] * len(rows)
