"""The simulator as a process: readiness, its lines, exit codes; clients nobody here wrote."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from drivers.modbus.simulator.faults import Faults, parse
from gateway.app.simulate.board import Board
from gateway.app.simulate.screen import Prompt
from tests.app.simulator import Done, gateway, simulator
from tests.certificates import Authority
from tests.peers import require

DEMO = str(Path(__file__).parents[2] / "configs/demo")
MAP = """
templates:
  pump:
    tags:
      speed: {at: "hr:0", type: float32, order: CDAB, unit: rpm}
      sp:    {at: "hr:10", type: uint16, write: {min: 0, max: 3000}}
      run:   {at: "co:3", write: {}}
      state: {at: "ir:7", type: uint16, enum: {1: a, 2: b}}
  meter:
    tags: {energy: {at: "ir:0", type: uint32, unit: kWh}}
"""


def site(links: str, devices: str) -> str:
    return f"version: 1\ngateway: {{name: g}}\nlinks: {{{links}}}\n{MAP}\ndevices: {{{devices}}}\n"


@pytest.fixture
def map_file(tmp_path: Path) -> str:
    path = tmp_path / "pump.yaml"
    path.write_text(MAP)
    return str(path)


def mbpoll(*arguments: str) -> str:
    done = subprocess.run(
        ["mbpoll", "-0", "-1", "-q", *arguments], capture_output=True, text=True, timeout=20, check=False
    )
    return done.stdout + done.stderr


def run(*arguments: str) -> Done:
    """One that ends before it serves anything."""
    return gateway("simulate", "modbus", *arguments, columns=200)


@pytest.mark.interop
def test_mbpoll_reads_and_writes_a_file_of_templates_over_tcp(map_file: str) -> None:
    require("mbpoll")
    with simulator("--map", map_file, "--listen", "127.0.0.1:0", "--seed", "3") as running:
        tcp = ("-m", "tcp", "-p", str(running.port), "127.0.0.1")
        speed = re.search(r"\[0\]:\s+(\S+)", mbpoll("-a", "1", "-r", "0", "-t", "4:float", *tcp))
        assert speed
        assert 500 < float(speed[1]) < 1900
        assert "Written 1 references" in mbpoll("-a", "1", "-r", "10", "-t", "4", *tcp, "1234")
        assert re.search(r"\[10\]:\s+1234", mbpoll("-a", "1", "-r", "10", "-t", "4", *tcp))
        assert "Written 1 references" in mbpoll("-a", "1", "-r", "3", "-t", "0", *tcp, "1")
        assert re.search(r"\[3\]:\s+1", mbpoll("-a", "1", "-r", "3", "-t", "0", *tcp))
        assert "Illegal data address" in mbpoll("-a", "1", "-r", "11", "-t", "4", *tcp)
        assert re.search(r"\[0\]:", mbpoll("-a", "2", "-r", "0", "-t", "3:int", *tcp))
        # what is typed takes effect
        assert running.tell("set pump/speed 77.5") == "pump/speed = 77.5, until `release pump/speed`"
        assert re.search(r"\[0\]:\s+77.5", mbpoll("-a", "1", "-r", "0", "-t", "4:float", *tcp))
        assert running.tell("fault exception,unit=2,code=6") == "fault 1: kind=exception,unit=2,code=6"
        assert "busy" in mbpoll("-a", "2", "-r", "0", "-t", "3", *tcp).lower()
        assert running.tell("faults") == "1: kind=exception,unit=2,code=6 (struck 1)"
        assert running.tell("clear 1") == "1 gone"
        assert re.search(r"\[0\]:", mbpoll("-a", "2", "-r", "0", "-t", "3", *tcp))


@pytest.mark.interop
def test_mbpoll_on_a_pseudo_terminal_and_a_wrong_crc(map_file: str) -> None:
    require("mbpoll")
    with simulator("--map", map_file, "--pty") as running:
        line = ("-m", "rtu", "-b", "19200", "-P", "none", running.addresses[0])
        assert re.search(r"\[0\]:", mbpoll("-a", "1", "-r", "0", "-c", "2", "-t", "4", *line))
        assert "Written 1 references" in mbpoll("-a", "1", "-r", "10", "-t", "4", *line, "42")
        assert re.search(r"\[10\]:\s+42", mbpoll("-a", "1", "-r", "10", "-t", "4", *line))
        running.tell("fault crc,unit=1")
        assert "CRC" in mbpoll("-a", "1", "-r", "0", "-t", "4", *line)


@pytest.mark.interop
@pytest.mark.parametrize("transport", ["tcp", "udp", "rtu_over_tcp", "ascii_over_tcp", "tls", "ascii"])
def test_pymodbus_reads_and_writes_on_every_transport(transport: str, map_file: str, tmp_path: Path) -> None:
    require("pymodbus")
    from pymodbus import FramerType
    from pymodbus.client import (
        AsyncModbusSerialClient,
        AsyncModbusTcpClient,
        AsyncModbusTlsClient,
        AsyncModbusUdpClient,
    )

    framer = {"rtu_over_tcp": FramerType.RTU, "ascii_over_tcp": FramerType.ASCII, "ascii": FramerType.ASCII}
    more = ["--listen", "127.0.0.1:0"]
    if transport == "ascii":
        more = ["--pty"]
    if transport == "tls":
        authority = Authority(tmp_path, "authority")
        (cert, key), ours = authority.issue("plc"), authority.issue("client")
        more += ["--cert", str(cert), "--key", str(key), "--ca", str(authority.file)]

    async def talk(address: str) -> None:
        host, _, port = address.rpartition(":")
        if transport == "udp":
            client = AsyncModbusUdpClient(host, port=int(port), timeout=3)
        elif transport == "ascii":
            client = AsyncModbusSerialClient(
                address, framer=FramerType.ASCII, baudrate=19200, parity="N", timeout=3
            )
        elif transport == "tls":
            context = ssl.create_default_context(cafile=authority.file)
            context.load_cert_chain(*ours)
            client = AsyncModbusTlsClient(host, port=int(port), sslctx=context, timeout=3)
        else:
            client = AsyncModbusTcpClient(
                host, port=int(port), framer=framer.get(transport, FramerType.SOCKET), timeout=3
            )
        assert await client.connect()
        try:
            assert len((await client.read_holding_registers(0, count=2, device_id=1)).registers) == 2
            assert not (await client.write_registers(10, [321], device_id=1)).isError()
            assert (await client.read_holding_registers(10, count=1, device_id=1)).registers == [321]
            assert not (await client.write_coil(3, True, device_id=1)).isError()
            assert (await client.read_coils(3, count=1, device_id=1)).bits[0]
            assert (await client.read_holding_registers(500, count=1, device_id=1)).exception_code == 2
            found = await client.read_device_information(device_id=1)
            assert found.information[1] == b"simulator"
        finally:
            if client.ctx.transport is not None:
                client.ctx.transport.abort()  # `close` alone leaves it to a loop that ends
            client.close()
            for _ in range(3):  # turns of the loop until the socket is closed
                await asyncio.sleep(0)

    with simulator("--map", map_file, "--transport", transport, *more) as running:
        asyncio.run(talk(running.addresses[0]))


def test_every_link_of_a_configuration_is_served_where_it_belongs(tmp_path: Path) -> None:
    links = (
        "a: {driver: modbus, host: 10.9.9.9}, "
        "b: {driver: modbus, transport: rtu, port: /dev/ttyNONE, serial: 9600-8N1}"
    )
    devices = "p: {link: a, unit: 1, use: pump}, q: {link: b, unit: 1, use: meter}"
    (tmp_path / "gateway.yaml").write_text(site(links, devices))
    with simulator("--config", str(tmp_path), "--listen", "127.0.0.1:0", links=2) as running:
        assert [address[:9] for address in running.addresses] == ["127.0.0.1", "127.0.0.1"]
    with simulator("--config", str(tmp_path), "--link", "b") as running:
        assert running.addresses[0].startswith("/dev/pts/")
    done = run("--config", str(tmp_path), "--link", "c")
    assert (done.returncode, done.stderr) == (78, "--link: found 'c', expected a or b\n")


def test_a_map_by_its_name_and_by_its_file() -> None:
    for source in ("eastron-sdm120", "translation_maps/modbus/eastron-sdm120.yaml"):
        with simulator("--map", source, "--listen", "127.0.0.1:0") as running:
            assert running.tell("set eastron-sdm120/voltage 231").startswith("eastron-sdm120/voltage = 231")
    done = run("--map", "eastron-sdm63")
    assert (done.returncode, "did you mean 'eastron-sdm630'" in done.stderr) == (78, True)


def test_it_ends_by_itself_by_a_signal_and_by_a_word() -> None:
    done = run("--map", DEMO, "--listen", "127.0.0.1:0", "--for", "300ms")
    assert done.returncode == 0
    assert re.fullmatch(
        r"listening on tcp .*\n0 requests in .*: 0 refused, 0 not answered, 0 faults injected\n", done.stdout
    )
    with simulator("--map", DEMO, "--listen", "127.0.0.1:0") as running:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(10) == 0
    with simulator("--map", DEMO, "--listen", "127.0.0.1:0") as running:
        assert running.tell("quit").startswith("0 requests")
        assert running.process.wait(10) == 0


def test_what_cannot_be_served_is_said_with_its_own_exit_code(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--map", DEMO, "--listen", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: [Errno 98]" in done.stderr or "in use" in done.stderr
    done = run("--map", DEMO, "--serial", "/dev/ttyNONE")
    assert done.returncode == 1
    assert "no such port: /dev/ttyNONE" in done.stderr
    (tmp_path / "gateway.yaml").write_text(MAP.replace("float32", "float33"))
    done = run("--map", str(tmp_path))
    assert done.returncode == 78
    assert "gateway.yaml:5:" in done.stderr
    for wrong, words in (
        (("--fault", "dorp"), "did you mean 'drop'"),
        (("--listen", "x:y"), "the port 'y'"),
        (("--listen", "127.0.0.1:0", "--pty"), "exclude each other"),
        (("--pty", "--transport", "tcp"), "on a line it is rtu or ascii"),
        (("--transport", "tls"), "no ca"),
    ):
        done = run("--map", DEMO, *wrong)
        assert done.returncode == 2, wrong
        assert words in done.stderr
    assert "one of them says what is simulated" in run().stderr


def test_the_kinds_of_faults_are_listed() -> None:
    listed = run("--faults").stdout
    assert "wrong_transaction" in listed
    assert "--fault unit=3,kind=drop,probability=0.1" in listed


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_the_terminal(width: int) -> None:
    board = Board({"plc": "127.0.0.1:5020"}, began_s=0.0)
    for unit, name in ((1, "boiler"), (2, "a-device-with-a-very-long-name-indeed"), (247, "meter")):
        board.add_unit("plc", unit, name)
    faults = Faults([parse("exception,unit=2,probability=0.5")], now_ns=lambda: 0)
    board.seen("plc", 1, bytes.fromhex("03 0000 007d"), bytes.fromhex("03 fa") + b"\1" * 250, at_s=1.0)
    board.seen("plc", 2, bytes.fromhex("06 0000 0001"), bytes.fromhex("86 02"), at_s=2.0)
    board.seen("plc", 247, bytes.fromhex("2b 0e 01 00"), None, at_s=3.0)
    board.struck("plc", parse("drop,unit=1"), 1, at_s=3.5)
    console = Console(width=width, record=True, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(board.draw(faults, now_s=5.0, typed="fault dro"))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for words in (
        "3 requests",
        "unit 2 write register 0 = 0001 → refused: exception 2",
        "→ no answer",
        " > fault dro",
    ):
        assert words in text, text
    assert re.search(r"fault 1 +kind=exception,unit=2,code=4,probability=0.5 +struck 0", text)


def test_a_line_is_typed_corrected_and_taken() -> None:
    taken: list[str] = []
    prompt = Prompt(taken.append)
    prompt.feed("fault drox\x7f")
    assert prompt.typed == "fault dro"
    prompt.feed("p\rcl\x15quit\n\x1b")
    assert taken == ["fault drop", "quit"]
    assert prompt.typed == ""
