"""ThingsBoard IoT Gateway: the Modbus connector's JSON, `master: slaves` of now, `server: devices` of old.

Read for it: thingsboard_gateway/config/modbus.json of thingsboard/thingsboard-gateway, and the documentation
of the connector (thingsboard.io/docs/iot-gateway/config/modbus) in both versions. What is written (attribute
updates, RPC) makes the tag at that address writable.
"""

from __future__ import annotations

from typing import Any, Final

from drivers.modbus.importing.basket import Basket, at, factor, serial_of
from drivers.modbus.importing.fields import Fields
from drivers.modbus.wire.pdu import Table
from gateway.config.draft import Draft, DraftDevice, DraftTag
from gateway.config.jsonc import read_json
from gateway.config.tree import Mapping, Scalar
from gateway.config.values import duration_text
from gateway.core.errors import ConfigError

_TABLES: Final = {
    1: Table.COILS, 2: Table.DISCRETE_INPUTS, 3: Table.HOLDING_REGISTERS, 4: Table.INPUT_REGISTERS,
    5: Table.COILS, 6: Table.HOLDING_REGISTERS, 15: Table.COILS, 16: Table.HOLDING_REGISTERS,
}  # fmt: skip
_READ: Final = frozenset({1, 2, 3, 4})
_TYPES: Final = {
    **{f"{bits}int": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"{bits}uint": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"{bits}float": f"float{bits}" for bits in (16, 32, 64)},
    "int": "int16", "integer": "int32", "long": "int64", "float": "float32", "double": "float64",
    "string": "string", "bits": "bits", "bit": "bits",
}  # fmt: skip
_BY_COUNT: Final = {"int": {1: "int16", 2: "int32", 4: "int64"}}
_ORDERS: Final = {
    ("BIG", "BIG"): "ABCD", ("BIG", "LITTLE"): "CDAB", ("LITTLE", "BIG"): "BADC",
    ("LITTLE", "LITTLE"): "DCBA",
}  # fmt: skip
_OURS: Final = (
    "retries", "retryOnEmpty", "retryOnInvalid", "connectAttemptTimeMs", "connectAttemptCount",
    "waitAfterFailedAttemptsMs", "sendDataOnlyOnChange", "sendDataToThingsBoard", "deviceType",
    "strict", "ignoreSequentialErrors", "delayBetweenRequestsMs", "uplinkConverter",
    "downlinkConverter", "converter",
)  # fmt: skip


def read(data: bytes, file: str) -> Draft:
    """The draft of one JSON file. Raises `ConfigError` for what is no JSON."""
    basket = Basket("the ThingsBoard connector", file)
    node = read_json(data, file)
    if not isinstance(node, Mapping):
        raise ConfigError(f"{node.place}: found no mapping, expected master: {{slaves: […]}}")
    root = Fields(node, basket, "the file")
    master, server = root.inner("master"), root.inner("server")
    if master is not None:
        for slave in master.lists("slaves"):
            _slave(slave, slave, basket)
        master.close()
    if server is not None:  # before version 3
        for slave in server.lists("devices"):
            _slave(slave, server, basket)
        _link(server, basket)  # asks for what is its own
        server.ignore("byteOrder", "wordOrder", "pollPeriod", *_OURS)
        server.close()
    if (own := root.node_of("slave")) is not None:
        basket.remark(own.place, "slave: serving registers to others is not carried over: see expose")
    root.ignore("name", "logLevel", "enableRemoteLogging", "id", "configVersion", "reportStrategy")
    root.close()
    return basket.close()


def _slave(fields: Fields, wire: Fields, basket: Basket) -> None:
    """One device. `wire` has the connection: the device's own, or that of all."""
    unit = fields.whole("unitId")
    name = fields.text("deviceName", default=f"unit-{unit}")
    if unit is None:
        basket.remark(fields.where, f"'{name}' is left out: it has no unitId")
        return
    device = basket.device(name, link=_link(wire, basket), unit=unit)
    periods = [fields.whole(key) for key in ("pollPeriod", "timeseriesPollPeriod", "attributesPollPeriod")]
    every_ms = next((one for one in periods if one), None) or wire.whole("pollPeriod")
    scan = basket.scan(every_ms * 10**6) if every_ms else None
    order = _order(fields, wire, basket)
    for section in ("timeseries", "attributes"):
        for tag in fields.lists(section):
            _read_tag(device, tag, basket, order, scan)
    for section in ("attributeUpdates", "rpc"):
        for tag in _written(fields, section):
            _written_tag(device, tag, basket, order, scan)
    fields.ignore("byteOrder", "wordOrder", "reportStrategy", *_OURS)
    fields.close()


def _written(fields: Fields, section: str) -> list[Fields]:
    """A list of writes, or, of old, a mapping of names to them."""
    if not isinstance(fields.node.items.get(section), Mapping):
        return fields.lists(section)
    named = fields.inner(section)
    found: list[Fields] = []
    for key in named.node.items if named is not None else ():
        one = named.inner(str(key)) if named is not None else None
        if one is not None:
            if not one.has("tag"):
                one.node.put("tag", one.where, Scalar(str(key), one.where))
            found.append(one)
    return found


def _order(fields: Fields, wire: Fields, basket: Basket) -> str:
    byte = (fields.text("byteOrder") or wire.text("byteOrder") or "BIG").upper()
    word = (fields.text("wordOrder") or wire.text("wordOrder")).upper()
    if not word:
        basket.remark_once(
            wire.where, "no wordOrder: the high word is taken for the first one; compare values"
        )
    order = _ORDERS.get((byte, word or "BIG"))
    if order is None:
        basket.remark(
            fields.place("byteOrder"), f"byteOrder {byte} and wordOrder {word} are not known; ABCD is taken"
        )
    return order or "ABCD"


def _coding(tag: Fields, basket: Basket, order: str) -> dict[str, Any] | None:
    """Where it is and how it is coded; None where that cannot be said, with a remark."""
    name, function = tag.text("tag"), tag.whole("functionCode")
    table = _TABLES.get(function or 0)
    address = tag.whole("address")
    count = tag.whole("objectsCount", "registerCount") or 1
    kind = tag.text("type").lower()
    tag.ignore("bitTargetType", "value", "reportStrategy")
    if table is None or address is None:
        found = f"function code {function}" if table is None else "no address"
        basket.remark(
            tag.where, f"'{name}' is left out: found {found}, expected 1 to 6, 15 or 16 and an address"
        )
        return None
    try:
        keys: dict[str, Any] = {"at": at(table, address)}
    except ValueError as error:
        basket.remark(tag.where, f"'{name}' is left out: {error}")
        return None
    if table.has_bits:
        return keys | ({"type": "bits", "length": count} if count > 1 else {})
    ours = _BY_COUNT.get(kind, {}).get(count) or _TYPES.get(kind)
    if ours is None:
        basket.remark(tag.place("type"), f"'{name}' is left out: the type '{kind}' has no equal here")
        return None
    bit = tag.whole("bit")
    if ours == "bits" and bit is not None:
        return keys | {"type": "bool", "bit": bit}
    keys["type"] = ours
    if ours in {"string", "bits"}:
        return keys | {"length": count * (2 if ours == "string" else 16)}
    keys["order"] = order if order != "ABCD" and ours not in {"int8", "uint8"} else None
    return keys | {"scale": _scale(tag)}


def _scale(tag: Fields) -> Any:
    multiplier, divider = tag.number("multiplier"), tag.number("divider")
    value = (multiplier or 1) / (divider or 1)
    return factor(value) if value else None


def _read_tag(device: DraftDevice, tag: Fields, basket: Basket, order: str, scan: str | None) -> None:
    keys = _coding(tag, basket, order)
    if keys is not None:
        basket.tag(device, tag.text("tag"), {**keys, "scan": scan}, tag.where)
        tag.close()


def _written_tag(device: DraftDevice, tag: Fields, basket: Basket, order: str, scan: str | None) -> None:
    if tag.whole("functionCode") in _READ:
        basket.remark(tag.where, f"'{tag.text('tag')}' reads when asked: its values come without asking here")
        return
    keys = _coding(tag, basket, order)
    if keys is None:
        return
    known = next((one for one in device.tags.values() if _is_same(one, keys)), None)
    if known is not None:
        known.keys["write"] = {}
    else:
        basket.tag(device, tag.text("tag"), {**keys, "scan": scan, "write": {}}, tag.where)
    tag.close()


def _is_same(tag: DraftTag, keys: dict[str, Any]) -> bool:
    return all(tag.keys.get(key) == keys.get(key) for key in ("at", "type", "bit", "length"))


def _link(fields: Fields, basket: Basket) -> str:
    kind, method = fields.text("type", default="tcp").lower(), fields.text("method").lower()
    host, port = fields.text("host"), fields.text("port", default="502")
    link: dict[str, Any] = {"driver": "modbus"}
    settings = [fields.value(key) for key in ("baudrate", "bytesize", "parity", "stopbits")]
    if kind == "serial":
        link["transport"] = "ascii" if method == "ascii" else "rtu"
        link["port"] = port
        link["serial"] = serial_of(*settings)
    else:
        transport = {"rtu": "rtu_over_tcp", "ascii": "ascii_over_tcp"}.get(method, kind)
        link |= {"transport": transport} if transport != "tcp" else {}
        link["host"] = f"{host}:{port}"
    if (timeout_s := fields.number("timeout")) is not None and timeout_s > 0:
        link["timeout"] = duration_text(int(min(timeout_s, 60) * 1000) * 10**6)
    for key in ("security", "tls"):
        if (node := fields.node_of(key)) is not None:
            basket.remark_once(node.place, f"{key} is not carried over: see transport: tls")
    return basket.link(fields.text("name", "deviceName", default=host or port), link)
