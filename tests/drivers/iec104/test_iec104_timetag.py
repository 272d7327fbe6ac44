"""Binary time 2a: fields, flags, civil time."""
# ruff: noqa: DTZ001 - civil time has no zone here

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.iec104.wire.timetag import (
    Cp24Time2a,
    Cp56Time2a,
    cp56_of_civil_ms,
    decode_cp24,
    decode_cp56,
    encode_cp24,
    encode_cp56,
)

EPOCH = datetime.datetime(1970, 1, 1)


def test_captured_tags() -> None:
    # iec104-diverse packet 89 (M_SP_TB_1): Wireshark 4.0.17 shows Aug 13, 2009 16:41:49.834
    tag = decode_cp56(bytes.fromhex("aac229108d0809"))
    assert tag == Cp56Time2a(49_834, 41, 16, 13, 8, 9, day_of_week=4)
    assert tag.civil_ms() == (
        datetime.datetime(2009, 8, 13, 16, 41, 49, 834_000) - EPOCH
    ) / datetime.timedelta(milliseconds=1)
    assert encode_cp56(tag).hex() == "aac229108d0809"
    # iec104-diverse packet 9 (C_SC_TA_1): the year octet 6d is 109 in its seven bits, which is no year
    odd = decode_cp56(bytes.fromhex("080017130d086d"))
    assert (odd.year, odd.civil_ms()) == (109, None)
    # iec104-dissect packet 139 (C_CS_NA_1): a summer time flag that is not set, Saturday not used
    assert decode_cp56(bytes.fromhex("c83239081d0808")).day_of_week == 0


@given(st.binary(min_size=7, max_size=7))
def test_any_seven_octets_are_kept(octets: bytes) -> None:
    assert encode_cp56(decode_cp56(octets)) == octets


@given(st.binary(min_size=3, max_size=3))
def test_any_three_octets_are_kept(octets: bytes) -> None:
    assert encode_cp24(decode_cp24(octets)) == octets


@given(
    st.datetimes(datetime.datetime(2000, 1, 1), datetime.datetime(2099, 12, 31, 23, 59, 59)), st.booleans()
)
def test_civil_time_there_and_back(when: datetime.datetime, flag: bool) -> None:
    civil_ms = (when - EPOCH) // datetime.timedelta(milliseconds=1)
    tag = cp56_of_civil_ms(civil_ms, invalid=flag, substituted=not flag, summer=flag)
    again = decode_cp56(encode_cp56(tag))
    assert again == tag
    assert again.civil_ms() == civil_ms
    assert again.day_of_week == when.isoweekday()
    assert (again.invalid, again.substituted, again.summer) == (flag, not flag, flag)


@pytest.mark.parametrize(
    "tag",
    [
        Cp56Time2a(60_000, 0, 0, 1, 1, 24), Cp56Time2a(0, 60, 0, 1, 1, 24), Cp56Time2a(0, 0, 24, 1, 1, 24),
        Cp56Time2a(0, 0, 0, 0, 1, 24), Cp56Time2a(0, 0, 0, 31, 2, 24), Cp56Time2a(0, 0, 0, 1, 13, 24),
        Cp56Time2a(0, 0, 0, 1, 1, 100),
    ],
)  # fmt: skip
def test_what_is_no_date_has_no_civil_time(tag: Cp56Time2a) -> None:
    assert tag.civil_ms() is None


def test_fields_that_do_not_fit() -> None:
    for tag, name in (
        (Cp56Time2a(65_536, 0, 0, 1, 1, 24), "millisecond"), (Cp56Time2a(0, 64, 0, 1, 1, 24), "minute"),
        (Cp56Time2a(0, 0, 32, 1, 1, 24), "hour"), (Cp56Time2a(0, 0, 0, 32, 1, 24), "day"),
        (Cp56Time2a(0, 0, 0, 1, 16, 24), "month"), (Cp56Time2a(0, 0, 0, 1, 1, 128), "year"),
        (Cp56Time2a(0, 0, 0, 1, 1, 24, 8), "day of week"),
        (Cp56Time2a(0, 0, 0, 1, 1, 24, reserved=128), "reserved"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"CP56Time2a {name}: found"):
            encode_cp56(tag)
    with pytest.raises(ValueError, match="CP24Time2a"):
        encode_cp24(Cp24Time2a(0, 64))
    for year in (1999, 2100):
        civil_ms = (datetime.datetime(year, 6, 1) - EPOCH) // datetime.timedelta(milliseconds=1)
        with pytest.raises(ValueError, match=f"the year {year}"):
            cp56_of_civil_ms(civil_ms)
