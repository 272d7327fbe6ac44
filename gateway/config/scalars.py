"""Plain scalars of YAML 1.2 (core schema, §10.3.2), and the words in which values are shown to people."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Final

from gateway.config.tree import Atom

NUMBER_CHARACTERS_MAX: Final = 64  # no register and no time needs more; keeps int() and float() cheap

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL: Final = re.compile(r"([-+]?\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9]")
_USER_INFO: Final = re.compile(r"(://)[^/@\s]*@")
_FIRST: Final = frozenset("-+.0123456789")


class BadScalar(ValueError):
    """A plain scalar that nobody can read in one way; `found` and `expected` say so."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"found {found}, expected {expected}")
        self.found = found
        self.expected = expected


def resolve(text: str) -> Atom:
    """The value of a plain (unquoted) scalar. `no`, `on` and `1:20` stay text; raises `BadScalar`."""
    if text in _NULLS:
        return None
    if text[0] not in _FIRST:
        return _BOOLS.get(text, text)
    if _FLOAT.fullmatch(text) is None:
        if _HEX.fullmatch(text) or _OCTAL.fullmatch(text):
            return int(_short(text), 0)
        if _SPECIAL.fullmatch(text):
            return float(text.lower().replace(".", ""))
        return text
    if _LEADING_ZERO.match(text):
        raise BadScalar(
            f"a number with a leading zero, {clip(text)}",
            f"{text.lstrip('+-0') or '0'} for the number or '{clip(text)}' in quotes for the text",
        )
    return int(_short(text)) if _INT.fullmatch(text) else float(_short(text))


def _short(text: str) -> str:
    if len(text) > NUMBER_CHARACTERS_MAX:
        raise BadScalar(f"a number of {len(text)} characters", f"at most {NUMBER_CHARACTERS_MAX}")
    return text


def clip(text: str, limit: int = 60) -> str:
    """Text cut for a message, without control characters and without user and password of a URL."""
    text = _USER_INFO.sub(r"\1***@", text)
    text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(value: object) -> str:
    """A value as it stands in a message after `found`."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"the value {str(value).lower()}"
        case str():
            return f"'{clip(value)}'"
        case int() | float():
            return f"the number {value!r}"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"a {type(value).__name__}"


def near(word: str, known: Iterable[str]) -> str | None:
    """The known word that the user may have meant, if one is near."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def one_of(names: Iterable[str], limit: int = 32) -> str:
    """`a, b or c`, cut where the list is long; `nothing, as there is none` where it is empty."""
    listed = list(names)
    if not listed:
        return "none, as none is defined"
    if len(listed) == 1:
        return listed[0]
    if len(listed) > limit:
        return ", ".join(listed[:limit]) + f" … ({len(listed)} in all)"
    return ", ".join(listed[:-1]) + " or " + listed[-1]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` — did you mean 'host'?`, or nothing."""
    meant = near(word, known)
    return f" — did you mean '{meant}'?" if meant else ""


def choice(found: object, known: Iterable[str]) -> str:
    """`a, b or c — did you mean 'a'?`: what to expect instead of a name that is not known."""
    names = list(known)
    hint = did_you_mean(found, names) if isinstance(found, str) and len(names) > 1 else ""
    return one_of(names) + hint
