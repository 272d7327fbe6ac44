"""Arrays of equal tags."""

from __future__ import annotations

from pathlib import Path

from drivers.modbus.tag import ModbusTag
from gateway.config.load import load
from gateway.config.site import Site
from tests.config.kinds import kinds

SITE = """
version: 1
gateway: {name: g}
links: {plc: {driver: modbus, host: 10.0.0.1}}
templates:
  meter:
    defaults: {scan: slow}
    tags:
      volt{n}: {at: 40101, type: float32, repeat: {count: 3, stride: 2}}
      alarm{n}: {at: "hr:0x10", bit: 4, atomic: "alarms{n}",
                 repeat: {count: 2, stride: 1, first: 0, over: bit}}
      relay{n}: {at: "00009", repeat: {count: 2, stride: 1}}
scan: {slow: 1m}
devices:
  m1:
    link: plc
    unit: 1
    use: meter
    tags:
      volt2: {unit: V}
      relay2: null
      own{n}: {at: "hr:300", type: uint16, repeat: {count: 2, stride: -10}}
"""


def site_of(text: str, folder: Path) -> Site:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return load(path, kinds())


def test_an_array_is_as_if_each_member_had_been_written(tmp_path: Path) -> None:
    tags = site_of(SITE, tmp_path).devices["m1"].tags
    found = {}
    for name, spec in tags.items():
        assert isinstance(spec.model, ModbusTag)
        found[name] = (str(spec.model.at), spec.model.bit, spec.model.scan, spec.model.unit)
    assert found == {
        "volt1": ("hr:100", None, "slow", ""),
        "volt2": ("hr:102", None, "slow", "V"),
        "volt3": ("hr:104", None, "slow", ""),
        "alarm0": ("hr:16", 4, "slow", ""),
        "alarm1": ("hr:16", 5, "slow", ""),
        "relay1": ("co:8", None, "slow", ""),
        "own1": ("hr:300", None, "slow", ""),
        "own2": ("hr:290", None, "slow", ""),
    }
    assert getattr(tags["alarm1"].model, "atomic", None) == "alarms1"
