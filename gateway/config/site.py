"""The configuration as the rest of the gateway uses it: names resolved, templates merged, faults found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from gateway.config.journal import JournalSection
from gateway.config.models import Commands, Device, Exposed, Exposure, Link, ServerLink, Uplink
from gateway.config.publish import Publish
from gateway.config.tag import Tag
from gateway.config.values import HostPort
from gateway.core.errors import PathPart, Problem
from gateway.core.point import Point

Path_ = tuple[PathPart, ...]
CONTINUOUS = 0


class LinkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One wire. `name` is the device's own where the device needs no link."""

    name: str
    driver: str
    model: Link
    path: Path_

    @property
    def is_server(self) -> bool:
        """Whether others connect to it, and it has no devices."""
        return isinstance(self.model, ServerLink)


class ScanClass(msgspec.Struct, frozen=True, kw_only=True):
    """How often tags are read; `every_ns` 0 is continuous: the next scan starts when the last has ended."""

    name: str
    every_ns: int
    spread: bool = False


class TagSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One tag of one device; the model is shared by devices whose template says the same."""

    name: str
    model: Tag
    point: Point
    path: Path_


class DeviceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One device. `attributes` are what topics may name: link, template, unit and the user's own."""

    name: str
    link: str
    driver: str
    model: Device
    tags: dict[str, TagSpec]
    template: str | None
    attributes: dict[str, str]
    path: Path_


class UplinkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One northbound end."""

    name: str
    kind: str
    model: Uplink
    path: Path_


class PublishRule(msgspec.Struct, frozen=True, kw_only=True):
    """One `publish:` rule; the first match of a rule does not hide later rules."""

    index: int
    uplink: str
    model: Publish
    qos: int
    path: Path_

    @property
    def is_per_tag(self) -> bool:
        """Whether each value is a message of its own; else one message holds a scan of a device."""
        return "{tag}" in self.model.topic


class CommandRule(msgspec.Struct, frozen=True, kw_only=True):
    """One `commands:` rule."""

    index: int
    uplink: str
    model: Commands
    path: Path_


class ExposedPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One point on one server."""

    point: Point
    model: Exposed
    path: Path_


class ExposeRule(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of `expose:`, its patterns worked out."""

    index: int
    link: str
    model: Exposure
    points: tuple[ExposedPoint, ...]
    path: Path_


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """A whole configuration without a fault. `directory` is where its main file is."""

    version: str  # digest of what the user wrote: the same after reformatting or reordering of keys
    name: str
    site: str
    directory: Path
    http: HostPort
    journal: JournalSection
    links: dict[str, LinkSpec]
    scans: dict[str, ScanClass]
    devices: dict[str, DeviceSpec]
    uplinks: dict[str, UplinkSpec]
    publish: tuple[PublishRule, ...]
    commands: tuple[CommandRule, ...]
    expose: tuple[ExposeRule, ...]
    locate: Callable[[Iterable[Problem]], list[str]]

    def located(self, problems: Iterable[Problem]) -> list[str]:
        """Problems that a room found, as `file:line:column: found …, expected …`, once for each place.

        What came from a template is pointed out in the template, with the devices that use it.
        """
        return self.locate(problems)
