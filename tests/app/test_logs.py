"""Log lines: for people where a person reads, for the journal where it collects."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import threading
from collections.abc import Iterator

import pytest

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
    logger.handlers[:], level = before
    logger.setLevel(level)


def line(stream: io.StringIO, root: logging.Logger) -> str:
    set_up_logs(stream=stream)
    root.warning("link is down", extra={"link": "plc 1", "wait_s": 2})
    root.handlers[0].flush()
    return stream.getvalue()


def test_the_journal_gets_one_object_a_line_with_its_priority(
    root: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    text = line(io.StringIO(), root)
    assert text.startswith("<4>")
    said = json.loads(text[3:])
    expected = {"level": "warning", "logger": "root", "message": "link is down", "link": "plc 1", "wait_s": 2}
    assert said == expected


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
