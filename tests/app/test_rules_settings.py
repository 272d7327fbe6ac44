"""What a rule's buffer means for the journal and for sending."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.app.compiled import compile_site
from gateway.app.history_rule import history_streams
from gateway.app.kinds import kinds
from gateway.app.rules import (
    LANES,
    buffer_bytes,
    full_of,
    is_spilling,
    keep_ns,
    lane_bytes,
    missing,
    replay_of,
    segment_bytes,
)
from gateway.app.store import _settings
from gateway.config.load import load
from gateway.config.site import Site
from gateway.core.point import Priority
from gateway.disk.block import Compression
from gateway.disk.record import Position
from gateway.journal.cursor import Full

CONFIG = """
version: 1
gateway: {name: g}
journal: {max: 100MB, alarm_share: 10%%, commit: 50ms, commit_size: 64KB%s}
links: {hall: {driver: modbus, host: "127.0.0.1:502"}}
uplinks: {cloud: {kind: mqtt, url: "mqtt://127.0.0.1:1883"}}
devices: {d: {link: hall, unit: 1, tags: {t: {at: "hr:1", type: int16}}}}
publish:
  - {uplink: cloud, topic: "x/{device}", buffer: {max: 32MB%s}}
"""


def site(tmp_path: Path, journal: str = "", buffer: str = "") -> Site:
    (tmp_path / "gateway.yaml").write_text(CONFIG % (journal, buffer))
    return load(tmp_path, kinds())


def test_a_share_is_a_part_of_one(tmp_path: Path) -> None:
    rule = site(tmp_path, buffer=", replay: {live_first: true, share: 40%}").publish[0]
    assert replay_of(rule).live_first
    assert replay_of(rule).share == pytest.approx(0.4)
    assert replay_of(site(tmp_path).publish[0]).share == pytest.approx(0.3)


def test_lanes_divide_the_journal_and_a_rule_stays_within_its_lane(tmp_path: Path) -> None:
    plain = site(tmp_path)
    rule = plain.publish[0]
    total = plain.journal.max_bytes
    assert lane_bytes(plain, Priority.ALARM) == total // 10
    assert lane_bytes(plain, Priority.NORMAL) == total - total // 10
    assert [buffer_bytes(plain, rule, lane) for lane in LANES] == [total // 10, rule.model.buffer.max_bytes]
    spilling = site(tmp_path, buffer=", durability: spill")
    assert is_spilling(spilling.publish[0])
    lanes = (Priority.ALARM, Priority.NORMAL, Priority.SPILLED)
    assert sum(lane_bytes(spilling, lane) for lane in lanes) <= total


def test_thin_has_segments_that_can_be_made_thinner_and_spares_alarms(tmp_path: Path) -> None:
    thin = site(tmp_path, buffer=", full: thin")
    rule = thin.publish[0]
    assert [full_of(rule, lane) for lane in LANES] == [Full.DROP_OLDEST, Full.THIN]
    assert segment_bytes(thin, rule, Priority.NORMAL) == rule.model.buffer.max_bytes // 16
    assert _settings(thin).segment_bytes == rule.model.buffer.max_bytes // 16


@pytest.mark.parametrize("buffer", [", durability: spill", ", full: thin"])
def test_history_records_itself_what_a_rule_need_not_keep(tmp_path: Path, buffer: str) -> None:
    found = site(tmp_path, journal=", history: {}", buffer=buffer)
    layouts = compile_site(found).layouts
    assert [dict(stream.columns) for stream in history_streams(found, layouts)] == [{layouts[0]: (0,)}]
    kept = site(tmp_path, journal=", history: {}")
    assert not history_streams(kept, compile_site(kept).layouts)


@pytest.mark.parametrize(
    ("ranges", "end", "left"),
    [
        ((), (1, 9), [((1, 4), (1, 9))]),
        (((1, 5), (1, 7)), (1, 9), [((1, 4), (1, 5)), ((1, 7), (1, 9))]),
        (((1, 4), (1, 9)), (1, 9), []),
        (((1, 6), (1, 9)), (1, 9), [((1, 4), (1, 6))]),
    ],
)
def test_after_a_restart_only_what_was_not_acknowledged_is_sent(
    ranges: tuple[Position, ...], end: Position, left: list[tuple[Position, Position]]
) -> None:
    known = (ranges,) if ranges else ()
    cursor: Any = SimpleNamespace(low=(1, 4), ranges=known)
    assert missing(cursor, end) == left


def test_the_journal_section_reaches_the_journal(tmp_path: Path) -> None:
    settings = _settings(site(tmp_path))
    assert (settings.commit_interval_ms, settings.compression) == (50, Compression.ZSTD)
    assert settings.group_bytes == site(tmp_path).journal.commit_bytes
    assert _settings(site(tmp_path, ", compression: none")).compression is Compression.NONE


def test_alarms_may_be_kept_longer_and_within_less_than_the_others(tmp_path: Path) -> None:
    rule = site(tmp_path, buffer=", alarms: {keep: 30d, max: 5MB}").publish[0]
    day_ns = 86_400 * 10**9
    assert [keep_ns(rule, lane) // day_ns for lane in LANES] == [30, 7]
    found = site(tmp_path)
    assert [buffer_bytes(found, rule, lane) for lane in LANES] == [5_000_000, rule.model.buffer.max_bytes]
    one = site(tmp_path, buffer=", keep: 2d, alarms: {max: 5MB}").publish[0]
    assert [keep_ns(one, lane) // day_ns for lane in LANES] == [2, 2]
