"""What systemd is told: that we are ready, what we do, and, only while it is true, that we are alive."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

_log = logging.getLogger("gateway.systemd")

BEATS_MIN: Final = 4  # questions to the journal within the time that systemd allows, at least
BEAT_S: Final = 5.0  # so often at least; it is also how old the words of `systemctl status` may be


def notify_systemd(message: str) -> None:
    """sd_notify(3): one datagram to $NOTIFY_SOCKET; nothing where systemd did not ask for it."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto(message.encode(), address)


def watchdog_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """After how many s of silence systemd ends this process; None: never (sd_watchdog_enabled(3))."""
    try:
        period_us = int(environ.get("WATCHDOG_USEC", ""))
        pid = int(environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return period_us / 1e6 if period_us > 0 and pid == os.getpid() else None


class Heart:
    """Beats for systemd's watchdog: only a loop that runs can, and only where every writer answered.

    `ask` asks each writer of the journal for a sign of life and returns at once, `silent` names those that
    have not answered yet. A full disk answers, and so does one that was given up with `live_only`.
    """

    def __init__(
        self,
        *,
        ask: Callable[[], None],
        silent: Callable[[], Sequence[str]],
        status: Callable[[], str],
        limit_s: float | None,
        notify: Callable[[str], None] = notify_systemd,
    ) -> None:
        """`limit_s` is what `watchdog_s` says; without one there is only the status line."""
        self._ask = ask
        self._silent = silent
        self._status = status
        self._limit_s = limit_s
        self._notify = notify
        self._said = ""
        self._missed = 0  # beats in a row

    async def run(self) -> None:
        """Until cancelled."""
        every_s = BEAT_S if self._limit_s is None else min(BEAT_S, self._limit_s / BEATS_MIN)
        self._beat(every_s)
        while True:
            self._ask()
            await asyncio.sleep(every_s)
            self._beat(every_s)

    def _beat(self, every_s: float) -> None:
        silent = self._silent()
        if silent:
            self._missed += 1
            facts = {"lanes": ", ".join(silent), "silent_s": round(self._missed * every_s, 1)}
            if self._missed == 1:
                _log.error("the journal does not answer: its disk hangs", extra=facts)
            if self._limit_s is not None and self._missed == int(self._limit_s / every_s) - 1:
                _log.critical("the journal does not answer: systemd will end this process", extra=facts)
        elif self._missed:
            _log.warning("the journal answers again", extra={"silent_s": round(self._missed * every_s, 1)})
            self._missed = 0
        said = f"the journal does not answer ({', '.join(silent)})" if silent else self._status()
        lines = []
        if self._limit_s is not None and not silent:
            lines.append("WATCHDOG=1")
        if said != self._said:
            lines.append(f"STATUS={said}")
            self._said = said
        if lines:
            self._notify("\n".join(lines))
