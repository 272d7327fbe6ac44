"""Types that meters, drives and inverters use, each as its maker's document has it; and both ways."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.cell import FAR_BEYOND, NOT_A_VALUE
from drivers.modbus.decode import compile_block
from drivers.modbus.encode import encode, raw_span, wire_mask
from drivers.modbus.field import ORDERS, Charset, DataType, Family, Field, Half, Padding
from drivers.modbus.scale import ScalePower, ScaleTable
from drivers.modbus.wire.pdu import Table
from gateway.core.point import Value
from tests.drivers.modbus.rig import parts_of
from tests.drivers.modbus.test_config import tag

CDAB = ORDERS["CDAB"]


def read(field: Field, *registers: int, table: Table = Table.HOLDING_REGISTERS) -> Value | tuple[Value, int]:
    """The value where it is good, else (value, quality)."""
    data = struct.pack(f">{len(registers)}H", *registers)
    decode = compile_block([field], table=table, start=field.first, count=field.extent)
    (value,), quality = decode(data)
    return value if quality == 0 else (value, quality[0])  # type: ignore[index]  # one field


def field(kind: str, **keys: Any) -> Field:
    return Field(type=DataType(kind), start=0, **keys)


def test_modulo_10000_as_in_schneider_electric_faq_fa146443() -> None:
    """Registers 1700 to 1703: 4567, 0123, 0000, 0000 are 1,234,567 Wh; the low digits come first."""
    energy = field("mod10k64", order=CDAB)
    assert read(energy, 4567, 123, 0, 0) == 1_234_567
    assert encode(energy, 1_234_567) == struct.pack(">4H", 4567, 123, 0, 0)


def test_modulo_10000_is_signed_in_each_register_as_in_schneider_electric_faq_fa212766() -> None:
    signed = field("mod10k48", order=CDAB)
    assert read(signed, 0x10000 - 1, 0x10000 - 2, 0) == -20_001
    assert encode(signed, -20_001) == struct.pack(">3h", -1, -2, 0)
    assert read(signed, 10_000, 0, 0) == (None, NOT_A_VALUE), "no four digits"
    assert read(signed, 1, 0x10000 - 1, 0) == (None, NOT_A_VALUE), "two signs"


def test_date_and_time_by_the_table_of_schneider_electric_ti081() -> None:
    """Word 1: year since 2000; 2: month, weekday, day; 3: summer time, hour, iV, minute; 4: milliseconds."""
    time = field("ti081")
    monday = 0b010 << 5
    assert read(time, 24, 12 << 8 | monday | 31, 23 << 8 | 59, 59_999) == "2024-12-31T23:59:59.999"
    assert read(time, 24, 6 << 8 | 15, 1 << 15 | 12 << 8 | 30, 0) == "2024-06-15T12:30:00.000", "summer time"
    assert read(time, 24, 6 << 8 | 15, 12 << 8 | 1 << 7 | 30, 0) == (None, NOT_A_VALUE), "iV"
    assert read(time, 24, 2 << 8 | 30, 0, 0) == (None, NOT_A_VALUE), "no such day"
    assert encode(time, "2024-12-31T23:59:59.999") == struct.pack(
        ">4H", 24, 12 << 8 | 31, 23 << 8 | 59, 59_999
    )


def test_seconds_since_1970_are_utc_and_local_times_have_no_zone() -> None:
    unix = field("unix32")
    assert read(unix, 0x6553, 0xF100) == "2023-11-14T22:13:20Z"  # 1,700,000,000, as `date -u -d @…` has it
    assert encode(unix, "2023-11-14T23:13:20+01:00") == bytes.fromhex("6553f100")
    with pytest.raises(ValueError, match="expected a time such as 2026-01-31T12:00:00Z"):
        encode(unix, "2023-11-14T22:13:20")
    single = field("ymdhms")
    assert read(single, 2024, 2, 29, 23, 59, 1) == "2024-02-29T23:59:01"
    assert read(single, 2023, 2, 29, 23, 59, 1) == (None, NOT_A_VALUE)
    with pytest.raises(ValueError, match="without zone"):
        encode(single, "2024-02-29T23:59:01Z")


@pytest.mark.parametrize(
    ("kind", "registers"),
    [
        ("int16", (0x8000,)),
        ("uint16", (0xFFFF,)),
        ("int32", (0x8000, 0)),
        ("uint32", (0xFFFF, 0xFFFF)),
        ("int64", (0x8000, 0, 0, 0)),
        ("uint64", (0xFFFF,) * 4),
        ("float32", (0x7FC0, 0)),
    ],
)
def test_points_that_a_sunspec_device_does_not_have(kind: str, registers: tuple[int, ...]) -> None:
    """SMA "SunSpec Modbus" technical information STP60-SunSpec_Modbus-TI-en-12, 3.6: NaN values."""
    one = tag(type=kind, invalid="sunspec")
    assert not list(one.problems())
    assert read(one.field(), *registers) == (None, NOT_A_VALUE)
    assert read(one.field(), *([0] * len(registers))) == 0


def test_a_sunspec_scale_factor_is_read_with_its_value() -> None:
    power = field("int16", scale=ScalePower(3))
    assert (power.first, power.extent) == (0, 4)
    assert read(power, 1234, 0, 0, 0x10000 - 2) == 12.34
    assert read(power, 1234, 0, 0, 2) == 123_400.0
    assert read(power, 1234, 0, 0, 0x8000) == (None, NOT_A_VALUE), "the factor is not implemented"
    before = Field(type=DataType.UINT32, start=5, scale=ScalePower(2))
    assert (before.first, before.extent) == (2, 5)
    assert read(before, 0x10000 - 1, 0, 0, 0, 1005) == 100.5
    with pytest.raises(ValueError, match="expected both in one request of 125"):
        field("int16", scale=ScalePower(125))


def test_lines_between_the_points_of_a_table() -> None:
    level = field("uint16", scale=ScaleTable.from_points([(0, 10), (100, 20), (300, 0.5 + 59.5)]))
    assert [read(level, raw) for raw in (0, 50, 100, 200, 300)] == [10, 15.0, 20, 40.0, 60.0]
    assert read(level, 301) == (None, FAR_BEYOND), "the table says nothing there"
    assert encode(level, 40) == b"\x00\xc8"
    with pytest.raises(ValueError, match="expected 10 to 60, as the table goes"):
        encode(level, 61)
    falling = field("int16", scale=ScaleTable.from_points([(-10, 5), (10, -5)]))
    assert read(falling, 0x10000 - 10) == 5
    assert encode(falling, -2.5) == b"\x00\x05"


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ([(0, 0)], "2 to 256"),
        ([(0, 0), (0, 1)], "ascending raw"),
        ([(0, 0), (1, 1), (2, 0)], "one direction"),
        ([(0, 0), (1, 0)], "one direction"),
        ([(0, 0), (float("inf"), 1)], "finite"),
    ],
)
def test_what_is_no_table(points: list[tuple[float, float]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ScaleTable.from_points(points)


def test_halves_of_a_register_and_bits_of_a_number() -> None:
    assert read(field("int8", half=Half.HIGH), 0xFE01) == -2
    assert read(field("int8"), 0xFE01) == 1
    assert (encode(field("int8", half=Half.HIGH), -2), wire_mask(field("int8", half=Half.HIGH))) == (
        b"\xfe\0",
        0xFF00,
    )
    mode = field("uint16", bits=(4, 6))
    assert read(mode, 0b1010_1111) == 0b010
    assert (encode(mode, 5), wire_mask(mode)) == (b"\x00\x50", 0x70)
    with pytest.raises(ValueError, match=r"expected raw 0\.\.7"):
        encode(mode, 8)


def test_arrays_of_bits() -> None:
    """The first bit is the least significant: of the first register, or the first coil."""
    alarms = field("bits", length=20)
    assert read(alarms, 0x8001, 0xFFF0 | 0b0100) == 1 | 1 << 15 | 1 << 18
    assert encode(alarms, 1 << 18) == b"\0\0\0\x04"
    coils = Field(type=DataType.BITS, start=3, length=10, of_coils=True)
    decode = compile_block([coils], table=Table.COILS, start=0, count=16)
    assert decode(bytes((0b1000_1000, 0b0001_0000)))[0] == (1 | 1 << 4 | 1 << 9,)
    assert encode(coils, 0b10_0001_0001) == b"\x11\x02"


def test_strings_are_padded_as_asked() -> None:
    assert encode(field("string", length=2, padding=Padding.SPACE), "ab") == b"ab  "
    assert encode(field("string", length=2, charset=Charset.UTF16), "°") == b"\0\xb0\0\0"
    assert read(field("string", length=2, charset=Charset.UTF16), 0x20AC, 0x20) == "€"
    assert read(field("string", length=2, empty_is_invalid=True), 0, 0) == (None, NOT_A_VALUE)


WHOLE = [kind for kind in DataType if kind.family in {Family.WHOLE, Family.BCD, Family.MOD10K, Family.BITS}]


@st.composite
def written(draw: st.DrawFn) -> tuple[Field, int]:
    kind = draw(st.sampled_from(WHOLE))
    keys: dict[str, Any] = {"length": draw(st.integers(1, 64))} if kind is DataType.BITS else {}
    order, half = draw(st.sampled_from(list(ORDERS.values()))), draw(st.sampled_from(Half))
    one = Field(type=kind, start=0, order=order, half=half, **keys)
    return one, draw(st.integers(*raw_span(one)))


@settings(deadline=None, max_examples=400)
@given(written())
def test_what_is_written_reads_back_whatever_type_and_order(case: tuple[Field, int]) -> None:
    one, number = case
    data = encode(one, number)
    assert len(data) == 2 * one.count
    assert read(one, *struct.unpack(f">{one.count}H", data)) == number
    with pytest.raises(ValueError, match="expected raw"):
        encode(one, raw_span(one)[1] + 1)


@settings(deadline=None, max_examples=200)
@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2127, 12, 31)),  # noqa: DTZ001 - of the device
    st.sampled_from(["ti081", "ymdhms"]),
)
def test_times_read_back(moment: datetime, kind: str) -> None:
    one, text = field(kind), moment.replace(microsecond=0).isoformat()
    data = encode(one, text)
    assert str(read(one, *struct.unpack(f">{one.count}H", data))).removesuffix(".000") == text


def test_a_part_of_a_register_is_written_only_as_the_device_allows() -> None:
    def faults(tag: str, device: str = "") -> list[str]:
        site = (
            "links: {plc: {driver: modbus, host: 10.0.0.1}}\n"
            f"devices: {{d: {{link: plc, unit: 1, {device} tags: {{x: {{{tag}, write: {{}}}}}}}}}}\n"
        )
        return [problem.found for problem in parts_of(site).problems]

    assert faults("at: 'hr:4', type: int8, byte: high") == ["write for the high byte of hr:4"]
    assert faults("at: 'hr:4', type: uint16, bits: 4-7") == ["write for bits 4-7 of hr:4"]
    assert faults("at: 'hr:4', type: uint16, bits: 4-7", "bit_write: mask,") == []
