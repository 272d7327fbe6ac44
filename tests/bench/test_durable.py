"""What the rows about durability measure is the shipped journal, and every value of it is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import journal
from bench.report import judge, table
from bench.rows import Figures
from bench.sites import SiteSpec, Topics, write_site
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.inspection import journal_directory, look


def test_replay_delivers_all_and_counts_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = journal.replay(tmp_path / "true", count=300)
    assert (done.points, done.wrong) == (300 * journal.POINTS, 0)
    assert done.points_per_s > 0
    monkeypatch.setattr(journal, "registers_of", lambda *_args, **_more: [7] * journal.POINTS)
    assert journal.replay(tmp_path / "false", count=300).wrong == 300


def test_commits_are_measured_beside_the_bare_disk_and_sqlite(tmp_path: Path) -> None:
    took = journal.commits(tmp_path, together=3, seconds=0.02)
    assert len(took.bare) == len(took.ours) == len(took.sqlite) == len(took.stream_ours) >= 1
    assert took.ratio > 0
    assert "3 a commit, in a row" in journal.lines(took)[-1]


def test_a_backlog_is_what_a_gateway_leaves_behind(tmp_path: Path) -> None:
    spec = SiteSpec(
        devices=3, registers=journal.POINTS, scan="1s", topics=Topics.DEVICE,
        buffer="{max: 1GB, replay: {live_first: true}}", journal_max="2GB",
    )  # fmt: skip
    config = write_site(tmp_path / "site", spec, modbus_ports=[1502], mqtt_port=1883)
    count, epoch = journal.fill(config, tmp_path / "state", size_bytes=10_000)
    filesystem = RealFileSystem()
    views = look(journal_directory(tmp_path / "state"), filesystem)
    records = [record for view in views for record in view.records(filesystem)]
    assert [record.position for record in records] == [(epoch, seq) for seq in range(1, count + 1)]
    assert all(journal.is_true(record.batch.values) for record in records)


def test_the_report_shows_rows_that_say_it_in_words() -> None:
    row = Figures(row="journal", extra={"ratio 20": 1.2}, lines=["one", "two"])
    goals = judge({"journal": row})
    assert [goal.is_met for goal in goals if goal.name.startswith("journal")] == [True]
    text = table({"journal": row}, goals, failed={}, machine="here")
    assert "journal: one\njournal: two\n" in text
