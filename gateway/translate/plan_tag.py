"""Plans of topics with {tag}: one message for each value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Final, TypeAlias

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point
from gateway.core.quality import BAD, Quality
from gateway.translate.fields import Rows, columns_of, constant, has_one_time, rows_of, scalars, slot
from gateway.translate.payload import OPTIONAL, Source, encode, honest, quality_text, raw_text, time_writer
from gateway.translate.rule import RuleSpec

Message: TypeAlias = tuple[bytes, bytes]
Ends: TypeAlias = list[tuple[bytes, bytes]]  # what stands before and after the value, by kind of point
Topics: TypeAlias = tuple[bytes | None, ...]  # by column of the layout, None where nothing is published
_NULL: Final = b"null"
_VALUE: Final = b"\xff"  # marks the value in a template: no byte of UTF-8


class RawPlan:
    """The text of the value alone; empty where it is bad."""

    __slots__ = ("_layout", "_topics")

    def __init__(self, layout: Layout, topics: Topics) -> None:
        self._layout = layout
        self._topics = topics

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:  # noqa: ARG002  # no fields
        """See `Plan.messages`."""
        quality = batch.quality
        qualities = quality if isinstance(quality, tuple) else repeat(quality)
        return [
            (topic, raw_text(honest(value, quality)[0]))
            for column, value, quality in zip(columns_of(batch), batch.values, qualities, strict=False)
            if (topic := self._topics[column]) is not None
        ]

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        return _owners(self._layout, self._topics)


class TagPlan:
    """A JSON object for each value.

    An object is `head + value + tail`; head and tail are written once per batch for each quality and unit in
    it. Only labels, and fields that show the value more than once, are put together row by row.
    """

    __slots__ = ("_ends_of", "_fields", "_historical", "_layout", "_names", "_part", "_templates", "_topics",
                 "_write_time")  # fmt: skip

    def __init__(
        self,
        rule: RuleSpec,
        layout: Layout,
        topics: Topics,
        fields: tuple[tuple[str, Source], ...],
        *,
        names: Mapping[str, str],
    ) -> None:
        self._layout = layout
        self._topics = topics
        self._names = dict(names)
        self._write_time = time_writer(rule.time)
        self._fields = tuple((name, source) for name, source in fields if source not in OPTIONAL)
        self._historical = next((name for name, source in fields if source is Source.HISTORICAL), None)
        self._part = next((name for name, source in fields if source is Source.PART), None)
        sources = [source for _, source in self._fields]
        known: dict[tuple[bytes, bytes], int] = {}
        if sources.count(Source.VALUE) == 1 and Source.LABEL not in sources:
            self._ends_of = tuple(
                known.setdefault(self._template(point), len(known)) for point in layout.points
            )
        self._templates = tuple(known)

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """See `Plan.messages`."""
        columns = batch.columns
        if (
            not self._templates
            or (historical and self._historical)
            or not has_one_time(batch)
            or (columns is not None and len(set(columns)) != len(columns))
        ):
            return self._row_by_row(batch, historical=historical)
        quality = batch.quality
        qualities = quality if isinstance(quality, tuple) else repeat(quality)
        ends: dict[Quality, Ends] = {}
        ends_of, topics = self._ends_of, self._topics
        made: list[Message] = []
        for column, value, quality in zip(columns_of(batch), batch.values, qualities, strict=False):
            topic = topics[column]
            if topic is None:
                continue
            text = _NULL if quality & BAD else encode(value)
            if text == _NULL:  # no value, NaN or an infinity: the quality says so
                quality = honest(value, quality)[1]
            if quality not in ends:
                ends[quality] = self._ends(batch, quality)
            head, tail = ends[quality][ends_of[column]]
            made.append((topic, head + text + tail))
        return made

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        return _owners(self._layout, self._topics)

    def _ends(self, batch: Batch, quality: Quality) -> Ends:
        given = scalars(batch, batch.source_time_ns, self._write_time)  # type: ignore[arg-type]  # has_one_time
        given[b"quality"] = quality_text(quality).encode()
        return [(head % given, tail % given) for head, tail in self._templates]

    def _row_by_row(self, batch: Batch, *, historical: bool) -> list[Message]:
        rows = [row for row in rows_of(batch, None) if self._topics[row[1]] is not None]
        said = Rows(batch, rows, self._layout, write_time=self._write_time, names=self._names)
        names = [name for name, _ in self._fields]
        columns = [said.column(source) for _, source in self._fields]
        seen = Counter[int]()
        made: list[Message] = []
        for (_, column), fields in zip(rows, zip(*columns, strict=True), strict=True):
            payload = dict(zip(names, fields, strict=True))
            if historical and self._historical:
                payload[self._historical] = True
            if self._part and seen[column]:
                payload[self._part] = seen[column]
            seen[column] += 1
            topic = self._topics[column]
            if topic is not None:
                made.append((topic, encode(payload)))
        return made

    def _template(self, point: Point) -> tuple[bytes, bytes]:
        """What stands before and after the value of a point, with slots."""
        known = {
            Source.QUALITY: b'"%(quality)b"',
            Source.TIME_QUALITY: constant(quality_text(0)),
            Source.UNIT: constant(point.unit),
            Source.TAG: constant(point.tag),
            Source.DEVICE: constant(self._layout.device),
            Source.SITE: constant(self._names["site"]),
            Source.GATEWAY: constant(self._names["gateway"]),
            Source.VALUE: _VALUE,
        }
        parts = [constant(name) + b":" + (slot(source) or known[source]) for name, source in self._fields]
        head, _, tail = (b"{" + b",".join(parts) + b"}").partition(_VALUE)
        return head, tail


def _owners(layout: Layout, topics: Topics) -> Iterator[tuple[bytes, str]]:
    for point, topic in zip(layout.points, topics, strict=True):
        if topic is not None:
            yield topic, point.name
