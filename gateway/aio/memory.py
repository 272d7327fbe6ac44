"""How much memory the machine has left."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_MEMINFO: Final = Path("/proc/meminfo")
_FIELD: Final = "MemAvailable:"


def available_bytes(path: Path = _MEMINFO) -> int | None:
    """What can be had without swapping, proc(5); None where the system does not say."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    for line in text.splitlines():
        if line.startswith(_FIELD):
            amount = line[len(_FIELD) :].split()
            return int(amount[0]) * 1024 if amount and amount[0].isdigit() else None
    return None
