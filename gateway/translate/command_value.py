"""What a command's payload says, as a value of the point it is for: exact, or refused with the reason."""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, Final, NoReturn

from gateway.core.point import Point, Value, ValueType
from gateway.translate.faults import nearest

INTEGER_MIN: Final = -(2**63)  # what a journal and a payload carry exactly, signed and unsigned
INTEGER_MAX: Final = 2**64 - 1
SHOWN_CHARACTERS_MAX: Final = 60  # of what was found, in a reason
EXPECTED: Final = {
    ValueType.BOOL: "true or false (or 1 or 0)",
    ValueType.INT: "a whole number",
    ValueType.FLOAT: "a number",
    ValueType.STRING: "a text in quotes",
    ValueType.BYTES: "base64 text in quotes",
}


class Refused(ValueError):
    """The payload is not a command for the point; the text says what was found and what was expected."""


def parse_json(payload: bytes) -> Any:
    """JSON as RFC 8259 has it, without NaN, doubled names or depth beyond reason. Raises `Refused`."""
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise Refused(f"found bytes that are not UTF-8 at {error.start}, expected JSON") from None
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"character {error.pos + 1}: {error.msg}"
        raise Refused(
            f"found {shown(text)}, which is not JSON ({where}), expected a JSON value or object"
        ) from None
    except RecursionError:
        raise Refused("found JSON nested too deeply, expected a JSON value or object") from None
    except Refused:
        raise
    except ValueError:
        raise Refused(f"found a number too long to read, expected {INTEGER_MIN} to {INTEGER_MAX}") from None


def value_from_json(point: Point, found: Any) -> Value:
    """The value that a decoded payload means: what `publish` writes, an enum's text, 0 and 1 for bool.

    Whole numbers written with a fraction of zero are whole numbers. Raises `Refused`.
    """
    if isinstance(found, str) and point.labels:
        return _labelled(point, found)
    kind = point.type
    if kind is ValueType.BOOL and (
        isinstance(found, bool) or (isinstance(found, int | float) and found in (0, 1))
    ):
        return bool(found)
    if kind is ValueType.STRING and isinstance(found, str):
        return _encodable(found)
    if kind is ValueType.BYTES and isinstance(found, bytes):
        return found
    if kind is ValueType.BYTES and isinstance(found, str):
        try:
            return base64.b64decode(found, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(f"found {shown(found)}, expected {EXPECTED[kind]}") from None
    if isinstance(found, int | float) and found is not True and found is not False:
        if kind is ValueType.INT:
            return _whole(found)
        if kind is ValueType.FLOAT:
            return _finite(found)
    raise Refused(f"found {described(found)}, expected {_expected(point)}")


def value_from_text(point: Point, payload: bytes) -> Value:
    """The value of a point that a `raw` payload means: the text that `raw` publishes. Raises `Refused`."""
    if not payload:
        raise Refused(f"found nothing, expected {_expected(point)}")
    if point.type is ValueType.BYTES:
        return payload
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise Refused(
            f"found bytes that are not UTF-8 at {error.start}, expected {_expected(point)}"
        ) from None
    if point.type is ValueType.STRING:
        return text
    if any(text == label for _, label in point.labels):
        return _labelled(point, text)
    try:
        found = parse_json(payload)
    except Refused:
        found = None
    if not isinstance(found, bool | int | float):
        raise Refused(f"found {shown(text)}, expected {_expected(point).replace(' in quotes', '')}")
    return value_from_json(point, found)


def shown(text: str) -> str:
    """A text quoted and shortened for a reason."""
    cut = text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "…"
    return ascii(cut) if any(not character.isprintable() for character in cut) else repr(cut)


def _whole(found: float | int) -> int:  # noqa: PYI041  # an int here is not rounded to a float
    if not math.isfinite(found) or found != int(found):
        raise Refused(f"found {found!r}, expected {EXPECTED[ValueType.INT]}")
    if not INTEGER_MIN <= found <= INTEGER_MAX:
        raise Refused(f"found {shown(str(found))}, expected {INTEGER_MIN} to {INTEGER_MAX}")
    return int(found)


def _finite(found: float) -> float:
    try:
        number = float(found)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refused("found a number beyond what 64-bit floating point holds, expected a finite number")
    return number


def _labelled(point: Point, text: str) -> Value:
    raws = [raw for raw, label in point.labels if label == text]
    if len(raws) == 1:
        return {ValueType.BOOL: bool, ValueType.FLOAT: float}.get(point.type, int)(raws[0])
    if point.type is ValueType.STRING:
        return _encodable(text)
    if raws:
        raise Refused(f"found {shown(text)}, which means {' and '.join(map(str, raws))}, expected the number")
    labels = [label for _, label in point.labels]
    raise Refused(f"found {shown(text)}, expected {_expected(point)}{nearest(text, labels)}")


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("found a text with half a surrogate pair, expected Unicode text") from None
    return text


def _expected(point: Point) -> str:
    if not point.labels:
        return EXPECTED[point.type]
    return f"one of {', '.join(repr(label) for _, label in point.labels)}, or {EXPECTED[point.type]}"


def described(found: Any) -> str:
    """Decoded JSON in a few words."""
    if found is None:
        return "null"
    if isinstance(found, dict):
        return "an object"
    if isinstance(found, list):
        return "a list"
    if isinstance(found, bytes):
        return f"{len(found)} bytes"
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, str):
        return shown(found)
    return shown(repr(found))[1:-1]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(f"found {shown(twice)} twice, expected each name once")
    return fields


def _no_constant(word: str) -> NoReturn:
    raise Refused(f"found {word}, which is not JSON, expected a number")
