"""Plans of topics with {tag}: one message for each value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import repeat
from typing import TypeAlias

from gateway.core.batch import Batch
from gateway.core.point import Layout
from gateway.core.quality import BAD, GOOD, Quality
from gateway.translate.encoding import encoding_of
from gateway.translate.fields import Rows, Template, columns_of, is_plain, rows_of
from gateway.translate.payload import OPTIONAL, Source, honest, quality_text, raw_text, time_writer
from gateway.translate.rule import RuleSpec

Message: TypeAlias = tuple[bytes, bytes]
Ends: TypeAlias = list[tuple[bytes, bytes]]  # what stands before and after the value, by kind of point
Topics: TypeAlias = tuple[bytes | None, ...]  # by column of the layout, None where nothing is published


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
        return owners(self._layout, self._topics)


class TagPlan:
    """An object for each value, in JSON, MessagePack or CBOR.

    An object is `head + value + tail`; head and tail are written once per batch for each quality and unit in
    it. Only labels, and fields that show the value more than once, are put together row by row.
    """

    __slots__ = ("_constants", "_encoding", "_fields", "_historical", "_layout", "_missing", "_part",
                 "_tells_time_quality", "_template_of", "_templates", "_topics", "_write_time")  # fmt: skip

    def __init__(
        self,
        rule: RuleSpec,
        layout: Layout,
        topics: Topics,
        fields: tuple[tuple[str, Source], ...],
        *,
        gateway: str,
        site: str,
    ) -> None:
        self._layout = layout
        self._topics = topics
        self._encoding = encoding_of(rule.format)
        self._constants = {Source.SITE: site, Source.GATEWAY: gateway}
        self._write_time = time_writer(rule.time)
        self._fields = tuple((name, source) for name, source in fields if source not in OPTIONAL)
        self._historical = next((name for name, source in fields if source is Source.HISTORICAL), None)
        self._missing = next((name for name, source in fields if source is Source.MISSING), None)
        self._tells_time_quality = any(source is Source.TIME_QUALITY for _, source in fields)
        self._part = next((name for name, source in fields if source is Source.PART), None)
        sources = [source for _, source in self._fields]
        self._templates: list[Template] = []
        self._template_of: list[int] = []  # by column
        if sources.count(Source.VALUE) == 1 and Source.LABEL not in sources:
            self._compile_templates()

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """See `Plan.messages`."""
        columns = batch.columns
        if (
            not self._templates
            or (historical and self._historical)
            or not is_plain(batch, tells_time_quality=self._tells_time_quality)
            or (columns is not None and len(set(columns)) != len(columns))
        ):
            return self._row_by_row(batch, historical=historical)
        quality = batch.quality
        qualities = quality if isinstance(quality, tuple) else repeat(quality)
        ends: dict[Quality, Ends] = {}
        template_of, topics = self._template_of, self._topics
        write, null = self._encoding.value, self._encoding.null
        made: list[Message] = []
        for column, value, quality in zip(columns_of(batch), batch.values, qualities, strict=False):
            topic = topics[column]
            if topic is None:
                continue
            text = null if quality & BAD else write(value)
            if text == null:  # no value, NaN or an infinity: the quality says so
                quality = honest(value, quality)[1]
            if quality not in ends:
                ends[quality] = self._ends(batch, quality)
            head, tail = ends[quality][template_of[column]]
            made.append((topic, head + text + tail))
        return made

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        return owners(self._layout, self._topics)

    def _ends(self, batch: Batch, quality: Quality) -> Ends:
        text = self._encoding.encode(quality_text(quality))
        return [template.ends(batch, quality=text) for template in self._templates]

    def _row_by_row(self, batch: Batch, *, historical: bool) -> list[Message]:
        rows = [row for row in rows_of(batch, None) if self._topics[row[1]] is not None]
        said = Rows(batch, rows, self._layout, write_time=self._write_time, constants=self._constants)
        names = [name for name, _ in self._fields]
        columns = [said.column(source) for _, source in self._fields]
        seen = Counter[int]()
        made: list[Message] = []
        told = zip(rows, zip(*columns, strict=True), said.missing, strict=True)
        for (_, column), fields, missing in told:
            payload = dict(zip(names, fields, strict=True))
            if missing and self._missing:
                payload[self._missing] = missing
            if historical and self._historical:
                payload[self._historical] = True
            if self._part and seen[column]:
                payload[self._part] = seen[column]
            seen[column] += 1
            topic = self._topics[column]
            if topic is not None:
                made.append((topic, self._encoding.encode(payload)))
        return made

    def _compile_templates(self) -> None:
        known: dict[tuple[str, str], int] = {}
        has_tag = any(source is Source.TAG for _, source in self._fields)
        for point in self._layout.points:
            kind = (point.unit, point.tag if has_tag else "")
            if kind not in known:
                known[kind] = len(known)
                constants = {
                    Source.TIME_QUALITY: quality_text(GOOD),
                    Source.UNIT: point.unit,
                    Source.TAG: point.tag,
                    Source.DEVICE: self._layout.device,
                    **self._constants,
                }
                self._templates.append(Template(self._fields, constants, self._write_time, self._encoding))
            self._template_of.append(known[kind])


def owners(layout: Layout, topics: Topics | bytes) -> Iterator[tuple[bytes, str]]:
    """Each topic with its owner: a topic by column, or one for the device."""
    if isinstance(topics, bytes):
        yield topics, layout.device
        return
    for point, topic in zip(layout.points, topics, strict=True):
        if topic is not None:
            yield topic, point.name
