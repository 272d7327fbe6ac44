"""A point: the identity of one value and what is known of it before it is ever read."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

import msgspec

Value: TypeAlias = bool | int | float | str | bytes | None
"""What a point can hold. `None` exactly when the quality is bad and nothing usable was read."""


class ValueType(enum.Enum):
    """The type of a point's engineering value, after scaling."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    BYTES = "bytes"


class Priority(enum.IntEnum):
    """Which lane of the journal a point's values take; a higher one is delivered first."""

    NORMAL = 0
    ALARM = 1
    SPILLED = 2  # of no point: normal values of rules with `durability: spill`, as far as they are written


class Point(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`device/tag` and its attributes. Immutable, made once from the configuration."""

    device: str
    tag: str
    type: ValueType
    unit: str = ""
    low: float | None = None  # engineering units; outside it quality is out-of-range
    high: float | None = None
    writable: bool = False
    deadband: float = 0.0  # engineering units; a change must exceed it to be reported
    deadband_percent: float = 0.0  # of (high - low)
    priority: Priority = Priority.NORMAL
    labels: tuple[tuple[int, str], ...] = ()  # enum texts, raw value → text, applied at send
    flags: tuple[tuple[int, str], ...] = ()  # texts of single bits, bit → text, applied at send

    @property
    def name(self) -> str:
        """`device/tag`, unique in a gateway."""
        return f"{self.device}/{self.tag}"


class Layout:
    """An ordered set of points that are read together; a scan refers to it and repeats none of it.

    Compared by identity: the configuration makes each layout once. `attributes` are what topics and matches
    may name besides device and tag: site, link, template, group, unit …
    """

    __slots__ = ("attributes", "device", "index", "points", "scan")

    def __init__(
        self, *, device: str, scan: str, points: Iterable[Point], attributes: Mapping[str, str] | None = None
    ) -> None:
        self.device: Final = device
        self.scan: Final = scan  # name of the scan class, "" where there is none
        self.points: Final = tuple(points)
        self.index: Final = {point.tag: column for column, point in enumerate(self.points)}
        self.attributes: Final = dict(attributes or {})
        if len(self.index) != len(self.points):
            raise ValueError(f"layout {device}/{scan}: a tag stands in it twice")

    def __len__(self) -> int:
        return len(self.points)

    def __repr__(self) -> str:
        return f"Layout({self.device!r}, scan={self.scan!r}, {len(self.points)} points)"
