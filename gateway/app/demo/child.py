"""A child process of the demo: guarded, logged, and gone when the demo is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from gateway.app.demo import guard
from gateway.core.errors import GatewayError

_TAIL_BYTES: Final = 16384


def _python_path() -> str:
    """Where this very `gateway` was found, so that a child finds the same one whatever its directory."""
    root = str(Path(guard.__file__).parents[3])
    return os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))


class ChildFailed(GatewayError):
    """A part of the demo did not start or ended by itself; the message has its last words."""


class Child:
    """One guarded command, its output appended to `log`. `stop` is safe to call twice."""

    def __init__(self, name: str, command: list[str], *, log: Path) -> None:
        self.name: Final = name
        self.log: Final = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and our own commands
                [sys.executable, "-P", guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": _python_path()},
                start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends its parts in order
            )

    @property
    def is_running(self) -> bool:
        """Whether the command is still there."""
        return self._process.poll() is None

    def require_running(self) -> None:
        """Raise `ChildFailed` with its last words when it has ended."""
        if not self.is_running:
            raise ChildFailed(
                f"{self.name} ended with exit code {self._process.returncode}:\n{self.last_words()}"
            )

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, indented."""
        data = self.log.read_bytes()[-_TAIL_BYTES:]
        tail = data.decode(errors="replace").splitlines()[-lines:]
        return "\n".join(f"  {self.name} | {line}" for line in tail) or f"  {self.name} | (wrote nothing)"

    def ask_to_stop(self) -> None:
        """Let it end; `stop` waits for that."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()

    def stop(self) -> int:
        """End it, politely first, and wait; returns its exit code."""
        self.ask_to_stop()
        return self._process.wait(timeout=guard.GRACE_S + 2.0)
