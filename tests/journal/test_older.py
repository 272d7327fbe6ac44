"""A journal that version 0.1's code wrote, before compression: what it accepted is delivered after an update.

`format1/`: two lanes, 35 records of stream `a` in two segments (positions 1 to 4 and 8 to 9 acknowledged by
cursor `a`) and 3 of `b`; written by the code of the first format itself and closed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gateway.core.point import Priority
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.cursor import Full
from tests.journal import support
from tests.journal.support import SECOND_NS, Bench, N, numbers

WRITTEN = Path(__file__).parent / "format1"
WAITING = [seq for seq in (*range(5, 31), *range(34, 39)) if seq not in (8, 9)]


@pytest.fixture
def older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "journal"
    shutil.copytree(WRITTEN, directory)
    monkeypatch.setattr(support, "HERE", directory)
    return directory


def update() -> Bench:
    return Bench(RealFileSystem(), lanes=(Priority.ALARM, N, Priority.SPILLED))


def test_a_journal_of_the_first_format_is_delivered_where_it_was_left(older: Path) -> None:
    before = {path: path.read_bytes() for path in older.rglob("*.log")}
    bench = update()
    assert bench.recovery.epoch == 2
    assert bench.recovery.messages == ()
    cursor, alarms = bench.cursor("a", streams="a"), bench.cursor("b", streams="b", lane=Priority.ALARM)
    bench.put(40)
    assert numbers(bench.backlog(cursor)) == [(1, n) for n in WAITING] + [(2, n) for n in range(1, 41)]
    assert numbers(bench.backlog(alarms)) == [(1, 31), (1, 32), (1, 33)]
    bench.journal.close()
    assert all(path.read_bytes().startswith(content) for path, content in before.items())
    again = update()
    assert len(again.backlog(again.cursor("a", streams="a"))) == len(WAITING) + 40


def test_a_journal_of_the_first_format_that_was_killed_is_cut_and_goes_on(older: Path) -> None:
    last = max((older / "normal").iterdir())
    last.write_bytes(last.read_bytes()[:-7])  # the last save of cursors, half written
    bench = update()
    assert len(bench.recovery.messages) == 1
    cursor = bench.cursor("a", streams="a")
    assert {(1, n) for n in WAITING} <= set(numbers(bench.backlog(cursor)))


def test_segments_of_the_first_format_can_be_made_thinner(older: Path) -> None:
    bench = update()
    cursor = bench.cursor("a", streams="a", full=Full.THIN, max_bytes=4000)
    for _ in range(6):  # never so much at once that the oldest have to be dropped
        bench.put(2)
        bench.clock.now_ns += SECOND_NS
        bench.journal.maintain()
        bench.journal.commit()
    gone = len(WAITING) + 12 - len(numbers(bench.backlog(cursor)))
    assert cursor.thinned == 2 * gone > 0
    assert cursor.dropped == 0
    assert bench.journal.stats().quarantined_ranges == 0
