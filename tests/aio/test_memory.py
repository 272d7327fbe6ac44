"""What the kernel says of free memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.aio.memory import available_bytes


def test_this_machine_says() -> None:
    found = available_bytes()
    assert found is not None
    assert found > 1 << 20


@pytest.mark.parametrize("text", ["", "MemTotal: 5 kB\n", "MemAvailable:\n", "MemAvailable: lots\n"])
def test_where_it_does_not_say_nothing_is_assumed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "meminfo"
    path.write_text(text)
    assert available_bytes(path) is None
    assert available_bytes(tmp_path / "none") is None
