"""Simulated values: within what registers hold, the same for the same seed, written ones stay."""

from __future__ import annotations

import struct
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.coding import TYPES
from drivers.modbus.decode import Decoder, compile_block
from drivers.modbus.field import Field
from drivers.modbus.simulator.units import Units, make_units
from drivers.modbus.tag import ModbusTag
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.core.errors import ConfigError
from tests.drivers.modbus.simulated import devices_of

T = Table.HOLDING_REGISTERS
NUMBERS = [name for name in TYPES if name not in {"bool", "string", "unix32", "ti081", "ymdhms", "bits"}]


class Time:
    now = 0.0


def made(tags: str, *, time: Time, seed: int = 1, more: str = "", fills: bool = False) -> Units:
    devices = devices_of(f"devices:\n  d: {{host: 10.0.0.1, unit: 5{more}, tags: {{{tags}}}}}\n")
    return make_units(
        devices, seed=seed, start_ns=1_700_000_000 * 10**9, second=lambda: time.now, fills_holes=fills
    )


@cache
def reader(tags: str, name: str) -> tuple[Table, Field, Decoder]:
    """Where a tag is, and our own decoder of it."""
    devices = devices_of(f"devices:\n  d: {{host: 10.0.0.1, unit: 5, tags: {{{tags}}}}}\n")
    model = devices[0].tags[name].model
    assert isinstance(model, ModbusTag)
    field = model.field()
    decode = compile_block([field], table=model.at.table, start=field.first, count=field.extent)
    return model.at.table, field, decode


def shown(units: Units, tags: str, name: str) -> object:
    """A tag as our own decoder reads it."""
    table, field, decode = reader(tags, name)
    data = units.read_registers(5, table, field.first, field.extent)
    assert isinstance(data, bytes), data
    return decode(data)[0][0]


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("more", ["", ", scale: 0.1", ", range: [3, 7]", ", unit: kWh", ", unit: V"])
def test_numbers_of_every_type_move_within_what_fits(kind: str, more: str) -> None:
    time = Time()
    tags = f'v: {{at: "hr:0", type: {kind}{more}}}'
    units = made(tags, time=time)
    values = []
    for second in range(0, 2000, 11):
        time.now = float(second)
        values.append(shown(units, tags, "v"))
    assert None not in values
    assert len(set(values)) > 2, "it moves"
    if "range" in more:
        assert all(3 <= value <= 7 for value in values)  # type: ignore[operator]  # numbers
    if "kWh" in more and kind not in {"int8", "uint8", "float16"} and "8" not in kind:
        falls = sum(after < before for before, after in pairwise(values))  # type: ignore[operator]  # as above
        assert falls <= 2, "a counter grows, and wraps seldom"


def test_texts_times_states_and_flags() -> None:
    time = Time()
    tags = """s: {at: "hr:0", type: string, length: 12},
      t: {at: "hr:10", type: unix32}, y: {at: "hr:12", type: ymdhms},
      m: {at: "hr:20", type: uint16, enum: {0: "off", 4: auto, 9: hand}}, x: {at: "hr:22", bit: 3},
      w: {at: "hr:22", bit: 4, write: {}}, b: {at: "hr:23", type: bits, length: 12}"""
    units = made(tags, time=time, more=", bit_write: mask")
    assert shown(units, tags, "s") == "SIM-s"
    assert shown(units, tags, "t") == "2023-11-14T22:13:20Z"
    states, bits = set(), set()
    for second in range(300):
        time.now = float(second)
        states.add(shown(units, tags, "m"))
        bits.add(shown(units, tags, "x"))
        assert shown(units, tags, "w") is False
        assert shown(units, tags, "b").bit_count() == 1  # type: ignore[attr-defined]  # a number
    assert states == {0, 4, 9}
    assert bits == {True, False}
    assert shown(units, tags, "y") == "2023-11-14T22:18:19"


def test_a_scale_factor_in_the_device_fits_its_values() -> None:
    """SunSpec: the value means nothing without the register beside it."""
    time = Time()
    tags = 'v: {at: "hr:0", type: int16, unit: W, scale: {power: "hr:3"}}, f: {at: "hr:3", type: int16}'
    units = made(tags, time=time)
    for second in (0, 50, 100):
        time.now = float(second)
        assert 300 <= shown(units, tags, "v") <= 3700  # type: ignore[operator]  # a number
    assert shown(units, tags, "f") in range(-2, 4)
    alone = tags.partition(", f:")[0]
    assert 300 <= shown(made(alone, time=time), alone, "v") <= 3700  # type: ignore[operator]  # as above


def test_the_watched_counter_never_stands_still() -> None:
    time = Time()
    tags = 'c: {at: "hr:0", type: uint16}'
    units = made(tags, time=time, more=", watch: {tag: c, within: 1s}")
    values = []
    for second in range(200):
        time.now = second / 2
        values.append(shown(units, tags, "c"))
    assert all(after != before for before, after in pairwise(values))


def test_the_same_seed_shows_the_same_and_another_does_not() -> None:
    time = Time()
    tags = ", ".join(f'v{n}: {{at: "hr:{2 * n}", type: float32}}' for n in range(20))

    def story(seed: int) -> list[object]:
        units = made(tags, time=time, seed=seed)
        found: list[object] = []
        for second in (0, 3, 60):
            time.now = float(second)
            found.append(units.read_registers(5, T, 0, 40))
        return found

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_what_is_written_stays_and_what_is_not_writable_is_refused() -> None:
    time = Time()
    tags = """sp: {at: "hr:0", type: float32, write: {min: 0, max: 100}}, r: {at: "hr:2", type: uint16},
      c: {at: "co:1", write: {}}"""
    units = made(tags, time=time)
    assert shown(units, tags, "sp") == 50.0, "a set-point is in the middle of what may be written"
    assert units.write_registers(5, 0, struct.pack(">f", 12.5)) is None
    time.now = 500.0
    assert shown(units, tags, "sp") == 12.5
    assert units.write_registers(5, 1, b"\0\0") is None, "half of it too: a device is registers"
    assert shown(units, tags, "sp") == 12.5
    assert units.write_registers(5, 1, b"\0\0\0\0") is ExceptionCode.ILLEGAL_DATA_ADDRESS
    assert units.write_registers(5, 2, b"\0\0") is ExceptionCode.ILLEGAL_DATA_ADDRESS
    assert units.write_bits(5, 1, 1, b"\1") is None
    assert units.read_bits(5, Table.COILS, 1, 1) == b"\1"
    assert units.read_bits(5, Table.COILS, 0, 2) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    assert units.read_registers(5, T, 0, 4) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    assert units.read_registers(5, Table.INPUT_REGISTERS, 0, 1) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    units.hold("d/r", 777)
    assert shown(units, tags, "r") == 777
    units.release("d/r")
    assert shown(units, tags, "r") != 777


def test_holes_are_refused_unless_they_are_to_be_filled() -> None:
    tags = 'a: {at: "hr:0", type: uint16}, b: {at: "hr:9", type: uint16}'
    assert made(tags, time=Time()).read_registers(5, T, 0, 10) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    data = made(tags, time=Time(), fills=True).read_registers(5, T, 0, 10)
    assert isinstance(data, bytes)
    assert data[2:18] == bytes(16)


def test_two_devices_with_one_unit_are_refused() -> None:
    one = "{host: '10.0.0.%d', unit: 1, tags: {a: {at: 'hr:0', type: uint16}}}"
    devices = devices_of(f"devices:\n  p: {one % 1}\n  q: {one % 2}\n")
    with pytest.raises(ConfigError, match="found unit 1 as p and as q, expected one device for each"):
        make_units(devices, seed=0, start_ns=0, second=lambda: 0.0)


@settings(max_examples=60, deadline=None)
@given(
    operations=st.lists(
        st.tuples(st.booleans(), st.integers(0, 70), st.binary(min_size=2, max_size=40)), max_size=30
    ),
    data=st.data(),
)
def test_any_reads_and_writes_keep_what_was_written(
    operations: list[tuple[bool, int, bytes]], data: st.DataObject
) -> None:
    """Against the plainest model there is: what was written last is there, all or nothing."""
    time = Time()
    tags = ", ".join(f'w{n}: {{at: "hr:{3 * n}", type: uint32, write: {{}}}}' for n in range(20))
    units = made(tags, time=time)
    model: dict[int, int] = {}
    mapped = {3 * n + word for n in range(20) for word in (0, 1)}
    for is_write, start, payload in operations:
        payload = payload[: len(payload) // 2 * 2]
        count = len(payload) // 2
        span = range(start, start + count)
        if is_write:
            refusal = units.write_registers(5, start, payload)
            assert (refusal is None) == (set(span) <= mapped)
            if refusal is None:
                model.update(zip(span, struct.unpack(f">{count}H", payload), strict=True))
        else:
            time.now += 1
            found = units.read_registers(5, T, start, count)
            assert isinstance(found, bytes) == (set(span) <= mapped)
            if isinstance(found, bytes):
                words = struct.unpack(f">{count}H", found)
                assert all(model.get(at, word) == word for at, word in zip(span, words, strict=True))
