"""Lines that come in on standard input, without ever waiting for one in the loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import IO


def on_lines(take: Callable[[str], None], source: IO[str] | None = None) -> None:
    """Have the running loop call `take` with each line of `source` (standard input) until that ends.

    A thread reads, and is left behind where the process ends first: nobody can wake it.
    """
    loop = asyncio.get_running_loop()
    lines = sys.stdin if source is None else source

    def read() -> None:
        try:
            for line in lines:
                loop.call_soon_threadsafe(take, line.strip())
        except (OSError, ValueError, RuntimeError):  # closed under us, or the loop is: there is no more
            return

    threading.Thread(target=read, name="standard input", daemon=True).start()
