"""Serial lines against stacks nobody here wrote: pymodbus, libmodbus (mbpoll), Wireshark's RTU dissector.

Ports are pairs of pseudo-terminals: they have no baud rate and no parity, all else is as on a wire.
"""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.modbus.wire import pdu
from drivers.modbus.wire.client import Answer, ClientSession, Event, Refused, TimedOut
from drivers.modbus.wire.line import Mode, Timing
from drivers.modbus.wire.line_client import LineClientSession
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.line_server_session import LineServerSession
from drivers.modbus.wire.pdu import Table
from drivers.modbus.wire.respond import Responder
from tests.drivers.modbus.pymodbus_server import serving
from tests.drivers.modbus.test_wire_line_server import Registers
from tests.peers import require

pytestmark = pytest.mark.interop

LOOPBACK = "127.0.0.1"
PATIENCE_S = 10.0
UNIT = 17
BAUD = 115_200
Session = LineClientSession | LineServerSession


class Channel:
    """A port or a socket: bytes in with a patience, bytes out."""

    def __init__(self, descriptor: int, close: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self.close = close

    def read(self, until_ns: int | None) -> bytes:
        """What came in; b"" where nothing did until then."""
        wait_s = PATIENCE_S if until_ns is None else max(0, until_ns - time.monotonic_ns()) / 1e9
        ready, _, _ = select.select([self._descriptor], [], [], min(wait_s, PATIENCE_S))
        return os.read(self._descriptor, 4096) if ready else b""

    def write(self, frames: list[bytes]) -> None:
        for frame in frames:
            assert os.write(self._descriptor, frame) == len(frame)


def port(path: Path) -> Channel:
    descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(descriptor)
    return Channel(descriptor, lambda: os.close(descriptor))


def connection(number: int) -> Channel:
    link = socket.create_connection((LOOPBACK, number), PATIENCE_S)
    return Channel(link.fileno(), link.close)


@contextmanager
def wire(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Two ports that are joined."""
    ends = folder / "a", folder / "b"
    command = [require("socat"), *(f"pty,raw,echo=0,link={end}" for end in ends)]
    process = subprocess.Popen(command)
    try:
        give_up = time.monotonic() + PATIENCE_S
        while not all(end.exists() for end in ends):
            assert time.monotonic() < give_up, "socat made no ports"
            time.sleep(0.005)  # socat tells nobody when it is ready
        yield ends
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


class Client:
    """Our client on a channel."""

    def __init__(self, channel: Channel, session: LineClientSession) -> None:
        self.session = session
        self._channel = channel

    def ask(self, request: bytes, unit: int = UNIT, timeout_ns: int = 3 * 10**9) -> Event:
        session = self.session
        session.request(unit, request, token=request, timeout_ns=timeout_ns, now_ns=time.monotonic_ns())
        while True:
            self._channel.write(session.to_send(time.monotonic_ns()))
            data = self._channel.read(session.deadline_ns())
            events = (
                session.receive(data, time.monotonic_ns())
                if data
                else session.on_deadline(time.monotonic_ns())
            )
            if events:
                (event,) = events
                return event

    def read(self, table: Table, start: int, count: int) -> bytes:
        event = self.ask(pdu.read(table, start=start, count=count))
        assert isinstance(event, Answer), event
        return event.data


def pymodbus_device() -> Any:
    from pymodbus.simulator import DataType, SimData, SimDevice

    coils = SimData(0, values=[n % 3 == 0 for n in range(40)], datatype=DataType.BITS)
    inputs = SimData(0, values=[n % 2 == 0 for n in range(40)], datatype=DataType.BITS)
    holding = SimData(0, values=list(range(120)), datatype=DataType.REGISTERS)
    readings = SimData(0, values=[n * 100 for n in range(120)], datatype=DataType.REGISTERS)
    return SimDevice(id=UNIT, simdata=([coils], [inputs], [holding], [readings]))


def framer_type(mode: Mode) -> Any:
    from pymodbus import FramerType

    return FramerType.RTU if mode is Mode.RTU else FramerType.ASCII


def use_all(client: Client) -> None:
    """Reads, writes and a refusal; then the line goes on as before."""
    assert client.read(Table.HOLDING_REGISTERS, 1, 100) == struct.pack(">100H", *range(1, 101))
    assert client.read(Table.INPUT_REGISTERS, 3, 2) == struct.pack(">2H", 300, 400)
    coils = pdu.unpack_bits(client.read(Table.COILS, 1, 19), 19)
    assert coils == tuple(n % 3 == 0 for n in range(1, 20))
    inputs = pdu.unpack_bits(client.read(Table.DISCRETE_INPUTS, 0, 9), 9)
    assert inputs == tuple(n % 2 == 0 for n in range(9))
    for request in (
        pdu.write_single_register(115, 0x12),
        pdu.mask_write_register(115, and_mask=0xF2, or_mask=0x25),
        pdu.write_multiple_registers(112, b"\1\2\3\4"),
        pdu.write_single_coil(30, on=True),
        pdu.write_multiple_coils(31, [True, False, True]),
    ):
        assert isinstance(client.ask(request), Answer)
    assert client.read(Table.HOLDING_REGISTERS, 112, 4) == bytes.fromhex("0102 0304 0072 0017")
    refused = client.ask(pdu.read(Table.HOLDING_REGISTERS, start=119, count=2))
    assert isinstance(refused, Refused)
    assert refused.code == 2
    assert client.read(Table.HOLDING_REGISTERS, 5, 1) == b"\0\5"
    counters = client.session.counters
    assert (counters.noise_bytes, counters.check_errors, counters.late, counters.timeouts) == (0, 0, 0, 0)


@pytest.mark.parametrize("mode", Mode)
def test_we_use_a_pymodbus_server_on_a_port(mode: Mode, tmp_path: Path) -> None:
    require("pymodbus")
    from pymodbus.server import ModbusSerialServer

    with wire(tmp_path) as (ours, theirs):

        def start() -> Any:
            return ModbusSerialServer(
                pymodbus_device(), framer=framer_type(mode), port=str(theirs), baudrate=BAUD
            )

        with serving(start):
            channel = port(ours)
            session = LineClientSession(mode=mode, timing=Timing.serial(mode, baud=BAUD))
            client = Client(channel, session)
            use_all(client)
            if mode is Mode.RTU:
                channel.write([b"\xff\x00\x11"])  # the server's framer drops noise with the request behind it
                assert isinstance(client.ask(pdu.raw(3, b"\0\5\0\1"), unit=99, timeout_ns=10**8), TimedOut)
                assert client.read(Table.HOLDING_REGISTERS, 5, 1) == b"\0\5"
            channel.close()


@pytest.mark.parametrize("mode", Mode)
def test_we_use_a_pymodbus_server_over_tcp(mode: Mode) -> None:
    require("pymodbus")
    from pymodbus.server import ModbusTcpServer

    def start() -> Any:
        return ModbusTcpServer(pymodbus_device(), framer=framer_type(mode), address=(LOOPBACK, 0))

    with serving(start) as server:
        channel = connection(server.transport.sockets[0].getsockname()[1])
        use_all(Client(channel, LineClientSession(mode=mode, timing=Timing.over_tcp())))
        channel.close()


def test_we_use_a_pymodbus_server_over_udp() -> None:
    require("pymodbus")
    from pymodbus.server import ModbusUdpServer

    def start() -> Any:
        return ModbusUdpServer(pymodbus_device(), address=(LOOPBACK, 0))

    with serving(start) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(PATIENCE_S)
        link.connect(server.transport.get_extra_info("sockname"))
        session = ClientSession(max_in_flight=4, has_datagrams=True)
        requests = [pdu.read(Table.HOLDING_REGISTERS, start=start, count=2) for start in (0, 10, 119)]
        found: dict[object, Event] = {}
        for request in requests:  # one by one: the server loses what comes while it answers
            session.request(UNIT, request, token=request, timeout_ns=10**10, now_ns=0)
            link.send(*session.to_send(0))
            found.update({event.token: event for event in session.receive(link.recv(300), 0)})
        assert found[requests[0]] == Answer(requests[0], b"\0\0\0\1", 0)
        assert found[requests[1]] == Answer(requests[1], b"\0\x0a\0\x0b", 0)
        assert found[requests[2]] == Refused(requests[2], 2, 0)


# --- our server --------------------------------------------------------------------------------------------


@contextmanager
def our_slaves(channel: Channel, mode: Mode, timing: Timing) -> Iterator[LineServerSession]:
    """Units 17 and 18 with 100 registers each, in a thread."""
    session = LineServerSession(LineServer(Responder(Registers())), units=(17, 18), mode=mode, timing=timing)
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            due = session.deadline_ns()
            data = channel.read(min(due or 1 << 63, time.monotonic_ns() + 50_000_000))
            now = time.monotonic_ns()
            if data:
                session.receive(data, now)
            elif due is not None and now >= due:
                session.on_deadline(now)
            channel.write(session.to_send(now))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield session
    finally:
        stopping.set()
        thread.join(PATIENCE_S)
        channel.close()


def pymodbus_uses(client: Any) -> None:
    assert client.connect()
    for unit in (17, 18):
        answer = client.read_holding_registers(5, count=20, device_id=unit)
        assert answer.registers == list(range(5, 25))
        assert not client.write_register(1, 0xBEEF, device_id=unit).isError()
        assert not client.write_registers(2, [1, 2], device_id=unit).isError()
        assert client.read_holding_registers(1, count=3, device_id=unit).registers == [0xBEEF, 1, 2]
        assert client.read_holding_registers(99, count=2, device_id=unit).exception_code == 2
    assert client.diag_query_data(b"\x12\x34", device_id=17).message == b"\x12\x34"
    assert client.diag_read_bus_message_count(device_id=17).message is not None
    client.close()


@pytest.mark.parametrize("mode", Mode)
def test_a_pymodbus_client_uses_our_slaves_on_a_port(mode: Mode, tmp_path: Path) -> None:
    require("pymodbus")
    from pymodbus.client import ModbusSerialClient

    with wire(tmp_path) as (ours, theirs):
        with our_slaves(port(ours), mode, Timing.serial(mode, baud=BAUD)) as session:
            client = ModbusSerialClient(
                str(theirs), framer=framer_type(mode), baudrate=BAUD, timeout=PATIENCE_S, retries=0
            )
            pymodbus_uses(client)
        assert (session.counters.noise_bytes, session.counters.check_errors) == (0, 0)


@pytest.mark.parametrize("mode", Mode)
def test_a_pymodbus_client_uses_our_slaves_over_tcp(mode: Mode) -> None:
    require("pymodbus")
    from pymodbus.client import ModbusTcpClient

    with socket.create_server((LOOPBACK, 0)) as listener:
        client = ModbusTcpClient(
            LOOPBACK, port=listener.getsockname()[1], framer=framer_type(mode), timeout=PATIENCE_S, retries=0
        )
        assert client.connect()
        link, _ = listener.accept()
        with our_slaves(Channel(link.fileno(), link.close), mode, Timing.over_tcp()):
            pymodbus_uses(client)


def mbpoll(path: Path, *arguments: str) -> str:
    options = ["-m", "rtu", "-b", str(BAUD), "-P", "none", "-1", "-0", "-a", "17"]
    command = [require("mbpoll"), *options, *arguments[:-1], str(path), *arguments[-1].split()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout + done.stderr


def test_libmodbus_uses_our_slaves_on_a_port(tmp_path: Path) -> None:
    with wire(tmp_path) as (ours, theirs):
        with our_slaves(port(ours), Mode.RTU, Timing.serial(Mode.RTU, baud=BAUD)) as session:
            found = re.findall(r"^\[(\d+)\]:\s+(\S+)", mbpoll(theirs, "-r", "5", "-c", "3", ""), re.MULTILINE)
            assert found == [("5", "5"), ("6", "6"), ("7", "7")]
            assert "Written 3 references" in mbpoll(theirs, "-r", "20", "7 8 9")
            assert "Written 1 references" in mbpoll(theirs, "-r", "30", "77")
            assert "77" in mbpoll(theirs, "-r", "30", "")
            assert "Illegal data address" in mbpoll(theirs, "-r", "99", "-c", "2", "")
            assert "timed out" in mbpoll(theirs, "-a", "3", "-o", "0.1", "-r", "5", "")
        assert (session.counters.requests, session.counters.frames) == (5, 6)
        assert session.counters.noise_bytes == 0


# --- Wireshark as judge of our bytes -----------------------------------------------------------------------


def test_wireshark_understands_our_rtu_frames(tmp_path: Path) -> None:
    client = LineClientSession(mode=Mode.RTU, timing=Timing.over_tcp())
    slaves = LineServerSession(
        LineServer(Responder(Registers())), units=(17,), mode=Mode.RTU, timing=Timing.over_tcp()
    )
    conversation: list[tuple[str, bytes]] = []
    for request in (
        pdu.read(Table.HOLDING_REGISTERS, start=7, count=3),
        pdu.write_single_register(1, 3),
        pdu.write_multiple_registers(1, bytes.fromhex("000A0102")),
        pdu.mask_write_register(4, and_mask=0xF2, or_mask=0x25),
        pdu.read(Table.HOLDING_REGISTERS, start=99, count=2),
    ):
        client.request(UNIT, request, token=request, timeout_ns=1, now_ns=0)
        (question,) = client.to_send(0)
        slaves.receive(question, 0)
        (answer,) = slaves.to_send(0)
        assert len(client.receive(answer, 0)) == 1
        conversation += [("O", question), ("I", answer)]
    conversation.append(("I", conversation[-1][1][:-1] + b"\0"))
    dump = "".join(f"{way}\n000000 {data.hex(' ')}\n" for way, data in conversation)
    capture = tmp_path / "frames.pcap"
    text2pcap = [require("text2pcap"), "-q", "-D", "-T", "4001,40000", "-", str(capture)]
    subprocess.run(text2pcap, input=dump.encode(), check=True, capture_output=True, timeout=30)
    options = ["-d", "tcp.port==4001,mbrtu", "-o", "mbrtu.crc_verification:TRUE", "-T", "json"]
    tshark = [require("tshark"), "-r", str(capture), *options, "-J", "mbrtu modbus _ws.expert"]
    output = subprocess.run(tshark, check=True, capture_output=True, timeout=60).stdout
    layers = [packet["_source"]["layers"] for packet in json.loads(output)]
    assert len(layers) == len(conversation)
    for number, (layer, (_, data)) in enumerate(zip(layers, conversation, strict=True)):
        assert int(layer["mbrtu"]["mbrtu.unit_id"]) == UNIT
        assert int(layer["mbrtu"]["mbrtu.crc16"], 16) == struct.unpack(">H", data[-2:])[0]
        assert (layer["mbrtu"]["mbrtu.crc16.status"] in {"1", "Good"}) == (number < 10)
        assert int(layer["modbus"]["modbus.func_code"]) == data[1] & 0x7F
    assert re.findall(r'"modbus.regval_uint16": "(\d+)"', json.dumps(layers[1])) == ["7", "8", "9"]
    assert layers[9]["modbus"]["modbus.exception_code"] == "2"
