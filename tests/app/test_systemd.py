"""What systemd is told: alive only while the loop runs and every writer of the journal answers."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
from pathlib import Path

import pytest

from gateway.app.systemd import BEATS_MIN, Heart, notify_systemd, watchdog_s
from gateway.disk.filesystem import File, RealFileSystem
from gateway.disk.log import Log
from gateway.disk.writer import LogSettings, State
from tests.disk.faulty import FaultyFileSystem
from tests.virtual_time import run

LIMIT_S = 60.0


class Journal:
    """Answers unless it is told not to."""

    def __init__(self) -> None:
        self.asked = 0
        self.hangs: list[str] = []

    def ask(self) -> None:
        self.asked += 1

    def silent(self) -> list[str]:
        return self.hangs


def heart(journal: Journal, told: list[str], *, limit_s: float | None = LIMIT_S) -> Heart:
    return Heart(
        ask=journal.ask,
        silent=journal.silent,
        status=lambda: "all is well",
        limit_s=limit_s,
        notify=told.append,
    )


def beats(told: list[str]) -> int:
    return sum("WATCHDOG=1" in message.splitlines() for message in told)


def test_it_beats_often_enough_while_the_journal_answers() -> None:
    journal, told = Journal(), list[str]()

    async def main() -> None:
        task = asyncio.create_task(heart(journal, told).run())
        await asyncio.sleep(10 * LIMIT_S + 1)
        task.cancel()

    run(main())
    assert beats(told) == journal.asked > 10 * BEATS_MIN
    assert told[0] == "WATCHDOG=1\nSTATUS=all is well"
    assert set(told[1:]) == {"WATCHDOG=1"}, "words that did not change are not said again"


def test_a_journal_that_hangs_stops_the_beat_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    journal, told = Journal(), list[str]()

    async def main() -> None:
        task = asyncio.create_task(heart(journal, told).run())
        await asyncio.sleep(LIMIT_S)
        before = beats(told)
        journal.hangs = ["normal"]
        await asyncio.sleep(2 * LIMIT_S)
        assert beats(told) == before > BEATS_MIN
        journal.hangs = []
        await asyncio.sleep(LIMIT_S)
        assert beats(told) > before + BEATS_MIN
        task.cancel()

    with caplog.at_level(logging.INFO):
        run(main())
    assert "STATUS=the journal does not answer (normal)" in told
    said = [(record.levelname, record.message) for record in caplog.records]
    assert said == [
        ("ERROR", "the journal does not answer: its disk hangs"),
        ("CRITICAL", "the journal does not answer: systemd will end this process"),
        ("WARNING", "the journal answers again"),
    ]


def test_without_a_watchdog_only_the_status_is_told() -> None:
    journal, told = Journal(), list[str]()

    async def main() -> None:
        task = asyncio.create_task(heart(journal, told, limit_s=None).run())
        await asyncio.sleep(100)
        task.cancel()

    run(main())
    assert told == ["STATUS=all is well"]


def test_the_watchdog_is_ours_only() -> None:
    mine = str(os.getpid())
    assert watchdog_s({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": mine}) == 60.0
    assert watchdog_s({"WATCHDOG_USEC": "60000000"}) == 60.0
    assert watchdog_s({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}) is None
    assert watchdog_s({"WATCHDOG_USEC": "soon"}) is None
    assert watchdog_s({}) is None


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_systemd_gets_the_datagram(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0", 1) if kind == "abstract" else name)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify_systemd("READY=1")
        assert systemd.recv(100) == b"READY=1"


# The writer's side


class HangingDisk(RealFileSystem):
    """`fdatasync` does not return before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.let_go.set()

    def create(self, path: Path) -> File:
        return HangingFile(super().create(path), self)


class HangingFile:
    def __init__(self, file: File, disk: HangingDisk) -> None:
        self._file, self._disk = file, disk

    def fdatasync(self) -> None:
        assert self._disk.let_go.wait(20)
        self._file.fdatasync()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def log_on(filesystem: RealFileSystem | FaultyFileSystem, directory: Path) -> Log:
    log = Log(
        directory, lane=0, filesystem=filesystem, settings=LogSettings(commit_interval_ms=0, full_retry_ms=1),
        notify=lambda call: call(), wall_ns=lambda: 0,
    )  # fmt: skip
    log.open(lambda *_: None)
    log.roll(b"")
    log.start()
    return log


def eventually(true: object, *, within_s: float = 5.0) -> bool:
    """A thread of the writer gets there when it gets there."""
    pause = threading.Event()
    for _ in range(int(within_s / 0.001)):
        if true():  # type: ignore[operator]  # a lambda of the test
            return True
        pause.wait(0.001)
    return False


def test_a_writer_answers_when_idle_and_not_while_its_disk_hangs(tmp_path: Path) -> None:
    disk = HangingDisk()
    log = log_on(disk, tmp_path)
    writer = log.writer
    assert not writer.is_silent, "nobody asked"
    writer.ask()
    assert eventually(lambda: not writer.is_silent)
    disk.let_go.clear()
    log.append(1, (1, 1), 9, 0, b"value")
    writer.flush()
    writer.ask()
    assert not eventually(lambda: not writer.is_silent, within_s=0.05)
    disk.let_go.set()
    assert eventually(lambda: not writer.is_silent)
    log.close()


def test_a_full_disk_is_not_ill_and_a_failed_one_owes_no_answer() -> None:
    disk = FaultyFileSystem()
    log = log_on(disk, Path("/log"))
    assert eventually(lambda: log.waiting_bytes() == 0)
    disk.room = 0
    log.append(1, (1, 1), 9, 0, b"value")
    assert eventually(lambda: log.writer.state is State.FULL)
    log.writer.ask()
    assert eventually(lambda: not log.writer.is_silent)
    disk.room = None
    disk.sync_error = errno.EIO
    log.append(1, (1, 2), 9, 0, b"value")
    assert eventually(lambda: log.writer.failure is not None)
    log.writer.ask()
    assert not log.writer.is_silent
