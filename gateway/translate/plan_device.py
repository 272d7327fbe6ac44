"""Plans of topics without {tag}: one message for a batch, values by tag."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec

from gateway.core.batch import Batch
from gateway.core.point import Layout, Value
from gateway.core.quality import Quality
from gateway.translate.fields import Row, RowReader, constant, is_plain, origin, rows_of, scalars, slot
from gateway.translate.payload import OPTIONAL, Source, encode, label_of, quality_text, time_writer
from gateway.translate.rule import RuleSpec

Message: TypeAlias = tuple[bytes, bytes]
Json: TypeAlias = Value | dict[str, Value]
_VALUES: Final = b"\xff"  # marks the object of values in a template: no byte of UTF-8
_SHAPES_MAX: Final = 4096  # layouts of different tag names; equal devices share theirs
_DYNAMIC: Final = frozenset({Source.LABEL, Source.UNIT})


class DevicePlan:
    """One JSON object for a batch; several, in order, where the batch repeats a point.

    Where all is good and of one time, the object is `head + values + tail`. A layout published whole is
    encoded as a struct whose field names are prepared; a part of it as a dict.
    """

    __slots__ = ("_columns", "_ends", "_fields", "_historical", "_layout", "_names", "_part", "_pick", "_tags",
                 "_topic", "_wanted", "_whole", "_write_time")  # fmt: skip

    def __init__(
        self,
        rule: RuleSpec,
        layout: Layout,
        columns: tuple[int, ...] | None,
        topic: bytes,
        fields: tuple[tuple[str, Source], ...],
        *,
        names: Mapping[str, str],
    ) -> None:
        self._layout = layout
        self._topic = topic
        self._names = dict(names)
        self._write_time = time_writer(rule.time)
        self._fields = tuple((name, source) for name, source in fields if source not in OPTIONAL)
        self._historical = next((name for name, source in fields if source is Source.HISTORICAL), None)
        self._part = next((name for name, source in fields if source is Source.PART), None)
        self._columns = columns
        self._wanted = None if columns is None else frozenset(columns)
        self._tags = tuple(point.tag for point in layout.points)
        self._pick = _picker(columns)
        self._whole = _shape(
            self._tags if columns is None else tuple(self._tags[column] for column in columns)
        )
        self._ends = self._template()

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """See `Plan.messages`."""
        if self._ends is not None and is_plain(batch) and not (historical and self._historical):
            values = self._plain_values(batch)
            if values is None:
                return []
            if values and b"null" not in values:  # no value, NaN or an infinity: the quality must say so
                given = scalars(batch, self._write_time)
                head, tail = self._ends
                return [(self._topic, head % given + values + tail % given)]
        reader = RowReader(batch, self._layout, self._write_time, self._names)
        return [
            (self._topic, encode(self._object(reader, rows, part=part, historical=historical)))
            for part, rows in enumerate(_without_repeats(rows_of(batch, self._wanted)))
        ]

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        yield self._topic, self._layout.device

    def _plain_values(self, batch: Batch) -> bytes | None:
        """The object of values as JSON; None where the plan has none of them, empty where a point repeats."""
        columns, values = batch.columns, batch.values
        if columns is None:
            return encode(self._whole(*self._pick(values)))
        tags = self._tags
        wanted = self._wanted
        if wanted is None:
            chosen = dict(zip(map(tags.__getitem__, columns), values, strict=True))
            return encode(chosen) if len(chosen) == len(columns) else b""
        rows = [
            (tags[column], value) for column, value in zip(columns, values, strict=True) if column in wanted
        ]
        chosen = dict(rows)
        if not rows:
            return None
        return encode(chosen) if len(chosen) == len(rows) else b""

    def _object(self, reader: RowReader, rows: list[Row], *, part: int, historical: bool) -> dict[str, Json]:
        said: dict[str, Json] = {}
        for name, source in self._fields:
            if source is Source.QUALITY or source is Source.TIME_QUALITY:
                doubts = _doubts(reader, rows, source)
                if doubts:
                    said[name] = doubts
            else:
                said[name] = _say(reader, rows, source)
        if historical and self._historical:
            said[self._historical] = True
        if part and self._part:
            said[self._part] = part
        return said

    def _template(self) -> tuple[bytes, bytes] | None:
        """What stands before and after the values; None where another field depends on the rows."""
        sources = [source for _, source in self._fields]
        if sources.count(Source.VALUE) != 1 or _DYNAMIC.intersection(sources):
            return None
        known = {
            Source.DEVICE: self._layout.device,
            Source.SITE: self._names["site"],
            Source.GATEWAY: self._names["gateway"],
        }
        parts = []
        for name, source in self._fields:
            if source is Source.QUALITY or source is Source.TIME_QUALITY:
                continue  # absent where all is good
            text = _VALUES if source is Source.VALUE else slot(source) or constant(known[source])
            parts.append(constant(name) + b":" + text)
        head, _, tail = (b"{" + b",".join(parts) + b"}").partition(_VALUES)
        return head, tail


def _say(reader: RowReader, rows: list[Row], source: Source) -> Json:
    """A field of the object: said once, or by tag."""
    if source is Source.VALUE:
        return {reader.point(row).tag: reader.value_and_quality(row)[0] for row in rows}
    if source is Source.TIME:
        times = [reader.source_time_ns(row) for row in rows]
        return _once_or_by_tag(reader, rows, [reader.written_time(time) for time in times])
    if source is Source.TIME_ORIGIN:
        return _once_or_by_tag(reader, rows, [origin(reader.source_time_ns(row)) for row in rows])
    if source is Source.UNIT:
        return {point.tag: point.unit for row in rows if (point := reader.point(row)).unit}
    if source is Source.LABEL:
        return {
            point.tag: label_of(point, reader.value_and_quality(row)[0])
            for row in rows
            if (point := reader.point(row)).labels
        }
    return reader.common(source)


def _once_or_by_tag(reader: RowReader, rows: list[Row], said: list[Any]) -> Json:
    if all(one == said[0] for one in said):
        return said[0]  # type: ignore[no-any-return]  # times and origins are Json
    return {reader.point(row).tag: one for row, one in zip(rows, said, strict=True)}


def _doubts(reader: RowReader, rows: list[Row], source: Source) -> dict[str, Value]:
    """The qualities that are not plainly good, by tag."""
    qualities: list[Quality] = [
        reader.value_and_quality(row)[1] if source is Source.QUALITY else reader.time_quality(row)
        for row in rows
    ]
    return {
        reader.point(row).tag: quality_text(quality)
        for row, quality in zip(rows, qualities, strict=True)
        if quality
    }


def _without_repeats(rows: list[Row]) -> list[list[Row]]:
    """Rows in order, cut before a point stands twice in a piece: an object would lose the first."""
    pieces: list[list[Row]] = []
    seen: set[int] = set()
    for row in rows:
        if not pieces or row[1] in seen:
            pieces.append([])
            seen.clear()
        pieces[-1].append(row)
        seen.add(row[1])
    return pieces


def _picker(columns: tuple[int, ...] | None) -> Callable[[tuple[Value, ...]], tuple[Value, ...]]:
    if columns is None:
        return tuple
    if len(columns) == 1:
        return itemgetter(slice(columns[0], columns[0] + 1))
    return itemgetter(*columns)


@functools.lru_cache(maxsize=_SHAPES_MAX)
def _shape(tags: tuple[str, ...]) -> Callable[..., object]:
    """Makes, from values in order, what encodes as the object of tags and values."""
    names = {f"field_{number}": tag for number, tag in enumerate(tags)}
    try:
        return msgspec.defstruct("Values", names, rename=names, gc=False)
    except ValueError:  # a tag with a character that JSON escapes: only a dict can have it
        return lambda *values: dict(zip(tags, values, strict=True))
