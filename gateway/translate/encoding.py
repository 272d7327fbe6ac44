"""Three ways to write the same object: JSON (RFC 8259), MessagePack and CBOR (RFC 8949)."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from gateway.core.point import Value
from gateway.translate.payload import Format, encode

# Floats that are no number, as each encoder writes them: in eight bytes, CBOR's in two.
_MSGPACK_NOT_FINITE: Final = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]")
_CBOR_NOT_FINITE: Final = re.compile(rb"\xf9[\x7c-\x7f\xfc-\xff]")


class Encoding:
    """Writes objects whose parts may be put together by hand.

    That is `open`, each name, `colon` and value with `between` between them, and `close`.
    """

    __slots__ = ("_not_finite", "between", "close", "colon", "encode", "null", "open")

    def __init__(
        self,
        encode: Callable[[Any], bytes],
        *,
        opening: Callable[[int], bytes],
        colon: bytes = b"",
        between: bytes = b"",
        close: bytes = b"",
        not_finite: re.Pattern[bytes] | None = None,
    ) -> None:
        """`opening(pairs)` starts an object; `not_finite` finds numbers that we do not write."""
        self.encode: Final = encode
        self.open: Final = opening
        self.colon: Final = colon
        self.between: Final = between
        self.close: Final = close
        self.null: Final = encode(None)
        self._not_finite = not_finite

    def value(self, value: Value) -> bytes:
        """One value; null where it is none or no finite number."""
        if self._not_finite is not None and value.__class__ is float and not math.isfinite(value):
            return self.null
        return self.encode(value)

    def nulls(self, text: bytes, values: Iterable[Value]) -> int:
        """How many of the values are null or no number in their text; never too few."""
        if self._not_finite is None:
            return text.count(b"null") if b"null" in text else 0
        return tuple(values).count(None) + len(self._not_finite.findall(text))


def _map_head(count: int) -> bytes:
    """The MessagePack specification, "map format family"."""
    if count < 16:
        return bytes([0x80 | count])
    return b"\xde" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdf" + count.to_bytes(4, "big")


def _cbor_head(count: int) -> bytes:
    """RFC 8949 §3.1, major type 5."""
    if count < 24:
        return bytes([0xA0 | count])
    for code, size in ((0xB8, 1), (0xB9, 2)):
        if count < 1 << 8 * size:
            return bytes([code]) + count.to_bytes(size, "big")
    return b"\xba" + count.to_bytes(4, "big")


JSON: Final = Encoding(encode, opening=lambda _: b"{", colon=b":", between=b",", close=b"}")
MSGPACK: Final = Encoding(msgspec.msgpack.Encoder().encode, opening=_map_head, not_finite=_MSGPACK_NOT_FINITE)


@functools.cache
def encoding_of(form: Format) -> Encoding:
    """The encoding of a format whose payload is an object. `cbor2` is loaded where it is wanted."""
    if form is Format.CBOR:
        from cbor2 import dumps

        return Encoding(dumps, opening=_cbor_head, not_finite=_CBOR_NOT_FINITE)
    return MSGPACK if form is Format.MSGPACK else JSON
