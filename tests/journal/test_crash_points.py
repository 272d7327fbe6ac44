"""The power goes at every operation of the production code, and nothing committed is missing after it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.journal.cursor import Full
from tests.disk.faulty import Crash, FaultyFileSystem
from tests.journal.support import DAY_NS, SECOND_NS, SMALL, Bench, N, ToldClock, everything, numbers

Seen = set[tuple[int, int]]


class Story:
    """What the world outside knows of all runs on one disk."""

    def __init__(self) -> None:
        self.accepted: Seen = set()
        self.committed: Seen = set()
        self.acknowledged: Seen = set()
        self.epochs: list[int] = []
        self.where: Counter[str] = Counter()

    def run(self, disk: FaultyFileSystem, seed: int, rounds: int) -> None:
        """One life: deliver, accept, acknowledge, in an order given by the seed. May end in `Crash`."""
        chance = random.Random(seed)
        bench = Bench(disk, clock=ToldClock(seed * SECOND_NS), settings=SMALL)
        journal = bench.journal
        assert journal.epoch > max(self.epochs, default=0)
        self.epochs.append(journal.epoch)
        cursor = journal.cursor(
            "c", lane=N, streams=frozenset("a"), keep_ns=DAY_NS, max_bytes=1 << 30, full=Full.DROP_OLDEST
        )
        self.check(bench)
        reader = journal.reader(cursor, cursor.low)
        for _ in range(rounds):
            for _ in range(chance.randrange(1, 6)):
                receipt = bench.append(stream=chance.choice("aab"))
                position = journal.end(N)
                if bench.journal._lanes[N]._last_of.get("a") == position:
                    self.accepted.add(position)
                    receipt.on_commit(lambda position=position: self.committed.add(position))
            journal.commit()
            if chance.random() < 0.7:
                for record in reader.read(600, skip=cursor.ranges):
                    self.acknowledged.add(record.position)
                    cursor.acknowledge(record.after, record.position)
            bench.clock.now_ns += chance.randrange(2) * SECOND_NS
            journal.maintain()
            journal.commit()
        journal.close()

    def check(self, bench: Bench) -> None:
        """After a crash: what was promised is there, and nothing else is."""
        cursor = bench.journal._lanes[N].cursors["c"]
        everything_there = {
            r.position for r in everything(bench.journal.reader(N, (0, 0))) if r.stream == "a"
        }
        delivered = numbers(bench.backlog(cursor))
        assert delivered == sorted(set(delivered))
        assert set(delivered) <= self.accepted
        assert everything_there <= self.accepted
        missing = self.committed - self.acknowledged - set(delivered)
        assert not missing, missing
        gone = {p for p in self.committed if cursor.is_acknowledged(p)} - self.acknowledged
        assert not gone, gone  # a cursor never knows more than was acknowledged
        assert cursor.low <= bench.journal.end(N)


def lives(seed: int) -> int:
    """How many operations one undisturbed life of this seed takes."""
    disk = FaultyFileSystem(seed)
    Story().run(disk, seed, rounds=12)
    return len(disk.operations)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_crash_at_every_operation_loses_nothing_committed(seed: int) -> None:
    where: Counter[str] = Counter()
    for crash_at in range(1, lives(seed) + 1):
        story, disk = Story(), FaultyFileSystem(seed)
        disk.crash_at = crash_at
        with pytest.raises(Crash):
            story.run(disk, seed, rounds=12)
        where[disk.operations[-1]] += 1
        disk = disk.after_crash(seed * 1000 + crash_at)
        story.run(disk, seed + 100, rounds=3)
        assert story.epochs == sorted(set(story.epochs))
    assert min(where[kind] for kind in ("write", "sync", "create", "sync directory", "unlink")) > 0


@pytest.mark.parametrize("seed", range(20))
def test_many_crashes_on_one_disk(seed: int) -> None:
    story, disk, chance = Story(), FaultyFileSystem(seed), random.Random(seed)
    for life in range(12):
        disk.crash_at = chance.randrange(1, 90)
        try:
            story.run(disk, seed * 100 + life, rounds=20)
        except Crash:
            disk = disk.after_crash(chance.randrange(1 << 30))
        else:
            disk.operations.clear()
    disk.crash_at = 0
    disk.operations.clear()
    story.run(disk, 7, rounds=1)
    assert len(story.committed) > 30
