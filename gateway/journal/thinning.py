"""A backlog made thinner: of the values of each tag every n-th is kept, and what must not be lost of them.

Kept besides are each value whose quality differs from the one before, the last value of each tag in what is
rewritten (so that a tag that changes seldom does not end on an old value), and every event. A value behind
others that were taken out says how many they were.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.batch import Cause, Kind
from gateway.disk.block import Compression
from gateway.disk.filesystem import FileSystem
from gateway.disk.record import Damage, Entry, Position
from gateway.disk.rewrite import read, rewrite
from gateway.disk.segment import Segment
from gateway.journal import codec
from gateway.journal.acknowledged import Range, covers
from gateway.journal.codec import RecordType, SegmentNote, StoredBatch
from gateway.journal.placed import note_entry
from gateway.journal.places import PlaceBook

FACTOR_MAX: Final = 1024  # of so many values one is kept at least; beyond it the oldest are dropped


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What shall become of some segments. Made on the owner's thread, carried out on another."""

    directory: Path
    lane: int
    salt: int
    sources: tuple[Segment, ...]
    streams: Mapping[str, int]  # what to thin → of how many values one is kept
    steps: Mapping[str, Mapping[int, int]]  # for each of them: segment index → the factor that is still to do
    passed: Mapping[int, tuple[Position, tuple[Range, ...]]]  # tag → low mark and ranges wanted by nobody
    created_ns: int
    compression: Compression
    elapsed_ns: int  # of the last source


class Thinned(msgspec.Struct, frozen=True, kw_only=True):
    """What it was made into."""

    task: Task
    segment: Segment
    records: Mapping[str, int]  # taken out, by stream; those that nobody wanted too
    values: Mapping[str, int]  # taken out of what somebody wanted, by stream
    damage: tuple[Damage, ...]

    @property
    def saved_bytes(self) -> int:
        """Less on the disk than before."""
        return sum(segment.size for segment in self.task.sources) - self.segment.size


class _Tag:
    """What was seen of the values of one (stream, layout): a list for each fact, by column."""

    __slots__ = ("count", "last", "missing", "quality")

    def __init__(self) -> None:
        self.last: dict[int, int] = {}  # column → number of the last record that has it
        self.count: dict[int, int] = {}
        self.quality: dict[int, int] = {}
        self.missing: dict[int, int] = {}


class Thinner:
    """Carries one task out: `look` at everything first, then `thin` everything again."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._tags: dict[tuple[int, bytes], _Tag] = {}
        self._names: dict[int, str] = {}
        self._factor: dict[tuple[int, int], int] = {}  # (segment index, tag) → factor
        self._used: set[bytes] = set()  # layouts of what is kept
        self._last: dict[int, int] = {}  # type → number of the last record of those that say all anew
        self._book = PlaceBook()
        self._defined: set[tuple[int, bytes]] = set()
        self.kept: Counter[int] = Counter()  # records by tag
        self.records: Counter[str] = Counter()
        self.values: Counter[str] = Counter()
        for name, steps in task.steps.items():
            self._names[codec.stream_tag(name)] = name
            for index, factor in steps.items():
                self._factor[index, codec.stream_tag(name)] = factor

    def look(self, entries: Iterable[tuple[Segment, Entry]]) -> None:
        """First pass: what is the last of its kind."""
        for number, (segment, entry) in enumerate(entries):
            if not entry.stream:
                if entry.type in (RecordType.CURSORS, RecordType.BOOTS):
                    self._last[entry.type] = number
                elif entry.type == RecordType.STREAM:
                    self._learn(entry)
                continue
            if self._is_passed(entry):
                continue
            layout_id = entry.body[: codec.LAYOUT_ID_BYTES]
            self._used.add(layout_id)
            if (segment.index, entry.stream) not in self._factor:
                continue
            seen = self._tags.setdefault((entry.stream, layout_id), _Tag())
            try:
                columns = codec.stored_columns(entry.body)
            except (msgspec.DecodeError, ValueError):  # kept as it is: who reads it says what is wrong
                continue
            seen.last.update(dict.fromkeys(columns, number))

    def thin(self, entries: Iterable[tuple[Segment, Entry]]) -> Iterator[Entry]:
        """Second pass over the same: what is left."""
        for number, (segment, entry) in enumerate(entries):
            if not entry.stream:
                if self._is_needed(entry, number):
                    yield entry
                continue
            if self._is_passed(entry):
                self.records[self._name(entry.stream)] += 1
                continue
            factor = self._factor.get((segment.index, entry.stream))
            if factor is None or self._thin_batch(entry, factor, number):
                self.kept[entry.stream] += 1
                yield entry
            else:
                self.records[self._name(entry.stream)] += 1

    def placed(self, entry: Entry) -> None:
        """It stands there."""
        note_entry(self._book, entry)

    def note(self, segment: Segment) -> bytes:
        """For the footer of what was made."""
        task = self._task
        counts = {self._name(tag): count for tag, count in self.kept.items()}
        places = self._book.places().settled(segment)
        return codec.encode_note(SegmentNote(task.elapsed_ns, counts, places, dict(task.streams)))

    def _learn(self, entry: Entry) -> None:
        try:
            tag, name = codec.decode_stream(entry.body)
        except ValueError:  # who reads it says what is wrong
            return
        self._names[tag] = name

    def _name(self, tag: int) -> str:
        return self._names.get(tag, f"#{tag:08x}")

    def _is_passed(self, entry: Entry) -> bool:
        low, ranges = self._task.passed.get(entry.stream, ((0, 0), ()))
        return entry.position <= low or covers(ranges, entry.position)

    def _is_needed(self, entry: Entry, number: int) -> bool:
        if entry.type in self._last:
            return number == self._last[entry.type]
        if entry.type == RecordType.LAYOUT and entry.body[: codec.LAYOUT_ID_BYTES] not in self._used:
            return False
        if entry.type in (RecordType.LAYOUT, RecordType.STREAM, RecordType.EPOCH):
            is_epoch = entry.type == RecordType.EPOCH  # the first one says who wrote
            key = (entry.type, entry.position[0].to_bytes(4) if is_epoch else entry.body)
            if key in self._defined:
                return False
            self._defined.add(key)
        return True

    def _thin_batch(self, entry: Entry, factor: int, number: int) -> bool:
        """Whether anything of it is left; changes the entry's body."""
        seen = self._tags[entry.stream, entry.body[: codec.LAYOUT_ID_BYTES]]

        def choose(stored: StoredBatch) -> tuple[list[int], tuple[int, ...]]:
            rows, missing = _choose(stored, seen, factor, number)
            self.values[self._name(entry.stream)] += len(stored.values) - len(rows)
            return rows, missing

        try:
            body = codec.thin_batch(entry.body, choose)
        except (msgspec.DecodeError, ValueError):
            return True
        if body is None:
            return False
        entry.body = body
        return True


def _choose(stored: StoredBatch, seen: _Tag, factor: int, number: int) -> tuple[list[int], tuple[int, ...]]:
    """The rows that stay and how many values are missing before each."""
    is_event = stored.kind is Kind.EVENT or stored.cause is Cause.EVENT
    quality, already = stored.quality, stored.missing
    count, last, qualities, missing = seen.count, seen.last, seen.quality, seen.missing
    columns = range(len(stored.values)) if stored.columns is None else stored.columns
    rows: list[int] = []
    before: list[int] = []
    for row, column in enumerate(columns):
        own = quality[row] if isinstance(quality, tuple) else quality
        gone = already[row] if isinstance(already, tuple) else already
        nth = count.get(column, 0)
        count[column] = nth + 1
        if is_event or not nth % factor or qualities.get(column) != own or last[column] == number:
            rows.append(row)
            before.append(missing.pop(column, 0) + gone)
        else:
            missing[column] = missing.get(column, 0) + gone + 1
        qualities[column] = own
    return rows, tuple(before)


class Stopped(Exception):
    """Nobody waits for it any more; nothing was changed."""


def thin(filesystem: FileSystem, task: Task, *, is_stopping: Callable[[], bool] = lambda: False) -> Thinned:
    """Carry it out. Blocking, on no thread that anybody waits for, and given up once `is_stopping()`.

    Raises `OSError`, also where the disk does not read the same twice, and `Stopped`.
    """
    damage: list[Damage] = []
    again: list[Damage] = []
    thinner = Thinner(task)

    def entries(found: list[Damage]) -> Iterator[tuple[Segment, Entry]]:
        for pair in read(filesystem, task.sources, lambda _, one: found.append(one)):
            if is_stopping():
                raise Stopped
            yield pair
        if found is again and again != damage:  # else a value that only one pass saw would be lost unsaid
            raise OSError(errno.EIO, f"{task.sources[0].path}: reads differently each time")

    thinner.look(entries(damage))
    segment = rewrite(
        filesystem,
        task.directory,
        task.sources,
        thinner.thin(entries(again)),
        lane=task.lane,
        salt=task.salt,
        created_ns=task.created_ns,
        compression=task.compression,
        placed=thinner.placed,
        note=thinner.note,
    )
    return Thinned(
        task=task,
        segment=segment,
        records=dict(thinner.records),
        values=dict(thinner.values),
        damage=tuple(damage),
    )
