"""Log lines in journald's own protocol: a sentence for `journalctl -u`, every fact as a field to filter by.

`journalctl -u edge-gateway` shows `link is down, trying again  link=plc wait_s=2`; `GATEWAY_LINK=plc` behind
it shows the lines of one link, `-p warning` the warnings, `-o json` everything. The wire format is that of
https://systemd.io/JOURNAL_NATIVE_PROTOCOL: `KEY=value\n`, or where the value has a line feed `KEY\n`, its
length as 64 bits little-endian, the value, `\n`; one datagram an entry.
"""

from __future__ import annotations

import logging
import os
import re
import select
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

SOCKET: Final = "/run/systemd/journal/socket"
PREFIX: Final = "GATEWAY_"  # so that no fact of ours is taken for a field that journald knows, such as UNIT
FIELDS_MAX: Final = 64
NAME_CHARACTERS_MAX: Final = 64 - len(PREFIX)  # of a field: journald drops longer ones
VALUE_BYTES_MAX: Final = 16_384  # of one value; a datagram must fit the socket's send buffer
PATIENCE_MS: Final = 20  # for a journald that is slow; the event loop waits meanwhile
PRIORITY: Final = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}  # of syslog(3)
_NOT_A_NAME: Final = re.compile(r"[^A-Z0-9_]")


def is_journal(descriptor: int, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a descriptor goes to journald: $JOURNAL_STREAM is its device:inode, systemd.exec(5)."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def encode(fields: Mapping[str, str]) -> bytes:
    """One entry."""
    parts: list[bytes] = []
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")[:VALUE_BYTES_MAX]
        if b"\n" in value:
            parts += [name.encode(), b"\n", len(value).to_bytes(8, "little"), value, b"\n"]
        else:
            parts += [name.encode(), b"=", value, b"\n"]
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Sends to journald and never waits for it: what it does not take is counted and said later."""

    def __init__(
        self,
        *,
        words: Callable[[logging.LogRecord], str],
        facts: Callable[[logging.LogRecord], Mapping[str, Any]],
        address: str,
    ) -> None:
        """`words` makes the line that people read. Raises `OSError` where there is no journald."""
        super().__init__()
        self._words = words
        self._facts = facts
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self.dropped = 0  # since the last line that went out
        self.lost = 0  # in all

    def emit(self, record: logging.LogRecord) -> None:
        """One datagram."""
        try:
            data = encode(self._fields(record))
            if self.dropped and self._send(encode(self._apology())):
                self.dropped = 0
            if self.dropped or not self._send(data):
                self.dropped += 1
                self.lost += 1
        except Exception:  # noqa: BLE001 - as logging wants it: a log line must not end what it tells about
            self.handleError(record)

    def close(self) -> None:
        """As `Handler.close`."""
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        fields = {
            "MESSAGE": self._words(record),
            "PRIORITY": str(PRIORITY.get(record.levelname, 6)),
            "SYSLOG_IDENTIFIER": "edge-gateway",
            "GATEWAY_LOGGER": record.name,
        }
        for name, value in list(self._facts(record).items())[:FIELDS_MAX]:
            key = _NOT_A_NAME.sub("_", name.upper())[:NAME_CHARACTERS_MAX]
            fields[PREFIX + key] = str(value)
        return fields

    def _apology(self) -> dict[str, str]:
        words = f"{self.dropped} log lines are missing here: journald did not take them"
        return {"MESSAGE": words, "PRIORITY": "4", "SYSLOG_IDENTIFIER": "edge-gateway"}

    def _send(self, data: bytes) -> bool:
        for patience_ms in (0 if self.dropped else PATIENCE_MS, None):
            try:
                self._socket.send(data)
            except BlockingIOError:
                if patience_ms is None:
                    return False
                poll = select.poll()
                poll.register(self._socket, select.POLLOUT)
                poll.poll(patience_ms)
            except OSError:  # too large, or journald is away: it comes back on the same path
                self._reconnect()
                return False
            else:
                return True
        return False

    def _reconnect(self) -> None:
        try:
            self._socket.connect(self._address)
        except OSError:
            return  # the next line tries again
