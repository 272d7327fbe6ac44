"""Every bounded thing of a running gateway, and how that becomes metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from gateway.api.source import Family, Sample
from gateway.app.logs import log_levels
from gateway.core.bounded import Bound, Level
from gateway.journal.levels import levels as journal_levels
from gateway.journal.stats import JournalStats

if TYPE_CHECKING:
    from gateway.app.runtime import Gateway


def levels_of(gateway: Gateway, stats: JournalStats) -> Iterator[Level]:
    """From memory; `stats` are the journal's of now."""
    yield from journal_levels(gateway.store.journal, stats)
    if gateway.store.spool is not None:
        yield from gateway.store.spool.levels()
    for name, link in gateway.links.items():
        for level in link.driver.levels():
            yield level.of(name)
    for name, server in gateway.servers.items():
        for level in server.driver.levels():
            yield level.of(name)
    for name, (_spec, uplink) in gateway.uplinks.items():
        for level in (*uplink.levels(), *uplink.endpoint.levels()):
            yield level.of(name)
        for delivery in gateway.deliveries.of(name):
            for level in delivery.outbox.levels():
                yield level.of(name, delivery.lane.name.lower(), delivery.cursor.name)
    yield from gateway.desk.levels()
    yield from gateway.gatekeeper.levels()
    yield from gateway.http.levels()
    yield from gateway.history.levels()
    yield from gateway.thread_levels()
    yield from log_levels()


def families_of(levels: Iterable[Level]) -> Iterator[Family]:
    """Depth, limit and what was lost of each bound, in the order they come first."""
    found: dict[Bound, list[Level]] = {}
    for level in levels:
        found.setdefault(level.bound, []).append(level)
    for bound, group in found.items():
        what, beyond = _sentence(bound.what), _sentence(bound.beyond)
        yield _family(bound.depth_name, what, bound, [(one, one.depth) for one in group])
        yield _family(bound.limit_name, f"Beyond it: {beyond}", bound, [(one, one.limit) for one in group])
        if bound.lost_name:
            text = f"{_sentence(bound.lost)} at the limit"
            yield _family(bound.lost_name, text, bound, [(one, one.lost) for one in group])


def _family(name: str, text: str, bound: Bound, rows: list[tuple[Level, int]]) -> Family:
    samples = tuple(
        Sample(value, tuple(zip(bound.labels, level.labels, strict=True))) for level, value in rows
    )
    return Family(
        name=name, help=text, kind="counter" if name.endswith("_total") else "gauge", samples=samples
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].replace("`", "")
