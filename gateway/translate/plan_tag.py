"""Plans of topics with {tag}: one message for each value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point
from gateway.core.quality import GOOD
from gateway.translate.fields import RowReader, constant, is_plain, rows_of, scalars, slot
from gateway.translate.payload import OPTIONAL, Source, encode, quality_text, raw_text, time_writer
from gateway.translate.rule import RuleSpec

Message = tuple[bytes, bytes]
_VALUE: Final = b"\xff"  # marks the value in a template: no byte of UTF-8


class _Columns:
    """Which columns of a layout a plan publishes, and where to."""

    __slots__ = ("layout", "topics", "wanted")

    def __init__(
        self, layout: Layout, columns: tuple[int, ...] | None, topics: tuple[bytes | None, ...]
    ) -> None:
        self.layout = layout
        self.topics = topics
        self.wanted = None if columns is None else frozenset(columns)

    def owners(self) -> Iterator[tuple[bytes, str]]:
        for point, topic in zip(self.layout.points, self.topics, strict=True):
            if topic is not None:
                yield topic, point.name


class RawPlan:
    """The text of the value alone; empty where it is bad."""

    __slots__ = ("_columns",)

    def __init__(
        self, layout: Layout, columns: tuple[int, ...] | None, topics: tuple[bytes | None, ...]
    ) -> None:
        self._columns = _Columns(layout, columns, topics)

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:  # noqa: ARG002  # no fields
        """See `Plan.messages`."""
        topics = self._columns.topics
        reader = RowReader(batch, self._columns.layout, int, {"site": "", "gateway": ""})
        return [
            (topic, raw_text(reader.value_and_quality(row)[0]))
            for row in rows_of(batch, self._columns.wanted)
            if (topic := topics[row[1]]) is not None
        ]

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        return self._columns.owners()


class TagPlan:
    """A JSON object for each value.

    Where everything but the value is the same for the whole batch, an object is `head + value + tail`, and
    head and tail are written once per batch. Points of equal unit share them.
    """

    __slots__ = ("_columns", "_ends", "_ends_of", "_fields", "_historical", "_names", "_part", "_sources",
                 "_write_time")  # fmt: skip

    def __init__(
        self,
        rule: RuleSpec,
        layout: Layout,
        columns: tuple[int, ...] | None,
        topics: tuple[bytes | None, ...],
        fields: tuple[tuple[str, Source], ...],
        *,
        names: Mapping[str, str],
    ) -> None:
        self._columns = _Columns(layout, columns, topics)
        self._names = dict(names)
        self._write_time = time_writer(rule.time)
        stated = [(name, source) for name, source in fields if source not in OPTIONAL]
        self._fields = tuple(name for name, _ in stated)
        self._sources = tuple(source for _, source in stated)
        self._historical = next((name for name, source in fields if source is Source.HISTORICAL), None)
        self._part = next((name for name, source in fields if source is Source.PART), None)
        known: dict[tuple[bytes, bytes], int] = {}
        templates = [self._template(point) for point in layout.points]
        self._ends_of = tuple(known.setdefault(ends, len(known)) for ends in templates if ends is not None)
        self._ends = tuple(known)

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """See `Plan.messages`."""
        columns = batch.columns
        if (
            not self._ends
            or (historical and self._historical)
            or not is_plain(batch)
            or (columns is not None and len(set(columns)) != len(columns))
        ):
            return self._row_by_row(batch, historical=historical)
        given = scalars(batch, self._write_time)
        ends = [(head % given, tail % given) for head, tail in self._ends]
        ends_of, topics = self._ends_of, self._columns.topics
        made: list[Message] = []
        for column, value in zip(
            range(len(batch.values)) if columns is None else columns, batch.values, strict=True
        ):
            topic = topics[column]
            if topic is not None:
                text = encode(value)
                if text == b"null":  # no value, NaN or an infinity: the quality must say so
                    return self._row_by_row(batch, historical=historical)
                head, tail = ends[ends_of[column]]
                made.append((topic, head + text + tail))
        return made

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        return self._columns.owners()

    def _row_by_row(self, batch: Batch, *, historical: bool) -> list[Message]:
        reader = RowReader(batch, self._columns.layout, self._write_time, self._names)
        topics, seen = self._columns.topics, Counter[int]()
        made: list[Message] = []
        for row in rows_of(batch, self._columns.wanted):
            topic = topics[row[1]]
            if topic is None:
                continue
            payload = dict(zip(self._fields, reader.of_row(row, self._sources), strict=True))
            if historical and self._historical:
                payload[self._historical] = True
            if seen[row[1]] and self._part:
                payload[self._part] = seen[row[1]]
            seen[row[1]] += 1
            made.append((topic, encode(payload)))
        return made

    def _template(self, point: Point) -> tuple[bytes, bytes] | None:
        """What stands before and after the value; None where another field depends on it."""
        known = {
            Source.QUALITY: quality_text(GOOD),
            Source.TIME_QUALITY: quality_text(GOOD),
            Source.UNIT: point.unit,
            Source.TAG: point.tag,
            Source.DEVICE: self._columns.layout.device,
            Source.SITE: self._names["site"],
            Source.GATEWAY: self._names["gateway"],
        }
        if self._sources.count(Source.VALUE) != 1 or Source.LABEL in self._sources:
            return None
        parts = []
        for name, source in zip(self._fields, self._sources, strict=True):
            text = _VALUE if source is Source.VALUE else slot(source) or constant(known[source])
            parts.append(constant(name) + b":" + text)
        head, _, tail = (b"{" + b",".join(parts) + b"}").partition(_VALUE)
        return head, tail
