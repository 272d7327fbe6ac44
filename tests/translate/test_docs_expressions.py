"""docs/expressions.md: its example compiles, and it names every function."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.config.load import load
from gateway.translate.expression import FUNCTIONS, NAMES
from gateway.translate.units import QUANTITIES

TEXT = (Path(__file__).parents[2] / "docs" / "expressions.md").read_text()
SITE = """\
version: 1
gateway: {name: gw1}
links:
  plc: {driver: modbus, host: 10.0.0.11}
devices:
  p1:
    link: plc
    unit: 1
"""


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "gateway.yaml").write_text(SITE + textwrap.indent(example, "    "))
    compiled = compile_site(load(tmp_path, kinds()))
    assert len(compiled.expressions.tags) == example.count("expr:") - 1
    assert set(compiled.expressions.writes) == {"p1/sp", "p1/area"}


def test_every_unit_is_listed() -> None:
    for quantity, units in QUANTITIES.items():
        assert f"| {quantity} | {' '.join(f'`{unit}`' for unit in units)} |" in TEXT


def test_every_name_and_function_is_explained() -> None:
    [functions] = re.findall(r"\| Functions \| `(.*?)` \|", TEXT)
    assert sorted(functions.split()) == sorted(FUNCTIONS)
    for name in NAMES:
        assert f"| `{name}` |" in TEXT
