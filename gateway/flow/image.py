"""The last value of every point, with its quality and its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from gateway.core import quality as q
from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value
from gateway.core.quality import Quality


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One point as it is known now. `received_ns` is 0 where nothing was read since start."""

    point: Point
    value: Value
    quality: Quality
    received_ns: int
    monotonic_ns: int
    source_time_ns: int | None
    scan: str  # name of the scan class it is read in
    change: int  # of the image, when this reading's layout was last updated


STALE_PERIODS: Final = 3  # a value not read for so many periods of its scan …
STALE_GRACE_NS: Final = 10_000_000_000  # … and this besides is old, whatever became of its reader


def stale_after_ns(every_ns: int) -> int:
    """How old what is scanned at that period may be before it is shown as stale."""
    return STALE_PERIODS * every_ns + STALE_GRACE_NS


class View(msgspec.Struct, frozen=True, gc=False):
    """One layout as it was at one moment: columns, or one thing for all of it. May be read by any thread."""

    layout: Layout
    values: tuple[Value, ...]
    quality: Quality | tuple[Quality, ...]
    source_ns: int | tuple[int | None, ...] | None
    received_ns: int | tuple[int, ...]
    monotonic_ns: int | tuple[int, ...]
    change: int

    def readings(self) -> Iterator[Reading]:
        """Of each of its points."""
        return (_reading(self, column) for column in range(len(self.layout)))


class Snapshot:
    """One layout: a whole scan is one reference, a partial batch is merged into columns. Read only."""

    __slots__ = ("change", "layout", "monotonic_ns", "quality", "received_ns", "source_ns", "values")

    def __init__(self, layout: Layout) -> None:
        count = len(layout)
        self.layout = layout
        self.values: tuple[Value, ...] = (None,) * count
        self.quality: Quality | tuple[Quality, ...] = q.BAD | q.NOT_YET_READ
        self.source_ns: int | tuple[int | None, ...] | None = None
        self.received_ns: int | list[int] = 0
        self.monotonic_ns: int | list[int] = 0
        self.change = 0

    def view(self) -> View:
        received, monotonic = self.received_ns, self.monotonic_ns
        return View(
            self.layout,
            self.values,
            self.quality,
            self.source_ns,
            tuple(received) if isinstance(received, list) else received,
            tuple(monotonic) if isinstance(monotonic, list) else monotonic,
            self.change,
        )


class Image:
    """Updated by every batch before anything else sees it; read by servers, the API and the table."""

    def __init__(self, layouts: Iterable[Layout]) -> None:
        self._slots = {layout: Snapshot(layout) for layout in layouts}
        self._where = {
            (layout.device, point.tag): (layout, column)
            for layout in self._slots
            for column, point in enumerate(layout.points)
        }
        self.change = 0  # counts updates

    def __len__(self) -> int:
        return len(self._where)

    def update(self, batch: Batch) -> None:
        """Take over what a batch says. The cost of a whole scan does not depend on its size."""
        slot = self._slots[batch.layout]
        self.change += 1
        slot.change = self.change
        if batch.columns is None:
            slot.values = batch.values
            slot.quality = batch.quality
            slot.source_ns = batch.source_time_ns
            slot.received_ns = batch.received_ns
            slot.monotonic_ns = batch.monotonic_ns
        else:
            _merge(slot, batch, batch.columns)

    def adopt(self, other: Image) -> None:
        """Keep what another image knew of points that exist here too (same layout object)."""
        for layout, slot in other._slots.items():
            if layout in self._slots:
                self._slots[layout] = slot
        self.change = max(self.change, other.change)

    def snapshot(self, layout: Layout) -> Snapshot:
        """What is known of one layout now; the same object is updated later."""
        return self._slots[layout]

    def find(self, device: str, tag: str) -> Reading | None:
        """The reading of one point; None where there is no such point."""
        where = self._where.get((device, tag))
        return None if where is None else _reading(self._slots[where[0]], where[1])

    def point(self, device: str, tag: str) -> Point | None:
        """The point itself; None where there is none."""
        where = self._where.get((device, tag))
        return None if where is None else where[0].points[where[1]]

    def views(self) -> list[View]:
        """Everything as it is now. Costs a step for each layout, not for each point."""
        return [slot.view() for slot in self._slots.values()]

    def readings(self, *, since: int = 0) -> Iterator[Reading]:
        """Every point of the layouts that were updated after change number `since`; all for 0."""
        for slot in self._slots.values():
            if not since or slot.change > since:
                for column in range(len(slot.layout)):
                    yield _reading(slot, column)


def _merge(slot: Snapshot, batch: Batch, columns: tuple[int, ...]) -> None:
    count = len(slot.layout)
    values = list(slot.values)
    qualities = list(slot.quality) if isinstance(slot.quality, tuple) else [slot.quality] * count
    sources = list(slot.source_ns) if isinstance(slot.source_ns, tuple) else [slot.source_ns] * count
    received = slot.received_ns if isinstance(slot.received_ns, list) else [slot.received_ns] * count
    monotonic = slot.monotonic_ns if isinstance(slot.monotonic_ns, list) else [slot.monotonic_ns] * count
    new_quality = batch.quality_column()
    new_source = batch.source_time_ns
    for row, column in enumerate(columns):
        values[column] = batch.values[row]
        qualities[column] = new_quality[row]
        sources[column] = new_source[row] if isinstance(new_source, tuple) else new_source
        received[column] = batch.received_ns
        monotonic[column] = batch.monotonic_ns
    slot.values, slot.quality, slot.source_ns = tuple(values), tuple(qualities), tuple(sources)
    slot.received_ns, slot.monotonic_ns = received, monotonic


def _reading(slot: Snapshot | View, column: int) -> Reading:
    quality, source = slot.quality, slot.source_ns
    received, monotonic = slot.received_ns, slot.monotonic_ns
    return Reading(
        point=slot.layout.points[column],
        value=slot.values[column],
        quality=quality[column] if isinstance(quality, tuple) else quality,
        received_ns=received if isinstance(received, int) else received[column],
        monotonic_ns=monotonic if isinstance(monotonic, int) else monotonic[column],
        source_time_ns=source[column] if isinstance(source, tuple) else source,
        scan=slot.layout.scan,
        change=slot.change,
    )
