"""When the machine was switched on, and what its running time was by a clock that could be trusted.

A machine without a battery starts in the wrong year. What was recorded before its clock was set can be dated
later: each record has the running time of its boot, and a boot is anchored once the clock is synchronised.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from gateway.core.batch import Batch
from gateway.core.quality import CLOCK_NOT_SYNCHRONISED, DATED_LATER, Quality

BOOTS_MAX: Final = 64  # kept; what was recorded in older ones is no longer dated


class Boot(msgspec.Struct, array_like=True, frozen=True):
    """One boot: the epochs of the journal in it, and its anchor; `wall_ns` 0 while it has none."""

    boot_id: str
    first_epoch: int
    last_epoch: int
    monotonic_ns: int = 0
    wall_ns: int = 0


class Boots:
    """`merge`, `begin` and `anchor` are for the owner's thread, `date` for any."""

    def __init__(self) -> None:
        self.known: tuple[Boot, ...] = ()  # oldest first

    def merge(self, found: Iterable[Boot]) -> None:
        """What a log says of earlier boots."""
        boots = {boot.boot_id: boot for boot in self.known}
        for boot in found:
            other = boots.get(boot.boot_id, boot)
            anchored = other if other.wall_ns else boot
            boots[boot.boot_id] = msgspec.structs.replace(
                anchored,
                first_epoch=min(boot.first_epoch, other.first_epoch),
                last_epoch=max(boot.last_epoch, other.last_epoch),
            )
        self.known = tuple(sorted(boots.values(), key=lambda boot: boot.first_epoch))[-BOOTS_MAX:]

    def begin(self, boot_id: str, epoch: int) -> None:
        """An epoch begins in this boot."""
        self.merge([Boot(boot_id, epoch, epoch)])

    def is_anchored(self, boot_id: str) -> bool:
        """Whether what was recorded in it can be dated."""
        return any(boot.boot_id == boot_id and boot.wall_ns for boot in self.known)

    def anchor(self, boot_id: str, *, monotonic_ns: int, wall_ns: int) -> None:
        """The clock is synchronised: this is what time it is. The first one counts."""
        self.known = tuple(
            msgspec.structs.replace(boot, monotonic_ns=monotonic_ns, wall_ns=wall_ns)
            if boot.boot_id == boot_id and not boot.wall_ns
            else boot
            for boot in self.known
        )

    def date(self, batch: Batch) -> None:
        """Say when a batch was received whose time could not be trusted then; `received_ns` stays."""
        quality = batch.time_quality
        if not batch.monotonic_ns or batch.dated_ns is not None:
            return
        source = batch.source_time_ns
        if isinstance(quality, tuple):
            times = source if isinstance(source, tuple) else (source,) * len(quality)
            doubtful = [
                time is None and bool(one & CLOCK_NOT_SYNCHRONISED)
                for one, time in zip(quality, times, strict=True)
            ]
            if not any(doubtful):
                return
        elif source is not None or not quality & CLOCK_NOT_SYNCHRONISED:
            return
        boot = next((one for one in self.known if one.first_epoch <= batch.epoch <= one.last_epoch), None)
        if boot is None or not boot.wall_ns:
            return
        batch.dated_ns = boot.wall_ns - (boot.monotonic_ns - batch.monotonic_ns)
        if isinstance(quality, tuple):
            pairs = zip(quality, doubtful, strict=True)
            batch.time_quality = tuple([_dated(one) if is_doubtful else one for one, is_doubtful in pairs])
        else:
            batch.time_quality = _dated(quality)


def _dated(quality: Quality) -> Quality:
    return quality & ~CLOCK_NOT_SYNCHRONISED | DATED_LATER
