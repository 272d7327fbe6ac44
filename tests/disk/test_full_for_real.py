"""A real file system without room, in a mount namespace of its own that vanishes with the process."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import subprocess, sys
from pathlib import Path

where = Path(sys.argv[1])
mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(where)])
if mount.returncode:
    sys.exit(77)

from gateway.disk.filesystem import RealFileSystem
from gateway.disk.log import Log
from gateway.disk.writer import LogSettings, State

def make():
    return Log(
        where / "log", lane=0, filesystem=RealFileSystem(), settings=LogSettings(segment_bytes=50_000),
        notify=lambda call: call(), wall_ns=lambda: 0,
    )

ballast = where / "ballast"
log = make()
log.open(lambda *_: None)
ballast.write_bytes(bytes(150_000))
receipts, blocked = [], 0
for seq in range(1, 2001):
    if log.is_roll_due():
        log.roll(b"")
    receipts.append(log.append(1, (1, seq), 9, seq, b"%060d" % seq))
    if seq % 7 == 0 and not log.writer.step():
        blocked += 1
        assert log.writer.state is State.FULL
        if blocked == 20:
            ballast.unlink()
assert blocked >= 20, blocked
assert log.writer.step()
assert all(receipt.is_committed() for receipt in receipts)
log.close()
again, seen = make(), []
found = again.open(lambda _, entry: seen.append(entry))
assert not found.cuts and not found.damage
assert again.end == (1, 2000)
assert sum(segment.records for segment in found.segments) == 2000
again.close()
print("kept", blocked)
"""


def test_a_small_file_system_that_fills_up_loses_nothing(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        [unshare, "--mount", sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    if done.returncode == 77 or "Operation not permitted" in done.stderr:
        pytest.skip(f"may not mount a file system here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kept")
