"""The gateway as a process, seen from outside: started, stopped, killed, asked, and its journal read."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from gateway.core.batch import Batch
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.inspection import journal_directory, look
from tests.system.waiting import READY_S, ROOT, STOP_S, until

_NOT_INHERITED: Final = {"JOURNAL_STREAM", "NOTIFY_SOCKET", "STATE_DIRECTORY", "COVERAGE_PROCESS_START"}
_RELOADED: Final = re.compile(r"configuration is taken over|the old one stays|configuration is unchanged")


class Answer(NamedTuple):
    """An answer of the HTTP service."""

    code: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body as an object."""
        return msgspec.json.decode(self.body)


class Gateway:
    """`python -m gateway.app.cli run DIR --state DIR` in a folder of its own; each run has its own log."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any] | None = None,
        *,
        env: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "gateway.app.cli"),
    ) -> None:
        """`program`: what Python is told to run with `run DIR --state DIR`."""
        self.folder: Final = folder
        self._program = tuple(program)
        self.config_dir: Final = folder / "config"
        self.state: Final = folder / "state"
        self._env = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        self._env.update({"PYTHONPATH": str(ROOT), **(env or {})})
        self.process: subprocess.Popen[bytes] | None = None
        self.runs = 0
        self.config_dir.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        """Write gateway.yaml; JSON is YAML."""
        (self.config_dir / "gateway.yaml").write_text(json.dumps(config, indent=1))

    def launch(self, *before: str) -> None:
        """Start it and do not wait; `before` are words in front of the command."""
        self.runs += 1
        command = [*before, sys.executable, *self._program, "run", str(self.config_dir)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--state", str(self.state)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    def start(self, *before: str) -> None:
        """Start it and return once it says that it runs and answers."""
        self.launch(*before)
        self.await_log("gateway runs")
        self.get("/healthz")

    def kill(self) -> None:
        """SIGKILL, as a power cut; nothing where it is down."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = STOP_S) -> tuple[int, float]:
        """Send a signal; the exit code and the seconds it took."""
        process = self.running
        began = time.monotonic()
        process.send_signal(number)
        try:
            code = process.wait(within_s + 10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still runs {within_s + 10:g} s after {number.name}\n{self.log}") from None
        self.process = None
        took_s = time.monotonic() - began
        assert took_s <= within_s, f"took {took_s:.1f} s to stop, {within_s:g} promised\n{self.log}"
        return code, took_s

    def wait(self, *, within_s: float = READY_S) -> int:
        """Its exit code once it has ended by itself."""
        code = self.running.wait(within_s)
        self.process = None
        return code

    def reload(self) -> str:
        """SIGHUP; what it logged about it."""
        before = len(self.log)
        self.running.send_signal(signal.SIGHUP)
        until(lambda: _RELOADED.search(self.log, before), "an answer to SIGHUP in the log")
        return self.log[before:]

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process. Raises where it is down."""
        assert self.process is not None, "the gateway is not started"
        return self.process

    @property
    def log_path(self) -> Path:
        """Of the last run."""
        return self.folder / f"run-{self.runs}.log"

    @property
    def log(self) -> str:
        """What the last run wrote so far."""
        return self.log_path.read_text(errors="replace")

    def logs(self) -> str:
        """What all runs wrote."""
        return "".join(
            (self.folder / f"run-{i}.log").read_text(errors="replace") for i in range(1, self.runs + 1)
        )

    def await_log(self, text: str, *, within_s: float = READY_S) -> None:
        """Wait until the last run wrote `text`."""

        def look() -> bool:
            assert self.running.poll() is None or text in self.log, f"ended\n{self.log}"
            return text in self.log

        try:
            until(look, f"{text!r} in the log", within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    @property
    def http(self) -> tuple[str, int]:
        """Where its HTTP service listens."""
        found = re.search(r"HTTP service listens.*?(127\.0\.0\.1):(\d+)", self.log)
        assert found is not None, f"no HTTP service\n{self.log}"
        return found[1], int(found[2])

    def get(self, path: str) -> Answer:
        """GET from its HTTP service."""
        link = http.client.HTTPConnection(*self.http, timeout=READY_S)
        try:
            link.request("GET", path)
            reply = link.getresponse()
            return Answer(reply.status, reply.read())
        finally:
            link.close()

    def status(self) -> Any:
        """`/v1/status`."""
        return self.get("/v1/status").json

    def link(self, name: str) -> Any:
        """One link of the status."""
        return next(one for one in self.status()["links"] if one["name"] == name)

    def uplink(self, name: str = "broker") -> Any:
        """One uplink of the status."""
        return next(one for one in self.status()["uplinks"] if one["name"] == name)

    def metric(self, name: str) -> float:
        """One that has no labels; 0 where it is not there."""
        text = self.get("/metrics").body.decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found is not None else 0.0

    def points(self) -> dict[str, Any]:
        """`/v1/points` by name."""
        return {point["name"]: point for point in self.get("/v1/points").json["points"]}

    def audit(self, stem: str = "commands") -> list[Any]:
        """The lines of the audit file."""
        files = sorted((self.state / "audit").glob(f"{stem}-*.jsonl"))
        return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]

    def await_connected(self, name: str = "broker") -> None:
        """Wait until the broker let it in."""
        until(lambda: self.uplink(name)["state"] == "up", f"uplink {name} up")


class Stored(NamedTuple):
    """One record of the journal."""

    epoch: int
    seq: int
    stream: str
    batch: Batch


def dump_journal(state: Path) -> list[Stored]:
    """Every whole record of a journal, by (epoch, seq). Nothing in it changes; damage fails."""
    filesystem = RealFileSystem()
    found: list[Stored] = []
    for view in look(journal_directory(state), filesystem):
        found += [
            Stored(*record.position, record.stream, record.batch) for record in view.records(filesystem)
        ]
        assert not view.damage, view.damage
    return sorted(found, key=lambda record: record[:2])


# Configurations


def no_tracebacks(gateways: Iterable[Gateway]) -> None:
    """Nothing of what they wrote is a traceback or a warning of Python's."""
    for gateway in gateways:
        text = gateway.logs()
        found = re.search(
            r"Traceback|\w(Error|Warning|Exception): |task crashed|never (awaited|retrieved)", text
        )
        assert found is None, f"{found and found[0]!r} in the log of {gateway.folder}\n{text}"
