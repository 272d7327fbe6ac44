"""The unit file as systemd's own tools see it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import require

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "edge-gateway.service"
EXPOSURE_MAX = 2.0


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = require("systemd-analyze")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


def exposure(unit: Path) -> float:
    found = analyze("security", "--offline=true", "--no-pager", str(unit))
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", found.stdout)
    assert level is not None, found.stdout + found.stderr
    return float(level[1])


def here(tmp_path: Path, text: str) -> Path:
    """The unit with a program that is on this machine, under its own name."""
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/edge-gateway/bin/gateway", f"{sys.executable} -m gateway.app.cli"))
    return unit


@pytest.mark.interop
def test_it_is_exposed_as_little_as_promised(tmp_path: Path) -> None:
    assert exposure(UNIT) <= EXPOSURE_MAX
    weak = here(tmp_path, UNIT.read_text().replace("ProtectSystem=strict", "ProtectSystem=no"))
    assert exposure(weak) > EXPOSURE_MAX, "the figure does not follow what the file says"


@pytest.mark.interop
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    good = analyze("verify", "--man=no", str(here(tmp_path, UNIT.read_text())))
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    bad = analyze(
        "verify", "--man=no", str(here(tmp_path, UNIT.read_text().replace("PrivateTmp", "PrivateTemp")))
    )
    assert "PrivateTemp" in bad.stderr


def test_what_the_gateway_needs_is_not_hardened_away() -> None:
    text = UNIT.read_text()
    families = re.search(r"^RestrictAddressFamilies=(.*)$", text, re.MULTILINE)
    assert families is not None
    assert {"AF_CAN", "AF_INET", "AF_INET6", "AF_UNIX"} <= set(families[1].split())
    allowed = set(re.findall(r"^DeviceAllow=char-(\S+) rw$", text, re.MULTILINE))
    assert {"ttyUSB", "ttyACM", "ttyAMA", "ttyS"} <= allowed
    modules = "modprobe@usbserial.service modprobe@cdc_acm.service"
    assert f"Wants={modules}\nAfter={modules}\n" in text, (
        "a class that is not loaded is not allowed later either"
    )
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in text
    assert "ProcSubset=pid" not in text, "the journal reads the boot id"
    assert "PrivateUsers=yes" not in text, "ports below 1024 are the machine's"
    assert "RestartPreventExitStatus=78" in text
