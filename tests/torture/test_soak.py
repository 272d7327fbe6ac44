"""A simulated day with every outage in each two hours; months are `script/torture --soak MONTHS`."""

from __future__ import annotations

from pathlib import Path

from tests.torture.soak import WARM_UP, Sample, Soak, growth


def test_a_day_of_outages_leaves_nothing_behind_and_loses_nothing(tmp_path: Path) -> None:
    soaked = Soak(tmp_path, seed=3, cycle_hours=2, scan="30s").run(cycles=12)
    print(soaked.line())
    assert not soaked.faults, "\n".join(soaked.faults)
    assert len(soaked.outages) == 8
    assert min(soaked.outages.values()) == 12
    assert soaked.values > 3_000


def test_growth_is_seen() -> None:
    flat = [Sample(hour, {"tasks": 9 + hour % 2, "objects": 50_000 + 100 * (hour % 3)}) for hour in range(12)]
    assert growth(flat) == []
    leaking = [Sample(hour, {"tasks": 9 + hour // 2, "objects": 50_000 + 400 * hour}) for hour in range(12)]
    assert [found.split()[0] for found in growth(leaking)] == ["tasks", "objects"]
    assert "too few" in growth(flat[: WARM_UP + 2])[0]
