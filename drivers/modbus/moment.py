"""Dates and times as meters keep them in registers, and as text: RFC 3339 without inventing a time zone.

`unix32` counts from 1970 UTC, so its text ends in Z. The others are local to the device: theirs has no zone.
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TI081: Final = struct.Struct(">4H")
_YMDHMS: Final = struct.Struct(">6H")
_TI081_YEAR: Final = 2000
_TI081_YEARS: Final = 128
_INVALID: Final = 0x80  # iV in the third word: not valid or not synchronised in the device
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?", re.ASCII)


def read_unix32(seconds: int) -> str:
    """Seconds since 1970 UTC."""
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_ti081(data: bytes) -> str | None:
    """Schneider Electric "Date and time (TI081 format)", from IEC 870-5-4: year, month and day, hour and
    minute, milliseconds. None where it is no date or the device itself calls it invalid (iV)."""
    year, month_day, hour_minute, milliseconds = _TI081.unpack(data)
    if hour_minute & _INVALID or milliseconds >= 60_000:
        return None
    try:
        moment = datetime(  # noqa: DTZ001 - the device does not say its zone
            _TI081_YEAR + (year & 0x7F),
            month_day >> 8 & 0xF,
            month_day & 0x1F,
            hour_minute >> 8 & 0x1F,
            hour_minute & 0x3F,
            milliseconds // 1000,
            milliseconds % 1000 * 1000,
        )
    except ValueError:
        return None
    return moment.isoformat(timespec="milliseconds")


def read_ymdhms(data: bytes) -> str | None:
    """Year, month, day, hour, minute and second, each in a register. None where they are no date."""
    try:
        return datetime(*_YMDHMS.unpack(data)).isoformat()  # noqa: DTZ001 - the device does not say its zone
    except ValueError:
        return None


def write_unix32(text: str) -> int:
    """Raises ValueError for what is no moment with a zone within 1970 to 2106, in whole seconds."""
    moment = _parse(text, needs_zone=True)
    if moment.microsecond:
        raise ValueError(f"found {text!r}, expected whole seconds")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    if not 0 <= seconds < 1 << 32:
        raise ValueError(f"found {text!r}, expected a time from 1970 to 2106-02-07T06:28:15Z")
    return seconds


def write_ti081(text: str) -> bytes:
    """Raises ValueError for what is no local date and time of 2000 to 2127 in whole milliseconds."""
    moment = _parse(text, needs_zone=False)
    year = moment.year - _TI081_YEAR
    if not 0 <= year < _TI081_YEARS or moment.microsecond % 1000:
        raise ValueError(f"found {text!r}, expected a time of 2000 to 2127 in whole milliseconds")
    return _TI081.pack(
        year,
        moment.month << 8 | moment.day,
        moment.hour << 8 | moment.minute,
        moment.second * 1000 + moment.microsecond // 1000,
    )


def write_ymdhms(text: str) -> bytes:
    """Raises ValueError for what is no local date and time in whole seconds."""
    moment = _parse(text, needs_zone=False)
    if moment.microsecond:
        raise ValueError(f"found {text!r}, expected whole seconds")
    return _YMDHMS.pack(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)


def _parse(text: str, *, needs_zone: bool) -> datetime:
    expected = (
        "2026-01-31T12:00:00Z" if needs_zone else "2026-01-31T12:00:00, the device's own time without zone"
    )
    match = _MOMENT.fullmatch(text)
    if match is None or (match[2] is not None) != needs_zone:
        raise ValueError(f"found {text!r}, expected a time such as {expected}")
    try:
        return datetime.fromisoformat(text.replace(" ", "T"))
    except ValueError as error:
        raise ValueError(f"found {text!r}, expected a time such as {expected}: {error}") from None
