"""Device maps: a template in a file of its own, with its sources and the cases that prove it.

`use: eastron-sdm630` takes `maps/eastron-sdm630.yaml` beside the configuration, else the one that came with
the gateway. Only what is used is read; its template then stands among the others, so that merging, faults
and the configuration's version treat it as if it had been written there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import Field, PlainValidator

from gateway.config.faults import Collector, unknown_key_expected, validate
from gateway.config.files import refuse_variables
from gateway.config.model import Model, Name
from gateway.config.reader import read
from gateway.config.scalars import choice, did_you_mean, one_of, shown
from gateway.config.tree import Mapping, Node, Place, Scalar, is_null, plain
from gateway.config.tree import Sequence as List
from gateway.config.values import fault, is_name
from gateway.core.errors import ConfigError, Problem
from gateway.core.point import Value

OWN_DIRECTORY: Final = "maps"
"""Of a site, beside its gateway.yaml."""
SECTIONS: Final = ("map", "template", "cases")
_NEAR_MAX: Final = 3  # names that a message suggests

Given = bytes | tuple[int, ...]
"""What the device answers: bytes, or numbers from an address on."""


class Source(Model):
    """A document or an open map that was read for the map."""

    title: str = Field(min_length=1, max_length=256, description="Title of what was read.")
    revision: str | None = Field(None, max_length=128, description="Its revision, date or commit.")
    address: str = Field(min_length=1, max_length=512, description="Where it can be read.")
    used_for: str | None = Field(None, max_length=512, description="What of the map is from there.")


class MapSection(Model):
    """What a map says of itself."""

    driver: Name = Field(description="Kind of the driver whose devices it describes.")
    maker: str = Field(min_length=1, max_length=128, description="Who makes the device.")
    model: str = Field(min_length=1, max_length=128, description="Its model or models.")
    sources: list[Source] = Field(description="What was read for it; nothing in it is from anywhere else.")
    checked: Literal["one source", "two sources"] = Field(
        description="two sources: every address and type stands in two of them; one source: some in one only."
    )
    notes: list[str] = Field(default_factory=list, description="What one must know to use it.")

    def problems(self) -> Iterable[Problem]:
        if not self.sources:
            yield Problem(("sources",), "no source", "what was read for it: [{title: …, address: …}]")
        if self.checked == "two sources" and len(self.sources) == 1:
            yield Problem(("checked",), "two sources with one listed", "one source, or the other one too")


class Expected(Model):
    """What a tag shows; the short form is its value alone, with quality good."""

    value: int | float | str | bool | None = Field(description="The value; nothing where there is none.")
    quality: str = Field("good", description="The quality as it is shown, such as bad/invalid.")


class CommandOf(Model):
    """A command to a tag."""

    tag: Name = Field(description="The tag that is written.")
    value: int | float | str | bool = Field(description="The value, in the tag's unit.")


def _given(value: object) -> Given:
    if isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            raise fault(shown(value), "bytes in hexadecimal, such as '4366 3334'") from None
    if isinstance(value, list) and value and all(type(one) is int and 0 <= one <= 0xFFFF for one in value):
        return tuple(value)
    raise fault(shown(value), "bytes in hexadecimal, such as '4366 3334', or a list of numbers 0 to 65535")


def _expected(value: object) -> Expected:
    if isinstance(value, dict):
        return Expected.model_validate(value)
    return Expected.model_validate({"value": value})


def _frame(value: object) -> bytes:
    if isinstance(value, str) and isinstance(frame := _given(value), bytes) and frame:
        return frame
    raise fault(shown(value), "bytes in hexadecimal, such as '06 138C 1F40'")


class Case(Model):
    """What a device answers and which values that makes, or a command and what goes to the device."""

    name: str = Field(min_length=1, max_length=256, description="What the case shows.")
    example: Literal["document", "computed"] = Field(
        description="document: the numbers stand in a source; computed: they were made from its rules."
    )
    source: str | None = Field(None, max_length=256, description="Where in which source the numbers stand.")
    given: dict[str | int, Annotated[Any, PlainValidator(_given)]] = Field(
        default_factory=dict, description="Address → what the device has there."
    )
    expect: dict[Name, Annotated[Any, PlainValidator(_expected)]] = Field(
        default_factory=dict, description="Tag → its value, or {value, quality}."
    )
    command: CommandOf | None = Field(None, description="A command, instead of `expect`.")
    sent: list[Annotated[Any, PlainValidator(_frame)]] = Field(
        default_factory=list, description="The requests that carry the command out, without framing."
    )
    refused: str | None = Field(None, min_length=1, description="Words in the reason for refusing it.")

    def problems(self) -> Iterable[Problem]:
        if (self.command is None) == (not self.expect):
            found = "expect and command" if self.expect else "neither expect nor command"
            yield Problem(("name",), found, "one of them")
        if self.command is not None and bool(self.sent) == (self.refused is not None):
            yield Problem(("command",), "a command", "sent: the requests, or refused: the reason")
        if self.command is None and (self.sent or self.refused):
            yield Problem(("name",), "sent or refused without command", "command: {tag: NAME, value: VALUE}")


class MapFile(msgspec.Struct, frozen=True):
    """One map, read. `cases` have no faults; whether they hold is for who runs them to say."""

    name: str
    path: Path
    about: MapSection
    place: Place
    template: Mapping
    cases: tuple[tuple[Case, Place], ...]


class CaseFault(msgspec.Struct, frozen=True):
    """What a case shows other than it expects."""

    place: Place
    case: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.place}: {self.case}: found {self.found}, expected {self.expected}"


Reading = dict[str, tuple[Value, int]]
"""Tag → value and quality."""


def is_equal(found: Value, expected: Value) -> bool:
    """Whether a value is as expected: floats to the precision of a single (1 in 10⁷)."""
    if type(found) is float and type(expected) in {int, float}:
        return found == expected or abs(found - float(expected or 0)) <= 1e-7 * abs(found)
    return type(found) is type(expected) and found == expected


class Maps:
    """The maps that one configuration can use: its own first, then those that came with the gateway."""

    def __init__(self, directories: Sequence[Path]) -> None:
        self._directories = directories
        self._paths: dict[str, Path] | None = None
        self.taken: dict[str, MapFile] = {}

    @classmethod
    def of_site(cls, main_file: Path, installed: Sequence[Path]) -> Maps:
        """Those of the site whose main file that is."""
        return cls((main_file.parent / OWN_DIRECTORY, *installed))

    @property
    def paths(self) -> dict[str, Path]:
        """Name → file, by name. The first directory that has a name wins."""
        if self._paths is None:
            found: dict[str, Path] = {}
            for directory in self._directories:
                for path in sorted((*directory.glob("*.yaml"), *directory.glob("*/*.yaml"))):
                    if is_name(path.stem):
                        found.setdefault(path.stem, path)
            self._paths = dict(sorted(found.items()))
        return self._paths

    def near(self, name: object) -> str:
        """` — did you mean 'eastron-sdm630'?`, or nothing."""
        text = name.lower() if isinstance(name, str) else ""
        names = [one for one in self.paths if text and text in one]
        names += [n for n in difflib.get_close_matches(text, list(self.paths), _NEAR_MAX) if n not in names]
        meant = one_of([f"'{one}'" for one in names[:_NEAR_MAX]]) if names else ""
        return f" — did you mean {meant}?" if meant else ""

    def use(self, root: Mapping, faults: Collector) -> list[Path]:
        """Put the templates of the maps that devices use among `root`'s own; the files of the site's own."""
        templates = root.items.get("templates")
        known = templates if isinstance(templates, Mapping) else Mapping(root.place)
        own: list[Path] = []
        for name, place in _used(root).items():
            path = self.paths.get(name)
            if path is None:
                continue
            if name in known.items:
                found = f"template {name}, which hides the map {path}"
                faults.warn((known.places[name], found, "another name, or the map itself"))
                continue
            taken = read_map(path, faults)
            if path.is_relative_to(self._directories[0]):
                own.append(path)
            if taken is None:
                faults.is_readable = False
                continue
            if "templates" not in root.items:
                root.put("templates", place, known)
            known.put(name, taken.place, taken.template)
            self.taken[name] = taken
        return own

    def fault_of_driver(self, name: str, driver: str) -> tuple[str, str] | None:
        """What is wrong with the map of that name for a device of that driver: found, expected."""
        taken = self.taken.get(name)
        if taken is None or taken.about.driver == driver:
            return None
        return f"the map {name}, which is for {taken.about.driver}", f"a map or template for {driver}"


def _used(root: Mapping) -> dict[str, Place]:
    names: dict[str, Place] = {}
    devices = root.items.get("devices")
    for device in devices.items.values() if isinstance(devices, Mapping) else ():
        use = device.items.get("use") if isinstance(device, Mapping) else None
        if isinstance(use, Scalar) and isinstance(use.value, str):
            names.setdefault(use.value, use.place)
    return names


def load_map(path: Path) -> MapFile:
    """The map in a file. Raises `ConfigError` with every fault."""
    faults = Collector()
    found = read_map(path, faults)
    if found is None or faults:
        raise ConfigError("\n".join(faults.errors()))
    return found


def read_map(path: Path, faults: Collector) -> MapFile | None:
    """The map in a file; what is wrong goes to `faults`, and None comes back where it cannot be used."""
    start = Place(str(path), 1, 1)
    try:
        data = path.read_bytes()
    except OSError as error:
        faults.add((start, f"a map that cannot be read ({error.strerror})", "a readable file"))
        return None
    node, wrong = read(data, str(path))
    faults.read(wrong)
    if node is None and wrong:
        return None
    if not isinstance(node, Mapping):
        faults.add((start, "no map", f"sections: {', '.join(SECTIONS)}"))
        return None
    refuse_variables(node, faults)
    for key in node.items:
        if key not in SECTIONS:
            expected = unknown_key_expected(str(key), SECTIONS)
            faults.add((node.places[key], f"unknown section '{key}' of a map", expected))
    about = _about(node, start, faults)
    template = node.items.get("template")
    if not isinstance(template, Mapping):
        place = start if template is None else template.place
        faults.add((place, "no 'template'", "template: {defaults: …, tags: …}"))
        return None
    if about is None:
        return None
    cases = tuple(_cases(node.items.get("cases"), faults))
    return MapFile(path.stem, path, about, node.places["template"], template, cases)


def _about(node: Mapping, start: Place, faults: Collector) -> MapSection | None:
    section = node.items.get("map")
    if section is None or is_null(section):
        faults.add((start, "no 'map'", "map: {driver, maker, model, sources, checked}"))
        return None
    about: MapSection | None
    about, found = validate(MapSection, section, plain(section), node.places["map"])
    for one in found:
        faults.add(one)
    return None if found else about


def _cases(node: Node | None, faults: Collector) -> Iterable[tuple[Case, Place]]:
    if node is None or is_null(node):
        return
    if not isinstance(node, List):
        faults.add((node.place, shown(plain(node)), "a list of cases (- name: …)"))
        return
    for item in node.items:
        case, found = validate(Case, item, plain(item), item.place)
        for one in found:
            faults.add(one)
        if case is not None and not found:
            yield case, item.place


def unknown_template(name: object, templates: Iterable[str], maps: Maps) -> tuple[str, str]:
    """What to say of `use:` that names nothing: found, expected."""
    own = [one for one in templates if one not in maps.taken]
    if not maps.paths:
        return f"no template {shown(name)}", choice(name, own)
    listed = f"{one_of(own)}, or a map" if own else "the name of a map"
    hint = did_you_mean(name, own) if isinstance(name, str) else ""
    return (
        f"no template or map {shown(name)}",
        f"{listed} (`gateway maps` lists them){hint or maps.near(name)}",
    )
