"""Answers questions about the past from the journal's own segments, page by page, in bounded steps."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from gateway.core.errors import GatewayError, StorageError
from gateway.disk.filesystem import FileSystem
from gateway.disk.record import Damage
from gateway.disk.segment import Segment
from gateway.journal.buckets import Bucket, Spans, Track, is_late
from gateway.journal.codec import Layouts
from gateway.journal.distinct import Distinct
from gateway.journal.lane_scan import HistoryLane, LaneScan, Part, SegmentGone, Wanted
from gateway.journal.parts import Known, before, merged_runs, off_gaps, spanning, touching
from gateway.journal.places import Places, Run
from gateway.journal.samples import Gap, Key, Sample

LIMIT_MAX: Final = 10_000  # rows of one page
PAGE_BYTES_MAX: Final = 32 << 20  # read for one page of raw values; with fewer rows it ends there
LOOK_BACK_BYTES_MAX: Final = 64 << 20  # read to find what held at the beginning; beyond it, that is not known
TRIES_MAX: Final = 5  # of one page, where segments are deleted or rewritten meanwhile
LAST_ROW: Final = 1 << 31  # above every row of a record
NOTHING: Final[Key] = (0, 0, -2)  # below everything

Item: TypeAlias = list[Sample] | Gap
Pages: TypeAlias = "Generator[None, None, Page]"
"""Work in steps: each `next` reads a bounded piece; what it returns in the end is the page."""


class HistoryError(GatewayError):
    """A question that cannot be answered as it was asked."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Which values of [from_ns, to_ns), by wall clock. With `every_ns` aggregates over spans of so long."""

    wanted: Wanted
    from_ns: int
    to_ns: int
    every_ns: int | None = None
    limit: int = 1000  # rows of a page, 1 to `LIMIT_MAX`
    after: str = ""  # `Page.after` of the page before


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Rows in the order of recording; aggregates by time. `after` asks for the next page, "" at the end."""

    rows: Sequence[Sample | Gap | Bucket]
    after: str


class Now(msgspec.Struct, frozen=True):
    """What is known of the present: values of the running epoch hold until `wall_ns`; epoch 0: none runs."""

    wall_ns: int
    epoch: int


class Historian:
    """Made for one worker thread; what it reads is written meanwhile by others."""

    def __init__(
        self,
        lanes: Sequence[HistoryLane],
        *,
        filesystem: FileSystem,
        report: Callable[[str, Damage], None],
    ) -> None:
        """`report(lane, damage)` is told about damage, from the thread that reads."""
        self._lanes = lanes
        self._filesystem = filesystem
        self._report = report
        self._layouts = Layouts()  # of its own: the journal's belong to other threads

    def ask(self, question: Question, now: Now) -> Pages:
        """One page. Raises `HistoryError` and `StorageError` from the steps."""
        if question.to_ns <= question.from_ns:
            raise HistoryError("the time asked for ends before it begins")
        if not 0 < question.limit <= LIMIT_MAX:
            raise HistoryError(f"limit: found {question.limit}, expected 1 to {LIMIT_MAX}")
        return self._guarded(question, now)

    def _guarded(self, question: Question, now: Now) -> Pages:
        work = self._values if question.every_ns is None else self._buckets
        try:
            for _ in range(TRIES_MAX):
                with contextlib.suppress(SegmentGone):
                    return (yield from work(question, now))
        except OSError as error:
            raise StorageError(f"{error.filename or 'history'}: cannot read: {error.strerror}") from error
        raise HistoryError("the journal changes faster than it can be read: ask again, or for less")

    def _scan(self, lane: HistoryLane, question: Question) -> LaneScan:
        return LaneScan(
            lane,
            filesystem=self._filesystem,
            layouts=self._layouts,
            wanted=question.wanted,
            report=self._report,
        )

    # Raw values

    def _values(self, question: Question, now: Now) -> Pages:
        after = _key(question.after)
        low, high = question.from_ns, question.to_ns
        known = yield from self._known()
        scans = [self._scan(lane, question) for lane in self._lanes]
        sources: list[Iterator[Item | None]] = [iter(off_gaps(merged_runs(known.values())))]
        for lane, scan in zip(self._lanes, scans, strict=True):
            parts = touching(known[lane.name], low, high, after[:2])
            sources.append(_read(scan, parts, min(high, now.wall_ns)))
        rows: list[Sample | Gap] = []
        distinct = Distinct()
        reached = after
        merged = _Merged(sources, [None, *scans])
        with contextlib.closing(merged.items()) as items:
            for item in items:
                if item is None:
                    yield
                    reached = max(reached, merged.reached())
                    if sum(scan.bytes_read for scan in scans) >= PAGE_BYTES_MAX and reached > after:
                        return Page(rows=rows, after=_token(reached))
                    continue
                for row in distinct.take(item):
                    if row.key > after and _is_in(row, low, high):
                        if len(rows) == question.limit:
                            return Page(rows=rows, after=_token(rows[-1].key))
                        rows.append(row)
        return Page(rows=rows, after="")

    # Aggregates

    def _buckets(self, question: Question, now: Now) -> Pages:
        every_ns = question.every_ns
        if every_ns is None or every_ns <= 0:
            raise HistoryError("every: expected a duration above 0")
        known = yield from self._known()
        from_ns = question.from_ns
        if question.after:
            from_ns = _time(question.after)
            if (from_ns - question.from_ns) % every_ns or not question.from_ns < from_ns < question.to_ns:
                raise HistoryError(f"after: found {question.after!r}, expected that of the answer before")
        whole = Spans(from_ns, question.to_ns, every_ns)
        scans = {lane.name: self._scan(lane, question) for lane in self._lanes}
        names: set[str] = set()
        for lane in self._lanes:
            for segment, places in _around(known[lane.name], from_ns, question.to_ns):
                names |= scans[lane.name].names(segment, places)
                yield
        self._check(names)
        count = min(whole.count, max(1, question.limit // max(1, len(names))))
        spans = Spans(from_ns, whole.bounds(count - 1)[1], every_ns)
        tracks: dict[str, Track] = {}
        runs = merged_runs(known.values())
        if now.epoch in runs:  # a run that says nothing new still goes on
            runs[now.epoch] = Run(now.epoch, runs[now.epoch].first_ns, now.wall_ns)
        for lane in self._lanes:
            yield from self._follow(scans[lane.name], known[lane.name], spans, tracks, runs, names)
        for track in tracks.values():
            if track.held is not None:
                track.hold_until(_last_sign(track.held, runs))
        ordered = sorted(tracks.items())
        rows = [track.bucket(index) for index in range(count) for _name, track in ordered]
        return Page(rows=rows, after="" if count == whole.count else str(spans.to_ns))

    def _follow(
        self,
        scan: LaneScan,
        known: Known,
        spans: Spans,
        tracks: dict[str, Track],
        runs: Mapping[int, Run],
        names: set[str],
    ) -> Generator[None, None, None]:
        """Feed what one lane has of the spans to the tracks."""
        parts = spanning(known, spans.from_ns, spans.to_ns)
        own: dict[str, Track] = {}
        epoch = _first_epoch(runs, spans.from_ns)
        for sample in (yield from self._look_back(scan, known, parts, spans.from_ns, epoch, names)):
            track = tracks.setdefault(sample.point.name, Track(spans, sample.point))
            own[sample.point.name] = track
            track.held = sample
        distinct = Distinct()
        for item in _read(scan, parts, spans.to_ns):
            if item is None:
                yield
            elif isinstance(item, Gap):
                for track in own.values():
                    track.hold_until(item.from_ns)
            else:
                for row in distinct.take(item):
                    if isinstance(row, Gap):
                        continue
                    track = tracks.setdefault(row.point.name, Track(spans, row.point))
                    own[row.point.name] = track
                    if track.held is not None and track.held.key[0] != row.key[0]:
                        track.hold_until(_last_sign(track.held, runs))
                    track.take(row)

    def _look_back(
        self,
        scan: LaneScan,
        known: Known,
        parts: list[Part],
        from_ns: int,
        epoch: int | None,
        names: set[str],
    ) -> Generator[None, None, list[Sample]]:
        """What each point said last before the first part, in runs that went on beyond `from_ns`."""
        found: dict[str, Sample] = {}
        settled: set[str] = set()  # what our own clock dated: nothing before it can hold any more
        if epoch is None:
            return []
        limit = scan.bytes_read + LOOK_BACK_BYTES_MAX
        for part, high_ns in before(known, parts, from_ns):
            if names <= {name for name in found if name in settled or found[name].time_ns >= high_ns}:
                break
            last: dict[str, Sample] = {}
            own: set[str] = set()
            is_whole = True
            for item in scan.read(part):
                if item is None:
                    yield
                elif isinstance(item, Gap):
                    last.clear()  # what was lost may have been later
                    is_whole = False
                else:
                    own |= _hold(last, (sample for sample in item if sample.key[0] >= epoch))
            if scan.end(from_ns) is not None:
                last.clear()
                is_whole = False
            for name, sample in last.items():
                known_one = found.get(name)
                if known_one is None or (name not in settled and _is_late(sample, known_one)):
                    found[name] = sample
            settled |= own
            if not is_whole or part.chunk.after[0] < epoch or scan.bytes_read >= limit:
                break
        return list(found.values())

    @staticmethod
    def _check(names: set[str]) -> None:
        if len(names) > LIMIT_MAX:
            raise HistoryError(f"{len(names)} points match, at most {LIMIT_MAX} are aggregated at once")

    # What stands where

    def _known(self) -> Generator[None, None, dict[str, Known]]:
        """Every segment with its places. One of an older version is read for it, once."""
        found: dict[str, Known] = {}
        for lane in self._lanes:
            own: Known = []
            for segment in lane.log.segments():
                places = lane.places.of(segment)
                if places is None and segment.committed:
                    try:
                        places = lane.places.read(self._filesystem, segment)
                    except FileNotFoundError:
                        continue
                    yield
                if places is not None:
                    own.append((segment, places))
            found[lane.name] = own
            yield
        return found


def _read(scan: LaneScan, parts: list[Part], end_ns: int) -> Iterator[Item | None]:
    for part in parts:
        yield from scan.read(part)
    if (gap := scan.end(end_ns)) is not None:
        yield gap


class _Merged:
    """Items of all sources in the order of recording; None where one of them pauses."""

    def __init__(self, sources: Sequence[Iterator[Item | None]], scans: Sequence[LaneScan | None]) -> None:
        self._sources = sources
        self._scans = scans
        self._heads: list[tuple[Key, int, Item]] = []
        self._open = set(range(len(sources)))  # no head and not at its end

    def items(self) -> Generator[Item | None, None, None]:
        while self._open or self._heads:
            for number in sorted(self._open):  # in turns, so that all of them come on
                yield from self._advance(number)
            if self._heads and not self._open:
                _, number, item = heapq.heappop(self._heads)
                self._open.add(number)
                yield item

    def reached(self) -> Key:
        """Nothing that comes is at or below this."""
        reads = [scan.position for number in self._open if (scan := self._scans[number]) is not None]
        keys = [(*position, LAST_ROW) for position in reads]
        keys += [(epoch, seq, row - 1) for (epoch, seq, row), _number, _item in self._heads]
        return min(keys, default=NOTHING)

    def _advance(self, number: int) -> Generator[None, None, None]:
        """Until it pauses, has something, or ends."""
        for item in self._sources[number]:
            if item is None:
                yield
                return
            if item:
                key = item.key if isinstance(item, Gap) else item[0].key
                heapq.heappush(self._heads, (key, number, item))
                break
        self._open.discard(number)


def _is_in(row: Sample | Gap, from_ns: int, to_ns: int) -> bool:
    return row.touches(from_ns, to_ns) if isinstance(row, Gap) else from_ns <= row.time_ns < to_ns


def _around(known: Known, from_ns: int, to_ns: int) -> list[tuple[Segment, Places]]:
    """Segments in which points of the time are defined, that before it included."""
    parts = spanning(known, from_ns, to_ns)
    first = next(before(known, parts, from_ns), None)
    own = ([] if first is None else [first[0]]) + parts
    return list({part.segment.index: (part.segment, part.places) for part in own}.values())


def _first_epoch(runs: Mapping[int, Run], time_ns: int) -> int | None:
    """The first run that went on after `time_ns`: what was said in those before holds no more."""
    return next((run.epoch for run in runs.values() if run.last_ns > time_ns), None)


def _hold(last: dict[str, Sample], samples: Iterable[Sample]) -> set[str]:
    """Which value holds after these; the names of those that our own clock dated."""
    own: set[str] = set()
    for sample in samples:
        name = sample.point.name
        held = last.get(name)
        if held is None or not _is_late(held, sample):
            last[name] = sample
        if not sample.is_device_time:
            own.add(name)
    return own


def _is_late(held: Sample, sample: Sample) -> bool:
    return held.key[0] == sample.key[0] and is_late(held, sample)


def _last_sign(sample: Sample, runs: Mapping[int, Run]) -> int:
    run = runs.get(sample.key[0])
    return sample.time_ns if run is None else run.last_ns


def _token(key: Key) -> str:
    return "-".join(str(number) for number in (key[0], key[1], key[2] + 2))


def _key(token: str) -> Key:
    parts = token.split("-")
    if not token:
        return NOTHING
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 20 for part in parts):
        raise HistoryError(f"after: found {token[:80]!r}, expected that of the answer before")
    epoch, seq, row = map(int, parts)
    return (epoch, seq, row - 2)


def _time(token: str) -> int:
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise HistoryError(f"after: found {token[:80]!r}, expected that of the answer before")
    return int(token)
