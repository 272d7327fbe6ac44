"""The rows: each starts its processes, lets them settle, measures a window and says what it saw."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.commander import CommandFigures, drive
from bench.formula import Mode
from bench.rig import (
    ROOT,
    CheckerProc,
    Plant,
    Proc,
    Programs,
    RigError,
    broker,
    checker,
    plant,
    running,
    wait_for,
)
from bench.sites import SiteSpec, Topics, write_site

GATEWAY = Path(sys.executable).with_name("gateway")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how large."""

    window_s: float
    settle_s: float
    devices: int = 100
    registers: int = 100
    connections: int = 4
    depth: int = 8
    commands: int = 200


class Figures(msgspec.Struct, kw_only=True):
    """What one row saw. Rates are over the window; a point is a register read, or delivered."""

    row: str
    seconds: float = 0.0
    read_points_per_s: float = 0.0
    points_per_s: float = 0.0  # delivered and checked
    messages_per_s: float = 0.0
    cpu_us_per_point: float | None = None  # CPU of the subject ÷ points read
    cpu_us_per_message: float | None = None
    cpu_percent: float | None = None  # of one core
    rss_mb: float | None = None
    peak_mb: float | None = None
    latency_ms: dict[str, float] | None = None
    command_ms: dict[str, float] | None = None
    commands: CommandFigures | None = None
    fdatasync_ms: dict[str, float] | None = None
    broker_ms: dict[str, float] | None = None  # publisher to subscriber, nothing of ours between
    wrong: int = 0
    bad: int = 0
    duplicates: int = 0
    late: int = 0
    missing: int = 0
    refused: int = 0
    others: dict[str, float] = {}  # CPU of plant, broker and checker in percent of one core
    note: str = ""
    extra: dict[str, float] = {}  # figures of single rows, for their goals
    lines: list[str] = []  # and what they say in words

    def faults(self) -> list[str]:
        """What must be zero and is not."""
        counted = {"wrong": self.wrong, "null": self.bad, "missing": self.missing, "refused": self.refused}
        return [f"{count} {name}" for name, count in counted.items() if count]


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """p50, p99 and max, by nearest rank."""
    ranked = sorted(values_ms)
    if not ranked:
        return {}
    at = {"p50": 0.50, "p99": 0.99, "max": 1.0}
    return {name: round(ranked[math.ceil(len(ranked) * part) - 1], 3) for name, part in at.items()}


def ceiling(programs: Programs, folder: Path, plan: Plan) -> Figures:
    """What the plant itself can do, read by a C client that looks at nothing."""
    if programs.hammer is None:
        return Figures(
            row="plant", note="no C compiler: a Python plant, ceiling not measured; figures may be its own"
        )
    with plant(programs, folder, mode=Mode.ALL, units=plan.devices, registers=plan.registers,
               ports=plan.connections, logs_reads=False) as load:  # fmt: skip
        numbers = [min(plan.window_s, 3.0), plan.devices, plan.registers, plan.depth, *load.ports]
        done = subprocess.run(
            [*programs.hammer, *map(str, numbers)], capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise RigError(f"hammer: {done.stderr}")
        said = json.loads(done.stdout)
    rate = said["registers"] / said["seconds"]
    return Figures(row="plant", seconds=said["seconds"], read_points_per_s=rate)


Start = Callable[[Plant, int, Path], list[str | Path]]  # → the subject's command


def naive(plan: Plan) -> Start:
    """pymodbus and paho."""
    return lambda load, mqtt_port, _folder: [
        sys.executable, "-m", "bench.naive",
        *map(str, (load.ports[0], mqtt_port, plan.devices, plan.registers)),
    ]  # fmt: skip


def raw(plan: Plan) -> Start:
    """The bare path."""
    return lambda load, mqtt_port, _folder: [
        sys.executable, "-m", "bench.raw",
        *map(str, (mqtt_port, plan.devices, plan.registers, plan.depth, *load.ports)),
    ]  # fmt: skip


def gateway(spec: SiteSpec) -> Start:
    """The shipped command on the YAML of the row, after `gateway check` accepted it."""

    def start(load: Plant, mqtt_port: int, folder: Path) -> list[str | Path]:
        if not GATEWAY.exists():
            raise RigError(f"{GATEWAY} is missing: run script/setup")
        site = folder / "site"
        write_site(site, spec, modbus_ports=load.ports, mqtt_port=mqtt_port)
        checked = subprocess.run(
            [GATEWAY, "check", site], capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
        )
        if checked.returncode:
            raise RigError(f"gateway check refuses {site}:\n{checked.stdout}{checked.stderr}")
        return [GATEWAY, "run", site, "--state", folder / "state"]

    return start


def measure(
    row: str,
    start: Start,
    *,
    programs: Programs,
    folder: Path,
    plan: Plan,
    mode: Mode,
    devices: int | None = None,
    is_timed: bool = False,
    topics: Topics = Topics.DEVICE,
    commands: int = 0,
) -> Figures:
    """One row. `is_timed`: log reads and arrivals, for end-to-end latency; `commands`: how many to send."""
    folder = folder / row.replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    units = devices or plan.devices
    topic_filter = "bench/+" if topics is Topics.DEVICE else "bench/+/+"
    with (
        broker(folder) as middle,
        plant(programs, folder, mode=mode, units=units, registers=plan.registers, ports=plan.connections,
              logs_reads=is_timed) as load,
        checker(folder, mqtt_port=middle.port, topics=topic_filter, mode=mode, registers=plan.registers,
                logs_arrivals=is_timed) as check,
        running("subject", start(load, middle.port, folder), folder=folder) as subject,
    ):  # fmt: skip
        wait_for("the first value", lambda: check.counters().points > 0, subject, check.proc, load.proc)
        time.sleep(plan.settle_s)
        before = Snapshot(subject, load, check, middle.pid)
        sent = None
        if commands:
            with fdatasync_probe(folder) as took_ms:
                sent = drive(middle.port, devices=units, count=commands)
        rest_s = plan.window_s - (time.monotonic_ns() - before.usage.t_ns) / 1e9
        time.sleep(max(rest_s, 0.0))
        after = Snapshot(subject, load, check, middle.pid)
        figures = _between(row, before, after)
        if is_timed:
            time.sleep(0.3)  # the checker's last arrivals reach its file with its next snapshot
            load.counters()
            figures.latency_ms = percentiles(
                _latencies(load.reads_log, check.arrivals, since_ns=before.usage.t_ns)
            )
        if sent is not None:
            wait_for(
                "the writes of all commands",
                lambda: load.counters()["writes"] >= commands,
                subject,
                load.proc,
            )
            figures.commands = sent.figures
            figures.command_ms = percentiles(_command_latencies(load.writes_log, sent.sent_ns))
            figures.broker_ms = percentiles(sent.echoes_ms)
            figures.fdatasync_ms = percentiles(took_ms)
    return figures


class Snapshot:
    """All counters at one moment."""

    def __init__(self, subject: Proc, load: Plant, check: CheckerProc, broker_pid: int) -> None:
        self.usage = subject.usage()
        self.load = load.counters()
        self.checked = check.counters()
        self.checker = check.proc.usage()
        fields = Path(f"/proc/{broker_pid}/stat").read_text().rpartition(")")[2].split()
        self.broker_cpu_s = (int(fields[11]) + int(fields[12])) / 100
        self.broker_t_ns = time.monotonic_ns()


def _between(row: str, before: Snapshot, after: Snapshot) -> Figures:
    seconds = (after.usage.t_ns - before.usage.t_ns) / 1e9
    cpu_s = after.usage.cpu_s - before.usage.cpu_s
    load_s = (after.load["t_ns"] - before.load["t_ns"]) / 1e9
    checked_s = (after.checked.t_ns - before.checked.t_ns) / 1e9
    read_rate = (after.load["registers"] - before.load["registers"]) / load_s
    messages = (after.checked.messages - before.checked.messages) / checked_s
    broker_s = (after.broker_t_ns - before.broker_t_ns) / 1e9
    checker_s = (after.checker.t_ns - before.checker.t_ns) / 1e9
    return Figures(
        row=row,
        seconds=round(seconds, 3),
        read_points_per_s=read_rate,
        points_per_s=(after.checked.points - before.checked.points) / checked_s,
        messages_per_s=messages,
        cpu_us_per_point=cpu_s / seconds / read_rate * 1e6 if read_rate else None,
        cpu_us_per_message=cpu_s / seconds / messages * 1e6 if messages else None,
        cpu_percent=100 * cpu_s / seconds,
        rss_mb=after.usage.rss_mb,
        peak_mb=after.usage.peak_mb,
        wrong=after.checked.wrong,
        bad=after.checked.bad - before.checked.bad,
        duplicates=after.checked.duplicates - before.checked.duplicates,
        late=after.checked.late - before.checked.late,
        missing=after.checked.missing,
        refused=after.load["refused"],
        others={
            "plant": (after.load["cpu_us"] - before.load["cpu_us"]) / load_s / 1e4,
            "broker": 100 * (after.broker_cpu_s - before.broker_cpu_s) / broker_s,
            "checker": 100 * (after.checker.cpu_s - before.checker.cpu_s) / checker_s,
        },
    )


def _records(path: Path, form: str) -> list[tuple[Any, ...]]:
    data = path.read_bytes()
    record = struct.Struct(form)
    return list(record.iter_unpack(data[: len(data) // record.size * record.size]))


def _latencies(reads_log: Path, arrivals: Path, *, since_ns: int) -> list[float]:
    """From the moment the device answered to the moment the subscriber read the message, ms."""
    shown = {(unit, read): t_ns for unit, _, read, t_ns in _records(reads_log, "<HHIQ")}
    return [
        (t_ns - shown[unit, read]) / 1e6
        for unit, _, read, t_ns in _records(arrivals, "<HHIQ")
        if t_ns >= since_ns and (unit, read) in shown
    ]


def _command_latencies(writes_log: Path, sent_ns: dict[tuple[int, int], int]) -> list[float]:
    """From the moment a command was handed to the kernel to the moment the device took the write, ms."""
    written = {(unit, value): t_ns for unit, _, value, _, t_ns in _records(writes_log, "<HHHHQ")}
    return [(written[key] - t_ns) / 1e6 for key, t_ns in sent_ns.items() if key in written]


@contextmanager
def fdatasync_probe(folder: Path) -> Iterator[list[float]]:
    """Meanwhile, what one append of 200 bytes with its fdatasync costs on the same disk, ms."""
    took_ms: list[float] = []
    is_over = threading.Event()

    def probe() -> None:
        descriptor = os.open(folder / "fdatasync.probe", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            while not is_over.wait(0.02):
                before = time.monotonic_ns()
                os.write(descriptor, b"x" * 200)
                os.fdatasync(descriptor)
                took_ms.append((time.monotonic_ns() - before) / 1e6)
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield took_ms
    finally:
        is_over.set()
        thread.join()
