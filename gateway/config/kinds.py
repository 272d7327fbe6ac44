"""Which kinds of drivers and uplinks there are, and the models of what users write for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.models import Device, Exposed, Exposure, Link, ServerLink, Uplink
from gateway.config.tag import Tag

PLANNED_DRIVERS: Final = ("dnp3", "iec104", "can", "opcua", "hl7", "dicom", "fhir")
PLANNED_UPLINKS: Final = ("sparkplug",)
"""Kinds that users know of and that are not there yet: the message says so."""


class ServerModels(msgspec.Struct, frozen=True, kw_only=True):
    """The models of a driver's server role: its link, an entry of `expose`, and one point in it."""

    link: type[ServerLink]
    exposure: type[Exposure]
    point: type[Exposed]


class DriverModels(msgspec.Struct, frozen=True, kw_only=True):
    """The models of a driver, from `drivers/<kind>/config.py`."""

    link: type[Link]
    device: type[Device]
    tag: type[Tag]
    server: ServerModels | None = None


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """The table that `app` hands over. A device with `host:` and no link speaks `implicit_driver`.

    `maps`: the directories of device maps that came with the gateway.
    """

    drivers: Mapping[str, DriverModels]
    uplinks: Mapping[str, type[Uplink]]
    implicit_driver: str = "modbus"
    maps: tuple[Path, ...] = ()
