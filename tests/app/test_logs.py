"""Log lines: for people where a person reads, for the journal where it collects."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from gateway.app.journald import JournalHandler
from gateway.app.logs import log_levels, set_up_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, given back as it was."""
    logger = logging.getLogger()
    before = (logger.handlers[:], logger.level)
    yield logger
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers[:], level = before
    logger.setLevel(level)


def line(stream: io.StringIO, root: logging.Logger) -> str:
    set_up_logs(stream=stream)
    root.warning("link is down", extra={"link": "plc 1", "wait_s": 2})
    root.handlers[0].flush()
    return stream.getvalue()


class Journald:
    """A socket where journald's would be, and the entries that came."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)

    def entry(self) -> dict[str, str]:
        """The next one, read as the protocol's document says."""
        data, fields = self.socket.recv(1 << 20), dict[str, str]()
        while data:
            head, _, data = data.partition(b"\n")
            name, equals, value = head.partition(b"=")
            if not equals:
                length = struct.unpack_from("<Q", data)[0]
                value, data = data[8 : 8 + length], data[8 + length :]
                assert data[:1] == b"\n"
                data = data[1:]
            fields[name.decode()] = value.decode()
        return fields


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    """In place of the machine's own."""
    made = Journald(tmp_path / "journald")
    yield made
    made.socket.close()


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TextIO]:
    """Standard error as systemd connects it: $JOURNAL_STREAM says which file that is."""
    with (tmp_path / "stderr").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        yield stream


def test_journald_gets_a_sentence_and_the_facts_as_fields(
    root: logging.Logger, journald: Journald, collected: TextIO
) -> None:
    set_up_logs(stream=collected, journald=journald.path)
    root.warning("link is down", extra={"link": "plc 1", "wait_s": 2, "unit": 7})
    assert journald.entry() == {
        "MESSAGE": 'link is down  link="plc 1" wait_s=2 unit=7',
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "edge-gateway",
        "GATEWAY_LOGGER": "root",
        "GATEWAY_LINK": "plc 1",
        "GATEWAY_WAIT_S": "2",
        "GATEWAY_UNIT": "7",
    }


def test_an_exception_is_one_entry_of_several_lines(
    root: logging.Logger, journald: Journald, collected: TextIO
) -> None:
    set_up_logs(stream=collected, journald=journald.path)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        root.exception("it broke", extra={"text": "a\nb"})
    entry = journald.entry()
    assert entry["MESSAGE"].startswith('it broke  text="a\\nb"\nTraceback (most recent call last):\n')
    assert entry["MESSAGE"].endswith("ValueError: first\nsecond")
    assert (entry["PRIORITY"], entry["GATEWAY_TEXT"]) == ("3", "a\nb")


def test_a_journald_that_takes_nothing_is_not_waited_for_and_the_gap_is_said(
    root: logging.Logger, journald: Journald, collected: TextIO
) -> None:
    set_up_logs(stream=collected, journald=journald.path)
    handler = root.handlers[0]
    assert isinstance(handler, JournalHandler)
    for number in range(5000):
        root.info("line", extra={"number": number})
    missing = handler.dropped
    assert missing > 0
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            assert journald.entry()["GATEWAY_NUMBER"] == str(taken)
            taken += 1
    assert taken + missing == 5000
    root.info("line", extra={"number": 5000})
    assert journald.entry()["MESSAGE"] == f"{missing} log lines are missing here: journald did not take them"
    assert journald.entry()["GATEWAY_NUMBER"] == "5000"
    assert handler.dropped == 0
    (level,) = log_levels()
    assert (level.depth, level.lost) == (0, missing)


def test_without_its_socket_the_journal_gets_json_with_the_priority(
    root: logging.Logger, collected: TextIO, tmp_path: Path
) -> None:
    set_up_logs(stream=collected, journald=str(tmp_path / "nowhere"))
    root.warning("link is down", extra={"link": "plc 1", "wait_s": 2})
    root.handlers[0].flush()
    collected.seek(0)
    text = collected.read()
    assert text.startswith("<4>")
    expected = {"level": "warning", "logger": "root", "message": "link is down", "link": "plc 1", "wait_s": 2}
    assert json.loads(text[3:]) == expected


def test_a_file_gets_lines_for_people_although_the_variable_was_inherited(
    root: logging.Logger, collected: TextIO, tmp_path: Path
) -> None:
    with (tmp_path / "log").open("w+") as stream:
        set_up_logs(stream=stream)
        root.warning("link is down", extra={"link": "plc 1"})
        root.handlers[0].flush()
        stream.seek(0)
        assert stream.read().endswith(' WARNING link is down  link="plc 1"\n')


def test_a_terminal_that_inherited_the_variable_gets_lines_for_people(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    monkeypatch.setenv("NO_COLOR", "1")
    text = line(Terminal(), root)
    assert text.endswith(' WARNING link is down  link="plc 1" wait_s=2\n')


class Stuck(io.StringIO):
    """A terminal whose person pressed Ctrl-S."""

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()

    def write(self, text: str) -> int:
        self.goes_on.wait(10)
        return super().write(text)


def test_a_stream_that_stands_still_holds_up_nobody_and_what_is_dropped_is_said(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.app.log_writer.QUEUED_BYTES_MAX", 300)
    monkeypatch.setattr("gateway.app.log_writer.DRAIN_S", 0.01)
    stream = Stuck()
    set_up_logs(stream=stream)
    for number in range(20):
        root.warning("line", extra={"number": number})
    (level,) = log_levels()
    assert 0 < level.depth <= level.limit == 300
    assert 0 < level.lost < 20
    root.handlers[0].flush()  # gives up
    monkeypatch.setattr("gateway.app.log_writer.DRAIN_S", 10)
    stream.goes_on.set()
    root.handlers[0].flush()
    root.warning("last")
    root.handlers[0].flush()
    text = stream.getvalue()
    kept = len(re.findall("WARNING line", text))
    assert kept == 20 - level.lost
    assert f"log lines were dropped: standard error took none  lines={level.lost}" in text
    assert text.rstrip().endswith("last")


def test_a_stream_that_is_gone_is_counted(root: logging.Logger) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        set_up_logs(stream=stream)
        root.warning("nobody hears this")
        root.handlers[0].flush()
    (level,) = log_levels()
    assert (level.depth, level.lost) == (0, 1)
