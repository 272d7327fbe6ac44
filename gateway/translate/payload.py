"""What fields of a payload can say, and how: qualities, times and values as JSON. Never a lie."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from gateway.core.batch import Cause, Kind
from gateway.core.point import Point, Value
from gateway.core.quality import (
    BAD,
    CLOCK_NOT_SYNCHRONISED,
    DATED_LATER,
    INVALID,
    OVERFLOW,
    Quality,
    describe,
    worst,
)


class Source(enum.Enum):
    """Where a field of a payload comes from."""

    VALUE = "value"
    QUALITY = "quality"
    TIME = "time"  # the device's, or ours where it gave none: TIME_ORIGIN says which
    TIME_ORIGIN = "time_origin"  # whose clock, and whether ours could be trusted: see `gateway_origin`
    TIME_QUALITY = "time_quality"
    RECEIVED = "received"
    SEQ = "seq"
    EPOCH = "epoch"
    PART = "part"  # 1, 2 … for further messages of one batch on one topic; absent for the first
    UNIT = "unit"  # engineering unit
    LABEL = "label"  # text of an enumerated value, null where it has none
    DEVICE = "device"
    TAG = "tag"
    SITE = "site"
    GATEWAY = "gateway"
    KIND = "kind"
    CAUSE = "cause"
    MISSING = "missing"  # values taken out of the backlog right before this one; absent where none were
    HISTORICAL = "historical"  # true where the journal is replayed; absent where live


class TimeUnit(enum.Enum):
    """How times are written: integers since 1970-01-01 UTC, or RFC 3339 text in UTC."""

    MS = "ms"  # rounded down
    NS = "ns"
    RFC3339 = "rfc3339"  # with 3, 6 or 9 decimals, as few as lose nothing


class Format(enum.Enum):
    """The form of a payload."""

    JSON = "json"
    RAW = "raw"  # the text of the value alone
    MSGPACK = "msgpack"  # the object of `json`, in MessagePack
    CBOR = "cbor"  # the same in CBOR, RFC 8949
    INFLUX = "influx"  # InfluxData's line protocol


OBJECTS: Final = frozenset(
    {Format.JSON, Format.MSGPACK, Format.CBOR}
)  # payloads that are one object of fields
OPTIONAL: Final = frozenset(
    {Source.PART, Source.MISSING, Source.HISTORICAL}
)  # written last, and only where they say something
KIND_NAMES: Final = {kind: kind.name.lower() for kind in Kind}
CAUSE_NAMES: Final = {cause: cause.name.lower() for cause in Cause}
DEVICE_TIME: Final = "device"
GATEWAY_TIME: Final = "gateway"
UNSYNCHRONISED_TIME: Final = "gateway-unsynchronised"
DATED_TIME: Final = "gateway-dated"
RAW_BAD: Final = b""  # no text at all: any text could be taken for a value
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUALITY_TEXTS_MAX: Final = 1024  # combinations of reasons seen in practice are few

encode: Final = msgspec.json.Encoder().encode


@functools.lru_cache(maxsize=_QUALITY_TEXTS_MAX)
def quality_text(quality: Quality) -> str:
    """`good`, `bad/comm-lost` …"""
    return describe(quality)


def honest(value: Value, quality: Quality) -> tuple[Value, Quality]:
    """The value as it may be shown: None where the quality is bad, bad where there is no value.

    NaN is bad/invalid and an infinity bad/overflow: JSON has no word for either.
    """
    if quality & BAD:
        return None, quality
    if value is None:
        return None, worst(quality, BAD)
    if isinstance(value, float) and not math.isfinite(value):
        return None, worst(quality, BAD | (INVALID if math.isnan(value) else OVERFLOW))
    return value, quality


def gateway_origin(time_quality: Quality) -> str:
    """How much the time of our own clock is worth: it followed a reference, did not, or was told later."""
    if time_quality & DATED_LATER:
        return DATED_TIME
    return UNSYNCHRONISED_TIME if time_quality & CLOCK_NOT_SYNCHRONISED else GATEWAY_TIME


def label_of(point: Point, value: Value) -> str | None:
    """The text that the map declares for an enumerated value; None where it declares none.

    Of flags the texts of all bits that are set, joined by ", "; a bit without a text is `bit 5`.
    """
    if point.flags and isinstance(value, int):
        texts = dict(point.flags)
        bits = [bit for bit in range(value.bit_length()) if value >> bit & 1]
        return ", ".join(texts.get(bit, f"bit {bit}") for bit in bits)
    if isinstance(value, int):
        for raw, text in point.labels:
            if raw == value:
                return text
    return None


def raw_text(value: Value) -> bytes:
    """`raw` payload of an honest value: true, false, a number, the text itself; empty where it is bad."""
    if value is None:
        return RAW_BAD
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    return encode(value)


def time_writer(unit: TimeUnit) -> Callable[[int], int | str | None]:
    """Nanoseconds since 1970 in a unit; None where RFC 3339 cannot write it (years outside 1 to 9999)."""
    return {TimeUnit.MS: milliseconds, TimeUnit.NS: nanoseconds, TimeUnit.RFC3339: rfc3339}[unit]


def milliseconds(time_ns: int) -> int:
    """Rounded down, as clocks do."""
    return time_ns // 1_000_000


def nanoseconds(time_ns: int) -> int:
    """As it is."""
    return time_ns


def rfc3339(time_ns: int) -> str | None:
    """RFC 3339 §5.6 in UTC, for example `2026-01-31T08:00:00.250Z`."""
    seconds, fraction_ns = divmod(time_ns, 1_000_000_000)
    try:
        whole = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    except OverflowError:
        return None
    digits = f"{fraction_ns:09d}"
    while len(digits) > 3 and digits.endswith("000"):
        digits = digits[:-3]
    return f"{whole.rjust(19, '0')}.{digits}Z"
