"""A command's payload, read into what `command_value` judges; whatever the bytes, `Refused` at most."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from io import BytesIO
from typing import Any, Final, NoReturn

import msgspec

from gateway.translate.command_value import Refused, parse_json
from gateway.translate.payload import Format

DEPTH_MAX: Final = 16  # of CBOR and SenML: an object with values in it needs two
# What CBOR has for other things than values: dates, big numbers, references, patterns, addresses, sets.
_REFUSED_TAGS: Final = (
    0,
    1,
    2,
    3,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
)


def parse_msgpack(payload: bytes) -> Any:
    """One MessagePack object, whole. Raises `Refused`."""
    try:
        found = msgspec.msgpack.decode(payload)
    except (msgspec.MsgspecError, ValueError, RecursionError, TypeError) as error:
        raise Refused(f"found bytes that are not MessagePack ({error}), expected a value or a map") from None
    if isinstance(found, dict) and len(found) != _pairs(payload):
        raise Refused("found a name twice, expected each name once")
    return found


def parse_cbor(payload: bytes) -> Any:
    """One CBOR data item (RFC 8949), whole, without names twice. Raises `Refused`.

    Of the tags only decimal fractions are read (§3.4.4), as floats: nothing else is a value of a point.
    """
    import cbor2

    stream = BytesIO(payload)
    try:
        found = cbor2.CBORDecoder(
            stream,
            semantic_decoders=dict.fromkeys(_REFUSED_TAGS, _refuse_tag),
            max_depth=DEPTH_MAX,
            allow_duplicate_keys=False,
            strict_hashable_types=False,
        ).decode()
    except (cbor2.CBORError, ValueError, ArithmeticError, RecursionError, TypeError) as error:
        raise Refused(f"found bytes that are not CBOR ({error}), expected a value or a map") from None
    if stream.read(1):
        raise Refused("found bytes behind the CBOR data item, expected one item")
    return _plain(found)


def _plain(found: Any) -> Any:
    if isinstance(found, Decimal):
        return _float(found)
    if isinstance(found, list | tuple):
        return [_plain(one) for one in found]
    if isinstance(found, dict):
        return {name: _plain(one) for name, one in found.items()}
    if found is None or isinstance(found, bool | int | float | str | bytes):
        return found
    raise Refused(f"found CBOR of the kind {type(found).__name__}, expected a value or a map")


def _float(found: Decimal) -> float:
    if not found.is_finite() or abs(found.adjusted()) > 400:
        raise Refused("found a decimal fraction beyond 64-bit floating point, expected a finite number")
    return float(found)


def _refuse_tag(_decoder: object) -> NoReturn:
    raise ValueError("a tag that no command has")


def _pairs(payload: bytes) -> int:
    """How many pairs the map at the start of a MessagePack object has."""
    first = payload[0]
    size = {0xDE: 2, 0xDF: 4}.get(first)
    return first & 0x0F if size is None else int.from_bytes(payload[1 : 1 + size], "big")


PARSERS: Final[dict[Format, Callable[[bytes], Any]]] = {
    Format.JSON: parse_json,
    Format.MSGPACK: parse_msgpack,
    Format.CBOR: parse_cbor,
}
