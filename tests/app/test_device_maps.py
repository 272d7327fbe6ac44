"""Every device map that comes with the gateway, through the loader and the driver that run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.app.cli import cli
from gateway.app.maps.trial import run_cases, try_map, untested
from gateway.config.maps import load_map

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "translation_maps").glob("*/*.yaml"))
KEBA = ROOT / "translation_maps" / "modbus" / "keba-p30.yaml"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_cases_hold_and_show_every_tag_and_write_every_writable_one(file: Path) -> None:
    trial = try_map(load_map(file))
    assert [str(fault) for fault in run_cases(trial)] == []
    assert untested(trial) == []
    assert trial.map.about.driver == file.parent.name


def test_there_are_ten_at_least() -> None:
    assert len(FILES) >= 10


def test_a_site_with_a_device_of_each_is_accepted(tmp_path: Path) -> None:
    devices = [f"  d{n}: {{link: line, unit: {n}, use: {file.stem}}}" for n, file in enumerate(FILES, 1)]
    text = "\n".join(
        (
            "version: 1",
            "gateway: {name: gw1}",
            "links: {line: {driver: modbus, host: 10.0.0.1}}",
            "devices:",
            *devices,
        )
    )
    (tmp_path / "gateway.yaml").write_text(text)
    done = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"{len(FILES)} devices" in done.output
    assert "warning" not in done.output


POWER = '"hr:1020": "0001 8165"'
CURRENT = "tag: set-current, value: 8"
TYPE = '"hr:1020", type: '


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("current-l2: 1.011", "current-l2: 1.012", "found current-l2 = 1.011, good, expected 1.012, good"),
        ("power: 98.661", "power: {value: null, quality: bad/invalid}", "98.661, good, expected None, bad"),
        ("power: 98.661", "pover: 98.661", "found no tag pover in the map, expected a tag of it"),
        (POWER, '"hr:1020": "0001"', "found power without all that it is made of"),
        (POWER, '"hr:1020": "000181"', "found 3 bytes at hr:1020, expected two for each register"),
        (POWER, '"hr:1018": "0001 8165"', "again, expected it once"),
        (POWER, '41019: "0001 8165"', "found hr:1018 twice, expected it once"),
        ("06 138C 1F40", "06 138C 1F41", "found 06 13 8C 1F 40, expected 06 13 8C 1F 41"),
        (CURRENT, "tag: set-current, value: 80", "found a refusal: found 80, expected 6"),
        (CURRENT, "tag: power, value: 8", "found a refusal: found no writable tag power"),
        ("value: 5}", "value: 7}", "found 06 13 8C 1B 58, expected a refusal: expected 6"),
        (f"{TYPE}uint32", f"{TYPE}int16", "found power = 0.001, good"),
    ],
)  # fmt: skip
def test_a_case_that_does_not_hold_is_told_with_its_place(
    before: str, after: str, said: str, tmp_path: Path
) -> None:
    text = KEBA.read_text()
    assert before in text
    file = tmp_path / "keba-p30.yaml"
    file.write_text(text.replace(before, after, 1))
    done = CliRunner().invoke(cli, ["test-maps", str(file)])
    assert done.exit_code != 0
    told = done.output + (str(done.exception) if done.exception else "")
    assert said in told
    assert re.search(r"keba-p30\.yaml:\d+:\d+: ", told)


def test_the_commands_list_show_and_run_them(tmp_path: Path) -> None:
    listed = CliRunner().invoke(cli, ["maps", "--config", str(tmp_path)])
    assert listed.exit_code == 0
    for file in FILES:
        assert file.stem in listed.output
    shown = CliRunner().invoke(cli, ["maps", "keba-p30"], env={"COLUMNS": "160"})
    assert "P30 Modbus TCP Programmers Guide, V1.02" in shown.output
    assert re.search(r"set-current +hr:5004 +uint16 +A +0\.001 +6 to 63", shown.output)
    unknown = CliRunner().invoke(cli, ["maps", "keba"])
    assert "no map 'keba' — did you mean 'keba-p30'?" in str(unknown.exception)
    run = CliRunner().invoke(cli, ["test-maps", "keba-p30", "victron-gx"])
    assert run.exit_code == 0
    assert run.output.splitlines() == [
        "keba-p30: 6 cases, none wrong, all 15 tags in them",
        "victron-gx: 4 cases, none wrong, all 35 tags in them",
    ]


def test_a_sites_own_map_is_listed_and_run_beside_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "own.yaml").write_text(KEBA.read_text())
    done = CliRunner().invoke(cli, ["test-maps", "own", "--config", str(tmp_path)])
    assert (done.exit_code, done.output) == (0, "own: 6 cases, none wrong, all 15 tags in them\n")


def test_the_package_carries_them() -> None:
    """The wheel puts them where `installed_maps` looks; `gateway/share` is in no source checkout."""
    import tomllib

    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert built["force-include"]["translation_maps"] == "gateway/share/translation_maps"


def test_the_documentation_shows_a_site_and_a_map_that_work(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "maps.md").read_text()
    (site,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (own,) = re.findall(r"^```yaml map\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "gateway.yaml").write_text(site)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "acme-meter.yaml").write_text(own)
    checked = CliRunner().invoke(cli, ["check", str(tmp_path)])
    assert (checked.exit_code, "warning" in checked.output) == (0, False), checked.output
    done = CliRunner().invoke(cli, ["test-maps", "acme-meter", "--config", str(tmp_path)])
    assert done.output == "acme-meter: 4 cases, none wrong, all 5 tags in them\n"
