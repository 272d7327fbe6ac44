"""The journal of a running gateway, and what happens when its disk does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.aio.memory import available_bytes
from gateway.app.backup.places import LOCK
from gateway.app.rules import LANES, is_spilling, segment_bytes
from gateway.config.site import Site
from gateway.core.batch import Batch
from gateway.core.clock import Clock
from gateway.core.errors import StorageError
from gateway.core.point import Layout, Priority
from gateway.core.ports import Receipt
from gateway.disk.block import Compression
from gateway.disk.filesystem import File, RealFileSystem
from gateway.disk.record import Position
from gateway.flow.spool import Spool
from gateway.journal.journal import Journal
from gateway.journal.settings import JournalSettings

_log = logging.getLogger("gateway.journal")

HISTORY_SEGMENTS_MIN: Final = 32  # what is deleted at once is a small part of what may be kept
LOW_MEMORY_BYTES: Final = 64 << 20  # of the machine: with less, nothing is held that can go to disk
CURSOR_SAVE_MS: Final = 500  # below a second, so that each call of `maintain` saves: what a crash repeats


class _NotKept:
    """The receipt of what the disk did not take: never committed."""

    def is_committed(self) -> bool:
        return False

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Never calls back."""


class Store:
    """Opens the journal; on a failed disk stops the gateway, or lets live values pass, as configured."""

    def __init__(
        self,
        site: Site,
        *,
        state: Path,
        clock: Clock,
        notify: Callable[..., Any],
        fail: Callable[[BaseException], None],
        live_only: Callable[[], None],
    ) -> None:
        """`fail(error)` stops the gateway; `live_only()` says that from now on nothing is kept."""
        self.filesystem: Final = RealFileSystem()
        self._state = state
        self._lock: File | None = None
        self.directory: Final = Path(site.journal.directory or state) / "journal"
        self.limit_bytes: Final = site.journal.max_bytes
        self._is_live_only_allowed = site.journal.on_failure == "live_only"
        self._fail = fail
        self._live_only = live_only
        self._has_told = False
        self._was_blocked = False
        self._told_orphans: set[tuple[str, str]] = set()  # (lane, rule)
        self.not_kept = 0  # batches that passed live while the disk was failed
        self._settings = _settings(site)
        history = site.journal.history
        spills = any(is_spilling(rule) for rule in site.publish)
        has_spilled = (self.directory / Priority.SPILLED.name.lower()).is_dir()
        self._lanes: Final = (*LANES, Priority.SPILLED) if spills or has_spilled else LANES
        self.spool: Final = (
            Spool(append=self._spill, monotonic_ns=clock.monotonic_ns, max_bytes=site.journal.spill_memory)
            if Priority.SPILLED in self._lanes
            else None
        )
        self._is_short_of_memory = False
        self.journal: Final = Journal(
            self.directory,
            filesystem=self.filesystem,
            lanes=self._lanes,
            config_version=site.version,
            notify=notify,
            clock=clock,
            on_failure=self._failed,
            settings=self._settings,
            first_epoch=max(1, clock.wall_ns() // 1_000_000_000),
            history_keep_ns=0 if history is None else history.keep_ns,
            history_max_bytes=0 if history is None else history.max_bytes,
        )

    @property
    def least_buffer_bytes(self) -> int:
        """Smaller bounds than this need segments that only the next start makes."""
        return 4 * self._settings.mark_bytes

    @property
    def epoch(self) -> int:
        """Of this run."""
        return self.journal.epoch

    @property
    def is_live_only(self) -> bool:
        """Whether values pass without being kept."""
        return self._is_live_only_allowed and self.journal.failure is not None

    def open(self, layouts: Sequence[Layout]) -> None:
        """Recover, and put the new epoch on disk. Raises `StorageError`."""
        self._lock_state()
        self.journal.register(layouts)
        recovery = self.journal.open()
        for message in recovery.messages:
            _log.warning("recovered", extra={"found": message})

    def _lock_state(self) -> None:
        """One gateway for a state directory, also where its journal is elsewhere; no restore meanwhile."""
        try:
            self.filesystem.make_directory(self._state)
            self._lock = self.filesystem.lock(self._state / LOCK)
        except OSError as error:
            raise StorageError(f"{self._state}: cannot be used: {error.strerror or error}") from error

    def report_orphans(self) -> None:
        """Say which rules left something behind. Call it once all cursors of the configuration are there."""
        orphans = {
            (lane.name.lower(), cursor.name): cursor.lag_bytes
            for lane in self.journal.stats().lanes
            for cursor in lane.cursors
            if not cursor.is_configured
        }
        for (lane, name), lag_bytes in orphans.items():
            if lag_bytes and (lane, name) not in self._told_orphans:
                _log.warning(
                    "the journal holds values of a rule that is no longer configured; they stay within its"
                    " old bounds and are delivered should it come back",
                    extra={"rule": name, "lane": lane, "bytes": lag_bytes},
                )
        self._told_orphans = set(orphans)

    def set_config(self, version: str, layouts: Sequence[Layout]) -> None:
        """Record under this version from now on."""
        self.journal.register(layouts)
        self.journal.set_config_version(version)

    def append(self, batch: Batch, *, lane: Priority, stream: str) -> Receipt:
        """As `Journal.append`; a failed disk is dealt with here, and what may stay in memory does."""
        if lane is Priority.SPILLED and self.spool is not None:
            return self.spool.hold(batch, stream)
        return self._append(batch, lane, stream)

    def _spill(self, batch: Batch, stream: str) -> Receipt:
        return self._append(batch, Priority.SPILLED, stream)

    def flush(self) -> None:
        """The end is near: nothing waits in memory or for the commit interval any more."""
        if self.spool is not None:
            self.spool.spill_late()
        self.journal.flush()

    def _append(self, batch: Batch, lane: Priority, stream: str) -> Receipt:
        try:
            return self.journal.append(batch, lane=lane, stream=stream)
        except StorageError as error:
            self._failed(error)
            self.not_kept += 1
            return _NotKept()

    def waiting_lanes(self) -> list[Priority]:
        """Those with records of this run that are not on disk yet."""
        journal = self.journal
        return [
            lane
            for lane in self._lanes
            if journal.end(lane)[1] and journal.committed(lane) < journal.end(lane)
        ]

    def committed(self) -> Position:
        """The last (epoch, seq) up to which everything is on disk, whatever its lane; never too high.

        Of rules that spill, what the far end acknowledged counts as if it were.
        """
        found = [self.journal.committed(lane) for lane in self.waiting_lanes()]
        if self.spool is not None and len(self.spool):
            found.append(self.spool.low())
        if found:
            return min(found)
        last = [self.spool.last] if self.spool is not None else []
        return max([*last, *(self.journal.committed(lane) for lane in self._lanes)])

    def is_blocked(self) -> bool:
        """Whether readers must pause; a disk that is given up blocks nobody."""
        return not self.is_live_only and self.journal.is_blocked()

    def maintain(self) -> None:
        """Each second: bounds, cursors, and telling people about the disk."""
        if self.spool is not None:
            self._spill_in_time(self.spool)
        self.journal.maintain()
        failure = self.journal.failure
        if failure is not None:
            self._failed(failure)
            return  # that a lane takes nothing more is the failure, and was told
        is_blocked = self.journal.is_blocked()
        if is_blocked != self._was_blocked:
            self._was_blocked = is_blocked
            if is_blocked:
                why = (
                    "the disk is full"
                    if self.journal.is_full
                    else "a buffer with full: block is at its bound"
                )
                _log.error(
                    "reading pauses, nothing is lost; it goes on by itself",
                    extra={"reason": why, "directory": str(self.directory)},
                )
            else:
                _log.info("reading goes on, there is room again", extra={"directory": str(self.directory)})

    def _spill_in_time(self, spool: Spool) -> None:
        spool.spill_late()
        available = available_bytes()
        is_short = available is not None and available < LOW_MEMORY_BYTES
        if is_short:
            spool.spill()
        if is_short != self._is_short_of_memory:
            self._is_short_of_memory = is_short
            if is_short:
                _log.warning(
                    "memory is short: values of rules with durability: spill go to disk",
                    extra={"available_bytes": available, "below_bytes": LOW_MEMORY_BYTES},
                )

    def close(self) -> None:
        """Make everything durable. Raises `StorageError`."""
        if self.spool is not None:
            self.spool.spill()
        try:
            self.journal.close()
        finally:
            if self._lock is not None:
                self._lock.close()

    def _failed(self, error: StorageError) -> None:
        if self._has_told:
            return
        self._has_told = True
        if self._is_live_only_allowed:
            _log.error(
                "the disk fails: values are delivered live and no longer kept", extra={"reason": str(error)}
            )
            self._live_only()
        else:
            self._fail(error)


def _settings(site: Site) -> JournalSettings:
    """Segments fine enough for the smallest bound: the journal keeps bounds in steps of their size."""
    usual = JournalSettings()
    bounds = [segment_bytes(site, rule, lane) for rule in site.publish for lane in LANES]
    journal = site.journal
    if journal.history is not None:
        bounds.append(journal.history.max_bytes // HISTORY_SEGMENTS_MIN)
    return JournalSettings(
        commit_interval_ms=max(1, journal.commit_ns // 1_000_000),
        group_bytes=journal.commit_bytes,
        segment_bytes=min([usual.segment_bytes, *bounds]),
        cursor_save_ms=CURSOR_SAVE_MS,
        compression=Compression(journal.compression),
    )
