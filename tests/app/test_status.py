"""What the status says of values: never fresh what is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.app.status import Status
from gateway.core.batch import Batch
from gateway.core.bounded import Bound
from gateway.core.point import Layout, Point, ValueType
from gateway.core.quality import BAD, COMM_LOST
from gateway.flow.image import Image

S = 1_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ns = 100 * S

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return 1_700_000_000 * S + self.now_ns

    def is_synchronised(self) -> bool:
        return True


class Plant:
    """One point read each second, one each hour."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.layouts = [
            Layout(device="d", scan=scan, points=[Point(device="d", tag=scan, type=ValueType.INT)])
            for scan in ("fast", "slow")
        ]
        self.image = Image(self.layouts)
        scans = {"fast": SimpleNamespace(every_ns=S), "slow": SimpleNamespace(every_ns=3600 * S)}
        gateway: Any = SimpleNamespace(
            hub=SimpleNamespace(image=self.image), store=SimpleNamespace(epoch=1), links={}, uplinks={}
        )
        site: Any = SimpleNamespace(scans=scans, name="g", site="s")
        self.status = Status(gateway, clock=self.clock, site=site)

    def read(self, value: int | None, quality: int = 0) -> None:
        for layout in self.layouts:
            now_ns = self.clock.now_ns
            batch = Batch(
                layout=layout, values=(value,), quality=quality, received_ns=now_ns, monotonic_ns=now_ns
            )
            self.image.update(batch)

    def shown(self, since: int = 0) -> dict[str, tuple[object, str]]:
        return {one.name: (one.value, one.quality) for one in self.status.points(since)().points}


@pytest.fixture
def plant() -> Iterator[Plant]:
    root = logging.getLogger()
    before = root.handlers[:]
    yield Plant()
    root.handlers[:] = before


def test_a_value_not_read_for_long_is_stale_by_the_measure_of_its_own_scan(plant: Plant) -> None:
    assert plant.shown() == {"d/fast": (None, "bad/not-yet-read"), "d/slow": (None, "bad/not-yet-read")}
    plant.read(7)
    plant.clock.now_ns += 13 * S
    assert plant.shown() == {"d/fast": (7, "good"), "d/slow": (7, "good")}
    counter = plant.status.points(0)().counter
    plant.clock.now_ns += S
    assert plant.shown(counter) == {"d/fast": (7, "uncertain/stale")}  # it changed, though nothing was read
    counts = plant.status._point_counts()
    assert (counts.good, counts.uncertain, counts.bad) == (1, 1, 0)
    plant.read(7)
    assert plant.shown(counter)["d/fast"] == (7, "good")


def test_bad_stays_bad_however_old(plant: Plant) -> None:
    plant.read(None, BAD | COMM_LOST)
    plant.clock.now_ns += 100_000 * S
    assert set(plant.shown().values()) == {(None, "bad/comm-lost")}


def test_what_is_dropped_or_bounded_is_a_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = Bound(noun="box", unit="things", what="`a` box", beyond="they fall", labels=("uplink",))
    levels = [bound.at(5, 7, 1).of("u"), bound.at(0, 9, 2).of("v")]
    monkeypatch.setattr("gateway.app.status.levels_of", lambda *_: levels)
    uplink = SimpleNamespace(session=SimpleNamespace(strays=3))
    gateway: Any = SimpleNamespace(
        store=SimpleNamespace(not_kept=4, journal=SimpleNamespace(stats=lambda: SimpleNamespace(lanes=()))),
        uplinks={"u": (None, uplink)},
        desk=SimpleNamespace(unaudited=6),
        links={},
        crashes={"link plc": 1},
    )
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        status = Status(gateway, clock=Clock(), site=SimpleNamespace(scans={}))  # type: ignore[arg-type]  # a stand-in
    finally:
        root.handlers[:] = before
    found = {family.name: [sample.value for sample in family.samples] for family in status.families()}
    assert found["gateway_journal_not_kept_batches_total"] == [4]
    assert found["gateway_uplink_stray_acknowledgements_total"] == [3]
    assert found["gateway_command_unaudited_commands_total"] == [6]
    assert found["gateway_box_things"] == [5, 0]
    assert found["gateway_box_limit_things"] == [7, 9]
    assert found["gateway_box_dropped_things_total"] == [1, 2]
    labels = {family.name: [sample.labels for sample in family.samples] for family in status.families()}
    assert labels["gateway_box_things"] == [(("uplink", "u"),), (("uplink", "v"),)]
