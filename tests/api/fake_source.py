"""A gateway that is told what it knows: for tests of everything that looks at one from outside."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gateway.api.source import (
    CommandCounts,
    DeviceStatus,
    Family,
    Frames,
    FrameView,
    Health,
    JournalStatus,
    LinkStatus,
    Notice,
    PointCounts,
    Points,
    PointView,
    Sample,
    Status,
    UplinkStatus,
)

TIME = "2026-05-01T12:00:00.123Z"


def point(name: str, value: bool | float | str | None, **more: object) -> PointView:
    """One point, good unless told otherwise."""
    fields: dict[str, object] = {
        "quality": "good",
        "time": TIME,
        "time_origin": "gateway",
        "age_s": 0.2,
        **more,
    }
    return PointView(name=name, value=value, **fields)  # type: ignore[arg-type]  # tests give what they mean


def plant_points() -> list[PointView]:
    """The demo plant at one moment, with one dead sensor and one doubtful value."""
    return [
        point("boiler/burner", 45.1, unit="%"),
        point("boiler/water_temp", 65.2, unit="°C"),
        point("boiler/pressure", 1.5820000171661377, unit="bar"),
        point("boiler/state", 3, text="heating"),
        point("boiler/flame", True),
        point("boiler/setpoint", 65.0, unit="°C", writable=True),
        point("boiler/low_water", False),
        point("tank/level", 55.57, unit="%"),
        point("tank/inflow", None, unit="m3/h", quality="bad/comm-lost", age_s=14.2),
        point("tank/outflow", 24.36, unit="m3/h", quality="uncertain/out-of-range"),
        point("tank/hours", 4711, unit="h", age_s=8.0),
        point("meter/u1", 230.8699951171875, unit="V"),
        point("meter/i1", 8.123000144958496, unit="A"),
        point("meter/cos_phi", 0.943),
        point("meter/energy", 18342.31, unit="kWh", age_s=7.1),
        point("meter/serial", "EM340-07", age_s=7.1),
        point(
            "meter/frequency",
            None,
            unit="Hz",
            quality="bad/not-yet-read",
            age_s=None,
            time=None,
            time_origin=None,
        ),
    ]


def plant_status(**more: object) -> Status:
    """The status that goes with `plant_points`."""
    fields: dict[str, object] = {
        "gateway": "demo",
        "site": "plant",
        "version": "0.1.0",
        "config_version": "a1b2c3d4",
        "epoch": 3,
        "seq": 412,
        "time": TIME,
        "time_synchronised": True,
        "started": TIME,
        "uptime_s": 42.0,
        "points": PointCounts(good=14, uncertain=1, bad=2),
        "points_per_s": 66.0,
        "links": (
            LinkStatus(
                name="plc",
                driver="modbus",
                peer="127.0.0.1:15020",
                state="up",
                since=TIME,
                requests_total=400,
                requests_per_s=14.2,
                points_per_s=66.0,
                timeouts_total=2,
                exceptions_total={"2": 5},
                utilisation_percent=37.5,
                in_flight_limit=2,
                devices=(
                    DeviceStatus(name="boiler", state="ok", scans_total=210),
                    DeviceStatus(name="tank", state="degraded", reason="ir:1..2 illegal data address"),
                ),
            ),
        ),
        "uplinks": (
            UplinkStatus(
                name="local",
                kind="mqtt",
                peer="127.0.0.1:18830",
                state="up",
                backlog=3,
                in_flight=3,
                in_flight_limit=20,
                published_total=4010,
                acknowledged_total=4007,
                messages_per_s=82.4,
            ),
        ),
        "journal": JournalStatus(
            state="ok", size_bytes=1_234_567, limit_bytes=500_000_000, committed_epoch=3, committed_seq=409
        ),
        "commands": CommandCounts(accepted_total=1, sent_total=1, verified_total=1),
        "notices": (Notice(time=TIME, level="warning", text="tank: ir:1..2 answers illegal data address"),),
        **more,
    }
    return Status(**fields)  # type: ignore[arg-type]  # tests give what they mean


class FakeSource:
    """A `StatusSource` made of attributes."""

    def __init__(self) -> None:
        self.is_ok = True
        self.point_list = plant_points()
        self.status_now = plant_status()
        self.points_may_be_made = threading.Event()
        self.points_may_be_made.set()
        self.asked_since: list[int] = []
        self.fault: Exception | None = None
        self.watched = {"plc": 0}  # links → for how long frames are kept, in ns

    def health(self) -> Health:
        if self.is_ok:
            return Health(ok=True)
        return Health(ok=False, reasons=("journal: cannot write",))

    def status(self) -> Status:
        if self.fault is not None:
            raise self.fault
        return self.status_now

    def points(self, since: int) -> Callable[[], Points]:
        self.asked_since.append(since)

        def make() -> Points:
            self.points_may_be_made.wait(10)
            if self.fault is not None:
                raise self.fault
            found = [point for point in self.point_list if point.changed > since or since == 0]
            return Points(epoch=3, counter=9, points=found)

        return make

    def frames(self, link: str, since: int) -> Frames | None:
        if link not in self.watched:
            return None
        left_s = self.watched[link] / 1e9
        views = [
            FrameView(number=number, time=TIME, way="sent", hex="01 07", text=f"frame {number}")
            for number in range(since + 1, 4)
        ]
        return Frames(link=link, watched_s=left_s, last=3, missed=0, frames=views if left_s else [])

    def watch_frames(self, link: str, for_ns: int) -> Frames | None:
        if link in self.watched:
            self.watched[link] = for_ns
        return self.frames(link, 3)

    def families(self) -> tuple[Family, ...]:
        return (
            Family(
                name="gateway_loop_lag_seconds",
                help="How late timers fire",
                kind="gauge",
                samples=(Sample(0.002),),
            ),
        )
