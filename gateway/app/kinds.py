"""The lazy table of drivers and uplinks: a Modbus-only site never imports the others."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final

from gateway.config.kinds import DriverModels, Kinds, ServerModels

MAPS: Final = "translation_maps"
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
        maps=installed_maps(),
    )


def installed_maps() -> tuple[Path, ...]:
    """Where the device maps lie that came with the gateway: beside the sources, or in the package."""
    package = Path(__file__).parents[1]
    places = (package.parent / MAPS, package / "share" / MAPS)
    return tuple(place for place in places if place.is_dir())[:1]


def driver_parts(kind: str) -> ModuleType:
    """The module with `compile_link` and `make_driver` of a driver."""
    return import_module(f"{DRIVERS[kind]}.assemble")


def server_parts(kind: str) -> ModuleType:
    """The module with `compile_server` and `make_server` of a driver that has a server role."""
    return import_module(f"{DRIVERS[kind]}.assemble_server")


def case_parts(kind: str) -> ModuleType:
    """The module with `MODEL`, `read_case` and `write_case` of a driver, for the cases of maps."""
    return import_module(f"{DRIVERS[kind]}.cases")
