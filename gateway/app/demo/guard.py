"""Runs one command and ends it when the parent is gone: `python -m gateway.app.demo.guard COMMAND…`.

The parent holds our standard input open. Closed, by a tidy parent or by the kernel after a kill -9, it means:
end the command, politely first. So no orphan stays behind, whatever the command thinks of its own input.
Exits as the command does, 128 + n when signal n ended it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import Final

GRACE_S: Final = 6.0  # between SIGTERM and SIGKILL; a gateway may take 5 to drain
_LOOK_S: Final = 0.1


def main(command: list[str]) -> int:
    """Run `command` until it ends or our standard input does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The parent decides, by closing our input. A handler, not SIG_IGN, which the command would inherit.
        signal.signal(number, lambda *_: None)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - the demo's own command
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    while child.poll() is None:
        if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 64):
            _end(child)
            break
    code = child.wait()
    return code if code >= 0 else 128 - code


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_LOOK_S / 5)
    if child.poll() is None:
        child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
