"""The words of InfluxData's line protocol, as "Line protocol" of the InfluxDB v2 documentation has them."""

from __future__ import annotations

import base64
from typing import Final

from gateway.core.point import Value
from gateway.core.quality import BAD, OVERFLOW, Quality, worst
from gateway.translate.payload import encode

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1
RESERVED: Final = "time"  # "Naming restrictions", and an underscore in front
NAME_EXPECTED: Final = "a name other than time, without _ or # in front, line breaks, or \\ at its end"


def measurement(name: str) -> bytes:
    """ "Special characters": comma and space."""
    return _escape(name, ", ")


def key(name: str) -> bytes:
    """Keys and values of tags, and keys of fields: comma, equals sign and space."""
    return _escape(name, ",= ")


def is_name(name: str) -> bool:
    """Whether it can stand as a measurement or key and is read as the same again."""
    is_free = name != RESERVED and not name.startswith(("_", "#"))
    return bool(name) and is_free and "\n" not in name and not name.endswith("\\")


def is_tag_value(text: str) -> bool:
    """Whether it can stand as the value of a tag; an empty one is left out instead."""
    return "\n" not in text and not text.endswith("\\")


def field_value(value: Value, *, is_float: bool = False) -> bytes:
    """A finite value: integers with `i` unless the field is one of floats, texts in quotes, bytes as base64.

    A line break, which line protocol does not have, is written as a backslash and an n.
    """
    if isinstance(value, bytes):
        value = base64.b64encode(value).decode()
    if isinstance(value, str):
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return b'"' + text.encode() + b'"'
    if isinstance(value, int) and not isinstance(value, bool) and not is_float:
        return encode(value) + b"i"
    return encode(value)


def representable(value: Value, quality: Quality) -> tuple[Value, Quality]:
    """Integers have 64 bits and a sign: what is beyond is left out, and bad/overflow."""
    if isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        return None, worst(quality, BAD | OVERFLOW)
    return value, quality


def _escape(text: str, characters: str) -> bytes:
    for character in characters:
        text = text.replace(character, "\\" + character)
    return text.encode()
