"""What was accepted is delivered: over restarts, config changes, full disks and damage, within the bounds."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from gateway.core.batch import Batch
from gateway.core.errors import ConfigError, InvariantError, StorageError
from gateway.core.point import Layout, Priority
from gateway.disk import record
from gateway.disk.filesystem import RealFileSystem
from gateway.disk.record import OVERHEAD_BYTES
from gateway.disk.segment import HEADER_BYTES, parse_name
from gateway.journal.codec import RecordType
from gateway.journal.cursor import Cursor, Full
from gateway.journal.journal import Journal, Writing
from gateway.journal.settings import JournalSettings
from tests.disk.faulty import FaultyFileSystem, Inode
from tests.journal.support import (
    DAY_NS,
    HERE,
    LAYOUT,
    SECOND_NS,
    SMALL,
    Bench,
    N,
    ToldClock,
    everything,
    numbers,
    points,
)


def again(bench: Bench, **more: object) -> Bench:
    return Bench(bench.disk, **({"clock": bench.clock} | more))  # type: ignore[arg-type]  # settings under test, mixed by name


def up_to(epoch: int, count: int, first: int = 1) -> list[tuple[int, int]]:
    return [(epoch, seq) for seq in range(first, count + 1)]


def test_a_backlog_is_delivered_once_in_order_after_a_restart() -> None:
    one = Bench(FaultyFileSystem())
    cursor = one.cursor()
    one.put(50)
    cursor.acknowledge((1, 0), (1, 20))
    one.journal.close()
    two = again(one)
    cursor = two.cursor()
    assert cursor.low == (1, 20)
    records = two.backlog(cursor)
    assert numbers(records) == up_to(1, 50, 21)
    assert all(item.batch.layout is LAYOUT for item in records)
    for item in records:
        cursor.acknowledge(item.after, item.position)
    assert cursor.low == (1, 50)
    two.journal.close()
    three = again(two)
    assert three.backlog(three.cursor()) == []
    assert three.recovery.messages == ()


def test_each_epoch_is_new_and_nothing_else_may_be_written_in_it() -> None:
    one = Bench(FaultyFileSystem())
    one.put(1)
    one.journal.close()
    two = again(one)
    assert (one.journal.epoch, two.journal.epoch) == (1, 2)
    assert two.journal.end(N) == (2, 0)
    for epoch, seq in ((1, 2), (3, 1), (2, 0)):
        with pytest.raises(InvariantError):
            two.journal.append(
                Batch(layout=LAYOUT, values=(1, 2), received_ns=0, epoch=epoch, seq=seq), lane=N, stream="a"
            )


@pytest.mark.parametrize("damage", ["gone", "zeros", "one slot", "junk"])
def test_a_lost_epoch_file_never_brings_an_epoch_back(damage: str) -> None:
    bench = Bench(FaultyFileSystem())
    for _ in range(4):
        bench.put(3)
        bench.journal.close()
        bench = again(bench)
    assert bench.journal.epoch == 5
    bench.journal.close()
    disk, path = bench.disk, HERE / "epoch"
    assert isinstance(disk, FaultyFileSystem)
    content = bytes(disk.entries[path].content)
    if damage == "gone":
        del disk.entries[path]
    else:
        new = {"zeros": bytes(8192), "one slot": bytes(4096) + content[4096:], "junk": content[:7]}[damage]
        disk.entries[path] = Inode(new)
    after = again(bench)
    assert after.journal.epoch == 6
    assert again(after).journal.epoch == 7
    if damage != "one slot":
        assert "the log counts" in after.recovery.messages[0]


def test_the_epoch_file_alone_keeps_epochs_apart_when_the_log_is_gone() -> None:
    bench = again(again(Bench(FaultyFileSystem())))
    assert isinstance(bench.disk, FaultyFileSystem)
    bench.disk.entries = {HERE / "epoch": bench.disk.entries[HERE / "epoch"]}
    assert again(bench).journal.epoch == 4


def test_a_first_epoch_can_be_given_for_a_new_disk_only() -> None:
    one = Bench(FaultyFileSystem(), first_epoch=1000)
    assert one.journal.epoch == 1000
    assert again(one, first_epoch=5000).journal.epoch == 1001


def test_a_start_on_a_full_disk_still_gets_an_epoch_and_writes_once_there_is_room() -> None:
    one = Bench(FaultyFileSystem())
    one.cursor()
    one.put(3)
    one.journal.close()
    assert isinstance(one.disk, FaultyFileSystem)
    one.disk.room = 0
    two = again(one)
    cursor = two.cursor()
    assert two.journal.epoch == 2
    two.put(2)
    assert two.journal.is_blocked()
    assert two.journal.is_full
    assert numbers(two.backlog(cursor)) == up_to(1, 3)
    one.disk.room = None
    assert two.journal.commit()
    assert not two.journal.is_blocked()
    assert numbers(two.backlog(cursor)) == up_to(1, 3) + up_to(2, 2)


def test_removed_points_drain_under_the_definition_they_were_recorded_with() -> None:
    one = Bench(FaultyFileSystem(), config_version="v1")
    one.cursor()
    one.put(3)
    one.journal.close()
    changed = Layout(device="d", scan="fast", points=points(3), attributes={"site": "north"})
    two = again(one, config_version="v2", layouts=(changed,))
    cursor = two.cursor()
    two.put(3, layout=changed)
    records = two.backlog(cursor)
    assert numbers(records) == up_to(1, 3) + up_to(2, 3)
    old, new = records[0], records[-1]
    assert (old.config_version, new.config_version) == ("v1", "v2")
    assert new.batch.layout is changed
    assert old.batch.layout is not changed
    assert old.batch.layout is records[2].batch.layout
    assert (old.batch.layout.points, old.batch.layout.attributes) == (LAYOUT.points, {"site": "north"})


def test_streams_are_kept_apart_and_the_chain_closes_over_the_others() -> None:
    bench = Bench(FaultyFileSystem())
    mine, both = bench.cursor("mine", streams="a"), bench.cursor("both", streams="ab")
    for _ in range(30):
        bench.put(1, stream="a")
        bench.put(2, stream="b")
    assert numbers(bench.backlog(mine)) == [(1, seq) for seq in range(1, 91, 3)]
    assert numbers(bench.backlog(both)) == up_to(1, 90)
    reader = bench.journal.reader(mine, mine.low)
    for item in everything(reader):
        assert item.stream == "a"
        mine.acknowledge(item.after, item.position)
    mine.acknowledge(*reader.scanned())
    assert mine.low == (1, 90)
    assert len(everything(bench.journal.reader(N, (1, 45)))) == 45


def test_lanes_are_apart() -> None:
    bench = Bench(FaultyFileSystem(), lanes=tuple(Priority))
    normal, alarm = bench.cursor(), bench.cursor(lane=Priority.ALARM)
    bench.put(2)
    bench.put(3, lane=Priority.ALARM)
    bench.put(1)
    assert numbers(bench.backlog(normal)) == [(1, 1), (1, 2), (1, 6)]
    assert numbers(bench.backlog(alarm)) == [(1, 3), (1, 4), (1, 5)]


def test_segments_that_every_cursor_passed_are_deleted_and_no_others() -> None:
    bench = Bench(FaultyFileSystem())
    fast, slow = bench.cursor("fast"), bench.cursor("slow")
    bench.put(200)
    before = bench.journal.stats().lanes[0].segments
    fast.acknowledge((1, 0), (1, 200))
    bench.journal.maintain()
    assert bench.journal.stats().lanes[0].segments == before
    slow.acknowledge((1, 0), (1, 100))
    bench.journal.maintain()
    bench.journal.commit()
    assert numbers(bench.backlog(slow)) == up_to(1, 200, 101)
    assert before // 3 < bench.journal.stats().lanes[0].segments < before - before // 3
    slow.acknowledge((1, 100), (1, 200))
    bench.journal.maintain()
    bench.journal.commit()
    assert bench.journal.stats().lanes[0].segments == 1
    assert isinstance(bench.disk, FaultyFileSystem)
    assert len([path for path in bench.disk.entries if path.suffix == ".log"]) == 1
    bench.journal.close()
    two = again(bench)
    assert two.cursor("fast").low >= (1, 200)
    assert two.backlog(two.cursor("slow")) == []


def test_an_idle_cursor_holds_nothing_back() -> None:
    bench = Bench(FaultyFileSystem())
    busy, idle = bench.cursor("busy", streams="a"), bench.cursor("idle", streams="z")
    for seq in bench.put(300):
        busy.acknowledge((1, seq - 1), (1, seq))
    bench.journal.maintain()
    bench.journal.commit()
    assert bench.journal.stats().lanes[0].segments == 1
    assert idle.low == (1, 300)
    bench.put(1, stream="z")
    assert numbers(bench.backlog(idle)) == [(1, 301)]


def test_a_new_cursor_starts_at_the_end_and_survives_a_crash_at_once() -> None:
    one = Bench(FaultyFileSystem())
    one.put(5)
    one.cursor("late")
    one.put(5)
    assert isinstance(one.disk, FaultyFileSystem)
    two = Bench(one.disk.after_crash(1))  # no maintain, no close
    assert numbers(two.backlog(two.cursor("late"))) == up_to(1, 10, 6)


def test_a_cursor_nobody_asks_for_is_kept_until_it_is_forgotten() -> None:
    one = Bench(FaultyFileSystem())
    one.cursor("old", full=Full.BLOCK, max_bytes=2000)
    one.put(10)
    one.journal.close()
    two = again(one)
    assert two.journal.orphans() == ((N, "old"),)
    two.put(100)
    assert not two.journal.is_blocked()  # it no longer may stop anybody
    two.journal.maintain()
    stats = two.journal.stats().lanes[0].cursors[0]
    assert stats.dropped_records > 50
    assert stats.lag_bytes <= 2000 + 8 * SMALL.mark_bytes  # what a segment begins with
    two.journal.forget("old", lane=N)
    two.journal.close()
    assert again(two).journal.orphans() == ()


def test_drop_oldest_gives_up_the_oldest_counts_them_and_stays_within_its_bytes() -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor(max_bytes=5000)
    for _ in range(300):
        bench.put(1)
        assert bench.journal.stats().lanes[0].cursors[0].lag_bytes <= 5000 + 3 * SMALL.mark_bytes
    kept = numbers(bench.backlog(cursor))
    stats = bench.journal.stats().lanes[0].cursors[0]
    assert kept == up_to(1, 300, cursor.low[1] + 1)
    assert stats.dropped_records == 300 - len(kept)
    assert stats.dropped_upto == cursor.low
    assert 10 < len(kept) <= 60
    assert not bench.journal.is_blocked()
    bench.journal.close()
    two = again(bench)
    still = numbers(two.backlog(two.cursor(max_bytes=5000)))
    assert still == kept[-len(still) :]
    assert len(still) >= len(kept) - 5  # the new epoch's own records took some room
    two.put(300)  # the counts of the run before come from its segments
    dropped = two.journal.stats().lanes[0].cursors[0].dropped_records
    exact = 600 - len(two.backlog(two.cursor(max_bytes=5000)))
    assert exact <= dropped <= exact + 40  # by at most the segment that the low mark stood in at start


def test_what_was_acknowledged_is_not_counted_as_dropped() -> None:
    bench = Bench(FaultyFileSystem())
    cursor, other = bench.cursor(max_bytes=6000), bench.cursor("other", streams="b", max_bytes=1 << 20)
    acknowledged, after = 0, (1, 0)
    for turn in range(400):
        bench.put(1, stream="b")
        (seq,) = bench.put(1)
        if turn < 57 or 200 < turn < 203:  # in between marks, and once more behind a drop
            records = bench.backlog(cursor)[:1]
            acknowledged += len(records)
            cursor.acknowledge(max(after, records[0].after), records[0].position)
            after = records[0].position
    left = len(bench.backlog(cursor))
    assert cursor.dropped == 400 - acknowledged - left
    assert seq == 800
    assert other.dropped == 0


def test_block_pushes_back_until_a_tenth_below_and_drops_nothing() -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor(max_bytes=20_000, full=Full.BLOCK)
    count = 0
    while not bench.journal.is_blocked():
        count += len(bench.put(1))
    assert 200 < count < 400
    assert numbers(bench.backlog(cursor)) == up_to(1, count)
    cursor.acknowledge((1, 0), (1, 1))
    assert bench.journal.is_blocked()
    cursor.acknowledge((1, 1), (1, count // 2))
    assert not bench.journal.is_blocked()
    assert cursor.dropped == 0


def test_age_counts_running_time_and_no_step_of_the_wall_clock_deletes_anything() -> None:
    clock = ToldClock()
    bench = Bench(FaultyFileSystem(), clock=clock, settings=JournalSettings(mark_ms=1000))
    cursor = bench.cursor(keep_ns=100 * SECOND_NS)
    bench.put(10)
    for wall in (0, 4_000_000_000 * SECOND_NS):  # 1970, far future
        clock.now_wall_ns = wall
        bench.journal.maintain()
        assert len(bench.backlog(cursor)) == 10
    clock.now_ns += 60 * SECOND_NS
    bench.journal.maintain()
    bench.put(10)
    clock.now_ns += 60 * SECOND_NS
    bench.journal.maintain()
    assert len(bench.backlog(cursor)) == 20  # the first mark was taken after 60 s: never too early
    clock.now_ns += 41 * SECOND_NS
    bench.journal.maintain()
    assert numbers(bench.backlog(cursor)) == up_to(1, 20, 11)
    assert bench.journal.stats().lanes[0].cursors[0].dropped_records == 10


@pytest.mark.parametrize(("boot", "everything_kept"), [("boot-1", False), ("boot-2", True)])
def test_a_pause_within_a_boot_ages_but_one_over_a_boot_does_not(boot: str, everything_kept: bool) -> None:
    bench = Bench(FaultyFileSystem())
    bench.cursor(keep_ns=100 * SECOND_NS)
    bench.put(100)
    bench.journal.close()
    clock = ToldClock(bench.clock.now_ns + 200 * SECOND_NS)  # of another boot, that says nothing
    two = Bench(bench.disk, clock=clock, boot_id=boot)
    cursor = two.cursor(keep_ns=100 * SECOND_NS)
    backlog = numbers(two.backlog(cursor))
    assert backlog == up_to(1, 100)[-len(backlog) :]
    assert (len(backlog) == 100) is everything_kept
    assert len(backlog) > 0  # a last segment without footer is taken for young
    clock.now_ns += 101 * SECOND_NS
    two.journal.maintain()
    assert two.backlog(cursor) == []


def test_a_reader_does_not_deliver_what_was_dropped_meanwhile() -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor(max_bytes=6500)
    bench.put(60)
    reader = bench.journal.reader(cursor, cursor.low)
    first = numbers(reader.read(1000))
    assert first[0] == (1, 1)
    bench.put(50)
    bench.journal.maintain()
    bench.journal.commit()
    rest = numbers(everything(reader))
    assert rest == up_to(1, 110, cursor.low[1] + 1)
    assert len(first) < cursor.dropped


def test_an_old_segment_is_sealed_though_it_is_small() -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor()
    bench.put(1)
    cursor.acknowledge((1, 0), (1, 1))
    bench.clock.now_ns += 3601 * SECOND_NS
    bench.journal.maintain()
    bench.journal.commit()
    bench.journal.maintain()
    assert bench.journal.stats().lanes[0].segments_deleted == 1


def test_live_overtakes_and_the_rest_is_read_back_without_it() -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor()
    bench.put(40)
    for seq in range(11, 31):
        cursor.acknowledge((1, seq - 1), (1, seq))
    assert cursor.low == (1, 0)
    expected = up_to(1, 10) + up_to(1, 40, 31)
    assert numbers(bench.backlog(cursor)) == expected
    bench.journal.close()
    two = again(bench)
    cursor = two.cursor()
    records = two.backlog(cursor)
    assert numbers(records) == expected
    for item in records:
        cursor.acknowledge(item.after, item.position)
    assert cursor.low == (1, 40)


def test_ranges_that_overflow_become_duplicates_never_loss() -> None:
    bench = Bench(FaultyFileSystem(), settings=JournalSettings(cursor_ranges_max=4))
    cursor = bench.cursor()
    bench.put(40)
    for seq in range(2, 41, 2):
        cursor.acknowledge((1, seq - 1), (1, seq))
    missing = [position for position in up_to(1, 40) if position not in numbers(bench.backlog(cursor))]
    assert missing == [(1, 2), (1, 4), (1, 6), (1, 8)]
    assert cursor.forgotten == 16


def test_damage_in_the_middle_is_counted_and_the_rest_delivered() -> None:
    one = Bench(FaultyFileSystem())
    one.cursor()
    one.put(60)
    one.journal.close()
    assert isinstance(one.disk, FaultyFileSystem)
    victim = sorted(path for path in one.disk.entries if path.suffix == ".log")[1]
    content = one.disk.entries[victim].content
    content[len(content) // 2] ^= 0x10
    two = again(one)
    cursor = two.cursor()
    got = numbers(two.backlog(cursor))
    lost = [position for position in up_to(1, 60) if position not in got]
    assert len(lost) == 1
    stats = two.journal.stats()
    assert stats.quarantined_ranges == 1
    damage = stats.quarantined[0]
    assert damage.before is not None
    assert damage.after < lost[0] < damage.before
    assert str(victim.name) in str(damage)
    numbers(two.backlog(cursor))
    assert two.journal.stats().quarantined_ranges == 1  # counted once


def test_records_whose_definition_is_damaged_are_quarantined_never_guessed() -> None:
    one = Bench(FaultyFileSystem(), settings=JournalSettings())
    one.cursor()
    one.put(5)
    one.journal.close()
    assert isinstance(one.disk, FaultyFileSystem)
    path = next(path for path in one.disk.entries if path.suffix == ".log")
    content = one.disk.entries[path].content
    content[content.find(b"rpm")] ^= 1
    two = again(one, settings=JournalSettings())
    two.put(2)
    assert numbers(two.backlog(two.cursor())) == [(2, 1), (2, 2)]
    reasons = [str(damage) for damage in two.journal.stats().quarantined]
    assert len(reasons) == 6
    assert sum("definition of its layout" in reason for reason in reasons) == 5


def saves(disk: FaultyFileSystem) -> list[tuple[Inode, record.Entry]]:
    """Every save of cursors in the only segment there is."""
    path = next(path for path in disk.entries if path.suffix == ".log")
    _, salt = parse_name(path.name) or (0, 0)
    inode = disk.entries[path]
    found = record.entries(bytes(inode.content), HEADER_BYTES, salt, 0)
    return [(inode, entry) for entry in found if entry.type == RecordType.CURSORS]


def test_a_new_cursor_whose_first_save_is_damaged_does_not_lose_its_start() -> None:
    one = Bench(FaultyFileSystem(), settings=JournalSettings())
    one.cursor("first")
    one.put(5)
    one.cursor("late")
    one.put(5)
    assert isinstance(one.disk, FaultyFileSystem)
    inode, entry = saves(one.disk)[-1]
    inode.content[entry.end - 1] ^= 1
    two = again(one, settings=JournalSettings())
    assert set(up_to(1, 10, 6)) <= set(numbers(two.backlog(two.cursor("late"))))


def test_lost_cursors_mean_everything_again() -> None:
    one = Bench(FaultyFileSystem(), settings=JournalSettings())
    cursor = one.cursor()
    one.put(5)
    cursor.acknowledge((1, 0), (1, 3))
    one.journal.close()
    assert isinstance(one.disk, FaultyFileSystem)
    for inode, entry in saves(one.disk):
        inode.content[entry.end - 1] ^= 1
    two = again(one, settings=JournalSettings())
    assert two.recovery.lanes[0].is_cursors_lost
    assert "delivered again" in two.recovery.messages[-1]
    assert numbers(two.backlog(two.cursor())) == up_to(1, 5)


def test_a_failed_disk_refuses_and_says_why() -> None:
    bench = Bench(FaultyFileSystem())
    bench.put(1)
    assert isinstance(bench.disk, FaultyFileSystem)
    bench.disk.sync_error = errno.EIO
    bench.put(1)
    with pytest.raises(StorageError, match="nothing more is written"):
        bench.append()
    assert bench.journal.failure is not None
    assert bench.journal.is_blocked()
    bench.journal.maintain()
    with pytest.raises(StorageError):
        bench.journal.close()


def test_a_failure_is_told_once_to_the_owner() -> None:
    disk, told = FaultyFileSystem(), []
    journal = Journal(
        HERE,
        filesystem=disk,
        lanes=(N,),
        config_version="v1",
        notify=lambda call: call(),
        clock=ToldClock(),
        on_failure=told.append,
        boot_id="boot-1",
        writing=Writing.CALLER,
    )
    journal.open()
    disk.write_error = errno.EROFS
    assert not journal.commit()
    assert not journal.commit()
    assert [type(failure) for failure in told] == [StorageError]


def test_a_start_that_fails_lets_go_of_the_lock(tmp_path: Path) -> None:
    (tmp_path / "normal").write_text("not a directory")
    with pytest.raises(StorageError, match="cannot open"):
        Run(tmp_path, JournalSettings())
    (tmp_path / "normal").unlink()
    run = Run(tmp_path, JournalSettings())
    with pytest.raises(StorageError, match="another process"):
        Run(tmp_path, JournalSettings())
    run.journal.close()


def test_a_buffer_smaller_than_a_few_marks_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected at least 400"):
        Bench(FaultyFileSystem()).cursor(max_bytes=100)


def test_a_large_backlog_opens_by_its_footers_and_its_last_segment() -> None:
    one = Bench(FaultyFileSystem())
    one.cursor()
    one.put(3000)
    one.journal.close()
    disk = one.disk
    assert isinstance(disk, FaultyFileSystem)
    files = len([path for path in disk.entries if path.suffix == ".log"])
    disk.reads = 0
    two = again(one)
    assert files >= 150
    assert disk.reads <= files + 10  # one for each footer
    assert two.recovery.lanes[0].end == (1, 3000)
    assert len(two.backlog(two.cursor())) == 3000


class Run:
    """A real journal with its thread, and a reader beside it."""

    def __init__(self, directory: Path, settings: JournalSettings) -> None:
        self.journal = Journal(
            directory,
            filesystem=RealFileSystem(),
            lanes=(N,),
            settings=settings,
            config_version="v1",
            notify=lambda call: call(),
            clock=ToldClock(),
            boot_id="boot-1",
        )
        self.journal.open()

    def cursor(self) -> Cursor:
        return self.journal.cursor(
            "c", lane=N, streams=frozenset("a"), keep_ns=DAY_NS, max_bytes=1 << 30, full=Full.BLOCK
        )


def test_a_reader_beside_the_writer_sees_every_committed_record_once_in_order(tmp_path: Path) -> None:
    run = Run(tmp_path, JournalSettings(segment_bytes=20_000, commit_interval_ms=1))
    cursor, count = run.cursor(), 5000
    got: list[tuple[int, int]] = []

    def follow() -> None:
        reader = run.journal.reader(cursor, cursor.low)
        deadline = time.monotonic() + 30
        while len(got) < count and time.monotonic() < deadline:
            got.extend(numbers(reader.read(3000)))
        reader.close()

    thread = threading.Thread(target=follow)
    thread.start()
    for seq in range(1, count + 1):
        batch = Batch(layout=LAYOUT, values=(seq, 1), received_ns=seq, epoch=1, seq=seq)
        run.journal.append(batch, lane=N, stream="a")
    thread.join()
    assert got == up_to(1, count)
    cursor.acknowledge((1, 0), (1, count))
    run.journal.maintain()
    run.journal.close()
    assert run.journal.stats().lanes[0].segments == 1


def test_a_closed_reader_goes_on_where_it_was() -> None:
    bench = Bench(FaultyFileSystem())
    cursor = bench.cursor()
    bench.put(40)
    reader, got = bench.journal.reader(cursor, cursor.low), []
    while not reader.is_at_end:
        got += numbers(reader.read(OVERHEAD_BYTES * 4))
        reader.close()
    assert got == up_to(1, 40)


def test_small_settings_are_what_these_tests_think_they_are() -> None:
    assert SMALL.mark_bytes == 100
