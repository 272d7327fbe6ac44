"""Fields of one batch, evaluated: what is said once, and what each row says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

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

Row = tuple[int, int]  # (row of the batch, column of the layout)
Json = Value | Mapping[str, Value]
_SLOTS: Final = {
    Source.TIME: b"%(time)b",
    Source.TIME_ORIGIN: b'"%(time_origin)b"',
    Source.RECEIVED: b"%(received)b",
    Source.SEQ: b"%(seq)d",
    Source.EPOCH: b"%(epoch)d",
    Source.KIND: b'"%(kind)b"',
    Source.CAUSE: b'"%(cause)b"',
}


def is_plain(batch: Batch) -> bool:
    """Whether quality and times are the same for all rows and good: then templates need no second look."""
    return batch.quality == 0 and batch.time_quality == 0 and type(batch.source_time_ns) is not tuple


def slot(source: Source) -> bytes | None:
    """Where a template of bytes takes this source from `scalars`; None for what differs by row."""
    return _SLOTS.get(source)


def constant(value: Value) -> bytes:
    """JSON text of something known at compile time, safe inside a template of bytes."""
    return encode(value).replace(b"%", b"%%")


def scalars(batch: Batch, write_time: Callable[[int], int | str | None]) -> dict[bytes, int | bytes]:
    """What the slots of a template take from a plain batch."""
    time, received = batch.source_time_ns, batch.received_ns
    written = encode(write_time(received))
    return {
        b"time": written if time is None else encode(write_time(time)),  # type: ignore[arg-type]  # is_plain: no tuple
        b"time_origin": b"gateway" if time is None else b"device",
        b"received": written,
        b"seq": batch.seq,
        b"epoch": batch.epoch,
        b"kind": _KIND_BYTES[batch.kind],
        b"cause": _CAUSE_BYTES[batch.cause],
    }


_KIND_BYTES: Final = {kind: text.encode() for kind, text in KIND_NAMES.items()}
_CAUSE_BYTES: Final = {cause: text.encode() for cause, text in CAUSE_NAMES.items()}


def rows_of(batch: Batch, wanted: frozenset[int] | None) -> list[Row]:
    """Rows that a plan publishes; `wanted` are its columns, None for all."""
    columns: Iterable[int] = batch.columns if batch.columns is not None else range(len(batch.values))
    if wanted is None:
        return list(enumerate(columns))
    return [(row, column) for row, column in enumerate(columns) if column in wanted]


class RowReader:
    """Any row of any batch, source by source: the path for everything that is not plain."""

    __slots__ = ("_batch", "_columns", "_common", "_points", "_time", "_write_time")

    def __init__(
        self,
        batch: Batch,
        layout: Layout,
        write_time: Callable[[int], int | str | None],
        names: Mapping[str, str],
    ) -> None:
        self._batch = batch
        self._points = layout.points
        self._write_time = write_time
        self._common: dict[Source, Value] = {
            Source.RECEIVED: write_time(batch.received_ns),
            Source.SEQ: batch.seq,
            Source.EPOCH: batch.epoch,
            Source.KIND: KIND_NAMES[batch.kind],
            Source.CAUSE: CAUSE_NAMES[batch.cause],
            Source.DEVICE: layout.device,
            Source.SITE: names["site"],
            Source.GATEWAY: names["gateway"],
        }

    def point(self, row: Row) -> Point:
        """The point of a row."""
        return self._points[row[1]]

    def value_and_quality(self, row: Row) -> tuple[Value, Quality]:
        """As they may be shown."""
        quality = self._batch.quality
        return honest(self._batch.values[row[0]], quality[row[0]] if isinstance(quality, tuple) else quality)

    def source_time_ns(self, row: Row) -> int | None:
        """As the device gave it."""
        time = self._batch.source_time_ns
        return time[row[0]] if isinstance(time, tuple) else time

    def time_quality(self, row: Row) -> Quality:
        """Of the device's time."""
        quality = self._batch.time_quality
        return quality[row[0]] if isinstance(quality, tuple) else quality

    def written_time(self, time_ns: int | None) -> int | str | None:
        """The device's time, or ours where it gave none."""
        return self._write_time(self._batch.received_ns if time_ns is None else time_ns)

    def common(self, source: Source) -> Value:
        """What all rows share."""
        return self._common[source]

    def of_row(self, row: Row, sources: Sequence[Source]) -> list[Value]:
        """Each source for one row, in the order asked for."""
        value, quality = self.value_and_quality(row)
        said: list[Value] = []
        for source in sources:
            if source is Source.VALUE:
                said.append(value)
            elif source is Source.QUALITY:
                said.append(quality_text(quality))
            elif source is Source.TIME:
                said.append(self.written_time(self.source_time_ns(row)))
            elif source is Source.TIME_ORIGIN:
                said.append(origin(self.source_time_ns(row)))
            else:
                said.append(self._seldom(row, source, value))
        return said

    def _seldom(self, row: Row, source: Source, value: Value) -> Value:
        point = self.point(row)
        if source is Source.LABEL:
            return label_of(point, value)
        if source is Source.UNIT:
            return point.unit
        if source is Source.TAG:
            return point.tag
        if source is Source.TIME_QUALITY:
            return quality_text(self.time_quality(row))
        return self._common[source]


def origin(time_ns: int | None) -> str:
    """Who read the clock."""
    return GATEWAY_TIME if time_ns is None else DEVICE_TIME
