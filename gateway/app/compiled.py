"""A configuration with everything worked out that needs no I/O on a wire, and what of it changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.app.access import Access, open_access
from gateway.app.expressions import Expressions, compile_expressions
from gateway.app.kinds import driver_parts, server_parts
from gateway.app.rules import check_rules
from gateway.config.load import ConfigErrors
from gateway.config.site import LinkSpec, Site
from gateway.core.errors import Problem
from gateway.core.point import Layout


class Link(msgspec.Struct):
    """One wire as it runs."""

    spec: LinkSpec
    devices: tuple[object, ...]  # the specs it was made from, to see whether they changed
    parts: Any
    driver: Any

    @property
    def task(self) -> str:
        """The name of its task."""
        return f"link {self.spec.name}"


class Compiled(msgspec.Struct):
    """A configuration with everything that can be found wrong before anything is opened."""

    site: Site
    links: dict[str, Any]  # name → the driver's parts; servers are apart
    servers: dict[str, Any]
    access: dict[str, Access]  # uplink → passwords and certificates
    expressions: Expressions

    @property
    def layouts(self) -> list[Layout]:
        """Of all links."""
        return [layout for parts in self.links.values() for layout in parts.layouts]


def compile_site(site: Site, *, known: Mapping[str, Link] | None = None) -> Compiled:
    """Plan every link; links that did not change keep their parts. Raises `ConfigErrors`."""
    problems: list[Problem] = []
    links: dict[str, Any] = {}
    for name, spec in site.links.items():
        if spec.is_server:
            continue
        before = (known or {}).get(name)
        if before is not None and before.spec == spec and before.devices == fingerprint(site, name):
            links[name] = before.parts
            continue
        devices = [device for device in site.devices.values() if device.link == name]
        parts = driver_parts(spec.driver).compile_link(spec, devices, site.scans)
        problems.extend(parts.problems)
        links[name] = parts
    layouts = [layout for parts in links.values() for layout in parts.layouts]
    expressions = compile_expressions(site, layouts)
    problems.extend(expressions.problems)
    problems.extend(check_rules(site, layouts))
    servers: dict[str, Any] = {}
    for name, spec in site.links.items():
        if spec.is_server:
            servers[name] = server_parts(spec.driver).compile_server(site, spec, layouts)
            problems.extend(servers[name].problems)
    access: dict[str, Access] = {}
    for name, uplink in site.uplinks.items():
        opened, found = open_access(site, uplink)
        problems.extend(found)
        if opened is not None:
            access[name] = opened
    if problems:
        raise ConfigErrors(site.located(problems))
    return Compiled(site, links, servers, access, expressions)


def fingerprint(site: Site, link: str) -> tuple[object, ...]:
    """What a link is made from, besides its own section."""
    devices = [device for device in site.devices.values() if device.link == link]
    classes = {tag.model.scan for device in devices for tag in device.tags.values()}
    files = tuple(_digest(file) for file in site.links[link].model.files())
    return (tuple(devices), tuple(site.scans[name] for name in sorted(classes)), files)


def _digest(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # whoever opens it says so
        return ""
