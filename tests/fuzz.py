"""`pytest --fuzz N`: every property of the project with N examples, and nothing else.

Whatever is written with hypothesis takes part; nothing has to be registered. `script/torture --fuzz N` runs
it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import is_hypothesis_test, settings

_SETTINGS = "_hypothesis_internal_use_settings"  # where @given looks; there is no public way from outside


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--fuzz", type=int, default=0, metavar="N", help="only properties, N examples each")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is no property, and set the others' number of examples."""
    examples = config.getoption("--fuzz")
    if not examples:
        return
    properties = [item for item in items if is_hypothesis_test(getattr(item, "obj", None))]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(properties)])
    items[:] = properties
    for item in items:
        _set_examples(item, examples)


def _set_examples(item: Any, examples: int) -> None:
    test = getattr(item.obj, "__func__", item.obj)
    for holder, name in ((test, _SETTINGS), (item.cls, "settings")):  # a function's; a state machine's
        now = getattr(holder, name, None)
        if isinstance(now, settings):
            setattr(holder, name, settings(now, max_examples=examples, deadline=None))
            return
    raise pytest.UsageError(f"{item.nodeid}: this hypothesis keeps its settings elsewhere: see tests/fuzz.py")
