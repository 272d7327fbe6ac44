"""What importers fill: names made legal and unique, each tag checked by the driver's model.

A tag that the driver would refuse is left out with a remark; so what comes out of an import is accepted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Mapping
from pathlib import PurePath
from typing import Any, Final

from drivers.modbus.address import Address
from drivers.modbus.tag import ModbusTag
from drivers.modbus.wire.pdu import ADDRESS_COUNT, Table
from gateway.config.draft import Draft, DraftDevice, DraftTag, Remark
from gateway.config.faults import validate
from gateway.config.tree import Mapping as Tree
from gateway.config.tree import Place
from gateway.config.values import duration_text, is_name
from gateway.core.errors import ConfigError

TABLES: Final = {
    "coil": Table.COILS,
    "discrete": Table.DISCRETE_INPUTS,
    "input": Table.INPUT_REGISTERS,
    "holding": Table.HOLDING_REGISTERS,
}
NAME_LENGTH_MAX: Final = 64
_NORMAL_SCAN_NS: Final = 10**9
_LETTERS: Final = {"ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "°": "", "%": "percent"}
_REPEATED: Final = ("repeat",)  # keys that are not the model's: they make several tags of one


class Basket:
    """One import on its way to a `Draft`."""

    def __init__(self, what: str, file: str) -> None:
        self.draft = Draft(f"{what} {PurePath(file).name}")
        self._said: set[tuple[str, str]] = set()

    def remark(self, place: Place, text: str) -> None:
        """Something that was not carried over, or not as it stood."""
        self.draft.remarks.append(Remark(place, text))

    def remark_once(self, place: Place, text: str) -> None:
        """The same, said where it is met first."""
        if (place.file, text) not in self._said:
            self._said.add((place.file, text))
            self.remark(place, text)

    def unknown_keys(self, node: Tree, known: Container[str], what: str) -> None:
        """A remark for each key that the importer does not understand."""
        for key, place in node.places.items():
            if key not in known:
                self.remark(place, f"{what}: '{key}' is not carried over")

    def link(self, wanted: str, keys: Mapping[str, Any]) -> str:
        """The name of a link that says the same, or a new one."""
        for name, known in self.draft.links.items():
            if known == keys:
                return name
        name = unique(name_of(wanted, "link"), self.draft.links)
        self.draft.links[name] = dict(keys)
        return name

    def scan(self, every_ns: int) -> str | None:
        """The scan class of a period; None for the usual one."""
        if every_ns == _NORMAL_SCAN_NS:
            return None
        text = duration_text(min(max(every_ns, 10_000_000), 7 * 86400 * 10**9))
        name = f"every-{text}"
        self.draft.scans[name] = text
        return name

    def device(self, wanted: str, *, link: str, unit: int) -> DraftDevice:
        """The device with that unit on that link, new where there is none."""
        for device in self.draft.devices.values():
            if (device.keys["link"], device.keys["unit"]) == (link, unit):
                return device
        name = unique(name_of(wanted, f"unit-{unit}"), self.draft.devices)
        device = DraftDevice(name, {"link": link, "unit": unit}, comment=wanted if wanted != name else "")
        self.draft.devices[name] = device
        return device

    def template(self, wanted: str, *, comment: str = "") -> DraftDevice:
        """A new template, for a file that describes a device and no site."""
        name = unique(name_of(wanted, "device"), self.draft.templates)
        self.draft.templates[name] = DraftDevice(name, {}, comment=comment or wanted)
        return self.draft.templates[name]

    def tag(
        self, device: DraftDevice, wanted: str, keys: Mapping[str, Any], place: Place, comment: str = ""
    ) -> DraftTag | None:
        """A new tag; None where the driver would refuse it, with a remark that says why."""
        given = {key: value for key, value in keys.items() if value is not None}
        fault = _fault(given)
        if fault is not None:
            self.remark(place, f"'{wanted}' is left out: {fault}")
            return None
        near = name_of(wanted, "tag") + ("-{n}" if "repeat" in given else "")
        name = unique(near, device.tags)
        if name != near:
            self.remark(place, f"a tag '{near}' is there already: this one is called '{name}'")
        said = [wanted] if name != wanted and name != wanted.lower() else []
        tag = DraftTag(name, given, "; ".join(said + ([comment] if comment else [])))
        device.tags[name] = tag
        return tag

    def close(self) -> Draft:
        """The draft, without devices and links that hold nothing."""
        draft = self.draft
        draft.devices = {name: one for name, one in draft.devices.items() if one.tags}
        draft.templates = {name: one for name, one in draft.templates.items() if one.tags}
        used = {one.keys["link"] for one in draft.devices.values()}
        draft.links = {name: one for name, one in draft.links.items() if name in used}
        scans = {tag.keys.get("scan") for one in draft.devices.values() for tag in one.tags.values()}
        draft.scans = {name: one for name, one in draft.scans.items() if name in scans}
        draft.remarks.sort(key=lambda remark: remark.place)
        return draft


def _fault(keys: Mapping[str, Any]) -> str | None:
    nowhere = Tree(Place("", 1, 1))
    data = {key: value for key, value in keys.items() if key not in _REPEATED}
    model, found = validate(ModbusTag, nowhere, data, nowhere.place)
    if found:
        return "; ".join(f"found {what}, expected {expected}" for _, what, expected in found)
    if model is not None:
        try:
            model.field()
        except ValueError as error:
            return str(error)
    return None


def at(table: Table, offset: int) -> str:
    """An address as we write it. Raises ValueError, for people, beyond the table."""
    if not 0 <= offset < ADDRESS_COUNT:
        raise ValueError(f"found the address {offset}, expected 0 to {ADDRESS_COUNT - 1}")
    return str(Address(table, offset))


def name_of(text: str, otherwise: str) -> str:
    """A legal name near to a text: ASCII, lower case unless it is one already."""
    if is_name(text) and len(text) <= NAME_LENGTH_MAX and text.isascii():
        return text
    text = "".join(_LETTERS.get(letter, letter) for letter in text.lower())
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_.]+", "-", ascii_text).strip("-_.")[:NAME_LENGTH_MAX].rstrip("-_.")
    return name if is_name(name) else otherwise


def unique(name: str, taken: Container[str]) -> str:
    """The name, or with a number behind it where it is taken."""
    if name not in taken:
        return name
    stem, number = (name[:-4], "-{n}") if name.endswith("-{n}") else (name, "")
    count = 2
    while f"{stem}-{count}{number}" in taken:
        count += 1
    return f"{stem}-{count}{number}"


def factor(value: float) -> float | int | None:
    """A scale as we write it; None for 1, which is none."""
    if value == 1:
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else value


def scale_of(multiplier: float, offset: float) -> float | int | dict[str, float] | None:
    """Factor and offset as we write them."""
    if not offset:
        return factor(multiplier)
    return {"factor": multiplier, "offset": offset}


def serial_of(baud: object, bits: object, parity: object, stop: object) -> str:
    """The key `serial`: 9600-8N1."""
    letter = str(parity or "N").strip()[:1].upper()
    return f"{_whole(baud, 9600)}-{_whole(bits, 8)}{letter}{_whole(stop, 1)}"


def _whole(value: object, otherwise: int) -> int:
    try:
        return int(str(value)) if value is not None else otherwise
    except ValueError:
        raise ConfigError(
            f"found {value!r} in the settings of a serial port, expected a whole number"
        ) from None
