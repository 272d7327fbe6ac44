"""`/v1/links/NAME/frames`: what goes over one wire, while somebody looks.

`PUT …?for=60s` has frames kept for so long (10 minutes at most, 0s ends it), `GET …?since=N` reads them. Only
from this machine: it costs the gateway time, and shows what devices are told.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, unquote

import msgspec
from pydantic_core import PydanticCustomError

from gateway.api.source import Frames, StatusSource
from gateway.config.values import duration_ns
from gateway.core.frames import WATCH_MAX_NS

_PATH: Final = re.compile(r"/v1/links/([^/]+)/frames")
_DEFAULT: Final = "60s"


class BadQuestion(Exception):
    """What is asked cannot be answered: (code, why)."""

    def __init__(self, code: int, error: str) -> None:
        super().__init__(error)
        self.code: Final = code
        self.error: Final = error


def link_of(path: str) -> str | None:
    """The link whose frames are asked for; None where the path is another one."""
    found = _PATH.fullmatch(path)
    return unquote(found.group(1)) if found else None


def frames(source: StatusSource, *, method: bytes, link: str, query: str) -> bytes:
    """The answer's body. Raises `BadQuestion`."""
    fields = parse_qs(query, keep_blank_values=True)
    known = "for" if method == b"PUT" else "since"
    unknown = sorted(set(fields) - {known})
    if unknown:
        raise BadQuestion(400, f"unknown parameter {unknown[0]!r}, expected {known}")
    found: Frames | None
    if method == b"PUT":
        found = source.watch_frames(link, _duration(fields.get("for", [_DEFAULT])[-1]))
    else:
        found = source.frames(link, _number(fields.get("since", ["0"])[-1]))
    if found is None:
        raise BadQuestion(404, f"no link {link!r}; /v1/status names them")
    return msgspec.json.encode(found)


def _duration(text: str) -> int:
    if text in {"0", "0s"}:
        return 0
    try:
        for_ns = duration_ns(text)
    except PydanticCustomError as error:
        raise BadQuestion(400, f"for: {error.message()}") from None
    if for_ns > WATCH_MAX_NS:
        raise BadQuestion(400, f"for: found {text}, expected {WATCH_MAX_NS // 60_000_000_000}m at most")
    return for_ns


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BadQuestion(400, f"since: found {text!r}, expected the number of a frame, a whole number")
    return int(text)
