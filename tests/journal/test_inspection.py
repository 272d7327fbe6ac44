"""Looking into a journal: everything readable is said, damage too, and not a byte of it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.app.cli import cli
from gateway.app.journal_report import as_object
from gateway.core.batch import Batch
from gateway.core.errors import StorageError
from gateway.core.point import Priority
from gateway.core.quality import CLOCK_NOT_SYNCHRONISED, UNCERTAIN
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.inspection import LaneView, journal_directory, look
from gateway.journal.journal import Journal, Writing
from gateway.journal.reader import Record
from tests.disk.faulty import FaultyFileSystem
from tests.journal.support import HERE, LAYOUT, SMALL, Bench, N, ToldClock


def contents(disk: FaultyFileSystem) -> dict[Path, bytes]:
    return {path: bytes(inode.content) for path, inode in disk.entries.items()}


def normal(disk: FaultyFileSystem) -> LaneView:
    return next(view for view in look(HERE, disk) if view.priority is N)


def test_everything_is_read_over_many_segments_and_runs() -> None:
    disk = FaultyFileSystem()
    expected = []
    for _run in range(3):
        bench = Bench(disk)
        cursor = bench.cursor()
        expected += [(bench.journal.epoch, seq) for seq in bench.put(40)]
        bench.journal.close()
    before = contents(disk)
    view = normal(disk)
    assert len(view.files) > 3
    assert [record.position for record in view.records(disk)] == expected
    assert [record.position for record in view.records(disk, after=expected[50])] == expected[51:]
    assert view.last == expected[-1]
    assert view.cursors is not None
    assert [(note.name, note.low) for note in view.cursors.cursors] == [("c", cursor.low)]
    assert not view.damage
    assert view.torn is None
    assert contents(disk) == before, "looking changed something"


def test_a_torn_end_and_a_damaged_middle_are_said_and_left_as_they_are() -> None:
    disk = FaultyFileSystem()
    bench = Bench(disk)
    bench.cursor()
    bench.put(40)
    files = sorted(path for path in disk.entries if path.parent.name == "normal")
    first, last = disk.entries[files[0]], disk.entries[files[-1]]
    del last.content[-3:]
    first.content[first.content.index(b"\xe9\x67", 700) + 40] ^= 1
    before = contents(disk)
    view = normal(disk)
    read = [record.position[1] for record in view.records(disk)]
    assert view.torn is not None
    assert len(view.damage) == 1
    assert 37 <= len(read) < 40, "one torn, one damaged"
    assert read == sorted(set(read))
    assert contents(disk) == before, "looking changed something"


def real_journal(state: Path) -> Journal:
    made = Journal(
        state / "journal",
        filesystem=RealFileSystem(),
        lanes=(N, Priority.ALARM),
        config_version="v1",
        settings=SMALL,
        notify=lambda call: call(),
        clock=ToldClock(),
        boot_id="boot",
        writing=Writing.CALLER,
        first_epoch=7,
    )
    made.open()
    return made


@pytest.fixture
def state(tmp_path: Path) -> Path:
    bench = Bench.__new__(Bench)
    bench.journal, bench.clock, bench.seq = real_journal(tmp_path), ToldClock(), 0
    bench.cursor()
    bench.put(20)
    bench.journal.close()
    return tmp_path


def test_dump_is_one_object_a_line(state: Path) -> None:
    done = CliRunner().invoke(cli, ["journal", "dump", str(state)])
    assert done.exit_code == 0, done.output
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["e"], one["n"]) for one in said] == [(7, seq) for seq in range(1, 21)]
    assert said[0]["v"] == {"t0": 1, "t1": 7}
    assert {key: said[0][key] for key in ("lane", "device", "scan", "rule", "config")} == {
        "lane": "normal", "device": LAYOUT.device, "scan": "fast", "rule": "a", "config": "v1",
    }  # fmt: skip
    assert said[0]["received"].startswith("2023-11-14T22:13:20")
    behind = CliRunner().invoke(cli, ["journal", "dump", str(state / "journal"), "--after", "7/18"])
    assert [json.loads(line)["n"] for line in behind.stdout.splitlines()] == [19, 20]
    nobody = CliRunner().invoke(cli, ["journal", "dump", str(state), "--device", "other"])
    assert (nobody.exit_code, nobody.stdout) == (0, "")


def test_dump_tells_what_was_taken_out_and_which_times_cannot_be_trusted() -> None:
    batch = Batch(
        layout=LAYOUT, values=(1, 2), received_ns=0, epoch=1, seq=2, missing=(0, 3),
        time_quality=UNCERTAIN | CLOCK_NOT_SYNCHRONISED,
    )  # fmt: skip
    said = as_object("normal", Record((1, 1), (1, 2), "a", batch, "v1", 0))
    assert said["m"] == {"t1": 3}
    assert set(said["tq"].values()) == {"uncertain/clock-not-synchronised"}
    assert list(said["tq"]) == ["t0", "t1"]


def test_stat_says_what_there_is(state: Path) -> None:
    done = CliRunner().invoke(cli, ["journal", "stat", "--verify", str(state)])
    assert done.exit_code == 0, done.output
    assert "lane normal: 20 records" in done.output
    assert "last 7/20" in done.output
    assert "epoch 7: 20 records, numbers 1 to 20\n" in done.output
    assert "rule c\n    has everything up to" in done.output
    assert "lane alarm: 0 records" in done.output


def test_damage_is_said_and_is_the_exit_code(state: Path) -> None:
    file = min((state / "journal" / "normal").iterdir())
    data = bytearray(file.read_bytes())
    data[data.index(b"\xe9\x67", 700) + 40] ^= 1
    file.write_bytes(data)
    done = CliRunner().invoke(cli, ["journal", "dump", str(state)])
    assert done.exit_code == 1
    assert file.name in done.stderr
    assert "checksum does not match" in done.stderr
    assert file.read_bytes() == data


def test_no_journal_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no journal here: expected a state directory"):
        journal_directory(tmp_path)


def test_a_position_that_is_none_is_refused(state: Path) -> None:
    done = CliRunner().invoke(cli, ["journal", "dump", str(state), "--after", "x"])
    assert done.exit_code == 2
    assert "expected EPOCH/NUMBER" in done.output
