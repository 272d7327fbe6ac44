"""The table of kinds as `app` hands it over, for tests of the configuration."""

from __future__ import annotations

from drivers.modbus.config import ModbusDevice
from drivers.modbus.link import ModbusLink
from drivers.modbus.tag import ModbusTag
from gateway.config.kinds import DriverModels, Kinds
from gateway.uplink.mqtt.config import MqttUplink


def kinds() -> Kinds:
    """Modbus and MQTT."""
    return Kinds(
        drivers={"modbus": DriverModels(link=ModbusLink, device=ModbusDevice, tag=ModbusTag)},
        uplinks={"mqtt": MqttUplink},
    )
