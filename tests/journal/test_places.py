"""A reader in the middle of a segment starts there, whoever wrote the segment and whatever is damaged."""

from __future__ import annotations

import pytest

from gateway.core.batch import Batch
from gateway.journal import places
from gateway.journal.places import ANY_TIME, value_times
from gateway.journal.settings import JournalSettings
from tests.disk.faulty import FaultyFileSystem
from tests.journal.support import LAYOUT, SECOND_NS, Bench, N, everything, numbers

BIG = JournalSettings(segment_bytes=200_000)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CHUNK_BYTES", 4096)


def written(*, runs: int = 2, records: int = 3000) -> tuple[Bench, FaultyFileSystem]:
    """Some segments, of two runs; the last one is being written."""
    disk = FaultyFileSystem()
    bench = Bench(disk, settings=BIG)
    for _ in range(runs - 1):
        bench.put(records)
        bench.journal.close()
        bench = Bench(disk, settings=BIG, clock=bench.clock)
        bench.cursor()
    bench.put(records)
    return bench, disk


@pytest.mark.parametrize("where", [(1, 500), (1, 2999), (2, 0), (2, 1), (2, 1500), (2, 2999)])
def test_a_reader_from_anywhere_reads_the_same_as_from_the_start(where: tuple[int, int]) -> None:
    bench, disk = written()
    bench.journal._lanes[N].keeps_history = True
    every = numbers(everything(bench.journal.reader(N, (0, 0))))
    disk.bytes_read = 0
    reader = bench.journal.reader(N, where)
    first = reader.read(4096)
    assert numbers(first)[0] == next(position for position in every if position > where)
    assert disk.bytes_read < 6 * 4096  # a chunk, its definitions, and not the segment from its start
    assert numbers(first + everything(reader)) == [position for position in every if position > where]
    assert {record.stream for record in first} == {"a"}


def test_a_segment_that_does_not_say_is_read_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, _ = written()
    monkeypatch.setattr(bench.journal._lanes[N].places, "of", lambda _segment: None)
    assert numbers(everything(bench.journal.reader(N, (2, 1500)))) == [(2, seq) for seq in range(1501, 3001)]


def test_damage_at_the_place_where_it_would_start_costs_only_that_record() -> None:
    bench, disk = written(runs=1)
    lane = bench.journal._lanes[N]
    segment = lane.log.segments()[0]
    found = lane.places.of(segment)
    assert found is not None
    chunk = found.chunks[5]
    disk.entries[segment.path].content[chunk.offset + 50] ^= 1
    got = numbers(everything(bench.journal.reader(N, chunk.after)))
    lost = (1, chunk.after[1] + 1)
    assert got == [(1, seq) for seq in range(chunk.after[1] + 2, 3001)]
    [damage] = bench.journal.stats().quarantined
    assert damage.after < lost
    assert damage.before == (1, lost[1] + 1)


def test_every_value_lies_in_the_times_of_its_chunk() -> None:
    bench, _ = written()
    lane = bench.journal._lanes[N]
    for segment in lane.log.segments():
        found = lane.places.of(segment)
        assert found is not None
        assert len(found.chunks) >= segment.size // 8192
        for chunk in found.chunks:
            assert chunk.low_ns <= bench.clock.wall_ns() <= chunk.high_ns
    runs = [run.epoch for segment in lane.log.segments() for run in lane.places.of(segment).runs]  # type: ignore[union-attr]  # seen above
    assert sorted(set(runs)) == [1, 2]


def test_times_of_a_batch_are_those_of_its_values() -> None:
    batch = Batch(layout=LAYOUT, values=(1, 2), received_ns=9 * SECOND_NS)
    assert value_times(batch.source_time_ns, 0, 9) == (9, 9)
    assert value_times(5, 0, 9) == (5, 5)
    assert value_times((5, None), 0, 9) == (5, 9)
    assert value_times((), 0, 9) == (9, 9)
    assert value_times(5, 1 << 7, 9) == ANY_TIME  # what is dated later
