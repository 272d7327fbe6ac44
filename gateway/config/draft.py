"""A configuration in the making, for importers: links, devices and tags as a user would write them, as YAML.

What could not be carried over stands in `remarks`, each with its place in the file it came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.config.scalars import BadScalar, resolve
from gateway.config.tree import Place

_PLAIN: Final = re.compile(r"[A-Za-z][\w./%-]*(?: [\w./%-]+)*", re.ASCII)
_BOOLS_ELSEWHERE: Final = frozenset({"on", "off", "yes", "no", "y", "n"})  # YAML 1.1 reads these as booleans
_COMMENT_MAX: Final = 100  # characters


class Remark(msgspec.Struct, frozen=True):
    """What was left out or changed, and why."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class DraftTag(msgspec.Struct):
    """One tag: its keys in the order in which they are written."""

    name: str
    keys: dict[str, Any]
    comment: str = ""


class DraftDevice(msgspec.Struct):
    """One device, or a template of one: what it says besides its tags, and its tags."""

    name: str
    keys: dict[str, Any]
    tags: dict[str, DraftTag] = msgspec.field(default_factory=dict)
    comment: str = ""


class Draft(msgspec.Struct):
    """What an importer found."""

    source: str  # what it was made from, for people
    links: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    scans: dict[str, str] = msgspec.field(default_factory=dict)
    devices: dict[str, DraftDevice] = msgspec.field(default_factory=dict)
    templates: dict[str, DraftDevice] = msgspec.field(default_factory=dict)  # of files that describe a device
    remarks: list[Remark] = msgspec.field(default_factory=list)

    @property
    def tag_count(self) -> int:
        """Of all devices and templates."""
        return sum(len(one.tags) for one in (*self.devices.values(), *self.templates.values()))


def site_text(draft: Draft, *, gateway: str) -> str:
    """The main file of a site: links, scan classes, devices."""
    lines = [
        f"# Imported from {comment_of(draft.source)}. Look through it, then `gateway check` it.",
        "version: 1",
    ]
    lines += [f"gateway: {{name: {scalar(gateway)}}}", ""]
    if draft.links:
        lines += ["links:", *(f"  {scalar(name)}: {flow(keys)}" for name, keys in draft.links.items()), ""]
    if draft.scans:
        lines += [f"scan: {flow(draft.scans)}", ""]
    lines.append("devices:")
    for device in draft.devices.values():
        lines += _device(device)
    return "\n".join(lines) + "\n"


def map_text(draft: Draft, template: DraftDevice, *, driver: str) -> str:
    """A device map: `maps/NAME.yaml` of a site."""
    about = {
        "driver": driver,
        "maker": "unknown",
        "model": template.comment or template.name,
        "sources": [{"title": draft.source, "address": "imported; say here where it is from"}],
        "checked": "one source",
    }
    lines = [f"# Imported from {comment_of(draft.source)}: `use: {template.name}` where it is in maps/."]
    lines += ["map:", *(f"  {key}: {flow(value)}" for key, value in about.items()), "", "template:"]
    lines += [f"  {key}: {flow(value)}" for key, value in template.keys.items()]
    lines += ["  tags:", *_tags(template.tags.values(), indent=4)]
    return "\n".join(lines) + "\n"


def _device(device: DraftDevice) -> Iterable[str]:
    yield f"  {scalar(device.name)}:" + (f"  # {comment_of(device.comment)}" if device.comment else "")
    for key, value in device.keys.items():
        yield f"    {key}: {flow(value)}"
    yield "    tags:"
    yield from _tags(device.tags.values(), indent=6)


def _tags(tags: Iterable[DraftTag], *, indent: int) -> Iterable[str]:
    listed = list(tags)
    width = min(max((len(scalar(tag.name)) for tag in listed), default=0) + 1, 32)
    for tag in listed:
        name = f"{scalar(tag.name)}:"
        comment = f"  # {comment_of(tag.comment)}" if tag.comment else ""
        yield f"{' ' * indent}{name:<{width}} {flow(tag.keys)}{comment}"


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    return scalar(value)


def scalar(value: object) -> str:
    """A scalar that every YAML reader takes for what it is."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _BOOLS_ELSEWHERE:
        try:
            if resolve(text) == text:
                return text
        except BadScalar:
            pass
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted)


def comment_of(text: str) -> str:
    """Text that can stand behind `#`: one line, printable, not too long."""
    line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    return line if len(line) <= _COMMENT_MAX else line[: _COMMENT_MAX - 1] + "…"
