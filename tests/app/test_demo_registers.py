"""The plant's registers say what configs/demo/README.md says, and writes reach the plant."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.app.demo.plant import BoilerState, Plant
from gateway.app.demo.registers import PlantRegisters, bcd32, float_abcd, float_cdab, int16, uint32_cdab

HOLDING, INPUT = Table.HOLDING_REGISTERS, Table.INPUT_REGISTERS


def silent(_sigma: float) -> float:
    return 0.0


def made(plant: Plant | None = None) -> tuple[Plant, PlantRegisters]:
    plant = plant or Plant()
    registers = PlantRegisters(plant)
    registers.refresh(silent)
    return plant, registers


def words(registers: PlantRegisters, unit: int, table: Table, start: int, count: int) -> tuple[int, ...]:
    data = registers.read_registers(unit, table, start, count)
    assert isinstance(data, bytes)
    return struct.unpack(f">{count}H", data)


def cdab(pair: tuple[int, ...]) -> float:
    value: float = struct.unpack(">f", struct.pack(">HH", pair[1], pair[0]))[0]
    return value


def test_the_boilers_map() -> None:
    plant, registers = made()
    plant.boiler.burner, plant.boiler.water_c, plant.boiler.pressure_bar = 0.455, 65.24, 1.5
    plant.boiler.state, plant.boiler.setpoint_c = BoilerState.HEATING, 72.5
    registers.refresh(silent)
    assert words(registers, 1, INPUT, 0, 5) == (455, 652, 0x3FC0, 0x0000, 3)  # 1.5 is 3FC00000 in IEEE 754
    assert words(registers, 1, HOLDING, 0, 2) == (725, 0b0001)
    assert registers.read_bits(1, Table.DISCRETE_INPUTS, 0, 1) == b"\x01"
    plant.boiler.pressure_bar, plant.boiler.pump = 0.5, False
    registers.refresh(silent)
    assert words(registers, 1, HOLDING, 1, 1) == (0b1000,), "bit 3 is low water, bit 0 the pump"


def test_the_tanks_map() -> None:
    plant, registers = made()
    plant.tank.level_m, plant.tank.pump_s, plant.tank.valve = 2.0, 12_345_678 * 3600.0, 0.333
    plant.tank.pump_running, plant.tank.pump_enabled = True, True
    registers.refresh(silent)
    assert words(registers, 2, INPUT, 0, 1) == (27648,)
    assert cdab(words(registers, 2, INPUT, 3, 2)) == pytest.approx(plant.tank.outflow_m3h)
    assert words(registers, 2, INPUT, 5, 5) == (0, 0, 0, 0, 0), "the hole answers 0"
    assert words(registers, 2, INPUT, 10, 2) == (0x1234, 0x5678)
    assert words(registers, 2, HOLDING, 0, 1) == (333,)
    assert registers.read_bits(2, Table.DISCRETE_INPUTS, 0, 2) == b"\x03"
    assert registers.read_bits(2, Table.COILS, 0, 1) == b"\x01"


def test_the_meters_map() -> None:
    plant, registers = made()
    plant.step(1.0, silent)
    registers.refresh(silent)
    meter = plant.meter
    floats = [cdab(words(registers, 3, HOLDING, 2 * index, 2)) for index in range(8)]
    assert floats == pytest.approx([*meter.volts, *meter.amps, meter.p_kw, meter.q_kvar], rel=1e-6)
    assert words(registers, 3, HOLDING, 16, 2) == (
        round(meter.cos_phi * 1000),
        round(meter.frequency_hz * 100),
    )
    low, high = words(registers, 3, HOLDING, 20, 2)
    assert high << 16 | low == int(meter.energy_kwh * 100)
    assert registers.read_registers(3, HOLDING, 30, 4) == b"EM340-07"


def test_written_setpoints_reach_the_plant() -> None:
    plant, registers = made()
    assert registers.write_registers(1, 0, (750).to_bytes(2, "big")) is None
    assert plant.boiler.setpoint_c == 75.0
    assert words(registers, 1, HOLDING, 0, 1) == (750,), "readable at once, before the next measurement"
    assert registers.write_bits(2, 0, 1, b"\x00") is None
    assert plant.tank.pump_enabled is False
    assert registers.write_registers(2, 0, (0).to_bytes(2, "big")) is None
    assert plant.tank.valve == 0.0


@pytest.mark.parametrize(
    ("unit", "start", "data", "code"),
    [
        (1, 0, "012b", ExceptionCode.ILLEGAL_DATA_VALUE),  # 299, one below the range
        (1, 0, "0385", ExceptionCode.ILLEGAL_DATA_VALUE),  # 901
        (1, 1, "0001", ExceptionCode.ILLEGAL_DATA_ADDRESS),
        (1, 0, "02ee0001", ExceptionCode.ILLEGAL_DATA_ADDRESS),  # the second register is read-only
        (2, 0, "03e9", ExceptionCode.ILLEGAL_DATA_VALUE),
        (3, 0, "0000", ExceptionCode.ILLEGAL_DATA_ADDRESS),
    ],
)
def test_refused_writes_change_nothing(unit: int, start: int, data: str, code: ExceptionCode) -> None:
    plant, registers = made()
    before = Plant()
    assert registers.write_registers(unit, start, bytes.fromhex(data)) is code
    assert plant == before


def test_reading_beyond_the_map_is_an_illegal_address() -> None:
    _, registers = made()
    assert registers.read_registers(1, HOLDING, 60, 5) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    assert registers.read_bits(1, Table.COILS, 31, 2) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    assert not registers.has_unit(4)


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_floats_come_back(value: float) -> None:
    assert struct.unpack(">f", struct.pack(">2H", *float_abcd(value)))[0] == value
    assert float_cdab(value) == float_abcd(value)[::-1]


@given(st.integers(0, 2**32 - 1))
def test_counters_come_back(value: int) -> None:
    low, high = uint32_cdab(value)
    assert high << 16 | low == value
    first, second = bcd32(value)
    assert int(f"{first:04x}{second:04x}") == value % 100_000_000


@given(st.floats(-1e6, 1e6))
def test_int16_saturates_and_never_wraps(value: float) -> None:
    signed = struct.unpack(">h", struct.pack(">H", int16(value)))[0]
    assert signed == min(max(round(value), -32768), 32767)
