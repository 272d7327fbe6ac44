"""History is kept as long and as much as asked, by running time, and always gives way to what is not sent."""

from __future__ import annotations

import pytest

from gateway.journal.cursor import Full
from gateway.journal.historian import Now, Question
from gateway.journal.journal import Journal
from gateway.journal.retention import RetentionStats
from gateway.journal.samples import Sample
from gateway.journal.settings import JournalSettings
from tests.disk.faulty import FaultyFileSystem
from tests.journal.historian_model import drive
from tests.journal.support import DAY_NS, SECOND_NS, Bench, N, everything, numbers

SETTINGS = JournalSettings(segment_bytes=1600, cursor_save_ms=1000, mark_ms=1000)


class Keeping(Bench):
    """A bench whose journal keeps history."""

    def __init__(self, disk: FaultyFileSystem, *, keep_ns: int, max_bytes: int, **more: object) -> None:
        real = Journal.__init__

        def init(journal: Journal, *args: object, **words: object) -> None:
            real(journal, *args, history_keep_ns=keep_ns, history_max_bytes=max_bytes, **words)  # type: ignore[arg-type]  # passed on

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Journal, "__init__", init)
            super().__init__(disk, settings=SETTINGS, **more)  # type: ignore[arg-type]  # passed on

    def live(self, seconds: int) -> None:
        """Put one record a second, deliver it, care for the journal."""
        for _ in range(seconds):
            self.clock.now_ns += SECOND_NS
            self.clock.now_wall_ns += SECOND_NS
            self.put()
            for cursor in self.journal._lanes[N].cursors.values():
                cursor.pass_by(self.journal.end(N))
            self.care()

    def care(self) -> None:
        self.journal.maintain()
        self.journal.commit()

    @property
    def history(self) -> RetentionStats:
        found = self.journal.stats().history
        assert found is not None
        return found

    def oldest(self) -> int:
        return numbers(everything(self.journal.reader(N, (0, 0))))[0][1]


def on_disk(disk: FaultyFileSystem) -> int:
    return sum(len(inode.content) for path, inode in disk.entries.items() if path.suffix == ".log")


def test_what_was_delivered_stays_until_it_is_too_old() -> None:
    bench = Keeping(FaultyFileSystem(), keep_ns=100 * SECOND_NS, max_bytes=1 << 30)
    bench.cursor()
    bench.live(90)
    assert bench.oldest() == 1
    bench.live(300)
    oldest = bench.oldest()
    assert 390 - 100 - 20 <= oldest <= 390 - 100  # segments of some seconds go as a whole, never too early
    assert bench.history.deleted_segments > 5
    assert bench.history.gave_way_segments == 0


def test_a_segment_that_does_not_say_its_age_keeps_no_others() -> None:
    bench = Keeping(FaultyFileSystem(), keep_ns=100 * SECOND_NS, max_bytes=1 << 30)
    bench.live(90)
    bench.journal._lanes[N].log.segments()[1].note = b""
    bench.live(300)
    assert bench.oldest() >= 390 - 100 - 20


def test_steps_of_the_clock_and_time_switched_off_delete_nothing() -> None:
    disk = FaultyFileSystem()
    bench = Keeping(disk, keep_ns=1000 * SECOND_NS, max_bytes=1 << 30)
    bench.live(50)
    for step_ns in (400 * DAY_NS, -800 * DAY_NS, -bench.clock.now_wall_ns):
        bench.clock.now_wall_ns += step_ns
        bench.live(5)
    assert bench.oldest() == 1
    bench.journal.close()
    bench.clock.now_wall_ns += 4000 * DAY_NS  # years in a drawer
    bench.clock.now_ns = SECOND_NS
    again = Keeping(disk, keep_ns=1000 * SECOND_NS, max_bytes=1 << 30, clock=bench.clock, boot_id="boot-2")
    again.live(50)
    assert again.oldest() == 1
    again.live(1000)
    assert again.oldest() > 1


def test_the_journal_takes_no_more_than_was_given_to_it() -> None:
    disk = FaultyFileSystem()
    bench = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=20_000)
    bench.cursor()
    for _ in range(10):
        bench.live(60)
        assert on_disk(disk) <= 20_000 + 2 * 1600
    assert on_disk(disk) >= 15_000
    assert bench.history.deleted_segments > 0
    assert bench.history.kept_bytes <= 20_000
    assert bench.history.oldest_ns is not None


def test_a_backlog_that_needs_the_room_takes_it_and_loses_nothing() -> None:
    disk = FaultyFileSystem()
    bench = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=20_000)
    cursor = bench.cursor()
    bench.live(100)
    low = cursor.low
    for _ in range(400):  # the uplink is away
        bench.put()
        bench.care()
    assert on_disk(disk) > 30_000
    assert cursor.low == low
    assert cursor.dropped == 0
    assert numbers(bench.backlog(cursor)) == [(1, seq) for seq in range(101, 501)]
    assert bench.history.kept_bytes == 0


def test_a_full_disk_takes_history_first_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    disk = FaultyFileSystem()
    bench = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=1 << 30)
    cursor = bench.cursor()
    disk.room = 60_000
    bench.live(300)
    low = cursor.low
    for _ in range(400):  # away; there is no room for this beside the history
        bench.put()
        assert not bench.journal.is_full  # it gave way before it came to that
        bench.care()
    assert bench.history.gave_way_segments > 0
    assert bench.history.gave_way_bytes > 0
    assert cursor.low == low
    assert len(bench.backlog(cursor)) == 400
    assert "history is deleted before its time" in caplog.text


@pytest.mark.parametrize("is_told", [True, False])
def test_a_disk_that_is_full_at_once_gets_room_from_history(
    is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyFileSystem()
    if not is_told:  # a quota, say: there is room, and not for us
        monkeypatch.setattr(disk, "free_bytes", lambda _directory: 1 << 40)
    bench = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=1 << 30)
    bench.live(300)
    disk.room = 0  # somebody else wrote
    bench.put()
    assert bench.journal.is_full
    bench.care()
    bench.journal.commit()
    assert not bench.journal.is_full
    assert bench.history.gave_way_segments > 0


def test_thinning_a_backlog_leaves_history_that_was_delivered_and_tells_what_it_took() -> None:
    disk = FaultyFileSystem()
    bench = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=1 << 30)
    cursor = bench.cursor(full=Full.THIN, max_bytes=20_000)
    bench.live(200)
    assert cursor.low == (1, 200)
    for _ in range(600):  # the uplink is away
        bench.clock.now_ns += SECOND_NS
        bench.clock.now_wall_ns += SECOND_NS
        bench.put()
        bench.care()
    left = everything(bench.journal.reader(N, (0, 0)))
    assert numbers([one for one in left if one.position <= (1, 200)]) == [(1, seq) for seq in range(1, 201)]
    assert len(left) < 700
    pages = bench.journal.historian().ask(
        Question(wanted=lambda _, tag: tag == "t0", from_ns=0, to_ns=1 << 62, limit=10_000),
        Now(bench.clock.wall_ns(), bench.journal.epoch),
    )
    rows = [row for row in drive(pages).rows if isinstance(row, Sample)]
    assert [row.value for row in rows] == [one.batch.values[0] for one in left]
    assert sum(1 + row.missing for row in rows) == 800  # each value is there, or counted


def test_without_retention_segments_go_as_soon_as_they_were_delivered() -> None:
    disk = FaultyFileSystem()
    bench = Bench(disk, settings=SETTINGS)
    cursor = bench.cursor()
    bench.put(200)
    cursor.pass_by(bench.journal.end(N))
    bench.journal.maintain()
    bench.journal.commit()
    assert on_disk(disk) < 2 * 1600
    assert bench.journal.stats().history is None


def test_a_start_with_a_long_history_reads_no_sealed_segment() -> None:
    disk = FaultyFileSystem()
    bench = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=1 << 30)
    bench.cursor()
    bench.live(1500)
    bench.journal.close()
    files = sum(path.suffix == ".log" for path in disk.entries)
    assert files > 100
    disk.reads = disk.bytes_read = 0
    again = Keeping(disk, keep_ns=365 * DAY_NS, max_bytes=1 << 30, clock=bench.clock)
    again.cursor()
    assert disk.reads <= files + 10  # one for each footer
    disk.reads = 0
    again.live(1)
    assert disk.reads == 0  # and none before the first live value
    assert again.oldest() == 1


def test_months_of_history_keep_no_memory_for_each_minute() -> None:
    bench = Keeping(FaultyFileSystem(), keep_ns=365 * DAY_NS, max_bytes=1 << 30)
    bench.cursor()
    bench.live(500)
    assert len(bench.journal._lanes[N]._marks) < 5
    assert len(bench.journal._lanes[N].places._books) <= 2
