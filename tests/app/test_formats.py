"""Faults that show when payloads are put together are found when the configuration is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.config.load import ConfigErrors, load

SITE = """\
version: 1
gateway: {name: gw1}
uplinks:
  cloud: {kind: mqtt, url: "mqtt://broker.example"}
links:
  plc: {driver: modbus, host: 10.0.0.11}
devices:
  p1:
    link: plc
    unit: 1
    tags:
      speed: {at: "hr:0", type: int16}
      SECOND: {at: "hr:1", type: int16}
publish:
  - {uplink: cloud, topic: "{device}/all", RULE}
"""


@pytest.mark.parametrize(
    ("second", "rule", "found"),
    [
        (
            "speed_q",
            "format: influx",
            "the field 'speed_q' for value of 'speed_q' and for",
        ),
        ("temp", "format: influx, measurement: time", "'time' (p1)"),
        (
            "speed.max",
            "nest: true",
            "the tags 'speed' and 'speed.max', which are a value and what it consists",
        ),
    ],
)
def test_names_that_clash_in_a_payload(tmp_path: Path, second: str, rule: str, found: str) -> None:
    (tmp_path / "gateway.yaml").write_text(SITE.replace("SECOND", second).replace("RULE", rule))
    with pytest.raises(ConfigErrors) as caught:
        compile_site(load(tmp_path, kinds()))
    assert "gateway.yaml:15:" in str(caught.value)
    assert found in str(caught.value)


@pytest.mark.parametrize("rule", ["format: influx", "format: cbor", "format: msgpack, nest: true"])
def test_sound_rules(tmp_path: Path, rule: str) -> None:
    (tmp_path / "gateway.yaml").write_text(SITE.replace("SECOND", "speed-max").replace("RULE", rule))
    compile_site(load(tmp_path, kinds()))
