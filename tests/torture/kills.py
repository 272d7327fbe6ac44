"""Kills the real gateway under load, over and over, and proves at a real subscriber that nothing is lost.

A plant whose every register can be checked, the shipped gateway, a wire that is cut and held, a mosquitto
that is restarted and killed, and a judge behind it. After each SIGKILL the marks say where it struck, and in
half of the cases what was written and not synced is torn off or spoilt, as a power cut would.
"""

from __future__ import annotations

import enum
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.core.point import Priority
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.inspection import look
from gateway.journal.reader import Record
from tests.peers import Broker
from tests.system.listeners import PahoListener
from tests.system.plant import Plant, counting_tags, wrong_values
from tests.system.process import Gateway, no_tracebacks
from tests.system.waiting import Background, until
from tests.system.wire import Wire
from tests.torture.judge import GATEWAY, Judge
from tests.torture.marks import Mark, Marks

DEVICES: Final = 12
SEGMENT_BYTES: Final = 32 << 10  # some rotations in each second
LANE: Final = Priority.NORMAL
AIM_S: Final = 3.0  # how long an aim waits for its moment
DRAIN_S: Final = 120.0  # at the end: for the backlog to go
# The broker keeps the judge's session over a restart, and never drops for a judge that is behind.
BROKER: Final = "persistence true\nautosave_interval 3600\nmax_queued_messages 0\nmax_inflight_messages 200"


class Point(enum.Enum):
    """Where a kill struck, by the marks. Each kill counts once, at the first of these that is true."""

    STARTING = "while starting"  # nothing of this run was written yet
    ROTATION = "in rotation"
    WRITING = "between write and sync"
    OWED = "between sync and acknowledgement"
    IDLE = "with nothing under way"


AIMS: Final = (Point.ROTATION, Point.WRITING, Point.OWED)


class Report(msgspec.Struct, kw_only=True):
    """What a campaign did and found."""

    seed: int
    kills: int = 0
    aimed: int = 0
    points: Counter[Point] = msgspec.field(default_factory=Counter)
    torn: int = 0
    cuts: int = 0
    restarts: int = 0
    written: int = 0  # records that were committed, or left on disk by a kill, over all runs
    delivered: int = 0  # of those
    lost: int = 0
    duplicates: int = 0
    faults: list[str] = msgspec.field(default_factory=list)

    @property
    def empty_points(self) -> list[Point]:
        """Moments that a campaign must strike and that this one did not."""
        return [point for point in AIMS if not self.points[point]]

    def line(self) -> str:
        """All of it in one."""
        struck = ", ".join(f"{self.points[point]} {point.value}" for point in Point)
        faults = f", FAULTS {len(self.faults)}" if self.faults else ""
        return (
            f"kills {self.kills} ({self.aimed} aimed, {self.kills - self.aimed} at random: {struck}; "
            f"{self.torn} torn ends), broker restarts {self.restarts}, cuts {self.cuts}, "
            f"written {self.written}, delivered {self.delivered}, lost {self.lost}, "
            f"duplicates {self.duplicates}{faults} (seed {self.seed})"
        )


def site(plant: Plant, port: int) -> dict[str, Any]:
    """Every scan a message; nothing is ever dropped for lack of room."""
    return {
        "version": 1,
        "gateway": {"name": GATEWAY, "site": "test"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "20ms"},
        "links": {
            "plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "max_in_flight": 4,
                    "reconnect": {"min": "50ms", "max": "200ms"}},
        },
        "scan": {"fast": "10ms"},
        "devices": {
            f"d{unit}": {"link": "plc", "unit": unit, "tags": counting_tags("fast")} for unit in plant.counts
        },
        "uplinks": {
            "broker": {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}", "connect_timeout": "2s",
                       "backoff": {"min": "20ms", "max": "100ms"}},
        },
        "publish": [
            {"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"},
             "buffer": {"max": "500MB"}},
        ],
    }  # fmt: skip


class Campaign:
    """`run`, once. Everything random comes from the seed; what the machine does meanwhile does not."""

    def __init__(self, folder: Path, *, broker: Broker, background: Background, seed: int) -> None:
        self.report: Final = Report(seed=seed)
        self._chance = random.Random(seed)
        self._broker = broker
        self._background = background
        self._marks_path = folder / "marks"
        self._marks = Marks.create(self._marks_path)
        self._plant = Plant(background, units=DEVICES)
        self._plant.start()
        self._judge = Judge(broker.port, self._plant)
        background.at_end.append(self._judge.close)
        self._wire = Wire(background, broker.port)
        self._wire.start()
        program = ("-m", "tests.torture.marked_gateway", str(self._marks_path), str(SEGMENT_BYTES))
        self._gateway = Gateway(folder / "gateway", site(self._plant, self._wire.port), program=program)
        self._required: dict[int, int] = {}  # epoch → everything up to here was committed
        self._owed: set[tuple[int, int]] = set()  # found on disk, committed or not
        self._spoilt: dict[str, int] = {}  # segment → where bytes that were never synced may be damaged
        self._fences = 0

    def run(self, *, kills: int, until_s: float | None = None, say: bool = False) -> Report:
        """Kill so many times, or until that monotonic time; then let everything arrive, and judge."""
        report = self.report
        self._save_session()
        try:
            while report.kills < kills and (until_s is None or time.monotonic() < until_s):
                self._live_and_die()
                if say:
                    print(f"torture: {report.line()}", file=sys.stderr, flush=True)
            self._finish()
            no_tracebacks([self._gateway])
        finally:
            self._gateway.kill()
            self._marks.close()
        return report

    # One life

    def _live_and_die(self) -> None:
        chance, gateway = self._chance, self._gateway
        self._marks.close()
        self._marks = Marks.create(self._marks_path)
        if chance.random() < 0.1:  # recovery itself is killed
            gateway.launch()
            time.sleep(chance.uniform(0.0, 1.0))
            self._strike(is_aimed=False)
            return
        gateway.start()
        before = self._judge.delivered
        until(lambda: self._judge.delivered > before + 20, "values at the judge", within_s=DRAIN_S)
        for _ in range(chance.choice((0, 1, 1, 2))):
            chance.choice((self._cut, self._cut, self._stay_away, self._hold, self._restart_broker))()
        time.sleep(chance.uniform(0.0, 0.6))
        is_aimed = bool(chance.getrandbits(1)) and self._aim(AIMS[self.report.aimed % len(AIMS)])
        self._strike(is_aimed=is_aimed)
        self._wire.release()

    def _aim(self, point: Point) -> bool:
        """Wait for a moment; whether it came."""
        marks, give_up = self._marks, time.monotonic() + AIM_S
        is_there = {
            Point.ROTATION: lambda: marks.is_rolling(LANE),
            Point.WRITING: lambda: marks.is_writing(LANE) and not marks.is_rolling(LANE),
            Point.OWED: lambda: marks.is_owed(LANE) and not marks.is_writing(LANE),
        }[point]
        while time.monotonic() < give_up:
            for _ in range(50):
                if is_there():
                    return True
            time.sleep(0)
        return False

    def _strike(self, *, is_aimed: bool) -> None:
        """SIGKILL; then what the disk keeps, and what it promised."""
        report, process = self.report, self._gateway.running
        os.kill(process.pid, signal.SIGKILL)
        code = process.wait()
        if code != -signal.SIGKILL:
            report.faults.append(f"it had ended with {code} before it was killed\n{self._gateway.log}")
        self._gateway.process = None
        report.kills += 1
        report.aimed += is_aimed
        report.points[self._struck()] += 1
        self._require(*self._marks.place(LANE, Mark.COMMITTED_EPOCH))
        if self._chance.getrandbits(1):
            report.torn += sum([self._tear(lane) for lane in Priority])
        self._read_disk()

    def _struck(self) -> Point:
        marks = self._marks
        if marks.is_rolling(LANE) and marks.get(LANE, Mark.COMMITTED_SEQ):
            return Point.ROTATION
        if not marks.get(LANE, Mark.COMMITTED_SEQ):
            return Point.STARTING
        if marks.is_writing(LANE):
            return Point.WRITING
        return Point.OWED if marks.is_owed(LANE) else Point.IDLE

    def _tear(self, lane: Priority) -> bool:
        """What was not synced may be gone, in part, or other bytes; a name too. Whether there was any."""
        marks, chance = self._marks, self._chance
        index = marks.get(lane, Mark.SEGMENT)
        folder = self._gateway.state / "journal" / lane.name.lower()
        files = list(folder.glob(f"{index:08d}-*.log")) if index else []
        if not files:
            return False
        size, synced = files[0].stat().st_size, marks.get(lane, Mark.SEGMENT_SYNCED)
        if not marks.get(lane, Mark.NAME_SYNCED) and chance.getrandbits(1):
            files[0].unlink()
            return True
        if size <= synced:
            return False
        kept = chance.randint(synced, size)
        with files[0].open("r+b") as file:
            file.truncate(kept)
            if kept > synced and chance.getrandbits(1):
                spoilt = chance.randint(synced, kept - 1)
                file.seek(spoilt)
                file.write(chance.randbytes(min(512, kept - spoilt)))
                self._spoilt[files[0].name] = synced
        return True

    def _require(self, epoch: int, seq: int) -> None:
        self._required[epoch] = max(seq, self._required.get(epoch, 0))

    def _read_disk(self) -> None:
        """What can be read in the journal is owed too, is true, and has no gap in what was committed."""
        faults = self.report.faults
        filesystem = RealFileSystem()
        if not (self._gateway.state / "journal" / LANE.name.lower()).is_dir():
            return  # killed before it made any
        for view in look(self._gateway.state / "journal", filesystem):
            place = (0, 0)
            for record in view.records(filesystem):
                epoch, seq = record.position
                if epoch == place[0] and place[1] + 1 < seq <= self._required.get(epoch, 0):
                    faults.append(f"journal: {record.position} follows {place}")
                place = record.position
                self._owed.add(place)
                self._check(record)
            faults += [
                f"journal: {damage}"
                for damage in view.damage
                if damage.offset < self._spoilt.get(damage.segment, sys.maxsize)
            ]

    def _check(self, record: Record) -> None:
        device = record.batch.layout.device
        rows = {point.tag: value for point, value, _quality, _time in record.batch.rows()}
        unit = int(device[1:])
        if None not in rows.values():
            served = self._plant.counts[unit]
            wrong = wrong_values(device, rows, unit=unit, served=served)  # type: ignore[arg-type]  # ints
            if wrong:
                self.report.faults.append(f"journal: {wrong}")

    # What goes wrong meanwhile

    def _cut(self) -> None:
        self._wire.cut()
        self.report.cuts += 1
        time.sleep(self._chance.uniform(0.0, 0.2))

    def _stay_away(self) -> None:
        """A backlog grows and goes out again, or is there when it is killed."""
        self._wire.stop()
        self.report.cuts += 1
        time.sleep(self._chance.uniform(0.05, 0.5))
        self._wire.start()

    def _hold(self) -> None:
        """Acknowledgements do not come any more: what the broker has is sent again by the next run."""
        self._wire.hold()
        time.sleep(self._chance.uniform(0.0, 0.3))

    def _restart_broker(self) -> None:
        """Stopped in order, or killed in mid-stream.

        mosquitto acknowledges what it has in memory only, so before a SIGKILL its acknowledgements are kept
        back until the judge has what was acknowledged. What dies with it is the gateway's to repeat.
        """
        self.report.restarts += 1
        if self._chance.getrandbits(1):
            self._broker.stop()
            self._broker.start()
            return
        self._wire.hold()
        self._fence()
        self._broker.kill()
        self._wire.release()
        self._broker.start()

    # Beginning and end

    def _save_session(self) -> None:
        """Have the judge's session on the broker's disk, which writes it when it is stopped in order."""
        for _ in range(2):
            self._judge.subscribed.clear()
            self._broker.stop()
            self._broker.start()
            until(self._judge.subscribed.is_set, "the judge to subscribe again")

    def _fence(self) -> None:
        """The judge has all that the broker took before this call."""
        self._fences += 1
        marker = PahoListener(self._broker.port, name="marker", clean=True)
        try:
            marker.publish("fence", {"number": self._fences})
            self._judge.wait_for(
                lambda one: one.json["number"] == self._fences, f"fence {self._fences}", within_s=DRAIN_S
            )
        finally:
            marker.close()

    def _finish(self) -> None:
        """The last run delivers what all runs owe and is stopped in order."""
        gateway, report, judge = self._gateway, self.report, self._judge
        gateway.start()
        gateway.await_connected()
        self._plant.stop()
        until(lambda: not gateway.uplink()["backlog"], "the backlog to go", within_s=DRAIN_S)
        uplink = gateway.uplink()
        if uplink["dropped_total"] or uplink["quarantined_total"]:
            report.faults.append(f"dropped or set aside: {uplink}")
        self._require(*self._marks.place(LANE, Mark.COMMITTED_EPOCH))
        code, _took_s = gateway.stop()
        if code:
            report.faults.append(f"exit {code} at the end\n{gateway.log}")
        self._read_disk()
        self._fence()
        owed = self._owed | {
            (epoch, seq) for epoch, upto in self._required.items() for seq in range(1, upto + 1)
        }
        missing = judge.missing(owed)
        report.written = len(owed)
        report.lost = len(missing)
        report.delivered = report.written - report.lost
        report.duplicates = judge.duplicates
        if missing:
            report.faults.append(f"never arrived: {missing[:5]} … {missing[-5:]}")
        report.faults += judge.said
        kept = sum(judge.faults.values())
        if kept > len(judge.said):
            report.faults.append(f"and {kept - len(judge.said)} more: {dict(judge.faults)}")
