"""The gateway as a server on every kind of wire at once, asked by pymodbus; one plant behind it."""

from __future__ import annotations

import select
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.client import ModbusSerialClient, ModbusTcpClient, ModbusTlsClient, ModbusUdpClient

from drivers.modbus.wire import ascii as ascii_
from drivers.modbus.wire import rtu
from drivers.modbus.wire.pdu import Table
from tests.certificates import Authority
from tests.peers import LOOPBACK, require
from tests.system.plant import Plant
from tests.system.process import Gateway
from tests.system.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.kills]

HOLDING = Table.HOLDING_REGISTERS
UNIT = 7


class Line:
    """A wire with two ends, of which the gateway has one, by socat."""

    def __init__(self, folder: Path, name: str) -> None:
        self.near, self.far = folder / f"{name}-near", folder / f"{name}-far"
        ends = [f"pty,raw,echo=0,link={path}" for path in (self.near, self.far)]
        self._socat = subprocess.Popen([require("socat"), *ends])
        until(lambda: self.near.exists() and self.far.exists(), "the line is there")

    def cut(self) -> None:
        self._socat.terminate()
        self._socat.wait()


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[dict[str, Line]]:
    found = {name: Line(tmp_path, name) for name in ("rtu", "ascii")}
    yield found
    for line in found.values():
        line.cut()


def site(plant: Plant, authority: Authority, lines: dict[str, Line]) -> dict[str, Any]:
    """One device, and the same points on five servers."""
    certificate, key = authority.issue("gateway")
    servers: dict[str, dict[str, Any]] = {
        "tls": {
            "listen": "127.0.0.1:0",
            "ca": str(authority.file),
            "cert": str(certificate),
            "key_file": str(key),
            "roles": {"Operator": "write", "Viewer": "read"},
        },
        "udp": {"listen": "127.0.0.1:0", "connections": 2},
        "rtu_over_tcp": {"listen": "127.0.0.1:0"},
        "rtu": {"port": str(lines["rtu"].near), "serial": "115200-8N1"},
        "ascii": {"port": str(lines["ascii"].near), "serial": "115200-8N1"},
    }
    tags = {
        "level": {"at": "hr:104", "type": "uint16"},
        "sp": {"at": "hr:100", "type": "int16", "write": {"min": 0, "max": 3000}},
    }
    points = {
        "d1/level": {"at": "hr:0", "type": "uint16"},
        "d1/sp": {"at": "hr:10", "type": "int16", "write": True},
    }
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "1ms"},
        "links": {
            "plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "timeout": "300ms", "attempts": 1},
            **{
                name: {"driver": "modbus", "role": "server", "transport": name, **keys}
                for name, keys in servers.items()
            },
        },
        "scan": {"fast": "50ms"},
        "devices": {"d1": {"link": "plc", "unit": 1, "defaults": {"scan": "fast"}, "tags": tags}},
        "expose": [{"link": name, "unit": UNIT, "points": points} for name in servers],
    }


class Served:
    """A gateway with its servers, and how to get to them."""

    def __init__(self, gateway: Gateway, authority: Authority, lines: dict[str, Line]) -> None:
        self.gateway = gateway
        self.authority = authority
        self.lines = lines

    def server(self, name: str) -> Any:
        """What the status says of one."""
        return next(one for one in self.gateway.status()["servers"] if one["name"] == name)

    def port(self, name: str) -> int:
        """Where one listens."""
        return int(self.server(name)["address"].rpartition(":")[2])

    def over_tls(self, name: str, *, role: str = "") -> ModbusTlsClient:
        """Connected with a certificate of that role."""
        certificate, key = self.authority.issue(name, role=role)
        context = ssl.create_default_context(cafile=str(self.authority.file))
        context.check_hostname = False
        context.load_cert_chain(certificate, key)
        client = ModbusTlsClient(LOOPBACK, port=self.port("tls"), sslctx=context, timeout=5)
        assert client.connect()
        return client


@pytest.fixture
def served(
    plant: Plant, make_gateway: Callable[..., Gateway], tmp_path: Path, lines: dict[str, Line]
) -> Served:
    authority = Authority(tmp_path, "plant")
    gateway = make_gateway(site(plant, authority, lines))
    gateway.start()
    until(lambda: all(one["quality"] == "good" for one in gateway.points().values()), "every point is read")
    return Served(gateway, authority, lines)


def read(client: Any, address: int = 0, count: int = 1) -> list[int] | int:
    """Words, or the exception code."""
    answer = client.read_holding_registers(address, count=count, device_id=UNIT)
    return answer.exception_code if answer.isError() else answer.registers


def write(client: Any, value: int) -> int:
    """0, or the exception code."""
    answer = client.write_register(10, value, device_id=UNIT)
    return answer.exception_code if answer.isError() else 0


def setpoint(plant: Plant) -> int:
    """As the device has it."""
    found = plant.read_registers(1, HOLDING, 100, 1)
    assert isinstance(found, bytes)
    return int.from_bytes(found, "big")


def reads_and_writes(plant: Plant, client: Any, value: int) -> None:
    plant._write(1, 104, value)
    until(lambda: read(client) == [value], "the level")
    assert read(client, 5) == 2
    assert write(client, value) == 0
    assert setpoint(plant) == value
    assert write(client, 3001) == 3, "beyond max"


def test_a_role_may_what_the_configuration_says_and_nobody_else_anything(
    plant: Plant, served: Served
) -> None:
    operator = served.over_tls("ann", role="Operator")
    viewer = served.over_tls("bob", role="Viewer")
    reads_and_writes(plant, operator, 1234)
    assert read(viewer) == [1234]
    assert write(viewer, 5) == 1
    for stranger in (served.over_tls("eve", role="operator"), served.over_tls("mallory")):
        assert (read(stranger), write(stranger, 5)) == (1, 1)
        stranger.close()
    assert setpoint(plant) == 1234
    assert served.server("tls")["exceptions_total"]["1"] == 5
    operator.close()
    viewer.close()


def test_over_udp_a_client_that_left_makes_room_for_the_next(plant: Plant, served: Served) -> None:
    for value in range(900, 905):  # two are let in at once, and none of them says good bye
        client = ModbusUdpClient(LOOPBACK, port=served.port("udp"), timeout=5)
        assert client.connect()
        reads_and_writes(plant, client, value)
        client.close()
    assert served.server("udp")["connections"] == 2
    assert served.server("udp")["refused_total"] == 0


def test_rtu_over_tcp(plant: Plant, served: Served) -> None:
    client = ModbusTcpClient(LOOPBACK, port=served.port("rtu_over_tcp"), framer=FramerType.RTU, timeout=5)
    assert client.connect()
    reads_and_writes(plant, client, 77)
    client.close()


@pytest.mark.parametrize("mode", ["rtu", "ascii"])
def test_a_slave_on_a_serial_line(mode: str, plant: Plant, served: Served) -> None:
    line = served.lines[mode]
    framer = FramerType.ASCII if mode == "ascii" else FramerType.RTU
    client = ModbusSerialClient(str(line.far), baudrate=115_200, timeout=2, retries=0, framer=framer)
    assert client.connect()
    reads_and_writes(plant, client, 321)
    identity = client.read_device_information(device_id=UNIT).information
    assert (identity[0], identity[1]) == (b"Edge Gateway", b"edge-gateway")
    client.write_register(10, 55, device_id=0, no_response_expected=True)
    until(lambda: setpoint(plant) == 55, "a broadcast is a command too")
    client.close()


def test_the_delimiter_of_an_ascii_line_changes_where_a_master_says_so(served: Served) -> None:
    change = ascii_.encode(UNIT, bytes.fromhex("08 0003 2300"))  # to "#", clause 6.8.1
    unknown = ascii_.encode(UNIT, bytes.fromhex("63"))
    with served.lines["ascii"].far.open("r+b", buffering=0) as wire:
        wire.write(change)
        assert _line_of(wire) == change
        wire.write(unknown.replace(b"\n", b"#"))
        assert _line_of(wire) == ascii_.encode(UNIT, b"\xe3\x01")


def _line_of(wire: Any) -> bytes:
    heard = b""
    while not heard.endswith(b"\n"):
        assert select.select([wire], [], [], 5)[0], f"heard only {heard!r}"
        heard += wire.read(64)
    return heard


def test_a_slave_among_others_answers_only_for_itself(plant: Plant, served: Served) -> None:
    """mbpoll asks; another slave, which is only its bytes, answers on the same wire."""
    line = served.lines["rtu"]
    common = [require("mbpoll"), "-m", "rtu", "-b", "115200", "-P", "none", "-0", "-1", "-q", "-t", "4"]
    other = rtu.encode(9, bytes.fromhex("03 02 1234"))
    with line.far.open("wb", buffering=0) as wire:
        wire.write(rtu.encode(9, bytes.fromhex("03 0000 0001")))
        wire.write(other)
    plant._write(1, 104, 4711)
    client = ModbusSerialClient(str(line.far), baudrate=115_200, timeout=2, retries=0)
    assert client.connect()
    until(lambda: read(client) == [4711], "the level")
    client.close()
    done = subprocess.run(
        [*common, "-a", str(UNIT), "-r", "0", str(line.far)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4711" in done.stdout
    silent = subprocess.run(
        [*common, "-a", "9", "-r", "0", "-o", "0.3", str(line.far)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "timed out" in (silent.stdout + silent.stderr).lower()
