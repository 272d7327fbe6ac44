"""From configuration to a driver; and what README, sample and quality sheet say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from drivers.modbus.assemble import decoders_of, make_driver, write_targets
from drivers.modbus.wire.pdu import Table
from gateway.config.load import check, load
from tests.aio.memory import LoopClock
from tests.config.kinds import kinds
from tests.drivers.modbus.rig import Shown, parts_of

ROOT = Path(__file__).parents[3]
HERE = ROOT / "drivers" / "modbus"

SITE = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 300ms, max_hole: 4, max_in_flight: 3, gap: 5ms}}
scan: {fast: 200ms, slow: 1m}
templates:
  t:
    tags:
      b: {at: "hr:8", type: uint16, scan: fast}
      a: {at: "hr:0", type: uint32, scan: fast}
      c: {at: "co:3", scan: fast, write: {}}
      s: {at: "hr:100", type: string, length: 5, scan: slow, write: {}}
devices:
  d1: {link: plc, unit: 1, use: t}
  d2: {link: plc, unit: 2, use: t, max_hole: 8, forbid: ["hr:4-5"], tags: {b: {at: "hr:7"}}}
"""


def test_one_layout_for_each_device_and_class_with_columns_in_the_order_of_addresses() -> None:
    parts = parts_of(SITE)
    assert parts.problems == ()
    assert [(one.device, one.scan, [p.tag for p in one.points]) for one in parts.layouts] == [
        ("d1", "fast", ["c", "a", "b"]),
        ("d1", "slow", ["s"]),
        ("d2", "fast", ["c", "a", "b"]),
        ("d2", "slow", ["s"]),
    ]


def test_limits_of_the_device_come_before_those_of_the_link() -> None:
    spans = {
        part.device.name: [(block.table, block.start, block.count) for block in part.plan.blocks]
        for part in parts_of(SITE).scans
        if part.scan.name == "fast"
    }
    holding = Table.HOLDING_REGISTERS
    assert spans["d1"] == [(Table.COILS, 3, 1), (holding, 0, 2), (holding, 8, 1)]  # a hole of 6, 4 allowed
    assert spans["d2"] == [(Table.COILS, 3, 1), (holding, 0, 2), (holding, 7, 1)]  # of 5, but forbidden


def test_what_a_scan_costs_is_summed_over_the_devices_of_its_class() -> None:
    costs = {one.name: (one.every_ns, one.devices, one.requests) for one in parts_of(SITE).costs()}
    assert costs == {"fast": (200_000_000, 2, 6), "slow": (60_000_000_000, 2, 2)}


def test_a_driver_has_one_device_for_all_its_scan_classes_and_opens_nothing() -> None:
    driver = make_driver(parts_of(SITE), sink=Shown(), clock=LoopClock())
    assert {name: (device.unit, len(device.scans)) for name, device in driver.devices.items()} == {
        "d1": (1, 2),
        "d2": (2, 2),
    }
    assert driver.max_in_flight == 3
    assert driver.endpoint.address == "10.0.0.1:502"
    assert driver.endpoint.traffic.connects == 0
    assert driver.offline_reason("d1") == "its link is not open yet"


def test_a_value_that_no_request_can_hold_is_a_problem_of_its_device() -> None:
    parts = parts_of(
        "links: {plc: {driver: modbus, host: a, max_registers: 2}}\nscan: {normal: 1s}\n"
        'devices: {d: {link: plc, unit: 1, tags: {x: {at: "hr:0", type: float64}}}}\n'
    )
    (problem,) = parts.problems
    assert problem.path == ("devices", "d")
    assert "4 registers that belong together, expected at most 2" in problem.found


# --- what we tell people ------------------------------------------------------------------------------------


def test_the_sample_runs_through_check_and_through_the_planner() -> None:
    report = check(HERE / "sample.yaml", kinds())
    assert (report.errors, report.warnings) == ((), ())
    site = load(HERE / "sample.yaml", kinds())
    from drivers.modbus.assemble import compile_link

    for name, spec in site.links.items():
        devices = [device for device in site.devices.values() if device.link == name]
        assert compile_link(spec, devices, site.scans).problems == ()


def test_the_examples_of_the_readme_are_sound(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (HERE / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks
    for name in ("site.pem", "gw.pem", "gw.key"):  # that an example names
        (tmp_path / name).touch(mode=0o600)
    for block in blocks:
        (tmp_path / "gateway.yaml").write_text(block)
        report = check(tmp_path, kinds())
        assert (report.errors, report.warnings) == ((), ())


@pytest.mark.parametrize(
    ("written", "meant"),
    re.findall(
        r"^\| (`.*?`(?:, `.*?`)?|`\"00008\"`, in quotes) \| (\w+(?: \w+)? \d+) \|",
        (HERE / "README.md").read_text(),
        re.MULTILINE,
    ),
)
def test_the_addresses_of_the_readme_are_what_it_says(written: str, meant: str) -> None:
    from drivers.modbus.address import parse

    for text in re.findall(r"`\"?(\d+)\"?`", written):
        address = parse(text)
        assert f"{address.table.name.lower().replace('_', ' ').rstrip('s')} {address.offset}" == meant


def test_every_capability_says_done_with_its_proof_or_why_not() -> None:
    sheet = yaml.safe_load((HERE / "quality.yaml").read_text())
    assert sheet.pop("protocol")
    assert sheet.pop("stack")["status"] == "done"
    assert (ROOT / "docs" / "adr" / "0003-own-modbus-stack.md").exists()
    for section, capabilities in sheet.items():
        for name, entry in capabilities.items():
            place = f"{section}: {name}"
            assert entry["status"] in {"done", "todo", "exempt"}, place
            if entry["status"] == "done":
                assert entry["proof"], place
                for path in entry["proof"]:
                    assert (ROOT / path).is_file(), f"{place}: {path}"
            if entry["status"] == "exempt":
                assert entry["why"], place


SHIFTED = """
links: {plc: {driver: modbus, host: 10.0.0.1}}
devices:
  d:
    link: plc
    unit: 1
    shift: -40000
    tags:
      power: {at: "hr:40084", type: int16, scale: {power: "hr:40085"}}
      limit: {at: "hr:40100", type: uint16, write: {}}
"""


def test_shift_moves_every_tag_its_scale_factor_and_what_is_written() -> None:
    parts = parts_of(SHIFTED)
    assert parts.problems == ()
    (part,) = parts.scans
    spans = [(block.start, block.count) for block in part.plan.blocks]
    assert spans == [(84, 2), (100, 1)]
    decode = decoders_of(part)(part.plan.blocks[0])[0]
    assert decode(bytes.fromhex("0019 FFFF")) == ((2.5,), 0)
    ((name, target),) = write_targets(part)
    assert (name, target.start) == (("d", "limit"), 100)


def test_a_shift_beyond_the_table_is_told_with_the_tag() -> None:
    for shift, tag in (("-40085", "power at hr:40084"), ("30000", "power at hr:40084")):
        (problem,) = parts_of(SHIFTED.replace("-40000", shift)).problems
        assert problem.found == f"{tag} shifted by {shift}, which is beyond 0 to 65535"
