"""The plant as Modbus sees it: plant state to registers, writable set-points back to the plant.

The register map is the one of `configs/demo/README.md`. Values carry measurement noise here and not in the
dynamics: the sensor is noisy, the water is not.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from gateway.app.demo.plant import Noise, Plant

T = TypeVar("T", bool, int)

BITS_PER_TABLE: Final = 32
# Unused addresses below these limits answer 0, as real devices do in the holes of their map.
REGISTERS_PER_TABLE: Final = 64
LEVEL_RAW_MAX: Final = 27648
SERIAL: Final = "EM340-07"


class Table(enum.Enum):
    """The four primary tables, MODBUS Application Protocol V1.1b3 §4.3."""

    COILS = "co"
    DISCRETE_INPUTS = "di"
    INPUT_REGISTERS = "ir"
    HOLDING_REGISTERS = "hr"


class Refused(Exception):
    """The device refuses; `code` is the exception code, MODBUS Application Protocol V1.1b3 §7."""

    ILLEGAL_DATA_ADDRESS: Final = 2
    ILLEGAL_DATA_VALUE: Final = 3
    UNIT_UNREACHABLE: Final = 11

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"exception {code}: {why}")
        self.code = code


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


Writer = Callable[[int], None]


class Unit:
    """One unit id: four tables, and what may be written."""

    def __init__(self, *, coils: Mapping[int, Writer], holding: Mapping[int, Writer]) -> None:
        self.bits: Final = {
            Table.COILS: [False] * BITS_PER_TABLE,
            Table.DISCRETE_INPUTS: [False] * BITS_PER_TABLE,
        }
        self.registers: Final = {
            Table.INPUT_REGISTERS: [0] * REGISTERS_PER_TABLE,
            Table.HOLDING_REGISTERS: [0] * REGISTERS_PER_TABLE,
        }
        self._writers: Final = {Table.COILS: dict(coils), Table.HOLDING_REGISTERS: dict(holding)}

    def read_bits(self, table: Table, address: int, count: int) -> list[bool]:
        """`count` bits from `address`; raises `Refused`."""
        return _cut(self.bits[table], table, address, count)

    def read_registers(self, table: Table, address: int, count: int) -> list[int]:
        """`count` registers from `address`; raises `Refused`."""
        return _cut(self.registers[table], table, address, count)

    def write(self, table: Table, address: int, values: Sequence[int]) -> None:
        """Write all or nothing; raises `Refused`."""
        writers = self._writers[table]
        for offset in range(len(values)):
            if address + offset not in writers:
                raise Refused(Refused.ILLEGAL_DATA_ADDRESS, f"{table.value}:{address + offset} is read-only")
        for offset, value in enumerate(values):
            writers[address + offset](value)

    def put(self, table: Table, address: int, *values: int) -> None:
        """Show registers from `address` on."""
        self.registers[table][address : address + len(values)] = values


def _cut(cells: list[T], table: Table, address: int, count: int) -> list[T]:
    if address + count > len(cells):
        raise Refused(Refused.ILLEGAL_DATA_ADDRESS, f"{table.value}:{address}..{address + count - 1}")
    return cells[address : address + count]


class PlantRegisters:
    """All three units over one plant. `refresh` copies the plant's state in, writes go out at once."""

    def __init__(self, plant: Plant) -> None:
        self._plant: Final = plant
        self._boiler: Final = Unit(coils={}, holding={0: self._write_setpoint})
        self._tank: Final = Unit(coils={0: self._write_pump}, holding={0: self._write_valve})
        self._meter: Final = Unit(coils={}, holding={})
        self._units: Final = {1: self._boiler, 2: self._tank, 3: self._meter}

    def unit(self, unit: int) -> Unit:
        """The unit with that id; raises `Refused` with gateway target failed to respond."""
        try:
            return self._units[unit]
        except KeyError:
            raise Refused(Refused.UNIT_UNREACHABLE, f"no unit {unit} here") from None

    def refresh(self, noise: Noise) -> None:
        """Measure the plant: copy its state into the registers, with the sensors' noise."""
        self._refresh_boiler(noise)
        self._refresh_tank(noise)
        self._refresh_meter(noise)

    def _refresh_boiler(self, noise: Noise) -> None:
        boiler, unit = self._plant.boiler, self._boiler
        unit.bits[Table.DISCRETE_INPUTS][0] = boiler.flame
        unit.put(
            Table.INPUT_REGISTERS,
            0,
            round(boiler.burner * 1000),
            int16((boiler.water_c + noise(0.06)) * 10),
            *float_abcd(max(boiler.pressure_bar + noise(0.004), 0.0)),
            boiler.state.value,
        )
        status = int(boiler.pump) | int(boiler.low_water) << 3
        unit.put(Table.HOLDING_REGISTERS, 0, int16(boiler.setpoint_c * 10), status)

    def _refresh_tank(self, noise: Noise) -> None:
        tank, unit = self._plant.tank, self._tank
        unit.bits[Table.COILS][0] = tank.pump_enabled
        unit.bits[Table.DISCRETE_INPUTS][:2] = [tank.pump_running, tank.high_level]
        level = min(max(tank.level + noise(0.0008), 0.0), 1.0)  # waves
        unit.put(
            Table.INPUT_REGISTERS,
            0,
            round(level * LEVEL_RAW_MAX),
            *float_cdab(max(tank.inflow_m3h + noise(0.04), 0.0)),
            *float_cdab(max(tank.outflow_m3h + noise(0.04), 0.0)),
        )
        unit.put(Table.INPUT_REGISTERS, 10, *bcd32(int(tank.pump_s / 3600)))
        unit.put(Table.HOLDING_REGISTERS, 0, round(tank.valve * 1000))

    def _refresh_meter(self, noise: Noise) -> None:
        meter, unit = self._plant.meter, self._meter
        values = [max(volt + noise(0.05), 0.0) for volt in meter.volts]
        values += [max(ampere + noise(0.02), 0.0) for ampere in meter.amps]
        values += [max(meter.p_kw + noise(0.008), 0.0), meter.q_kvar + noise(0.008)]
        unit.put(
            Table.HOLDING_REGISTERS,
            0,
            *(register for value in values for register in float_cdab(value)),
            int16(meter.cos_phi * 1000),
            round(meter.frequency_hz * 100),
        )
        unit.put(Table.HOLDING_REGISTERS, 20, *uint32_cdab(int(meter.energy_kwh * 100)))
        unit.put(Table.HOLDING_REGISTERS, 30, *_text(SERIAL))

    def _write_setpoint(self, raw: int) -> None:
        if not 300 <= raw <= 900:
            raise Refused(Refused.ILLEGAL_DATA_VALUE, f"set-point {raw}, expected 300..900")
        self._plant.boiler.setpoint_c = raw / 10
        self._boiler.put(Table.HOLDING_REGISTERS, 0, raw)

    def _write_pump(self, raw: int) -> None:
        self._plant.tank.pump_enabled = bool(raw)
        self._tank.bits[Table.COILS][0] = bool(raw)

    def _write_valve(self, raw: int) -> None:
        if not 0 <= raw <= 1000:
            raise Refused(Refused.ILLEGAL_DATA_VALUE, f"valve {raw}, expected 0..1000")
        self._plant.tank.valve = raw / 1000
        self._tank.put(Table.HOLDING_REGISTERS, 0, raw)
