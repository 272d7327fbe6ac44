"""One end of a pseudo-terminal: a serial line without a wire, for whoever opens its other end by name."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable
from typing import Final

from gateway.aio.pump import Pump
from gateway.aio.serial_transport import SerialTransport
from gateway.core.clock import Clock


class PtyOpener:
    """Makes a pair and speaks on one end; `name` is the other. The pair stays over connections.

    Its other end is held open, too: who opens and closes it is not seen as a line that went away.
    """

    def __init__(self, *, clock: Clock, character_ns: int) -> None:
        """Raises `OSError` where the system has none left."""
        self._mine, self._other = os.openpty()
        tty.setraw(self._other)
        os.set_blocking(self._mine, False)
        self.name: Final = os.ttyname(self._other)
        self._clock: Final = clock
        self._character_ns: Final = character_ns

    @property
    def address(self) -> str:
        """The name of the other end."""
        return self.name

    @property
    def awaited(self) -> str:
        """Nothing: it is there."""
        return "pseudo-terminal"

    async def open(self, new_pump: Callable[[], Pump]) -> Pump:
        """Speak on our end; one at a time."""
        pump = new_pump()
        SerialTransport(
            os.dup(self._mine),
            pump,
            loop=asyncio.get_running_loop(),
            clock=self._clock,
            character_ns=self._character_ns,
            closed=os.close,
        ).start()
        return pump

    def release(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Both ends are gone."""
        os.close(self._mine)
        os.close(self._other)
