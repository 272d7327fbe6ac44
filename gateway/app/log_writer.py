"""Log lines on their way out: a reader of standard error that stands still holds up nobody."""

from __future__ import annotations

import io
import logging
import os
import select
import threading
import time
from collections import deque
from typing import Final, TextIO

from gateway.core.bounded import Bound, Level

QUEUED_BYTES_MAX: Final = 1 << 20
DRAIN_S: Final = 1.0  # at the end of the process, for what is still queued
QUEUE: Final = Bound(
    noun="log_waiting",
    unit="bytes",
    what="log lines that wait for standard error to take them",
    beyond="new lines are dropped, and how many is said once there is room",
    lost_unit="lines",
    holds=("LineWriter._waiting",),
)


class LineWriter(logging.Handler):
    """Formats where it is called and writes on a thread of its own, which lives as long as the process.

    It writes to the descriptor itself: a thread that stands in a buffered stream keeps that stream's lock,
    and Python wants it at the end.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._encoding = getattr(stream, "encoding", None) or "utf-8"
        try:
            self._descriptor: int | None = stream.fileno()
        except (OSError, io.UnsupportedOperation):  # a stream in memory
            self._descriptor = None
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._untold = 0  # of the dropped
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def level_now(self) -> Level:
        """How much waits."""
        with self._changed:
            return QUEUE.at(self._waiting_bytes, QUEUED_BYTES_MAX, self._dropped)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue its line; never waits for the stream."""
        try:
            line = (self.format(record) + "\n").encode(self._encoding, "backslashreplace")
        except Exception:  # noqa: BLE001 - what logging does with a record that cannot be formatted
            self.handleError(record)
            return
        with self._changed:
            if self._waiting_bytes + len(line) > QUEUED_BYTES_MAX:
                self._dropped += 1
                self._untold += 1
                return
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log lines", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, at most `DRAIN_S`."""
        give_up = time.monotonic() + DRAIN_S
        with self._changed:
            while self._waiting_bytes and (left := give_up - time.monotonic()) > 0:
                self._changed.wait(left)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                lines = list(self._waiting)
                self._waiting.clear()
                untold, self._untold = self._untold, 0
            if untold:
                lines.append(self._gap(untold))
            lost = 0 if self._write(b"".join(lines)) else len(lines)
            with self._changed:
                self._waiting_bytes -= sum(map(len, lines)) - (len(lines[-1]) if untold else 0)
                self._dropped += lost
                self._changed.notify_all()

    def _gap(self, count: int) -> bytes:
        facts = {"name": "gateway", "levelno": logging.WARNING, "levelname": "WARNING", "lines": count}
        record = logging.makeLogRecord({**facts, "msg": "log lines were dropped: standard error took none"})
        return (self.format(record) + "\n").encode(self._encoding, "backslashreplace")

    def _write(self, data: bytes) -> bool:
        try:
            if self._descriptor is None:
                self._stream.write(data.decode(self._encoding))
                self._stream.flush()
                return True
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self._descriptor, view) :]
                except BlockingIOError:  # somebody else made it so
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):  # nobody reads any more, or the stream is closed: counted
            return False
        return True
