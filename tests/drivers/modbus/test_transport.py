"""What a link's configuration becomes: its cost on a line, broadcasts, certificates, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from drivers.modbus.assemble import LinkParts, compile_link, make_driver
from drivers.modbus.driver import ModbusDriver
from drivers.modbus.wire import rtu
from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import LinkState
from gateway.aio.loop import loop_factory
from gateway.app.compiled import compile_site, fingerprint
from gateway.app.plan import link_costs
from gateway.config.load import ConfigErrors, load
from gateway.config.site import Site
from tests.aio.memory import until
from tests.aio.ports import Port
from tests.certificates import Authority
from tests.config.kinds import kinds
from tests.drivers.modbus.rig import parts_of
from tests.drivers.modbus.test_driver_interop import Last, command

HEAD = "version: 1\ngateway: {name: g}\n"
ONE = "\ndevices: {d: {link: plc, unit: %s, tags: {%s}}}\n"
WORD = 'w: {at: "hr:0", type: uint16, scan: normal}'


def site_of(folder: Path, text: str) -> Site:
    (folder / "gateway.yaml").write_text(HEAD + text)
    return load(folder, kinds())


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    port = Port(tmp_path / "adapter")
    yield port
    port.unplug()


def driven(site: str, script: Callable[[ModbusDriver, Last], Awaitable[None]]) -> None:
    async def main() -> None:
        last = Last()
        driver = make_driver(parts_of(site), sink=last, clock=SystemClock())
        task = asyncio.get_running_loop().create_task(driver.run())
        try:
            async with asyncio.timeout(10):
                await script(driver, last)
        finally:
            task.cancel()
            await asyncio.wait([task])

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


# Costs


def test_plan_knows_how_long_frames_keep_a_line_busy(tmp_path: Path) -> None:
    """One register a second at 9600-8E1: 8 + 7 characters of 11 bits, and 3.5 before each frame."""
    link = (
        "links: {plc: {driver: modbus, transport: rtu, port: /dev/no-such-port, serial: 9600-8E1, gap: 10ms}}"
    )
    site = site_of(tmp_path, link + ONE % (1, WORD))
    (cost,) = link_costs(compile_site(site), answer_ns=5_000_000)
    assert cost.peer == "/dev/no-such-port 9600-8E1"
    (scan,) = cost.classes
    assert scan.bytes == 15
    assert scan.wire_ns == pytest.approx((15 + 7) * 11 / 9600 * 1e9, rel=1e-5)
    assert cost.utilisation == pytest.approx(22 * 11 / 9600 + 0.005 + 0.010, rel=1e-5)


def test_ascii_frames_are_twice_as_long_and_a_network_has_no_time_of_its_own(tmp_path: Path) -> None:
    link = "links: {plc: {driver: modbus, transport: ascii, port: /dev/no-such-port, serial: 9600-7E1}}"
    (cost,) = link_costs(compile_site(site_of(tmp_path, link + ONE % (1, WORD))), answer_ns=0)
    # A colon, two characters each for address, PDU and LRC, CR and LF: 17 asked, 15 answered.
    assert cost.classes[0].bytes == 32
    assert cost.classes[0].wire_ns == pytest.approx(32 * 10 / 9600 * 1e9, rel=1e-5)
    link = "links: {plc: {driver: modbus, transport: rtu_over_tcp, host: 10.0.0.1}}"
    (cost,) = link_costs(compile_site(site_of(tmp_path, link + ONE % (1, WORD))), answer_ns=0)
    assert (cost.classes[0].bytes, cost.utilisation) == (15, 0)


# Broadcasts

LINE = "links: {plc: {driver: modbus, transport: rtu, port: %s, serial: 115200-8N1, turnaround: 10ms}}"


def problems_of(device: str) -> list[str]:
    return [str(one) for one in parts_of(LINE % "/dev/no-such-port" + "\ndevices: " + device).problems]


def test_a_write_to_unit_0_of_a_line_goes_to_all_and_nothing_is_read_from_it(port: Port) -> None:
    tag = 'w: {at: "hr:16", type: uint16, write: {}}'

    async def script(driver: ModbusDriver, last: Last) -> None:
        await until(lambda: driver.endpoint.state is LinkState.UP)
        assert not list(driver.schedule.entries())  # nothing will ever be read
        result = await command(driver, "w", 7)
        assert (result.outcome.value, result.reason) == (
            "unknown",
            "sent to all slaves, and none of them confirms it",
        )

    driven(LINE % port.path + ONE % (0, tag), script)
    assert port.heard() == rtu.encode(0, bytes.fromhex("06 0010 0007"))


def test_a_tag_of_unit_0_that_would_be_read_is_refused() -> None:
    device = '{all: {link: plc, unit: 0, tags: {w: {at: "hr:1", type: uint16}}}}'
    (said,) = problems_of(device)
    assert "a tag of unit 0, which is all slaves of the line and answers nothing" in said
    device = '{all: {link: plc, unit: 0, tags: {w: {at: "hr:1", type: uint16, write: {verify: readback}}}}}'
    (said,) = problems_of(device)
    assert "readback of unit 0" in said
    device = '{all: {link: plc, unit: 0, bit_write: rmw, tags: {w: {at: "hr:1", bit: 2, write: {}}}}}'
    (said,) = problems_of(device)
    assert "cannot be read first" in said
    tcp = "links: {plc: {driver: modbus, host: 10.0.0.1}}" + ONE % (0, WORD)
    assert parts_of(tcp).problems == ()  # there it is a unit like any other


# Serial ports


def test_a_port_that_is_not_there_makes_points_bad_and_says_so(tmp_path: Path) -> None:
    async def script(driver: ModbusDriver, last: Last) -> None:
        await last.until(lambda: last.points.get("d/w") == (None, "bad/comm-lost"))
        assert driver.offline_reason("d").startswith(f"no such port: {tmp_path}/gone (")

    driven(LINE % (tmp_path / "gone") + ONE % (1, WORD), script)


def test_two_names_of_one_port_are_one_wire_where_the_port_is(tmp_path: Path, port: Port) -> None:
    link = "{driver: modbus, transport: rtu, port: %s, serial: 9600-8N1}"
    target = port.path.resolve()
    with pytest.raises(ConfigErrors) as caught:
        site_of(tmp_path, f"links: {{a: {link % port.path}, b: {link % target}}}")
    assert f"a second owner of the wire serial {target}" in str(caught.value.errors)


# Certificates


def tls_parts(folder: Path, ca: Path, cert: Path, key: Path) -> LinkParts:
    files = f"ca: {ca}, cert: {cert}, key_file: {key}"
    link = f"links: {{plc: {{driver: modbus, transport: tls, host: 10.0.0.1, {files}}}}}"
    site = site_of(folder, link + ONE % (1, WORD))
    assert site.links["plc"].model.peer() == "10.0.0.1:802"
    return compile_link(site.links["plc"], list(site.devices.values()), site.scans)


def test_certificates_are_tried_before_anything_is_opened(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "site")
    cert, key = authority.issue("us")
    _other, wrong = authority.issue("them")
    good = tls_parts(tmp_path, authority.file, cert, key)
    assert good.problems == ()
    assert good.tls is not None
    (fault,) = tls_parts(tmp_path, authority.file, cert, wrong).problems
    assert fault.path == ("links", "plc", "cert")
    assert "which do not work together" in fault.found
    (fault,) = tls_parts(tmp_path, key, cert, key).problems
    assert fault.path == ("links", "plc", "ca")


def test_a_link_is_made_anew_when_its_certificate_says_something_else(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "site")
    cert, key = authority.issue("us")
    link = (
        f"links: {{plc: {{driver: modbus, transport: tls, host: 10.0.0.1, cert: {cert}, key_file: {key}}}}}"
    )
    site = site_of(tmp_path, link + ONE % (1, WORD))
    before = fingerprint(site, "plc")
    assert fingerprint(site, "plc") == before
    authority.issue("us")
    assert fingerprint(site, "plc") != before
