"""The lazy table of what can be imported: each format is read by a module of the driver that knows it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import msgspec

from gateway.config.draft import Draft


class Format(msgspec.Struct, frozen=True):
    """One format: whose devices it describes, and the module with `read(data, file) -> Draft`."""

    driver: str
    module: str

    def read(self, data: bytes, file: str) -> Draft:
        """What is in a file. Raises `ConfigError` where it is not of that format."""
        draft: Draft = import_module(self.module).read(data, file)
        return draft


FORMATS: Final[Mapping[str, Format]] = {
    "csv": Format("modbus", "drivers.modbus.importing.csv_table"),
    "telegraf": Format("modbus", "drivers.modbus.importing.telegraf"),
    "thingsboard": Format("modbus", "drivers.modbus.importing.thingsboard"),
    "homeassistant": Format("modbus", "drivers.modbus.importing.homeassistant"),
    "wb-mqtt-serial": Format("modbus", "drivers.modbus.importing.wirenboard"),
}
