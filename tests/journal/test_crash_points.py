"""The power goes at every operation of the production code, and nothing committed is missing after it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from gateway.disk.block import Compression
from gateway.journal.cursor import Cursor, Full
from gateway.journal.settings import JournalSettings
from tests.disk.faulty import Crash, FaultyFileSystem
from tests.journal.support import DAY_NS, SECOND_NS, SMALL, Bench, N, ToldClock, everything, numbers

Seen = set[tuple[int, int]]


@pytest.fixture
def salts(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Call it before each life: with equal salts equal lives pack to equal sizes, by equal operations."""
    return lambda seed: monkeypatch.setattr("os.urandom", random.Random(seed).randbytes)


class Story:
    """What the world outside knows of all runs on one disk."""

    def __init__(self, settings: JournalSettings = SMALL) -> None:
        self.settings = settings
        self.accepted: Seen = set()
        self.committed: Seen = set()
        self.acknowledged: Seen = set()
        self.epochs: list[int] = []
        self.where: Counter[str] = Counter()

    def run(self, disk: FaultyFileSystem, seed: int, rounds: int) -> None:
        """One life: deliver, accept, acknowledge, in an order given by the seed. May end in `Crash`."""
        chance = random.Random(seed)
        bench = Bench(disk, clock=ToldClock(seed * SECOND_NS), settings=self.settings)
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


def lives(seed: int, settings: JournalSettings) -> int:
    """How many operations one undisturbed life of this seed takes."""
    disk = FaultyFileSystem(seed)
    Story(settings).run(disk, seed, rounds=ROUNDS)
    return len(disk.operations)


ROUNDS = 20
PACKED = msgspec.structs.replace(SMALL, compression=Compression.ZSTD, segment_bytes=600)


@pytest.mark.parametrize(("seed", "settings"), [(1, SMALL), (2, SMALL), (3, SMALL), (1, PACKED), (2, PACKED)])
def test_a_crash_at_every_operation_loses_nothing_committed(
    seed: int, settings: JournalSettings, salts: Callable[[int], None]
) -> None:
    where: Counter[str] = Counter()
    salts(seed)
    for crash_at in range(1, lives(seed, settings) + 1):
        story, disk = Story(settings), FaultyFileSystem(seed)
        disk.crash_at = crash_at
        salts(seed)
        with pytest.raises(Crash):
            story.run(disk, seed, rounds=ROUNDS)
        where[disk.operations[-1]] += 1
        disk = disk.after_crash(seed * 1000 + crash_at)
        story.run(disk, seed + 100, rounds=3)
        assert story.epochs == sorted(set(story.epochs))
    kinds = ("write", "sync", "create", "sync directory", "unlink")
    assert min(where[kind] for kind in kinds) > 0


class ThinStory:
    """An outage that only thinning lets the disk hold."""

    def __init__(self, disk: FaultyFileSystem, settings: JournalSettings) -> None:
        self.disk = disk
        self.settings = settings
        self.accepted: Seen = set()
        self.committed: Seen = set()

    def open(self) -> tuple[Bench, Cursor]:
        bench = Bench(self.disk, settings=self.settings)
        return bench, bench.cursor(full=Full.THIN, max_bytes=8000)

    def run(self, count: int) -> None:
        """Accept so many, one a second. May end in `Crash`."""
        bench, _ = self.open()
        for _ in range(count):
            receipt = bench.append()
            position = bench.journal.end(N)
            self.accepted.add(position)
            receipt.on_commit(lambda position=position: self.committed.add(position))
            bench.journal.commit()
            bench.clock.now_ns += SECOND_NS
            bench.journal.maintain()
            bench.journal.commit()
        bench.journal.close()

    def check(self) -> None:
        """Every value that was promised is there, or counted where it is missing."""
        bench, cursor = self.open()
        records = bench.backlog(cursor)
        positions = numbers(records)
        assert positions == sorted(set(positions))
        assert set(positions) <= self.accepted
        for column in (0, 1):
            seen = 0
            for record in records:
                missing = record.batch.missing
                seen += 1 + (missing[column] if isinstance(missing, tuple) else missing)
                promised = {one for one in self.committed if one <= record.position}
                accepted = {one for one in self.accepted if one <= record.position}
                assert len(promised) <= seen <= len(accepted)
        if self.committed:
            assert max(positions) >= max(self.committed)
        assert cursor.dropped == 0


THIN = msgspec.structs.replace(SMALL, segment_bytes=1600, cursor_save_ms=10_000)
THIN_PACKED = msgspec.structs.replace(THIN, compression=Compression.ZSTD)


@pytest.mark.parametrize("settings", [THIN, THIN_PACKED])
def test_a_crash_at_every_operation_of_thinning_loses_nothing_uncounted(
    settings: JournalSettings, salts: Callable[[int], None]
) -> None:
    disk = FaultyFileSystem(5)
    salts(5)
    ThinStory(disk, settings).run(140)
    assert "rename" in disk.operations
    first = max(1, disk.operations.index("rename") - 30)
    where: Counter[str] = Counter()
    for crash_at in range(first, min(len(disk.operations), first + 160)):
        story = ThinStory(FaultyFileSystem(5), settings)
        story.disk.crash_at = crash_at
        salts(5)
        with pytest.raises(Crash):
            story.run(140)
        where[story.disk.operations[-1]] += 1
        story.disk = story.disk.after_crash(crash_at)
        story.check()
        assert not [path for path in story.disk.entries if path.suffix == ".tmp"]
    assert min(where[kind] for kind in ("write", "sync", "create", "rename", "sync directory", "unlink")) > 0


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
