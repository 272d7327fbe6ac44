"""Binary time 2a: CP56Time2a, CP24Time2a and CP16Time2a (IEC 60870-5-101 §7.2.6.18 to §7.2.6.20).

A tag is civil time of some zone, which only the station's configuration knows; nothing here guesses it.
"""

from __future__ import annotations

import datetime
import struct
from typing import Final, NamedTuple

CP56_SIZE: Final = 7
CP24_SIZE: Final = 3
MILLISECONDS_MAX: Final = 59_999
CENTURY: Final = 2000  # the tag has two digits of the year

_CP56: Final = struct.Struct("<HBBBBB")
_CP24: Final = struct.Struct("<HB")
_EPOCH_DAY: Final = datetime.date(1970, 1, 1).toordinal()
_DAY_MS: Final = 86_400_000


class Cp56Time2a(NamedTuple):
    """The fields as they are on the wire, also where they are no date. `reserved`: bits that mean nothing."""

    millisecond: int  # 0..59999, with the seconds; 16 bits
    minute: int
    hour: int
    day: int
    month: int
    year: int  # two digits, 0..99
    day_of_week: int = 0  # 1 Monday to 7 Sunday; 0 not used
    invalid: bool = False  # IV
    substituted: bool = False  # GEN: not genuine
    summer: bool = False  # SU
    reserved: int = 0  # hour octet bits 5..6, month octet bits 4..7, year octet bit 7: 7 bits in this order

    def civil_ms(self) -> int | None:
        """Milliseconds from 1970-01-01 of the same civil time; None where the fields are no date and time.

        SU is not taken into account: whether summer time is in the hour is the zone's business. Says nothing
        of `invalid`.
        """
        if self.millisecond > MILLISECONDS_MAX or self.minute > 59 or self.hour > 23 or self.year > 99:
            return None
        try:
            day = datetime.date(CENTURY + self.year, self.month, self.day).toordinal() - _EPOCH_DAY
        except ValueError:
            return None
        return day * _DAY_MS + self.hour * 3_600_000 + self.minute * 60_000 + self.millisecond


class Cp24Time2a(NamedTuple):
    """Minutes and milliseconds within an hour that something else has to tell."""

    millisecond: int  # 0..59999, with the seconds; 16 bits
    minute: int
    invalid: bool = False
    substituted: bool = False


def decode_cp56(octets: bytes) -> Cp56Time2a:
    """Any seven octets; never raises for them."""
    millisecond, minute, hour, day, month, year = _CP56.unpack(octets)
    return Cp56Time2a(
        millisecond,
        minute & 0x3F,
        hour & 0x1F,
        day & 0x1F,
        month & 0x0F,
        year & 0x7F,
        day >> 5,
        bool(minute & 0x80),
        bool(minute & 0x40),
        bool(hour & 0x80),
        (hour & 0x60) >> 5 | (month & 0xF0) >> 2 | (year & 0x80) >> 1,
    )


def encode_cp56(tag: Cp56Time2a) -> bytes:
    """Seven octets. Raises ValueError where a field does not fit its bits."""
    for name, value, limit in (
        ("millisecond", tag.millisecond, 0xFFFF), ("minute", tag.minute, 0x3F), ("hour", tag.hour, 0x1F),
        ("day", tag.day, 0x1F), ("month", tag.month, 0x0F), ("year", tag.year, 0x7F),
        ("day of week", tag.day_of_week, 7), ("reserved", tag.reserved, 0x7F),
    ):  # fmt: skip
        if not 0 <= value <= limit:
            raise ValueError(f"CP56Time2a {name}: found {value}, expected 0..{limit}")
    reserved = tag.reserved
    return _CP56.pack(
        tag.millisecond,
        tag.minute | tag.invalid << 7 | tag.substituted << 6,
        tag.hour | tag.summer << 7 | (reserved & 0x03) << 5,
        tag.day | tag.day_of_week << 5,
        tag.month | (reserved & 0x3C) << 2,
        tag.year | (reserved & 0x40) << 1,
    )


def cp56_of_civil_ms(
    civil_ms: int, *, invalid: bool = False, substituted: bool = False, summer: bool = False
) -> Cp56Time2a:
    """The tag of a civil time in milliseconds from 1970-01-01, with its day of the week.

    Raises ValueError for a time outside 2000 to 2099.
    """
    days, rest = divmod(civil_ms, _DAY_MS)
    date = datetime.date.fromordinal(_EPOCH_DAY + days)
    if not CENTURY <= date.year < CENTURY + 100:
        raise ValueError(f"CP56Time2a: found the year {date.year}, expected {CENTURY} to {CENTURY + 99}")
    hour, rest = divmod(rest, 3_600_000)
    minute, millisecond = divmod(rest, 60_000)
    return Cp56Time2a(
        millisecond, minute, hour, date.day, date.month, date.year - CENTURY, date.isoweekday(),
        invalid, substituted, summer,
    )  # fmt: skip


def decode_cp24(octets: bytes) -> Cp24Time2a:
    """Any three octets; never raises for them."""
    millisecond, minute = _CP24.unpack(octets)
    return Cp24Time2a(millisecond, minute & 0x3F, bool(minute & 0x80), bool(minute & 0x40))


def encode_cp24(tag: Cp24Time2a) -> bytes:
    """Three octets. Raises ValueError where a field does not fit its bits."""
    if not 0 <= tag.millisecond <= 0xFFFF or not 0 <= tag.minute <= 0x3F:
        raise ValueError(
            f"CP24Time2a: found minute {tag.minute} and {tag.millisecond} ms, expected 0..63 and 0..65535"
        )
    return _CP24.pack(tag.millisecond, tag.minute | tag.invalid << 7 | tag.substituted << 6)
