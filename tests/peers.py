"""The stacks that nobody here wrote, as tests use them: found or refused, started on a free port, ended.

A test that needs one is marked `@pytest.mark.interop` and calls `require` first. A missing peer skips the
test with its reason on a workbench and fails it where `CI` is set.
"""

from __future__ import annotations

import enum
import getpass
import importlib.util
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec
import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
LOOPBACK: Final = "127.0.0.1"
READY_S: Final = 10.0  # real seconds a peer gets to answer its first handshake
STOP_S: Final = 10.0  # and to end after SIGTERM
PORT_TRIES: Final = 5  # another process may take a port between the kernel naming it and the peer binding it


class Source(enum.Enum):
    """Where a peer comes from."""

    DEBIAN = "apt-get install"
    PYPI = "pip install"
    NPM = "script/setup --test installs, with node and npm,"


class Peer(msgspec.Struct, frozen=True):
    """One peer: what is looked for (a program on PATH, a module, a folder) and what brings it."""

    look_for: str
    source: Source
    package: str

    def find(self) -> str | None:
        """The program's path, the module's name or the folder; None where it is missing."""
        if self.source is Source.DEBIAN:
            return shutil.which(self.look_for) or shutil.which(
                self.look_for, path="/usr/sbin:/usr/local/sbin"
            )
        if self.source is Source.NPM:
            folder = ROOT / self.look_for
            return str(folder) if shutil.which("node") and (folder / "node_modules").is_dir() else None
        return self.look_for if importlib.util.find_spec(self.look_for) is not None else None


PEERS: Final[Mapping[str, Peer]] = MappingProxyType(
    {
        "mosquitto": Peer("mosquitto", Source.DEBIAN, "mosquitto"),
        "mosquitto_pub": Peer("mosquitto_pub", Source.DEBIAN, "mosquitto-clients"),
        "mosquitto_sub": Peer("mosquitto_sub", Source.DEBIAN, "mosquitto-clients"),
        "mbpoll": Peer("mbpoll", Source.DEBIAN, "mbpoll"),
        "tshark": Peer("tshark", Source.DEBIAN, "tshark"),
        "text2pcap": Peer("text2pcap", Source.DEBIAN, "wireshark-common"),
        "xxd": Peer("xxd", Source.DEBIAN, "xxd"),
        "socat": Peer("socat", Source.DEBIAN, "socat"),
        "openssl": Peer("openssl", Source.DEBIAN, "openssl"),
        "systemd-analyze": Peer("systemd-analyze", Source.DEBIAN, "systemd"),
        "pymodbus": Peer("pymodbus", Source.PYPI, "pymodbus"),
        "c104": Peer("c104", Source.PYPI, "c104"),
        "paho": Peer("paho", Source.PYPI, "paho-mqtt"),
        "sparkplug-payload": Peer("tests/uplink/sparkplug/peer", Source.NPM, "sparkplug-payload"),
    }
)


def in_ci() -> bool:
    """Whether this run decides: then what is missing fails instead of skipping."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def require(name: str) -> str:
    """The peer's program path, module name or folder. Missing: skip and say why, or fail where `CI` is set.

    Raises `KeyError` for a name that is not in `PEERS`.
    """
    peer = PEERS[name]
    found = peer.find()
    if found is not None:
        return found
    reason = f"peer {name} is missing: {peer.source.value} {peer.package}"
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port on loopback that the kernel says is free now; whoever binds it must expect it taken."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Broker:
    """A real mosquitto on one port of loopback, to be stopped, killed and started again there."""

    def __init__(self, *, program: str, folder: Path, config: str) -> None:
        self.host: Final = LOOPBACK
        self.port = 0
        self.folder: Final = folder
        self._program: Final = program
        self._config: Final = config
        self._tls: Final = re.search(r"(?m)^\s*(certfile|keyfile)\s", config) is not None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process. Raises `RuntimeError` where it is down."""
        return self._running().pid

    @property
    def log(self) -> str:
        """What it wrote so far, over all its lives."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def start(self) -> None:
        """Start it and return once it answered a CONNECT. The port stays the same over restarts."""
        if self._process is not None:
            raise RuntimeError(f"mosquitto already runs on port {self.port}")
        for tries_left in reversed(range(PORT_TRIES if self.port == 0 else 1)):
            port = self.port or free_port()
            self._launch(port)
            try:
                self._await_ready(port)
            except RuntimeError:
                self.kill()
                if tries_left and "Address already in use" in self.log:
                    continue
                raise
            self.port = port
            return

    def stop(self) -> None:
        """SIGTERM, as an orderly shutdown: a broker with persistence saves. Raises where it does not end."""
        process = self._running()
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"mosquitto did not end within {STOP_S:g} s of SIGTERM\n{self.log}") from None
        self._process = None

    def kill(self) -> None:
        """SIGKILL, as a power cut. Nothing happens where it is down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: the port is open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def _log_path(self) -> Path:
        return self.folder / "mosquitto.log"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("mosquitto is down")
        return self._process

    def _launch(self, port: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "mosquitto.conf"
        user = getpass.getuser()  # without it root becomes user mosquitto, who may not write in this folder
        path.write_text(
            f"user {user}\npersistence_location {self.folder}/\nlog_dest stderr\n"
            f"listener {port} {self.host}\nallow_anonymous true\n{self._config}\n"
        )
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _await_ready(self, port: int) -> None:
        process = self._running()
        give_up = time.monotonic() + READY_S
        while process.poll() is None and time.monotonic() < give_up:
            if _answers(self.host, port, tls=self._tls):
                return
            time.sleep(0.005)  # between two handshakes that were refused, not instead of one
        state = "still runs" if process.poll() is None else f"ended with {process.returncode}"
        raise RuntimeError(f"mosquitto on port {port} did not answer CONNECT and {state}\n{self.log}")


def _answers(host: str, port: int, *, tls: bool) -> bool:
    """Whether a broker is there: CONNECT (MQTT 3.1.1 §3.1) answered by any CONNACK, or a TLS handshake."""
    try:
        with socket.create_connection((host, port), timeout=1.0) as link:
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                with context.wrap_socket(link):
                    return True
            link.sendall(bytes.fromhex("10 10 0004 4d515454 04 02 003c 0004") + b"peer")
            answer = link.recv(4)
            link.sendall(bytes.fromhex("e0 00"))
            return answer[:1] == b"\x20"
    except OSError:
        return False


@contextmanager
def mosquitto(folder: Path, config: str = "") -> Iterator[Broker]:
    """A running mosquitto in `folder` (skips or fails where it is missing), ended on the way out.

    `config` is added below a plain listener that lets everybody in: listener options (`cafile`, `certfile` …)
    and global ones (`max_packet_size`, `persistence true` …, kept in `folder`) both go there.
    """
    broker = Broker(program=require("mosquitto"), folder=folder / "mosquitto", config=config)
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()
