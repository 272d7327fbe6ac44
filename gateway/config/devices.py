"""Devices with their templates: merged leaf by leaf, validated by their driver's models, made into points.

What a tag says is, from weak to strong: the template's `defaults`, the device's `defaults`, the template's
tag, the device's tag. A default never overrides what is said of the one tag.
"""

from __future__ import annotations

from typing import Any, Final

from gateway.config.faults import Collector, Found, locate, validate
from gateway.config.kinds import Kinds
from gateway.config.links import Links
from gateway.config.maps import Maps, unknown_template
from gateway.config.models import Device
from gateway.config.repeat import expand_tags
from gateway.config.scalars import choice, did_you_mean, shown
from gateway.config.site import DeviceSpec, ScanClass, TagSpec
from gateway.config.tag import Tag
from gateway.config.tree import Key, Mapping, Node, Place, is_null, merged, plain, without
from gateway.config.values import NAME_EXPECTED, is_name
from gateway.core.point import Point

MERGED_KEYS: Final = ("use", "defaults", "tags")
_Checked = tuple[Tag | None, list[Found], Node]  # the node is kept: its id is the key


class Devices:
    """Turns the section `devices` into specs; `effective` is the section with all templates merged in."""

    def __init__(
        self,
        *,
        root: Mapping,
        kinds: Kinds,
        links: Links,
        scans: dict[str, ScanClass],
        maps: Maps,
        faults: Collector,
    ) -> None:
        self._kinds = kinds
        self._links = links
        self._scans = scans
        self._maps = maps
        self._faults = faults
        self._section = _mapping(root.items.get("devices"))
        self._used: set[str] = set()
        self._has_all_tags = True
        self._template_tags: dict[str, dict[Key, tuple[Place, Node]]] = {}
        self._checked: dict[tuple[str, int], _Checked] = {}
        self.specs: dict[str, DeviceSpec] = {}
        self.effective = Mapping(self._section.place)
        templates = _mapping(root.items.get("templates"))
        for name, node in templates.items.items():
            if isinstance(node, Mapping):
                self._expand(node)
                self._template(str(name), templates.places[name], node)
            else:
                faults.add(
                    (templates.places[name], f"template {name} without content", "defaults: and tags:")
                )

    def build(self) -> dict[str, DeviceSpec]:
        """All devices that have no fault; the collector has the others."""
        for name, node in self._section.items.items():
            place = self._section.places[name]
            if not is_name(name):
                self._faults.add((place, f"{shown(name)} as the name of a device", NAME_EXPECTED))
            elif not isinstance(node, Mapping):
                self._faults.add((node.place, shown(plain(node)), "a mapping: link, unit, tags …"))
            else:
                self._device(str(name), place, node)
        self._warn_of_twins()
        for template, node in self._faults.templates.items():
            if template not in self._used:
                self._faults.warn(
                    (node.place, f"template {template}, which no device uses", "a device with use: of it")
                )
        return self.specs

    @property
    def is_whole(self) -> bool:
        """Whether every device and tag that is written is there, so that a pattern must match some."""
        return self._has_all_tags and len(self.specs) == len(self._section.items)

    def attribute_names(self) -> set[str]:
        """Names of the users' own placeholders, also of devices that have faults."""
        names: set[str] = set()
        for node in self.effective.items.values():
            attributes = _mapping(_mapping(node).items.get("attributes"))
            names.update(key for key in attributes.items if isinstance(key, str))
        return names

    def _warn_of_twins(self) -> None:
        """Two devices with one number on one link: allowed, but hardly meant."""
        seen: dict[tuple[str, str], str] = {}
        for spec in self.specs.values():
            station = spec.model.station()
            first = seen.setdefault((spec.link, station), spec.name)
            if station and first != spec.name:
                found = f"unit {station} on link {spec.link} again in device {spec.name}"
                place = self._section.places[spec.name]
                self._faults.warn((place, found, f"one device for one unit (first: device {first})"))

    def _template(self, name: str, place: Place, node: Mapping) -> None:
        self._faults.templates[name] = node
        if "use" in node.items:
            self._faults.add((node.places["use"], "use in a template", "no use: templates do not stack"))
        defaults = self._part(node, "defaults")
        tags = self._part(node, "tags")
        self._template_tags[name] = {}
        if not tags.items and "tags" not in node.items:
            self._faults.warn((place, f"template {name} without tags", "tags:"))
        for tag, child in tags.items.items():
            self._template_tags[name][tag] = tags.places[tag], _over(defaults, child)

    def _part(self, node: Mapping, key: str) -> Mapping:
        """`defaults` or `tags`; an empty mapping where there is none or it is no mapping."""
        child = node.items.get(key)
        if child is None or is_null(child):
            return Mapping(node.place)
        if not isinstance(child, Mapping):
            self._faults.add((child.place, shown(plain(child)), f"a mapping of {key}"))
        return _mapping(child)

    def _expand(self, node: Mapping) -> None:
        found = expand_tags(node)
        for fault in found:
            self._faults.add(fault)
        self._has_all_tags &= not found

    def _device(self, name: str, place: Place, node: Mapping) -> None:
        self._expand(node)
        template = self._template_of(node)
        own = without(node, *MERGED_KEYS)
        if template is not None:
            own = merged(without(self._faults.templates[template], *MERGED_KEYS), own)
        tags = self._tags(node, template)
        effective = without(own)
        effective.put("tags", node.places.get("tags", place), tags)
        self.effective.put(name, place, effective)

        link = self._links.of_device(name, place, own)
        models = self._kinds.drivers.get(link.driver) if link is not None else None
        if link is None or models is None:
            return
        if template is not None and (wrong := self._maps.fault_of_driver(template, link.driver)) is not None:
            self._faults.add((node.items["use"].place, *wrong), device=name)
            return
        model, found = validate(models.device, own, plain(own), place)
        for fault in found:
            self._faults.add(self._hinted(fault, link.driver), device=name)
        specs = self._tag_specs(name, link.driver, tags, template)
        self._has_all_tags &= len(specs) == len(tags.items)
        if not tags.items:
            self._faults.warn((place, f"device {name} without tags", "tags:, or use: of a template"))
        if model is None or found or not link.is_sound:
            return
        self.specs[name] = DeviceSpec(
            name=name,
            link=link.name,
            driver=link.driver,
            model=model,
            tags=specs,
            template=template,
            attributes=_attributes(model, link.name, template),
            path=("devices", name),
        )

    def _template_of(self, node: Mapping) -> str | None:
        use = node.items.get("use")
        if use is None or is_null(use):
            return None
        value = plain(use)
        if isinstance(value, str) and value in self._template_tags:
            self._used.add(value)
            return value
        self._faults.add((use.place, *unknown_template(value, self._template_tags, self._maps)))
        return None

    def _tags(self, node: Mapping, template: str | None) -> Mapping:
        """The tags of a device, merged. Where a device says nothing of a tag, the node is the "
        "template's own."""
        of_template = self._template_tags[template] if template is not None else {}
        defaults = self._part(node, "defaults")
        own = self._part(node, "tags")
        tags = Mapping(own.place)
        raw = _mapping(_mapping(self._faults.templates.get(template or "")).items.get("tags"))
        base_defaults = _mapping(_mapping(self._faults.templates.get(template or "")).items.get("defaults"))
        for tag, (place, child) in of_template.items():
            if defaults.items:
                child = _over(merged(base_defaults, defaults), raw.items[tag])
            tags.put(tag, place, child)
        for key, child in own.items.items():
            below = tags.items.get(key)
            if is_null(child) and below is not None:
                del tags.items[key], tags.places[key]
            elif isinstance(below, Mapping) and isinstance(child, Mapping):
                tags.items[key] = merged(below, child)
            else:
                tags.put(key, own.places[key], _over(merged(base_defaults, defaults), child))
        return tags

    def _tag_specs(self, device: str, driver: str, tags: Mapping, template: str | None) -> dict[str, TagSpec]:
        specs: dict[str, TagSpec] = {}
        for key, node in tags.items.items():
            place = tags.places[key]
            if not is_name(key):
                self._faults.add((place, f"{shown(key)} as the name of a tag", NAME_EXPECTED), device=device)
                continue
            model, found, _ = self._check_tag(driver, node, place)
            for fault in found:
                if (
                    template is not None
                    and fault[1].startswith("no '")
                    and key not in self._template_tags[template]
                ):
                    hint = did_you_mean(str(key), map(str, self._template_tags[template]))
                    fault = (fault[0], f"{fault[1]} in tag '{key}'", f"{fault[2]}{hint}")
                self._faults.add(fault, device=device)
            if model is None:
                continue
            specs[str(key)] = TagSpec(
                name=str(key),
                model=model,
                point=_point(device, str(key), model),
                path=("devices", device, "tags", str(key)),
            )
        return specs

    def _check_tag(self, driver: str, node: Node, place: Place) -> _Checked:
        """The model of one tag. Devices of one template share it: each node is validated once."""
        if (known := self._checked.get((driver, id(node)))) is not None:
            return known
        models = self._kinds.drivers[driver]
        model: Tag | None
        model, found = validate(models.tag, node, plain(node), place)
        if model is not None and model.scan not in self._scans:
            found.append(self._no_scan_class(model.scan, locate(node, ("scan",), place)))
        checked = None if found else model, found, node
        self._checked[driver, id(node)] = checked
        return checked

    def _no_scan_class(self, name: str, place: Place) -> Found:
        return place, f"no scan class '{name}'", choice(name, self._scans)

    def _hinted(self, fault: Found, driver: str) -> Found:
        """A key of links, written into a device: say where it belongs."""
        place, found, _ = fault
        for name, field in self._kinds.drivers[driver].link.model_fields.items():
            key = field.alias or name
            if found == f"unknown key '{key}'":
                return (
                    place,
                    f"{found} of a device",
                    f"it in a link: links: {{NAME: {{{key}: …}}}} and link: NAME",
                )
        return fault


def _mapping(node: Node | None) -> Mapping:
    return node if isinstance(node, Mapping) else Mapping(node.place if node is not None else Place("", 1, 1))


def _over(defaults: Mapping, tag: Node) -> Node:
    return merged(defaults, tag) if isinstance(tag, Mapping) and defaults.items else tag


def _attributes(model: Device, link: str, template: str | None) -> dict[str, str]:
    attributes: dict[str, Any] = {**model.attributes, "link": link}
    if template is not None:
        attributes["template"] = template
    if station := model.station():
        attributes["unit"] = station
    return attributes


def _point(device: str, name: str, tag: Tag) -> Point:
    low, high = tag.range if tag.range is not None else (None, None)
    return Point(
        device=device,
        tag=name,
        type=tag.point_type(),
        unit=tag.unit or (tag.convert.to if tag.convert is not None else ""),
        low=low,
        high=high,
        writable=tag.write is not None,
        deadband=tag.deadband.absolute,
        deadband_percent=tag.deadband.percent,
        priority=tag.lane(),
        labels=tuple(tag.labels.items()),
        flags=tuple(tag.flags.items()),
    )
