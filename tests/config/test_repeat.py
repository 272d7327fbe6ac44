"""Arrays of equal tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.modbus.tag import ModbusTag
from gateway.config.load import ConfigErrors, load
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


BARE = """
version: 1
gateway: {name: g}
links:
  plc: {driver: modbus, host: 10.0.0.1}
  hmi: {driver: modbus, role: server, listen: "127.0.0.1:0"}
devices:
  d:
    link: plc
    unit: 1
    defaults: {scan: normal, type: uint16}
    tags:
      %s
%s
"""
ARRAY = "p{n}: {at: 'hr:0', repeat: {count: 3, stride: 2}}"


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ((ARRAY, "p2: {at: 'hr:50'}"), "found 'p2' as a member, which is there already"),
        (("p2: {at: 'hr:50'}", ARRAY), "found 'p2' as a member, which is there already"),
        ((ARRAY, ARRAY.replace("p{n}", "p{n}0")), ""),
        (
            (ARRAY.replace("p{n}", "p1{n}"), ARRAY.replace("count: 3", "count: 11")),
            "found 'p11' as a member, which is there already",
        ),
        (("p{n}: {at: 39999, repeat: {count: 2, stride: 2}}",), "number 40001 as the last one"),
        (("p{n}: {at: '09999', type: bool, repeat: {count: 2, stride: 2}}",), "'10001' as the last one"),
        (("p{n}: {at: 40003, repeat: {count: 3, stride: -2}}",), "number 39999 as the last one"),
        (("p{n}: {at: 49999, repeat: {count: 3, stride: 2}}",), "number 50003 as the last one"),
        (("p{n}: {at: 'hr:9999', repeat: {count: 2, stride: 1}}",), ""),
        (("p{n}: {at: 400009, repeat: {count: 2, stride: 1}}",), ""),
    ],
)
def test_no_member_takes_the_place_of_another_tag_or_leaves_its_table(
    tags: tuple[str, ...], found: str, tmp_path: Path
) -> None:
    text = BARE % ("\n      ".join(tags), "")
    if not found:
        assert len(site_of(text, tmp_path).devices["d"].tags) == sum(
            3 if "count: 3" in one else 2 for one in tags
        )
        return
    with pytest.raises(ConfigErrors) as errors:
        site_of(text, tmp_path)
    assert found in str(errors.value)


def test_points_of_a_pattern_stay_in_their_table(tmp_path: Path) -> None:
    expose = "expose: [{link: hmi, unit: 1, points: {d/p*: {at: %s, type: uint16, stride: 2}}}]"
    (rule,) = site_of(BARE % (ARRAY, expose % 40001), tmp_path).expose
    assert [str(one.model.at) for one in rule.points] == ["hr:0", "hr:2", "hr:4"]  # type: ignore[attr-defined]  # of Modbus
    with pytest.raises(ConfigErrors, match="40001 for d/p2, in another table"):
        site_of(BARE % (ARRAY, expose % 39999), tmp_path)
