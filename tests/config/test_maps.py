"""Device maps: where they are found, which one wins, what is said where something is wrong."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.config.inventory import read_inventory
from gateway.config.kinds import Kinds
from gateway.config.load import check, load
from gateway.config.maps import Maps, is_equal, load_map
from gateway.core.errors import ConfigError
from tests.config.kinds import kinds

MAP = """\
map: {driver: modbus, maker: Acme, model: M1, sources: [{title: T, address: A}], checked: one source}
template:
  max_registers: 7
  defaults: {unit: W}
  tags:
    power-l{n}: {at: "hr:0", type: int16, repeat: {count: 3, stride: 1}}
    limit:      {at: "hr:9", type: uint16, write: {}}
"""
SITE = """\
version: 1
gateway: {name: gw1}
links: {line: {driver: modbus, host: 10.0.0.1}}
devices:
  m1: {link: line, unit: 1, use: acme-m1}
  m2: {link: line, unit: 2, use: acme-m1, defaults: {unit: kW}, tags: {limit: null, power-l1: {deadband: 5}}}
"""


def made(directory: Path, *, own: str = "", installed: str = MAP, site: str = SITE) -> Kinds:
    """A site in `directory`/site, its own map and the one that came with the gateway; the table for it."""
    (directory / "site" / "maps").mkdir(parents=True)
    (directory / "installed" / "modbus").mkdir(parents=True)
    (directory / "site" / "gateway.yaml").write_text(site)
    if own:
        (directory / "site" / "maps" / "acme-m1.yaml").write_text(own)
    if installed:
        (directory / "installed" / "modbus" / "acme-m1.yaml").write_text(installed)
    return msgspec.structs.replace(kinds(), maps=(directory / "installed",))


def test_a_map_is_a_template_that_nobody_copied(tmp_path: Path) -> None:
    table = made(tmp_path)
    report = check(tmp_path / "site", table)
    assert (report.errors, report.warnings) == ((), ())
    assert report.site is not None
    first, second = report.site.devices["m1"], report.site.devices["m2"]
    assert list(first.tags) == ["power-l1", "power-l2", "power-l3", "limit"]
    assert (first.template, first.attributes["template"]) == ("acme-m1", "acme-m1")
    assert first.model.max_registers == 7  # type: ignore[attr-defined]  # a Modbus device
    assert list(second.tags) == ["power-l1", "power-l2", "power-l3"]
    assert (first.tags["power-l1"].point.unit, second.tags["power-l1"].point.unit) == ("W", "kW")
    assert second.tags["power-l1"].point.deadband == 5


def test_the_sites_own_map_comes_first(tmp_path: Path) -> None:
    table = made(tmp_path, own=MAP.replace("unit: W", "unit: MW"))
    site = load(tmp_path / "site", table)
    assert site.devices["m1"].tags["power-l1"].point.unit == "MW"
    assert read_inventory(tmp_path / "site", table).files == (
        tmp_path / "site" / "gateway.yaml",
        tmp_path / "site" / "maps" / "acme-m1.yaml",
    )


def test_a_map_that_came_with_the_gateway_is_not_part_of_a_backup(tmp_path: Path) -> None:
    table = made(tmp_path)
    assert read_inventory(tmp_path / "site", table).files == (tmp_path / "site" / "gateway.yaml",)


def test_a_template_of_the_site_wins_and_the_warning_says_what_it_hides(tmp_path: Path) -> None:
    tags = '{limit: {at: "hr:1", type: uint16}, power-l1: {at: "hr:2", type: int16}}'
    template = f"templates: {{acme-m1: {{tags: {tags}}}}}"
    table = made(tmp_path, site=f"{SITE}{template}\n")
    report = check(tmp_path / "site", table)
    assert report.errors == ()
    (warning,) = report.warnings
    assert warning == (
        f"{tmp_path}/site/gateway.yaml:7:13: found template acme-m1, which hides the map "
        f"{tmp_path}/installed/modbus/acme-m1.yaml, expected another name, or the map itself"
    )
    assert report.site is not None
    assert list(report.site.devices["m1"].tags) == ["limit", "power-l1"]


def test_the_version_of_a_configuration_is_also_that_of_its_maps(tmp_path: Path) -> None:
    table = made(tmp_path)
    file = tmp_path / "installed" / "modbus" / "acme-m1.yaml"
    versions = []
    for text in (
        MAP,
        MAP.replace('"hr:9"', "hr:9"),
        MAP.replace("title: T", "title: U"),
        MAP.replace("hr:9", "hr:8"),
    ):
        file.write_text(text)
        versions.append(load(tmp_path / "site", table).version)
    assert versions[0] == versions[1], "the same, written in another way"
    assert versions[0] == versions[2], "where it is from changes nothing that runs"
    assert versions[0] != versions[3]
    (tmp_path / "installed" / "modbus" / "other.yaml").write_text("broken: [")
    assert load(tmp_path / "site", table).version == versions[3], "what is not used is not even read"


def test_a_map_that_cannot_be_read_is_reported_at_its_place(tmp_path: Path) -> None:
    table = made(tmp_path, installed=MAP.replace("  tags:", "\ttags:"))
    (error,) = check(tmp_path / "site", table).errors
    assert error.startswith(f"{tmp_path}/installed/modbus/acme-m1.yaml:5:1: found a tab in the indentation")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("- {name: x, example: computed}", "found neither expect nor command, expected one of them"),
        (
            "- {name: x, example: guessed, expect: {limit: 1}}",
            "found 'guessed', expected document or computed",
        ),
        (
            '- {name: x, example: computed, given: {"hr:0": "0x12"}, expect: {limit: 1}}',
            "found '0x12', expected bytes",
        ),
        (
            "- {name: x, example: computed, given: {40001: [70000]}, expect: {limit: 1}}",
            "a list of numbers 0 to",
        ),
        (
            "- {name: x, example: computed, command: {tag: limit, value: 1}}",
            "expected sent: the requests, or",
        ),
        ("{}", "expected a list of cases"),
    ],
)
def test_what_is_wrong_in_a_case(wrong: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(f"{MAP}cases:\n  {wrong}\n")
    with pytest.raises(ConfigError, match=r"m\.yaml:9:") as error:
        load_map(file)
    assert said in str(error.value)


def test_names_near_to_what_was_meant(tmp_path: Path) -> None:
    for name in ("eastron-sdm630", "eastron-sdm120", "keba-p30"):
        (tmp_path / f"{name}.yaml").touch()
    maps = Maps((tmp_path,))
    assert maps.near("sdm630") == " — did you mean 'eastron-sdm630'?"
    assert maps.near("Eastron-SDM63") == " — did you mean 'eastron-sdm630' or 'eastron-sdm120'?"
    assert (maps.near("wago"), maps.near(7)) == ("", "")


def test_what_counts_as_the_expected_value() -> None:
    assert is_equal(230.2, 230.2)
    assert is_equal(230.1999969482422, 230.2), "a single is as precise as that"
    assert is_equal(2.0, 2)
    assert is_equal(None, None)
    assert not is_equal(230.21, 230.2)
    assert not is_equal(1, True)
    assert not is_equal(True, 1)
    assert not is_equal(0.0, None)
    assert not is_equal(None, 0)
