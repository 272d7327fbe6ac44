"""The kill campaign in short: the long one is `script/torture --kills 200`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.peers import mosquitto, require
from tests.system.waiting import Background
from tests.torture.kills import BROKER, Campaign, Point

KILLS = 10


@pytest.mark.interop
@pytest.mark.kills
@pytest.mark.timeout(180)
def test_gateway_killed_under_load_loses_nothing_committed(tmp_path: Path) -> None:
    require("paho")
    background = Background()
    with mosquitto(tmp_path, BROKER) as broker:
        try:
            report = Campaign(tmp_path, broker=broker, background=background, seed=7).run(kills=KILLS)
        finally:
            background.close()
    print(report.line())
    assert not report.faults, "\n".join(report.faults)
    assert report.lost == 0
    assert report.kills == KILLS
    assert sum(report.points.values()) == KILLS
    assert report.points[Point.STARTING] < KILLS, "never under load"
    assert report.written > 500
    assert re.search(r"lost 0, duplicates \d+ \(seed 7\)$", report.line())
