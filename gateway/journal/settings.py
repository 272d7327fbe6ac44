"""How a journal trades latency, wear and memory."""

from __future__ import annotations

import msgspec

from gateway.disk.block import Compression
from gateway.disk.writer import LogSettings
from gateway.journal.acknowledged import RANGES_MAX


class JournalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Per lane."""

    commit_interval_ms: int = 20  # at most one commit in this time; the first after a pause goes at once
    group_bytes: int = 1 << 20  # this much waiting is committed without waiting for the interval
    segment_bytes: int = 16 << 20  # what is deleted at once when every cursor has passed it
    segment_age_ms: int = 3_600_000  # a segment with data is sealed after this running time at the latest
    buffer_bytes_max: int = 8 << 20  # accepted and not yet on disk: above it the journal pushes back
    full_retry_ms: int = 1000  # how often a full disk is tried again
    cursor_save_ms: int = 1000  # changed cursors are saved this often; a crash delivers so much again
    cursor_ranges_max: int = RANGES_MAX  # acknowledged ranges kept above a cursor's low mark
    mark_ms: int = 60_000  # how exact ages are
    compression: Compression = Compression.NONE

    def log(self) -> LogSettings:
        """What the disk needs to know of it."""
        return LogSettings(
            commit_interval_ms=self.commit_interval_ms,
            group_bytes=self.group_bytes,
            segment_bytes=self.segment_bytes,
            buffer_bytes_max=self.buffer_bytes_max,
            full_retry_ms=self.full_retry_ms,
            compression=self.compression,
        )

    @property
    def mark_bytes(self) -> int:
        """How exact byte bounds are."""
        return max(1, self.segment_bytes // 16)
