"""The lazy table of drivers and uplinks: a Modbus-only site never imports the others."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Final

from gateway.config.kinds import DriverModels, Kinds, ServerModels

DRIVERS: Final[Mapping[str, str]] = {"modbus": "drivers.modbus"}


def kinds() -> Kinds:
    """The models of what users write, for every kind there is. Imports models only, no protocol."""
    from drivers.modbus.config import ModbusDevice
    from drivers.modbus.link import ModbusLink
    from drivers.modbus.server_link import ModbusExposed, ModbusExposure, ModbusServerLink
    from drivers.modbus.tag import ModbusTag
    from gateway.uplink.mqtt.config import MqttUplink

    server = ServerModels(link=ModbusServerLink, exposure=ModbusExposure, point=ModbusExposed)
    return Kinds(
        drivers={"modbus": DriverModels(link=ModbusLink, device=ModbusDevice, tag=ModbusTag, server=server)},
        uplinks={"mqtt": MqttUplink},
    )


def driver_parts(kind: str) -> ModuleType:
    """The module with `compile_link` and `make_driver` of a driver."""
    return import_module(f"{DRIVERS[kind]}.assemble")


def server_parts(kind: str) -> ModuleType:
    """The module with `compile_server` and `make_server` of a driver that has a server role."""
    return import_module(f"{DRIVERS[kind]}.assemble_server")
