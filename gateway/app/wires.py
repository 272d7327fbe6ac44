"""Frames of links, for people who look at a running gateway."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway.api import source as api
from gateway.core.clock import Clock
from gateway.core.frames import Frame, FrameLog

if TYPE_CHECKING:
    from gateway.app.runtime import Gateway

_log = logging.getLogger("gateway.wires")

READ_EVERY_NS: Final = 50_000_000  # putting frames into words takes the loop's time: not more often


class Wires:
    """Has the sessions of links keep their frames, and shows them."""

    def __init__(self, gateway: Gateway, *, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._next_ns = 0  # before it nobody is shown frames again

    def frames(self, link: str, since: int) -> api.Frames | None:
        """Frames with a number above `since`; asked too often, none. None where there is no such link."""
        log, now_ns = self._log_of(link), self._clock.monotonic_ns()
        if log is None:
            return None
        if now_ns < self._next_ns:
            return self._view(link, log, now_ns, [], missed=0)
        self._next_ns = now_ns + READ_EVERY_NS
        frames, missed = log.read(since)
        return self._view(link, log, now_ns, frames, missed=missed)

    def watch(self, link: str, for_ns: int) -> api.Frames | None:
        """Keep frames from now on for so long; 0 ends it. The answer shows none."""
        log, now_ns = self._log_of(link), self._clock.monotonic_ns()
        if log is None:
            return None
        log.watch(now_ns, for_ns)
        if for_ns:
            _log.info(
                "frames of a link are kept to be looked at", extra={"link": link, "for_s": for_ns / 1e9}
            )
        return self._view(link, log, now_ns, [], missed=0)

    def _log_of(self, link: str) -> FrameLog | None:
        found = self._gateway.links.get(link)
        return None if found is None else found.driver.session.frames

    def _view(self, link: str, log: FrameLog, now_ns: int, frames: list[Frame], *, missed: int) -> api.Frames:
        wall_ns = self._clock.wall_ns()
        return api.Frames(
            link=link,
            watched_s=round(max(0, log.until_ns - now_ns) / 1e9, 1),
            last=log.last,
            missed=missed,
            frames=[
                api.FrameView(
                    number=frame.number,
                    time=api.rfc3339(wall_ns - (now_ns - frame.at_ns)),
                    way=frame.way,
                    hex=frame.hex,
                    text=frame.text,
                )
                for frame in frames
            ],
        )
