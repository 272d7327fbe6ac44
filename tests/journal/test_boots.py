"""Times of a machine without a battery clock: doubted from the first moment, dated once that can be done."""

from __future__ import annotations

import pytest

from gateway.core.batch import Batch
from gateway.core.quality import CLOCK_NOT_SYNCHRONISED, DATED_LATER, UNCERTAIN
from gateway.flow.unsynchronised import mark
from gateway.journal.boots import BOOTS_MAX, Boot, Boots
from gateway.journal.cursor import Full
from tests.disk.faulty import FaultyFileSystem
from tests.journal.support import DAY_NS, LAYOUT, SECOND_NS, Bench, N, ToldClock, everything

DOUBT = UNCERTAIN | CLOCK_NOT_SYNCHRONISED
DATED = UNCERTAIN | DATED_LATER
TRUE_NS = 1_750_000_000 * SECOND_NS  # what time it really is at monotonic time 0


class Clock(ToldClock):
    """Begins in 1970 and is set at some time."""

    def __init__(self, monotonic_ns: int = 0) -> None:
        super().__init__(monotonic_ns, 0)
        self.is_set = False

    def wall_ns(self) -> int:
        return self.now_ns + TRUE_NS if self.is_set else self.now_ns

    def is_synchronised(self) -> bool:
        return self.is_set


def put(bench: Bench, source: int | tuple[int | None, ...] | None = None) -> None:
    bench.seq += 1
    clock = bench.clock
    clock.now_ns += SECOND_NS
    batch = Batch(
        layout=LAYOUT,
        values=(bench.seq, bench.journal.epoch),
        received_ns=clock.wall_ns(),
        monotonic_ns=clock.now_ns,
        source_time_ns=source,
        epoch=bench.journal.epoch,
        seq=bench.seq,
    )
    if not clock.is_synchronised():
        mark(batch)
    bench.journal.append(batch, lane=N, stream="a")
    bench.journal.commit()


def read(bench: Bench) -> list[Batch]:
    return [record.batch for record in everything(bench.journal.reader(N, (0, 0)))]


def test_what_was_recorded_before_the_clock_was_set_is_dated_when_it_is_read_back() -> None:
    clock = Clock()
    bench = Bench(FaultyFileSystem(), clock=clock)
    for _ in range(3):
        put(bench)
    bench.journal.maintain()
    assert [(one.time_quality, one.dated_ns) for one in read(bench)] == [(DOUBT, None)] * 3
    clock.is_set = True
    bench.journal.maintain()
    put(bench)
    found = read(bench)
    assert [one.dated_ns for one in found[:3]] == [TRUE_NS + n * SECOND_NS for n in (1, 2, 3)]
    assert [one.received_ns for one in found[:3]] == [n * SECOND_NS for n in (1, 2, 3)]  # as it was
    assert [one.time_quality for one in found] == [DATED] * 3 + [0]


@pytest.mark.parametrize("is_closed", [True, False])
def test_over_a_restart_and_over_a_boot_it_is_still_known(is_closed: bool) -> None:
    clock = Clock()
    one = Bench(FaultyFileSystem(), clock=clock)
    put(one)
    if is_closed:
        one.journal.close()
    two = Bench(one.disk, clock=clock)  # the same boot
    put(two)
    clock.is_set = True
    two.journal.maintain()
    two.journal.commit()
    if is_closed:
        two.journal.close()
    three = Bench(two.disk, clock=Clock(), boot_id="boot-2")
    put(three)
    found = read(three)
    assert [batch.dated_ns for batch in found] == [TRUE_NS + SECOND_NS, TRUE_NS + 2 * SECOND_NS, None]
    assert found[2].time_quality == DOUBT  # of another boot, which nobody knows the time of


def test_only_times_that_are_ours_are_doubted_and_dated() -> None:
    clock = Clock()
    bench = Bench(FaultyFileSystem(), clock=clock)
    put(bench, source=7)
    put(bench, source=(7, None))
    clock.is_set = True
    bench.journal.maintain()
    device, mixed = read(bench)
    assert (device.time_quality, device.dated_ns) == (0, None)
    assert (mixed.time_quality, mixed.dated_ns) == ((0, DATED), TRUE_NS + 2 * SECOND_NS)
    assert mixed.source_time_ns == (7, None)


def test_boots_are_bounded_and_the_first_anchor_counts() -> None:
    boots = Boots()
    for number in range(1, BOOTS_MAX + 10):
        boots.begin(f"b{number}", number)
    assert len(boots.known) == BOOTS_MAX
    last = f"b{BOOTS_MAX + 9}"
    boots.anchor(last, monotonic_ns=5, wall_ns=100)
    boots.anchor(last, monotonic_ns=5, wall_ns=999)
    assert boots.known[-1] == Boot(last, BOOTS_MAX + 9, BOOTS_MAX + 9, 5, 100)
    boots.merge([Boot(last, BOOTS_MAX + 10, BOOTS_MAX + 12)])
    assert boots.known[-1] == Boot(last, BOOTS_MAX + 9, BOOTS_MAX + 12, 5, 100)


@pytest.mark.parametrize("step_ns", [DAY_NS, -DAY_NS, -ToldClock().now_wall_ns])
@pytest.mark.parametrize("full", list(Full))
def test_no_step_of_the_clock_deletes_or_reorders_anything(step_ns: int, full: Full) -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor(keep_ns=3600 * SECOND_NS, full=full)
    for turn in range(120):
        bench.put(1)
        bench.clock.now_ns += SECOND_NS
        bench.clock.now_wall_ns += SECOND_NS + (step_ns if turn == 60 else 0)
        bench.journal.maintain()
    records = bench.backlog(cursor)
    assert [record.position for record in records] == [(1, seq) for seq in range(1, 121)]
    assert (cursor.dropped, cursor.thinned) == (0, 0)
    bench.journal.close()
    again = Bench(bench.disk, clock=bench.clock)
    assert len(again.backlog(again.cursor(keep_ns=3600 * SECOND_NS, full=full))) == 120
