"""The thread that makes a log durable: takes all that waits, one write, one fdatasync, then says so."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from gateway.core.errors import StorageError, StorageFull
from gateway.disk.block import Compression, Packer
from gateway.disk.filesystem import NO_ROOM, File, FileSystem
from gateway.disk.record import Position, position_of
from gateway.disk.segment import Segment, encode_footer

logger = logging.getLogger(__name__)

Notify: TypeAlias = Callable[[Callable[[], None]], object]
"""Runs a callable on the owner's thread, soon: `loop.call_soon_threadsafe`."""

LATENCIES_MAX: Final = 1024  # commit durations kept for the percentiles


class State(enum.Enum):
    """Whether a log takes data to disk."""

    RUNNING = "running"
    FULL = "full"  # no room: what waits is written once there is some
    FAILED = "failed"  # the disk refused; nothing is written any more
    CLOSED = "closed"


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a log trades latency, wear and file sizes."""

    commit_interval_ms: int = 20  # at most one commit in this time; the first after a pause goes at once
    group_bytes: int = 1 << 20  # this much waiting is committed without waiting for the interval
    segment_bytes: int = 16 << 20  # a segment is sealed once it has this many
    buffer_bytes_max: int = 8 << 20  # above it the log pushes back
    full_retry_ms: int = 1000  # how often a full disk is tried again
    compression: Compression = Compression.NONE


class Saving(msgspec.Struct, frozen=True):
    """Packing made a write smaller than planned."""

    segment: Segment
    upto: Position  # of the last record written
    size: int  # bytes


class Group:
    """Records that become durable together; the receipt of each of them."""

    __slots__ = ("_callbacks", "_is_committed", "done", "items", "last", "savings", "size")

    def __init__(self) -> None:
        self.items: list[bytes | Roll] = []
        self.size = 0  # bytes
        self.done = 0  # items durable already, where a full disk interrupted
        self.last: Position = (0, 0)  # of the last record in it
        self.savings: list[Saving] = []
        self._is_committed = False
        self._callbacks: list[Callable[[], None]] = []

    def is_committed(self) -> bool:
        """Whether it is on disk, as far as the owner's thread was told."""
        return self._is_committed

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back, on the owner's thread, once it is on disk; at once if it is."""
        if self._is_committed:
            callback()
        else:
            self._callbacks.append(callback)

    def commit(self) -> list[Callable[[], None]]:
        """It is on disk: what to call now."""
        self._is_committed = True
        callbacks, self._callbacks = self._callbacks, []
        return callbacks


class Roll(msgspec.Struct, frozen=True):
    """Seal one segment and begin another."""

    old: Segment | None
    footer: bytes
    new: Segment
    header: bytes
    settled: Callable[[Segment], bytes] | None


class Writer:
    """`put`, `delete`, `flush`, `collect`, `close` belong to the owner's thread, the rest to the writer's."""

    def __init__(
        self, directory: Path, *, filesystem: FileSystem, settings: LogSettings, notify: Notify
    ) -> None:
        self.state = State.RUNNING
        self.failure: StorageError | None = None
        self.committed: Position = (0, 0)  # durable, and the owner's thread was told
        self.latencies_ns: deque[int] = deque(maxlen=LATENCIES_MAX)
        self.commits = 0
        self.commits_ns = 0  # that all of them took
        self.bytes_put = 0
        self.bytes_durable = 0
        self._asked = 0  # signs of life, of the thread
        self._answered = 0
        self.bytes_written = 0  # as they stand on the disk
        self.on_saving: Callable[[Saving], None] | None = None  # on the owner's thread
        self.on_failure: Callable[[StorageError], None] | None = None
        self._directory = directory
        self._filesystem = filesystem
        self._interval_ns = settings.commit_interval_ms * 1_000_000
        self._saved_of: Segment | None = None  # the segment whose packing saved so far …
        self._saved_bytes = 0
        self._packer = Packer(settings.compression)
        self._retry_s = settings.full_retry_ms / 1000
        self._group_bytes = settings.group_bytes
        self._notify = notify
        self._lock = threading.Lock()
        self._waiting = Group()
        self._current: Group | None = None
        self._finished: deque[Group] = deque()
        self._due: deque[Callable[[], None]] = deque()
        self._deletions: deque[Path] = deque()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._segment: Segment | None = None
        self._file: File | None = None

    # The owner's thread.

    def adopt(self, segment: Segment) -> None:
        """Go on appending to a segment that was there. Raises `OSError`."""
        self._segment, self._file = segment, self._filesystem.open(segment.path)

    def start(self) -> None:
        """Let a thread of its own do the work. Without it the owner calls `step`."""
        self._thread = threading.Thread(target=self._main, name=f"log {self._directory.name}", daemon=True)
        self._thread.start()

    def is_group_empty(self) -> bool:
        """Whether the next `put` begins a write."""
        return not self._waiting.items

    def put(self, item: bytes | Roll, size: int, last: Position) -> Group:
        """Queue; no I/O."""
        with self._lock:
            group = self._waiting
            is_first = not group.items
            group.items.append(item)
            group.size += size
            group.last = last
        self.bytes_put += size
        if is_first:
            self._wake.set()
        if group.size >= self._group_bytes > group.size - size:
            self._urgent.set()
        return group

    def delete(self, path: Path) -> None:
        """Unlink a segment, soon."""
        self._deletions.append(path)
        self._wake.set()

    def flush(self) -> None:
        """Do not wait for the interval."""
        self._urgent.set()
        self._wake.set()

    def ask(self) -> None:
        """Ask the thread for a sign of life: it answers once it has done what waits, or tried to."""
        self._asked += 1
        self._wake.set()

    @property
    def is_silent(self) -> bool:
        """Whether the thread owes an answer. One that failed for good owes none: that is said elsewhere."""
        return self._answered < self._asked and self.failure is None

    def collect(self) -> None:
        """Take over what became durable: receipts first, then their callbacks."""
        while self._finished:
            group = self._finished.popleft()
            self.committed = max(self.committed, group.last)
            for saving in group.savings:
                saving.segment.size -= saving.size
                if self.on_saving is not None:
                    self.on_saving(saving)
            self._due.extend(group.commit())
        try:
            while self._due:
                self._due.popleft()()
        finally:
            if self._due:  # one callback raised: the others must still be called
                self._notify(self.collect)

    def close(self) -> None:
        """Make durable what waits and stop. Raises `StorageFull` or `StorageError` where that failed."""
        if self.state is State.CLOSED:
            return
        self._is_closing = True
        self.flush()
        if self._thread is not None:
            self._thread.join()
        elif self.failure is None:
            self.step()
        self.collect()
        if self._file is not None:
            self._file.close()
        state, self.state = self.state, State.CLOSED
        if self.failure is not None:
            raise self.failure
        if state is State.FULL:
            waiting = self.bytes_put - self.bytes_durable
            raise StorageFull(f"{self._directory}: no room for the last {waiting} bytes: free some space")

    # The writer's thread.

    def step(self) -> bool:
        """Delete and commit what waits now. False where the disk is full or failed: see `state`.

        What comes in meanwhile is the next group's: taken along, it would be a commit for a few records.
        """
        if self.failure is not None:  # after a failed sync nothing on disk can be trusted to be what we wrote
            return False
        try:
            self._delete()
            if self._current is not None:  # the disk was full
                self._commit_whole(self._current)
            group = self._take()
            if group is not None:
                self._commit_whole(group)
        except StorageFull as error:
            if self.state is not State.FULL:
                self.state = State.FULL
                logger.error("journal disk full", extra={"reason": str(error)})
            return False
        except OSError as error:
            self._fail(
                StorageError(
                    f"{self._directory}: {error}: nothing more is written; check the disk, then restart"
                )
            )
            return False
        if self.state is State.FULL:
            self.state = State.RUNNING
            logger.info("journal disk has room again", extra={"directory": str(self._directory)})
        return True

    def _main(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._fail(StorageError(f"{self._directory}: the writer stopped: {error!r}"))
            raise

    def _run(self) -> None:
        last_ns = 0
        while self.failure is None:
            self._wake.wait()
            self._wake.clear()
            pause_ns = last_ns + self._interval_ns - time.monotonic_ns()
            if last_ns and pause_ns > 0:
                self._urgent.wait(pause_ns / 1e9)
            self._urgent.clear()
            is_last = self._is_closing
            last_ns = time.monotonic_ns()
            asked = self._asked
            is_done = self.step()
            self._answered = asked
            if is_last:
                return
            if not is_done:
                self._urgent.wait(self._retry_s)
                self._wake.set()

    def _take(self) -> Group | None:
        with self._lock:
            group = self._waiting
            if not group.items:
                return None
            self._waiting = Group()
        return group

    def _delete(self) -> None:
        while self._deletions:
            try:
                self._filesystem.unlink(self._deletions[0])
            except FileNotFoundError:
                logger.warning("segment was gone already", extra={"path": str(self._deletions[0])})
            self._deletions.popleft()

    def _commit_whole(self, group: Group) -> None:
        self._current = group
        self._commit(group)
        self._current = None
        self._finished.append(group)
        self._notify(self.collect)

    def _commit(self, group: Group) -> None:
        started_ns = time.perf_counter_ns()
        items = group.items
        header = b""
        while group.done < len(items):
            end = group.done
            if isinstance(roll := items[end], Roll):
                self._seal(group, roll)
                header = roll.header
                end += 1
            parts: list[bytes] = []
            while end < len(items) and isinstance(part := items[end], bytes):
                parts.append(part)
                end += 1
            self._write_packed(group, header, parts)
            header = b""
            group.done = end
        self.commits += 1
        self.bytes_durable += group.size
        took_ns = time.perf_counter_ns() - started_ns
        self.commits_ns += took_ns
        self.latencies_ns.append(took_ns)

    def _write_packed(self, group: Group, header: bytes, parts: list[bytes]) -> None:
        segment = self._segment
        if segment is None or not parts:
            self._write(header)
            return
        packed = self._packer.pack(parts, segment.salt)
        at = segment.committed + len(header)
        self._write(b"".join((header, *(data for data, _ in packed))))
        saved = 0
        for data, size in packed:
            if saved or segment.packed or size != len(data):
                segment.note_packed(self._planned(segment) + saved + at, at)
            saved += size - len(data)
            at += len(data)
        if saved:
            self._saved_bytes += saved
            group.savings.append(Saving(segment, position_of(parts[-1]), saved))

    def _planned(self, segment: Segment) -> int:
        """How much later its offsets were planned to be than they are."""
        if self._saved_of is not segment:
            self._saved_of, self._saved_bytes = segment, 0
        return self._saved_bytes

    def _seal(self, group: Group, roll: Roll) -> None:
        old = roll.old
        if old is not None and not old.sealed:
            footer = roll.footer
            if roll.settled is not None:
                note = roll.settled(old)
                footer = encode_footer(old, note)
                old.note = note
            self._write(footer)
            old.sealed = True
            if len(footer) != len(roll.footer):
                group.savings.append(Saving(old, old.last, len(roll.footer) - len(footer)))
        if self._segment is not roll.new:
            if self._file is not None:
                self._file.close()
            self._segment, self._file = roll.new, None

    def _write(self, data: bytes) -> None:
        segment, file = self._segment, self._file
        if segment is None:
            raise OSError(f"{self._directory}: no segment to write to")
        is_new = file is None
        try:
            if file is None:
                file = self._filesystem.create(segment.path)
            file.append(data)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if file is not None:
                self._undo(segment, file, is_new=is_new)
            raise StorageFull(f"{segment.path}: no room for {len(data)} bytes: free some space") from error
        file.fdatasync()
        if is_new:
            self._filesystem.sync_directory(self._directory)
            self._file = file
        segment.committed += len(data)
        self.bytes_written += len(data)

    def _undo(self, segment: Segment, file: File, *, is_new: bool) -> None:
        if is_new:
            file.close()
            self._filesystem.unlink(segment.path)
        else:
            file.truncate(segment.committed)

    def _fail(self, failure: StorageError) -> None:
        self.state, self.failure = State.FAILED, failure
        logger.critical("journal stopped", extra={"reason": str(failure)})
        if self.on_failure is not None:
            callback = self.on_failure
            self._notify(lambda: callback(failure))
