"""Every map that comes with the gateway: simulated, then read by the driver; all of it is good."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.drivers.modbus.rig import Rig, driven
from tests.drivers.modbus.simulated import SimulatedPlc

MAPS = sorted(path.stem for path in Path("translation_maps/modbus").glob("*.yaml"))


@pytest.mark.parametrize("name", MAPS)
def test_a_simulated_device_of_every_map_reads_good(name: str) -> None:
    link = "links: {plc: {driver: modbus, host: 10.0.0.5}}\n"
    site = f"{link}devices: {{d: {{link: plc, unit: 1, use: {name}}}}}\n"
    plc = SimulatedPlc(site)

    async def script(rig: Rig) -> None:
        await asyncio.sleep(20)
        wrong = {point: shown for point, shown in rig.shown.points.items() if shown[1] != "good"}
        assert wrong == {}
        assert len(rig.shown.points) > 5
        first = dict(rig.shown.points)
        await asyncio.sleep(30)
        assert first != rig.shown.points, "values move"

    driven(site, script, plc=plc)


def test_there_are_maps() -> None:
    assert len(MAPS) >= 10
