"""Home Assistant: its Modbus integration, a `configuration.yaml` with `modbus:` or the list alone.

Read for it: source/_integrations/modbus.markdown of home-assistant/home-assistant.io. A hub becomes a link,
each slave on it a device, an entity one tag or several: a switch with its own state, a climate with target
and mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from drivers.modbus.importing.basket import TABLES, Basket, at, scale_of, serial_of
from drivers.modbus.importing.fields import Fields
from drivers.modbus.wire.pdu import Table
from gateway.config.draft import Draft, DraftDevice
from gateway.config.reader import read as read_yaml
from gateway.config.tree import Mapping, Node, Sequence
from gateway.config.values import duration_text
from gateway.core.errors import ConfigError

_TYPES: Final = {
    "int": "int16", "integer": "int16", "uint": "uint16", "float": "float32",
    **{name: name for name in (
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
        "float64", "string",
    )},
}  # fmt: skip
_BY_COUNT: Final = {
    "int": {1: "int16", 2: "int32", 4: "int64"}, "uint": {1: "uint16", 2: "uint32", 4: "uint64"},
    "float": {1: "float16", 2: "float32", 4: "float64"},
}  # fmt: skip
_STRUCTS: Final = {
    "b": "int8", "B": "uint8", "h": "int16", "H": "uint16", "i": "int32", "I": "uint32", "l": "int32",
    "L": "uint32", "q": "int64", "Q": "uint64", "e": "float16", "f": "float32", "d": "float64",
}  # fmt: skip
_ORDERS: Final = {"": "ABCD", "none": "ABCD", "word": "CDAB", "byte": "BADC", "word_byte": "DCBA"}
_REGISTERS: Final = {"8": 1, "6": 1, "2": 2, "4": 4}  # by the last digit of a type: int8, int16, int32, int64
_INPUTS: Final = TABLES | {
    "discrete_input": Table.DISCRETE_INPUTS, "coils": Table.COILS, "holdings": Table.HOLDING_REGISTERS,
}  # fmt: skip
_SHOWN: Final = (
    "unique_id", "device_class", "state_class", "precision", "icon", "lazy_error_count", "temp_step",
    "temperature_unit", "state_opening", "state_closing", "count",
)  # fmt: skip
_SLAVE: Final = ("slave", "device_address", "unit")
_TARGET: Final = ("target_temp_register", "max_temp", "min_temp", "target_temp_write_registers")


def read(data: bytes, file: str) -> Draft:
    """The draft of one YAML file. Raises `ConfigError` for what is no YAML."""
    basket = Basket("the Home Assistant configuration", file)
    node, faults = read_yaml(data, file)
    for fault in faults:
        basket.remark(fault.place, f"found {fault.found}, which is read as it stands or left out")
    if node is None:
        raise ConfigError("\n".join(map(str, faults)) or f"{file}:1:1: found nothing, expected modbus:")
    hubs: Node | None = node
    if isinstance(node, Mapping) and "modbus" in node.items:
        hubs = node.items["modbus"]
    for hub in hubs.items if isinstance(hubs, Sequence) else [hubs]:
        if isinstance(hub, Mapping):
            _hub(Fields(hub, basket, "the hub"), basket)
    return basket.close()


def _hub(hub: Fields, basket: Basket) -> None:
    name = hub.text("name", default="modbus")
    link = basket.link(name, _link(hub))
    for platform, read_entity in _PLATFORMS.items():
        for entity in hub.lists(platform):
            unit = entity.whole(*_SLAVE)
            if unit is None and any(map(entity.has, _SLAVE)):  # said already; the usual unit would be a guess
                basket.remark(entity.where, f"'{entity.text('name')}' is left out: its slave is not known")
                continue
            device = basket.device(
                name if unit in {None, 0, 1} else f"{name}-{unit}", link=link, unit=unit or 0
            )
            _Entity(entity, device, basket).carry(read_entity)
    hub.ignore(
        "close_comm_on_error",
        "retries",
        "retry_on_empty",
        "delay",
        "method",
        "baudrate",
        "bytesize",
        "parity",
    )
    hub.ignore("stopbits", "host", "port")
    hub.close()


def _link(hub: Fields) -> dict[str, Any]:
    kind = hub.text("type", default="tcp")
    link: dict[str, Any] = {"driver": "modbus"}
    if kind == "serial":
        link["transport"] = "ascii" if hub.text("method") == "ascii" else "rtu"
        link["port"] = hub.text("port")
        link["serial"] = serial_of(
            *(hub.value(key) for key in ("baudrate", "bytesize", "parity", "stopbits"))
        )
    else:
        link |= {"udp": {"transport": "udp"}, "rtuovertcp": {"transport": "rtu_over_tcp"}}.get(kind, {})
        link["host"] = f"{hub.text('host')}:{hub.text('port', default='502')}"
    if timeout_s := hub.number("timeout"):
        link["timeout"] = duration_text(int(min(max(timeout_s, 0.01), 60) * 1000) * 10**6)
    if pause_ms := hub.whole("message_wait_milliseconds"):
        link["gap"] = duration_text(pause_ms * 10**6)
    return link


class _Entity:
    """One entity on its way to tags."""

    def __init__(self, fields: Fields, device: DraftDevice, basket: Basket) -> None:
        self.fields = fields
        self.device = device
        self.basket = basket
        self.name = fields.text("name", default="entity")
        every_s = fields.number("scan_interval")
        self.scan = basket.scan(int((every_s or 15) * 10**9)) if every_s != 0 else None

    def carry(self, read_entity: Callable[[_Entity], None]) -> None:
        """Carry it over; what it says and nobody read gets a remark."""
        known = len(self.device.tags)
        read_entity(self)
        self.fields.ignore("address", *_SHOWN)
        if len(self.device.tags) > known:
            self.fields.close()

    def table(self, key: str, otherwise: str) -> Table | None:
        """The table that a key names."""
        name = self.fields.text(key, default=otherwise)
        table = _INPUTS.get(name)
        if table is None:
            self.basket.remark(
                self.fields.place(key), f"'{self.name}' is left out: no table is called '{name}'"
            )
        return table

    def add(self, suffix: str, table: Table | None, address: int | None, keys: dict[str, Any]) -> None:
        """One tag of it."""
        if table is None:
            return
        try:
            where = at(table, -1 if address is None else address)
        except ValueError as error:
            self.basket.remark(self.fields.where, f"'{self.name}' is left out: {error}")
            return
        given = {"at": where, **keys, "scan": self.scan}
        self.basket.tag(self.device, self.name + suffix, given, self.fields.where)

    def coding(self) -> dict[str, Any] | None:
        """Type, order and scale of a value in registers."""
        fields = self.fields
        kind, count = fields.text("data_type", default="int16"), fields.whole("count")
        structure = fields.text("structure")
        ours = _BY_COUNT.get(kind, {}).get(count or 0) or _TYPES.get(kind)
        if kind == "custom":
            ours = _STRUCTS.get(structure.lstrip("<>!@="))
        if ours is None:
            what = f"structure '{structure}'" if kind == "custom" else f"data_type '{kind}'"
            self.basket.remark(
                fields.place("data_type"), f"'{self.name}' is left out: {what} has no equal here"
            )
            return None
        swap = fields.text("swap")
        order = _ORDERS.get(swap)
        if structure.startswith("<"):
            order = "DCBA"
        if order is None:
            self.basket.remark(
                fields.place("swap"), f"'{self.name}': swap '{swap}' is not known; none is taken"
            )
        if ours == "string":
            return {"type": ours, "length": 2 * (count or 1)}
        nan = fields.number("nan_value")
        return {
            "type": ours,
            "order": order if order not in {None, "ABCD"} else None,
            "scale": scale_of(fields.number("scale") or 1, fields.number("offset") or 0),
            "unit": fields.text("unit_of_measurement") or None,
            "invalid": [nan]
            if nan is not None and not ours.startswith("float")
            else None,  # NaN is none anyway
        }


def _sensor(entity: _Entity) -> None:
    keys = entity.coding()
    if keys is None:
        return
    further = entity.fields.whole("slave_count", "virtual_count")
    if further:
        registers = _REGISTERS.get(keys["type"][-1], 1)
        keys["repeat"] = {"count": further + 1, "stride": registers, "first": 0}
    entity.add("", entity.table("input_type", "holding"), entity.fields.whole("address"), keys)


def _binary_sensor(entity: _Entity) -> None:
    table = entity.table("input_type", "coil")
    keys: dict[str, Any] = {"bit": 0} if table is not None and not table.has_bits else {}
    further = entity.fields.whole("slave_count", "virtual_count")
    if further:
        keys["repeat"] = {
            "count": further + 1,
            "stride": 1,
            "first": 0,
            **({"over": "bit"} if "bit" in keys else {}),
        }
    entity.add("", table, entity.fields.whole("address"), keys)


def _switch(entity: _Entity) -> None:
    fields = entity.fields
    table, address = entity.table("write_type", "holding"), fields.whole("address")
    on, off = fields.whole("command_on"), fields.whole("command_off")
    verify = fields.inner("verify")
    read_table, read_address = table, address
    if verify is not None:
        read_table = _INPUTS.get(verify.text("input_type"), table)
        own = verify.whole("address")
        read_address = address if own is None else own
        delay = verify.number("delay")
        if delay:
            entity.basket.remark(
                verify.place("delay"),
                f"'{entity.name}': the delay before its state is read is not carried over",
            )
        states = verify.whole("state_on"), verify.whole("state_off")
        if (read_table, read_address) != (table, address):
            keys = _states(
                read_table,
                *(one if one is not None else two for one, two in zip(states, (on, off), strict=True)),
            )
            entity.add(" state", read_table, read_address, keys)
        verify.close()
    write = (
        {"verify": "readback"}
        if fields.has("verify") and (read_table, read_address) == (table, address)
        else {}
    )
    entity.add("", table, address, {**_states(table, on, off), "write": write})


def _states(table: Table | None, on: int | None, off: int | None) -> dict[str, Any]:
    if table is None or table.has_bits:
        return {}
    return {"type": "uint16", "enum": {off or 0: "off", 1 if on is None else on: "on"}}


def _climate(entity: _Entity) -> None:
    fields = entity.fields
    keys = entity.coding()
    if keys is None:
        return
    keys["unit"] = keys["unit"] or ("°F" if fields.text("temperature_unit") == "F" else "°C")
    entity.add(" temperature", entity.table("input_type", "holding"), fields.whole("address"), keys)
    low, high = fields.number("min_temp"), fields.number("max_temp")
    write = {"min": 5 if low is None else low, "max": 35 if high is None else high}
    target = fields.whole("target_temp_register")
    fields.ignore(*_TARGET)
    if target is not None:
        entity.add(" target", Table.HOLDING_REGISTERS, target, {**keys, "write": write})
    mode = fields.inner("hvac_mode_register")
    values = mode.inner("values") if mode is not None else None
    if mode is not None and values is not None:
        names = {values.whole(str(key)): str(key) for key in values.node.items}
        enum = {number: name for number, name in names.items() if number is not None}
        entity.add(
            " mode",
            Table.HOLDING_REGISTERS,
            mode.whole("address"),
            {"type": "uint16", "enum": enum, "write": {}},
        )
        mode.close()
    onoff = fields.whole("hvac_onoff_register")
    if onoff is not None:
        entity.add(
            " on",
            Table.HOLDING_REGISTERS,
            onoff,
            {"type": "uint16", "enum": {0: "off", 1: "on"}, "write": {}},
        )


def _cover(entity: _Entity) -> None:
    fields = entity.fields
    table, address = entity.table("input_type", "holding"), fields.whole("address", "register")
    if (coil := fields.whole("coil")) is not None:
        table, address = Table.COILS, coil
    states = {
        _otherwise(fields.whole(f"state_{state}"), usual): state
        for state, usual in (("closed", 0), ("open", 1), ("opening", 2), ("closing", 3))
    }
    status = fields.whole("status_register")
    status_table = entity.table("status_register_type", "holding")
    keys: dict[str, Any] = {} if table is None or table.has_bits else {"type": "uint16", "enum": states}
    entity.add("", table, address, {**keys, "write": {}})
    if status is not None:
        entity.add(" status", status_table, status, {"type": "uint16", "enum": states})


def _otherwise(value: int | None, usual: int) -> int:
    return usual if value is None else value


_PLATFORMS: Final[dict[str, Callable[[_Entity], None]]] = {
    "sensors": _sensor, "binary_sensors": _binary_sensor, "switches": _switch, "lights": _switch,
    "fans": _switch, "climates": _climate, "covers": _cover,
}  # fmt: skip
