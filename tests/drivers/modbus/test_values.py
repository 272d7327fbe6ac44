"""Decoding and encoding against pymodbus' register conversion, a plain reference, and each other."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pymodbus.client import ModbusTcpClient

from drivers.modbus.cell import BEYOND_RANGE, FAR_BEYOND, NOT_A_VALUE
from drivers.modbus.decode import BlockKey, Decoder, compile_block
from drivers.modbus.encode import encode, wire_mask
from drivers.modbus.field import ABCD, ORDERS, Beyond, Charset, DataType, Endian, Field, Half, Order
from drivers.modbus.scale import Scale, ScalePower, ScaleTable
from drivers.modbus.wire.pdu import Table, pack_bits
from gateway.core.point import Value, ValueType

HOLDING = Table.HOLDING_REGISTERS
JUDGE = {
    DataType.INT16: ModbusTcpClient.DATATYPE.INT16,
    DataType.UINT16: ModbusTcpClient.DATATYPE.UINT16,
    DataType.INT32: ModbusTcpClient.DATATYPE.INT32,
    DataType.UINT32: ModbusTcpClient.DATATYPE.UINT32,
    DataType.INT64: ModbusTcpClient.DATATYPE.INT64,
    DataType.UINT64: ModbusTcpClient.DATATYPE.UINT64,
    DataType.FLOAT32: ModbusTcpClient.DATATYPE.FLOAT32,
    DataType.FLOAT64: ModbusTcpClient.DATATYPE.FLOAT64,
}
NUMBERS = [*JUDGE, DataType.BCD16, DataType.BCD32]

orders = st.sampled_from(list(ORDERS.values()))


def decode_one(field: Field, data: bytes) -> tuple[Value, int]:
    decode = compile_block([field], table=HOLDING, start=field.start, count=field.count)
    (value,), quality = decode(data)
    return value, quality if isinstance(quality, int) else quality[0]


def words(data: bytes) -> list[int]:
    return list(struct.unpack(f">{len(data) // 2}H", data))


def swapped(data: bytes) -> bytes:
    return b"".join(data[i : i + 2][::-1] for i in range(0, len(data), 2))


def in_judges_terms(order: Order, data: bytes) -> tuple[list[int], Any]:
    """pymodbus knows the order of words only: undo that of bytes."""
    return words(data if order.byte is Endian.BIG else swapped(data)), order.word.value


@st.composite
def values(draw: st.DrawFn, data_type: DataType) -> Value:
    match data_type:
        case DataType.FLOAT32:
            return draw(st.floats(width=32, allow_nan=False, allow_infinity=False))
        case DataType.FLOAT64:
            return draw(st.floats(allow_nan=False, allow_infinity=False))
        case DataType.BCD16:
            return draw(st.integers(0, 9999))
        case DataType.BCD32:
            return draw(st.integers(0, 99_999_999))
        case _:
            bits = int(data_type.value.strip("uint"))
            low = 0 if data_type.value.startswith("u") else -(1 << (bits - 1))
            return draw(st.integers(low, low + (1 << bits) - 1))


# --- one value ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_type", NUMBERS)
@settings(deadline=None)  # a shared machine may stall
@given(data=st.data())
def test_what_is_written_is_read(data_type: DataType, data: st.DataObject) -> None:
    field = Field(type=data_type, start=7, order=data.draw(orders))
    value = data.draw(values(data_type))
    registers = encode(field, value)
    assert len(registers) == 2 * field.count
    read, quality = decode_one(field, registers)
    assert (read, quality) == (value, 0)
    assert type(read) is type(value)
    assert field.value_type is (ValueType.FLOAT if data_type.is_float else ValueType.INT)


@pytest.mark.parametrize("data_type", JUDGE)
@settings(deadline=None)  # a shared machine may stall
@given(data=st.data())
def test_numbers_as_pymodbus_reads_and_writes_them(data_type: DataType, data: st.DataObject) -> None:
    order = data.draw(orders)
    field = Field(type=data_type, start=0, order=order)
    value = data.draw(values(data_type))
    registers, word_order = in_judges_terms(order, encode(field, value))
    assert registers == ModbusTcpClient.convert_to_registers(value, JUDGE[data_type], word_order)
    raw = data.draw(st.binary(min_size=2 * field.count, max_size=2 * field.count))
    registers, word_order = in_judges_terms(order, raw)
    judged = ModbusTcpClient.convert_from_registers(registers, JUDGE[data_type], word_order)
    assert isinstance(judged, int | float)
    assert decode_one(field, raw) == ((judged, 0) if math.isfinite(judged) else (None, NOT_A_VALUE))


@settings(deadline=None)  # a shared machine may stall
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12), st.integers(1, 30), orders
)
def test_strings_come_back_trimmed_and_as_pymodbus_reads_them(text: str, length: int, order: Order) -> None:
    field = Field(type=DataType.STRING, start=0, length=length, order=order)
    if len(text.encode()) > 2 * length:
        with pytest.raises(ValueError, match=f"expected up to {2 * length}"):
            encode(field, text)
        return
    registers = encode(field, text)
    assert decode_one(field, registers) == (text.rstrip(" "), 0)
    plain = words(registers if order.byte is Endian.BIG else swapped(registers))
    assert ModbusTcpClient.convert_from_registers(plain, ModbusTcpClient.DATATYPE.STRING) == text


@pytest.mark.parametrize(
    ("charset", "data", "text"),
    [
        (Charset.UTF8, "Pumpe\0", "Pumpe"),
        (Charset.UTF8, b"\xb0C", None),
        (Charset.LATIN1, b"\xb0C", "°C"),
        (Charset.ASCII, b"\xc2\xb0", None),
        (Charset.ASCII, b"  ", ""),
        (Charset.ASCII, b"A \0\0", "A"),
        (Charset.ASCII, b"A\0B\0", "A\0B"),
    ],
)
def test_strings_of_devices(charset: Charset, data: bytes | str, text: str | None) -> None:
    data = data.encode() if isinstance(data, str) else data
    field = Field(type=DataType.STRING, start=0, length=len(data) // 2, charset=charset)
    assert decode_one(field, data) == (text, 0 if text is not None else NOT_A_VALUE)


def test_the_short_forms_are_what_they_say() -> None:
    # 123456.0 as float32 is 47 F1 20 00: A B C D.
    layouts = {"ABCD": "47F12000", "CDAB": "200047F1", "BADC": "F1470020", "DCBA": "0020F147"}
    for name, layout in layouts.items():
        field = Field(type=DataType.FLOAT32, start=0, order=ORDERS[name])
        assert decode_one(field, bytes.fromhex(layout)) == (123456.0, 0)
        assert encode(field, 123456.0) == bytes.fromhex(layout)
    # For four registers the same rule: words turned round, bytes in words turned round.
    number = 0x0102030405060708
    layouts = {"ABCD": "0102030405060708", "CDAB": "0708050603040102"}
    layouts |= {"BADC": "0201040306050807", "DCBA": "0807060504030201"}
    for name, layout in layouts.items():
        assert encode(Field(type=DataType.UINT64, start=0, order=ORDERS[name]), number) == bytes.fromhex(
            layout
        )


@pytest.mark.parametrize(
    ("data_type", "data", "value"),
    [
        (DataType.BCD16, "1234", 1234),
        (DataType.BCD16, "0009", 9),
        (DataType.BCD16, "123a", None),
        (DataType.BCD16, "1e30", None),
        (DataType.BCD32, "12345678", 12345678),
        (DataType.BCD32, "f0000000", None),
    ],
)
def test_bcd(data_type: DataType, data: str, value: int | None) -> None:
    expected = (value, 0 if value is not None else NOT_A_VALUE)
    assert decode_one(Field(type=data_type, start=0), bytes.fromhex(data)) == expected


@settings(deadline=None)  # a shared machine may stall
@given(st.integers(0, 15), st.booleans(), orders, st.integers(0, 0xFFFF))
def test_bits_of_a_register_are_read_and_written_by_mask(
    bit: int, on: bool, order: Order, content: int
) -> None:
    field = Field(type=DataType.BOOL, start=0, bit=bit, order=order)
    and_mask, or_mask = 0xFFFF & ~wire_mask(field), int.from_bytes(encode(field, on), "big")
    written = (content & and_mask) | (or_mask & ~and_mask)  # clause 6.16
    assert decode_one(field, written.to_bytes(2, "big")) == (on, 0)
    assert (written ^ content).bit_count() <= 1, "no other bit is touched"
    value = content if order.byte is Endian.BIG else int.from_bytes(content.to_bytes(2, "big"), "little")
    assert decode_one(field, content.to_bytes(2, "big")) == (bool(value >> bit & 1), 0)


def test_bit_0_is_the_least_significant() -> None:
    assert decode_one(Field(type=DataType.BOOL, start=0, bit=0), b"\x00\x01") == (True, 0)
    field = Field(type=DataType.BOOL, start=0, bit=3)
    assert (wire_mask(field), encode(field, True), encode(field, False)) == (8, b"\0\x08", b"\0\0")


# --- scale, sentinels, range -------------------------------------------------------------------------------


def test_a_two_point_scale_meets_its_ends() -> None:
    field = Field(type=DataType.INT16, start=0, scale=Scale.from_points((0, 27648), (0, 3000)))
    assert decode_one(field, (27648).to_bytes(2, "big")) == (3000.0, 0)
    assert decode_one(field, (0).to_bytes(2, "big")) == (0.0, 0)
    assert encode(field, 3000) == (27648).to_bytes(2, "big")
    assert encode(field, 1500.05) == (13824).to_bytes(2, "big")  # 13824.46 raw
    four_to_twenty = Field(type=DataType.UINT16, start=0, scale=Scale.from_points((4000, 20000), (-50, 150)))
    assert decode_one(four_to_twenty, (12000).to_bytes(2, "big")) == (50.0, 0)


def test_a_factor_gives_the_decimal_number_people_expect() -> None:
    field = Field(type=DataType.INT16, start=0, scale=Scale.from_factor(0.1, -40))
    assert decode_one(field, (403).to_bytes(2, "big")) == (0.3, 0)
    assert encode(field, 0.3) == (403).to_bytes(2, "big")
    assert encode(field, 0.35) == (404).to_bytes(2, "big")  # half away from zero
    assert encode(Field(type=DataType.INT16, start=0, scale=Scale.from_factor(0.1)), -0.35) == struct.pack(
        ">h", -4
    )
    whole = Field(type=DataType.UINT16, start=0, scale=Scale.from_factor(10))
    assert whole.value_type is ValueType.INT
    assert decode_one(whole, b"\0\7") == (70, 0)
    assert Field(type=DataType.UINT16, start=0, scale=Scale.from_factor(0.5)).value_type is ValueType.FLOAT


factors = st.one_of(
    st.sampled_from([0.1, 0.01, 1e-3, 10.0, -0.1, 2.5, 1 / 3]),
    st.floats(1e-6, 1e6).map(lambda number: float(f"{number:.6g}")),
)
offsets = st.one_of(st.just(0.0), st.floats(-1e6, 1e6).map(lambda number: float(f"{number:.4f}")))


@settings(deadline=None)  # a shared machine may stall
@given(st.data(), factors, offsets)
def test_scaled_values_are_the_exact_ones_rounded_once_and_write_back(
    data: st.DataObject, factor: float, offset: float
) -> None:
    data_type = data.draw(st.sampled_from([DataType.INT16, DataType.UINT16, DataType.INT32, DataType.BCD16]))
    field = Field(type=data_type, start=0, scale=Scale.from_factor(factor, offset), order=data.draw(orders))
    raw = data.draw(values(data_type))
    assert isinstance(raw, int)
    registers = encode(Field(type=data_type, start=0, order=field.order), raw)
    value, quality = decode_one(field, registers)
    assert quality == 0
    assert value == float(raw * Fraction(repr(factor)) + Fraction(repr(offset)))
    assume(abs(factor) > 1e-9 * abs(offset))  # else the float itself cannot tell two raw values apart
    assert encode(field, value) == registers


@settings(deadline=None)  # a shared machine may stall
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), factors, offsets)
def test_scaled_floats(raw: float, factor: float, offset: float) -> None:
    field = Field(type=DataType.FLOAT32, start=0, scale=Scale.from_factor(factor, offset))
    value, quality = decode_one(field, struct.pack(">f", raw))
    assert quality == 0
    assert value == pytest.approx(raw * factor + offset, rel=1e-12, abs=1e-9 * max(1.0, abs(offset)))


def test_a_scaled_float_that_overflows_is_no_value() -> None:
    field = Field(type=DataType.FLOAT64, start=0, scale=Scale.from_factor(1e30))
    assert decode_one(field, struct.pack(">d", 1e300)) == (None, NOT_A_VALUE)


@pytest.mark.parametrize(
    ("data_type", "invalid", "raw", "value"),
    [
        (DataType.INT16, 0x8000, "8000", None),
        (DataType.INT16, -32768, "8000", None),
        (DataType.INT16, 0x8000, "8001", -32767),
        (DataType.UINT16, 0xFFFF, "ffff", None),
        (DataType.INT32, 0x80000000, "80000000", None),
        (DataType.BCD16, 0xFFFF, "ffff", None),
        (DataType.BCD16, 0x9999, "9999", None),  # BCD sentinels are registers as they are
        (DataType.FLOAT32, -9999.9, "c61c3f9a", None),
        (DataType.FLOAT32, -9999, "c61c3c00", None),
    ],
)
def test_sentinels_are_no_values(data_type: DataType, invalid: float, raw: str, value: Value) -> None:
    field = Field(type=data_type, start=0, invalid=(invalid,))
    assert decode_one(field, bytes.fromhex(raw)) == (value, 0 if value is not None else NOT_A_VALUE)


def test_a_sentinel_is_raw_and_a_range_is_in_engineering_units() -> None:
    scale = Scale.from_factor(0.1)
    field = Field(type=DataType.INT16, start=0, scale=scale, invalid=(500,), low=0, high=100.5)
    got = {raw: decode_one(field, struct.pack(">h", raw)) for raw in (500, 0, 1005, 1006, -1)}
    assert got == {
        500: (None, NOT_A_VALUE),
        0: (0.0, 0),
        1005: (100.5, 0),
        1006: (100.6, BEYOND_RANGE),
        -1: (-0.1, BEYOND_RANGE),
    }


@pytest.mark.parametrize("raw", ["7fc00000", "ff800000", "7f800000", "7f800001", "ffffffff"])
def test_nan_and_infinity_are_no_values(raw: str) -> None:
    for low in (None, 0.0):
        field = Field(type=DataType.FLOAT32, start=0, low=low)
        assert decode_one(field, bytes.fromhex(raw)) == (None, NOT_A_VALUE)


# --- blocks ------------------------------------------------------------------------------------------------


@st.composite
def any_field(draw: st.DrawFn) -> Field:
    data_type = draw(st.sampled_from(list(DataType)))
    start, order = draw(st.integers(100, 116)), draw(orders)
    if data_type is DataType.BOOL:
        return Field(type=data_type, start=start, bit=draw(st.integers(0, 15)), order=order)
    if data_type is DataType.STRING:
        charset = draw(st.sampled_from(Charset))
        return Field(
            type=data_type, start=start, length=draw(st.integers(1, 4)), order=order, charset=charset
        )
    if data_type is DataType.BITS:
        return Field(type=data_type, start=start, length=draw(st.integers(1, 64)), order=order)
    if not data_type.is_number:
        return Field(type=data_type, start=start, order=order)
    scales = [None, Scale.from_factor(0.1, 5), Scale.from_factor(-3, 1), TABLE]
    scale = draw(st.sampled_from([*scales, ScalePower(draw(st.integers(100, 119)))]))
    invalid = draw(st.sampled_from([(), (0,), (1, 0x7F)]))
    low, high = draw(st.sampled_from([(None, None), (0, None), (None, 1000.5), (-10, 10)]))
    below, above = draw(st.sampled_from(Beyond)), draw(st.sampled_from(Beyond))
    is_unsigned = data_type.value.startswith("uint")
    bits = draw(st.sampled_from([None, (0, 3), (2, 7)])) if is_unsigned else None
    return Field(
        type=data_type,
        start=start,
        order=order,
        scale=scale,
        invalid=invalid,
        low=low,
        high=high,
        below=below,
        above=above,
        bits=bits,
        half=draw(st.sampled_from(Half)),
    )


TABLE = ScaleTable.from_points([(0, 0), (100, 50), (20_000, 1000)])


def reference(  # noqa: C901 - said slowly
    field: Field, block: bytes
) -> tuple[Value, int]:
    """What a field means, said slowly."""
    data = registers(field, block, field.start, field.count)
    kind = field.type
    if kind is DataType.STRING:
        try:
            return data.decode(field.charset.codec).rstrip("\0 "), 0
        except UnicodeDecodeError:
            return None, NOT_A_VALUE
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if kind is DataType.YMDHMS:
        return moment([int.from_bytes(word, "big") for word in words])
    if kind is DataType.TI081:
        return ti081([int.from_bytes(word, "big") for word in words])
    if field.order.word is Endian.LITTLE or kind is DataType.BITS:
        words.reverse()
    data = b"".join(words)
    if kind in {DataType.INT8, DataType.UINT8}:
        data = data[:1] if field.half is Half.HIGH else data[1:]
    if kind in {DataType.INT24, DataType.UINT24}:
        data = data[1:]
    raw: int | float = int.from_bytes(data, "big", signed=kind.value.startswith("int"))
    if field.bit is not None:
        return bool(int(raw) >> field.bit & 1), 0
    if kind is DataType.BITS:
        return int(raw) % 2**field.length, 0
    if kind is DataType.UNIX32:
        return datetime.fromtimestamp(raw, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), 0
    if kind.is_float:
        raw = struct.unpack({2: ">e", 4: ">f", 8: ">d"}[len(data)], data)[0]
        if raw in field.invalid:
            return None, NOT_A_VALUE
        if not math.isfinite(raw):
            return None, NOT_A_VALUE
    if kind.is_bcd:
        if raw in field.invalid or any(digit > "9" for digit in data.hex()):
            return None, NOT_A_VALUE
        raw = int(data.hex())
    if kind.value.startswith("mod10k"):
        parts = [int.from_bytes(word, "big", signed=True) for word in words]
        if max(map(abs, parts)) > 9999 or (min(parts) < 0 < max(parts)):
            return None, NOT_A_VALUE
        raw = sum(part * 10_000**power for power, part in enumerate(reversed(parts)))
    if raw in field.invalid and not kind.is_bcd:
        return None, NOT_A_VALUE
    if field.bits is not None:
        raw = int(format(int(raw), "064b")[::-1][field.bits[0] : field.bits[1] + 1][::-1], 2)
    value, quality = scaled(field, raw, block)
    if value is None:
        return None, quality
    if not math.isfinite(value):
        return None, NOT_A_VALUE
    what = Beyond.GOOD
    if field.low is not None and value < field.low:
        what = field.below
    elif field.high is not None and value > field.high:
        what = field.above
    if what is Beyond.BAD:
        return None, FAR_BEYOND
    return value, BEYOND_RANGE if what is Beyond.UNCERTAIN else 0


def registers(field: Field, block: bytes, start: int, count: int) -> bytes:
    data = block[2 * (start - 100) :][: 2 * count]
    return swapped(data) if field.order.byte is Endian.LITTLE else data


def scaled(field: Field, raw: float, block: bytes) -> tuple[float | None, int]:
    scale = field.scale
    if isinstance(scale, ScaleTable):
        if not 0 <= raw <= 20_000:
            return None, FAR_BEYOND
        return (raw * 50.0 / 100 if raw < 100 else 50 + (raw - 100) * (1000 - 50) / (20_000 - 100)), 0
    if isinstance(scale, ScalePower):
        power = int.from_bytes(registers(field, block, scale.register, 1), "big", signed=True)
        if not -10 <= power <= 10:
            return None, NOT_A_VALUE
        return float(raw * 10**power if power >= 0 else raw / 10**-power), 0
    if scale is None:
        return raw, 0
    parts = (scale.numerator, scale.shift, scale.denominator)
    n, k, m = map(float, parts) if field.type.is_float else parts
    return (raw * n + k if m == 1 else (raw * n + k) / m), 0


def moment(parts: list[int]) -> tuple[Value, int]:
    try:
        return datetime(*parts).isoformat(), 0  # noqa: DTZ001  # type: ignore[arg-type]  # six of them
    except ValueError:
        return None, NOT_A_VALUE


def ti081(words: list[int]) -> tuple[Value, int]:
    """By the bits of the table in the manual."""
    year, date, clock, milliseconds = (format(word, "016b") for word in words)
    try:
        found = datetime(  # noqa: DTZ001
            2000 + int(year[9:], 2),
            int(date[4:8], 2),
            int(date[11:], 2),
            int(clock[3:8], 2),
            int(clock[10:], 2),
            int(milliseconds, 2) // 1000,
            int(milliseconds, 2) % 1000 * 1000,
        )
    except ValueError:
        return None, NOT_A_VALUE
    is_invalid = clock[8] == "1"
    return (None, NOT_A_VALUE) if is_invalid else (found.isoformat(timespec="milliseconds"), 0)


small_words = st.sampled_from(
    [b"\0\0", b"\0\1", b"\x7f\xff", b"\x41\x20", b"\x12\x34", b"\x7f\xc0", b"\xff\xff"]
)


@settings(deadline=None)  # a shared machine may stall
@given(
    st.lists(any_field(), max_size=12),
    st.lists(st.one_of(small_words, st.binary(min_size=2, max_size=2)), min_size=22, max_size=22),
)
def test_a_block_of_anything_decodes_as_the_reference_says(fields: list[Field], content: list[bytes]) -> None:
    block = b"".join(content)
    got, quality = compile_block(fields, table=HOLDING, start=100, count=22)(block)
    expected = [reference(field, block) for field in fields]
    assert got == tuple(value for value, _ in expected)
    assert [type(value) for value in got] == [type(value) for value, _ in expected]
    qualities = tuple(q for _, q in expected)
    assert quality == (qualities if any(qualities) else 0)


@settings(deadline=None)  # a shared machine may stall
@given(st.lists(st.integers(3, 40), max_size=20), st.binary(min_size=6, max_size=6))
def test_coils_anywhere_in_a_block(offsets: list[int], data: bytes) -> None:
    fields = [Field(type=DataType.BOOL, start=offset) for offset in offsets]
    got, quality = compile_block(fields, table=Table.COILS, start=3, count=45)(data)
    number = int.from_bytes(data, "little")
    assert got == tuple(bool(number >> (offset - 3) & 1) for offset in offsets)
    assert all(type(value) is bool for value in got)
    assert quality == 0


@settings(deadline=None)  # a shared machine may stall
@given(st.integers(0, 9), st.integers(1, 50), st.binary(min_size=8, max_size=8))
def test_a_row_of_coils(first: int, size: int, data: bytes) -> None:
    fields = [Field(type=DataType.BOOL, start=first + i) for i in range(size)]
    got, _ = compile_block(fields, table=Table.DISCRETE_INPUTS, start=0, count=60)(data)
    assert pack_bits(got) == (int.from_bytes(data, "little") >> first & (1 << size) - 1).to_bytes(
        (size + 7) // 8, "little"
    )


def test_good_floats_whose_sum_overflows_are_good() -> None:
    fields = [Field(type=DataType.FLOAT64, start=4 * i) for i in range(3)]
    huge = struct.pack(">ddd", 1.7e308, 1.7e308, 1.0)
    assert compile_block(fields, table=HOLDING, start=0, count=12)(huge) == ((1.7e308, 1.7e308, 1.0), 0)


def test_data_of_the_wrong_length_are_refused() -> None:
    decode = compile_block([Field(type=DataType.INT16, start=0)], table=HOLDING, start=0, count=2)
    for size in (0, 2, 3, 5, 6):
        with pytest.raises(ValueError, match=f"found {size} bytes, expected 4"):
            decode(bytes(size))
    coils = compile_block([Field(type=DataType.BOOL, start=0)], table=Table.COILS, start=0, count=9)
    with pytest.raises(ValueError, match="found 1 bytes, expected 2"):
        coils(b"\0")


@pytest.mark.parametrize(
    ("field", "table"),
    [
        (Field(type=DataType.INT16, start=9), HOLDING),
        (Field(type=DataType.INT32, start=13), HOLDING),
        (Field(type=DataType.BOOL, start=10), HOLDING),
        (Field(type=DataType.BOOL, start=10, bit=1), Table.COILS),
        (Field(type=DataType.UINT16, start=10), Table.DISCRETE_INPUTS),
    ],
)
def test_fields_that_do_not_belong_into_a_block(field: Field, table: Table) -> None:
    with pytest.raises(ValueError, match="expected"):
        compile_block([field], table=table, start=10, count=4)


# --- refusals ----------------------------------------------------------------------------------------------


INT16, FLOAT32 = Field(type=DataType.INT16, start=0), Field(type=DataType.FLOAT32, start=0)
SCALED = Field(type=DataType.INT16, start=0, scale=Scale.from_factor(0.1))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (INT16, True, "found True, expected a number"),
        (INT16, "7", "found '7', expected a number"),
        (INT16, None, "found None, expected a number"),
        (INT16, 32768, r"found 32768, expected raw -32768\.\.32767 \(int16\)"),
        (INT16, 1.5, "found 1.5, expected a whole number: int16 has no scale"),
        (INT16, math.nan, "found nan, expected a finite number"),
        (INT16, math.inf, "found inf, expected a finite number"),
        (SCALED, 3276.8, r"found 3276.8, raw 32768, expected raw -32768\.\.32767"),
        (Field(type=DataType.UINT16, start=0), -1, "found -1, expected raw 0"),
        (Field(type=DataType.BCD16, start=0), 10_000, r"expected raw 0\.\.9999 \(bcd16\)"),
        (Field(type=DataType.BCD16, start=0), -1, "found -1"),
        (FLOAT32, 1e39, "expected a number that fits float32"),
        (FLOAT32, 10**300, "expected a number that fits float32"),
        (FLOAT32, 10**320, "an integer of 309 digits"),
        (INT16, -(10**320), "an integer of 309 digits"),
        (FLOAT32, True, "expected a number"),
        (FLOAT32, math.nan, "expected a finite number"),
        (Field(type=DataType.INT16, start=0, invalid=(0x8000,)), -32768, "declared invalid"),
        (Field(type=DataType.BCD16, start=0, invalid=(0x9999,)), 9999, "declared invalid"),
        (Field(type=DataType.BOOL, start=0), 2, "expected true or false"),
        (Field(type=DataType.BOOL, start=0), "on", "expected true or false"),
        (Field(type=DataType.BOOL, start=0), 1.0, "expected true or false"),
        (Field(type=DataType.STRING, start=0, length=2), "12345", "found 5 bytes of text, expected up to 4"),
        (Field(type=DataType.STRING, start=0, length=2), 12, "found 12, expected a string"),
        (Field(type=DataType.STRING, start=0, length=2), "a\0b", "NUL"),
        (Field(type=DataType.STRING, start=0, charset=Charset.ASCII), "°", "expected characters of ascii"),
        (Field(type=DataType.STRING, start=0), "\ud800", "expected characters of utf-8"),
    ],
)
def test_what_cannot_be_written_is_refused_with_the_reason(field: Field, value: Value, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(field, value)


def test_an_integer_too_long_to_print_is_refused_too() -> None:
    with pytest.raises(ValueError, match="an integer of 309 digits"):
        encode(INT16, 10**5000)


def test_a_scaled_value_beyond_any_float_is_refused() -> None:
    field = Field(type=DataType.FLOAT64, start=0, scale=Scale.from_factor(1e-20))
    with pytest.raises(ValueError, match="expected a number that fits float64"):
        encode(field, 1e300)


def test_bounds_of_a_write() -> None:
    assert encode(INT16, 5, low=5, high=5) == b"\0\5"
    for low, high, expected in ((0, 3, "0 to 3"), (None, 3, "at most 3"), (6, None, "at least 6")):
        with pytest.raises(ValueError, match=f"found 5, expected {expected}"):
            encode(INT16, 5, low=low, high=high)


def test_coils_are_written_as_one_byte() -> None:
    coil = Field(type=DataType.BOOL, start=0)
    assert [encode(coil, value) for value in (True, False, 1, 0)] == [b"\1", b"\0", b"\1", b"\0"]


def test_writing_zero_works() -> None:
    for data_type in NUMBERS:
        assert encode(Field(type=data_type, start=0), 0).count(0) == 2 * Field(type=data_type, start=0).count


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"type": DataType.BOOL, "bit": 16}, "bit: found 16"),
        ({"type": DataType.INT16, "bit": 1}, "with type int16"),
        ({"type": DataType.STRING, "length": 0}, "length: found 0"),
        ({"type": DataType.STRING, "length": 124}, "length: found 124"),
        ({"type": DataType.INT16, "length": 2}, "on strings and bits only"),
        ({"type": DataType.STRING, "low": 0}, "on numbers only"),
        ({"type": DataType.BOOL, "scale": Scale(1, 0, 10)}, "on numbers only"),
        ({"type": DataType.INT16, "low": 2, "high": 1}, "lower end first"),
        ({"type": DataType.INT16, "low": math.nan}, "finite"),
        ({"type": DataType.INT16, "low": 10**5000}, "309 digits"),
        ({"type": DataType.FLOAT32, "invalid": (10**5000,)}, "309 digits"),
        ({"type": DataType.INT16, "invalid": (10**5000,)}, "309 digits"),
        ({"type": DataType.INT16, "invalid": (0x10000,)}, "invalid: found 65536"),
        ({"type": DataType.INT16, "invalid": (-32769,)}, "invalid: found -32769"),
        ({"type": DataType.UINT16, "invalid": (-1,)}, "invalid: found -1"),
        ({"type": DataType.UINT16, "invalid": (1.5,)}, "invalid: found 1.5"),
        ({"type": DataType.UINT16, "invalid": (True,)}, "invalid: found True"),
        ({"type": DataType.FLOAT32, "invalid": (math.nan,)}, "NaN is so anyway"),
        ({"type": DataType.FLOAT32, "invalid": (1e39,)}, "fits float32"),
    ],
)
def test_fields_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Field(start=0, **wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scale.from_factor(0), "factor 0"),
        (lambda: Scale.from_factor(math.inf), "finite"),
        (lambda: Scale.from_factor(True), "finite"),
        (lambda: Scale.from_factor(1e-40), "1e-30 to 1e30"),
        (lambda: Scale.from_factor(1, 1.5e30), "1e-30 to 1e30"),
        (lambda: Scale.from_factor(1, 1e31), "1e-30 to 1e30"),
        (lambda: Scale.from_factor(10**5000), "309 digits"),
        (lambda: Scale.from_factor(1, 2.2e-311), "1e-30 to 1e30"),
        (lambda: Scale.from_points((0, 1e30), (0, 1e-29)), "1e-30 to 1e30"),
        (lambda: Scale.from_points((1, 1), (0, 5)), "two different ends"),
        (lambda: Scale.from_points((1, 2), (5, 5)), "two different ends"),
    ],
)
def test_scales_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_types_of_engineering_values() -> None:
    assert Field(type=DataType.BOOL, start=0).value_type is ValueType.BOOL
    assert Field(type=DataType.STRING, start=0).value_type is ValueType.STRING
    assert Field(type=DataType.FLOAT32, start=0, scale=Scale.from_factor(10)).value_type is ValueType.FLOAT


def test_equal_blocks_share_a_decoder() -> None:
    cache: dict[BlockKey, Decoder] = {}
    first, second = [INT16], [Field(type=DataType.INT16, start=0)]
    decode = compile_block(first, table=HOLDING, start=0, count=1, cache=cache)
    assert compile_block(second, table=HOLDING, start=0, count=1, cache=cache) is decode
    assert compile_block([SCALED], table=HOLDING, start=0, count=1, cache=cache) is not decode
    assert compile_block(first, table=Table.INPUT_REGISTERS, start=0, count=1, cache=cache) is not decode


def test_the_order_is_ignored_where_there_is_none() -> None:
    assert Order() == ABCD
    for name in ("ABCD", "CDAB"):
        assert encode(Field(type=DataType.INT16, start=0, order=ORDERS[name]), 1) == b"\0\1"
