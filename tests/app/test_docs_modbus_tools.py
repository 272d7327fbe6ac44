"""Every command in docs/modbus-tools.md is one; its table of faults is that of the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from drivers.modbus.simulator.faults import MEANINGS, parse
from gateway.app.cli import cli

DOCUMENT = (Path(__file__).parents[2] / "docs/modbus-tools.md").read_text()
COMMANDS = re.findall(r"^    gateway (.+)$", DOCUMENT, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    words = shlex.split(line)
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    if "--faults" in words:  # only lists something, and ends
        with pytest.raises(click.exceptions.Exit):
            command.make_context(line, words)
        return
    context = command.make_context(line, words)
    for rule in context.params.get("faults", ()):
        parse(rule)


def test_the_table_of_faults_is_the_programs() -> None:
    rows = dict(re.findall(r"^\| (\w+) \| (.+) \|$", DOCUMENT, re.MULTILINE))
    del rows["kind"]
    assert rows == {kind.value: meaning for kind, meaning in MEANINGS.items()}


def test_the_answer_shown_is_the_golden_one() -> None:
    golden = Path(__file__).parents[1] / "cases/probe/registers.txt"
    shown = golden.read_text().replace("HOST", "127.0.0.1:5020").replace("_ ms", "0.4 ms")
    assert shown.rstrip("\n") in DOCUMENT
