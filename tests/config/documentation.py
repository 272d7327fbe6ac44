"""docs/configuration.md: its tables of keys, from the models. Run as a program it writes them."""

from __future__ import annotations

import re
from pathlib import Path

from drivers.modbus.config import Beat, ModbusDevice, Watch
from drivers.modbus.link import ModbusLink, Reconnect
from drivers.modbus.server_link import ModbusExposed, ModbusExposure, ModbusServerLink
from drivers.modbus.tag import ModbusTag, ModbusWrite
from gateway.config.journal import HistorySection, JournalSection
from gateway.config.lines import Rs485Mode
from gateway.config.models import CommandPolicy, Commands, Demote, GatewaySection, HttpSection, ScanSection
from gateway.config.publish import AlarmBuffer, Buffer, Publish, Replay, Report
from gateway.config.reference import key_table
from gateway.uplink.mqtt.config import Backoff, MqttUplink

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
MODELS = (
    AlarmBuffer,
    Backoff, Beat, Buffer, CommandPolicy, Commands, Demote, GatewaySection, HistorySection, HttpSection,
    JournalSection,
    ModbusDevice,
    ModbusExposed, ModbusExposure, ModbusServerLink,
    ModbusLink, ModbusTag, ModbusWrite, MqttUplink, Publish, Reconnect, Replay, Report, Rs485Mode,
    ScanSection, Watch,
)  # fmt: skip
TABLE = re.compile(r"<!-- keys: (\w+) -->\n(?:\|.*\n)*")


def with_tables(text: str) -> str:
    """The text with every table of keys as the models have it."""
    models = {model.__name__: model for model in MODELS}
    return TABLE.sub(lambda found: f"<!-- keys: {found[1]} -->\n{key_table(models[found[1]])}", text)


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
