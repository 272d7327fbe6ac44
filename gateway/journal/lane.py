"""One lane of the journal: the log of one priority, with its cursors in it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec

from gateway.core.batch import Batch
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, InvariantError
from gateway.core.point import Priority
from gateway.disk.filesystem import FileSystem
from gateway.disk.log import Log
from gateway.disk.record import Damage, Entry, Position
from gateway.disk.segment import Segment
from gateway.disk.writer import Group, Notify, Saving, State
from gateway.journal import codec
from gateway.journal.boots import Boots
from gateway.journal.bounds import NEVER, Extent
from gateway.journal.codec import (
    BootsNote,
    CursorNote,
    CursorsNote,
    EpochNote,
    Layouts,
    RecordType,
    SegmentNote,
)
from gateway.journal.cursor import NO_MARK, Cursor, Full
from gateway.journal.definitions import Definitions
from gateway.journal.history import History, segment_note
from gateway.journal.jobs import Jobs
from gateway.journal.lane_recovery import LaneRecovery
from gateway.journal.lane_thinning import LaneThinning
from gateway.journal.marks import Mark, Marks
from gateway.journal.placed import LanePlaces
from gateway.journal.places import value_times
from gateway.journal.settings import JournalSettings


class Lane:
    """`open`, `begin`, then everything else. For the owner's thread; `log.segments` for any."""

    def __init__(
        self,
        priority: Priority,
        directory: Path,
        *,
        filesystem: FileSystem,
        settings: JournalSettings,
        config_version: str,
        layouts: Layouts,
        clock: Clock,
        boot_id: str,
        notify: Notify,
        boots: Boots,
        jobs: Jobs,
        report: Callable[[Damage], None],
    ) -> None:
        """`report`: damage that was found in what is rewritten."""
        self.priority = priority
        self.log = Log(
            directory,
            lane=int(priority),
            filesystem=filesystem,
            settings=settings.log(),
            notify=notify,
            wall_ns=clock.wall_ns,
        )
        self.log.writer.on_saving = self._on_saving
        self.cursors: dict[str, Cursor] = {}
        self.deleted_segments = 0
        self.keeps_history = False  # segments that every cursor passed stay until `delete_passed`
        self.places = LanePlaces()
        self._settings = settings
        self.thinning = LaneThinning(
            self, filesystem=filesystem, settings=settings, clock=clock, jobs=jobs, report=report
        )
        self._clock = clock
        self._boot_id = boot_id
        self._boots = boots
        self._history = History()
        self._epoch = 0
        self._elapsed_base_ns = 0  # running time at monotonic time 0
        self._recovered_end: Position = (0, 0)
        self._new_from: Position | None = None  # where a cursor of a new name starts; None: at the end
        self._definitions = Definitions(self.log, self.places, layouts, config_version)
        self._last_of: dict[str, Position] = {}  # stream → its last position in this run
        self._counts: Counter[str] = (
            Counter()
        )  # records by stream, since the first segment there was at start
        self._counts_at_segment: Counter[str] = Counter()
        self._base = 0  # lane offset of the active segment's first byte
        self._marks = Marks(Mark((0, 0), 0, 0, {}))
        self._mark_due = 0  # lane offset
        self._bound = NEVER  # lane offset at which some cursor reaches its limit
        self._is_over = False  # a blocking cursor is at its limit
        self._is_save_due = False  # before the next batch
        self._is_changed = False  # cursors, since they were saved
        self._saved_ns = 0  # monotonic
        self._saved_low: dict[str, Position] = {}
        self._data_end: Position = (0, 0)  # of the last data record
        self._segment_elapsed_ns = 0  # running time when the active segment began

    # Start.

    def open(self) -> LaneRecovery:
        """Read what is there. Blocking. Raises `StorageError`."""
        history = self._history
        found = self.log.open(self._visit)
        damage = list(found.damage)
        is_doubtful = bool(damage or found.holes)
        for segment in reversed(found.segments):
            if history.cursors is not None:
                break
            if segment.sealed:
                older = History()
                damage.extend(self.log.scan(segment, older.visit))
                history.adopt(older)
        self._recovered_end = self._data_end = self.log.end
        has_data = bool(damage) or any(segment.records for segment in found.segments)
        if history.cursors is None and has_data:
            self._new_from = found.segments[0].after if found.segments else None
        elif is_doubtful or damage:  # the save in which a new cursor first stood may be in it
            self._new_from = history.cursors_at
        self._boots.merge(history.boots)
        saved = history.cursors.cursors if history.cursors is not None else ()
        for note in saved:
            self._adopt(note)
        return LaneRecovery(
            priority=self.priority,
            end=self.log.end,
            segments=len(found.segments),
            size_bytes=sum(segment.size for segment in found.segments),
            cuts=found.cuts,
            holes=found.holes,
            damage=damage,
            cursors=saved,
            is_cursors_lost=history.cursors is None and has_data,
        )

    @property
    def epoch_max(self) -> int:
        """The highest epoch that stands anywhere in it."""
        lasts = [max(segment.last[0], segment.after[0]) for segment in self.log.segments()]
        return max([self._history.epoch_max, *lasts])

    def elapsed_at_start_ns(self, monotonic_ns: int) -> int:
        """The running time as far as this lane knows."""
        known = [note.elapsed_ns for segment in self.log.segments() if (note := segment_note(segment))]
        return max([self._history.elapsed_ns(boot_id=self._boot_id, monotonic_ns=monotonic_ns), *known])

    def begin(self, epoch: int, *, elapsed_ns: int) -> None:
        """Start an epoch; `elapsed_ns` is the running time now. The journal has made `epoch` durable."""
        self._epoch = epoch
        self._elapsed_base_ns = elapsed_ns - self._clock.monotonic_ns()
        segments = self.log.segments()
        self._marks = Marks(Mark(segments[0].after if segments else (0, 0), 0, 0, {}))
        for segment in segments:
            self._base = self._marks.last.offset
            self._counts_at_segment = self._counts.copy()
            self._counts.update(self._history.stream_counts(segment))
            note = segment_note(segment)
            oldest = self._marks.last.elapsed_ns
            age_ns = elapsed_ns if note is None else min(elapsed_ns, note.elapsed_ns)
            offset = self._base + segment.size
            self._marks.add(Mark(segment.last, offset, max(oldest, age_ns), dict(self._counts)))
        if self.log.is_roll_due():
            self._roll((epoch, 0))
        else:
            self._preamble((epoch, 0))
        self._mark_due = self._offset + self._settings.mark_bytes

    # Data.

    def append(self, batch: Batch, stream: str) -> Group:
        """Queue one numbered batch; no I/O. Raises `StorageError`."""
        position = (batch.epoch, batch.seq)
        log = self.log
        if batch.epoch != self._epoch or position <= log.end:
            raise InvariantError(
                f"lane {self.priority.name}: batch {position} after {log.end}, epoch {self._epoch}"
            )
        if log.is_roll_due():
            self._roll(log.end)
            self._delete_passed()
        if self._is_save_due:
            self._save()
        definitions = self._definitions
        tag = definitions.tags.get(stream) or definitions.stream(stream)
        layout_id = definitions.layout_ids.get(batch.layout) or definitions.layout(batch.layout)
        body = codec.encode_batch(batch, layout_id)
        self._place(batch)
        group = log.append(RecordType.BATCH, position, tag, batch.received_ns, body)
        self._last_of[stream] = self._data_end = position
        self._counts[stream] += 1
        offset = self._offset
        if offset >= self._mark_due:
            self._mark()
        if offset >= self._bound:
            self._enforce()
        return group

    # Cursors.

    def cursor(
        self, name: str, *, streams: frozenset[str], keep_ns: int, max_bytes: int, full: Full
    ) -> Cursor:
        """The cursor of this name as it was saved, or a new one at the end. Raises `ConfigError`."""
        least = 4 * self._settings.mark_bytes
        if max_bytes < least:
            raise ConfigError(f"buffer {name}: found {max_bytes} bytes, expected at least {least}")
        for stream in streams:
            self._definitions.reserve(stream)
        cursor = self.cursors.get(name)
        if cursor is None:
            start = self.log.end if self._new_from is None else self._new_from
            cursor = self._make(name, streams, start, (), keep_ns, max_bytes, full)
        else:
            cursor.streams, cursor.keep_ns, cursor.max_bytes, cursor.full = streams, keep_ns, max_bytes, full
        cursor.is_configured = True
        self._is_save_due = True
        self._enforce()
        return cursor

    def set_config_version(self, version: str) -> None:
        """Of layouts defined from now on."""
        self._definitions.config_version = version

    def forget(self, name: str) -> None:
        """Drop a cursor and whatever only it still needs."""
        del self.cursors[name]
        self._is_save_due = True
        self._delete_passed()

    def lag_bytes(self, cursor: Cursor) -> int:
        """See `Extent`."""
        return self.extent().lag_bytes(cursor)

    def is_blocked(self) -> bool:
        """Whether nothing more should be appended."""
        if self._is_over:
            self._enforce()
        return self._is_over or self.log.is_blocked()

    def maintain(self) -> None:
        """What time brings: marks, saved cursors, ages, deletions. Call it each second or so; no I/O."""
        now_ns = self._clock.monotonic_ns()
        elapsed_ns = self._elapsed_base_ns + now_ns
        last = self._marks.last
        if (
            last.position < self.log.end
            and elapsed_ns - last.elapsed_ns >= self._settings.mark_ms * 1_000_000
        ):
            self._mark()
        active = self.log.active
        age_ns = elapsed_ns - self._segment_elapsed_ns
        if active is not None and active.records and age_ns >= self._settings.segment_age_ms * 1_000_000:
            self._roll(self.log.end)
        self.thinning.look_again()
        self._enforce()
        age_ns = now_ns - self._saved_ns
        is_old = age_ns >= self._settings.cursor_save_ms * 1_000_000
        is_sign_due = self.keeps_history and age_ns >= self._settings.mark_ms * 1_000_000
        if self._is_save_due or (self._is_changed and is_old and self._is_worth_saving()) or is_sign_due:
            self._save()
        self._delete_passed()

    def close(self) -> None:
        """Save cursors, make everything durable. Raises `StorageFull` or `StorageError`."""
        if self._epoch and self.log.writer.failure is None:
            self._save()
        self.log.close()

    # Inside.

    @property
    def _offset(self) -> int:
        active = self.log.active
        return self._base + (active.size if active is not None else 0)

    def extent(self) -> Extent:
        """What its cursors are measured by."""
        return Extent(self._marks, self._offset, self.log.end, self.elapsed_ns())

    def elapsed_ns(self) -> int:
        """Running time of the journal by now."""
        return self._elapsed_base_ns + self._clock.monotonic_ns()

    def _adopt(self, note: CursorNote) -> None:
        full = Full(note.full)
        cursor = self._make(
            note.name, frozenset(note.streams), note.low, note.ranges, note.keep_ns, note.max_bytes, full
        )
        cursor.dropped, cursor.dropped_upto = note.dropped, note.dropped_upto
        cursor.thinned = note.thinned
        cursor.is_configured = False

    def _make(
        self,
        name: str,
        streams: frozenset[str],
        low: Position,
        ranges: tuple[tuple[Position, Position], ...],
        keep_ns: int,
        max_bytes: int,
        full: Full,
    ) -> Cursor:
        cursor = Cursor(
            name,
            streams=streams,
            low=low,
            ranges=ranges,
            keep_ns=keep_ns,
            max_bytes=max_bytes,
            full=full,
            ranges_max=self._settings.cursor_ranges_max,
            changed=self._on_change,
            marks_at=self._marks_at,
        )
        self.cursors[name] = cursor
        return cursor

    def _on_change(self) -> None:
        self._is_changed = True
        if self._is_over:
            self._enforce()

    def _marks_at(self, position: Position) -> tuple[Position, Position]:
        behind = self._marks.after(position)
        return self._marks.before(position).position, NO_MARK if behind is None else behind.position

    def _mark(self) -> None:
        self._marks.add(Mark(self.log.end, self._offset, self.elapsed_ns(), dict(self._counts)))
        self._mark_due = self._offset + self._settings.mark_bytes
        for cursor in self.cursors.values():
            cursor.mark_added(self.log.end)

    def _roll(self, position: Position) -> None:
        elapsed_ns = self.elapsed_ns()
        old = self.log.active
        counts = self._counts - self._counts_at_segment
        note = SegmentNote(elapsed_ns, dict(counts), None if old is None else self.places.sealed(old))
        self.log.roll(codec.encode_note(note), partial(_settled, note))
        if old is not None:
            self.places.drop(old)
        self._base += old.size if old is not None else 0
        self._counts_at_segment = self._counts.copy()
        self._definitions.clear()
        self._segment_elapsed_ns = elapsed_ns
        self.thinning.look_again()
        self._mark()
        self._preamble(position)

    def _preamble(self, position: Position) -> None:
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        elapsed_ns = self._elapsed_base_ns + now_ns
        note = EpochNote(
            self._epoch, self._boot_id, wall_ns, now_ns, elapsed_ns, self._definitions.config_version
        )
        self.log.append(RecordType.EPOCH, position, 0, wall_ns, codec.encode_note(note))
        self.note_boots()
        self._save()

    def _visit(self, segment: Segment, entry: Entry) -> None:
        self._history.visit(segment, entry)
        self.places.visit(segment, entry)

    def _place(self, batch: Batch) -> None:
        """Note where a batch is about to be appended, and that we live."""
        active = self.log.active
        if active is not None:
            book = self.places.book(active)
            span = value_times(batch.source_time_ns, batch.time_quality, batch.received_ns)
            book.add_batch(active.planned, self.log.end, span)
            book.add_life(batch.epoch, batch.received_ns)

    def _is_worth_saving(self) -> bool:
        """Whether a crash would deliver anything again: else a lane that is only passed is not written to."""
        return any(self._saved_low.get(name, (0, 0)) < self._data_end for name in self.cursors)

    def note_boots(self) -> None:
        """What is known of this and earlier boots goes into the log."""
        body = codec.encode_note(BootsNote(self._boots.known))
        self.log.append(RecordType.BOOTS, self.log.end, 0, 0, body)

    def _save(self) -> None:
        """Cursors go into the log behind everything they speak of, so they never outlive it."""
        for cursor in self.cursors.values():
            self._pass_idle(cursor)
        now_ns, wall_ns = self._clock.monotonic_ns(), self._clock.wall_ns()
        notes = tuple(cursor.note() for cursor in self.cursors.values())
        note = CursorsNote(now_ns, self._elapsed_base_ns + now_ns, notes)
        self.log.append(RecordType.CURSORS, self.log.end, 0, wall_ns, codec.encode_note(note))
        if (active := self.log.active) is not None:
            self.places.book(active).add_life(self._epoch, wall_ns)
        self._is_save_due = self._is_changed = False
        self._saved_ns = now_ns
        self._saved_low = {note.name: note.low for note in notes}

    def _pass_idle(self, cursor: Cursor) -> None:
        """A cursor that nothing waits for goes with the end, so that it holds no segment."""
        floor = self._recovered_end
        own = max([floor, *(self._last_of.get(stream, floor) for stream in cursor.streams)])
        if own <= cursor.low < self.log.end:
            cursor.pass_by(self.log.end)

    def _enforce(self) -> None:
        """Hold every cursor to its bounds."""
        if not self._epoch:
            return
        is_over, bound = False, NEVER
        for cursor in self.cursors.values():
            self._pass_idle(cursor)
            if cursor.full is Full.BLOCK and cursor.is_configured:
                is_over = self.extent().is_at_bound(cursor, was_over=self._is_over) or is_over
            else:
                self.thinning.look_at(cursor)
                self._drop(cursor, self.extent().excess(cursor))
            bound = min(bound, self.extent().look_at(cursor, is_thinning_ready=self.thinning.is_ready))
        self._is_over = is_over
        self._bound = NEVER if is_over else bound

    def _drop(self, cursor: Cursor, upto: Mark | None) -> None:
        if upto is not None:
            before = self._marks.before(cursor.low)
            cursor.drop(upto.position, before.counts, upto.counts, mark=before.position)
            self._is_changed = True

    def _on_saving(self, saving: Saving) -> None:
        """A write took less room than planned."""
        if saving.segment is not self.log.active:
            self._base -= saving.size
        self._mark_due -= saving.size
        self._marks.shrink(saving.upto, saving.upto, saving.size)

    def shrunk(self, old: Sequence[Segment], new: Segment, records: Mapping[str, int]) -> None:
        """`new` stands for neighbours from now on, without so many records by stream."""
        saved = sum(segment.size for segment in old) - new.size
        self.log.replace(old, new)
        self._base -= saved
        self._mark_due -= saved
        self._marks.shrink(old[0].after, new.last, saved, records)
        for counts in (self._counts, self._counts_at_segment):
            counts.subtract(records)
        self._is_save_due = True
        self._enforce()

    def passed(self) -> tuple[Segment, ...]:
        """Segments that no cursor needs any more, oldest first; never the active one."""
        low = self._low()
        segments = self.log.segments()[:-1]
        busy = self.thinning.sources
        return tuple(itertools.takewhile(lambda one: _is_deletable(one, low) and one not in busy, segments))

    def delete_passed(self, count: int) -> None:
        """Unlink the oldest `count` of `passed`."""
        for _ in range(count):
            self.places.drop(self.log.segments()[0])
            self.log.delete_first()
        self.deleted_segments += count

    def age_ns(self, segment: Segment) -> int | None:
        """Running time since it was sealed; None where it does not say."""
        note = segment_note(segment)
        return None if note is None else max(0, self.elapsed_ns() - note.elapsed_ns)

    def size_bytes(self) -> int:
        """Of all its segments."""
        return sum(segment.size for segment in self.log.segments())

    def writing(self) -> State:
        """Whether its disk takes data."""
        return self.log.writer.state

    def _low(self) -> Position:
        return min((cursor.low for cursor in self.cursors.values()), default=self.log.end)

    def _delete_passed(self) -> None:
        """Unlink segments that every cursor has passed, unless history keeps them."""
        if not self.keeps_history:
            self.delete_passed(len(self.passed()))
        if self._new_from is None:  # else a cursor of a new name may begin below the others
            self._marks.prune(self._low())


def _settled(note: SegmentNote, segment: Segment) -> bytes:
    """For the footer: where things stand is known for certain once all of it is written."""
    if note.places is None:
        return codec.encode_note(note)
    return codec.encode_note(msgspec.structs.replace(note, places=note.places.settled(segment)))


def _is_deletable(segment: Segment, low: Position) -> bool:
    return segment.sealed and segment.last <= low
