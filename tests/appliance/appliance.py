"""The service under test as it is seen from outside, and what of its life is judged at the end."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tests.appliance.machine import Machine, until

HERE: Final = Path(__file__).parent
PASSWORD: Final = "only for this machine"
WAIT_S: Final = 45.0
CONFIG: Final = """\
version: 1
gateway: {name: gw1, site: lab}
http: {listen: "127.0.0.1:80"}          # below 1024: CAP_NET_BIND_SERVICE
journal: {commit: 20ms}
scan: {fast: 100ms}
devices:
  pump:
    host: "127.0.0.1:5020"
    unit: 1
    tags: {count: {at: "hr:0", type: uint32, scan: fast}}
uplinks:
  broker:
    kind: mqtt
    url: "mqtt://127.0.0.1"
    username: gw
    password_file: credential:mqtt-password
    backoff: {min: 100ms, max: 300ms}
publish:
  - {match: "*/*", uplink: broker, topic: "plant/{device}/{tag}"}
"""
BROKER: Final = """\
listener 1883 127.0.0.1
allow_anonymous false
password_file /etc/mosquitto/passwords
max_queued_messages 0
"""
STATUS: Final = "import urllib.request as r; print(r.urlopen('http://127.0.0.1/v1/status').read().decode())"


class Table:
    """What was checked, line by line, while it happens."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.unchecked: list[str] = []

    def check(self, what: str, work: Callable[[], str]) -> None:
        """`work` returns the fact that shows it, or raises `AssertionError`."""
        began = time.monotonic()
        try:
            fact, verdict = work(), "ok"
        except Exception as error:  # noqa: BLE001 - the other lines are still worth knowing
            fact, verdict = str(error) or repr(error), "FAILED"
            self.failed.append(what)
        print(f"  {verdict:<7}{what:<34} {time.monotonic() - began:5.1f} s  {fact}", flush=True)

    def skip(self, what: str, why: str) -> None:
        """It could not be looked at here."""
        self.unchecked.append(what)
        print(f"  {'-':<7}{what:<34}          not checked: {why}", flush=True)


class Appliance:
    """The service under test, and what is around it."""

    def __init__(self, machine: Machine) -> None:
        self.machine: Final = machine
        self.killed_at: list[tuple[int, int]] = []  # (epoch, seq) that were committed when it was killed

    # Around it

    def surround(self) -> None:
        """Plant, broker and a subscriber whose session the broker keeps."""
        run, root = self.machine.run, self.machine.root
        shutil.copy(HERE / "plant.py", root / "srv/plant.py")
        (root / "etc/mosquitto/conf.d/appliance.conf").write_text(BROKER)
        run("mosquitto_passwd", "-c", "-b", "/etc/mosquitto/passwords", "gw", PASSWORD)
        run("chmod", "644", "/etc/mosquitto/passwords")
        run("systemctl", "restart", "mosquitto")
        run("systemd-run", "--unit=plant", "python3", "/srv/plant.py", "5020", "/srv/plant.ready")
        until((root / "srv/plant.ready").exists, "the plant listens", within_s=10)
        run("systemd-run", "--unit=subscriber", "-pRestart=always", "-pRestartSec=200ms",
            "-pStartLimitIntervalSec=0", "-pStandardOutput=append:/srv/heard", "-pStandardError=journal",
            "mosquitto_sub", "-h", "127.0.0.1", "-i", "subscriber", "-c", "-q", "1", "-u", "gw",
            "-P", PASSWORD, "-t", "plant/#", "-F", "%p")  # fmt: skip

    def configure(self, text: str = CONFIG) -> None:
        """Write the configuration and its secret."""
        etc = self.machine.root / "etc/edge-gateway"
        (etc / "gateway.yaml").write_text(text)
        secret = etc / "credentials/mqtt-password"
        secret.write_text(f"{PASSWORD}\n")
        secret.chmod(0o600)

    def heard(self) -> list[dict[str, Any]]:
        """Every message at the subscriber."""
        path = self.machine.root / "srv/heard"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()[: None if text.endswith("\n") else -1]]

    # It

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty while it does not answer."""
        text = self.machine.run("python3", "-c", STATUS, check=False)
        return json.loads(text) if text.startswith("{") else {}

    def pid(self) -> int:
        """Of the running service, 0 while it is down."""
        show = self.machine.show
        return int(show("MainPID")) if show("ActiveState") == "active" else 0

    def is_well(self, gateway: str) -> None:
        """Whether `service status` says that nothing is wrong."""
        until(
            lambda: self.machine.run(gateway, "service", "status", check=False).startswith(
                "edge-gateway runs: links 1 of 1 up, uplinks 1 of 1 up"
            ),
            "`service status` finds nothing wrong",
            within_s=WAIT_S,
        )
        self.machine.run(gateway, "service", "status")

    def flows(self) -> bool:
        """Whether three more values arrive."""
        before = len(self.heard())
        until(lambda: len(self.heard()) > before + 2, "values at the subscriber", within_s=WAIT_S)
        return True

    def committed(self) -> tuple[int, int]:
        """What is surely on disk: (epoch, number)."""
        journal = until(self.status, "it answers", within_s=WAIT_S)["journal"]
        return journal["committed_epoch"], journal["committed_seq"]

    def comes_back(self, before: int) -> int:
        """The pid of the next run."""
        until(lambda: self.pid() not in {0, before}, "it runs again", within_s=WAIT_S)
        return self.pid()

    def watchdog_bit(self, since: str) -> bool:
        """Whether systemd's watchdog ended it."""
        return "Watchdog timeout" in self.machine.log("--since", since)

    def backlog(self) -> int:
        """About how many values wait for the broker."""
        uplinks = until(self.status, "it answers", within_s=WAIT_S)["uplinks"]
        return int(sum(uplink["backlog"] for uplink in uplinks))

    def now(self) -> str:
        """As journalctl reads it."""
        return self.machine.run("date", "+%Y-%m-%d %H:%M:%S").strip()


def judge(messages: list[dict[str, Any]], killed_at: list[tuple[int, int]]) -> str:
    """Nothing lost, nothing invented, nothing twice under another number. Raises `AssertionError`."""
    epochs: dict[int, dict[int, int]] = {}
    for message in messages:
        if message["q"] != "good":
            continue
        numbers = epochs.setdefault(message["e"], {})
        known = numbers.setdefault(message["n"], message["v"])
        assert known == message["v"], f"number {message['n']} has two values: {known} and {message['v']}"
    values: set[int] = set()
    for epoch, numbers in sorted(epochs.items()):
        counts = [numbers[n] for n in sorted(numbers)]
        gaps = [a for a, b in itertools.pairwise(counts) if b != a + 1]
        assert not gaps, f"epoch {epoch}: the count does not go on by one after {gaps[:3]}"
        assert not values & set(counts), f"epoch {epoch} has values of an epoch before"
        values |= set(counts)
    for epoch, seq in killed_at:
        last = max(epochs.get(epoch, {0: 0}))
        assert last >= seq, f"epoch {epoch}: {seq} was committed, {last} is the last that arrived"
    again = len(messages) - sum(map(len, epochs.values()))
    return f"{len(values)} values in {len(epochs)} epochs, none lost, {again} of them twice or not good"
