"""Times as people write them: `now`, `-2h`, RFC 3339, or a date and time of this machine's zone."""

from __future__ import annotations

import datetime
import re
from typing import Final

from pydantic_core import PydanticCustomError

from gateway.config.scalars import shown
from gateway.config.values import duration_ns

_LOST_PLUS: Final = re.compile(r"(.*\d) (\d\d:?\d\d)")  # in a URL a + that nobody escaped is a space
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def moment_ns(text: str, now_ns: int) -> int:
    """ns since 1970. Raises `ValueError` with words for people."""
    words = text.strip()
    if words == "now":
        return now_ns
    if words.startswith("-"):
        return now_ns - length_ns(words[1:])
    try:
        found = _parsed(words)
    except (ValueError, OverflowError, OSError):
        raise ValueError(
            f"found {shown(text)}, expected a time such as now, -2h, 2026-05-01, 2026-05-01T12:00 (of this "
            "machine's zone) or 2026-05-01T12:00:00Z"
        ) from None
    since = found - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def length_ns(text: str) -> int:
    """A duration such as `90s`. Raises `ValueError`."""
    try:
        return duration_ns(text.strip())
    except PydanticCustomError as error:
        raise ValueError(error.message()) from None


def _parsed(words: str) -> datetime.datetime:
    try:
        found = datetime.datetime.fromisoformat(words)
    except ValueError:
        lost = _LOST_PLUS.fullmatch(words)
        if lost is None:
            raise
        found = datetime.datetime.fromisoformat(f"{lost[1]}+{lost[2]}")
    return found.astimezone(datetime.UTC)  # one without a zone is of this machine's
