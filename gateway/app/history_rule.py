"""What history records by itself: matched points that no publish rule records as finely already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from gateway.app.rules import LANES
from gateway.config.journal import HistorySection
from gateway.config.publish import Publish
from gateway.config.site import Site
from gateway.core.point import Layout, Priority
from gateway.flow.hub import Stream
from gateway.flow.report import ReportOn, ReportPolicy
from gateway.translate.match import Match, select

STREAM: Final = "history"  # its name in the journal; a publish rule's has spaces in it


class Recorded(msgspec.Struct, frozen=True):
    """Columns that history takes, by who records them."""

    published: Mapping[Layout, tuple[int, ...]]  # a publish rule does: no second copy
    own: Mapping[Layout, tuple[int, ...]]


def history_streams(site: Site, layouts: Iterable[Layout]) -> list[Stream]:
    """For the hub, one for each lane that has something; none without `journal: history`."""
    history = site.journal.history
    if history is None:
        return []
    report = history.report
    policy = ReportPolicy(on=ReportOn(report.on), min_ns=report.min_ns, heartbeat_ns=report.heartbeat_ns)
    own = recorded(site, history, layouts).own
    return [
        Stream(name=STREAM, policy=policy, lane=lane, columns=columns)
        for lane in LANES
        if (columns := _of_lane(own, lane))
    ]


def recorded(site: Site, history: HistorySection, layouts: Iterable[Layout]) -> Recorded:
    """Who records what of the matched points."""
    match = Match(tuple(history.match))
    others = [Match(tuple(rule.model.match)) for rule in site.publish if is_as_fine(rule.model, history)]
    published: dict[Layout, tuple[int, ...]] = {}
    own: dict[Layout, tuple[int, ...]] = {}
    for layout in layouts:
        wanted = _columns(layout, match)
        taken = {column for other in others for column in _columns(layout, other)}
        published[layout] = tuple(column for column in wanted if column in taken)
        own[layout] = tuple(column for column in wanted if column not in taken)
    return Recorded(published, own)


def is_as_fine(rule: Publish, history: HistorySection) -> bool:
    """Whether everything that history would record of a point is in what a publish rule records."""
    theirs, ours = rule.report, history.report
    if rule.buffer.full == "thin":
        return False  # what waits for its uplink may be made thinner
    if rule.buffer.durability == "spill":
        return False  # what the uplink takes in time never comes to the disk
    if theirs.on == "scan":
        return True
    if ours.on == "scan" or theirs.min_ns > ours.min_ns:
        return False
    return not ours.heartbeat_ns or 0 < theirs.heartbeat_ns <= ours.heartbeat_ns


def _columns(layout: Layout, match: Match) -> tuple[int, ...]:
    columns = select(layout, match)
    return tuple(range(len(layout))) if columns is None else columns


def _of_lane(columns: Mapping[Layout, tuple[int, ...]], lane: Priority) -> dict[Layout, tuple[int, ...]]:
    found = {
        layout: tuple(column for column in own if layout.points[column].priority is lane)
        for layout, own in columns.items()
    }
    return {layout: own for layout, own in found.items() if own}
