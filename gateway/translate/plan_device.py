"""Plans of topics without {tag}: one message for a batch, values by tag."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from gateway.core.batch import Batch
from gateway.core.point import Layout, Value
from gateway.core.quality import BAD, Quality
from gateway.translate.encoding import encoding_of
from gateway.translate.fields import Row, Rows, Template, is_plain, picker, rows_of
from gateway.translate.nesting import nested, nested_text
from gateway.translate.payload import OPTIONAL, Format, Source, quality_text, time_writer
from gateway.translate.rule import RuleSpec

Message: TypeAlias = tuple[bytes, bytes]
_SHAPES_MAX: Final = 4096  # layouts of different tag names; equal devices share theirs
_BY_POINT: Final = frozenset({Source.LABEL, Source.UNIT})


class DevicePlan:
    """An object (JSON, MessagePack, CBOR) for a batch; several, in order, where it repeats a point.

    Where all is good and of one time, the object is `head + values + tail`. A layout published whole is
    encoded as a struct whose field names are prepared; a part of it as a dict.
    """

    __slots__ = ("_constants", "_encoding", "_fields", "_good", "_historical", "_layout", "_missing",
                 "_mixed", "_nest", "_nested", "_part", "_pick", "_published", "_tags", "_tells_time_quality",
                 "_topic", "_wanted", "_whole", "_write_time")  # fmt: skip

    def __init__(
        self,
        rule: RuleSpec,
        layout: Layout,
        columns: tuple[int, ...] | None,
        topic: bytes,
        fields: tuple[tuple[str, Source], ...],
        *,
        gateway: str,
        site: str,
    ) -> None:
        self._layout = layout
        self._topic = topic
        self._encoding = encoding_of(rule.format)
        self._constants = {Source.SITE: site, Source.GATEWAY: gateway}
        self._write_time = time_writer(rule.time)
        self._fields = tuple((name, source) for name, source in fields if source not in OPTIONAL)
        self._historical = next((name for name, source in fields if source is Source.HISTORICAL), None)
        self._missing = next((name for name, source in fields if source is Source.MISSING), None)
        self._tells_time_quality = any(source is Source.TIME_QUALITY for _, source in fields)
        self._part = next((name for name, source in fields if source is Source.PART), None)
        self._wanted = None if columns is None else frozenset(columns)
        self._tags = tuple(point.tag for point in layout.points)
        self._pick = picker(columns)
        published = self._tags if columns is None else tuple(self._tags[column] for column in columns)
        self._nest = rule.nest
        self._published = published
        self._whole = _shape(published, is_struct=rule.format is not Format.CBOR)
        self._nested = nested_text(published, self._encoding) if rule.nest else b""
        sources = [source for _, source in self._fields]
        self._good: Template | None = None  # while all is good
        self._mixed: Template | None = None  # with the qualities that are not
        if sources.count(Source.VALUE) == 1 and _BY_POINT.isdisjoint(sources):
            constants = {Source.DEVICE: layout.device, **self._constants}
            mixed = [field for field in self._fields if field[1] is not Source.TIME_QUALITY]
            good = [field for field in mixed if field[1] is not Source.QUALITY]
            self._good = Template(good, constants, self._write_time, self._encoding)
            self._mixed = Template(mixed, constants, self._write_time, self._encoding)

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """See `Plan.messages`."""
        is_fast = is_plain(batch, tells_time_quality=self._tells_time_quality)
        if self._good and self._mixed and is_fast and not (historical and self._historical):
            template, values, doubts, nulls = self._good, batch.values, b"", 0
            if batch.quality != 0:
                values, doubts, nulls = self._without_bad(batch)
                template = self._mixed if doubts else self._good
            text, shown = self._values_text(batch.columns, values)
            if not shown:
                return []
            # More nulls than bad values: NaN, an infinity or no value, which the quality must say.
            if text and self._encoding.nulls(text, shown) == nulls:
                head, tail = template.ends(batch, quality=doubts)
                return [(self._topic, head + text + tail)]
        return [
            (self._topic, self._encoding.encode(self._object(batch, rows, part=part, historical=historical)))
            for part, rows in enumerate(_without_repeats(rows_of(batch, self._wanted)))
        ]

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        yield self._topic, self._layout.device

    def _without_bad(self, batch: Batch) -> tuple[tuple[Value, ...], bytes, int]:
        """Values with None where bad, the doubtful qualities by tag as JSON, and how many are bad."""
        values, doubts, nulls = list(batch.values), dict[str, str](), 0
        for row, column in rows_of(batch, self._wanted):
            quality = batch.quality[row] if isinstance(batch.quality, tuple) else batch.quality
            if quality:
                doubts[self._tags[column]] = quality_text(quality)
            if quality & BAD:
                values[row] = None
                nulls += 1
        return tuple(values), self._encoding.encode(doubts) if doubts else b"", nulls

    def _values_text(
        self, columns: tuple[int, ...] | None, values: tuple[Value, ...]
    ) -> tuple[bytes, Collection[Value]]:
        """The object of values, and the values in it; no text where a point repeats: it cannot hold them."""
        write = self._encoding.encode
        if columns is None:
            shown = self._pick(values)
            if self._nested:
                return self._nested % tuple(map(write, shown)), shown
            if self._nest:
                return write(nested(dict(zip(self._published, shown, strict=True)))), shown
            return write(self._whole(*shown)), shown
        tags, wanted = self._tags, self._wanted
        rows = [
            (tags[column], value)
            for column, value in zip(columns, values, strict=True)
            if wanted is None or column in wanted
        ]
        chosen = dict(rows)
        text = b"" if len(chosen) != len(rows) else write(nested(chosen) if self._nest else chosen)
        return text, chosen.values()

    def _object(self, batch: Batch, chosen: list[Row], *, part: int, historical: bool) -> dict[str, object]:
        rows = Rows(batch, chosen, self._layout, write_time=self._write_time, constants=self._constants)
        said: dict[str, object] = {}
        for name, source in self._fields:
            if source is Source.QUALITY:
                _say_doubts(said, name, rows, rows.qualities)
            elif source is Source.TIME_QUALITY:
                _say_doubts(said, name, rows, rows.time_qualities)
            elif source is Source.VALUE:
                said[name] = nested(_by_tag(rows, rows.values)) if self._nest else _by_tag(rows, rows.values)
            elif source is Source.UNIT:
                said[name] = {point.tag: point.unit for point in rows.points if point.unit}
            elif source is Source.LABEL:
                labels = zip(rows.points, rows.column(source), strict=True)
                said[name] = {point.tag: label for point, label in labels if point.labels or point.flags}
            elif source is Source.TIME or source is Source.TIME_ORIGIN:
                column = rows.column(source)
                once = all(one == column[0] for one in column)
                said[name] = column[0] if once else _by_tag(rows, column)
            else:
                said[name] = rows.once(source)
        if self._missing and any(rows.missing):
            pairs = zip(rows.points, rows.missing, strict=True)
            said[self._missing] = {point.tag: count for point, count in pairs if count}
        if historical and self._historical:
            said[self._historical] = True
        if part and self._part:
            said[self._part] = part
        return said


def _by_tag(rows: Rows, column: Iterable[object]) -> dict[str, object]:
    return {point.tag: one for point, one in zip(rows.points, column, strict=True)}


def _say_doubts(said: dict[str, object], name: str, rows: Rows, qualities: list[Quality]) -> None:
    """The qualities that are not plainly good, by tag; nothing where all are good."""
    pairs = zip(rows.points, qualities, strict=True)
    doubts = {point.tag: quality_text(quality) for point, quality in pairs if quality}
    if doubts:
        said[name] = doubts


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


@functools.lru_cache(maxsize=_SHAPES_MAX)
def _shape(tags: tuple[str, ...], *, is_struct: bool) -> Callable[..., object]:
    """Makes, from values in order, what encodes as the object of tags and values."""
    if not is_struct:
        return lambda *values: dict(zip(tags, values, strict=True))
    names = {f"field_{number}": tag for number, tag in enumerate(tags)}
    try:
        return msgspec.defstruct("Values", names, rename=names, gc=False)
    except ValueError:  # a tag with a character that JSON escapes: only a dict can have it
        return lambda *values: dict(zip(tags, values, strict=True))
