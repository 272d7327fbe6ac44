"""`gateway plan`: what the journal costs the disk, for people."""

from __future__ import annotations

from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from gateway.app.compiled import Compiled
from gateway.app.plan import LinkCost
from gateway.app.wear import DAY_S, PAGE_BYTES, StreamCost, Wear, wear
from gateway.core.point import Priority

SHARE: Final = 0.1
CARD_BYTES: Final = 32 * 10**9
FULL_WRITES: Final = 1000  # of a card that says nothing of its endurance: cautious for TLC flash
WARN_YEARS: Final = 3.0
YEAR_S: Final = 365.25 * DAY_S


class Card(msgspec.Struct, frozen=True):
    """What the journal is on. `endurance_bytes`: what may be written to it in its life; None: unknown."""

    size_bytes: int = CARD_BYTES
    endurance_bytes: int | None = None

    @property
    def life_bytes(self) -> int:
        """The endurance, or a cautious guess."""
        return self.size_bytes * FULL_WRITES if self.endurance_bytes is None else self.endurance_bytes

    def years(self, cost: Wear) -> float:
        """Until its endurance is used up; infinite where nothing is written."""
        a_year = cost.disk_bytes_per_day * YEAR_S / DAY_S
        return self.life_bytes / a_year if a_year else float("inf")


def print_wear(
    compiled: Compiled,
    costs: list[LinkCost],
    *,
    card: Card | None = None,
    share: float = SHARE,
    console: Console | None = None,
) -> None:
    """A table of the rules, then the disk, then a warning where it will not live long."""
    console = console or Console()
    card = card or Card()
    worst, usual = wear(compiled, costs, share=1.0), wear(compiled, costs, share=share)
    if not worst.streams:
        return
    some = f"{share * 100:.3g}%"
    console.print()
    console.print(_table(worst, usual, some))
    _say(
        console,
        "lasts: so long values are kept while the uplink is away, by the size of the buffer and of all that "
        "is in its lane, or (*) by keep. all: every value differs from scan to scan; "
        f"{some}: so many do (--share). Deadbands count as none.{_spilled(worst)}",
    )
    console.print()
    for name, cost in (("all", worst), (some, usual)):
        console.print(
            f"{name:>4}: the journal grows by {_bytes(cost.bytes_per_day)} a day, the disk writes "
            f"{_bytes(cost.disk_bytes_per_day)}: {_life(card.years(cost))}",
            highlight=False,
        )
    packed = f"packed to {min(usual.packed, worst.packed):.0%}" if worst.packed < 1 else "not packed"
    guess = "" if card.endurance_bytes else f", {FULL_WRITES} times full: a guess, say --endurance"
    _say(
        console,
        f"{worst.commits_per_s:.3g} commits a second, each writes the {PAGE_BYTES} byte page it begins in "
        f"again; records {packed}, measured on made-up values. Life: of a {_bytes(card.size_bytes)} card "
        f"that takes {_bytes(card.life_bytes)}{guess}; what the file system and the card itself write "
        "besides is not in it.",
    )
    years = card.years(usual)
    if years < WARN_YEARS:
        click.echo(
            f"warning: with {some} of the values changing the card lasts {_life(years)}, less than"
            f" {WARN_YEARS:g} years: commit less often (journal: commit), report or scan less, or use an SSD"
        )


def _spilled(cost: Wear) -> str:
    if all(one.lane is not Priority.SPILLED for one in cost.streams):
        return ""
    return " spilled: goes to the disk while the uplink is away only, and is not in the sums below."


def _table(worst: Wear, usual: Wear, some: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("lane", no_wrap=True)
    for title in ("buffer", "all: a day", "lasts", f"{some}: a day", "lasts"):
        table.add_column(title, justify="right", no_wrap=True)
    for one, few in zip(worst.streams, usual.streams, strict=True):
        table.add_row(
            one.name,
            one.lane.name.lower(),
            _bytes(one.buffer_bytes),
            _bytes(one.bytes_per_day),
            _lasts(one),
            _bytes(few.bytes_per_day),
            _lasts(few),
        )
    return table


def _lasts(one: StreamCost) -> str:
    """`18 h`; with a star where age and not size is the bound."""
    if one.lasts_s is None:
        return "-"
    return _span(one.lasts_s) + (" *" if one.lasts_s >= one.keep_ns / 1e9 else "  ")


def _span(seconds: float) -> str:
    for unit, size in (("y", YEAR_S), ("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size or (unit == "y" and seconds >= size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _life(years: float) -> str:
    if years > 100:
        return "over 100 years"
    return f"{years:.1f} years" if years >= 1 else f"{years * 365.25:.0f} days"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _say(console: Console, text: str) -> None:
    console.print(text, style="dim", highlight=False)
