"""Fields of one batch, evaluated: what is said once, and what each row says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, TypeAlias

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value
from gateway.core.quality import Quality
from gateway.translate.encoding import JSON, Encoding
from gateway.translate.payload import (
    CAUSE_NAMES,
    DEVICE_TIME,
    KIND_NAMES,
    Source,
    gateway_origin,
    honest,
    label_of,
    quality_text,
)

Row: TypeAlias = tuple[int, int]  # (row of the batch, column of the layout)
WriteTime: TypeAlias = Callable[[int], int | str | None]
# What the slots of a template are filled with, in the order of `given`; the last three are seldom asked for.
_SLOTS: Final = {
    Source.QUALITY: 0,
    Source.TIME: 1,
    Source.TIME_ORIGIN: 2,
    Source.SEQ: 3,
    Source.EPOCH: 4,
    Source.RECEIVED: 5,
    Source.KIND: 6,
    Source.CAUSE: 7,
}
_SELDOM: Final = frozenset({Source.RECEIVED, Source.KIND, Source.CAUSE})
Piece: TypeAlias = tuple[bytes, Callable[[tuple[Any, ...]], tuple[Any, ...]]]


class Template:
    """An object with slots for what changes from batch to batch; its one value stands between two pieces."""

    __slots__ = ("_after", "_before", "_encode", "_is_seldom", "_write_time")

    def __init__(
        self,
        fields: Iterable[tuple[str, Source]],
        constants: Mapping[Source, str],
        write_time: WriteTime,
        encoding: Encoding = JSON,
    ) -> None:
        """`fields` have `value` exactly once."""
        fields = tuple(fields)
        pieces: list[tuple[list[bytes], list[int]]] = [([_escaped(encoding.open(len(fields)))], [])]
        for number, (name, source) in enumerate(fields):
            texts, places = pieces[-1]
            text = (encoding.between if number else b"") + encoding.encode(name) + encoding.colon
            if source is Source.VALUE:
                texts.append(_escaped(text))
                pieces.append(([], []))
            elif source in constants:
                texts.append(_escaped(text + encoding.encode(constants[source])))
            else:
                texts.append(_escaped(text) + b"%b")
                places.append(_SLOTS[source])
        pieces[-1][0].append(_escaped(encoding.close))
        before, after = ((b"".join(texts), picker(tuple(places))) for texts, places in pieces)
        self._before: Piece = before
        self._after: Piece = after
        self._encode = encoding.encode
        self._write_time = write_time
        self._is_seldom = not _SELDOM.isdisjoint(source for _, source in fields)

    def ends(self, batch: Batch, *, quality: bytes = b"") -> tuple[bytes, bytes]:
        """What stands before and after the value, for rows that `is_plain` of; quality is encoded already."""
        time_ns = batch.source_time_ns
        time_quality = batch.time_quality
        write = self._encode
        given: tuple[bytes, ...] = (
            quality,
            write(self._write_time(time_ns if isinstance(time_ns, int) else our_time_ns(batch))),
            write(origin(time_ns, time_quality)) if time_quality.__class__ is int else b"",
            write(batch.seq),
            write(batch.epoch),
        )
        if self._is_seldom:
            received = write(self._write_time(batch.received_ns))
            given = (*given, received, write(KIND_NAMES[batch.kind]), write(CAUSE_NAMES[batch.cause]))
        head, of_head = self._before
        tail, of_tail = self._after
        return head % of_head(given), tail % of_tail(given)


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def is_plain(batch: Batch, *, tells_time_quality: bool) -> bool:
    """Whether every row has the same time, and none has anything seldom to say."""
    quality = batch.time_quality
    return (
        (quality == 0 or (not tells_time_quality and type(quality) is int))
        and type(batch.source_time_ns) is not tuple
        and not batch.missing
    )


def our_time_ns(batch: Batch) -> int:
    """When it was received: by the clock of that moment, or told later."""
    return batch.received_ns if batch.dated_ns is None else batch.dated_ns


def picker(places: tuple[int, ...] | None) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Takes the items at some places, always as a tuple; None takes all."""
    if places is None:
        return tuple
    if not places:
        return lambda _: ()
    if len(places) == 1:
        return itemgetter(slice(places[0], places[0] + 1))
    return itemgetter(*places)


def columns_of(batch: Batch) -> Iterable[int]:
    """The column of the layout for each row."""
    return range(len(batch.values)) if batch.columns is None else batch.columns


def rows_of(batch: Batch, wanted: frozenset[int] | None) -> list[Row]:
    """Rows that a plan publishes; `wanted` are its columns, None for all."""
    if wanted is None:
        return list(enumerate(columns_of(batch)))
    return [(row, column) for row, column in enumerate(columns_of(batch)) if column in wanted]


def origin(time_ns: object, time_quality: Quality) -> str:
    """Who read the clock; `time_ns` is None where the device did not."""
    return gateway_origin(time_quality) if time_ns is None else DEVICE_TIME


class Rows:
    """Chosen rows of a batch, column by column, values and qualities as they may be shown."""

    __slots__ = ("_once", "missing", "our_time_ns", "points", "qualities", "time_qualities", "times_ns",
                 "values", "write_time")  # fmt: skip

    def __init__(
        self,
        batch: Batch,
        rows: list[Row],
        layout: Layout,
        *,
        write_time: WriteTime,
        constants: Mapping[Source, str],
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
        self.missing: Final[list[int]] = _chosen(batch.missing, rows)
        self.our_time_ns: Final = our_time_ns(batch)
        self.write_time: Final = write_time
        self._once: dict[Source, Value] = {
            Source.RECEIVED: write_time(batch.received_ns),
            Source.SEQ: batch.seq,
            Source.EPOCH: batch.epoch,
            Source.KIND: KIND_NAMES[batch.kind],
            Source.CAUSE: CAUSE_NAMES[batch.cause],
            Source.DEVICE: layout.device,
            **constants,
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
            return [self.write_time(self.our_time_ns if time is None else time) for time in self.times_ns]
        if source is Source.TIME_ORIGIN:
            pairs = zip(self.times_ns, self.time_qualities, strict=True)
            return [origin(time, quality) for time, quality in pairs]
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
