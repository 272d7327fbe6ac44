"""What a configuration writes to its disk in a day, and how long what is buffered lasts.

Record sizes are those of the journal's own codec and packer on synthetic values that walk in small steps.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from gateway.app.compiled import Compiled
from gateway.app.history_rule import history_streams
from gateway.app.plan import LinkCost
from gateway.app.rules import (
    LANES,
    buffer_bytes,
    columns_of,
    is_spilling,
    keep_ns,
    lane_bytes,
    policy_of,
    stream_name,
)
from gateway.config.site import Site
from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Priority, Value, ValueType
from gateway.disk import record
from gateway.disk.block import Compression, Packer
from gateway.flow.hub import Stream
from gateway.flow.report import ReportOn
from gateway.journal import codec
from gateway.journal.codec import CursorNote, CursorsNote, RecordType

PAGE_BYTES: Final = 4096  # what a commit writes at least, and once more of the page it begins in
DAY_S: Final = 86_400
SAVES_PER_S: Final = 1.0  # of the cursors of a lane in which something is delivered
SAMPLE_RECORDS_MAX: Final = 500
SEGMENT_S_MAX: Final = 3600.0  # after it a segment is sealed, and the next one says all layouts again
_WALL_NS: Final = 1_767_225_600_000_000_000  # some time in 2026: of today's size


class StreamCost(msgspec.Struct, frozen=True, kw_only=True):
    """One rule in one lane."""

    name: str
    lane: Priority
    records_per_s: float
    record_bytes: float  # on average, packed
    buffer_bytes: int
    keep_ns: int
    lasts_s: float | None  # until the buffer is full or old; None where nothing is recorded

    @property
    def bytes_per_day(self) -> float:
        """Of its records, packed."""
        return self.records_per_s * self.record_bytes * DAY_S


class Wear(msgspec.Struct, frozen=True, kw_only=True):
    """At one share of values that change."""

    share: float
    streams: tuple[StreamCost, ...]
    commits_per_s: float
    packed: float  # bytes after packing for each byte before
    bytes_per_day: float  # the journal grows by, before anything is deleted
    disk_bytes_per_day: float  # whole pages, as the disk is asked to write them


class _Flow(msgspec.Struct, frozen=True):
    """Records of one layout in one stream."""

    stream: Stream
    layout: Layout
    columns: tuple[int, ...]  # of each record
    per_s: float


def wear(compiled: Compiled, costs: list[LinkCost], *, share: float) -> Wear:
    """`share`: of the values that change from one scan to the next, 0 to 1; 1 is the worst there can be."""
    site, layouts = compiled.site, compiled.layouts
    periods_ns = _periods(compiled, costs)
    streams: list[tuple[str, Stream, int, int]] = []
    for rule in site.publish:
        columns = columns_of(rule, layouts)
        for priority in LANES:
            is_spilled = priority is Priority.NORMAL and is_spilling(rule)
            lane = Priority.SPILLED if is_spilled else priority
            stream = Stream(
                name=stream_name(rule),
                policy=policy_of(rule.model.report),
                lane=lane,
                columns=columns[priority],
            )
            name = f"{rule.index} {rule.model.topic}"
            streams.append((name, stream, buffer_bytes(site, rule, lane), keep_ns(rule, lane)))
    for stream in history_streams(site, layouts):
        history = site.journal.history
        assert history is not None
        streams.append(
            ("history", stream, min(history.max_bytes, lane_bytes(site, stream.lane)), history.keep_ns)
        )
    found: list[StreamCost] = []
    commits = grows = pages = plain = packed = 0.0
    for lane in (*LANES, Priority.SPILLED):
        own = [one for one in streams if one[1].lane is lane and one[1].columns]
        flows = [flow for _name, stream, *_ in own for flow in _flows(stream, periods_ns, share)]
        made = _Lane(site, flows)
        if lane is not Priority.SPILLED:  # which the disk sees only while the uplink does not keep up
            commits += made.commits_per_s
            grows += made.bytes_per_s
            pages += made.bytes_per_s + made.commits_per_s * PAGE_BYTES
        plain += made.plain_per_s
        packed += made.records_per_s_bytes
        for name, stream, limit, kept_ns in own:
            records = sum(flow.per_s for flow in flows if flow.stream is stream)
            size = made.bytes_of(stream)
            fills_s = limit / made.records_per_s_bytes if made.records_per_s_bytes else None
            found.append(
                StreamCost(
                    name=name,
                    lane=lane,
                    records_per_s=records,
                    record_bytes=size / records if records else 0.0,
                    buffer_bytes=limit,
                    keep_ns=kept_ns,
                    lasts_s=None if fills_s is None else min(fills_s, kept_ns / 1e9),
                )
            )
    return Wear(
        share=share,
        streams=tuple(found),
        commits_per_s=commits,
        packed=packed / plain if plain else 1.0,
        bytes_per_day=grows * DAY_S,
        disk_bytes_per_day=pages * DAY_S,
    )


class _Lane:
    """The records of one lane, measured on a sample of what one commit holds."""

    def __init__(self, site: Site, flows: list[_Flow]) -> None:
        rate = sum(flow.per_s for flow in flows)
        at_most = 1e9 / site.journal.commit_ns
        self.commits_per_s = min(at_most, rate + SAVES_PER_S) if rate else 0.0
        self._plain: dict[str, float] = {}
        sample = _Sample(site)
        definitions: dict[Layout, int] = {}
        for flow in flows:
            size = sum(len(sample.record(flow)) for _ in range(3)) / 3
            self._plain[flow.stream.name] = self._plain.get(flow.stream.name, 0.0) + size * flow.per_s
            definitions[flow.layout] = sample.definition(flow.layout)
        self.plain_per_s = sum(self._plain.values())
        self._packed = sample.packed(flows, rate / min(at_most, rate)) if rate else 1.0
        self.records_per_s_bytes = self.plain_per_s * self._packed
        names = sorted({flow.stream.name for flow in flows})
        saves = SAVES_PER_S * sample.cursors(names) if rate else 0.0
        anew = sum(definitions.values()) / SEGMENT_S_MAX
        self.bytes_per_s = self.records_per_s_bytes + saves + anew

    def bytes_of(self, stream: Stream) -> float:
        """A second, packed."""
        return self._plain.get(stream.name, 0.0) * self._packed


class _Sample:
    """Records with values that walk."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._chance = random.Random(1)  # noqa: S311 - the same plan each time
        self._state: dict[str, float] = {}
        self._seq = 0

    def record(self, flow: _Flow) -> bytes:
        """The next one of a flow, as the journal writes it."""
        self._seq += 1
        now_ns = _WALL_NS + self._seq * 10_137_413
        points = flow.layout.points
        values = tuple([self._next(points[column]) for column in flow.columns])
        columns = None if len(flow.columns) == len(flow.layout) else flow.columns
        batch = Batch(
            layout=flow.layout,
            values=values,
            columns=columns,
            received_ns=now_ns,
            monotonic_ns=now_ns % 10**15,
        )
        body = codec.encode_batch(batch, b"\0" * codec.LAYOUT_ID_BYTES)
        position = (_WALL_NS // 10**9, self._seq)
        tag = codec.stream_tag(flow.stream.name)
        return record.encode(RecordType.BATCH, position, tag, now_ns, body, 0)

    def definition(self, layout: Layout) -> int:
        """Bytes that say what a layout is."""
        content = codec.layout_content(layout)
        return record.OVERHEAD_BYTES + len(codec.encode_definition(content, self._site.version)[1])

    def cursors(self, names: list[str]) -> int:
        """Bytes of one save."""
        low = (_WALL_NS // 10**9, 10**6)
        notes = [CursorNote(name, (name,), low, (), 10**15, 10**9, "drop_oldest", 0, low) for name in names]
        note = CursorsNote(10**15, 10**15, tuple(notes))
        return record.OVERHEAD_BYTES + len(codec.encode_note(note))

    def packed(self, flows: list[_Flow], count: float) -> float:
        """What is left of a commit of so many records, for each byte."""
        number = max(1, min(SAMPLE_RECORDS_MAX, round(count)))
        chosen = self._chance.choices(flows, [flow.per_s for flow in flows], k=number)
        items = [self.record(flow) for flow in chosen]
        done = Packer(Compression(self._site.journal.compression)).pack(items, 0)
        return sum(len(data) for data, _ in done) / sum(map(len, items))

    def _next(self, point: Point) -> Value:
        if point.type is ValueType.BOOL:
            return self._chance.random() < 0.5
        if point.type is ValueType.STRING:
            return f"{self._chance.randrange(10**8):08d}"
        if point.type is ValueType.BYTES:
            return self._chance.randbytes(8)
        is_int = point.type is ValueType.INT
        step = self._chance.randrange(-10, 11) * (1 if is_int else 0.1)
        value = self._state.get(point.name, 1000 + len(self._state)) + step
        self._state[point.name] = value
        return int(value) if is_int else float(value)


def _flows(stream: Stream, periods_ns: Mapping[Layout, float], share: float) -> Iterator[_Flow]:
    """What a stream records of each layout when `share` of the values differ from scan to scan."""
    policy = stream.policy
    for layout, columns in stream.columns.items():
        period_s = max(periods_ns[layout], policy.min_ns if policy.on is ReportOn.CHANGE else 0) / 1e9
        changed = len(columns) if policy.on is ReportOn.SCAN else len(columns) * share
        if changed:
            count = max(1, round(changed))
            yield _Flow(stream, layout, columns[:count], min(1.0, changed) / period_s)
        still = len(columns) - round(changed)
        if policy.heartbeat_ns and still > 0:
            yield _Flow(stream, layout, columns[-still:], 1e9 / policy.heartbeat_ns)


def _periods(compiled: Compiled, costs: list[LinkCost]) -> dict[Layout, float]:
    """From scan to scan in ns; what is read without a period takes what its requests take."""
    periods: dict[Layout, float] = {}
    for (name, parts), link in zip(compiled.links.items(), costs, strict=True):
        assert link.name == name
        classes = {one.name: one for one in link.classes}
        for layout in parts.layouts:
            every_ns = compiled.site.scans[layout.scan].every_ns
            if not every_ns:
                one = classes[layout.scan]
                every_ns = max(
                    1, round(one.requests * link.answer_ns / link.in_flight) + one.wire_ns + one.gap_ns
                )
            periods[layout] = every_ns
    return periods
