"""The gateway as a Modbus server, read and written by clients that nobody here wrote; behind it a plant."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pymodbus.client import ModbusTcpClient

from drivers.modbus.wire.pdu import Table
from tests.peers import LOOPBACK, require
from tests.system.plant import Plant
from tests.system.process import Gateway
from tests.system.waiting import until

pytestmark = [pytest.mark.interop, pytest.mark.kills]

TABLE = Table.HOLDING_REGISTERS
TAGS: dict[str, Any] = {
    "level": {"at": "hr:104", "type": "uint16"},
    "temp": {"at": "hr:105", "type": "int16", "scale": 0.1, "invalid": [0x8000]},
    "sp": {"at": "hr:100", "type": "int16", "write": {"min": 0, "max": 3000, "verify": "readback"}},
    "far": {"at": "hr:102", "type": "float32", "write": {}},
    "pump": {"at": "co:0", "write": {}},
    "locked": {"at": "hr:110", "type": "uint16"},
}


def site(plant: Plant, **server: Any) -> dict[str, Any]:
    """One device southwards, a server with its points in another order and other types."""
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "1ms"},
        "links": {
            "plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "timeout": "300ms", "attempts": 1,
                    "reconnect": {"min": "50ms", "max": "200ms"}},
            "hmi": {"driver": "modbus", "role": "server", "listen": "127.0.0.1:0", **server},
        },
        "scan": {"fast": "100ms"},
        "devices": {"d1": {"link": "plc", "unit": 1, "defaults": {"scan": "fast"}, "tags": TAGS}},
        "expose": [
            {
                "link": "hmi",
                "unit": 7,
                "points": {
                    "d1/level": {"at": 40001, "type": "uint32", "order": "CDAB"},
                    "d1/temp": {"at": "hr:2", "type": "float32", "bad": {"value": -999}, "quality": "hr:4"},
                    "d1/sp": {"at": "hr:10", "type": "int16", "write": True},
                    "d1/far": {"at": "hr:11", "type": "float32", "write": True},
                    "d1/pump": {"at": "co:5", "write": True},
                    "d1/locked": {"at": "hr:20", "type": "uint16"},
                },
            }
        ],
    }  # fmt: skip


@pytest.fixture
def served(plant: Plant, make_gateway: Callable[..., Gateway]) -> Iterator[tuple[Gateway, ModbusTcpClient]]:
    """The gateway running, every point read once, and a pymodbus client connected."""
    gateway = make_gateway(site(plant))
    gateway.start()
    until(lambda: all(one["quality"] == "good" for one in gateway.points().values()), "every point is read")
    client = ModbusTcpClient(LOOPBACK, port=port_of(gateway), timeout=5)
    assert client.connect()
    yield gateway, client
    client.close()


def port_of(gateway: Gateway) -> int:
    """Where the server listens."""
    return int(server_of(gateway)["address"].rpartition(":")[2])


def server_of(gateway: Gateway) -> Any:
    """What the status says of it."""
    (one,) = gateway.status()["servers"]
    return one


def registers(client: ModbusTcpClient, address: int, count: int) -> list[int] | int:
    """Words, or the exception code."""
    answer = client.read_holding_registers(address, count=count, device_id=7)
    return answer.exception_code if answer.isError() else answer.registers


def test_points_show_as_registers_as_they_are_now(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:
    gateway, client = served
    plant._write(1, 104, 4321)
    plant._write(1, 105, 215)
    until(lambda: registers(client, 0, 2) == [4321, 0], "the level, words swapped")
    expected = list(struct.unpack(">2H", struct.pack(">f", 21.5)))
    until(lambda: registers(client, 2, 3) == [*expected, 0], "the temperature as a float, and its quality")
    assert registers(client, 0, 6) == 2, "hr:5 is nothing's"
    assert registers(client, 500, 1) == 2
    assert client.read_holding_registers(0, count=1, device_id=9).exception_code == 11, "no such unit"
    said = server_of(gateway)
    assert (said["state"], said["connections"], said["connections_limit"]) == ("up", 1, 64)
    assert said["requests_total"] > 4
    assert said["exceptions_total"]["2"] == 2
    assert 'gateway_server_connections{server="hmi"} 1' in gateway.get("/metrics").body.decode()


def test_a_bad_value_is_a_sentinel_or_an_exception_never_the_last_one(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:
    _gateway, client = served
    sentinel = list(struct.unpack(">2H", struct.pack(">f", -999)))
    plant._write(1, 105, 0x8000)
    until(lambda: registers(client, 2, 3) == [*sentinel, 2], "the device says: no value")
    plant.stop()
    until(lambda: registers(client, 0, 2) == 11, "the device is gone")
    assert registers(client, 2, 3) == [*sentinel, 2]


def test_writes_become_commands_and_say_what_became_of_them(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:
    gateway, client = served

    def write(address: int, *words: int) -> int:
        answer = client.write_registers(address, list(words), device_id=7)
        return int(answer.exception_code) if answer.isError() else 0

    assert write(10, 1500) == 0
    assert plant.read_registers(1, TABLE, 100, 1) == struct.pack(">H", 1500)
    assert client.write_register(10, 1600, device_id=7).isError() is False
    assert write(10, 4000) == 3, "beyond max"
    assert write(20, 1) == 2, "read-only"
    assert write(10, 5, *struct.unpack(">2H", struct.pack(">f", 2.5))) == 0, "two points in one request"
    assert plant.read_registers(1, TABLE, 100, 4)[4:] == struct.pack(">f", 2.5)
    assert write(11, 1) == 2, "half of a value"
    assert write(11, 0x7FC0, 0) == 3, "not a number"
    assert client.write_coil(5, True, device_id=7).isError() is False
    until(lambda: client.read_coils(5, count=1, device_id=7).bits[:1] == [True], "the coil reads back")
    plant.stop()
    until(lambda: write(10, 7) == 11, "the device is gone")
    commands = [(one["point"], one["value"]) for one in gateway.audit() if one.get("event") == "accepted"]
    assert ("d1/sp", 1500) in commands or commands == [], commands


def test_mbpoll_reads_and_writes_it(plant: Plant, served: tuple[Gateway, ModbusTcpClient]) -> None:
    gateway, client = served
    common = [require("mbpoll"), "-m", "tcp", "-p", str(port_of(gateway)), "-a", "7", "-0", "-1", "-q"]
    written = subprocess.run(  # noqa: PLW1510 - the code is looked at
        [*common, "-t", "4", "-r", "10", LOOPBACK, "1234"], capture_output=True, text=True
    )
    assert written.returncode == 0, written.stdout + written.stderr
    read = subprocess.run(
        [*common, "-t", "4", "-r", "10", LOOPBACK], capture_output=True, text=True, check=False
    )
    until(lambda: registers(client, 10, 1) == [1234], "the gateway has read it back")
    assert read.returncode == 0


def test_many_clients_and_requests_glued_together(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:

    gateway, _client = served
    request = bytes.fromhex("0001 0000 0006 07 03 0000 0002".replace(" ", ""))
    plugs = [socket.create_connection((LOOPBACK, port_of(gateway)), timeout=5) for _ in range(63)]
    try:
        one = plugs[0]
        one.sendall(b"".join(n.to_bytes(2, "big") + request[2:] for n in range(50)))
        answers = b""
        while len(answers) < 50 * 13:
            answers += one.recv(4096)
        assert [answers[at : at + 2] for at in range(0, len(answers), 13)] == [
            n.to_bytes(2, "big") for n in range(50)
        ]
        plugs[1].sendall(b"\xff" * 20)  # no Modbus: this connection ends, no other
        assert plugs[1].recv(100) == b""
        for other in plugs[2:]:
            other.sendall(request)
            assert other.recv(100)[:2] == b"\x00\x01"
        until(lambda: server_of(gateway)["connections"] == 63, "all but the rude one")
    finally:
        for plug in plugs:
            plug.close()


def test_a_reload_keeps_the_server_unless_it_changed(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:
    gateway, _client = served
    config = site(plant)
    config["links"]["hmi"]["listen"] = "127.0.0.1:0"
    config["publish"] = []
    config["devices"]["d1"]["tags"] = {**TAGS, "more": {"at": "hr:106", "type": "uint16"}}
    config["expose"][0]["points"]["d1/more"] = {"at": "hr:30", "type": "uint16"}
    gateway.configure(config)
    gateway.reload()
    fresh = ModbusTcpClient(LOOPBACK, port=port_of(gateway), timeout=5)
    assert fresh.connect()
    plant._write(1, 106, 99)
    until(lambda: registers(fresh, 30, 1) == [99], "the new point shows")
    fresh.close()


def test_a_reload_of_something_else_keeps_clients_and_a_device_that_moves_to_another_link_is_shown_from_there(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:
    gateway, client = served
    config = site(plant)
    device = config["devices"]["d1"]
    config["links"]["second"] = {**config["links"]["plc"], "socket": 2}
    config["devices"]["d2"] = {**device, "link": "second", "tags": {"level": TAGS["level"]}}
    gateway.configure(config)
    gateway.reload()
    plant._write(1, 104, 2222)
    until(lambda: registers(client, 0, 2) == [2222, 0], "over the connection that was there before")
    device["link"] = "second"
    gateway.configure(config)
    gateway.reload()
    fresh = ModbusTcpClient(LOOPBACK, port=port_of(gateway), timeout=5)
    assert fresh.connect()
    plant._write(1, 104, 3333)
    until(lambda: registers(fresh, 0, 2) == [3333, 0], "read over the other link")
    assert fresh.write_register(10, 44, device_id=7).isError() is False
    assert plant.read_registers(1, TABLE, 100, 1) == struct.pack(">H", 44)
    fresh.close()


def test_a_point_whose_device_is_gone_from_the_configuration_is_a_fault_and_the_server_goes_on(
    plant: Plant, served: tuple[Gateway, ModbusTcpClient]
) -> None:
    gateway, client = served
    config = site(plant)
    del config["devices"]["d1"]["tags"]["locked"]
    gateway.configure(config)
    assert "d1/locked" in gateway.reload()
    plant._write(1, 104, 77)
    until(lambda: registers(client, 0, 2) == [77, 0], "what runs goes on")
    del config["expose"][0]["points"]["d1/locked"]
    gateway.configure(config)
    gateway.reload()
    fresh = ModbusTcpClient(LOOPBACK, port=port_of(gateway), timeout=5)
    assert fresh.connect()
    until(lambda: registers(fresh, 20, 1) == 2, "nothing is there any more")
    fresh.close()
