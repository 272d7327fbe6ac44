"""The commands of the command line that end by themselves: what they print and their exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.waiting import ROOT


def gateway(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`gateway …` as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.app.cli", *words],
        cwd=cwd, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_check_of_a_sound_configuration() -> None:
    done = gateway("check", "configs/demo")
    assert done.returncode == 0, done.stdout
    assert "no faults: 1 links, 3 devices" in done.stdout


def test_check_prints_every_fault_with_its_place_and_exits_78(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(
        "version: 1\n"
        "gateway: {name: gw}\n"
        "links:\n"
        "  plc: {driver: modbus, host: 10.0.0.1, timeot: 1s}\n"
        "devices:\n"
        "  d1: {link: plcx, unit: 1, tags: {a: {at: 40001}}}\n"
        "  d2: {link: plc, unit: 1, tags: {a: {at: 1.5}}}\n"
        "uplinks:\n"
        "  up: {kind: mqtt, url: 'mqtts://h', ca: missing.pem}\n"
        "publish:\n"
        "  - {uplink: nowhere, topic: x}\n"
    )
    done = gateway("check", str(tmp_path))
    assert done.returncode == 78
    for line, fact in ((4, "timeout"), (6, "plcx"), (7, "1.5"), (9, "missing.pem"), (11, "nowhere")):
        assert any(f"gateway.yaml:{line}:" in one and fact in one for one in done.stdout.splitlines()), (
            done.stdout
        )
    assert "faults" in done.stderr


def test_check_finds_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("nothing")
    (tmp_path / "gateway.yaml").write_text(
        "version: 1\ngateway: {name: gw}\nuplinks:\n  up: {kind: mqtt, url: 'mqtts://h', ca: bad.pem}\n"
    )
    done = gateway("check", str(tmp_path))
    assert done.returncode == 78
    assert "gateway.yaml:4:" in done.stdout
    assert "holds no certificate" in done.stdout


@pytest.mark.parametrize("command", ["check", "run", "plan"])
def test_a_directory_without_configuration(command: str, tmp_path: Path) -> None:
    done = gateway(command, str(tmp_path / "nowhere"), cwd=tmp_path)
    assert done.returncode == 78
    assert "nowhere" in done.stdout + done.stderr
    assert not (tmp_path / "state").exists()


def test_run_of_a_wrong_configuration_says_every_fault_and_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("version: 2\ngateway: {nam: x}\n")
    done = gateway("run", str(tmp_path), "--state", str(tmp_path / "state"))
    assert done.returncode == 78
    assert "gateway.yaml:1:" in done.stderr
    assert "gateway.yaml:2:" in done.stderr
    assert not (tmp_path / "state").exists()


def test_plan_of_the_demo_tells_what_each_link_costs() -> None:
    done = gateway("plan", "configs/demo")
    assert done.returncode == 0, done.stderr
    assert "plc" in done.stdout
    assert "%" in done.stdout
    slow = gateway("plan", "configs/demo", "--answer-time", "100ms")
    assert slow.returncode == 0
    assert "above 70%" in slow.stdout, "utilisation above 70 % is not warned of"
    wrong = gateway("plan", "configs/demo", "--answer-time", "soon")
    assert wrong.returncode == 2


def test_schema_is_fresh_and_a_stale_one_fails(tmp_path: Path) -> None:
    assert gateway("schema", "--check").returncode == 0
    (tmp_path / "schema.json").write_text("{}")
    stale = gateway("schema", str(tmp_path / "schema.json"), "--check")
    assert stale.returncode == 1
    assert "is stale" in stale.stderr
    assert gateway("schema", str(tmp_path / "schema.json")).returncode == 0
    assert gateway("schema", str(tmp_path / "schema.json"), "--check").returncode == 0
    for words in ((str(tmp_path / "nowhere" / "schema.json"),), (str(tmp_path), "--check")):
        refused = gateway("schema", *words)
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert refused.stderr.startswith(f"gateway: {words[0]}: ")


def test_version_and_help() -> None:
    assert gateway("--help").returncode == 0
    assert "run" in gateway("-h").stdout
