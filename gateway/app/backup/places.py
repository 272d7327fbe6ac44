"""Where a gateway's configuration and state lie, and what in the state is part of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

INSTALLED_CONFIG: Final = Path("/etc/edge-gateway")
INSTALLED_STATE: Final = Path("/var/lib/edge-gateway")
LOCK: Final = "lock"  # held by the gateway that runs, by a restore while it works
INTENT: Final = "restore.json"  # there while a restore puts things in their places
STAGED: Final = ".restoring"  # suffix of what a restore prepares
ASIDE: Final = ".before-"  # suffix, with a time behind it, of what a restore replaced
JOURNAL: Final = "journal"
VERSION_CONTROL: Final = frozenset({".git", ".hg", ".svn"})


def state_directory() -> Path:
    """$STATE_DIRECTORY as systemd sets it (the first of several), else ./state."""
    return Path(os.environ.get("STATE_DIRECTORY", "state").split(":")[0])


def usual_state(config: Path) -> Path:
    """As `state_directory`; for the configuration of an installed service the service's."""
    if "STATE_DIRECTORY" not in os.environ and config.absolute() == INSTALLED_CONFIG:
        return INSTALLED_STATE
    return state_directory()


def journal_home(state: Path, configured: str | None) -> Path:
    """The directory in which the directory of the journal lies."""
    return state if configured is None else Path(configured)


def is_ours(name: str) -> bool:
    """Whether an entry of the state directory is data: no lock, no trace of a restore."""
    return name not in {LOCK, INTENT} and STAGED not in name and ASIDE not in name
