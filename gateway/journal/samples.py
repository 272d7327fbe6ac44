"""What history is made of: samples with all that belongs to them, and gaps where there are none."""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from gateway.core.point import Point, Value
from gateway.core.quality import Quality

Key: TypeAlias = tuple[int, int, int]
"""(epoch, seq, row): the order in which things were recorded, whatever clocks said."""


class Why(enum.Enum):
    """Why nothing is known of a time."""

    OFF = "the gateway was not running"
    DAMAGED = "records on the disk are damaged"
    STEPPED = "the gateway's clock was set"


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One recorded value. `time_ns` is the device's where it gave one, else `received_ns`."""

    key: Key
    point: Point
    time_ns: int
    is_device_time: bool
    received_ns: int  # dated later where our clock was not to be trusted then and has been since
    monotonic_ns: int  # 0: not known
    value: Value
    quality: Quality
    time_quality: Quality
    missing: int = 0  # values of the point that were taken out right before it, to save room


class Gap(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Between these times values may have been that are not here; nothing is drawn across.

    A clock set back has `to_ns` before `from_ns`: that time was lived through twice.
    """

    key: Key
    from_ns: int
    to_ns: int
    why: Why
    lane: str = ""  # "" for all of them

    def touches(self, from_ns: int, to_ns: int) -> bool:
        """Whether some of it lies in [from_ns, to_ns)."""
        return max(self.from_ns, self.to_ns) >= from_ns and min(self.from_ns, self.to_ns) < to_ns
