"""Blocks as small as the records of these tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def packs_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it groups of a few small records would stay plain."""
    monkeypatch.setattr("gateway.disk.block.PACKED_BYTES_MIN", 1)
