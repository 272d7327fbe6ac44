"""The section `expose`: which points show on which server, and where."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.faults import Collector, validate
from gateway.config.kinds import Kinds, ServerModels
from gateway.config.links import Links
from gateway.config.pattern import glob
from gateway.config.repeat import leaves_table, shifted
from gateway.config.scalars import choice, shown
from gateway.config.site import DeviceSpec, ExposedPoint, ExposeRule
from gateway.config.tree import Mapping, Node, Place, Sequence, is_null, plain, without
from gateway.core.point import Point

SHIFTED: tuple[str, ...] = ("at", "quality")
"""Keys with addresses, which grow by `stride` from one point of a pattern to the next."""


class Exposures:
    """Checks the section against links and devices."""

    def __init__(
        self, *, devices: dict[str, DeviceSpec], links: Links, kinds: Kinds, faults: Collector
    ) -> None:
        self._devices = devices
        self._links = links
        self._kinds = kinds
        self._faults = faults

    def build(self, section: Node | None) -> tuple[ExposeRule, ...]:
        """The entries without a fault."""
        if section is None or is_null(section):
            return ()
        if not isinstance(section, Sequence):
            self._faults.add((section.place, shown(plain(section)), "a list of {link: …, points: {…}}"))
            return ()
        rules = (self._rule(index, node) for index, node in enumerate(section.items))
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, index: int, node: Node) -> ExposeRule | None:
        if not isinstance(node, Mapping):
            self._faults.add((node.place, shown(plain(node)), "a mapping: link, points …"))
            return None
        models = self._models(node)
        if models is None:
            return None
        own = without(node, "points")
        model, found = validate(models.exposure, own, plain(own), node.place)
        for fault in found:
            self._faults.add(fault)
        points = node.items.get("points")
        if not isinstance(points, Mapping) or not points.items:
            place = node.place if points is None else points.place
            self._faults.add((place, "no points", "points: {device/tag: {at: …}}"))
            return None
        path = ("expose", index)
        exposed = [
            one
            for key, child in points.items.items()
            for one in self._points(key, points.places[key], child, models, (*path, "points", key))
        ]
        if model is None or found:
            return None
        return ExposeRule(index=index, link=model.link, model=model, points=tuple(exposed), path=path)

    def _models(self, node: Mapping) -> ServerModels | None:
        link = node.items.get("link")
        servers = [name for name, spec in self._links.specs.items() if spec.is_server]
        if link is None:
            self._faults.add(
                (node.place, "no 'link'", f"link: {choice('', servers)}" if servers else "link:")
            )
            return None
        spec = self._links.specs.get(str(plain(link)))
        if spec is None or not spec.is_server:
            found = (
                f"no server link {shown(plain(link))}"
                if spec is None
                else f"link {spec.name}, which is no server"
            )
            expected = choice(plain(link), servers) if servers else "a link with role: server"
            self._faults.add((link.place, found, expected))
            return None
        return self._kinds.drivers[spec.driver].server

    def _points(
        self, key: object, place: Place, node: Node, models: ServerModels, path: tuple[str | int, ...]
    ) -> Iterator[ExposedPoint]:
        device, slash, tag = str(key).partition("/")
        if not isinstance(key, str) or not slash or "/" in tag:
            self._faults.add((place, shown(key), "device/tag, or a pattern such as 'pump-*/speed'"))
            return
        if not isinstance(node, Mapping):
            self._faults.add((node.place, shown(plain(node)), "a mapping: at, type …"))
            return
        matched = list(self._matching(device, tag))
        if not matched:
            self._faults.add(
                (place, f"{shown(key)}, which no tag matches", "device/tag of a tag that is there")
            )
        for number, point in enumerate(matched):
            member = node
            stride = node.items.get("stride")
            by = plain(stride) if stride is not None else 0
            if number and isinstance(by, int):
                member = _moved(node, number * by)
                at = node.items.get("at")
                if at is not None and leaves_table(at, number * by):
                    found_text = f"{shown(plain(member.items['at']))} for {point.name}, in another table"
                    self._faults.add((at.place, found_text, "fewer points, or hr:, ir:, co:, di:"))
                    return
            model, found = validate(models.point, member, plain(member), place)
            for fault in found:
                self._faults.add(fault)
            if model is None or found:
                return  # the others have the same fault
            if model.write and not point.writable:
                where = node.places.get("write", place)
                self._faults.add(
                    (where, f"write for {point.name}, which is read-only", "write: at the tag too")
                )
            yield ExposedPoint(point=point, model=model, path=path)

    def _matching(self, device: str, tag: str) -> Iterator[Point]:
        devices, tags = glob(device), glob(tag)
        for name, spec in self._devices.items():
            if devices.fullmatch(name):
                yield from (one.point for one in spec.tags.values() if tags.fullmatch(one.name))


def _moved(node: Mapping, by: int) -> Mapping:
    member = Mapping(node.place)
    for name, child in node.items.items():
        member.put(name, node.places[name], shifted(child, by) if name in SHIFTED else child)
    return member
