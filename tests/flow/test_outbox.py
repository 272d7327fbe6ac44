"""The window in front of the journal: at least once, in order, bounded, whatever comes in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.app.rules import SpoolCursor, settled
from gateway.core.batch import Batch
from gateway.core.point import Priority
from gateway.flow.outbox import Entry, Outbox, Position, Replay
from gateway.flow.spool import Spool
from gateway.journal.cursor import Cursor
from gateway.journal.reader import Reader
from tests.disk.faulty import FaultyFileSystem
from tests.journal.support import LAYOUT, Bench, N, ToldClock

WINDOW = 8  # records of two values each are two: the limit under test is small, so that it is met
HOLES = 3


class Later:
    """The thread that reads: what it was asked is done when the test says so."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], None]] = deque()

    def submit(
        self, work: Callable[[], Any], *, done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        assert not self.jobs, "one read at a time"
        self.jobs.append(lambda: done(work()))

    def step(self) -> None:
        if self.jobs:
            self.jobs.popleft()()


class Desk:
    """An outbox over the real journal on a disk in memory; uncommitted until `commit`."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay
        self.disk = FaultyFileSystem()
        self.bench = self._bench()
        self.readers: list[Reader] = []
        self.open_files = 0
        self.failures: list[BaseException] = []
        self._begin()

    def _begin(self) -> None:
        journal = self.bench.journal
        self.cursor: Cursor = self.bench.cursor()
        self.thread = Later()
        self.wakes = 0
        self.receipt: Any = None
        end = journal.end(N)
        self.outbox = Outbox(
            cursor=self.cursor,
            open_reader=self._open,
            committed=lambda: journal.committed(N),
            on_commit=self._on_commit,
            background=self.thread,
            holes=missing(self.cursor, end),
            end=end,
            replay=self.replay,
            wake=self._wake,
            fail=self.failures.append,
        )

    def _bench(self, clock: ToldClock | None = None) -> Bench:
        return Bench(self.disk, clock=clock)

    def _open(self, after: Position) -> Reader:
        reader = self.bench.journal.reader(self.cursor, after)
        self.readers.append(reader)
        return reader

    def _on_commit(self, callback: Callable[[], None]) -> None:
        if self.receipt is None:
            callback()
        else:
            self.receipt.on_commit(callback)

    def _wake(self) -> None:
        self.wakes += 1

    def offer(self, *, stream: str = "a") -> Position:
        """One record; of another stream it only takes a number."""
        self.bench.seq += 1
        journal = self.bench.journal
        batch = Batch(
            layout=LAYOUT,
            values=(self.bench.seq, journal.epoch),
            received_ns=0,
            epoch=journal.epoch,
            seq=self.bench.seq,
        )
        self.receipt = self._store(batch, stream)
        if stream == "a":
            self.outbox.offer(batch, stream)
        return (batch.epoch, batch.seq)

    def _store(self, batch: Batch, stream: str) -> Any:
        return self.bench.journal.append(batch, lane=N, stream=stream)

    def restart(self) -> None:
        """An orderly one: everything offered is on disk, and so is the cursor."""
        self.bench.journal.close()
        self.bench = self._bench(self.bench.clock)
        self._begin()

    def drain(self) -> list[Entry]:
        """Everything there is, acknowledged at once."""
        found: list[Entry] = []
        self.outbox.online()
        for _ in range(200):
            self.bench.journal.commit()
            self.thread.step()
            while (entry := self.outbox.take()) is not None:
                found.append(entry)
                entry.acknowledge()
        return found


def missing(cursor: Cursor, end: Position) -> Sequence[tuple[Position, Position]]:
    """As the gateway finds it at a start."""
    holes = []
    after = cursor.low
    for start, upto in cursor.ranges:
        if start > after:
            holes.append((after, start))
        after = upto
    if after < end:
        holes.append((after, end))
    return holes


class Delivery(RuleBasedStateMachine):
    """Offers, outages, acknowledgements in any order, records given back, slow disks, restarts."""

    replay = Replay()

    def __init__(self) -> None:
        super().__init__()
        self.limits = [
            mock.patch("gateway.flow.outbox.WINDOW_VALUES_MAX", 2 * WINDOW),
            mock.patch("gateway.flow.outbox.HOLES_MAX", HOLES),
            mock.patch("gateway.flow.outbox.READ_BYTES_MAX", 300),
        ]
        for limit in self.limits:
            limit.start()

    def teardown(self) -> None:
        try:
            self.everything_arrives()
        finally:
            for limit in self.limits:
                limit.stop()

    @initialize()
    def begin(self) -> None:
        self.desk = Desk(self.replay)
        self.offered: list[Position] = []
        self.flying: list[Entry] = []
        self.acknowledged: set[Position] = set()
        self.first: list[Position] = []  # when each was handed out for the first time in this run
        self.last_again: Position | None = None

    @rule(count=st.integers(1, 12), other=st.booleans())
    def offer(self, count: int, other: bool) -> None:
        for _ in range(count):
            if other:
                self.desk.offer(stream="b")
            self.offered.append(self.desk.offer())

    @rule()
    def commit(self) -> None:
        self.desk.bench.journal.commit()

    @rule()
    def read(self) -> None:
        self.desk.thread.step()

    @rule()
    def online(self) -> None:
        self.desk.outbox.online()

    @rule()
    def offline(self) -> None:
        self.desk.outbox.offline()

    @precondition(lambda self: self.desk.outbox.is_online)
    @rule(count=st.integers(1, 20))
    def take(self, count: int) -> None:
        for _ in range(count):
            entry = self.desk.outbox.take()
            if entry is None:
                break
            self.handed_out(entry)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 1000), count=st.integers(1, 10))
    def acknowledge(self, which: int, count: int) -> None:
        for _ in range(min(count, len(self.flying))):
            entry = self.flying.pop(which % len(self.flying))
            entry.acknowledge()
            self.acknowledged.add(entry.position)

    @precondition(lambda self: self.flying)
    @rule(count=st.integers(1, 10), which=st.integers(0, 1000))
    def give_back(self, count: int, which: int) -> None:
        """Some that did not go out after all, as the uplink does it: in the order they were sent."""
        start = which % len(self.flying)
        again = self.flying[start : start + count]
        del self.flying[start : start + count]
        for entry in again:
            self.desk.outbox.send_again(entry)

    @rule()
    def restart(self) -> None:
        self.desk.restart()
        self.flying.clear()
        self.first.clear()

    def handed_out(self, entry: Entry) -> None:
        position = entry.position
        assert position in self.offered
        assert entry.batch.values == (position[1], position[0])
        assert entry.after < position
        if not self.replay.live_first and position not in self.first:
            assert not self.first or position > self.first[-1], "a record overtook another"
        self.first.append(position)
        self.flying.append(entry)

    @invariant()
    def low_mark_is_true(self) -> None:
        low = self.desk.cursor.low
        assert all(position in self.acknowledged for position in self.offered if position <= low)

    @invariant()
    def memory_is_bounded(self) -> None:
        outbox = self.desk.outbox
        assert outbox.window <= WINDOW
        assert len(outbox._holes) <= HOLES
        assert outbox.in_flight == len(self.flying)
        assert not self.desk.failures
        if not outbox.is_online:
            assert outbox.window == 0

    @invariant()
    def files_are_given_back(self) -> None:
        assert sum(reader._file is not None for reader in self.desk.readers) <= HOLES + 1

    def everything_arrives(self) -> None:
        if not hasattr(self, "desk"):
            return
        for entry in self.flying:
            entry.acknowledge()
            self.acknowledged.add(entry.position)
        for entry in self.desk.drain():
            assert entry.position in self.offered
            self.acknowledged.add(entry.position)
        assert set(self.offered) == self.acknowledged
        if self.offered:
            assert self.desk.cursor.low >= self.offered[-1]
            assert self.desk.cursor.ranges == ()
        outbox = self.desk.outbox
        assert (outbox.window, outbox.in_flight, outbox.is_behind, outbox.backlog) == (0, 0, False, 0)


class LiveFirst(Delivery):
    """The same promises where new values overtake."""

    replay = Replay(live_first=True, share=0.3)


class SpillDesk(Desk):
    """What is not acknowledged in time goes to a lane of its own."""

    def _bench(self, clock: ToldClock | None = None) -> Bench:
        return Bench(self.disk, clock=clock, lanes=(N, Priority.SPILLED))

    def _begin(self) -> None:
        super()._begin()
        journal, clock = self.bench.journal, self.bench.clock
        self.cursor = self.bench.cursor("s", lane=Priority.SPILLED)
        self.spool = Spool(append=self._spill, monotonic_ns=clock.monotonic_ns, max_bytes=20_000)
        end = journal.end(Priority.SPILLED)
        self.outbox = Outbox(
            cursor=SpoolCursor(self.cursor, self.spool),
            open_reader=self._open,
            committed=lambda: settled(journal, self.spool),
            on_commit=self.spool.settle,
            background=self.thread,
            holes=missing(self.cursor, end),
            end=end,
            replay=self.replay,
            wake=self._wake,
            fail=self.failures.append,
        )

    def _spill(self, batch: Batch, stream: str) -> Any:
        return self.bench.journal.append(batch, lane=Priority.SPILLED, stream=stream)

    def _store(self, batch: Batch, stream: str) -> Any:
        return self.spool.hold(batch, stream)

    def restart(self) -> None:
        self.spool.spill()
        super().restart()


class Spilling(Delivery):
    """The same promises where values go to disk only when they must."""

    desk: SpillDesk

    @initialize()
    def begin(self) -> None:
        super().begin()
        self.desk = SpillDesk(self.replay)

    @rule(seconds=st.integers(0, 2))
    def time_passes(self, seconds: int) -> None:
        self.desk.bench.clock.now_ns += seconds * 1_000_000_000
        self.desk.spool.spill_late()

    @invariant()
    def the_spool_is_bounded(self) -> None:
        assert self.desk.spool.bytes <= self.desk.spool.max_bytes


class SpillingLiveFirst(Spilling):
    """And where new values overtake besides."""

    replay = Replay(live_first=True, share=0.3)


TestInOrder = Delivery.TestCase
TestSpilling = Spilling.TestCase
TestSpillingLiveFirst = SpillingLiveFirst.TestCase
TestSpilling.settings = TestSpillingLiveFirst.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None
)
TestLiveFirst = LiveFirst.TestCase
TestInOrder.settings = TestLiveFirst.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)


# --- said one by one ----------------------------------------------------------------------------------------


def positions(entries: Sequence[Entry]) -> list[int]:
    return [entry.position[1] for entry in entries]


def test_what_is_given_back_comes_again_in_its_order_and_before_what_is_newer() -> None:
    desk = Desk(Replay())
    desk.outbox.online()
    for _ in range(10):
        desk.offer()
    desk.bench.journal.commit()
    flying = [desk.outbox.take() for _ in range(6)]
    for entry in flying[2:5]:
        assert entry is not None
        desk.outbox.send_again(entry)
    assert positions(desk.drain()) == [3, 4, 5, 7, 8, 9, 10]


def test_given_back_while_its_backlog_is_being_read_neither_order_nor_files_are_lost() -> None:
    desk = Desk(Replay())
    for _ in range(6):
        desk.offer()
    desk.bench.journal.commit()
    desk.outbox.online()
    assert desk.outbox.take() is None
    desk.thread.step()
    first = desk.outbox.take()
    second = desk.outbox.take()
    assert first is not None
    assert second is not None
    desk.outbox.send_again(first)
    desk.outbox.send_again(second)
    assert desk.outbox.take() is None
    assert positions(desk.drain()) == [1, 2, 3, 4, 5, 6]
    assert [reader for reader in desk.readers if reader._file is not None] == []


def test_live_values_wait_behind_the_backlog_until_it_is_committed_and_sent() -> None:
    desk = Desk(Replay())
    for _ in range(3):
        desk.offer()
    desk.outbox.online()
    desk.offer()
    assert desk.outbox.take() is None
    desk.thread.step()  # nothing is committed yet
    assert desk.outbox.take() is None
    wakes = desk.wakes
    desk.bench.journal.commit()
    assert desk.wakes > wakes  # told, not polled
    assert positions(desk.drain()) == [1, 2, 3, 4]


def test_live_first_gives_the_backlog_its_share() -> None:
    desk = Desk(Replay(live_first=True, share=0.3))
    for _ in range(400):
        desk.offer()
    desk.bench.journal.commit()
    desk.outbox.online()
    kinds = []
    for _ in range(300):
        desk.offer()
        desk.bench.journal.commit()
        desk.thread.step()
        while (entry := desk.outbox.take()) is not None:
            kinds.append(entry.is_historical)
            entry.acknowledge()
            if not desk.outbox.window:
                break
    share = sum(kinds) / len(kinds)
    assert 0.25 <= share <= 0.35
    assert kinds[0] is False


def test_an_outage_costs_no_memory_and_no_file_handle() -> None:
    desk = Desk(Replay())
    desk.outbox.online()
    for _ in range(50):
        desk.offer()
    desk.outbox.offline()
    for _ in range(5000):
        desk.offer()
    desk.bench.journal.commit()
    assert (desk.outbox.window, len(desk.outbox._holes), desk.readers) == (0, 1, [])
    assert desk.outbox.backlog == 5050


def test_a_backlog_of_earlier_runs_is_never_shown_as_none() -> None:
    desk = Desk(Replay())
    for _ in range(10):
        desk.offer()
    desk.restart()
    assert desk.outbox.backlog >= 1
    for _ in range(5):
        desk.offer()
    assert desk.outbox.backlog >= 5
    assert positions(desk.drain()) == [*range(1, 11), *range(1, 6)]


def test_a_window_that_overflows_is_read_from_the_journal_in_order() -> None:
    with mock.patch("gateway.flow.outbox.WINDOW_VALUES_MAX", 20):
        desk = Desk(Replay())
        desk.outbox.online()
        for _ in range(100):
            desk.offer()
        assert desk.outbox.window == 10
        entries = desk.drain()
    assert positions(entries) == list(range(1, 101))
    assert [entry.is_historical for entry in entries] == [True] * 90 + [False] * 10


def test_a_disk_that_cannot_be_read_is_reported() -> None:
    desk = Desk(Replay())
    for _ in range(3):
        desk.offer()
    desk.bench.journal.commit()
    failed: list[BaseException] = []

    def submit(work: Any, *, done: Any, failed: Callable[[BaseException], None]) -> None:
        failed(OSError("broken"))

    desk.outbox._fail = failed.append
    desk.outbox._background = mock.Mock(submit=submit)
    desk.outbox.online()
    assert desk.outbox.take() is None
    assert [str(error) for error in failed] == ["broken"]
