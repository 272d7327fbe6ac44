"""`gateway demo`: a simulated plant, a broker, and the gateway between them, run as a user would run it.

One thread, one loop: read what arrives at the broker, ask the gateway how it is, draw. The plant, the broker
and the gateway are processes of their own that end with this one, whatever ends it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from rich.console import Console

from gateway.app.demo import broker as brokers
from gateway.app.demo.child import Child, ChildFailed
from gateway.app.demo.mqtt_client import MqttClient
from gateway.app.demo.ports import HOST, Place, demo_config, settle
from gateway.app.demo.tally import ROOT, Tally
from gateway.app.demo.write_back import FOLLOWER, TARGET, TTL_S, Step, WriteBack, next_value
from gateway.app.table import TableView, duration, glyphs_for
from gateway.app.watch import GatewayClient, Screen, interrupted_by_sigterm, open_screen, refresh
from gateway.core.errors import GatewayError, LinkError

START_TIMEOUT_S: Final = 20.0  # for one part; a Raspberry Pi takes a few seconds for Python alone
STOP_TIMEOUT_S: Final = 8.0
LOOK_S: Final = 0.25
WRITE_AFTER_S: Final = 3.0  # of values arriving
WRITE_EVERY_S: Final = 60.0
FOLLOW_S: Final = 10.0  # left for the water to move; with less, a run's end does not judge it


def demo(
    for_s: float | None = None,
    *,
    config: Path | None = None,
    broker: brokers.BrokerKind | None = None,
    gateway: Callable[[Path], list[str]] | None = None,
    console: Console | None = None,
) -> int:
    """Run until Ctrl-C or SIGTERM, or for `for_s` seconds; show a live table, then a summary.

    `config` is a directory with the demo's configuration, None for the one that comes with the gateway;
    `broker` is None for the best there is; `gateway` gives the command that runs a directory. Returns 0, or 1
    when no value arrived at the broker, a set-point did not come back, or a part failed: then it says which,
    and shows that part's last words.
    """
    console = console or Console()
    directory = Path(tempfile.mkdtemp(prefix="gateway-demo-"))
    run = _Demo(directory, console, gateway or gateway_command)
    failure = ""
    try:
        with interrupted_by_sigterm():
            try:
                run.start(settle(config or demo_config(), copy_to=directory / "config"), broker)
                with open_screen(console) as screen:
                    run.watch(screen, for_s=for_s)
                run.drain()
            except (KeyboardInterrupt, BrokenPipeError):
                run.is_interrupted = True
            except (GatewayError, OSError) as error:
                failure = str(error)
            finally:
                run.stop()
    except KeyboardInterrupt:
        run.is_interrupted = True  # a second one, while stopping: the guards end what is left
    failure = failure or run.verdict()
    run.print_summary(failure)
    if failure:
        console.print(f"logs are kept in {directory}", markup=False, soft_wrap=True)
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def gateway_command(config: Path) -> list[str]:
    """How a user starts the gateway."""
    return [sys.executable, "-m", "gateway.app.cli", "run", str(config)]


class _Demo:
    """The parts, and what was seen of them."""

    def __init__(self, directory: Path, console: Console, command: Callable[[Path], list[str]]) -> None:
        self.is_interrupted = False
        self._directory = directory
        self._console = console
        self._command = command
        self._children: list[Child] = []
        self._gateway: Child | None = None
        self._client: GatewayClient | None = None
        self._observer: MqttClient | None = None
        self._tally = Tally(site="")
        self._view = TableView(glyphs=glyphs_for(console))
        self._write_backs: list[WriteBack] = []
        self._first_value_ns: int | None = None
        self._began_ns = time.monotonic_ns()
        self._ends_ns: int | None = None
        self._gateway_exit: int | None = None

    # Start

    def start(self, place: Place, kind: brokers.BrokerKind | None) -> None:
        """Plant, broker and gateway, each ready before the next one is needed."""
        ports = place.ports
        if place.remark:
            self._say(place.remark)
        plant = self._child(
            "plant", [sys.executable, "-m", "gateway.app.demo.server", "--port", str(ports.modbus)]
        )
        broker = brokers.start(kind or brokers.choose(), directory=self._directory, port=ports.mqtt)
        self._children.append(broker.child)
        _wait(plant, lambda: b"ready " in plant.log.read_bytes())
        broker.wait_ready()
        self._say(f"plant at modbus://{HOST}:{ports.modbus}, broker {broker.description}")
        self._observer = MqttClient(host=HOST, port=ports.mqtt, client_id="demo-observer")
        self._observer.connect()
        self._observer.subscribe(f"{ROOT}#")
        state = self._directory / "state"
        state.mkdir()
        os.environ["STATE_DIRECTORY"] = str(state)  # as systemd would give it
        self._gateway = self._child("gateway", self._command(place.config))
        self._client = GatewayClient(f"http://{HOST}:{ports.http}")
        _wait(self._gateway, self._gateway_answers)
        self._tally = Tally(site=self._client.status().site)
        self._say(f"gateway {place.config}, http://{HOST}:{ports.http}/v1/status, {ROOT}# at the broker")

    def _child(self, name: str, command: list[str]) -> Child:
        child = Child(name, command, log=self._directory / f"{name}.log")
        self._children.append(child)
        return child

    def _gateway_answers(self) -> bool:
        assert self._client is not None
        try:
            self._client.status()
        except LinkError:
            return False
        return True

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    # Run

    def watch(self, screen: Screen, *, for_s: float | None) -> None:
        """Count, write, draw, until the time is over."""
        assert self._observer is not None
        assert self._client is not None
        self._began_ns = time.monotonic_ns()
        self._ends_ns = None if for_s is None else self._began_ns + int(for_s * 1e9)
        next_look_ns = 0
        while self._ends_ns is None or time.monotonic_ns() < self._ends_ns:
            self._read(wait_s=LOOK_S / 2)
            now_ns = time.monotonic_ns()
            self._keep_writing(now_ns)
            if now_ns >= next_look_ns:
                next_look_ns = now_ns + int(LOOK_S * 1e9)
                for child in self._children:
                    child.require_running()
                refresh(self._view, self._client)
                self._note_arrivals()
                screen.show(self._view)

    def _read(self, *, wait_s: float) -> None:
        assert self._observer is not None
        messages = self._observer.messages(wait_s=wait_s)
        now_ns = time.monotonic_ns()
        for message in messages:
            tag = self._tally.take(message)
            if self._first_value_ns is None and tag is not None:
                self._first_value_ns = now_ns
            if self._write_backs:
                self._write_backs[-1].on_message(message, tag=tag, now_ns=now_ns)

    def _keep_writing(self, now_ns: int) -> None:
        if self._write_backs:
            last = self._write_backs[-1]
            last.on_time(now_ns)
            style = {Step.FAILED: "bold red", Step.MOVED: "green"}.get(last.step, "yellow")
            self._view.note(last.describe(), style=style, key=f"write {len(self._write_backs)}")
        if self._is_write_due(now_ns):
            self._write(now_ns)

    def _is_write_due(self, now_ns: int) -> bool:
        tags = self._tally.tags
        follower = tags.get(FOLLOWER)
        if TARGET not in tags or follower is None or not isinstance(follower.value, (int, float)):
            return False
        if self._first_value_ns is None:
            return False
        after_s = WRITE_AFTER_S
        if self._ends_ns is not None:
            after_s = min(after_s, (self._ends_ns - self._began_ns) / 1e9 / 8)
        after_s += WRITE_EVERY_S * len(self._write_backs)
        is_free = not self._write_backs or self._write_backs[-1].is_over
        has_time = self._ends_ns is None or not self._write_backs or self._ends_ns - now_ns > FOLLOW_S * 2e9
        return is_free and has_time and now_ns - self._first_value_ns >= after_s * 1e9

    def _write(self, now_ns: int) -> None:
        assert self._observer is not None
        tags = self._tally.tags
        write_back = WriteBack(
            tally=self._tally,
            value_c=next_value(tags[TARGET].value),
            id=f"demo-{uuid.uuid4().hex[:12]}",
            now_ns=now_ns,
            wall_ms=time.time_ns() // 1_000_000,
        )
        self._write_backs.append(write_back)
        self._observer.publish(write_back.topic, write_back.payload, expiry_s=TTL_S)

    def _note_arrivals(self) -> None:
        tally = self._tally
        seconds = max((time.monotonic_ns() - self._began_ns) / 1e9, 0.1)
        text = (
            f"at the broker: {tally.messages} messages ({tally.messages / seconds:.0f}/s), "
            f"{len(tally.tags)} tags, {tally.gaps} gaps, {tally.duplicates} duplicates"
        )
        self._view.note(text, key="arrivals")

    # Stop

    def drain(self) -> None:
        """Let the gateway end and count what it still sends."""
        assert self._gateway is not None
        self._gateway.require_running()
        self._gateway.ask_to_stop()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self._gateway.is_running and time.monotonic() < deadline:
            self._read(wait_s=0.05)
        self._gateway_exit = self._gateway.stop()
        self._read(wait_s=0.05)

    def stop(self) -> None:
        """End everything, the gateway first. Never raises."""
        if self._observer is not None:
            self._observer.close()
        if self._client is not None:
            self._client.close()
        for child in reversed(self._children):
            code = child.stop()
            if child is self._gateway:
                self._gateway_exit = code

    # Tell

    def verdict(self) -> str:
        """What is wrong with this run, "" when nothing is."""
        failed = [write_back for write_back in self._write_backs if write_back.failure]
        if failed:
            return f"the write-back failed: {failed[0].describe()}\n{self._words()}"
        if self._gateway_exit not in {0, None}:
            return f"the gateway ended with exit code {self._gateway_exit}, expected 0\n{self._words()}"
        if self.is_interrupted:
            return ""
        if not self._tally.tags:
            return f"no value arrived at the broker\n{self._words()}"
        if not self._write_backs or not self._write_backs[0].is_verified:
            state = self._write_backs[0].describe() if self._write_backs else f"no value of {TARGET} was seen"
            return f"the set-point was not verified before the end: {state}\n{self._words()}"
        return ""

    def _words(self) -> str:
        return self._gateway.last_words() if self._gateway is not None else ""

    def print_summary(self, failure: str) -> None:
        """Counts, the set-point's way, and what is wrong."""
        tally = self._tally
        seconds = (time.monotonic_ns() - self._began_ns) / 1e9
        epochs = "1 epoch" if tally.epochs == 1 else f"{tally.epochs} epochs"
        scans = f"{tally.scans} of them whole scans, {tally.messages / seconds:.0f}/s"
        rows = [
            ("tags", f"{len(tally.tags)} arrived at the broker, {tally.good} of them good now"),
            ("messages", f"{tally.messages}, {scans}"),
            ("sequence", f"{epochs}, {tally.gaps} gaps, {tally.duplicates} duplicates"),
            *(("set-point", one.describe().removeprefix("set-point ")) for one in self._write_backs),
        ]
        if tally.unreadable:
            rows.append(("unreadable", f"{tally.unreadable} messages without a value"))
        if self._console.is_terminal and tally.tags:
            self._console.print(self._view)  # what was on the screen stays to be read
            self._console.print()
        ended = f"demo ended after {duration(seconds)}"
        self._console.print(ended, markup=False, highlight=False)
        for title, text in rows:
            self._console.print(f"  {title:<11}{text}", markup=False, highlight=False, soft_wrap=True)
        if failure:
            self._console.print(
                f"  failed     {failure}", markup=False, highlight=False, soft_wrap=True, style="red"
            )


def _wait(child: Child, is_ready: Callable[[], bool]) -> None:
    """Until `is_ready()` or the time is over; raises `ChildFailed` with the child's last words."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not is_ready():
        child.require_running()
        if time.monotonic() >= deadline:
            raise ChildFailed(f"{child.name} is not ready after {START_TIMEOUT_S:g} s:\n{child.last_words()}")
        time.sleep(0.02)
