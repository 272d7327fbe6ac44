"""`full: thin`: the whole outage stays covered, evenly, and what is missing is counted where it is."""

from __future__ import annotations

import errno
import itertools
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from gateway.core.batch import Batch, Kind
from gateway.core.point import Priority
from gateway.core.quality import BAD, COMM_LOST, GOOD
from gateway.disk.block import Compression
from gateway.journal.cursor import Cursor, Full
from gateway.journal.reader import Record
from tests.disk.faulty import FaultyFile, FaultyFileSystem, Inode
from tests.journal.support import LAYOUT, SECOND_NS, SMALL, Bench, N, everything, numbers

PLAIN = msgspec.structs.replace(SMALL, segment_bytes=4000, cursor_save_ms=10_000)
PACKED = msgspec.structs.replace(PLAIN, compression=Compression.ZSTD)
BOUND = 30_000
BOTH = pytest.mark.parametrize("settings", [PLAIN, PACKED])


def open_thin(disk: FaultyFileSystem, settings: object = PLAIN) -> tuple[Bench, Cursor]:
    bench = Bench(disk, settings=settings)  # type: ignore[arg-type]  # a parameter of pytest
    return bench, bench.cursor(full=Full.THIN, max_bytes=BOUND)


def missing(record: Record, column: int) -> int:
    told = record.batch.missing
    columns = record.batch.columns
    if columns is not None:
        if column not in columns:
            return 0
        return told[columns.index(column)] if isinstance(told, tuple) else told
    return told[column] if isinstance(told, tuple) else told


def run(bench: Bench, count: int, *, stream: str = "a") -> None:
    for _ in range(count):
        bench.put(1, stream=stream)


def live(bench: Bench, count: int) -> None:
    """As `run`, with a second between."""
    for _ in range(count):
        bench.put(1)
        bench.clock.now_ns += SECOND_NS
        bench.journal.maintain()
        bench.journal.commit()


@BOTH
def test_the_outage_is_covered_evenly_and_each_gap_says_how_many(settings: object) -> None:
    bench, cursor = open_thin(FaultyFileSystem(), settings)
    run(bench, 6000)
    records = bench.backlog(cursor)
    positions = [seq for _, seq in numbers(records)]
    assert positions[0] == 1
    assert positions[-1] == 6000
    before = 0
    for record in records:
        seq = record.position[1]
        assert missing(record, 0) == missing(record, 1) == seq - before - 1, seq
        before = seq
    stats = bench.journal.stats().lanes[0]
    assert stats.size_bytes <= BOUND + settings.segment_bytes  # type: ignore[attr-defined]  # a parameter of pytest
    assert (cursor.dropped, cursor.thinned) == (0, 2 * (6000 - len(records)))
    old = positions[1 : len(positions) // 2]
    steps = [b - a for a, b in itertools.pairwise(old)]
    assert max(steps) <= 4 * sum(steps) / len(steps)
    again, cursor = open_thin(bench.disk, settings)  # type: ignore[arg-type]  # it is one
    assert [seq for _, seq in numbers(again.backlog(cursor))] == positions
    assert cursor.thinned == 2 * (6000 - len(records))


def test_changes_of_quality_events_and_the_last_value_of_a_rare_tag_stay() -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    changes, events = set(), set()
    quality, last_rare = GOOD, 0
    for turn in range(1, 4001):
        bench.seq += 1
        kind, columns, values = Kind.SCAN, None, (bench.seq, 1)
        if turn % 701 == 0:
            quality = BAD | COMM_LOST if quality == GOOD else GOOD
            changes.add(bench.seq)
        if turn % 907 == 0:
            kind = Kind.EVENT
            events.add(bench.seq)
        if turn == 1000:  # a tag by itself, seldom
            columns, values, last_rare = (1,), (1,), bench.seq
        batch = Batch(
            layout=LAYOUT, values=values, received_ns=0, quality=quality, columns=columns, kind=kind
        )
        batch.epoch, batch.seq = 1, bench.seq
        bench.journal.append(batch, lane=N, stream="a")
        bench.journal.commit()
    found = {record.position[1]: record.batch for record in bench.backlog(cursor)}
    assert changes <= found.keys()
    assert events <= found.keys()
    assert all(found[seq].kind is Kind.EVENT for seq in events)
    assert len(found) < 1500
    assert cursor.dropped == 0
    assert last_rare not in found or found[last_rare].columns == (1,)
    for column in (0, 1):  # all that ever was of the tag is there or counted
        seen = 0
        for seq in sorted(found):
            batch = found[seq]
            if batch.columns is None or column in batch.columns:
                row = column if batch.columns is None else batch.columns.index(column)
                seen += 1 + (batch.missing[row] if isinstance(batch.missing, tuple) else batch.missing)
        assert seen == (3999 if column == 0 else 4000)


def test_what_another_cursor_needs_is_not_touched_and_what_nobody_needs_goes() -> None:
    bench, thin = open_thin(FaultyFileSystem())
    full = bench.cursor("full", streams="b", max_bytes=1 << 30)
    for turn in range(600):
        bench.put(1, stream="a")
        bench.put(1, stream="z")  # of no cursor
        if turn < 60:
            bench.put(1, stream="b")
    kept = [record.position for record in everything(bench.journal.reader(N, (0, 0))) if record.stream == "z"]
    assert len(bench.backlog(full)) == 60
    assert thin.dropped == 0
    assert len(kept) < 400


def test_events_alone_cannot_be_thinned_and_the_oldest_are_dropped() -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    for _ in range(2000):
        bench.seq += 1
        batch = Batch(layout=LAYOUT, values=(bench.seq, 1), received_ns=0, kind=Kind.EVENT)
        batch.epoch, batch.seq = 1, bench.seq
        bench.journal.append(batch, lane=N, stream="a")
        bench.journal.commit()
    assert cursor.dropped > 0
    assert cursor.thinned == 0
    assert bench.journal.stats().lanes[0].cursors[0].lag_bytes <= BOUND + 8 * PLAIN.mark_bytes
    assert bench.journal.stats().lanes[0].size_bytes <= BOUND + 2 * PLAIN.segment_bytes


@BOTH
def test_a_reader_in_the_middle_of_what_is_rewritten_misses_nothing(settings: object) -> None:
    bench, cursor = open_thin(FaultyFileSystem(), settings)
    run(bench, 300)
    reader = bench.journal.reader(cursor, cursor.low)
    got = numbers(reader.read(3000))
    while bench.journal.stats().lanes[0].cursors[0].thinned_values == 0:
        run(bench, 20)
        if bench.seq % 3 == 0:
            reader.close()  # it gives its file back and looks for it again
        got += numbers(reader.read(700))
    run(bench, 500)
    got += numbers(everything(reader))
    assert got == sorted(set(got))
    there = numbers(bench.backlog(cursor))
    assert set(there) <= set(got) | {one for one in there if one <= got[0]}
    assert bench.journal.stats().quarantined_ranges == 0


def test_a_disk_without_room_for_it_drops_instead_and_goes_on_once_there_is_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    disk = bench.disk
    assert isinstance(disk, FaultyFileSystem)
    create = disk.create

    def refuse(path: Path) -> FaultyFile:
        if path.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        return create(path)

    disk.create = refuse  # type: ignore[method-assign]  # a stand-in
    live(bench, 1000)
    assert cursor.dropped > 0
    assert cursor.thinned == 0
    assert bench.journal.failure is None
    assert not [path for path in disk.entries if path.suffix == ".tmp"]
    assert bench.journal.stats().lanes[0].cursors[0].lag_bytes <= BOUND + 8 * PLAIN.mark_bytes
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    disk.create = create  # type: ignore[method-assign]  # as it was
    live(bench, 5)
    assert cursor.thinned > 0


def test_thinning_does_not_begin_where_it_could_not_end() -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    disk = bench.disk
    assert isinstance(disk, FaultyFileSystem)
    disk.free_bytes = lambda directory: 4000  # type: ignore[method-assign]  # a stand-in
    live(bench, 1000)
    assert cursor.dropped > 0
    assert "rename" not in disk.operations


def test_a_disk_that_does_not_read_the_same_twice_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    disk = bench.disk
    assert isinstance(disk, FaultyFileSystem)
    open_read, seen = disk.open_read, Counter[Path]()

    def other(path: Path) -> FaultyFile:
        file = open_read(path)
        seen[path] += 1
        if seen[path] == 2:  # the second pass over it
            file.inode = Inode(bytes(file.inode.content[:300]) + b"?" * (len(file.inode.content) - 300))
        return file

    disk.open_read = other  # type: ignore[method-assign]  # a stand-in
    live(bench, 600)
    assert cursor.thinned == 0
    assert "rename" not in disk.operations
    assert not [path for path in disk.entries if path.suffix == ".tmp"]
    assert "reads differently each time" in str([vars(one) for one in caplog.records])


def test_a_stop_does_not_wait_for_thinning() -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    disk = bench.disk
    assert isinstance(disk, FaultyFileSystem)
    while not bench.journal._lanes[N].thinning.sources:
        bench.journal.commit()
        bench.append()
    bench.journal.close()
    assert "rename" not in disk.operations
    assert not [path for path in disk.entries if path.suffix == ".tmp"]
    again, cursor = open_thin(disk)
    assert [seq for _, seq in numbers(again.backlog(cursor))] == list(range(1, bench.seq + 1))


def test_history_keeps_what_was_passed_though_a_backlog_is_thinned() -> None:
    bench, cursor = open_thin(FaultyFileSystem())
    bench.journal._lanes[Priority.NORMAL].keeps_history = True
    run(bench, 200)
    cursor.acknowledge((1, 0), (1, 150))
    run(bench, 2000)
    there = [seq for _, seq in numbers(everything(bench.journal.reader(N, (0, 0))))]
    assert there[0] == 1
    assert sum(seq <= 150 for seq in there) > 30
    assert there[-1] == 2200
