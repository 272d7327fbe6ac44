"""What of a journal is bounded, and how full it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.core.bounded import Bound, Level
from gateway.journal.journal import QUARANTINE_LISTED_MAX, Journal
from gateway.journal.stats import JournalStats

WAITING: Final = Bound(
    noun="journal_waiting",
    unit="bytes",
    what="accepted and not yet on disk",
    beyond="reading pauses",
    lost="",
    labels=("lane",),
)
BACKLOG: Final = Bound(
    noun="journal_backlog",
    unit="bytes",
    what="on disk and not acknowledged by the far end, of each rule (`buffer: max`)",
    beyond="`drop_oldest`: the oldest are dropped; `block`: reading pauses",
    lost_unit="records",
    labels=("lane", "rule"),
)
RANGES: Final = Bound(
    noun="journal_acknowledged",
    unit="ranges",
    what="acknowledged out of order, of the rule with the most",
    beyond="the highest is forgotten and delivered again",
    lost="forgotten",
    labels=("lane",),
)
QUARANTINE: Final = Bound(
    noun="journal_quarantine_listed",
    unit="ranges",
    what="places of damage listed for people",
    beyond="the oldest is only counted",
    lost="unlisted",
    holds=("journal.Journal._quarantined",),
)
LAYOUTS: Final = Bound(
    noun="journal_layouts",
    unit="layouts",
    what="layouts that only the journal knows, kept decoded",
    beyond="the oldest is decoded again when it is met again",
    lost="forgotten",
    holds=("codec.Layouts._reconstructed",),
)

FOOTERS: Final = Bound(
    noun="journal_footers",
    unit="segments",
    what="segments whose footer is kept decoded",
    beyond="the oldest is decoded again when it is asked for again",
    lost="forgotten",
    labels=("lane",),
    holds=("placed.LanePlaces._decoded",),
)


def levels(journal: Journal, stats: JournalStats) -> Iterator[Level]:
    """`stats` are the journal's of now."""
    for lane in stats.lanes:
        yield WAITING.at(lane.waiting_bytes, lane.waiting_bytes_max, 0, lane.name)
        ranges = max([cursor.ranges for cursor in lane.cursors], default=0)
        forgotten = sum(cursor.ranges_forgotten for cursor in lane.cursors)
        yield RANGES.at(ranges, journal.ranges_max, forgotten, lane.name)
        for cursor in lane.cursors:
            dropped = cursor.dropped_records
            yield BACKLOG.at(cursor.lag_bytes, cursor.lag_bytes_max, dropped, lane.name, cursor.name)
    listed = len(stats.quarantined)
    yield QUARANTINE.at(listed, QUARANTINE_LISTED_MAX, stats.quarantined_ranges - listed)
    for name, kept in journal.footers_kept:
        yield FOOTERS.at(*kept, name)
    yield LAYOUTS.at(*journal.layouts_kept)
