"""The scan schedule: grid, overruns, one scan of a device at a time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.flow.schedule import ScanSchedule, on_grid, staggered

MS = 1_000_000


def test_scans_keep_to_the_grid_whatever_they_take() -> None:
    schedule: ScanSchedule[str] = ScanSchedule()
    schedule.add("a", group="d", every_ns=100 * MS, first_ns=5 * MS)
    assert schedule.due(4 * MS) == []
    assert schedule.due(5 * MS) == ["a"]
    schedule.done("a", 60 * MS)
    assert schedule.deadline_ns() == 105 * MS
    assert schedule.due(109 * MS) == ["a"]
    schedule.done("a", 110 * MS)
    assert schedule.deadline_ns() == 205 * MS


def test_a_scan_still_running_is_not_started_again_and_counted() -> None:
    schedule: ScanSchedule[str] = ScanSchedule()
    schedule.add("a", group="d", every_ns=100 * MS, first_ns=0)
    assert schedule.due(0) == ["a"]
    assert schedule.due(100 * MS) == []
    assert schedule.due(200 * MS) == []
    assert schedule.entries()[0].overruns == 2
    schedule.done("a", 250 * MS)
    assert schedule.due(250 * MS) == []
    assert schedule.due(300 * MS) == ["a"]


def test_slots_missed_while_the_machine_slept_are_counted_not_made_up_for() -> None:
    schedule: ScanSchedule[str] = ScanSchedule()
    schedule.add("a", group="d", every_ns=100 * MS, first_ns=0)
    schedule.due(0)
    schedule.done("a", 0)
    assert schedule.due(1050 * MS) == ["a"]
    assert schedule.due(1050 * MS) == []
    assert schedule.deadline_ns() == 1100 * MS
    assert schedule.entries()[0].overruns == 9


def test_two_scan_classes_of_one_device_take_turns() -> None:
    schedule: ScanSchedule[str] = ScanSchedule()
    schedule.add("fast", group="d", every_ns=100 * MS, first_ns=0)
    schedule.add("slow", group="d", every_ns=1000 * MS, first_ns=0)
    schedule.add("other", group="e", every_ns=1000 * MS, first_ns=0)
    assert schedule.due(0) == ["fast", "other"]
    assert schedule.done("fast", 10 * MS) == ["slow"]
    assert schedule.due(100 * MS) == []
    assert schedule.done("slow", 120 * MS) == ["fast"]


def test_continuous_starts_again_when_it_ended_and_lets_others_of_its_device_in() -> None:
    schedule: ScanSchedule[str] = ScanSchedule()
    schedule.add("flat", group="d", every_ns=0, first_ns=0)
    schedule.add("slow", group="d", every_ns=100 * MS, first_ns=0)
    assert schedule.due(0) == ["flat"]
    assert schedule.done("flat", 1) == ["slow"]
    assert schedule.due(2) == []
    assert schedule.done("slow", 3) == ["flat"]
    assert schedule.done("flat", 4) == ["flat"]
    assert schedule.done("flat", 5, defer_ns=50) == []
    assert schedule.due(54) == []
    assert schedule.due(55) == ["flat"]


@given(
    periods=st.lists(st.sampled_from([0, 10, 25, 100]), min_size=1, max_size=6),
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), max_size=80),
)
def test_never_two_of_one_device_and_nobody_starves(periods: list[int], steps: list[tuple[int, int]]) -> None:
    schedule: ScanSchedule[int] = ScanSchedule()
    for key, period in enumerate(periods):
        schedule.add(key, group=key % 2, every_ns=period, first_ns=0)
    now = 0
    running: list[int] = []
    for wait, finish in steps:
        now += wait
        running += schedule.due(now)
        assert len({key % 2 for key in running}) == len(running)
        if running and finish:
            key = running.pop(finish % len(running))
            running += schedule.done(key, now)
            assert len({key % 2 for key in running}) == len(running)
    for _ in range(40):
        now += 100
        running += schedule.due(now)
        for key in list(running):
            running.remove(key)
            running += schedule.done(key, now)
    assert all(entry.scans for entry in schedule.entries())


def test_devices_do_not_start_together_but_on_one_grid() -> None:
    starts = [
        staggered(now_ns=0, every_ns=1000 * MS, index=i, count=4, over_whole_period=False) // MS
        for i in range(4)
    ]
    assert starts == [0, 0, 50, 50]
    spread = [
        staggered(now_ns=0, every_ns=1000 * MS, index=i, count=3, over_whole_period=True) // MS
        for i in range(3)
    ]
    assert spread == [0, 300, 650]
    assert on_grid(0) == 0
    assert on_grid(1) == on_grid(50 * MS) == 50 * MS
