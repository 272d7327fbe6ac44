"""Log lines: for people on a terminal, entries with fields in journald, JSON where nothing else is known."""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any, Final, TextIO

from gateway.app.journald import PRIORITY, SOCKET, JournalHandler, is_journal
from gateway.app.log_writer import QUEUE, LineWriter
from gateway.core.bounded import Level

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOUR: Final = {"CRITICAL": "\x1b[1;31m", "ERROR": "\x1b[31m", "WARNING": "\x1b[33m", "INFO": "\x1b[32m"}
_DIM: Final = "\x1b[2m"
_RESET: Final = "\x1b[0m"


def set_up_logs(*, level: str = "INFO", stream: TextIO | None = None, journald: str = SOCKET) -> None:
    """Send all logs to `stream` (standard error), or to journald where that is what the stream goes to."""
    root = logging.getLogger()
    root.handlers[:] = [_handler(stream or sys.stderr, journald)]
    root.setLevel(level)


def log_levels() -> Iterator[Level]:
    """How full the queue of log lines is; there is none before journald, only lines that it did not take."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LineWriter):
            yield handler.level_now()
            return
        if isinstance(handler, JournalHandler):
            yield QUEUE.at(0, 0, handler.lost)
            return
    yield QUEUE.at(0, 0)


def _handler(stream: TextIO, journald: str) -> logging.Handler:
    lines = LineWriter(stream)
    try:
        is_collected = is_journal(stream.fileno())
    except (OSError, ValueError):  # no file behind it
        is_collected = False
    if not is_collected:
        lines.setFormatter(TerminalLines(has_colour=stream.isatty() and "NO_COLOR" not in os.environ))
        return lines
    try:
        return JournalHandler(words=words, facts=fields_of, address=journald)
    except OSError:  # collected, but its socket is out of reach, in a container for one
        lines.setFormatter(JsonLines())
        return lines


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What was given as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonLines(logging.Formatter):
    """One object a line, behind the priority that sd-daemon(3) reads."""

    def format(self, record: logging.LogRecord) -> str:
        """`<6>{"level":…,"logger":…,"message":…, fields…}`; journald adds the time."""
        out: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name}
        out["message"] = record.getMessage()
        out.update(fields_of(record))
        if record.exc_info:
            out["exception"] = self.formatException(record.exc_info)
        return f"<{PRIORITY.get(record.levelname, 6)}>{json.dumps(out, default=str, ensure_ascii=False)}"


class TerminalLines(logging.Formatter):
    """`12:00:00.123 WARNING link is down, trying again until it is back  link=plc address=…`."""

    def __init__(self, *, has_colour: bool) -> None:
        super().__init__()
        self._has_colour = has_colour

    def format(self, record: logging.LogRecord) -> str:
        """Time of day, level, message, then the facts."""
        moment = datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC).astimezone()
        time = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03}"
        level = f"{record.levelname:<7}"
        facts = _facts(record)
        if self._has_colour:
            time, facts = f"{_DIM}{time}{_RESET}", f"{_DIM}{facts}{_RESET}" if facts else ""
            level = f"{_COLOUR.get(record.levelname, '')}{level}{_RESET}"
        line = f"{time} {level} {record.getMessage()}"
        if facts:
            line += f"  {facts}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def words(record: logging.LogRecord) -> str:
    """The line without time and level, which journald shows itself."""
    text = "  ".join(part for part in (record.getMessage(), _facts(record)) if part)
    if record.exc_info:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    return text


def _facts(record: logging.LogRecord) -> str:
    return " ".join(f"{key}={_quoted(value)}" for key, value in fields_of(record).items())


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "\n') else text
