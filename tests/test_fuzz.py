"""`pytest --fuzz N` runs each property with N examples and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROPERTIES = """
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

seen = 0

@settings(max_examples=3)
@given(st.binary())
def test_own_settings(data):
    global seen
    seen += 1
    assert seen <= 40

@given(st.binary())
def test_default_settings(data):
    pass

class Machine(RuleBasedStateMachine):
    @rule()
    def step(self):
        pass

TestMachine = Machine.TestCase

def test_no_property():
    raise AssertionError("left out")
"""


def test_every_property_gets_so_many_examples_and_nothing_else_runs(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(PROPERTIES)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.fuzz", "--fuzz", "40", "--rootdir", str(tmp_path),
         "--hypothesis-show-statistics", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("max_examples=40") == 3, done.stdout
    assert "3 passed, 1 deselected" in done.stdout, done.stdout
