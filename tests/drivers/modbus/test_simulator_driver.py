"""The driver in front of a device that does every wrong thing there is: it never shows a wrong value."""

from __future__ import annotations

import asyncio

import pytest

from drivers.modbus.simulator.faults import Kind
from tests.drivers.modbus.rig import Rig, driven
from tests.drivers.modbus.simulated import SimulatedPlc

TAGS = """
    tags:
      a: {at: "hr:0", type: uint32}
      b: {at: "hr:20", type: float32, order: CDAB}
      c: {at: "hr:60", type: int32}
      d: {at: "ir:0", type: uint16}
      e: {at: "co:0"}
      sp: {at: "hr:40", type: uint16, write: {min: 0, max: 500, verify: readback, within: 2s}}
"""
VALUES = {"a": 1111, "b": 2.5, "c": -333333, "d": 4444, "e": True, "sp": 55}
TRANSPORTS = ("tcp", "rtu_over_tcp", "ascii_over_tcp")
ONLY = {Kind.CRC: TRANSPORTS[1:], Kind.WRONG_TRANSACTION: TRANSPORTS[:1]}
# What a driver that is asked once a second makes of each, when every answer is spoiled so.
HARMLESS = {"delay,time=100ms", "split", "split,pieces=64,time=5ms", "glue"}
HARMFUL = {
    "silence", "exception,code=4", "exception,code=2", "drop", "delay,time=900ms", "garbage",
    "garbage,bytes=300", "cut", "crc", "wrong_unit", "wrong_transaction", "close",
}  # fmt: skip
CASES = [
    (transport, rule)
    for transport in TRANSPORTS
    for rule in sorted(HARMLESS | HARMFUL)
    if transport in ONLY.get(Kind(rule.partition(",")[0]), TRANSPORTS)
]


def site(transport: str) -> str:
    patience = "timeout: 300ms, attempts: 2, reconnect: {max: 2s}"
    link = f"{{driver: modbus, transport: {transport}, host: 10.0.0.5, {patience}}}"
    one = "{link: plc, unit: %d, demote: {after: 20, retry: 1s}, use: t}"
    return (
        f"links: {{plc: {link}}}\ntemplates:\n  t:{TAGS.replace(chr(10), chr(10) + '  ')}\n"
        f"devices:\n  p: {one % 1}\n  q: {one % 2}\n"
    )


def held(transport: str, *, offset: int = 0) -> SimulatedPlc:
    """Both units show numbers that are in no other place: one taken for another shows."""
    plc = SimulatedPlc(site(transport), transport=transport)
    for device, more in (("p", 0), ("q", 7 + offset)):
        for tag, value in VALUES.items():
            plc.units.hold(f"{device}/{tag}", value if isinstance(value, bool) else value + more)
    return plc


def wrong(rig: Rig) -> list[object]:
    """Everything shown that is not what the device has."""
    expected = {f"p/{tag}": value for tag, value in VALUES.items()}
    expected |= {f"q/{tag}": value if isinstance(value, bool) else value + 7 for tag, value in VALUES.items()}
    return [row for row in rig.shown.history if row[2] is not None and row[2] != expected[row[1]]]


def test_there_is_a_case_for_every_kind() -> None:
    assert {Kind(rule.partition(",")[0]) for _transport, rule in CASES} == set(Kind)


@pytest.mark.parametrize(("transport", "rule"), CASES)
def test_nothing_wrong_is_shown_and_it_is_well_again_afterwards(transport: str, rule: str) -> None:
    plc = held(transport)

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3)
        assert {quality for _value, quality in rig.shown.points.values()} == {"good"}
        plc.fault(f"{rule},unit=1")
        await asyncio.sleep(12)
        assert plc.faults.total > 3
        qualities = {quality for name, (_value, quality) in rig.shown.points.items() if name[0] == "p"}
        if rule in HARMLESS:
            assert qualities == {"good"}
        else:
            assert all(quality.startswith("bad") for quality in qualities), qualities
        plc.faults.clear()
        if "code=2" in rule:  # refused addresses are asked again every hour and after a reconnect
            plc.network.wire.close_by_peer()
        await asyncio.sleep(30)
        assert {quality for _value, quality in rig.shown.points.values()} == {"good"}, rig.shown.points

    rig = driven(site(transport), script, plc=plc)
    assert wrong(rig) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_mixture_of_all_faults_shows_nothing_wrong(transport: str) -> None:
    plc = held(transport)

    async def script(rig: Rig) -> None:
        # On a line later answers than twice the time-out are taken for others: see quality.yaml, exempt.
        rules = sorted(HARMLESS | HARMFUL - {"delay,time=900ms"} | {"delay,time=500ms"})
        for rule in rules:
            if transport in ONLY.get(Kind(rule.partition(",")[0]), TRANSPORTS):
                plc.fault(f"{rule},probability=4%")
        await asyncio.sleep(200)
        good = sum(quality == "good" for *_row, quality in rig.shown.history)
        assert good > 200

    rig = driven(site(transport), script, plc=plc)
    assert plc.faults.total > 50
    assert wrong(rig) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_lost_answer_to_a_write_is_not_called_a_failure(transport: str) -> None:
    """The register was written: to say that it was not would be a lie."""
    plc = held(transport)

    async def script(rig: Rig) -> None:
        await asyncio.sleep(2)
        plc.fault("drop,unit=1,function=6,count=1")
        result = await rig.command("p/sp", 99)
        assert result.outcome.value in {"unknown", "verified"}, result
        await asyncio.sleep(3)
        assert rig.shown.points["p/sp"] == (99, "good")
        plc.fault("silence,unit=1,function=6,count=1")
        result = await rig.command("p/sp", 44)
        assert result.outcome.value in {"unknown", "rejected"}, result
        await asyncio.sleep(3)
        assert rig.shown.points["p/sp"] == (99, "good"), "silence carries nothing out"

    driven(site(transport), script, plc=plc)
