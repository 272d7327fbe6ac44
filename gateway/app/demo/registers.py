"""The plant as Modbus sees it: plant state to registers, writable set-points back to the plant.

The register map is the one of `configs/demo/README.md`. Values carry measurement noise here and not in the
dynamics: the sensor is noisy, the water is not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.app.demo.plant import Noise, Plant

BITS_PER_TABLE: Final = 32
# Unused addresses below these limits answer 0, as real devices do in the holes of their map.
REGISTERS_PER_TABLE: Final = 64
LEVEL_RAW_MAX: Final = 27648
SERIAL: Final = "EM340-07"


def float_abcd(value: float) -> list[int]:
    """float32, high word first."""
    return list(struct.unpack(">HH", struct.pack(">f", value)))


def float_cdab(value: float) -> list[int]:
    """float32, low word first."""
    return float_abcd(value)[::-1]


def uint32_cdab(value: int) -> list[int]:
    """uint32, low word first; wraps like the counter of a meter."""
    value &= 0xFFFFFFFF
    return [value & 0xFFFF, value >> 16]


def bcd32(value: int) -> list[int]:
    """Eight decimal digits, most significant first; wraps like a mechanical counter."""
    digits = f"{value % 100_000_000:08d}"
    return [int(digits[:4], 16), int(digits[4:], 16)]


def int16(value: float) -> int:
    """Two's complement, limited to what a register holds."""
    return min(max(round(value), -0x8000), 0x7FFF) & 0xFFFF


def _text(text: str) -> list[int]:
    encoded = text.encode("ascii").ljust(8)[:8]
    return list(struct.unpack(">4H", encoded))


class Knob(msgspec.Struct, frozen=True):
    """One writable coil or holding register: what it takes, and what it does."""

    low: int
    high: int
    turn: Callable[[int], None]


class Unit:
    """One unit id: four tables of plain integers, and the knobs in them."""

    def __init__(self, knobs: dict[tuple[Table, int], Knob]) -> None:
        self._knobs: Final = knobs
        self._cells: Final = {
            table: [0] * (BITS_PER_TABLE if table.has_bits else REGISTERS_PER_TABLE) for table in Table
        }

    def show(self, table: Table, address: int, *values: int) -> None:
        """Make these values readable from `address` on."""
        self._cells[table][address : address + len(values)] = values

    def read(self, table: Table, start: int, count: int) -> Sequence[int] | ExceptionCode:
        """`count` items from `start`."""
        cells = self._cells[table]
        if start + count > len(cells):
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        return cells[start : start + count]

    def write(self, table: Table, start: int, values: Sequence[int]) -> ExceptionCode | None:
        """Turn knobs: all of them, or none and say why."""
        knobs = [self._knobs.get((table, start + offset)) for offset in range(len(values))]
        for knob, value in zip(knobs, values, strict=True):
            if knob is None:
                return ExceptionCode.ILLEGAL_DATA_ADDRESS
            if not knob.low <= value <= knob.high:
                return ExceptionCode.ILLEGAL_DATA_VALUE
        for knob, value in zip(knobs, values, strict=True):
            assert knob is not None
            knob.turn(value)
        self.show(table, start, *values)
        return None


class PlantRegisters:
    """The three units over one plant, as the data model of a Modbus server.

    `refresh` measures the plant into the registers; a write reaches the plant at once.
    """

    def __init__(self, plant: Plant) -> None:
        self._plant: Final = plant
        self._boiler: Final = Unit({(Table.HOLDING_REGISTERS, 0): Knob(300, 900, self._turn_setpoint)})
        self._tank: Final = Unit(
            {
                (Table.COILS, 0): Knob(0, 1, self._turn_pump),
                (Table.HOLDING_REGISTERS, 0): Knob(0, 1000, self._turn_valve),
            }
        )
        self._meter: Final = Unit({})
        self.units: Final = {1: self._boiler, 2: self._tank, 3: self._meter}

    # drivers.modbus.wire.model.DataModel

    def has_unit(self, unit: int) -> bool:
        """Units 1, 2 and 3."""
        return unit in self.units

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Packed from the least significant bit."""
        bits = self.units[unit].read(table, start, count)
        if isinstance(bits, ExceptionCode):
            return bits
        packed = sum(bit << position for position, bit in enumerate(bits))
        return packed.to_bytes((count + 7) // 8, "little")

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Two bytes each, high byte first."""
        registers = self.units[unit].read(table, start, count)
        if isinstance(registers, ExceptionCode):
            return registers
        return struct.pack(f">{count}H", *registers)

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        """Coils, packed from the least significant bit."""
        packed = int.from_bytes(data, "little")
        return self.units[unit].write(Table.COILS, start, [packed >> bit & 1 for bit in range(count)])

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        """Holding registers."""
        values = struct.unpack(f">{len(data) // 2}H", data)
        return self.units[unit].write(Table.HOLDING_REGISTERS, start, values)

    # The plant's side

    def refresh(self, noise: Noise) -> None:
        """Measure the plant: its state into the registers, with the noise of the sensors."""
        self._measure_boiler(noise)
        self._measure_tank(noise)
        self._measure_meter(noise)

    def _measure_boiler(self, noise: Noise) -> None:
        boiler, unit = self._plant.boiler, self._boiler
        unit.show(Table.DISCRETE_INPUTS, 0, int(boiler.flame))
        unit.show(
            Table.INPUT_REGISTERS,
            0,
            round(boiler.burner * 1000),
            int16((boiler.water_c + noise(0.06)) * 10),
            *float_abcd(max(boiler.pressure_bar + noise(0.004), 0.0)),
            boiler.state.value,
        )
        status = int(boiler.pump) | int(boiler.low_water) << 3
        unit.show(Table.HOLDING_REGISTERS, 0, int16(boiler.setpoint_c * 10), status)

    def _measure_tank(self, noise: Noise) -> None:
        tank, unit = self._plant.tank, self._tank
        unit.show(Table.COILS, 0, int(tank.pump_enabled))
        unit.show(Table.DISCRETE_INPUTS, 0, int(tank.pump_running), int(tank.high_level))
        level = min(max(tank.level + noise(0.0008), 0.0), 1.0)  # waves
        unit.show(
            Table.INPUT_REGISTERS,
            0,
            round(level * LEVEL_RAW_MAX),
            *float_cdab(max(tank.inflow_m3h + noise(0.04), 0.0)),
            *float_cdab(max(tank.outflow_m3h + noise(0.04), 0.0)),
        )
        unit.show(Table.INPUT_REGISTERS, 10, *bcd32(int(tank.pump_s / 3600)))
        unit.show(Table.HOLDING_REGISTERS, 0, round(tank.valve * 1000))

    def _measure_meter(self, noise: Noise) -> None:
        meter, unit = self._plant.meter, self._meter
        values = [max(volt + noise(0.05), 0.0) for volt in meter.volts]
        values += [max(ampere + noise(0.02), 0.0) for ampere in meter.amps]
        values += [max(meter.p_kw + noise(0.008), 0.0), meter.q_kvar + noise(0.008)]
        unit.show(
            Table.HOLDING_REGISTERS,
            0,
            *(register for value in values for register in float_cdab(value)),
            int16(meter.cos_phi * 1000),
            round(meter.frequency_hz * 100),
        )
        unit.show(Table.HOLDING_REGISTERS, 20, *uint32_cdab(int(meter.energy_kwh * 100)))
        unit.show(Table.HOLDING_REGISTERS, 30, *_text(SERIAL))

    def _turn_setpoint(self, raw: int) -> None:
        self._plant.boiler.setpoint_c = raw / 10

    def _turn_pump(self, raw: int) -> None:
        self._plant.tank.pump_enabled = bool(raw)

    def _turn_valve(self, raw: int) -> None:
        self._plant.tank.valve = raw / 1000
