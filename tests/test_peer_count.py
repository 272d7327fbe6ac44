"""A peer test that did not run is told, and fails the session where the run decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULE = """
import pytest

@pytest.mark.interop
def test_that_runs():
    pass

@pytest.mark.interop
def test_that_skips():
    pytest.skip("no such peer")

def test_of_our_own():
    pytest.skip("not counted")
"""


@pytest.mark.parametrize(("ci", "exit_code"), [("", 0), ("true", 1)])
def test_a_skipped_peer_test_fails_where_the_run_decides(tmp_path: Path, ci: str, exit_code: int) -> None:
    (tmp_path / "test_one.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"),
         "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "CI": ci},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert "peer tests: 1 ran, 1 skipped (1 x no such peer)" in done.stdout
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert ("peer test did not run: test_one.py::test_that_skips" in done.stdout) is bool(ci)
