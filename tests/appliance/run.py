"""The package on a machine, from its installation to its purge: `script/test-appliance`.

Everything is looked at from outside: systemctl, journalctl, dpkg, a mosquitto and its subscriber. The plant
counts its reads, so that a value that was lost, invented or sent twice under another number is seen.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.appliance.appliance import CONFIG, PASSWORD, WAIT_S, Appliance, Table, judge
from tests.appliance.machine import Machine, cached_root, until

WATCHDOG_S: Final = 5
BACKLOG: Final = 60  # values that wait when the package is upgraded


class Life(Appliance):
    """What is checked, in the order of a life. Each returns the fact that shows it."""

    def installs(self) -> str:
        self.machine.run("dpkg", "-i", "/srv/1.deb")
        assert self.machine.show("ActiveState") == "active", self.machine.log()
        assert self.machine.run("systemctl", "is-enabled", "edge-gateway").strip() == "enabled"
        assert self.machine.run("dpkg", "--verify", "edge-gateway").strip() == "", (
            "files are not those of the package"
        )
        return self.machine.show("StatusText") or "active, enabled, harmless as it comes"

    def is_hardened(self) -> str:
        found = self.machine.run("systemd-analyze", "verify", "--man=no", "edge-gateway.service").strip()
        assert found == "", found
        line = (
            self.machine.run("systemd-analyze", "security", "--no-pager", "edge-gateway")
            .strip()
            .splitlines()[-1]
        )
        level = float(line.split(":")[1].split()[0])
        assert level <= 2.0, line
        who = self.machine.run("ps", "-o", "user=,supgrp=", "-p", str(self.pid())).split()
        assert who[0].startswith("edge-ga"), who
        assert "dialout" in who[1], who
        return f"exposure {level}, verify clean, user edge-gateway in dialout"

    def delivers(self) -> str:
        self.configure()
        drop_in = self.machine.root / "etc/systemd/system/edge-gateway.service.d/test.conf"
        drop_in.parent.mkdir()
        drop_in.write_text(f"[Service]\nWatchdogSec={WATCHDOG_S}s\n")
        self.machine.run("systemctl", "daemon-reload")
        self.machine.run("systemctl", "restart", "edge-gateway")
        self.flows()
        return f"port 80, password as a credential, {self.machine.show('StatusText')}"

    def keeps_secrets(self) -> str:
        for command in (
            ["cat", "/etc/edge-gateway/credentials/mqtt-password"],
            ["cat", "/run/credentials/edge-gateway.service/gateway_mqtt-password"],
        ):
            said = self.machine.run("runuser", "-u", "nobody", "--", *command, check=False)
            assert "Permission denied" in said, said
        secret = "/etc/edge-gateway/credentials/mqtt-password"
        said = self.machine.run("runuser", "-u", "edge-gateway", "--", "cat", secret, check=False)
        assert "Permission denied" in said, said
        mode = self.machine.run("stat", "-c", "%a %U", "/var/lib/edge-gateway").strip()
        assert mode == "700 edge-gateway", mode
        return "its own user cannot read the file, nobody else the credential or the values"

    def logs(self) -> str:
        lines = self.machine.run("journalctl", "-u", "edge-gateway", "-o", "json", "--no-pager").splitlines()
        entries = [json.loads(line) for line in lines]
        runs = [entry for entry in entries if str(entry["MESSAGE"]).startswith("gateway runs  ")]
        assert runs, lines[-3:]
        assert runs[-1]["GATEWAY_POINTS"] == "1"
        assert runs[-1]["PRIORITY"] == "6"
        said = self.machine.run(
            "journalctl", "GATEWAY_GATEWAY=gw1", "-u", "edge-gateway", "-o", "cat", "--no-pager"
        )
        assert "gateway runs" in said
        return said.splitlines()[-1][:90]

    def survives_sigkill(self) -> str:
        before, epoch = self.pid(), self.status()["epoch"]
        self.killed_at.append(self.committed())
        self.machine.run("kill", "-KILL", str(before))
        self.comes_back(before)
        after = until(self.status, "it answers", within_s=WAIT_S)["epoch"]
        assert after == epoch + 1, f"epoch {epoch}, then {after}"
        self.flows()
        return f"epoch {epoch} + 1, {self.machine.show('NRestarts')} restart"

    def survives_a_blocked_loop(self) -> str:
        before, since = self.pid(), self.now()
        self.killed_at.append(self.committed())
        self.machine.run("kill", "-STOP", str(before))
        self.comes_back(before)
        assert self.watchdog_bit(since), self.machine.log("--since", since)
        assert "Fatal Python error: Aborted" in self.machine.log("--since", since), "no trace of the threads"
        self.flows()
        return "the watchdog bit, the log shows where it stood"

    def survives_a_hanging_disk(self) -> str:
        before, since = self.pid(), self.now()
        self.killed_at.append(self.committed())
        self.machine.freeze()
        try:
            until(lambda: self.watchdog_bit(since), "the watchdog bites", within_s=WAIT_S)
        finally:
            self.machine.thaw()
        assert "the journal does not answer: its disk hangs" in self.machine.log("--since", since)
        self.comes_back(before)
        self.flows()
        return "said which lane, the watchdog bit, it went on once the disk did"

    def upgrades(self) -> str:
        self.machine.run("systemctl", "stop", "mosquitto")
        until(lambda: self.backlog() >= BACKLOG, "a backlog", within_s=WAIT_S)
        epoch, waiting = self.status()["epoch"], self.backlog()
        time.sleep(1.1)  # journalctl counts in seconds
        since = self.now()
        self.machine.run("dpkg", "-i", "/srv/2.deb")
        after = until(self.status, "it answers", within_s=WAIT_S)["epoch"]
        starts = self.machine.log("--since", since).count("gateway runs  ")
        assert starts == 1, f"{starts} starts"
        assert after == epoch + 1, f"epoch {epoch}, then {after}"
        assert (self.machine.root / "etc/edge-gateway/gateway.yaml").read_text() == CONFIG, (
            "the configuration was touched"
        )
        self.machine.run("systemctl", "start", "mosquitto")
        until(lambda: self.backlog() == 0, "the backlog is delivered", within_s=WAIT_S)
        self.flows()
        return f"{waiting} waiting values delivered, 1 restart, configuration kept"

    def refuses_nonsense(self) -> str:
        before = self.pid()
        self.configure(CONFIG + "pumps: {}\n")
        self.machine.run("systemctl", "reload", "edge-gateway")
        until(
            lambda: "the old one stays" in self.machine.log("-n", "20"),
            "the fault in the log",
            within_s=WAIT_S,
        )
        assert self.pid() == before, "a reload with a fault must change nothing"
        said = self.machine.run("dpkg", "-i", "/srv/2.deb")
        assert "the version before goes on running" in said, said
        assert self.pid() == before, "an update must not stop what runs over a configuration it refuses"
        self.machine.run("systemctl", "restart", "edge-gateway", check=False)
        until(lambda: self.machine.show("ActiveState") == "failed", "it is down for good", within_s=WAIT_S)
        assert self.machine.show("ExecMainStatus") == "78"
        assert "gateway.yaml:" in self.machine.log("-p", "err", "-n", "5"), (
            "the fault is not an error in the log"
        )
        said = self.machine.run("gateway", "service", "status", check=False)
        assert "the configuration is wrong" in said, said
        self.configure()
        self.machine.run("systemctl", "start", "edge-gateway")
        self.flows()
        self.is_well("gateway")
        return "reload and update keep what runs; a start ends with 78, once"

    def loses_nothing(self) -> str:
        until(lambda: self.backlog() == 0, "everything is delivered", within_s=WAIT_S)
        self.killed_at.append(self.committed())
        self.machine.run("systemctl", "stop", "edge-gateway")
        epoch, seq = self.killed_at[-1]
        until(lambda: any((m["e"], m["n"]) >= (epoch, seq) for m in self.heard()), "the end", within_s=WAIT_S)
        return judge(self.heard(), self.killed_at)

    def removes(self) -> str:
        self.machine.run("cp", "-a", "/opt/edge-gateway", "/srv/gateway")
        self.machine.run("sed", "-i", "1s,/opt/edge-gateway,/srv/gateway,", "/srv/gateway/bin/gateway")
        self.machine.run("dpkg", "--remove", "edge-gateway")
        assert not (self.machine.root / "opt/edge-gateway/bin").exists()
        assert (self.machine.root / "etc/edge-gateway/gateway.yaml").exists(), (
            "the configuration goes with purge only"
        )
        assert self.machine.run("ls", "/var/lib/edge-gateway/journal").strip(), (
            "the values go with purge only"
        )
        return "the program is gone, configuration and values stay"

    def purges(self) -> str:
        if self.machine.has_disk:
            self.machine.run("umount", "/var/lib/edge-gateway")
        self.machine.run("dpkg", "--purge", "edge-gateway")
        assert left(self.machine) == "", left(self.machine)
        return "no file, no user, no group"

    def serves_from_a_venv(self) -> str:
        gateway = "/srv/gateway/bin/gateway"
        site = self.machine.root / "srv/site"
        (site / "credentials").mkdir(parents=True)
        (site / "gateway.yaml").write_text(CONFIG)
        (site / "credentials/mqtt-password").write_text(PASSWORD)
        (site / "credentials").chmod(0o700)
        said = self.machine.run(gateway, "service", "install", "/srv/site", "--dry-run")
        assert "nothing was changed" in said, said
        assert left(self.machine) == "", "the dry run changed something"
        self.machine.run(gateway, "service", "install", "/srv/site")
        self.flows()
        self.is_well(gateway)
        self.machine.run(gateway, "service", "uninstall")
        assert self.machine.run("ls", "/var/lib/edge-gateway/journal").strip(), (
            "the values go with --purge only"
        )
        self.machine.run(gateway, "service", "install", "/srv/site")
        self.machine.run(gateway, "service", "uninstall", "--purge")
        assert left(self.machine) == "", left(self.machine)
        return "service install, status, uninstall, --purge"


def check_all(machine: Machine, table: Table, packages: list[Path]) -> None:
    """In the order of a life."""
    it = Life(machine)
    for number, package in enumerate(packages, 1):
        shutil.copy(package, machine.root / f"srv/{number}.deb")
    it.surround()
    table.check("the package installs and starts", it.installs)
    if table.failed:
        return
    table.check("hardened", it.is_hardened)
    table.check("values flow", it.delivers)
    if table.failed:
        print(machine.log())
        return
    table.check("secrets", it.keeps_secrets)
    table.check("logs in journald", it.logs)
    table.check("SIGKILL", it.survives_sigkill)
    table.check("the event loop is blocked", it.survives_a_blocked_loop)
    if machine.has_disk:
        table.check("the disk hangs", it.survives_a_hanging_disk)
    else:
        table.skip("the disk hangs", machine.disk_reason)
    table.check("upgrade with a backlog", it.upgrades)
    table.check("a wrong configuration", it.refuses_nonsense)
    table.check("all of this lost nothing", it.loses_nothing)
    table.check("remove", it.removes)
    table.check("purge", it.purges)
    table.check("a service from a venv", it.serves_from_a_venv)
    if table.failed:
        print(machine.log("-n", "80"))


def left(machine: Machine) -> str:
    """What of the gateway is still there: files, user, group."""
    found = machine.run(
        "find", "/", "-xdev", "(", "-path", "/srv", "-o", "-path", "/proc", "-o", "-path", "/sys", ")",
        "-prune", "-o", "-name", "*edge-gateway*", "-print", check=False,
    )  # fmt: skip
    users = machine.run("getent", "passwd", "edge-gateway", check=False)
    groups = machine.run("getent", "group", "edge-gateway", check=False)
    return (found + users + groups).strip()


def main(packages: list[str]) -> int:
    """`packages`: the version to install and the one to upgrade to."""
    began = time.monotonic()
    root, made_s = cached_root()
    print(f"  root {root}" + (f" made in {made_s:.0f} s" if made_s else " (cached)"), flush=True)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="edge-gateway-appliance-") as work:
        machine = Machine(root, Path(work))
        try:
            machine.make_disk()
            machine.boot(disk_at="/var/lib/edge-gateway")
            check_all(machine, table, [Path(package) for package in packages])
        finally:
            machine.end()
    seconds = time.monotonic() - began
    verdict = f"FAILED: {', '.join(table.failed)}" if table.failed else "passed"
    unchecked = f", not checked: {', '.join(table.unchecked)}" if table.unchecked else ""
    print(f"test-appliance: {verdict}{unchecked}, {seconds:.0f} s")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
