"""What a journal says of itself."""

from __future__ import annotations

import msgspec

from gateway.disk.record import Damage, Position
from gateway.disk.writer import State
from gateway.journal.lane import Lane
from gateway.journal.retention import RetentionStats


class CursorStats(msgspec.Struct, frozen=True, kw_only=True):
    """One cursor. `lag_bytes` and `dropped_records` are never too low."""

    name: str
    is_configured: bool
    low: Position
    ranges: int
    ranges_forgotten: int
    lag_bytes: int
    lag_bytes_max: int
    oldest_age_ns: int
    dropped_records: int
    dropped_upto: Position
    thinned_values: int


class LaneStats(msgspec.Struct, frozen=True, kw_only=True):
    """One lane. Latencies are of the last commits: write, sync, and where one began, the new segment."""

    name: str
    state: State
    end: Position
    committed: Position
    size_bytes: int
    segments: int
    segments_deleted: int
    waiting_bytes: int
    waiting_bytes_max: int
    commits: int
    written_bytes: int
    commits_ns: int  # that all of them took
    commit_p99_ns: int  # 0 before the first
    cursors: tuple[CursorStats, ...]


class JournalStats(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    epoch: int
    lanes: tuple[LaneStats, ...]
    quarantined: tuple[Damage, ...]  # the last ones
    quarantined_ranges: int
    quarantined_bytes: int
    is_blocked: bool
    free_bytes: int | None  # None where the disk does not say
    history: RetentionStats | None = None  # None where nothing is kept for it


def lane_stats(lane: Lane) -> LaneStats:
    """Taken on the owner's thread."""
    writer, segments = lane.log.writer, lane.log.segments()
    latencies = sorted(writer.latencies_ns)
    return LaneStats(
        name=lane.priority.name.lower(),
        state=writer.state,
        end=lane.log.end,
        committed=writer.committed,
        size_bytes=sum(segment.size for segment in segments),
        segments=len(segments),
        segments_deleted=lane.deleted_segments,
        waiting_bytes=lane.log.waiting_bytes(),
        waiting_bytes_max=lane.log.waiting_bytes_max,
        commits=writer.commits,
        written_bytes=writer.bytes_written,
        commits_ns=writer.commits_ns,
        commit_p99_ns=latencies[len(latencies) * 99 // 100] if latencies else 0,
        cursors=tuple(
            CursorStats(
                name=cursor.name,
                is_configured=cursor.is_configured,
                low=cursor.low,
                ranges=len(cursor.ranges),
                ranges_forgotten=cursor.forgotten,
                lag_bytes=lane.lag_bytes(cursor),
                lag_bytes_max=cursor.max_bytes,
                oldest_age_ns=lane.extent().oldest_age_ns(cursor),
                dropped_records=cursor.dropped,
                dropped_upto=cursor.dropped_upto,
                thinned_values=cursor.thinned,
            )
            for cursor in lane.cursors.values()
        ),
    )
