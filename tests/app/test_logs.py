"""Log lines: for people where a person reads, for the journal where it collects."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from gateway.app.logs import set_up_logs


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
