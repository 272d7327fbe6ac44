"""Serial ports for tests: pseudo-terminals with a name that survives unplugging, as /dev/serial/by-id has."""

from __future__ import annotations

import os
import pty
import tty
from pathlib import Path


class Port:
    """`path` leads to our end; the test speaks at the other one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.far = -1
        self._near = -1
        self.plug()

    def plug(self) -> None:
        """Plug an adapter in: a new device under the old name."""
        self.far, self._near = pty.openpty()
        tty.setraw(self._near)
        os.set_blocking(self.far, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._near))

    def unplug(self) -> None:
        """The device goes away under whoever has it open, and so does its name."""
        self.path.unlink(missing_ok=True)
        for fd in (self.far, self._near):
            if fd >= 0:
                os.close(fd)
        self.far = self._near = -1

    def heard(self) -> bytes:
        """What came out of the port so far."""
        try:
            return os.read(self.far, 65536)
        except BlockingIOError:
            return b""

    def say(self, data: bytes) -> None:
        """Bytes for our end."""
        assert os.write(self.far, data) == len(data)
