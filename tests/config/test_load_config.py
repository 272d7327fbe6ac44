"""What a loaded site holds: merging, references, digests, files, and where problems are pointed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.modbus.config import ModbusDevice
from drivers.modbus.tag import ModbusTag
from gateway.config.load import ConfigErrors, Report, check, load
from gateway.config.site import CONTINUOUS, Site
from gateway.core.errors import Problem
from gateway.core.point import Priority, ValueType
from gateway.uplink.mqtt.config import MqttUplink
from tests.config.kinds import kinds

DEMO = Path(__file__).parents[2] / "configs" / "demo"
HEAD = "version: 1\ngateway: {name: gw1, site: north}\n"
LINK = 'links: {plc1: {driver: modbus, host: "10.0.0.11"}}\n'
TEMPLATE = """templates:
  acme-pump:
    defaults: {scan: slow, order: CDAB, deadband: 1}
    max_registers: 32
    demote: {after: 5}
    tags:
      speed: {at: 40101, type: float32, unit: rpm, range: [0, 100]}
      hours: {at: "ir:20", type: bcd32, scan: daily}
      mode: {at: 40120, type: uint16, enum: {0: "off", 1: auto}, write: {min: 0, max: 1}}
scan: {slow: 60s, daily: 1d, fast: 200ms}
"""


def written(directory: Path, text: str, name: str = "gateway.yaml") -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(directory: Path, text: str) -> Site:
    written(directory, text)
    return load(directory, kinds())


def tag_of(site: Site, device: str, tag: str) -> ModbusTag:
    model = site.devices[device].tags[tag].model
    assert isinstance(model, ModbusTag)
    return model


def errors(directory: Path, report: Report) -> list[str]:
    return [line.replace(f"{directory}/", "") for line in report.errors]


def test_the_demo_is_sound() -> None:
    report = check(DEMO, kinds())
    assert (report.errors, report.warnings) == ((), ())
    site = report.site
    assert site is not None
    assert sum(len(device.tags) for device in site.devices.values()) == 28
    assert site.http.port == 18080
    assert [rule.is_per_tag for rule in site.publish] == [True, False]
    setpoint = site.devices["boiler"].tags["setpoint"]
    assert setpoint.point.writable
    assert setpoint.point.type is ValueType.FLOAT
    assert site.devices["boiler"].tags["low_water"].point.priority is Priority.ALARM


def test_a_directory_and_its_file_are_the_same() -> None:
    assert load(DEMO, kinds()).version == load(DEMO / "gateway.yaml", kinds()).version


def test_a_tag_is_merged_leaf_by_leaf(tmp_path: Path) -> None:
    site = loaded(
        tmp_path,
        HEAD + LINK + TEMPLATE + "devices:\n"
        "  a: {link: plc1, unit: 1, use: acme-pump, demote: {retry: 5s}, defaults: {scan: fast},\n"
        "      tags: {speed: {deadband: 2}, hours: null, own: {at: 40001, type: int16},\n"
        "             mode: {enum: {2: manual}, write: {max: 2}}}}\n"
        "  b: {link: plc1, unit: 2, use: acme-pump}\n",
    )
    assert list(site.devices["a"].tags) == ["speed", "mode", "own"]
    speed = tag_of(site, "a", "speed")
    assert (speed.scan, speed.order, speed.unit, speed.deadband.absolute) == ("fast", "CDAB", "rpm", 2)
    mode = tag_of(site, "a", "mode")
    assert mode.labels == {0: "off", 1: "auto", 2: "manual"}
    assert mode.write is not None
    assert (mode.write.min, mode.write.max) == (0, 2)
    own = tag_of(site, "a", "own")
    assert (own.scan, own.order, own.deadband.absolute) == ("fast", "CDAB", 1)
    assert tag_of(site, "b", "speed").scan == "slow"
    assert tag_of(site, "b", "hours").scan == "daily"
    device = site.devices["a"].model
    assert isinstance(device, ModbusDevice)
    assert (device.demote.after, device.demote.retry_ns, device.max_registers) == (5, 5_000_000_000, 32)
    assert site.devices["a"].attributes == {"link": "plc1", "template": "acme-pump", "unit": "1"}


def test_a_device_default_does_not_override_what_a_template_says_of_one_tag(tmp_path: Path) -> None:
    device = "devices: {a: {link: plc1, unit: 1, use: acme-pump, defaults: {scan: fast}}}\n"
    site = loaded(tmp_path, HEAD + LINK + TEMPLATE + device)
    assert tag_of(site, "a", "hours").scan == "daily"
    assert tag_of(site, "a", "speed").scan == "fast"


def test_null_removes_what_the_template_says(tmp_path: Path) -> None:
    device = "devices: {a: {link: plc1, unit: 1, use: acme-pump, tags: {mode: {write: null, scan: ~}}}}\n"
    site = loaded(tmp_path, HEAD + LINK + TEMPLATE + device)
    assert not site.devices["a"].tags["mode"].point.writable
    assert tag_of(site, "a", "mode").scan == "normal"


def test_equal_devices_share_their_models(tmp_path: Path) -> None:
    devices = "devices:\n" + "".join(
        f"  d{n}: {{link: plc1, unit: {n}, use: acme-pump}}\n" for n in range(1, 50)
    )
    site = loaded(tmp_path, HEAD + LINK + TEMPLATE + devices)
    assert len({id(device.tags["speed"].model) for device in site.devices.values()}) == 1


def test_a_device_alone_on_its_wire_brings_its_link(tmp_path: Path) -> None:
    site = loaded(tmp_path, HEAD + 'devices: {p: {host: "[FE80::1]", unit: 1, tags: {x: {at: "co:0"}}}}\n')
    assert site.devices["p"].link == "p"
    assert site.links["p"].model.wire() == "tcp [fe80::1]:502"


def test_scan_classes(tmp_path: Path) -> None:
    site = loaded(
        tmp_path, HEAD + "scan: {fast: 200ms, flat: continuous, slow: {every: 1.5s, spread: true}}\n"
    )
    assert {name: scan.every_ns for name, scan in site.scans.items()} == {
        "fast": 200_000_000, "flat": CONTINUOUS, "slow": 1_500_000_000, "normal": 1_000_000_000,
    }  # fmt: skip
    assert [name for name, scan in site.scans.items() if scan.spread] == ["slow"]


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    device = "devices: {a: {link: plc1, unit: 1, use: acme-pump}}\n"
    first = loaded(tmp_path / "1", HEAD + LINK + TEMPLATE + device)
    written(tmp_path / "2", LINK, "more/links.yaml")
    written(tmp_path / "2", TEMPLATE, "more/templates.yaml")
    other = (
        "# a comment\ngateway:\n  site: 'north'\n  name: gw1\n"
        "devices:\n  a:\n    use: acme-pump\n    unit: 0x1\n    link: plc1\n"
        "version: 1\ninclude: more/*.yaml\n"
    )
    written(tmp_path / "2", other)
    second = loaded(tmp_path / "2", other)
    assert first.version == second.version
    third = loaded(tmp_path / "3", HEAD + LINK + TEMPLATE + device.replace("unit: 1", "unit: 2"))
    assert third.version != first.version
    fourth = loaded(tmp_path / "4", HEAD.replace("north", "'1'"))
    fifth = loaded(tmp_path / "5", HEAD.replace("north", '"1"'))
    assert fourth.version == fifth.version
    number, text = (
        loaded(tmp_path / key, HEAD + f"scan: {{a: {{every: 1s, spread: {key}}}}}")
        for key in ("true", "false")
    )
    assert number.version != text.version


def test_equal_text_gives_equal_specs(tmp_path: Path) -> None:
    text = HEAD + LINK + TEMPLATE + "devices: {a: {link: plc1, unit: 1, use: acme-pump}}\n"
    one, two = loaded(tmp_path / "1", text), loaded(tmp_path / "1", text)
    assert one.links == two.links
    assert one.devices == two.devices
    assert one.publish == two.publish
    assert one.devices["a"] != loaded(tmp_path / "2", text.replace("unit: 1", "unit: 2")).devices["a"]


def test_an_included_name_defined_twice_is_told_with_both_places(tmp_path: Path) -> None:
    written(tmp_path, HEAD + LINK + "include: [a.yaml]\n")
    written(tmp_path, LINK + "gateway: {name: x}\n", "a.yaml")
    assert errors(tmp_path, check(tmp_path, kinds())) == [
        "a.yaml:1:9: found links.plc1 again, expected it once (first: gateway.yaml:3:9)",
        "a.yaml:2:1: found gateway again, expected it once (first: gateway.yaml:2:1)",
    ]


def test_includes_are_relative_and_may_form_a_circle(tmp_path: Path) -> None:
    written(tmp_path, HEAD + "include: [sub/a.yaml]\n")
    written(tmp_path, LINK + "include: [b.yaml, ../gateway.yaml]\n", "sub/a.yaml")
    written(
        tmp_path,
        "include: a.yaml\ndevices: {d: {link: plc1, unit: 1, tags: {x: {at: 'co:0'}}}}\n",
        "sub/b.yaml",
    )
    assert list(load(tmp_path, kinds()).devices) == ["d"]


def test_a_pattern_that_finds_no_file_is_a_warning(tmp_path: Path) -> None:
    written(tmp_path, HEAD + "include: [devices/*.yaml]\n")
    report = check(tmp_path, kinds())
    assert not report.errors
    assert len(report.warnings) == 1
    assert "which no file matches" in report.warnings[0]


def test_a_broken_include_is_reported_alone(tmp_path: Path) -> None:
    written(tmp_path, HEAD + "include: [links.yaml]\ndevices: {d: {link: plc1, unit: 1}}\n")
    written(tmp_path, "links: {plc1: [\n", "links.yaml")
    assert [line.split(":")[0] for line in errors(tmp_path, check(tmp_path, kinds()))] == ["links.yaml"]


def test_a_missing_configuration_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="found no readable file"):
        load(tmp_path / "nowhere", kinds())


def test_paths_of_files_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    written(tmp_path, HEAD + "include: [up/mqtt.yaml]\n")
    uplink = 'uplinks: {m: {kind: mqtt, url: "mqtts://b", username: u, password_file: pw, ca: ../ca.pem}}\n'
    written(tmp_path, uplink, "up/mqtt.yaml")
    written(tmp_path, "x", "ca.pem")
    written(tmp_path, "secret", "up/pw").chmod(0o600)
    report = check(tmp_path, kinds())
    assert report.site is not None
    model = report.site.uplinks["m"].model
    assert isinstance(model, MqttUplink)
    assert model.password_file is not None
    assert Path(model.password_file) == tmp_path / "up" / "pw"
    assert model.ca is not None
    assert Path(model.ca).read_text() == "x"
    assert not report.warnings
    (tmp_path / "up" / "pw").chmod(0o644)
    report = check(tmp_path, kinds())
    assert not report.errors
    assert len(report.warnings) == 1
    assert "readable by everybody" in report.warnings[0]


def test_warnings_do_not_hinder(tmp_path: Path) -> None:
    text = (
        HEAD
        + LINK
        + TEMPLATE
        + "devices:\n  a: {link: plc1, unit: 1}\n  b: {link: plc1, unit: 1, tags: {x: {at: 'co:0'}}}\n"
    )
    written(tmp_path, text)
    report = check(tmp_path, kinds())
    assert report.site is not None
    said = "\n".join(report.warnings)
    assert "device a without tags" in said
    assert "unit 1 on link plc1 again in device b" in said
    assert "template acme-pump, which no device uses" in said


def test_problems_of_rooms_are_pointed_out_once_where_the_user_must_edit(tmp_path: Path) -> None:
    devices = "devices:\n" + "".join(
        f"  d{n}: {{link: plc1, unit: {n}, use: acme-pump}}\n" for n in range(1, 6)
    )
    site = loaded(tmp_path, HEAD + LINK + TEMPLATE + devices)
    problems = [Problem(("devices", f"d{n}", "tags", "speed", "at"), "a", "b") for n in range(1, 6)]
    problems.append(Problem(("devices", "d2", "unit"), "c", "d"))
    problems.append(Problem(("links", "plc1", "timeout"), "e", "f"))
    problems.append(Problem(("devices", "d1", "tags", "hours", "nothing"), "g", "h"))
    said = [line.replace(f"{tmp_path}/", "") for line in site.located(problems)]
    assert said == [
        "gateway.yaml:3:9: found e, expected f",
        "gateway.yaml:10:19: found a, expected b (template acme-pump, used by d1, d2, d3 and 2 more)",
        "gateway.yaml:11:7: found g, expected h (template acme-pump, used by d1)",
        "gateway.yaml:16:26: found c, expected d",
    ]


def test_ten_thousand_tags_load(tmp_path: Path) -> None:
    lines = [
        HEAD,
        "links:\n",
        *(f"  l{n}: {{driver: modbus, host: 10.0.0.{n}}}\n" for n in range(100)),
        "devices:\n",
    ]
    for n in range(100):
        lines.append(f"  d{n}:\n    link: l{n}\n    unit: 1\n    tags:\n")
        lines += [
            f"      t{m}: {{at: {40001 + 2 * m}, type: float32, unit: V, deadband: 0.5}}\n"
            for m in range(100)
        ]
    lines.append(
        "uplinks: {m: {kind: mqtt, url: 'mqtt://b'}}\npublish: [{uplink: m, topic: 'p/{device}/{tag}'}]\n"
    )
    site = loaded(tmp_path, "".join(lines))
    assert sum(len(device.tags) for device in site.devices.values()) == 10_000
