"""The log keeps what it said it has, says what it lost, and stops where it cannot know."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import InvariantError, LocalProtocolError, StorageError, StorageFull
from gateway.disk.filesystem import FileSystem, RealFileSystem
from gateway.disk.log import Log
from gateway.disk.record import BODY_BYTES_MAX, OVERHEAD_BYTES, VOID, Damage, Entry, encode
from gateway.disk.recovery import Recovered
from gateway.disk.segment import FORMAT, HEADER_BYTES, Scanner
from gateway.disk.writer import Group, LogSettings, State
from tests.disk.faulty import FaultyFileSystem, Inode

HERE = Path("/log")
SMALL = LogSettings(segment_bytes=400, commit_interval_ms=0, full_retry_ms=1)


def make(
    filesystem: FileSystem, *, directory: Path = HERE, settings: LogSettings = SMALL, notify: object = None
) -> Log:
    salts = iter(range(1000, 100000, 7))
    return Log(
        directory,
        lane=0,
        filesystem=filesystem,
        settings=settings,
        notify=notify or (lambda call: call()),  # type: ignore[arg-type]  # a stand-in of the test
        wall_ns=lambda: 1_700_000_000_000_000_000,
        salt=lambda: next(salts),
    )


def opened(filesystem: FileSystem, **more: object) -> tuple[Log, list[Entry], Recovered]:
    log, seen = make(filesystem, **more), []  # type: ignore[arg-type, var-annotated]  # a stand-in of the test
    recovered = log.open(lambda _, entry: seen.append(entry))
    return log, seen, recovered


def add(log: Log, seq: int, body: bytes | None = None) -> Group:
    if log.is_roll_due():
        log.roll(b"note")
    return log.append(1, (1, seq), 9, seq, body if body is not None else b"body %d" % seq)


def filled(count: int, *, settings: LogSettings = SMALL) -> FaultyFileSystem:
    disk = FaultyFileSystem()
    log, _, _ = opened(disk, settings=settings)
    for seq in range(1, count + 1):
        add(log, seq)
        log.writer.step()
    log.close()
    return disk


def read_all(filesystem: FileSystem, log: Log) -> tuple[list[Entry], list[Damage]]:
    entries, damage = [], []
    for segment in log.segments():
        if not segment.committed:
            continue
        file = filesystem.open_read(segment.path)
        scanner = Scanner(file, name=segment.name, salt=segment.salt, after=segment.after)
        while scanner.offset < segment.committed:
            entries += [entry for entry in scanner.read(segment.committed, 64) if entry.type < VOID]
        damage += scanner.damage
        file.close()
    return entries, damage


def seqs(entries: list[Entry]) -> list[int]:
    for entry in entries:
        assert entry.body == b"body %d" % entry.position[1]  # never a record that was not written
    return [entry.position[1] for entry in entries]


def test_records_come_back_in_order_over_many_segments() -> None:
    disk = filled(40)
    log, seen, recovered = opened(disk)
    assert len(recovered.segments) > 4
    assert not recovered.cuts
    assert not recovered.damage
    assert seqs(read_all(disk, log)[0]) == list(range(1, 41))
    assert log.end == (1, 40)
    assert seqs(seen) == list(range(41 - len(seen), 41))
    assert [segment.note for segment in recovered.segments[:-1]] == [b"note"] * (len(recovered.segments) - 1)


def test_a_sealed_segment_is_opened_by_one_read_at_its_end() -> None:
    disk = filled(2000)
    disk.reads = disk.bytes_read = 0
    _log, seen, recovered = opened(disk)
    assert len(recovered.segments) > 200
    assert len(seen) < 12
    assert disk.reads <= len(recovered.segments) + 3
    assert sum(segment.records for segment in recovered.segments) == 2000
    assert recovered.segments[0].first_time_ns == 1


def test_what_follows_a_reopening_goes_on_in_the_same_segment() -> None:
    disk = filled(3)
    log, _, _ = opened(disk)
    add(log, 4)
    log.close()
    log, _, recovered = opened(disk)
    assert len(recovered.segments) == 1
    assert seqs(read_all(disk, log)[0]) == [1, 2, 3, 4]


def test_a_log_cut_at_any_byte_keeps_every_whole_record_before_the_cut() -> None:
    disk = filled(12)
    tail = max(disk.entries)
    whole = bytes(disk.entries[tail].content)
    before = list(read_all(disk, opened(disk)[0])[0])
    in_tail = list(opened(disk)[1])
    others = len(before) - len(in_tail)
    assert others
    assert len(in_tail) > 3
    for size in range(len(whole) + 1):
        disk.entries[tail] = Inode(whole[:size])
        log, _, recovered = opened(disk)
        kept = others + sum(entry.end <= size for entry in in_tail)
        entries, damage = read_all(disk, log)
        assert seqs(entries) == list(range(1, kept + 1)), size
        assert not damage
        ends = {HEADER_BYTES, *(entry.end for entry in in_tail)}
        assert bool(recovered.cuts) == (size not in ends), size
        if log.segments():
            assert add(log, 100) is not None  # and it can go on
            log.writer.step()
            assert log.writer.committed == (1, 100)
            assert [entry.position[1] for entry in read_all(disk, log)[0]] == [*range(1, kept + 1), 100]
        log.close()
        disk.entries = {path: inode for path, inode in disk.entries.items() if path <= tail}


def flips(whole: bytes) -> list[bytes]:
    return [
        whole[: bit // 8] + bytes([whole[bit // 8] ^ (1 << bit % 8)]) + whole[bit // 8 + 1 :]
        for bit in range(len(whole) * 8)
    ]


def test_any_flipped_bit_in_the_tail_costs_only_the_record_it_is_in() -> None:
    disk = filled(4, settings=LogSettings())
    path = max(disk.entries)
    whole = bytes(disk.entries[path].content)
    _, originals, _ = opened(disk)
    for bit, content in enumerate(flips(whole)):
        disk.entries[path].content = bytearray(content)
        log, _, recovered = opened(disk)
        entries, _ = read_all(disk, log)
        hit = [entry.position[1] for entry in originals if entry.offset <= bit // 8 < entry.end]
        expected = [seq for seq in (1, 2, 3, 4) if seq not in hit]
        assert seqs(entries) == expected, bit
        told = [*recovered.cuts, *recovered.damage, *recovered.holes]
        assert len(told) == bool(hit or bit // 8 < HEADER_BYTES - 20), bit  # the rest of the header is zeros
        log.close()


def test_any_flipped_bit_in_a_sealed_segment_costs_only_the_record_it_is_in() -> None:
    disk = filled(12)
    path = min(disk.entries)
    whole = bytes(disk.entries[path].content)
    originals = list(read_all(disk, opened(disk)[0])[0])
    count = opened(disk)[2].segments[0].records
    for bit, content in enumerate(flips(whole)):
        disk.entries[path].content = bytearray(content)
        log, _, _ = opened(disk)
        entries, damage = read_all(disk, log)
        hit = [e.position[1] for e in originals[:count] if e.offset <= bit // 8 < e.end]
        assert seqs(entries) == [seq for seq in range(1, 13) if seq not in hit], bit
        if hit:
            assert len(damage) == 1
            assert damage[0].after == ((1, hit[0] - 1) if hit[0] > 1 else (0, 0))
            assert damage[0].before is not None
        log.close()


@settings(deadline=None)
@given(at=st.integers(0, 900), junk=st.binary(max_size=200), length=st.integers(0, 300))
def test_junk_anywhere_never_makes_a_record_nor_an_unexpected_error(
    at: int, junk: bytes, length: int
) -> None:
    disk = filled(12, settings=LogSettings())
    inode = disk.entries[max(disk.entries)]
    inode.content[at : at + length] = junk
    log, _seen, _ = opened(disk)
    found = seqs(read_all(disk, log)[0])
    assert found == sorted(set(found))
    assert all(seq in found for seq in range(1, 13) if HEADER_BYTES + seq * (OVERHEAD_BYTES + 7) <= at)
    log.close()


def test_a_record_of_another_segment_is_not_taken_for_one_of_this() -> None:
    disk = filled(1)
    path = max(disk.entries)
    disk.entries[path].content += encode(1, (1, 2), 9, 2, b"body 2", salt=5)
    _, seen, recovered = opened(disk)
    assert seqs(seen) == [1]
    assert recovered.cuts[0].after == (1, 1)


def test_a_record_inside_a_damaged_one_is_not_taken_for_one_of_its_own() -> None:
    disk = FaultyFileSystem()
    log, _, _ = opened(disk)
    add(log, 1)
    add(log, 2)
    salt = log.segments()[0].salt
    add(log, 3, encode(1, (1, 1), 9, 1, b"body 1", salt))  # somebody journals our own bytes
    add(log, 4)
    log.close()
    content = disk.entries[max(disk.entries)].content
    content[content.find(b"body 2") + 6 + 4] ^= 1  # in the header of record 3
    log, _, recovered = opened(disk)
    assert seqs(read_all(disk, log)[0]) == [1, 2, 4]
    assert (recovered.holes[0].after, recovered.holes[0].before) == ((1, 2), (1, 4))


@pytest.mark.parametrize("length", [1, OVERHEAD_BYTES - 1, OVERHEAD_BYTES, OVERHEAD_BYTES + 1])
def test_a_hole_of_any_length_in_the_last_write_costs_nothing_behind_it(length: int) -> None:
    disk = FaultyFileSystem()
    log, _, _ = opened(disk)
    add(log, 1)
    end_of_first = log.segments()[0].size
    add(log, 2)
    log.close()
    (inode,) = disk.entries.values()
    inode.content[end_of_first:end_of_first] = b"?" * length
    for _ in range(2):
        log, seen, found = opened(disk)
        assert seqs(seen) == [1, 2]
        assert len(found.holes) + len(found.damage) <= 1
    assert seqs(read_all(disk, log)[0]) == [1, 2]


def test_a_full_disk_keeps_what_waits_and_goes_on_when_there_is_room() -> None:
    disk = FaultyFileSystem()
    log, _, _ = opened(disk)
    receipts = [add(log, seq) for seq in range(1, 4)]
    assert log.writer.step()
    disk.room = 20
    receipts.append(add(log, 4))
    assert not log.writer.step()
    assert log.writer.state is State.FULL
    assert log.is_blocked()
    receipts.append(add(log, 5))
    assert not log.writer.step()
    assert [receipt.is_committed() for receipt in receipts] == [True] * 3 + [False] * 2
    assert seqs(read_all(disk, log)[0]) == [1, 2, 3]
    assert bytes(disk.entries[max(disk.entries)].content)[-6:] == b"body 3"  # the rest was taken back
    disk.room = None
    assert log.writer.step()
    assert log.writer.state is State.RUNNING
    assert all(receipt.is_committed() for receipt in receipts)
    log.close()
    assert seqs(read_all(disk, opened(disk)[0])[0]) == [1, 2, 3, 4, 5]


def test_a_disk_that_fills_up_at_every_byte_loses_nothing_over_segment_ends() -> None:
    for room in range(0, 1600, 7):
        disk = FaultyFileSystem()
        log, _, _ = opened(disk)
        disk.room = room
        for seq in range(1, 21):
            add(log, seq)
            if seq % 3 == 0:
                log.writer.step()
        log.writer.step()
        durable = seqs(read_all(disk, log)[0])
        assert durable == list(range(1, len(durable) + 1))
        again = opened(disk.after_crash(room))[0]  # power lost while full
        assert again.end[1] >= log.writer.committed[1]
        disk.room = None
        assert log.writer.step()
        log.close()
        log, _, recovered = opened(disk)
        assert seqs(read_all(disk, log)[0]) == list(range(1, 21))
        assert not recovered.cuts


def test_closing_on_a_full_disk_says_that_something_was_not_written() -> None:
    disk = FaultyFileSystem()
    log, _, _ = opened(disk)
    disk.room = 10
    add(log, 1)
    with pytest.raises(StorageFull, match="no room for the last"):
        log.close()


@pytest.mark.parametrize("what", ["sync_error", "write_error"])
def test_a_failed_sync_or_write_stops_the_log_for_good(what: str) -> None:
    disk = FaultyFileSystem()
    log, _, _ = opened(disk)
    failures: list[StorageError] = []
    log.writer.on_failure = failures.append
    first = add(log, 1)
    log.writer.step()
    setattr(disk, what, errno.EIO)
    second = add(log, 2)
    assert not log.writer.step()
    setattr(disk, what, 0)
    syncs = disk.syncs
    with pytest.raises(StorageError, match="check the disk"):
        add(log, 3)
    assert disk.syncs == syncs  # never tried again as if nothing had happened
    assert (first.is_committed(), second.is_committed()) == (True, False)
    assert len(failures) == 1
    assert log.writer.state is State.FAILED
    with pytest.raises(StorageError):
        log.close()
    after, _, _ = opened(disk.after_crash(1))
    assert after.end >= (1, 1)


def test_records_must_rise_and_fit() -> None:
    log, _, _ = opened(FaultyFileSystem())
    with pytest.raises(InvariantError):
        log.append(1, (1, 1), 9, 0, b"no segment yet")
    add(log, 5)
    for position in ((1, 5), (1, 4), (0, 9)):
        with pytest.raises(InvariantError):
            log.append(1, position, 9, 0, b"")
    with pytest.raises(LocalProtocolError):
        log.append(1, (1, 6), 9, 0, bytes(BODY_BYTES_MAX + 1))
    log.append(2, (1, 5), 0, 0, b"a control record may repeat a position")


def test_a_newer_format_is_refused_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.disk.segment.FORMAT", FORMAT + 1)
    disk = filled(1)
    monkeypatch.undo()
    content = bytes(disk.entries[max(disk.entries)].content)
    with pytest.raises(StorageError, match=f"log format {FORMAT + 1}, this program reads 1 to {FORMAT}"):
        opened(disk)
    assert bytes(disk.entries[max(disk.entries)].content) == content


def test_the_first_segments_can_be_deleted_but_never_the_active_one() -> None:
    disk = filled(40)
    log, _, _ = opened(disk)
    while len(log.segments()) > 1:
        log.delete_first()
    with pytest.raises(InvariantError):
        log.delete_first()
    log.writer.step()
    assert [path.name for path in disk.entries] == [log.segments()[0].name]


def drain(calls: queue.Queue[Callable[[], None]], until: Callable[[], bool]) -> None:
    while not until():
        calls.get(timeout=10)()


def test_many_records_share_one_sync_on_the_real_thread_and_the_real_disk(tmp_path: Path) -> None:
    calls: queue.Queue[Callable[[], None]] = queue.Queue()
    settings = LogSettings(commit_interval_ms=5)
    log, _, _ = opened(RealFileSystem(), directory=tmp_path / "a" / "b", settings=settings, notify=calls.put)
    log.start()
    told: list[int] = []
    receipts = []
    for seq in range(1, 1001):
        receipt = add(log, seq)
        receipt.on_commit(lambda seq=seq: told.append(seq))  # type: ignore[misc]  # a stand-in of the test
        receipts.append(receipt)
    drain(calls, receipts[-1].is_committed)
    assert told == list(range(1, 1001))
    assert log.writer.commits < 100
    log.close()
    log.close()
    again, _, _ = opened(RealFileSystem(), directory=tmp_path / "a" / "b", settings=settings)
    assert seqs(read_all(RealFileSystem(), again)[0]) == list(range(1, 1001))
    again.close()


def test_a_callback_that_raises_does_not_rob_the_others() -> None:
    calls: list[Callable[[], None]] = []
    log, _, _ = opened(FaultyFileSystem(), notify=calls.append)
    receipt = add(log, 1)
    told: list[str] = []
    receipt.on_commit(lambda: 1 / 0)  # type: ignore[arg-type, return-value]  # a stand-in of the test
    receipt.on_commit(lambda: told.append("second"))
    log.writer.step()
    with pytest.raises(ZeroDivisionError):
        calls.pop(0)()
    calls.pop(0)()
    assert told == ["second"]


def test_full_and_back_on_the_real_thread() -> None:
    disk, calls = FaultyFileSystem(), queue.Queue()  # type: ignore[var-annotated]  # a stand-in of the test
    log, _, _ = opened(disk, notify=calls.put)
    disk.room = 10
    log.start()
    receipt = add(log, 1)
    full = threading.Event()
    for _ in range(1000):
        if log.writer.state is State.FULL:
            full.set()
            break
        full.wait(0.01)
    assert full.is_set()
    disk.room = None
    drain(calls, receipt.is_committed)
    log.close()
    assert log.writer.state is State.CLOSED


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    held = RealFileSystem().lock(tmp_path / "lock")
    with pytest.raises(StorageError, match="another process holds it"):
        RealFileSystem().lock(tmp_path / "lock")
    held.close()
    RealFileSystem().lock(tmp_path / "lock").close()
