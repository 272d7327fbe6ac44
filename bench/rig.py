"""The processes of a measurement, started and ended here, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.checker import Counters
from bench.formula import Mode
from tests.peers import PEERS, Broker

ROOT = Path(__file__).resolve().parent.parent
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READY_S = 60.0
STOP_S = 15.0
# Of the broker only what keeps it from being the limit: no windows, no delay, queues bounded by the run.
BROKER_CONFIG = "max_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n"


class RigError(Exception):
    """A measurement could not be made; says which process and what it said."""


class Usage(msgspec.Struct, frozen=True):
    """What /proc says of one process."""

    t_ns: int
    cpu_s: float
    rss_mb: float
    peak_mb: float


class Proc:
    """A child whose standard output and error are kept."""

    def __init__(self, name: str, command: Sequence[str | Path], *, folder: Path) -> None:
        self.name, self._err_path = name, folder / f"{name}.err"
        with self._err_path.open("wb") as err:
            self._popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=ROOT,
            )
        self.last_line = b""
        self.first_line = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.last_line = line
            self.first_line.set()

    @property
    def errors(self) -> str:
        """What it wrote to standard error, the last of it."""
        return self._err_path.read_text(errors="replace")[-3000:]

    def check(self) -> None:
        """Raise `RigError` where it has ended."""
        if self._popen.poll() is not None:
            raise RigError(
                f"{self.name} ended with {self._popen.returncode}: {self.errors or self.last_line!r}"
            )

    def json_line(self) -> dict[str, Any]:
        """The newest line it printed, waiting for the first."""
        if not self.first_line.wait(READY_S):
            self.check()
            raise RigError(f"{self.name} printed nothing within {READY_S:g} s: {self.errors}")
        line: dict[str, Any] = json.loads(self.last_line)
        return line

    def usage(self) -> Usage:
        """CPU and memory so far."""
        self.check()
        proc = Path(f"/proc/{self._popen.pid}")
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        status = dict(
            line.split(":", 1) for line in (proc / "status").read_text().splitlines() if ":" in line
        )
        return Usage(
            t_ns=time.monotonic_ns(),
            cpu_s=(int(fields[11]) + int(fields[12])) / TICKS_PER_S,  # utime and stime, proc(5)
            rss_mb=int(status["VmRSS"].split()[0]) / 1024,
            peak_mb=int(status["VmHWM"].split()[0]) / 1024,
        )

    def stop(self) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait()
        self._reader.join(1)
        if self._popen.stdout is not None:
            self._popen.stdout.close()


@contextmanager
def running(name: str, command: Sequence[str | Path], *, folder: Path) -> Iterator[Proc]:
    """A child for the length of a block."""
    proc = Proc(name, command, folder=folder)
    try:
        yield proc
    finally:
        proc.stop()


class Programs(msgspec.Struct, frozen=True):
    """How the load is made: compiled C, or Python where there is no compiler."""

    plant: tuple[str, ...]
    hammer: tuple[str, ...] | None

    @property
    def is_compiled(self) -> bool:
        """Whether the plant is the C one."""
        return self.hammer is not None


def build(folder: Path) -> Programs:
    """Compile plant and hammer into `folder`."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return Programs(plant=(sys.executable, "-m", "bench.plant"), hammer=None)
    for name in ("plant", "hammer"):
        source, target = ROOT / "bench" / f"{name}.c", folder / name
        command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RigError(f"{source.name} does not compile: {done.stderr}")
    return Programs(plant=(str(folder / "plant"),), hammer=(str(folder / "hammer"),))


class Plant:
    """The running plant: its ports, counters and logs."""

    def __init__(self, proc: Proc, *, reads_log: Path, writes_log: Path) -> None:
        self.proc, self.reads_log, self.writes_log = proc, reads_log, writes_log
        said = proc.json_line()
        self.ports: list[int] = said["ports"]
        self._control: int = said["control"]

    def counters(self) -> dict[str, int]:
        """reads, registers, writes, refused, cpu_us, t_ns; flushes the log of reads."""
        with socket.create_connection(("127.0.0.1", self._control), timeout=10) as link:
            said: dict[str, int] = json.loads(link.makefile("rb").read())
            return said


@contextmanager
def plant(
    programs: Programs, folder: Path, *, mode: Mode, units: int, registers: int, ports: int, logs_reads: bool
) -> Iterator[Plant]:
    """A plant on fresh ports."""
    reads, writes = folder / "reads.log", folder / "writes.log"
    command = [*programs.plant, mode.value, str(units), str(registers), str(ports)]
    command += [str(reads) if logs_reads else "-", str(writes)]
    with running("plant", command, folder=folder) as proc:
        yield Plant(proc, reads_log=reads, writes_log=writes)


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A mosquitto of our own."""
    program = PEERS["mosquitto"].find()
    if program is None:
        raise RigError("mosquitto is missing: apt-get install mosquitto")
    running_broker = Broker(program=program, folder=folder / "mosquitto", config=BROKER_CONFIG)
    running_broker.start()
    try:
        yield running_broker
    finally:
        running_broker.kill()


class CheckerProc:
    """The subscriber that verifies, in its own process."""

    def __init__(self, proc: Proc, arrivals: Path) -> None:
        self.proc, self.arrivals = proc, arrivals

    def counters(self) -> Counters:
        """Its newest snapshot, at most 100 ms old."""
        self.proc.check()
        return msgspec.convert(self.proc.json_line(), Counters)


@contextmanager
def checker(
    folder: Path, *, mqtt_port: int, topics: str, mode: Mode, registers: int, logs_arrivals: bool
) -> Iterator[CheckerProc]:
    """A checker that has subscribed."""
    arrivals = folder / "arrivals.log"
    command = [sys.executable, "-m", "bench.checker", str(mqtt_port), topics, mode.value, str(registers)]
    command.append(str(arrivals) if logs_arrivals else "-")
    with running("checker", command, folder=folder) as proc:
        proc.json_line()
        yield CheckerProc(proc, arrivals)


def wait_for(what: str, is_there: Callable[[], bool], *procs: Proc) -> None:
    """Look again until it is there. Raises `RigError` after `READY_S`, or when one of the processes ends."""
    give_up = time.monotonic() + READY_S
    while not is_there():
        for proc in procs:
            proc.check()
        if time.monotonic() > give_up:
            said = "; ".join(f"{proc.name}: {proc.errors}" for proc in procs)
            raise RigError(f"waited {READY_S:g} s in vain for {what}: {said}")
        time.sleep(0.05)
