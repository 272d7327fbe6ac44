"""What the plan says of the disk: against a real journal, and as the configuration changes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.app.cli import cli
from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.app.plan import link_costs
from gateway.app.wear import DAY_S, Wear, wear
from gateway.config.load import load
from gateway.core.batch import Batch
from gateway.core.point import Priority
from gateway.disk.block import Compression
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.jobs import Writing
from gateway.journal.journal import Journal
from gateway.journal.settings import JournalSettings
from tests.journal.support import ToldClock

TAGS = 20


def config(folder: Path, *, scan: str = "1s", journal: dict[str, Any] | None = None, **rule: Any) -> Path:
    tags = {f"t{i}": {"at": f"hr:{2 * i}", "type": "float32", "scan": "s"} for i in range(TAGS)}
    (folder / "gateway.yaml").write_text(
        json.dumps(
            {
                "version": 1,
                "gateway": {"name": "gw"},
                "journal": {"compression": "none", **(journal or {})},
                "links": {"plc": {"driver": "modbus", "host": "127.0.0.1"}},
                "scan": {"s": scan},
                "devices": {"d1": {"link": "plc", "unit": 1, "tags": tags}},
                "uplinks": {"broker": {"kind": "mqtt", "url": "mqtt://127.0.0.1"}},
                "publish": [{"uplink": "broker", "topic": "plant/{device}", **rule}],
            }
        )
    )
    return folder


def cost(folder: Path, *, share: float = 1.0, **changes: Any) -> Wear:
    compiled = compile_site(load(config(folder, **changes), kinds()))
    return wear(compiled, link_costs(compiled), share=share)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("records", [1, 50])  # in a commit
def test_sizes_are_those_of_a_real_journal(tmp_path: Path, compression: str, records: int) -> None:
    scan, commit = ("1s", "100ms") if records == 1 else ("20ms", "1s")
    made = cost(tmp_path, scan=scan, journal={"commit": commit, "compression": compression})
    (layout,) = compile_site(load(tmp_path, kinds())).layouts
    chance = random.Random(7)
    journal = Journal(
        tmp_path / "journal", filesystem=RealFileSystem(), lanes=(Priority.NORMAL,), config_version="v",
        notify=lambda call: call(), clock=ToldClock(), writing=Writing.CALLER, boot_id="b",
        settings=JournalSettings(compression=Compression(compression)),
    )  # fmt: skip
    journal.open()
    values, seq = [20.0] * TAGS, 0
    journal.commit()
    before = journal.stats().lanes[0].size_bytes
    for _ in range(150 // records):
        for _ in range(records):
            seq += 1
            values = [value + chance.randrange(-5, 6) * 0.1 for value in values]
            now_ns = 1_767_225_600_000_000_000 + seq * 1_000_123_457
            journal.append(
                Batch(layout=layout, values=tuple(values), received_ns=now_ns, monotonic_ns=now_ns,
                      epoch=journal.epoch, seq=seq),
                lane=Priority.NORMAL,
                stream="broker plant/{device} */*",
            )  # fmt: skip
        journal.commit()
    written = journal.stats().lanes[0].size_bytes - before
    journal.close()
    (stream,) = made.streams
    assert stream.records_per_s == pytest.approx(1 if records == 1 else 50)
    assert stream.record_bytes == pytest.approx(written / 150, rel=0.2)
    assert (made.packed < 0.8) == (compression == "zstd" and records == 50)


def test_what_the_disk_writes_is_a_page_more_for_each_commit(tmp_path: Path) -> None:
    made = cost(tmp_path, scan="50ms", journal={"commit": "200ms"})
    assert made.commits_per_s == 5
    assert made.disk_bytes_per_day - made.bytes_per_day == pytest.approx(5 * 4096 * DAY_S)
    seldom = cost(tmp_path, scan="1h")
    assert 1 < seldom.commits_per_s < 1.01, "the cursors are saved each second"


def test_policies_count(tmp_path: Path) -> None:
    usual = cost(tmp_path).streams[0]
    assert cost(tmp_path, report={"min": "4s"}).streams[0].records_per_s == pytest.approx(0.25)
    assert cost(tmp_path, share=0.1).streams[0].record_bytes < usual.record_bytes / 2
    some = cost(tmp_path, share=0.01).streams[0]
    assert some.records_per_s == pytest.approx(0.2), "a fifth of a value changes in a scan"
    scans = cost(tmp_path, share=0.01, report={"on": "scan"}).streams[0]
    assert scans.bytes_per_day == pytest.approx(usual.bytes_per_day, rel=0.05)
    beats = cost(tmp_path, share=0.01, report={"heartbeat": "10s"}).streams[0]
    assert beats.records_per_s == pytest.approx(0.3)


def test_a_buffer_lasts_by_size_or_by_age(tmp_path: Path) -> None:
    by_size = cost(tmp_path, buffer={"max": "10MB", "keep": "365d"}).streams[0]
    assert by_size.lasts_s == pytest.approx(10e6 / (by_size.bytes_per_day / DAY_S))
    assert cost(tmp_path, buffer={"max": "10MB", "keep": "1h"}).streams[0].lasts_s == 3600
    within = cost(tmp_path, journal={"max": "10MB"}, buffer={"keep": "365d"}).streams[0]
    assert within.buffer_bytes == 8_750_000, "an eighth is for alarms"


def test_reading_without_a_period_takes_what_its_requests_take(tmp_path: Path) -> None:
    assert cost(tmp_path, scan="continuous").streams[0].records_per_s == pytest.approx(100, rel=0.01)


def test_what_spills_does_not_wear_the_disk(tmp_path: Path) -> None:
    made = cost(tmp_path, buffer={"durability": "spill", "max": "10MB", "keep": "365d"})
    (stream,) = made.streams
    assert stream.lane is Priority.SPILLED
    assert stream.lasts_s == pytest.approx(10e6 / (stream.bytes_per_day / DAY_S)), "while the uplink is away"
    assert made.disk_bytes_per_day == 0
    text = " ".join(plan(tmp_path).split())
    assert "spilled: goes to the disk while the uplink is away only" in text
    assert "over 100 years" in text


def plan(folder: Path, *options: str) -> str:
    env = {"COLUMNS": "80", "TERM": "dumb"}
    return CliRunner().invoke(cli, ["plan", str(folder), *options], env=env, catch_exceptions=False).output


def test_it_reads_well_in_80_columns(tmp_path: Path) -> None:
    text = plan(config(tmp_path, scan="100ms"), "--share", "5%", "--card", "64GB", "--endurance", "100TBW")
    assert max(map(len, text.splitlines())) <= 80, text
    row = next(line for line in text.splitlines() if line.startswith("0 plant/{device}"))
    assert row.split()[2:5] == ["normal", "1", "GB"]
    flat = " ".join(text.split())
    assert " 5%: the journal grows by " in flat
    assert "Life: of a 64 GB card that takes 100 TB; what" in flat
    assert "warning" not in text


def test_a_card_that_will_not_last_is_warned_of(tmp_path: Path) -> None:
    text = plan(config(tmp_path, scan="100ms"), "--endurance", "1TB")
    assert "warning: with 10% of the values changing the card lasts" in text
    assert "a guess" not in text
    assert "a guess, say --endurance" in " ".join(plan(tmp_path).split())


@pytest.mark.parametrize(
    "options", [("--share", "0%"), ("--share", "x"), ("--card", "big"), ("--endurance", "1")]
)
def test_options_that_say_nothing_are_refused(tmp_path: Path, options: tuple[str, str]) -> None:
    result = CliRunner().invoke(cli, ["plan", str(config(tmp_path)), *options])
    assert result.exit_code == 2
    assert "expected" in result.output
