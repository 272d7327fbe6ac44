"""docs/operation.md: its table of limits, from the code. Run as a program it writes it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import drivers
import gateway
from gateway.core.bounded import Bound

DOCUMENT = Path(__file__).parent.parent / "docs" / "operation.md"
TABLE = re.compile(r"<!-- limits -->\n(?:\|.*\n)*")


def bounds() -> dict[str, Bound]:
    """Every bound that any module declares: `module.NAME` → it."""
    found: dict[str, Bound] = {}
    for package in (gateway, drivers):
        for module_info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(module_info.name)
            for name, value in vars(module).items():
                if isinstance(value, Bound) and value not in found.values():
                    found[f"{module.__name__}.{name}"] = value
    return found


def limits_table() -> str:
    """A Markdown table of all of them."""
    lines = ["| metrics | what is in it | at the limit | counted as |", "|---|---|---|---|"]
    for bound in sorted(bounds().values(), key=lambda bound: bound.noun):
        labels = f" by {', '.join(bound.labels)}" if bound.labels else ""
        names = f"`{bound.depth_name}`, `…_limit_{bound.unit}`{labels}"
        lost = f"`…_{bound.lost}_{bound.lost_unit or bound.unit}_total`" if bound.lost else ""
        lines.append(f"| {names} | {bound.what} | {bound.beyond} | {lost} |")
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The text with the table as the code has it."""
    return TABLE.sub(lambda _: f"<!-- limits -->\n{limits_table()}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text()))
