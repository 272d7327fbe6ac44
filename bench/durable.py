"""The rows about durability: the journal beside the bare disk, replay, and a start with a large backlog."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from bench import journal
from bench.formula import Mode
from bench.rig import Programs, RigError, broker, plant, running, wait_for
from bench.rows import GATEWAY, Figures, Plan
from bench.sites import SiteSpec, Topics, write_site

BACKLOG_BYTES = 1 << 30
BACKLOG_BYTES_QUICK = 100 << 20
TOGETHER = 20
REPLAY_S = 3.0  # of watching the backlog go after the first live value


def commits(folder: Path, plan: Plan) -> Figures:
    """Group commits and single ones."""
    figures = Figures(row="journal")
    for together in (1, TOGETHER):
        took = journal.commits(
            _fresh(folder / f"commits{together}"), together=together, seconds=plan.window_s / 2
        )
        figures.lines += journal.lines(took)
        figures.extra[f"ratio {together}"] = took.ratio
    used = journal.cpu(_fresh(folder / "cpu"))
    figures.cpu_us_per_point = used.whole / journal.POINTS
    figures.lines.append(
        f"CPU of a batch of {journal.POINTS} points in {used.size} bytes: {used.append:.2f} us in the loop, "
        f"{used.whole:.2f} us with the writer's thread"
    )
    return figures


def replay(folder: Path, _plan: Plan) -> Figures:
    """A backlog to ready messages that nobody needs to send."""
    done = journal.replay(_fresh(folder / "replay"))
    return Figures(
        row="replay", read_points_per_s=done.points_per_s, points_per_s=done.points_per_s,
        cpu_us_per_point=1e6 / done.points_per_s, wrong=done.wrong,
        lines=[f"{done.points:,} points from the journal to ready messages, none sent, every value checked"],
    )  # fmt: skip


class Listener:
    """Tells live values from stored ones by their epoch, and checks each."""

    def __init__(self, port: int) -> None:
        self.live_from = 1 << 62  # the first epoch that is not backlog
        self.first_live_s = 0.0
        self.counts = {"live": 0, "stored": 0, "wrong": 0}
        self.subscribed = threading.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.connect("127.0.0.1", port)
        self.client.subscribe("bench/+", qos=1)
        self.client.loop_start()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        now_s = time.monotonic()
        said: dict[str, Any] = msgspec.json.decode(message.payload)
        kind = "live" if said["e"] >= self.live_from else "stored"
        if kind == "live" and not self.first_live_s:
            self.first_live_s = now_s
        self.counts[kind] += 1
        self.counts["wrong"] += not journal.is_true(list(said["v"].values()))

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


def start_up(programs: Programs, folder: Path, plan: Plan) -> Figures:
    """`gateway run` with a backlog on disk and live values first, until the subscriber has one of these."""
    folder = _fresh(folder / "start-up")
    size_bytes = BACKLOG_BYTES if plan.window_s > 10 else BACKLOG_BYTES_QUICK
    spec = SiteSpec(
        devices=plan.devices, registers=plan.registers, scan="1s", topics=Topics.DEVICE, in_flight=plan.depth,
        is_spread=True, buffer="{max: 3GB, replay: {live_first: true}}", journal_max="4GB",
    )  # fmt: skip
    with (
        broker(folder) as middle,
        plant(programs, folder, mode=Mode.ALL, units=plan.devices, registers=plan.registers,
              ports=plan.connections, logs_reads=False) as load,
    ):  # fmt: skip
        config = write_site(folder / "site", spec, modbus_ports=load.ports, mqtt_port=middle.port)
        print("bench: start-up: writing the backlog …", file=sys.stderr, flush=True)
        records, epoch = journal.fill(config, folder / "state", size_bytes=size_bytes)
        listener = Listener(middle.port)
        try:
            if not listener.subscribed.wait(10):
                raise RigError("the listener of the row could not subscribe")
            listener.live_from = epoch + 1
            began_s = time.monotonic()
            command: list[str | Path] = [GATEWAY, "run", folder / "site", "--state", folder / "state"]
            with running("subject", command, folder=folder) as subject:
                wait_for("the first live value", lambda: listener.first_live_s > 0, subject, load.proc)
                cpu_s = subject.usage().cpu_s
                time.sleep(REPLAY_S)
                usage = subject.usage()
            seconds = listener.first_live_s - began_s
            figures = Figures(
                row="start-up", seconds=round(seconds, 3), rss_mb=usage.rss_mb, peak_mb=usage.peak_mb,
                wrong=listener.counts["wrong"], extra={"first live s": seconds, "first live cpu s": cpu_s},
            )  # fmt: skip
        finally:
            listener.close()
    stored = listener.counts["stored"]
    figures.lines.append(
        f"{size_bytes / 2**20:,.0f} MiB of backlog in {records:,} records: the first live value at the "
        f"subscriber {seconds:.2f} s after `gateway run`, {cpu_s:.2f} s of CPU; {stored:,} "
        f"stored ones came within {REPLAY_S:g} s"
    )
    shutil.rmtree(folder / "state")
    return figures


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
