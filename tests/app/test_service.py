"""`gateway service`: what it writes, in which order, and what it says of a service that is not well."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.service import (
    PACKAGED_UNIT,
    UNIT_FILE,
    Answer,
    Host,
    carry_out,
    install_steps,
    look,
    problems,
    uninstall_steps,
    unit_text,
)
from gateway.core.errors import GatewayError

PROGRAM = Path("/srv/gateway/bin/gateway")
CONFIG = Path("/srv/site")


class Machine:
    """A root of its own; commands are written down, and answered as the test wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[str] = []
        self.refuses = ""
        self.shows = ""
        for place in ("run/systemd/system", "srv/site", "srv/gateway/bin"):
            (root / place).mkdir(parents=True)
            (root / place).chmod(0o755)
        for place in ("srv", "srv/gateway"):
            (root / place).chmod(0o755)
        (root / "srv/gateway/bin/gateway").write_text("")
        (root / "srv/gateway/bin/gateway").chmod(0o755)

    def run(self, *command: str) -> Answer:
        self.ran.append(" ".join(command))
        if command[:2] == ("systemctl", "show"):
            return Answer(0, self.shows)
        return Answer(1, "no") if self.refuses and self.refuses in self.ran[-1] else Answer(0, "")

    @property
    def host(self) -> Host:
        return Host(root=self.root, run=self.run)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    tmp_path.chmod(0o755)
    return Machine(tmp_path)


def test_install_writes_user_and_unit_and_starts_it(machine: Machine) -> None:
    assert problems(PROGRAM, CONFIG, machine.host) == []
    said: list[str] = []
    carry_out(install_steps(PROGRAM, CONFIG), machine.host, is_dry=False, say=said.append)
    assert machine.ran == [
        "systemd-sysusers /etc/sysusers.d/edge-gateway.conf",
        "systemctl daemon-reload",
        "systemctl enable edge-gateway.service",
        "systemctl restart edge-gateway.service",
    ]
    unit = (machine.root / UNIT_FILE.relative_to("/")).read_text()
    assert "ExecStart=/srv/gateway/bin/gateway run /srv/site\n" in unit
    assert "LoadCredential=gateway:/srv/site/credentials\n" in unit
    assert "/opt/edge-gateway" not in unit
    assert (machine.root / "srv/site/credentials").stat().st_mode & 0o777 == 0o700
    assert "dialout" in (machine.root / "etc/sysusers.d/edge-gateway.conf").read_text()
    assert said[0].startswith("1. ")
    assert "     systemctl enable edge-gateway.service" in said


def test_a_dry_run_says_the_same_and_does_nothing(machine: Machine) -> None:
    said: list[str] = []
    before = sorted(machine.root.rglob("*"))
    carry_out(install_steps(PROGRAM, CONFIG), machine.host, is_dry=True, say=said.append)
    assert (machine.ran, sorted(machine.root.rglob("*"))) == ([], before)
    assert "     write /etc/systemd/system/edge-gateway.service" in said


def test_a_step_that_fails_is_named_and_the_last(machine: Machine) -> None:
    machine.refuses = "daemon-reload"
    with pytest.raises(GatewayError, match="systemd reads the unit: `systemctl daemon-reload` says: no"):
        carry_out(install_steps(PROGRAM, CONFIG), machine.host, is_dry=False, say=lambda _: None)
    assert not any("restart" in command for command in machine.ran)


def test_what_no_service_can_reach_is_refused(machine: Machine) -> None:
    (machine.root / "srv/gateway").chmod(0o750)
    (line,) = problems(PROGRAM, CONFIG, machine.host)
    assert line == "the user edge-gateway cannot pass through /srv/gateway: chmod o+x /srv/gateway"
    found = problems(Path("/root/venv/bin/gateway"), Path("/tmp/site"), machine.host)
    assert (
        "/root/venv/bin/gateway is under /root, which no service sees: move it, to /opt or /srv for one"
        in found
    )
    assert any(line.startswith("/tmp/site is under /tmp") for line in found)
    assert any("cannot be run" in line for line in found)


def test_beside_the_package_or_without_systemd_it_is_refused(machine: Machine) -> None:
    (machine.root / "run/systemd/system").rmdir()
    packaged = machine.root / PACKAGED_UNIT.relative_to("/")
    packaged.parent.mkdir(parents=True)
    packaged.touch()
    found = problems(PROGRAM, CONFIG, machine.host)
    assert [line.split(" ", 3)[:3] for line in found] == [
        ["the", "Debian", "package"],
        ["systemd", "does", "not"],
    ]


def test_an_environment_under_home_is_seen_and_odd_paths_are_quoted() -> None:
    unit = unit_text(Path("/home/joe/my gw/bin/gateway"), Path("/etc/50%"))
    assert 'ExecStart="/home/joe/my gw/bin/gateway" run /etc/50%%\n' in unit
    assert "ProtectHome=read-only" in unit
    assert "ProtectHome=yes" in unit_text(PROGRAM, CONFIG)


@pytest.mark.parametrize("is_purge", [False, True])
def test_uninstall_keeps_what_was_kept_unless_purged(machine: Machine, is_purge: bool) -> None:
    carry_out(install_steps(PROGRAM, CONFIG), machine.host, is_dry=False, say=lambda _: None)
    state = machine.root / "var/lib/edge-gateway/journal"
    state.mkdir(parents=True)
    carry_out(uninstall_steps(is_purge=is_purge), machine.host, is_dry=False, say=lambda _: None)
    assert not (machine.root / UNIT_FILE.relative_to("/")).exists()
    assert state.exists() is not is_purge
    assert ("userdel edge-gateway" in machine.ran) is is_purge
    assert "systemctl disable --now edge-gateway.service" in machine.ran


RUNS = {
    "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": "success",
    "NRestarts": "0", "ExecMainStatus": "0", "UnitFileState": "enabled", "StatusText": "links 1 of 1 up",
    "MainPID": "7",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "found", "do"),
    [
        ({}, "", ""),
        ({"LoadState": "not-found"}, "no unit", "gateway service install DIR"),
        ({"ActiveState": "failed", "ExecMainStatus": "78"}, "the configuration is wrong", "journalctl"),
        ({"ActiveState": "failed", "Result": "watchdog"}, "it failed: watchdog", "journalctl"),
        ({"ActiveState": "inactive"}, "it is stopped", "systemctl start edge-gateway"),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, "ends again and again", "journalctl"),
        ({"UnitFileState": "disabled"}, "does not start at boot", "systemctl enable edge-gateway"),
        ({"StatusText": "links 1 of 1 up; journal: the disk is full"}, "the disk is full", "operation.md"),
        ({"StatusText": "the journal does not answer (normal)"}, "does not answer (normal)", "disk"),
    ],
)
def test_status_says_what_is_wrong_and_what_to_do(
    machine: Machine, changed: dict[str, str], found: str, do: str
) -> None:
    machine.shows = "\n".join(f"{name}={value}" for name, value in (RUNS | changed).items())
    report = look(machine.host)
    assert len(report.findings) == (1 if found else 0)
    assert not found or (found in report.findings[0].found and do in report.findings[0].do)
