"""`gateway plan` on history: which points have one, and what recording it costs besides what is published."""

from __future__ import annotations

import msgspec

from gateway.app.compiled import Compiled
from gateway.app.history_rule import recorded
from gateway.app.table import size
from gateway.config.values import duration_text


class HistoryCost(msgspec.Struct, frozen=True):
    """Points by who records them."""

    points: int  # in the configuration
    published: int  # recorded by a publish rule as finely: no second copy
    own: int  # recorded for history alone
    own_per_s: float  # of those values, at most: when each changes with each scan; without continuous scans


def history_cost(compiled: Compiled) -> HistoryCost | None:
    """None where no history is configured."""
    history = compiled.site.journal.history
    if history is None:
        return None
    found = recorded(compiled.site, history, compiled.layouts)
    per_s = 0.0
    for layout, columns in found.own.items():
        scan = compiled.site.scans.get(layout.scan)
        if scan is not None and scan.every_ns:
            per_s += len(columns) * 1e9 / scan.every_ns
    return HistoryCost(
        points=sum(map(len, compiled.layouts)),
        published=sum(map(len, found.published.values())),
        own=sum(map(len, found.own.values())),
        own_per_s=per_s,
    )


def history_lines(compiled: Compiled) -> list[str]:
    """For people; empty where there is nothing to say."""
    history, cost = compiled.site.journal.history, history_cost(compiled)
    if history is None or cost is None:
        return []
    own = f"{cost.own} for history alone, at most {cost.own_per_s:.1f} values/s more"
    what = f"{cost.published + cost.own} of {cost.points} points"
    kept = f"kept {duration_text(history.keep_ns)} of running time within {size(history.max_bytes)}"
    return [
        f"history: {what}, {kept}",
        f"         {cost.published} as published, {own if cost.own else 'none twice'}",
    ]
