"""The durable log of everything accepted: lanes by priority, cursors for those who deliver it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.batch import Batch
from gateway.core.clock import Clock
from gateway.core.errors import InvariantError, StorageError
from gateway.core.point import Layout, Priority
from gateway.disk.filesystem import NO_ROOM, File, FileSystem
from gateway.disk.record import Damage, Position
from gateway.disk.writer import Group, Notify, State
from gateway.journal.boots import Boots
from gateway.journal.codec import RECONSTRUCTED_MAX, Layouts
from gateway.journal.cursor import Cursor, Full
from gateway.journal.epochs import EpochFile
from gateway.journal.historian import Historian
from gateway.journal.jobs import Jobs, Writing
from gateway.journal.lane import Lane
from gateway.journal.lane_recovery import LaneRecovery
from gateway.journal.lane_scan import HistoryLane
from gateway.journal.reader import Reader
from gateway.journal.retention import Retention
from gateway.journal.settings import JournalSettings
from gateway.journal.stats import JournalStats, lane_stats

QUARANTINE_LISTED_MAX: Final = 256  # places of damage listed; beyond it they are only counted
_QUARANTINE_KNOWN_MAX: Final = 65536  # places remembered so that two readers do not count one twice


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """What `open` found and did."""

    epoch: int  # the new one
    lanes: tuple[LaneRecovery, ...]
    messages: tuple[str, ...]  # what a person should know, empty after a clean stop

    @property
    def damage(self) -> list[Damage]:
        """Every damaged range found so far; readers may find more in segments not read yet."""
        return [damage for lane in self.lanes for damage in lane.damage]


def system_boot_id() -> str:
    """Linux's name for the time since the machine was switched on."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Journal:
    """`open` (blocking) before the loop starts, then everything else on its thread, `close` before it ends.

    `notify` runs a callable on that thread soon: `loop.call_soon_threadsafe`. `clock.monotonic_ns` is the
    machine's, valid within `boot_id`. `first_epoch` is used where nothing at all was found: pass a number
    that a predecessor on another disk cannot have used (seconds since 1970, say), or receivers would take
    new batches for duplicates of its. `on_failure` is told, on that thread too, when a lane stops for good.
    """

    def __init__(
        self,
        directory: Path,
        *,
        filesystem: FileSystem,
        lanes: Iterable[Priority],
        config_version: str,
        notify: Notify,
        clock: Clock,
        settings: JournalSettings | None = None,
        on_failure: Callable[[StorageError], None] | None = None,
        boot_id: str | None = None,
        first_epoch: int = 1,
        writing: Writing = Writing.THREAD,
        history_keep_ns: int = 0,
        history_max_bytes: int = 0,
    ) -> None:
        """With `history_keep_ns` what was delivered stays so long, `history_max_bytes` in all."""
        self.epoch = 0
        self._directory = directory
        self._filesystem = filesystem
        self._clock = clock
        self._first_epoch = first_epoch
        self._writing = writing
        self._layouts = Layouts()
        self._lock_file: File | None = None
        self._settings = settings or JournalSettings()
        self._boot_id = system_boot_id() if boot_id is None else boot_id
        self._boots = Boots()
        self._jobs = Jobs(writing, notify)
        self._lanes = {
            priority: Lane(
                priority,
                directory / priority.name.lower(),
                filesystem=filesystem,
                settings=self._settings,
                config_version=config_version,
                layouts=self._layouts,
                clock=clock,
                boot_id=self._boot_id,
                notify=notify,
                boots=self._boots,
                jobs=self._jobs,
                report=partial(self._report, priority.name),
            )
            for priority in sorted(set(lanes))
        }
        self._each_lane = tuple(self._lanes.values())
        for lane in self._each_lane:
            lane.log.writer.on_failure = on_failure
        self.retention: Retention | None = None
        if history_keep_ns:
            self.retention = Retention(
                keep_ns=history_keep_ns,
                max_bytes=history_max_bytes,
                segment_bytes=(settings or JournalSettings()).segment_bytes,
                free_bytes=self._free_bytes,
            )
            self.retention.attach(self._each_lane)
        self._quarantine_lock = threading.Lock()
        self._quarantine_known: set[tuple[str, str, int, Position | None]] = set()
        self._quarantined: deque[Damage] = deque(maxlen=QUARANTINE_LISTED_MAX)
        self._quarantined_ranges = 0
        self._quarantined_bytes = 0

    # Life.

    def open(self) -> Recovery:
        """Find the ends, cut what is torn, put a new epoch on disk. Blocking.

        Raises `StorageError` where the directory cannot be used: by us, at all, or because it is newer.
        """
        try:
            found, filed, logged = self._find()
        except BaseException:
            self._unlock()
            raise
        self._boots.begin(self._boot_id, self.epoch)
        monotonic_ns = self._clock.monotonic_ns()
        elapsed_ns = max((lane.elapsed_at_start_ns(monotonic_ns) for lane in self._each_lane), default=0)
        for lane, recovery in zip(self._each_lane, found, strict=True):
            for damage in recovery.damage:
                self._report(lane.priority.name, damage)
            lane.begin(self.epoch, elapsed_ns=elapsed_ns)
            if self._writing is Writing.THREAD:
                lane.log.start()
        messages = [message for recovery in found for message in _messages(recovery)]
        if filed < logged:
            messages.append(f"epoch file says {filed}, the log {logged}: the log counts")
        return Recovery(epoch=self.epoch, lanes=found, messages=tuple(messages))

    def _find(self) -> tuple[tuple[LaneRecovery, ...], int, int]:
        try:
            self._filesystem.make_directory(self._directory)
            self._lock_file = self._filesystem.lock(self._directory / "lock")
            found = tuple(lane.open() for lane in self._each_lane)
            file = EpochFile(self._directory / "epoch", filesystem=self._filesystem)
            filed = max(file.read())
            logged = max((lane.epoch_max for lane in self._each_lane), default=0)
            self.epoch = max(filed, logged) + 1 if filed or logged else self._first_epoch
            file.write(self.epoch)
        except OSError as error:
            hint = "free some space" if error.errno in NO_ROOM else "check the disk and its permissions"
            where = error.filename or self._directory
            reason = f"{where}: {error.strerror or error}; {hint}"
            raise StorageError(f"cannot open the journal in {self._directory}: {reason}") from error
        return found, filed, logged

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def close(self) -> None:
        """Save cursors, make everything accepted durable, stop. Raises `StorageFull` or `StorageError`."""
        failure: StorageError | None = None
        self._jobs.close()
        for lane in self._each_lane:
            try:
                lane.close()
            except StorageError as error:  # the other lanes must still be closed
                failure = failure or error
        self._unlock()
        if failure is not None:
            raise failure

    # Data.

    def register(self, layouts: Iterable[Layout]) -> None:
        """The configuration's layouts: what was stored under an equal one is read back as this object."""
        for layout in layouts:
            self._layouts.register(layout)

    def set_config_version(self, version: str) -> None:
        """Layouts that are first used from now on are recorded under this version."""
        for lane in self._each_lane:
            lane.set_config_version(version)

    def append(self, batch: Batch, *, lane: Priority, stream: str) -> Group:
        """Accept a batch that the sequencer numbered; no I/O. The group is its `Receipt`, shared with others.

        Raises `StorageError` once the disk has failed; never because it is full (see `is_blocked`).
        """
        return self._lanes[lane].append(batch, stream)

    def committed(self, lane: Priority) -> Position:
        """Everything up to here is on disk."""
        return self._lanes[lane].log.writer.committed

    def end(self, lane: Priority) -> Position:
        """The last position accepted; (epoch, 0) right after `open`."""
        return self._lanes[lane].log.end

    def is_blocked(self) -> bool:
        """Whether nothing more should be put in: a `BLOCK` cursor at its bound, a full or a too slow disk."""
        return any([lane.is_blocked() for lane in self._each_lane])  # noqa: C419 - each must look

    # Delivery.

    def cursor(
        self,
        name: str,
        *,
        lane: Priority,
        streams: frozenset[str],
        keep_ns: int,
        max_bytes: int,
        full: Full,
    ) -> Cursor:
        """The cursor of this name where it was, or a new one at the end. Raises `ConfigError`.

        Ask for all cursors after `open` and before the first `append`. Nothing within the bounds is ever
        dropped. What is beyond `max_bytes` from the end goes in steps of 1/16 segment (of one segment where
        an earlier run wrote it), what is older than `keep_ns` of running time in steps of `mark_ms`; files go
        when every cursor has passed them, so up to one segment more than `max_bytes` stays on disk.
        """
        return self._lanes[lane].cursor(
            name, streams=streams, keep_ns=keep_ns, max_bytes=max_bytes, full=full
        )

    def orphans(self) -> tuple[tuple[Priority, str], ...]:
        """Cursors on disk that nobody asked for: they keep data, within their old bounds, until forgotten."""
        return tuple(
            (lane.priority, cursor.name)
            for lane in self._each_lane
            for cursor in lane.cursors.values()
            if not cursor.is_configured
        )

    def forget(self, name: str, *, lane: Priority) -> None:
        """Drop a cursor, and what only it held."""
        self._lanes[lane].forget(name)

    def reader(self, source: Cursor | Priority, after: Position) -> Reader:
        """Read what a cursor wants, or a whole lane, from behind a position on."""
        if isinstance(source, Cursor):
            lane = next((lane for lane in self._each_lane if lane.cursors.get(source.name) is source), None)
            if lane is None:
                raise InvariantError(f"cursor {source.name} belongs to no lane of this journal")
        else:
            lane = self._lanes[source]
        return Reader(
            lane.log,
            filesystem=self._filesystem,
            layouts=self._layouts,
            after=after,
            cursor=source if isinstance(source, Cursor) else None,
            report=lambda _, damage: self._report(lane.priority.name, damage),
            places=lane.places,
            boots=self._boots,
        )

    def historian(self) -> Historian:
        """Answers about the past, for one worker thread."""
        return Historian(
            [
                HistoryLane(lane.priority.name.lower(), lane.log, lane.places, self._boots)
                for lane in self._each_lane
            ],
            filesystem=self._filesystem,
            report=self._report,
        )

    # Care.

    def maintain(self) -> None:
        """Call it about each second: saves cursors, keeps bounds, deletes what is passed. No I/O."""
        self._anchor()
        for lane in self._each_lane:
            if lane.log.writer.failure is None:
                lane.maintain()
        if self.retention is not None and self.failure is None:
            self.retention.enforce()

    def _anchor(self) -> None:
        """Once the clock is synchronised, what was recorded in this boot before can be dated."""
        if self._boots.is_anchored(self._boot_id) or not self._clock.is_synchronised():
            return
        self._boots.anchor(
            self._boot_id, monotonic_ns=self._clock.monotonic_ns(), wall_ns=self._clock.wall_ns()
        )
        for lane in self._each_lane:
            if lane.log.writer.failure is None:
                lane.note_boots()

    def flush(self) -> None:
        """Commit what waits without waiting for the interval."""
        for lane in self._each_lane:
            lane.log.writer.flush()

    def ask(self) -> None:
        """Ask every writer for a sign of life; `silent` tells who has not given it yet."""
        for lane in self._each_lane:
            lane.log.writer.ask()

    def silent(self) -> list[str]:
        """Lanes whose writer has not answered: their disk hangs, or the thread is gone."""
        return [lane.priority.name.lower() for lane in self._each_lane if lane.log.writer.is_silent]

    def commit(self) -> bool:
        """With `Writing.CALLER`: do the file work now. Whether all of it is durable."""
        if self._writing is not Writing.CALLER:
            raise InvariantError("the journal's own threads commit")
        is_durable = all([lane.log.writer.step() for lane in self._each_lane])  # noqa: C419 - each must commit
        self._jobs.step()
        return is_durable

    @property
    def failure(self) -> StorageError | None:
        """Why a lane writes no more, None where all do."""
        return next((lane.log.writer.failure for lane in self._each_lane if lane.log.writer.failure), None)

    @property
    def is_full(self) -> bool:
        """Whether data waits for room on the disk."""
        return any(lane.log.writer.state is State.FULL for lane in self._each_lane)

    def stats(self) -> JournalStats:
        """For metrics and status."""
        with self._quarantine_lock:
            listed, ranges, size = tuple(self._quarantined), self._quarantined_ranges, self._quarantined_bytes
        return JournalStats(
            epoch=self.epoch,
            lanes=tuple(lane_stats(lane) for lane in self._each_lane),
            quarantined=listed,
            quarantined_ranges=ranges,
            quarantined_bytes=size,
            is_blocked=self.is_blocked(),
            free_bytes=self._free_bytes(),
            history=None if self.retention is None else self.retention.stats(),
        )

    @property
    def ranges_max(self) -> int:
        """Acknowledged ranges that each cursor remembers above its low mark."""
        return self._settings.cursor_ranges_max

    @property
    def layouts_kept(self) -> tuple[int, int, int]:
        """Layouts that no configuration has: in memory, at most, forgotten since start."""
        return self._layouts.kept, RECONSTRUCTED_MAX, self._layouts.forgotten

    @property
    def footers_kept(self) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        """Footers of segments kept decoded, by lane: now, at most, forgotten since start."""
        return tuple((lane.priority.name.lower(), lane.places.kept) for lane in self._each_lane)

    def _free_bytes(self) -> int | None:
        try:
            return self._filesystem.free_bytes(self._directory)
        except OSError:  # status must come out of a failing disk too: unknown, not zero
            return None

    def _report(self, lane: str, damage: Damage) -> None:
        """From any thread."""
        key = (lane, damage.segment, damage.offset, damage.before)  # records of one block have one offset
        with self._quarantine_lock:
            if key in self._quarantine_known:
                return
            if len(self._quarantine_known) < _QUARANTINE_KNOWN_MAX:
                self._quarantine_known.add(key)
            self._quarantined.append(damage)
            self._quarantined_ranges += 1
            self._quarantined_bytes += damage.length


def _messages(recovery: LaneRecovery) -> list[str]:
    name = recovery.priority.name.lower()
    messages = [f"lane {name}: {cut}" for cut in recovery.cuts]
    messages += [
        f"lane {name}: {hole.segment} at byte {hole.offset}: a hole of {hole.length} bytes in the last "
        f"write, which the power cut: records after {hole.after} and before {hole.before}, promised to nobody"
        for hole in recovery.holes
    ]
    messages += [f"lane {name}: quarantined: {damage}" for damage in recovery.damage]
    if recovery.is_cursors_lost:
        messages.append(
            f"lane {name}: no saved cursor is readable: everything there is will be delivered again"
        )
    return messages
