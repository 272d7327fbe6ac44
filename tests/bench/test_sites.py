"""The YAML of the rows is accepted as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.sites import SiteSpec, Topics, write_site
from gateway.app.kinds import kinds
from gateway.config.load import check


@pytest.mark.parametrize("scan", ["continuous", "1s"])
@pytest.mark.parametrize("topics", Topics)
@pytest.mark.parametrize("is_writable", [False, True])
def test_every_site_is_accepted(tmp_path: Path, scan: str, topics: Topics, is_writable: bool) -> None:
    spec = SiteSpec(
        devices=100, registers=100, scan=scan, topics=topics, is_writable=is_writable, is_spread=scan == "1s"
    )
    write_site(tmp_path, spec, modbus_ports=[1502, 1503, 1504, 1505], mqtt_port=1883)
    report = check(tmp_path, kinds())
    assert report.errors == ()
    assert report.warnings == ()
    assert report.site is not None
    assert sum(len(device.tags) for device in report.site.devices.values()) == 100 * (100 + is_writable)
