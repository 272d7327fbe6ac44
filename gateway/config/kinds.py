"""Which kinds of drivers and uplinks there are, and the models of what users write for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.config.models import Device, Link, Tag, Uplink

PLANNED_DRIVERS: Final = ("dnp3", "iec104", "can", "opcua", "hl7", "dicom", "fhir")
PLANNED_UPLINKS: Final = ("sparkplug",)
"""Kinds that users know of and that are not there yet: the message says so."""


class DriverModels(msgspec.Struct, frozen=True, kw_only=True):
    """The three models of a driver, from `drivers/<kind>/config.py`."""

    link: type[Link]
    device: type[Device]
    tag: type[Tag]


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """The table that `app` hands over. A device with `host:` and no link speaks `implicit_driver`."""

    drivers: Mapping[str, DriverModels]
    uplinks: Mapping[str, type[Uplink]]
    implicit_driver: str = "modbus"
