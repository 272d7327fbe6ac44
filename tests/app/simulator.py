"""`gateway simulate modbus` as a process, ready when it says so."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

from gateway.app.cli import main

COMMAND = (sys.executable, "-m", "gateway.app.cli", "simulate", "modbus")
READY = re.compile(r"listening on (\w+) (\S+) for link (\S+), units ([\d, ]+)\n")


class Running(NamedTuple):
    """`addresses`: of its links, in order."""

    process: subprocess.Popen[str]
    addresses: list[str]

    @property
    def port(self) -> int:
        """Of the first link."""
        return int(self.addresses[0].rpartition(":")[2])

    def tell(self, line: str) -> str:
        """Type a line; its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")


@contextmanager
def simulator(*arguments: str, links: int = 1) -> Iterator[Running]:
    """Running, with so many links; ended on the way out."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *arguments], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(links)]
            found = [READY.fullmatch(line) for line in lines]
            assert all(found), lines
            yield Running(process, [match[2] for match in found if match])
        finally:
            process.kill()


class Done(NamedTuple):
    """What a command came to."""

    returncode: int
    stdout: str
    stderr: str


def gateway(*arguments: str, columns: int = 80) -> Done:
    """`gateway ARGUMENTS` in this process, without a terminal."""
    out, err = io.StringIO(), io.StringIO()
    environment = {"COLUMNS": str(columns), "TERM": "dumb"}
    with (
        mock.patch.object(sys, "argv", ["gateway", *arguments]),
        mock.patch.object(sys, "stdin", io.StringIO()),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())
