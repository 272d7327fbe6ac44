"""Plans of line protocol: a line for each value, or for each time of a batch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import repeat
from typing import Any, Final, TypeAlias

from gateway.core.batch import Batch
from gateway.core.errors import Problem
from gateway.core.point import Layout, ValueType
from gateway.core.quality import Quality
from gateway.translate import influx
from gateway.translate.faults import RuleError
from gateway.translate.fields import Row, Rows, columns_of, is_plain, origin, our_time_ns, rows_of
from gateway.translate.numbers import NumberTexts
from gateway.translate.payload import Source, honest, quality_text, time_writer
from gateway.translate.plan_tag import Message, Topics, owners
from gateway.translate.rule import RuleSpec
from gateway.translate.topic import TopicTemplate, names_of

SHAPES_MAX: Final = 256  # sets of changed columns that are compiled at a time
BY_POINT: Final = frozenset(
    {Source.VALUE, Source.QUALITY, Source.LABEL, Source.UNIT, Source.TAG, Source.MISSING}
)
_QUICK: Final = frozenset(
    {Source.VALUE, Source.QUALITY, Source.TIME_ORIGIN, Source.HISTORICAL, Source.MISSING}
)
Shape: TypeAlias = tuple[bytes, tuple[int, ...], NumberTexts]


class InfluxPlan:
    """Lines of one layout; `topics` by column, or one for the device.

    A bad value is left out and its quality said. In a line of many tags a value is the field `tag`, and what
    else is said of it `tag_name`: its quality only where it is not good.
    """

    def __init__(
        self,
        rule: RuleSpec,
        layout: Layout,
        columns: tuple[int, ...],
        topics: Topics | bytes,
        fields: tuple[tuple[str, Source], ...],
        *,
        gateway: str,
        site: str,
    ) -> None:
        """Raises `RuleError` for names that cannot stand in a line, or stand in it twice."""
        self._layout = layout
        self._columns = columns
        self._topics = topics
        self._fields = fields
        self._is_per_tag = isinstance(topics, tuple)
        self._write_time = time_writer(rule.time)
        self._constants = {Source.SITE: site, Source.GATEWAY: gateway}
        self._problems: list[Problem] = []
        self._quality_tags = tuple(name for name, source in rule.tags if source == Source.QUALITY.value)
        self._heads = self._name_lines(rule, gateway=gateway, site=site)
        self._keys = self._name_fields()
        if self._problems:
            raise RuleError(self._problems)
        sources = [source for _, source in fields]
        self._is_quick = _QUICK.issuperset(sources) and sources.count(Source.VALUE) == 1
        told = [source for source in sources if source in {Source.VALUE, Source.TIME_ORIGIN}]
        self._origin_place = told.index(Source.TIME_ORIGIN) - 1 if Source.TIME_ORIGIN in told else None
        self._shape = functools.lru_cache(maxsize=SHAPES_MAX)(self._make_shape)

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """See `Plan.topics`."""
        return owners(self._layout, self._topics)

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """See `Plan.messages`."""
        topics = self._topics
        rows_at = frozenset(self._columns)
        if isinstance(topics, tuple):
            if self._is_quick and not historical and is_plain(batch, tells_time_quality=False):
                return self._lines_of_plain(batch, topics)
            lines = [
                (topics[row[1]], self._line(batch, [row], historical=historical))
                for row in rows_of(batch, rows_at)
            ]
            return [(topic, line) for topic, line in lines if topic is not None and line]
        text: bytes | None = None
        if self._is_quick and not batch.quality and not historical:
            text = self._line_of_good(batch)
        if text is None:
            groups = _groups(batch, rows_of(batch, rows_at))
            made = [self._line(batch, group, historical=historical) for group in groups]
            text = b"\n".join(line for line in made if line)
        return [(topics, text)] if text else []

    def _lines_of_plain(self, batch: Batch, topics: Topics) -> list[Message]:
        """A line for each value, where all have one time."""
        time_ns, doubt = batch.source_time_ns, batch.time_quality
        told = origin(time_ns, doubt) if isinstance(doubt, int) else ""
        when = f" {self._write_time(time_ns if isinstance(time_ns, int) else our_time_ns(batch))}".encode()
        ends: dict[tuple[Quality, bool], tuple[bytes, bytes, bytes]] = {}
        quality = batch.quality
        qualities = quality if isinstance(quality, tuple) else repeat(quality)
        made: list[Message] = []
        for column, value, quality in zip(columns_of(batch), batch.values, qualities, strict=False):
            topic = topics[column]
            if topic is None:
                continue
            value, quality = influx.representable(*honest(value, quality))
            end = ends.get((quality, value is None))
            if end is None:
                end = ends[quality, value is None] = self._ends(quality, told, has_value=value is not None)
            tags, before, after = end
            text = b""
            if value is not None:
                text = influx.field_value(value, is_float=self._layout.points[column].type is ValueType.FLOAT)
            elif not before and not after:
                continue  # nothing to say but when
            made.append((topic, self._heads[column] + tags + before + text + after + when))
        return made

    def _ends(self, quality: Quality, told: str, *, has_value: bool) -> tuple[bytes, bytes, bytes]:
        """Tags, and what stands before and after the value; all empty where nothing is said of a bad one."""
        text = quality_text(quality)
        tags = b"".join(b"," + influx.key(name) + b"=" + influx.key(text) for name in self._quality_tags)
        if not has_value and all(source is not Source.QUALITY for _, source in self._fields):
            return b"", b"", b""
        sides: list[list[bytes]] = [[]]
        for name, source in self._fields:
            if source is Source.VALUE and has_value:
                sides[-1].append(influx.key(name) + b"=")
                sides.append([])
            elif source in {Source.QUALITY, Source.TIME_ORIGIN}:
                said = text if source is Source.QUALITY else told
                sides[-1].append(influx.key(name) + b"=" + influx.field_value(said))
        after = b"".join(b"," + part for part in sides[1]) if has_value else b""
        return tags, b" " + b",".join(sides[0]), after

    def _line_of_good(self, batch: Batch) -> bytes | None:
        """None where something is not as in most batches after all."""
        if not is_plain(batch, tells_time_quality=False):
            return None
        template, places, texts = self._shape(batch.columns)
        values = batch.values
        if len(places) != len(values):
            values = tuple(values[place] for place in places)
        said = texts.of(values) if values else None
        if said is None:
            return None
        time_ns = batch.source_time_ns
        if self._origin_place is not None:
            told = origin(time_ns, batch.time_quality) if isinstance(batch.time_quality, int) else ""
            said.insert(0 if self._origin_place < 0 else len(said), told.encode())
        when = self._write_time(time_ns if isinstance(time_ns, int) else our_time_ns(batch))
        return template % (*said, when)

    def _make_shape(self, columns: tuple[int, ...] | None) -> Shape:
        """A line with slots for what changes, the rows that go into it, and how they are written."""
        wanted = set(self._columns)
        given = tuple(range(len(self._layout))) if columns is None else columns
        places = tuple(row for row, column in enumerate(given) if column in wanted)
        shown = tuple(given[place] for place in places)
        if len(set(shown)) != len(shown):  # a column repeats, so that there are several lines
            return b"", (), NumberTexts(self._layout, ())
        parts: list[bytes] = []
        for name, source in self._fields:
            if source is Source.TIME_ORIGIN:
                parts.append(_escaped(influx.key(name)) + b'="%b"')
            elif source is Source.VALUE:
                kinds = [self._layout.points[column].type for column in shown]
                parts += [
                    _escaped(self._keys[column, name]) + (b"=%bi" if kind is ValueType.INT else b"=%b")
                    for column, kind in zip(shown, kinds, strict=True)
                ]
        text = _escaped(self._heads[self._columns[0]]) + b" " + b",".join(parts) + b" %d"
        return text, places, NumberTexts(self._layout, shown)

    def _line(self, batch: Batch, rows: list[Row], *, historical: bool) -> bytes:
        """One line of rows of one time; empty where it would have nothing to say of any of them."""
        said = Rows(batch, rows, self._layout, write_time=self._write_time, constants=self._constants)
        shown = list(map(influx.representable, said.values, said.qualities))
        parts: list[bytes] = []
        is_said = False
        for name, source in self._fields:
            if source not in BY_POINT:
                told = (historical or None) if source is Source.HISTORICAL else said.column(source)[0]
                if told is not None:
                    parts.append(influx.key(name) + b"=" + influx.field_value(told))
                continue
            for (_, column), told in zip(rows, self._told(said, shown, source), strict=True):
                if told is not None:
                    is_float = source is Source.VALUE and self._layout.points[column].type is ValueType.FLOAT
                    text = influx.field_value(told, is_float=is_float)
                    parts.append(self._keys[column, name] + b"=" + text)
                    is_said = is_said or source in {Source.VALUE, Source.QUALITY, Source.LABEL}
        if not is_said:
            return b""
        head = self._heads[rows[0][1] if self._is_per_tag else self._columns[0]]
        for name in self._quality_tags:
            head += b"," + influx.key(name) + b"=" + influx.key(quality_text(shown[0][1]))
        time_ns = said.times_ns[0]
        when = self._write_time(said.our_time_ns if time_ns is None else time_ns)
        return head + b" " + b",".join(parts) + f" {when}".encode()

    def _told(self, said: Rows, shown: list[tuple[Any, int]], source: Source) -> list[Any]:
        """What is said of each row; None where nothing is."""
        if source is Source.VALUE:
            return [value for value, _ in shown]
        if source is Source.QUALITY:
            return [quality_text(quality) if quality or self._is_per_tag else None for _, quality in shown]
        if source is Source.MISSING:
            return [count or None for count in said.missing]
        return said.column(source)

    def _name_lines(self, rule: RuleSpec, *, gateway: str, site: str) -> dict[int, bytes]:
        """Measurement and tags, by column; of a line of many tags at its first column."""
        template = TopicTemplate(rule.measurement, attributes=self._layout.attributes)
        heads: dict[int, bytes] = {}
        for column in self._columns if self._is_per_tag else self._columns[:1]:
            point = self._layout.points[column]
            names = names_of(self._layout, point if self._is_per_tag else None, gateway=gateway, site=site)
            name = template.render(names).decode()
            self._check("measurement", name)
            texts = {Source.DEVICE: names["device"], Source.TAG: point.tag, Source.UNIT: point.unit}
            head = influx.measurement(name)
            for tag, word in rule.tags:
                self._check("tags", tag)
                text = {**texts, **self._constants}.get(Source(word), "")
                if not influx.is_tag_value(text):
                    self._fault("tags", f"{tag}: {text!r}", "text without line breaks, and no \\ at its end")
                elif text:
                    head += b"," + influx.key(tag) + b"=" + influx.key(text)
            heads[column] = head
        return heads

    def _name_fields(self) -> dict[tuple[int, str], bytes]:
        """How the key of a field is written, by column and name."""
        keys: dict[tuple[int, str], bytes] = {}
        owners_of: dict[str, str] = {}

        def own(name: str, owner: str) -> None:
            self._check("fields", name)
            if owners_of.setdefault(name, owner) != owner:
                found = f"the field {name!r} for {owners_of[name]} and for {owner}"
                self._fault("fields", found, "other names of fields or tags")

        for name, source in self._fields:
            if self._is_per_tag or source not in BY_POINT:
                own(name, source.value)
            for column in self._columns:
                tag = self._layout.points[column].tag
                full = name if self._is_per_tag else tag if source is Source.VALUE else f"{tag}_{name}"
                if not self._is_per_tag and source in BY_POINT:
                    own(full, f"{source.value} of {tag!r}")
                keys[column, name] = influx.key(full)
        return keys

    def _check(self, where: str, name: str) -> None:
        if not influx.is_name(name):
            self._fault(where, repr(name), influx.NAME_EXPECTED)

    def _fault(self, where: str, found: str, expected: str) -> None:
        problem = Problem((where,), found, expected)
        if problem not in self._problems:
            self._problems.append(problem)


def _groups(batch: Batch, rows: list[Row]) -> list[list[Row]]:
    """Rows of one time and one doubt of it, cut before a point stands twice in a line."""
    groups: list[list[Row]] = []
    newest: dict[object, list[Row]] = {}
    times, doubts = batch.source_time_ns, batch.time_quality
    for row, column in rows:
        key = (
            times[row] if isinstance(times, tuple) else times,
            doubts[row] if isinstance(doubts, tuple) else doubts,
        )
        group = newest.get(key)
        if group is None or any(known == column for _, known in group):
            group = newest[key] = []
            groups.append(group)
        group.append((row, column))
    return groups


def _escaped(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")
