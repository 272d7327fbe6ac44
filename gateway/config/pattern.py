"""Patterns over names: `*` is any text."""

from __future__ import annotations

import re


def glob(text: str) -> re.Pattern[str]:
    """What `fullmatch` of a name answers for a pattern."""
    return re.compile(".*".join(re.escape(part) for part in re.split(r"\*+", text)), re.DOTALL)
