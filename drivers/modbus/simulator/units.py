"""The units of a configuration as a simulator serves them: one data model for each link."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from drivers.modbus.config import ModbusDevice
from drivers.modbus.field import DataType, Field
from drivers.modbus.scale import Scale, ScalePower
from drivers.modbus.simulator.motion import Motion, motion_of, span_of
from drivers.modbus.simulator.registers import Item, Registers
from drivers.modbus.tag import ModbusTag
from drivers.modbus.wire.line import BROADCAST
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.config.site import DeviceSpec, TagSpec
from gateway.core.errors import ConfigError
from gateway.core.point import Point, Value, ValueType

_POWERS: Final = (-2, -1, 0, 1, 2, 3)  # of ten, as SunSpec devices have them
_PROBES: Final = (0.0, 17.0, 61.0, 113.0)  # seconds at which a motion is tried against its scale


class Units:
    """The data model of a link: its units, each with the name of its device."""

    def __init__(self, units: dict[int, Registers], names: dict[int, str]) -> None:
        self.units: Final = units
        self.names: Final = names

    # drivers.modbus.wire.model.DataModel

    def has_unit(self, unit: int) -> bool:
        """Whether there is a device with it."""
        return unit in self.units

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """As they are now."""
        return self.units[unit].read(table, start, count)

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """As they are now."""
        return self.units[unit].read(table, start, count)

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        """What is written stays."""
        return self.units[unit].write_bits(start, count, data)

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        """What is written stays."""
        return self.units[unit].write_registers(start, data)

    # By hand

    def hold(self, name: str, value: Value) -> None:
        """Have `device/tag` show a value. Raises ValueError, KeyError."""
        self._of(name).hold(name, value)

    def release(self, name: str) -> None:
        """Let `device/tag` move again. Raises KeyError."""
        self._of(name).release(name)

    def _of(self, name: str) -> Registers:
        return next(registers for registers in self.units.values() if name in registers.items)


def make_units(
    devices: Iterable[DeviceSpec],
    *,
    seed: int,
    start_ns: int,
    second: Callable[[], float],
    fills_holes: bool = False,
) -> Units:
    """The units of the devices of one link. Raises `ConfigError` for two devices with one unit.

    `start_ns`: wall clock at second 0. `fills_holes`: what lies between values reads as 0.
    """
    units: dict[int, Registers] = {}
    names: dict[int, str] = {}
    for device in devices:
        model = device.model
        assert isinstance(model, ModbusDevice)
        if model.unit == BROADCAST and all(_tag(tag).is_written for tag in device.tags.values()):
            continue  # it stands for all of them
        if model.unit in units:
            found = f"unit {model.unit} as {names[model.unit]} and as {device.name}"
            raise ConfigError(f"{device.name}: found {found}, expected one device for each unit of a link")
        units[model.unit] = Registers(
            _items(device, model, seed=seed, start_ns=start_ns),
            second=second,
            fills_holes=fills_holes,
            filled=_read_together(device),
        )
        names[model.unit] = device.name
    return Units(units, names)


def _items(device: DeviceSpec, model: ModbusDevice, *, seed: int, start_ns: int) -> list[Item]:
    watched = "" if model.watch is None else model.watch.tag
    powers: dict[tuple[Table, int], int] = {}
    wanted: list[tuple[Table, Point, Field]] = []
    for spec in device.tags.values():
        tag = _tag(spec)
        point, field = _ranged(spec.point, tag), tag.field()
        if isinstance(field.scale, ScalePower):
            key = (tag.at.table, field.scale.register)
            powers[key] = max(powers.get(key, _POWERS[0]), _power(point, field, seed=seed))
        wanted.append((tag.at.table, point, field))
    items: list[Item] = []
    shown: set[tuple[Table, int]] = set()
    for table, point, field in wanted:
        power = powers.get((table, field.start))
        if power is not None:  # the tag is itself a scale factor
            shown.add((table, field.start))
            items.append(Item(point, table, field, _constant(power)))
            continue
        if isinstance(field.scale, ScalePower):
            field = _with_power(field, powers[table, field.scale.register])
        is_watched = point.tag == watched
        motion = motion_of(point, field, seed=seed, start_ns=start_ns, is_watched=is_watched)
        items.append(Item(point, table, field, motion))
    for table, register in powers.keys() - shown:
        items.append(_factor(device.name, table, register, powers[table, register]))
    return items


def _read_together(device: DeviceSpec) -> Iterable[tuple[Table, int, int]]:
    """A value and its scale factor are read in one request: a device has what lies between them."""
    for spec in device.tags.values():
        tag = _tag(spec)
        field = tag.field()
        if isinstance(field.scale, ScalePower):
            yield tag.at.table, field.first, field.first + field.extent


def _tag(spec: TagSpec) -> ModbusTag:
    assert isinstance(spec.model, ModbusTag)
    return spec.model


def _ranged(point: Point, tag: ModbusTag) -> Point:
    """A set-point without a range has one all the same: what may be written."""
    write = tag.write
    if write is None:
        return point
    low = write.min if point.low is None else point.low
    high = write.max if point.high is None else point.high
    return msgspec.structs.replace(point, low=low, high=high)


def _constant(value: Value) -> Motion:
    return lambda _second: value


def _with_power(field: Field, power: int) -> Field:
    return msgspec.structs.replace(field, scale=Scale.from_factor(float(f"1e{power}")))


def _power(point: Point, field: Field, *, seed: int) -> int:
    """The least power of ten with which the value moves as it would without one."""
    free = msgspec.structs.replace(field, scale=Scale.from_factor(1e9))
    motion = motion_of(point, free, seed=seed, start_ns=0)
    values = [value for probe in _PROBES if isinstance(value := motion(probe), int | float)]
    for power in _POWERS:
        low, high = span_of(_with_power(field, power))
        if all(low <= value <= high for value in values):
            return power
    return _POWERS[-1]


def _factor(device: str, table: Table, register: int, power: int) -> Item:
    point = Point(device=device, tag=f"power of ten at {register}", type=ValueType.INT)
    return Item(point, table, Field(type=DataType.INT16, start=register), _constant(power))
