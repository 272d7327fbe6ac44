"""Batches as metrics: columns in, the bytes of `repeated Metric` out, prepared once for each layout."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgspec

from gateway.core.batch import Batch
from gateway.core.point import Layout, Value, ValueType
from gateway.core.quality import (
    BAD,
    CLOCK_NOT_SYNCHRONISED,
    DATED_LATER,
    GOOD,
    OVERFLOW,
    UNCERTAIN,
    Quality,
    worst,
)
from gateway.translate.payload import DEVICE_TIME, GATEWAY_TIME, gateway_origin, honest, quality_text
from gateway.uplink.sparkplug.wire.payload import QUALITY, DataType
from gateway.uplink.sparkplug.wire.protobuf import Wire, delimited, tag, varint

QUALITY_GOOD: Final = 192
QUALITY_BAD: Final = 0
QUALITY_STALE: Final = 500
DETAIL: Final = "Detail"  # property beside Quality: the level and the reasons, `uncertain/out-of-range`
TIME_ORIGIN: Final = "TimeOrigin"  # property: whose clock the timestamp is from; absent: ours, synchronised
DATATYPES: Final = {
    ValueType.BOOL: DataType.BOOLEAN,
    ValueType.INT: DataType.INT64,
    ValueType.FLOAT: DataType.DOUBLE,
    ValueType.STRING: DataType.STRING,
    ValueType.BYTES: DataType.BYTES,
}
"""What a point of the gateway is as a metric."""

_TEXTS_MAX: Final = 1024  # combinations of quality and time origin that are kept prepared
_CLOCK: Final = CLOCK_NOT_SYNCHRONISED | DATED_LATER
_DOUBLE: Final = struct.Struct("<d")
_TRUE: Final = tag(14, Wire.VARINT) + b"\x01"
_FALSE: Final = tag(14, Wire.VARINT) + b"\x00"
_LONG: Final = tag(11, Wire.VARINT)
_DOUBLE_TAG: Final = tag(13, Wire.I64)
_HISTORICAL: Final = tag(5, Wire.VARINT) + b"\x01"
_NULL: Final = tag(7, Wire.VARINT) + b"\x01"
_TIMESTAMP: Final = tag(3, Wire.VARINT)
_STRING: Final = tag(15, Wire.LEN)
_BYTES: Final = tag(16, Wire.LEN)
_METRIC: Final = tag(2, Wire.LEN)
_HEADS_MAX: Final = 256
_HEADS: Final = tuple(_METRIC + varint(size) for size in range(_HEADS_MAX))  # of metrics of so many bytes
_LONG_1: Final = tuple(_LONG + varint(number) for number in range(0x80))
_LONG_2: Final = tuple(_LONG + bytes((number | 0x80,)) for number in range(0x80))
_LAST: Final = tuple(bytes((number,)) for number in range(0x80))


def quality_code(quality: Quality) -> int:
    """The code of Sparkplug 3.0 §6.4.9.1: good 192, bad 0; uncertain is 500, the one code between them.

    An uncertain value goes out with its value; the property `Detail` says what is wrong with it.
    """
    return QUALITY_BAD if quality & BAD else QUALITY_STALE if quality & UNCERTAIN else QUALITY_GOOD


class MetricDefinition(msgspec.Struct, frozen=True):
    """One point as the births announce it."""

    name: str
    alias: int
    datatype: DataType


class BirthRow(msgspec.Struct, frozen=True):
    """What is known of one point when it is announced. Times as in `Batch`."""

    column: int
    value: Value
    quality: Quality
    received_ns: int
    source_time_ns: int | None = None
    time_quality: Quality = GOOD


class MetricColumns:
    """The metrics of one layout; the same batch gives the same bytes."""

    __slots__ = ("_aliases", "_encoders", "_is_all_doubles", "definitions")

    def __init__(self, layout: Layout, aliases: Sequence[int | None]) -> None:
        """`aliases[column]`: of that point; None where it is no metric of this node."""
        self.definitions: Final = tuple(
            None if alias is None else MetricDefinition(point.tag, alias, DATATYPES[point.type])
            for point, alias in zip(layout.points, aliases, strict=True)
        )
        self._aliases: Final = tuple(
            b"" if alias is None else tag(2, Wire.VARINT) + varint(alias) for alias in aliases
        )
        self._encoders: Final = tuple(_ENCODERS[point.type] for point in layout.points)
        self._is_all_doubles: Final = None not in aliases and all(
            point.type is ValueType.FLOAT for point in layout.points
        )

    def data(self, batch: Batch, *, historical: bool) -> bytes:
        """The metrics of NDATA and DDATA: alias, timestamp, value, and what is out of the ordinary.

        Empty where none of the points is a metric. Never raises for what a batch can hold: a value that its
        type cannot hold is null and bad.
        """
        times, clocks, qualities = batch.source_time_ns, batch.time_quality, batch.quality
        flag = _HISTORICAL if historical else b""
        is_one_time = not isinstance(times, tuple) and not isinstance(clocks, tuple)
        stamps = _stamps(batch, flag)
        if is_one_time and self._is_all_doubles and batch.columns is None and qualities == GOOD:
            try:
                return self._doubles(batch.values, next(iter(stamps)).plain)
            except _Unsayable:  # one of them is not finite: looked at one by one
                stamps = _stamps(batch, flag)
        aliases, encoders = self._aliases, self._encoders
        pieces: list[bytes] = []
        add = pieces.append
        columns = batch.columns if batch.columns is not None else range(len(batch.values))
        levels = qualities if isinstance(qualities, tuple) else repeat(qualities)
        for column, value, quality, stamp in zip(columns, batch.values, levels, stamps, strict=False):
            alias = aliases[column]
            if not alias:
                continue
            body = b""
            if quality == GOOD:
                try:
                    body = alias + stamp.plain + encoders[column](value)
                except _Unsayable:
                    body = b""
            if not body:
                body = alias + self._said(column, value, quality, stamp, is_birth=False)
            size = len(body)
            add(_HEADS[size] if size < _HEADS_MAX else _METRIC + varint(size))
            add(body)
        return b"".join(pieces)

    def births(self, rows: Iterable[BirthRow]) -> bytes:
        """The metrics of NBIRTH and DBIRTH, of every point given."""
        pieces: list[bytes] = []
        for row in rows:
            definition = self.definitions[row.column]
            if definition is not None:
                kind = tag(4, Wire.VARINT) + varint(definition.datatype)
                said = self._said(row.column, row.value, row.quality, _Stamp.of(row), is_birth=True)
                named = delimited(1, definition.name.encode()) + self._aliases[row.column] + kind
                pieces.append(delimited(2, named + said))
        return b"".join(pieces)

    def _doubles(self, values: Sequence[Any], stamp: bytes) -> bytes:
        try:
            if not math.isfinite(sum(values)):
                raise _Unsayable
            pack, middle = _DOUBLE.pack, stamp + _DOUBLE_TAG
            rest = len(middle) + _DOUBLE.size
            return b"".join(
                [
                    _HEADS[len(alias) + rest] + alias + middle + pack(value)
                    for alias, value in zip(self._aliases, values, strict=True)
                ]
            )
        except (TypeError, struct.error, OverflowError):
            raise _Unsayable from None

    def _said(self, column: int, value: Value, quality: Quality, stamp: _Stamp, *, is_birth: bool) -> bytes:
        """Everything of a metric that follows its identity."""
        value, quality = honest(value, quality)
        said = _NULL
        if value is not None:
            try:
                said = self._encoders[column](value)
            except _Unsayable:
                quality = worst(quality, BAD | OVERFLOW)
        return stamp.bare + _properties(quality, stamp.origin, is_birth=is_birth) + said


class _Stamp(NamedTuple):
    """The timestamp of a metric and its flags, with (`plain`) and without what its properties say of it.

    A time before 1970, which no payload can hold, is 0.
    """

    bare: bytes
    plain: bytes
    origin: str

    @classmethod
    def at(cls, time_ns: int, origin: str, flag: bytes) -> _Stamp:
        bare = _TIMESTAMP + varint(max(0, time_ns // 1_000_000)) + flag
        return cls(bare, bare + _properties(GOOD, origin, is_birth=False), origin)

    @classmethod
    def of(cls, row: BirthRow) -> _Stamp:
        return cls.at(*_time_of(row.source_time_ns, row.received_ns, row.time_quality), b"")


class _Unsayable(Exception):
    """The metric's type cannot hold the value."""


def _time_of(source_ns: int | None, received_ns: int, clock: Quality) -> tuple[int, str]:
    """When, and whose clock says so: a time the device did not give is ours, and says what ours was worth."""
    if source_ns is not None:
        return source_ns, DEVICE_TIME
    return received_ns, gateway_origin(clock) if clock & _CLOCK else GATEWAY_TIME


def _stamps(batch: Batch, flag: bytes) -> Iterator[_Stamp]:
    """One for each value."""
    times, clocks, received_ns = batch.source_time_ns, batch.time_quality, batch.received_ns
    if not isinstance(times, tuple) and not isinstance(clocks, tuple):
        return repeat(_Stamp.at(*_time_of(times, received_ns, clocks), flag))
    sources = times if isinstance(times, tuple) else repeat(times)
    trusts = clocks if isinstance(clocks, tuple) else repeat(clocks)
    return (
        _Stamp.at(*_time_of(source, received_ns, trust), flag)
        for source, trust in zip(sources, trusts, strict=False)
    )


@functools.lru_cache(maxsize=_TEXTS_MAX)
def _properties(quality: Quality, origin: str, *, is_birth: bool) -> bytes:
    """The PropertySet of a metric; births tell the quality in any case, data where it is not plainly good."""
    keys: list[str] = []
    values: list[bytes] = []
    if is_birth or quality != GOOD:
        keys.append(QUALITY)
        code = tag(1, Wire.VARINT) + varint(DataType.INT32) + tag(3, Wire.VARINT)
        values.append(code + varint(quality_code(quality)))
    if quality != GOOD:
        keys.append(DETAIL)
        values.append(_text_property(quality_text(quality)))
    if origin != GATEWAY_TIME:
        keys.append(TIME_ORIGIN)
        values.append(_text_property(origin))
    if not keys:
        return b""
    content = b"".join(delimited(1, key.encode()) for key in keys)
    return delimited(9, content + b"".join(delimited(2, value) for value in values))


def _text_property(text: str) -> bytes:
    return tag(1, Wire.VARINT) + varint(DataType.STRING) + delimited(8, text.encode())


def _boolean(value: Any) -> bytes:
    if value is True:
        return _TRUE
    if value is False:
        return _FALSE
    raise _Unsayable


def _long(number: Any) -> bytes:
    value: int = number
    try:
        if 0 <= value < 0x80:
            return _LONG_1[value]
        if 0 < value < 0x4000:
            return _LONG_2[value & 0x7F] + _LAST[value >> 7]
        if -(1 << 63) <= value < 1 << 63:
            return _LONG + varint(value & 0xFFFFFFFFFFFFFFFF)
    except TypeError:  # no whole number
        pass
    raise _Unsayable


def _double(value: Any) -> bytes:
    try:
        if math.isfinite(value):
            return _DOUBLE_TAG + _DOUBLE.pack(value)
    except (TypeError, struct.error, OverflowError):
        pass
    raise _Unsayable


def _string(value: Any) -> bytes:
    if not isinstance(value, str):
        raise _Unsayable
    try:
        data: bytes = value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise _Unsayable from None
    return _STRING + varint(len(data)) + data


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise _Unsayable
    return _BYTES + varint(len(value)) + value


_ENCODERS: Final[dict[ValueType, Callable[[Any], bytes]]] = {
    ValueType.BOOL: _boolean,
    ValueType.INT: _long,
    ValueType.FLOAT: _double,
    ValueType.STRING: _string,
    ValueType.BYTES: _bytes,
}
