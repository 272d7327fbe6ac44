"""The whole driver on every transport, against pymodbus' servers: serial over socat's pseudo-terminals."""

from __future__ import annotations

import asyncio
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.modbus.assemble import make_driver
from drivers.modbus.driver import ModbusDriver
from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import LinkState
from gateway.aio.loop import loop_factory
from tests.aio.memory import until
from tests.certificates import Authority
from tests.drivers.modbus.rig import parts_of
from tests.drivers.modbus.test_driver_interop import Last, command
from tests.peers import LOOPBACK, READY_S, free_port, require

pytestmark = pytest.mark.interop

UNIT = 17
TAGS = """
      first: {at: "hr:0", type: uint16}
      last: {at: "hr:119", type: uint16, write: {verify: readback}}
      pair: {at: "hr:60", type: int32, write: {verify: readback}}
      input: {at: "ir:5", type: uint16}
      coil: {at: "co:9", write: {verify: readback}}
      contact: {at: "di:39"}
      nowhere: {at: "hr:900", type: uint16}
"""
TRUTH = {
    "d/first": (1000, "good"),
    "d/last": (1119, "good"),
    "d/pair": ((1060 << 16) + 1061, "good"),
    "d/input": (500, "good"),
    "d/coil": (True, "good"),
    "d/contact": (False, "good"),
    "d/nowhere": (None, "bad/no-such-address"),
}


class Cable:
    """Two serial ports that are connected to each other, by socat; `cut` unplugs our end, and theirs."""

    def __init__(self, folder: Path) -> None:
        self.ours = folder / "ours"
        self.theirs = folder / "theirs"
        self._process: subprocess.Popen[bytes] | None = None

    def plug(self) -> None:
        """Both ports are there when this returns."""
        ends = [f"pty,raw,echo=0,link={path}" for path in (self.ours, self.theirs)]
        program = [require("socat"), "-d", "-d", *ends]
        self._process = subprocess.Popen(program, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        said = b""
        assert self._process.stderr is not None
        while b"starting data transfer loop" not in said:
            line = self._process.stderr.readline()
            assert line, said
            said += line

    def cut(self) -> None:
        """Both adapters are pulled out."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate(timeout=READY_S)
            self._process = None


@pytest.fixture
def cable(tmp_path: Path) -> Iterator[Cable]:
    cable = Cable(tmp_path)
    cable.plug()
    yield cable
    cable.cut()


def device() -> Any:
    """Unit 17: 120 holding registers from 1000 up, inputs in hundreds, every third coil on."""
    require("pymodbus")
    from pymodbus.simulator import DataType, SimData, SimDevice

    coils = SimData(0, values=[n % 3 == 0 for n in range(40)], datatype=DataType.BITS)
    inputs = SimData(0, values=[n % 2 == 0 for n in range(40)], datatype=DataType.BITS)
    holding = SimData(0, values=list(range(1000, 1120)), datatype=DataType.REGISTERS)
    readings = SimData(0, values=[n * 100 for n in range(40)], datatype=DataType.REGISTERS)
    return SimDevice(id=UNIT, simdata=([coils], [inputs], [holding], [readings]))


@asynccontextmanager
async def serial_slave(port: Path, framer: str) -> AsyncIterator[Any]:
    from pymodbus import FramerType
    from pymodbus.server import ModbusSerialServer

    server = ModbusSerialServer(device(), framer=FramerType(framer), port=str(port), baudrate=115200)
    task = asyncio.get_running_loop().create_task(server.serve_forever(background=False))
    try:
        yield server
    finally:
        await server.shutdown()
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def network_server(kind: str, **options: Any) -> AsyncIterator[int]:
    from pymodbus import FramerType, server

    made: Any
    if kind == "udp":
        made = server.ModbusUdpServer(device(), address=(LOOPBACK, 0))
    elif kind == "tls":
        made = server.ModbusTlsServer(device(), address=(LOOPBACK, 0), framer=FramerType.TLS, **options)
    else:
        made = server.ModbusTcpServer(device(), address=(LOOPBACK, 0), framer=FramerType(kind))
    await made.listen()
    try:
        if kind == "udp":
            yield made.transport.get_extra_info("sockname")[1]
        else:
            yield made.transport.sockets[0].getsockname()[1]
    finally:
        await made.shutdown()


@asynccontextmanager
async def driving(
    link: str, *, patience: str = "1s", tags: str = TAGS
) -> AsyncIterator[tuple[ModbusDriver, Last]]:
    site = (
        f"links: {{plc: {{driver: modbus, timeout: {patience},"
        f" reconnect: {{min: 10ms, max: 50ms}}, {link}}}}}\n"
        f"scan: {{normal: 20ms}}\ndevices:\n  d:\n    link: plc\n    unit: {UNIT}\n    max_hole: 0\n"
        f"    tags:{tags}"
    )
    parts = parts_of(site)
    assert parts.problems == ()
    last = Last()
    driver = make_driver(parts, sink=last, clock=SystemClock())
    task = asyncio.get_running_loop().create_task(driver.run())
    try:
        yield driver, last
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(bounded())


async def reads_and_writes(driver: ModbusDriver, last: Last) -> None:
    await last.until(lambda: last.points == TRUTH)
    for tag, value in (("last", 0), ("pair", -2), ("coil", False)):
        result = await command(driver, tag, value)
        assert (tag, result.outcome.value, result.value) == (tag, "verified", value), result.reason
    await last.until(lambda: last.points["d/pair"] == (-2, "good"))
    assert driver.session.counters.mismatched == 0


@pytest.mark.parametrize(("transport", "line"), [("rtu", "115200-8N1"), ("ascii", "115200-8N1")])
def test_a_slave_on_a_serial_line_is_read_and_written(cable: Cable, transport: str, line: str) -> None:
    async def main() -> None:
        async with (
            serial_slave(cable.theirs, transport),
            driving(f"transport: {transport}, port: {cable.ours}, serial: {line}") as (driver, last),
        ):
            await reads_and_writes(driver, last)
            assert driver.session.counters.check_errors == 0

    run(main)


@pytest.mark.parametrize("framer", ["rtu", "ascii"])
def test_a_slave_behind_a_serial_device_server_is_read_and_written(framer: str) -> None:
    async def main() -> None:
        async with (
            network_server(framer) as port,
            driving(f'transport: {framer}_over_tcp, host: "{LOOPBACK}:{port}"') as (driver, last),
        ):
            await reads_and_writes(driver, last)

    run(main)


def test_a_server_is_read_and_written_by_datagrams() -> None:
    async def main() -> None:
        async with (
            network_server("udp") as port,
            driving(f'transport: udp, host: "{LOOPBACK}:{port}"') as (driver, last),
        ):
            await reads_and_writes(driver, last)

    run(main)


def test_adapters_that_are_pulled_out_and_plugged_in_again(cable: Cable) -> None:
    link = f"transport: rtu, port: {cable.ours}, serial: 115200-8N1"

    async def main() -> None:
        async with driving(link) as (driver, last):
            async with serial_slave(cable.theirs, "rtu"):
                await last.until(lambda: last.points == TRUTH)
            cable.cut()
            await last.until(lambda: last.points["d/first"] == (None, "bad/comm-lost"))
            assert {quality for _value, quality in last.points.values()} == {"bad/comm-lost"}
            await until(lambda: bool(driver.endpoint.last_error))
            reason = driver.offline_reason("d")
            assert re.match(r"the port is gone|no such port", reason), reason
            refused = await command(driver, "last", 1)
            assert refused.outcome.value == "rejected"
            assert re.match(r"link plc is down: (the port is gone|no such port)", refused.reason), (
                refused.reason
            )
            cable.plug()
            async with serial_slave(cable.theirs, "rtu"):
                await last.until(lambda: last.points == TRUTH)
            assert driver.endpoint.traffic.losses == 1

    run(main)


def test_a_slave_that_falls_silent_is_lost_and_comes_back(cable: Cable) -> None:
    link = f"transport: rtu, port: {cable.ours}, serial: 115200-8N1"

    async def main() -> None:
        async with driving(link, patience="50ms") as (driver, last):
            async with serial_slave(cable.theirs, "rtu"):
                await last.until(lambda: last.points == TRUTH)
            await last.until(lambda: last.points["d/first"] == (None, "bad/comm-lost"))
            assert driver.endpoint.state is LinkState.UP  # the port is there, the slave is not

    run(main)


# TLS


def files(authority: Authority, name: str) -> str:
    cert, key = authority.issue(name)
    return f"ca: {authority.file}, cert: {cert}, key_file: {key}"


@contextmanager
def server_context(authority: Authority) -> Iterator[ssl.SSLContext]:
    cert, key = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    yield context


def test_a_server_is_read_and_written_over_tls_and_both_sides_show_certificates(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "site")

    link = f"transport: tls, {files(authority, 'us')}"

    async def main() -> None:
        with server_context(authority) as context:
            async with (
                network_server("tls", sslctx=context) as port,
                driving(f'{link}, host: "{LOOPBACK}:{port}"') as (driver, last),
            ):
                await reads_and_writes(driver, last)

    run(main)


def test_a_server_that_is_not_who_it_should_be_is_named_and_gets_no_request(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours, stranger = Authority(tmp_path / "a", "site"), Authority(tmp_path / "b", "stranger")
    link = f"transport: tls, {files(ours, 'us')}"

    async def said(of: Authority, more: str = "") -> str:
        with server_context(of) as context:
            async with (
                network_server("tls", sslctx=context) as port,
                driving(f'{link}, host: "{LOOPBACK}:{port}"{more}') as (driver, _last),
            ):
                await until(lambda: bool(driver.endpoint.last_error))
                assert driver.session.counters.requests == 0
                return driver.endpoint.last_error

    async def main() -> None:
        assert (await said(stranger)).startswith("TLS certificate refused: ")
        assert "plc.example" in await said(ours, ", server_name: plc.example")

    run(main)


@pytest.mark.parametrize("version", ["TLS1.2", "TLS1.3"])
def test_a_server_behind_another_tls_end_is_read_and_written(tmp_path: Path, version: str) -> None:
    """socat with OpenSSL's own checks in front of a plain server: it takes our certificate only."""
    authority = Authority(tmp_path, "site")
    cert, key = authority.issue("front")
    link = f"transport: tls, {files(authority, 'us')}"

    async def main() -> None:
        async with network_server("socket") as plain:
            port = free_port()
            options = (
                f"bind={LOOPBACK},fork,reuseaddr,cert={cert},key={key},cafile={authority.file},verify=1,"
                f"openssl-min-proto-version={version},openssl-max-proto-version={version}"
            )
            ends = (f"OPENSSL-LISTEN:{port},{options}", f"TCP:{LOOPBACK}:{plain}")
            front = await asyncio.create_subprocess_exec(require("socat"), *ends, stderr=subprocess.DEVNULL)
            try:
                async with driving(f'{link}, host: "{LOOPBACK}:{port}"') as (driver, last):
                    await reads_and_writes(driver, last)
            finally:
                front.terminate()
                await front.wait()

    run(main)
