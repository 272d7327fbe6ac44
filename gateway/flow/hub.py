"""Where every batch passes: image, report by exception, sequence, journal and live windows together."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from gateway.core.batch import Batch
from gateway.core.clock import Clock
from gateway.core.point import Layout, Priority
from gateway.core.ports import Receipt
from gateway.flow import unsynchronised
from gateway.flow.expressions import BlockExpressions
from gateway.flow.image import Image
from gateway.flow.outbox import Outbox
from gateway.flow.report import Reporter, ReportPolicy

PAUSE_ABOVE: Final = 32  # records in a live window
PAUSE_NS_EACH: Final = 50_000  # about what a record costs on its whole way
PAUSE_NS_MAX: Final = 50_000_000
BUSY_WINDOW_NS: Final = 20_000_000
BUSY_SHARE_MAX: Final = 0.75  # of the loop's time that reading without a period may take
BUSY_PAUSE_NS_MIN: Final = 500_000
HURRY_NS_MAX: Final = 20_000_000
_BLOCKED_WAIT_NS: Final = 1_000_000_000  # how soon reports that are due look again whether storage takes them
_NEVER_NS: Final = 1 << 63


class Journal(Protocol):
    """The part of the journal that the hub writes to."""

    def append(self, batch: Batch, *, lane: Priority, stream: str) -> Receipt:
        """Take a numbered batch; it is committed with the next group."""
        ...

    def is_blocked(self) -> bool:
        """Whether nothing more may be appended for now."""
        ...


class Stream(msgspec.Struct, frozen=True):
    """Points reported under one policy into one lane; a publish rule has one stream in each lane."""

    name: str
    policy: ReportPolicy
    lane: Priority
    columns: Mapping[Layout, tuple[int, ...]]  # what of each layout is in it


class _Feed:
    """One layout of one stream."""

    __slots__ = ("lane", "looks", "name", "outboxes", "reporter", "scheduled_ns")

    def __init__(self, stream: Stream, reporter: Reporter, outboxes: Sequence[Outbox]) -> None:
        self.name = stream.name
        self.lane = stream.lane
        self.reporter = reporter
        self.outboxes = tuple(outboxes)
        self.looks: list[int] = []  # its times in the heap, the soonest last; never one later than another
        self.scheduled_ns = _NEVER_NS  # the soonest


class _NothingToStore:
    """The receipt of a batch of which nothing was worth a report."""

    def is_committed(self) -> bool:
        return True

    def on_commit(self, callback: Callable[[], None]) -> None:
        callback()


class _All:
    """Committed when each of several receipts is."""

    def __init__(self, receipts: list[Receipt]) -> None:
        self._receipts = receipts

    def is_committed(self) -> bool:
        return all(receipt.is_committed() for receipt in self._receipts)

    def on_commit(self, callback: Callable[[], None]) -> None:
        waiting = len(self._receipts)

        def count_down() -> None:
            nonlocal waiting
            waiting -= 1
            if not waiting:
                callback()

        for receipt in self._receipts:
            receipt.on_commit(count_down)


_NOTHING: Final = _NothingToStore()


class Counters:
    """What passed since start."""

    __slots__ = ("batches", "records", "values", "values_reported")

    def __init__(self) -> None:
        self.batches = 0  # put by drivers
        self.values = 0
        self.records = 0  # journaled and offered to uplinks
        self.values_reported = 0


class Hub:
    """The bus of the gateway is this function call. Implements `Sink`.

    One sequencer numbers batches before they fork to the live windows and the journal. Numbers are
    never reused within an epoch, and the epoch is on disk before the first of them.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        epoch: int,
        image: Image,
        set_alarm: Callable[[int | None], None],
        cpu_ns: Callable[[], int] = lambda: 0,
        marks_time: bool = True,
    ) -> None:
        """`set_alarm(deadline_ns)` asks to call `on_deadline` at that monotonic time.

        `marks_time`: our times are doubted while the clock is not synchronised.

        `cpu_ns()` is the CPU time that the loop's thread used so far.
        """
        self._clock = clock
        self._marks_time = marks_time
        self._journal = journal
        self._epoch: Final = epoch
        self._seq = 0
        self._set_alarm = set_alarm
        self._feeds: dict[Layout, tuple[_Feed, ...]] = {}
        self._expressions: dict[Layout, BlockExpressions] = {}
        self._outboxes: tuple[Outbox, ...] = ()
        self._cpu_ns = cpu_ns
        self._looked_ns = 0
        self._used_ns = 0
        self._busy_pause_ns = 0
        self.leaves_room = False  # whether commands are to be expected, which want short turns of the loop
        self._urgent = 0
        self._held_ns = 0
        self._heap: list[tuple[int, int, _Feed]] = []
        self._pushes = 0
        self._receipts: dict[Priority, Receipt] = {}  # the newest of each lane
        self.image = image
        self.counters: Final = Counters()

    def connect(self, streams: Iterable[tuple[Stream, Sequence[Outbox]]], image: Image) -> None:
        """Set what goes where. The sequence goes on, and a report whose policy stays remembers."""
        known = {(feed.name, feed.lane, layout): feed for layout, old in self._feeds.items() for feed in old}
        feeds: dict[Layout, list[_Feed]] = {}
        for stream, outboxes in streams:
            for layout, columns in stream.columns.items():
                reporter = Reporter(layout, policy=stream.policy, columns=columns)
                before = known.get((stream.name, stream.lane, layout))
                if before is not None and before.reporter.is_like(reporter):
                    reporter = before.reporter
                feeds.setdefault(layout, []).append(_Feed(stream, reporter, outboxes))
        self._feeds = {layout: tuple(found) for layout, found in feeds.items()}
        own = [outbox for found in self._feeds.values() for feed in found for outbox in feed.outboxes]
        self._outboxes = tuple(dict.fromkeys(own))
        self._heap = []
        for found in self._feeds.values():
            for feed in found:
                if feed.reporter.deadline_ns != _NEVER_NS:
                    self._schedule(feed)
        image.adopt(self.image)
        self.image = image

    def calculate(self, blocks: Mapping[Layout, BlockExpressions]) -> None:
        """Set the expressions of tags. Those that stay remember."""
        known = self._expressions
        self._expressions = {
            layout: known[layout] if layout in known and known[layout].is_like(block) else block
            for layout, block in blocks.items()
        }

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, seq) given out last."""
        return (self._epoch, self._seq)

    # Sink

    def put(self, batch: Batch) -> Receipt:
        """Number, show, journal and send a batch."""
        if self._marks_time and not self._clock.is_synchronised():
            unsynchronised.mark(batch)
        block = self._expressions.get(batch.layout)
        if block is not None:
            block.apply(batch)
        self.image.update(batch)
        counters = self.counters
        counters.batches += 1
        counters.values += len(batch.values)
        receipts: list[Receipt] = []
        now_ns = self._clock.monotonic_ns()
        for feed in self._feeds.get(batch.layout, ()):
            out = feed.reporter.offer(batch, now_ns)
            if out is not None:
                receipts.append(self._emit(feed, out))
            if feed.reporter.deadline_ns < feed.scheduled_ns:
                self._schedule(feed)
        if len(receipts) == 1:
            return receipts[0]
        return _All(receipts) if receipts else _NOTHING

    def is_blocked(self) -> bool:
        """Whether the journal pushes back."""
        return self._journal.is_blocked()

    def hold(self) -> None:
        """Something urgent is under way: reading without a period waits. Goes with `release`."""
        self._urgent += 1
        self._held_ns = self._clock.monotonic_ns()

    def release(self) -> None:
        """It is on its way."""
        self._urgent -= 1

    def is_hurried(self) -> bool:
        """Whether a `hold` is not released; for a while only, for a slow disk must not stop reading."""
        return self._urgent > 0 and self._clock.monotonic_ns() - self._held_ns < HURRY_NS_MAX

    def pause_ns(self) -> int:
        """Grows with what waits in the fullest live window: `continuous` settles at what all can carry.

        Bounded, so that a broker that takes nothing slows such reading down and does not stop it. An uplink
        that is away or behind asks for nothing: its values are on disk.
        """
        if self.leaves_room:
            self._look_busy()
        waiting = max([outbox.lag for outbox in self._outboxes], default=0)
        behind_ns = 0 if waiting <= PAUSE_ABOVE else min(PAUSE_NS_MAX, waiting * PAUSE_NS_EACH)
        return max(behind_ns, self._busy_pause_ns if self.leaves_room else 0)

    def _look_busy(self) -> None:
        """Leave the loop a quarter of its time, so that a command meets a short turn of it."""
        now_ns = self._clock.monotonic_ns()
        passed_ns = now_ns - self._looked_ns
        if passed_ns < BUSY_WINDOW_NS:
            return
        used_ns = self._cpu_ns()
        is_busy = (used_ns - self._used_ns) > passed_ns * BUSY_SHARE_MAX
        self._looked_ns, self._used_ns = now_ns, used_ns
        if is_busy:
            self._busy_pause_ns = min(PAUSE_NS_MAX, max(BUSY_PAUSE_NS_MIN, self._busy_pause_ns * 5 // 4))
        else:
            pause_ns = self._busy_pause_ns * 7 // 8
            self._busy_pause_ns = pause_ns if pause_ns >= BUSY_PAUSE_NS_MIN else 0

    def on_commit(self, lane: Priority, callback: Callable[[], None]) -> None:
        """Call back once everything put so far is on disk."""
        self._receipts.get(lane, _NOTHING).on_commit(callback)

    # Timers

    def on_deadline(self, now_ns: int) -> None:
        """Heartbeats and held back changes whose time has come."""
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            _due_ns, _order, feed = heapq.heappop(heap)
            feed.looks.pop()
            feed.scheduled_ns = feed.looks[-1] if feed.looks else _NEVER_NS
            if not self._journal.is_blocked():
                out = feed.reporter.due(now_ns)
                if out is not None:
                    self._emit(feed, out)
                self._schedule(feed, not_before_ns=now_ns + 1)
            else:
                self._schedule(feed, not_before_ns=now_ns + _BLOCKED_WAIT_NS)
        self._set_alarm(heap[0][0] if heap else None)

    def _schedule(self, feed: _Feed, *, not_before_ns: int = 0) -> None:
        """Look at it at its deadline, unless a look sooner than that is due anyway."""
        look_ns = max(feed.reporter.deadline_ns, not_before_ns)
        if look_ns >= feed.scheduled_ns:
            return
        feed.scheduled_ns = look_ns
        feed.looks.append(look_ns)
        self._pushes += 1
        heapq.heappush(self._heap, (feed.scheduled_ns, self._pushes, feed))
        if self._heap[0][2] is feed:
            self._set_alarm(feed.scheduled_ns)

    def _emit(self, feed: _Feed, batch: Batch) -> Receipt:
        self._seq += 1
        batch.epoch = self._epoch
        batch.seq = self._seq
        receipt = self._journal.append(batch, lane=feed.lane, stream=feed.name)
        self._receipts[feed.lane] = receipt
        self.counters.records += 1
        self.counters.values_reported += len(batch.values)
        for outbox in feed.outboxes:
            outbox.offer(batch, feed.name)
        return receipt
