"""`gateway demo` as a whole, with a stand-in for the gateway; and that nothing outlives it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from gateway.app.demo import run as running
from gateway.app.demo.broker import BrokerKind, choose
from gateway.app.demo.child import Child, ChildFailed
from gateway.app.demo.run import demo
from tests.peers import require

STANDIN = Path(__file__).parent / "standin_gateway.py"
pytestmark = pytest.mark.kills


def run_demo(mode: str, *, for_s: float, broker: BrokerKind | None = None) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=120)
    code = demo(
        for_s,
        gateway=lambda config: [sys.executable, str(STANDIN), str(config), mode],
        broker=broker,
        console=console,
    )
    return code, console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


@pytest.fixture(autouse=True)
def _own_ports_and_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ports than a demo that runs beside the tests, and no litter."""
    monkeypatch.setattr("gateway.app.demo.ports._is_free", lambda _port: False)
    monkeypatch.setattr(running.tempfile, "mkdtemp", lambda prefix: _made(tmp_path / f"{prefix}test"))
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


def _made(path: Path) -> str:
    path.mkdir()
    return str(path)


@pytest.mark.interop
def test_a_run_that_works_ends_with_0_and_a_summary(tmp_path: Path) -> None:
    require("mosquitto")
    code, text = run_demo("", for_s=4.0, broker=BrokerKind.MOSQUITTO)
    assert code == 0, text
    assert "running from a copy with other ports" in text
    assert "verified" in text
    assert "0 gaps, 0 duplicates" in text
    assert "2 arrived at the broker, 2 of them good" in text
    assert list(tmp_path.iterdir()) == [], "a good run leaves nothing behind"


def test_the_embedded_broker_does_too() -> None:
    pytest.importorskip("iotcore")
    code, text = run_demo("", for_s=3.0, broker=BrokerKind.EMBEDDED)
    assert code == 0, text


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("die", "gateway | standin: giving up, as told"),
        ("mute", "no value arrived at the broker"),
        ("late", "the set-point was not verified"),
    ],
)
def test_what_fails_is_said_with_the_last_words(mode: str, words: str, tmp_path: Path) -> None:
    code, text = run_demo(mode, for_s=2.5)
    assert code == 1
    assert words in text
    assert "logs are kept in" in text
    assert (tmp_path / "gateway-demo-test" / "gateway.log").exists()


def test_a_gateway_that_does_not_start_is_said() -> None:
    console = Console(file=io.StringIO(), width=120)
    code = demo(
        5.0,
        gateway=lambda _config: [sys.executable, "-c", "import sys; sys.exit('bad map')"],
        console=console,
    )
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert code == 1
    assert "gateway ended with exit code 1" in text
    assert "gateway | bad map" in text


def test_without_any_broker_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.app.demo.broker._mosquitto", lambda: None)
    assert choose() is BrokerKind.EMBEDDED
    monkeypatch.setattr("gateway.app.demo.broker.importlib.util.find_spec", lambda _name: None)
    console = Console(file=io.StringIO(), width=200)
    assert demo(1.0, console=console) == 1
    assert "apt-get install mosquitto" in console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


PARENT = """
import sys, time
from pathlib import Path
from gateway.app.demo.child import Child
child = Child("sleeper", [sys.executable, "-c", CODE], log=Path(sys.argv[1]))
while not Path(sys.argv[1]).read_text().strip():
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""
POLITE = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True);"
    "time.sleep(600)"
)


def test_no_orphan_even_after_kill_9(tmp_path: Path) -> None:
    log = tmp_path / "sleeper.log"
    code = PARENT.replace("CODE", repr(POLITE))
    with subprocess.Popen([sys.executable, "-c", code, str(log)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        pid = int(log.read_text())
        assert _lives(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while _lives(pid):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.02)


def test_a_stubborn_child_is_killed_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = tmp_path / "guard.py"
    source = Path(running.__file__).with_name("guard.py").read_text()
    assert "GRACE_S: Final = 6.0" in source
    guard.write_text(source.replace("GRACE_S: Final = 6.0", "GRACE_S: Final = 0.2"))
    monkeypatch.setattr("gateway.app.demo.child.guard.__file__", str(guard))
    log = tmp_path / "stubborn.log"
    child = Child("stubborn", [sys.executable, "-c", STUBBORN], log=log)
    while not log.read_text().strip():
        time.sleep(0.01)
    assert child.stop() == 128 + signal.SIGKILL


def test_a_child_that_ends_by_itself_is_noticed_with_its_last_words(tmp_path: Path) -> None:
    child = Child(
        "brief", [sys.executable, "-c", "print('last words'); raise SystemExit(3)"], log=tmp_path / "log"
    )
    deadline = time.monotonic() + 10.0
    while child.is_running and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ChildFailed, match=r"brief ended with exit code 3:\n  brief \| last words"):
        child.require_running()
    assert child.stop() == 3


def test_a_command_that_does_not_exist_is_said(tmp_path: Path) -> None:
    child = Child("ghost", [str(tmp_path / "no-such-program")], log=tmp_path / "log")
    assert child.stop() == 127
    assert "No such file" in child.last_words()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
