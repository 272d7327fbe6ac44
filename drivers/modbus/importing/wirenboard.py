"""wb-mqtt-serial: its configuration (ports, devices, channels) and its device templates, JSON with comments.

Read for it: README.md and templates/*.json of wirenboard/wb-mqtt-serial. A template becomes a device map, a
port a link, a channel a tag.
"""

from __future__ import annotations

import re
from typing import Any, Final

from drivers.modbus.importing.basket import TABLES, Basket, at, scale_of, serial_of
from drivers.modbus.importing.fields import Fields, number_of
from drivers.modbus.wire.pdu import Table
from gateway.config.draft import Draft, DraftDevice
from gateway.config.jsonc import read_json
from gateway.config.tree import Mapping
from gateway.config.values import duration_text
from gateway.core.errors import ConfigError

_TYPES: Final = {
    "u8": "uint8", "s8": "int8", "u16": "uint16", "s16": "int16", "u32": "uint32", "s32": "int32",
    "u64": "uint64", "s64": "int64", "float": "float32", "double": "float64", "string": "string",
}  # fmt: skip
_UNITS: Final = {
    "temperature": "°C",
    "voltage": "V",
    "power": "W",
    "power_consumption": "kWh",
    "rel_humidity": "%",
}
_SINGLE: Final = {"holding_single": "single", "holding_multi": "multiple"}
_PART: Final = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+):([0-9]+):([0-9]+)")
_SHOWN: Final = (
    "group", "groups", "title", "order", "translations", "hidden", "round_to", "description",
    "sporadic", "semi_sporadic", "condition", "id", "enum_titles", "read_rate_limit_ms",
)  # fmt: skip
_DEVICE_KEYS: Final = (
    "name", "id", "enabled", "protocol", "device_type", "slave_id", "password", "access_level",
    "response_timeout_ms", "frame_timeout_ms", "guard_interval_us", "device_timeout_ms",
    "device_max_fail_cycles", "min_read_registers", "max_bit_hole", "groups", "translations",
    "poll_interval", "max_write_fail_time_s", "min_request_interval_ms", "parameters_form",
    "disabled_channels",
)  # fmt: skip


def read(data: bytes, file: str) -> Draft:
    """The draft of one file. Raises `ConfigError` for what is no JSON, such as a Jinja template."""
    basket = Basket("the wb-mqtt-serial file", file)
    node = read_json(data, file)
    if not isinstance(node, Mapping):
        raise ConfigError(f"{node.place}: found no mapping, expected 'ports', or a template with 'device'")
    root = Fields(node, basket, "the file")
    if root.has("device"):
        _template(root, basket)
    for port in root.lists("ports"):
        _port(port, basket)
    root.ignore("debug", "max_unchanged_interval", "rate_limit", "group", "hw", "deprecated", "$schema")
    root.close()
    return basket.close()


def _template(root: Fields, basket: Basket) -> None:
    inner = root.inner("device")
    if inner is None:
        return
    title = root.text("title") or root.text("device_type")
    words = inner.inner("translations")
    english = words.inner("en") if words is not None else None
    if english is not None:
        title = english.text(title, default=title)
    template = basket.template(inner.text("id") or root.text("device_type"), comment=title)
    root.ignore("device_type")
    _device(inner, template, basket)


def _port(port: Fields, basket: Basket) -> None:
    if not port.flag("enabled", default=True):
        basket.remark(port.where, "a port that is not enabled is left out")
        return
    kind = port.text("port_type", default="serial")
    host = f"{port.text('address')}:{port.text('port')}"
    settings = [port.value(key) for key in ("baud_rate", "data_bits", "parity", "stop_bits")]
    link: dict[str, Any] = {"driver": "modbus"}
    if kind == "serial":
        link |= {"transport": "rtu", "port": port.text("path"), "serial": serial_of(*settings)}
    elif kind == "modbus tcp":
        link["host"] = host
    else:
        link |= {"transport": "rtu_over_tcp", "host": host}
    timeout_ms = port.whole("response_timeout_ms")
    if timeout_ms and timeout_ms > 0:
        link["timeout"] = duration_text(timeout_ms * 10**6)
    name = basket.link(port.text("path").rpartition("/")[2] or host, link)
    for fields in port.lists("devices"):
        _port_device(fields, name, basket)
    port.ignore("guard_interval_us", "connection_timeout_ms", "connection_max_fail_cycles", "poll_interval")
    port.close()


def _port_device(fields: Fields, link: str, basket: Basket) -> None:
    wanted = fields.text("id") or fields.text("name") or fields.text("device_type")
    unit = number_of(fields.value("slave_id"))
    protocol = fields.text("protocol", default="modbus")
    if not fields.flag("enabled", default=True) or not protocol.startswith("modbus"):
        why = "is not enabled" if protocol.startswith("modbus") else f"speaks {protocol}"
        basket.remark(fields.where, f"the device '{wanted}' {why} and is left out")
        return
    if unit is None or not 0 <= unit <= 255:
        basket.remark(fields.where, f"the device '{wanted}' is left out: it has no slave_id from 0 to 255")
        return
    if not fields.has("channels"):
        kind = fields.text("device_type")
        basket.remark(
            fields.where,
            f"'{wanted}' is left out: its channels are in the template '{kind}': import that too",
        )
        return
    if fields.has("device_type"):
        kind = fields.text("device_type")
        basket.remark(fields.where, f"'{wanted}': what the template '{kind}' says of it is not in this file")
    _device(fields, basket.device(wanted or f"unit-{int(unit)}", link=link, unit=int(unit)), basket)


def _device(fields: Fields, device: DraftDevice, basket: Basket) -> None:
    """Keys and channels of a device or template."""
    for theirs, ours, most in (
        ("max_reg_hole", "max_hole", 124),
        ("max_read_registers", "max_registers", 125),
    ):
        number = fields.whole(theirs)
        if number is not None and (number or ours == "max_hole"):
            device.keys[ours] = min(max(number, 0), most)
    for channel in fields.lists("channels"):
        _channel(channel, device, basket)
    for key, what in (("setup", "values written at the start"), ("parameters", "settings")):
        node = fields.node_of(key)
        if node is not None:
            basket.remark(
                node.place, f"{key}: {what} are not carried over: a configuration here only reads and obeys"
            )
    fields.ignore(*_DEVICE_KEYS)
    fields.close()


def _channel(channel: Fields, device: DraftDevice, basket: Basket) -> None:
    name = channel.text("name") or channel.text("id")
    if not channel.flag("enabled", default=True):
        basket.remark(channel.where, f"'{name}' is left out: it is not enabled")
        return
    register = channel.text("reg_type", default="holding")
    table = TABLES.get(register.partition("_")[0] if register in _SINGLE else register)
    if table is None or channel.has("consists_of") or not channel.has("address"):
        what = f"reg_type '{register}'" if table is None else "no address of its own"
        basket.remark(channel.where, f"'{name}' is left out: {what}")
        return
    keys = _coding(channel, name, table, basket)
    if keys is None:
        return
    if table.is_writable and not channel.flag("readonly", default=False):
        write = {key: value for key in ("min", "max") if (value := channel.number(key)) is not None}
        keys["write"] = write | ({"function": _SINGLE[register]} if register in _SINGLE else {})
        if keys.get("bit") is not None or "bits" in keys or keys.get("type") in {"uint8", "int8"}:
            device.keys["bit_write"] = "rmw"
    every_ms = channel.whole("read_period_ms")
    if every_ms and "link" in device.keys:  # a map names no scan classes
        keys["scan"] = basket.scan(every_ms * 10**6)
    channel.ignore("min", "max", "type", "readonly", *_SHOWN)
    if basket.tag(device, name, keys, channel.where) is not None:
        channel.close()


def _coding(channel: Fields, name: str, table: Table, basket: Basket) -> dict[str, Any] | None:
    address = channel.value("address")
    part = _PART.fullmatch(address) if isinstance(address, str) else None
    number = number_of(part[1] if part else address)
    try:
        keys: dict[str, Any] = {"at": at(table, int(number) if number is not None else -1)}
    except ValueError as error:
        basket.remark(channel.place("address"), f"'{name}' is left out: {error}")
        return None
    is_switch = channel.text("type") in {"switch", "wo-switch", "pushbutton"}
    on, off = channel.number("on_value"), channel.number("off_value")
    kind = channel.text("format", default="u16")
    if table.has_bits:
        channel.ignore("format", "scale", "offset")
        return keys
    if part is not None and int(part[3]) == 1:
        channel.ignore("format")
        return keys | {"type": "bool", "bit": int(part[2])}
    ours = _TYPES.get(kind)
    if ours is None:
        basket.remark(channel.place("format"), f"'{name}' is left out: the format '{kind}' has no equal here")
        return None
    keys["type"] = ours
    if part is not None:
        keys["bits"] = f"{part[2]}-{int(part[2]) + int(part[3]) - 1}"
    if ours == "string":
        return keys | {"length": channel.whole("string_data_size") or 1, "encoding": "utf-16"}
    if ours not in {"uint8", "int8"} and (order := _order(channel)) != "ABCD":
        keys["order"] = order
    keys["scale"] = scale_of(channel.number("scale") or 1, channel.number("offset") or 0)
    invalid = [channel.number(key) for key in ("error_value", "unsupported_value")]
    keys["invalid"] = [one for one in invalid if one is not None] or None
    keys["unit"] = channel.text("units") or _UNITS.get(channel.text("type"))
    if is_switch:
        keys["enum"] = {int(off or 0): "off", int(on if on is not None else 1): "on"}
    elif (listed := channel.value("enum")) is not None:
        titles = channel.value("enum_titles")
        if isinstance(listed, list) and isinstance(titles, list) and len(listed) == len(titles):
            keys["enum"] = {number: str(title) for number, title in zip(listed, titles, strict=True)}
    return keys


def _order(channel: Fields) -> str:
    return "CDAB" if channel.text("word_order") == "little_endian" else "ABCD"
