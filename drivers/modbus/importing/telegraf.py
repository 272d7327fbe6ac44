"""Telegraf: `[[inputs.modbus]]` with configuration_type register, request or metric.

Read for it: README.md, sample_register.conf, sample_request.conf and sample_metric.conf of
influxdata/telegraf, plugins/inputs/modbus. A slave becomes a device, a field a tag, `interval` a scan class,
tags become attributes.
"""

from __future__ import annotations

from typing import Any, Final

from drivers.modbus.importing.basket import TABLES, Basket, at, factor, serial_of
from drivers.modbus.importing.fields import Fields
from drivers.modbus.wire.pdu import Table
from gateway.config.draft import Draft, DraftDevice
from gateway.config.toml_tree import read_toml
from gateway.config.tree import Scalar
from gateway.config.values import NANOSECONDS

_ORDERS: Final = {
    "": "ABCD", "AB": "ABCD", "BA": "BADC", "ABCD": "ABCD", "DCBA": "DCBA", "BADC": "BADC", "CDAB": "CDAB",
}  # fmt: skip
_TYPES: Final = {
    "INT8L": ("int8", "low"), "INT8H": ("int8", "high"), "UINT8L": ("uint8", "low"),
    "UINT8H": ("uint8", "high"), "INT16": ("int16", None), "UINT16": ("uint16", None),
    "INT32": ("int32", None), "UINT32": ("uint32", None),
    "INT64": ("int64", None), "UINT64": ("uint64", None), "FLOAT16": ("float16", None),
    "FLOAT32": ("float32", None), "FLOAT64": ("float64", None), "FLOAT16-IEEE": ("float16", None),
    "FLOAT32-IEEE": ("float32", None), "FLOAT64-IEEE": ("float64", None),
}  # fmt: skip
_LISTS: Final = {
    "discrete_inputs": Table.DISCRETE_INPUTS,
    "coils": Table.COILS,
    "holding_registers": Table.HOLDING_REGISTERS,
    "input_registers": Table.INPUT_REGISTERS,
}
_MODES: Final = {
    "": "", "auto": "", "tcp": "tcp", "rtuovertcp": "rtu_over_tcp", "asciiovertcp": "ascii_over_tcp",
    "rtu": "rtu", "ascii": "ascii",
}  # fmt: skip


def read(data: bytes, file: str) -> Draft:
    """The draft of one TOML file. Raises `ConfigError` for what is no TOML."""
    basket = Basket("the Telegraf configuration", file)
    root = Fields(read_toml(data, file), basket, "the file")
    inputs = root.inner("inputs")
    agent = root.inner("agent")
    interval = agent.text("interval") if agent is not None else ""
    for name in ("agent", "outputs", "global_tags", "processors", "aggregators"):
        root.ignore(name)
    if inputs is not None:
        for plugin in inputs.lists("modbus"):
            _plugin(plugin, basket, interval)
        inputs.close()
    root.close()
    return basket.close()


class _Plugin:
    """One `[[inputs.modbus]]`: its link and its devices."""

    def __init__(self, fields: Fields, basket: Basket, interval: str) -> None:
        self.fields = fields
        self.basket = basket
        self.name = fields.text("name", "alias", default="modbus")
        self.link = basket.link(self.name, _link(fields, basket))
        every_ns = _duration_ns(fields.text("interval") or interval)
        self.scan = basket.scan(every_ns) if every_ns else None

    def device(self, unit: int, holder: Fields) -> DraftDevice:
        """The device of a slave; its attributes are the tags of the plugin or request."""
        known = len(self.basket.draft.devices)
        device = self.basket.device(self.name, link=self.link, unit=unit)
        tags = holder.inner("tags")
        if tags is not None:
            attributes = {key: tags.text(key) for key in tags.node.items if isinstance(key, str)}
            if len(self.basket.draft.devices) > known:
                device.keys["attributes"] = attributes
            elif device.keys.get("attributes", {}) != attributes:
                self.basket.remark(tags.where, f"other tags for the same slave {unit} are not carried over")
        return device

    def add(self, device: DraftDevice, field: Fields, table: Table, keys: dict[str, Any]) -> None:
        """One field as a tag."""
        name = field.text("name")
        field.ignore("output", "data_type")
        if not name:
            self.basket.remark(field.where, "a field without a name is left out")
            return
        if name in device.tags and (measurement := field.text("measurement")):
            name = f"{measurement}-{name}"
        address = keys.pop("address")
        if address is None:
            self.basket.remark(field.where, f"'{name}' is left out: it has no address")
            return
        try:
            where = at(table, address)
        except ValueError as error:
            self.basket.remark(field.where, f"'{name}' is left out: {error}")
            return
        field.ignore("measurement")
        self.basket.tag(device, name, {"at": where, **keys, "scan": self.scan}, field.where)
        field.close()


def _plugin(fields: Fields, basket: Basket, interval: str) -> None:
    plugin = _Plugin(fields, basket, interval)
    kind = fields.text("configuration_type", default="register")
    unit = fields.whole("slave_id")
    if kind == "register" and unit is None:
        basket.remark(fields.where, f"'{plugin.name}' is left out: it has no slave_id")
        return
    if kind == "register":
        device = plugin.device(unit or 0, fields)
        for key, table in _LISTS.items():
            for field in fields.lists(key):
                _register_field(plugin, device, field, table)
    elif kind in {"request", "metric"}:
        for holder in fields.lists(kind):
            _holder(plugin, holder, unit)
    else:
        basket.remark(fields.place("configuration_type"), f"configuration_type '{kind}' is not known")
    fields.ignore("debug_connection", "busy_retries", "busy_retries_wait", "exclude_register_type_tag")
    fields.close()


def _register_field(plugin: _Plugin, device: DraftDevice, field: Fields, table: Table) -> None:
    node = field.node_of("address")
    listed = [one.value for one in getattr(node, "items", ()) if isinstance(one, Scalar)] if node else []
    addresses = [one for one in listed if isinstance(one, int)]
    if not addresses or addresses != list(range(addresses[0], addresses[0] + len(addresses))):
        plugin.basket.remark(
            field.where, f"'{field.text('name')}' is left out: its registers do not follow each other"
        )
        return
    keys: dict[str, Any] = {"address": addresses[0]}
    if not table.has_bits:
        kind = field.text("data_type").upper()
        if kind in {
            "FIXED",
            "UFIXED",
            "FLOAT32",
        }:  # whole numbers of as many registers as there are addresses
            kind = f"{'' if kind == 'FIXED' else 'U'}INT{16 * len(addresses)}"
        keys |= _coding(plugin.basket, field, kind, field.text("byte_order"))
        if kind == "STRING":
            keys["length"] = 2 * len(addresses)
        if kind == "BIT":
            keys["bit"] = field.whole("bit")
    plugin.add(device, field, table, keys)


def _holder(plugin: _Plugin, holder: Fields, unit: int | None) -> None:
    """One request or metric."""
    own = holder.whole("slave_id")
    slave = unit if own is None else own
    if slave is None:
        plugin.basket.remark(holder.where, "a request without slave_id is left out")
        return
    device = plugin.device(slave, holder)
    order, register = holder.text("byte_order"), holder.text("register")
    measurement = holder.text("measurement")
    for field in holder.lists("fields"):
        if field.flag("omit", default=False):
            continue
        name = field.text("register", default=register or "holding")
        table = TABLES.get(name)
        if table is None:
            plugin.basket.remark(
                field.where, f"'{field.text('name')}' is left out: no table is called '{name}'"
            )
            continue
        if measurement and "measurement" not in field.node.items:
            field.node.put("measurement", holder.place("measurement"), Scalar(measurement, holder.where))
        keys: dict[str, Any] = {"address": field.whole("address")}
        if not table.has_bits:
            kind = field.text("type").upper()
            keys |= _coding(plugin.basket, field, kind, order)
            if kind == "STRING":
                keys["length"] = 2 * (field.whole("length") or 1)
            if kind == "BIT":
                keys["bit"] = field.whole("bit")
        field.ignore("type", "scale")
        plugin.add(device, field, table, keys)
    holder.ignore("optimization", "optimization_max_register_fill")
    holder.close()


def _coding(basket: Basket, field: Fields, kind: str, order: str) -> dict[str, Any]:
    ours = _ORDERS.get(order.upper())
    if ours is None:
        basket.remark(
            field.where, f"'{field.text('name')}': the byte order '{order}' is not known; ABCD is taken"
        )
        ours = "ABCD"
    keys: dict[str, Any] = {}
    if kind == "STRING":
        keys["type"] = "string"
    elif kind == "BIT":
        keys["type"] = "bool"
    elif kind in _TYPES:
        keys["type"], half = _TYPES[kind]
        keys["byte"] = half if half == "high" else None
        number = field.number("scale")
        keys["scale"] = factor(number) if number else None
    else:
        keys["type"] = kind or None
    return keys | ({"order": ours} if ours != "ABCD" else {})


def _link(fields: Fields, basket: Basket) -> dict[str, Any]:
    controller = fields.text("controller")
    mode = _MODES.get(fields.text("transmission_mode").lower())
    if mode is None:
        basket.remark(
            fields.place("transmission_mode"), "transmission_mode is not known; the usual one is taken"
        )
    scheme, _, rest = controller.partition("://")
    link: dict[str, Any] = {"driver": "modbus"}
    if scheme in {"tcp", "udp"}:
        transport = mode or scheme
        link |= {"transport": transport} if transport != "tcp" else {}
        link["host"] = rest
    else:
        link["transport"] = mode or "rtu"
        link["port"] = rest if scheme == "file" else controller
        keys = ("baud_rate", "data_bits", "parity", "stop_bits")
        link["serial"] = serial_of(*(fields.value(key) for key in keys))
        rs485 = fields.node_of("rs485")
        if rs485 is not None:
            basket.remark(rs485.place, "rs485 is not carried over: see rs485 in docs/configuration.md")
    fields.ignore("baud_rate", "data_bits", "parity", "stop_bits")
    timeout_ns = _duration_ns(fields.text("timeout"))
    if timeout_ns:
        link["timeout"] = fields.text("timeout")
    workarounds = fields.inner("workarounds")
    if workarounds is not None:
        pause = workarounds.text("pause_between_requests")
        if _duration_ns(pause):
            link["gap"] = pause
        if workarounds.flag("one_request_per_field", default=False):
            link["max_hole"] = 0
        workarounds.close()
    return link


def _duration_ns(text: str) -> int:
    """Of Go's notation what has one unit; 0 for nothing and anything else."""
    for unit in sorted(NANOSECONDS, key=len, reverse=True):
        number = text.removesuffix(unit)
        if number != text and number.isdecimal():
            return int(number) * NANOSECONDS[unit]
    return 0
