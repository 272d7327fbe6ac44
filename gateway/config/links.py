"""Links and uplinks: which kind each is, its model, and that each wire has one owner."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping as MappingOf
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from gateway.config.credentials import credential_name, credential_path, where_it_comes_from
from gateway.config.faults import Collector, Found, locate, validate
from gateway.config.kinds import PLANNED_DRIVERS, PLANNED_UPLINKS, Kinds
from gateway.config.model import Model
from gateway.config.scalars import choice, one_of, shown
from gateway.config.site import LinkSpec, UplinkSpec
from gateway.config.tree import Mapping, Node, Place, plain
from gateway.config.values import NAME_EXPECTED, FileRef, is_name

ModelT = TypeVar("ModelT", bound=Model)


class LinkOfDevice(NamedTuple):
    """The link that a device uses; `is_sound` is False where the link itself has a fault."""

    name: str
    driver: str
    is_sound: bool


class Links:
    """The section `links`, and the links that devices alone on their wire bring along."""

    def __init__(self, *, section: Node | None, kinds: Kinds, faults: Collector) -> None:
        self._kinds = kinds
        self._faults = faults
        self._drivers: dict[str, str] = {}  # link → driver, also of links with faults
        self._owners: dict[str, Place] = {}  # wire → where its owner is
        self.specs: dict[str, LinkSpec] = {}
        if isinstance(section, Mapping):
            for name, node in section.items.items():
                self._link(name, section.places[name], node)

    def _link(self, name: str | int, place: Place, node: Node) -> None:
        if not is_name(name):
            self._faults.add((place, f"{shown(name)} as the name of a link", NAME_EXPECTED))
            return
        self._drivers[str(name)] = ""
        driver = kind_of(
            node, place, "driver", known=self._kinds.drivers, planned=PLANNED_DRIVERS, faults=self._faults
        )
        if driver is None:
            return
        self._drivers[str(name)] = driver
        model, found = validate(self._model_of(driver, node), node, plain(node), place)
        for fault in found:
            self._faults.add(fault)
        if model is None:
            return
        model = with_files(model, node, place, self._faults)
        spec = LinkSpec(name=str(name), driver=driver, model=model, path=("links", str(name)))
        where = locate(node, (model.wire_key(),), place)
        if self._own(spec, where, advice="one link for one wire") and not found:
            self.specs[spec.name] = spec

    def _model_of(self, driver: str, node: Node) -> type[Model]:
        models = self._kinds.drivers[driver]
        role = node.items.get("role") if isinstance(node, Mapping) else None
        if models.server is not None and role is not None and plain(role) == "server":
            return models.server.link
        return models.link

    def _own(self, spec: LinkSpec, place: Place, *, advice: str) -> bool:
        wire = spec.model.wire()
        if wire is None:
            return True
        first = self._owners.setdefault(wire, place)
        if first != place:
            self._faults.add((place, f"a second owner of the wire {wire}", f"{advice} (first: {first})"))
        return first == place

    def of_device(self, name: str, place: Place, node: Mapping) -> LinkOfDevice | None:
        """The link of a device: the one it names, or one of its own from `host`."""
        link, host = node.items.get("link"), node.items.get("host")
        if link is not None and host is not None:
            self._faults.add(
                (node.places["host"], "host beside link", "one of them: a link has its own host"), device=name
            )
            return None
        if link is not None:
            return self._named(plain(link), link.place, name)
        if host is not None:
            return self._implicit(name, node, host)
        known = one_of(self._drivers)
        self._faults.add(
            (place, f"neither link nor host in device {name}", f"link: {known}; or host: of the device")
        )
        return None

    def _named(self, link: object, place: Place, device: str) -> LinkOfDevice | None:
        if not isinstance(link, str) or link not in self._drivers:
            self._faults.add((place, f"no link {shown(link)}", choice(link, self._drivers)), device=device)
            return LinkOfDevice("", self._kinds.implicit_driver, is_sound=False)
        driver = self._drivers[link]
        spec = self.specs.get(link)
        if spec is not None and spec.is_server:
            servers = {name for name, spec in self.specs.items() if spec.is_server}
            clients = [name for name in self._drivers if name not in servers]
            found = f"the link {link}, which is a server and has no devices"
            self._faults.add((place, found, one_of(clients)), device=device)
            return LinkOfDevice(link, driver, is_sound=False)
        return LinkOfDevice(link, driver, is_sound=spec is not None) if driver else None

    def _implicit(self, device: str, node: Mapping, host: Node) -> LinkOfDevice:
        driver = self._kinds.implicit_driver
        link = LinkOfDevice(device, driver, is_sound=False)
        if device in self._drivers:
            found = f"host in device {device} while there is a link {device}"
            self._faults.add((node.places["host"], found, f"link: {device}, or another name"), device=device)
            return link
        model_type = self._kinds.drivers[driver].link
        model, faults = validate(model_type, node, model_type.implicit(driver, plain(host)), host.place)
        for _, found, expected in faults:
            self._faults.add((host.place, found, expected), device=device)
        if model is None:
            return link
        spec = LinkSpec(name=device, driver=driver, model=model, path=("devices", device))
        if not self._own(spec, host.place, advice="a link under links: that these devices name"):
            return link
        self.specs[device] = spec
        return link._replace(is_sound=True)


def kind_of(
    node: Node,
    place: Place,
    key: str,
    *,
    known: MappingOf[str, Any],
    planned: tuple[str, ...],
    faults: Collector,
) -> str | None:
    """The value of `driver:` or `kind:`, where it is one that is there."""
    if not isinstance(node, Mapping):
        faults.add((node.place, shown(plain(node)), f"a mapping with {key}: {one_of(known)}"))
        return None
    kind = node.items.get(key)
    if kind is None:
        faults.add((place, f"no '{key}'", f"{key}: {one_of(known)}"))
        return None
    value = plain(kind)
    if isinstance(value, str) and value in known:
        return value
    if value in planned:
        faults.add((kind.place, f"{key} '{value}', which is not there yet", one_of(known)))
    else:
        faults.add(
            (
                kind.place,
                f"unknown {key} {shown(value).removeprefix('the number ')}",
                choice(value, known),
            )
        )
    return None


def uplinks(section: Node | None, kinds: Kinds, faults: Collector) -> tuple[dict[str, UplinkSpec], set[str]]:
    """The section `uplinks`: those without a fault, and the names of all."""
    specs: dict[str, UplinkSpec] = {}
    names: set[str] = set()
    if not isinstance(section, Mapping):
        return specs, names
    for name, node in section.items.items():
        place = section.places[name]
        if not is_name(name):
            faults.add((place, f"{shown(name)} as the name of an uplink", NAME_EXPECTED))
            continue
        names.add(str(name))
        kind = kind_of(node, place, "kind", known=kinds.uplinks, planned=PLANNED_UPLINKS, faults=faults)
        if kind is None:
            continue
        model, found = validate(kinds.uplinks[kind], node, plain(node), place)
        for fault in found:
            faults.add(fault)
        if model is not None:
            model = with_files(model, node, place, faults)
        if model is not None and not found:
            specs[str(name)] = UplinkSpec(name=str(name), kind=kind, model=model, path=("uplinks", str(name)))
    return specs, names


def with_files(model: ModelT, node: Node, place: Place, faults: Collector) -> ModelT:
    """The model with the paths of its files made absolute; each is relative to the file it is written in."""
    update: dict[str, str] = {}
    for name, field in type(model).model_fields.items():
        reference = file_reference(field)
        value = getattr(model, name)
        if reference is None or value is None:
            continue
        where = locate(node, (field.alias or name,), place)
        credential = credential_name(value)
        if credential is None:
            path, expected = Path(where.file).parent / value, "the path of a file"
        else:
            home = Path(faults.root.place.file).parent.absolute()
            path, expected = credential_path(credential, home), where_it_comes_from(credential, home)
        update[name] = str(path.absolute())
        _check_file(value, path, reference, where, faults, expected=expected)
    return model.model_copy(update=update) if update else model


def file_reference(field: Any) -> FileRef | None:
    """What a field of a model says of the file it names; None where it names none."""
    return next((item for item in _metadata(field) if isinstance(item, FileRef)), None)


def _metadata(field: Any) -> list[Any]:
    """What `Annotated` says of a field, also within `X | None`."""
    inner = [
        item
        for argument in getattr(field.annotation, "__args__", ())
        for item in getattr(argument, "__metadata__", ())
    ]
    return [*field.metadata, *inner]


def _check_file(
    value: str, path: Path, reference: FileRef, place: Place, faults: Collector, *, expected: str
) -> None:
    fault: Found | None = None
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            fault = place, f"{shown(value)}, which is not a file", expected
        elif not os.access(path, os.R_OK):
            fault = place, f"{shown(value)}, which cannot be read", "a file that this user may read"
        elif reference.secret and mode & stat.S_IROTH:
            faults.warn((place, f"the secret {shown(value)} readable by everybody", f"chmod o-rwx {path}"))
    except OSError as error:
        fault = place, f"{shown(value)}, which cannot be read ({error.strerror})", expected
    if fault is not None:
        faults.add(fault)
