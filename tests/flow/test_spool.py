"""`durability: spill`: what is acknowledged in time is never written, everything else is, in order."""

from __future__ import annotations

from gateway.core.batch import Batch
from gateway.core.point import Priority
from gateway.flow.outbox import Replay
from gateway.flow.spool import AFTER_NS, Spool
from tests.disk.faulty import Crash, FaultyFileSystem
from tests.flow.test_outbox import SpillDesk, positions
from tests.journal.support import LAYOUT, Bench, N, everything, numbers

S = Priority.SPILLED


def lane_of(bench: Bench) -> list[tuple[int, int]]:
    bench.journal.commit()
    return numbers(everything(bench.journal.reader(S, (0, 0))))


def test_what_is_acknowledged_in_time_is_never_written_and_the_disk_rests() -> None:
    desk = SpillDesk(Replay())
    desk.outbox.online()
    journal, disk = desk.bench.journal, desk.disk
    for turn in range(50):
        desk.offer()
        entry = desk.outbox.take()
        assert entry is not None
        entry.acknowledge()
        desk.bench.clock.now_ns += AFTER_NS // 2
        desk.spool.spill_late()
        journal.maintain()
        journal.commit()
        if turn == 2:
            syncs = disk.syncs
    assert disk.syncs == syncs  # cursors that speak of nothing on the disk are not saved
    assert lane_of(desk.bench) == []
    assert (desk.spool.spared, desk.spool.spilled, len(desk.spool), desk.spool.bytes) == (50, 0, 0, 0)


def test_what_waits_a_second_is_written_in_the_order_of_its_numbers_whatever_rule_it_is_of() -> None:
    desk = SpillDesk(Replay())
    desk.outbox.online()
    for _ in range(4):
        desk.offer(stream="b")
        desk.offer()
    first = desk.outbox.take()
    assert first is not None
    first.acknowledge()  # the second one offered: it need not be written
    desk.bench.clock.now_ns += AFTER_NS
    desk.offer()  # young
    desk.spool.spill_late()
    assert lane_of(desk.bench) == [(1, seq) for seq in (1, 3, 4, 5, 6, 7, 8)]
    assert len(desk.spool) == 1
    assert positions(desk.drain()) == [4, 6, 8, 9]


def test_its_receipt_is_the_acknowledgement_or_the_disk() -> None:
    desk = SpillDesk(Replay())
    told: list[str] = []
    desk.outbox.online()
    desk.offer()
    first = desk.receipt
    first.on_commit(lambda: told.append("acknowledged"))
    desk.offer()
    second = desk.receipt
    second.on_commit(lambda: told.append("on disk"))
    entry = desk.outbox.take()
    assert entry is not None
    assert not first.is_committed()
    entry.acknowledge()
    assert first.is_committed()
    desk.spool.spill()
    assert told == ["acknowledged"]
    desk.bench.journal.commit()
    assert second.is_committed()
    assert told == ["acknowledged", "on disk"]


def test_memory_is_bounded_by_writing() -> None:
    desk = SpillDesk(Replay())
    for _ in range(200):
        desk.offer()
    assert desk.spool.bytes <= desk.spool.max_bytes
    assert desk.spool.spilled >= 150
    (level,) = desk.spool.levels()
    assert (level.depth, level.limit, level.lost) == (desk.spool.bytes, 20_000, desk.spool.spilled)
    assert positions(desk.drain()) == list(range(1, 201))


def test_a_crash_at_every_operation_loses_only_what_was_in_memory() -> None:
    lost_in_memory = 0
    for crash_at in range(1, 60):
        disk = FaultyFileSystem(3)
        disk.crash_at = crash_at
        promised: set[tuple[int, int]] = set()
        acknowledged: set[tuple[int, int]] = set()
        offered: set[tuple[int, int]] = set()
        try:
            live(disk, promised, acknowledged, offered)
        except Crash:
            disk = disk.after_crash(crash_at)
        else:
            assert crash_at > 20
            break
        bench = Bench(disk, lanes=(N, S))
        found = set(numbers(bench.backlog(bench.cursor("s", lane=S))))
        assert found <= offered
        assert promised <= found | acknowledged
        lost_in_memory += len(offered - found - acknowledged)
    assert lost_in_memory > 0  # what this durability gives away, and `always` does not


def live(
    disk: FaultyFileSystem,
    promised: set[tuple[int, int]],
    acknowledged: set[tuple[int, int]],
    offered: set[tuple[int, int]],
) -> None:
    """Each third record is acknowledged at once, the others wait; every fourth turn is late."""
    bench = Bench(disk, lanes=(N, S))
    cursor = bench.cursor("s", lane=S)
    spool = Spool(
        append=lambda batch, stream: bench.journal.append(batch, lane=S, stream=stream),
        monotonic_ns=bench.clock.monotonic_ns,
        max_bytes=1 << 20,
    )
    after = (bench.journal.epoch, 0)
    for seq in range(1, 40):
        position = (bench.journal.epoch, seq)
        batch = Batch(layout=LAYOUT, values=(seq, position[0]), received_ns=0, epoch=position[0], seq=seq)
        receipt = spool.hold(batch, "a")
        offered.add(position)
        receipt.on_commit(lambda position=position: promised.add(position))
        if seq % 3 == 0:
            acknowledged.add(position)
            cursor.acknowledge(after, position)
            spool.acknowledged(position)
        after = position
        bench.clock.now_ns += AFTER_NS // 4
        if seq % 4 == 0:
            spool.spill_late()
        bench.journal.maintain()
        bench.journal.commit()
    spool.spill()
    bench.journal.close()
