"""What system tests are given: servers on a thread, gateways that are ended, logs without tracebacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.plant import Plant
from tests.system.process import Gateway, no_tracebacks
from tests.system.waiting import Background


@pytest.fixture
def background() -> Iterator[Background]:
    """An event loop beside the test."""
    made = Background()
    yield made
    made.close()


@pytest.fixture
def plant(background: Background) -> Iterator[Plant]:
    """A plant of one unit that listens."""
    made = Plant(background)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def make_gateway(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    """Makes gateways; ends them, and looks through everything they wrote."""
    made: list[Gateway] = []

    def make(config: dict[str, Any] | None = None, *, name: str = "gateway", **options: Any) -> Gateway:
        made.append(Gateway(tmp_path / name, config, **options))
        return made[-1]

    yield make
    for gateway in made:
        gateway.kill()
    no_tracebacks(made)
