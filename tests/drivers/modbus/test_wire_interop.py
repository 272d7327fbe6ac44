"""Our two ends against stacks nobody here wrote: pymodbus, libmodbus (mbpoll), Wireshark's dissector."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.modbus.decode import compile_block
from drivers.modbus.encode import encode
from drivers.modbus.field import ORDERS, DataType, Field
from drivers.modbus.wire import mbap, pdu
from drivers.modbus.wire.client import Answer, ClientSession, Event, Refused
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession, UnknownUnit
from gateway.core.errors import RemoteProtocolError
from tests.drivers.modbus.pymodbus_server import pymodbus_server
from tests.peers import require

pytestmark = pytest.mark.interop

LOOPBACK = "127.0.0.1"
PATIENCE_S = 10.0
UNIT = 17


# --- our client against pymodbus' server -------------------------------------------------------------------


@contextmanager
def example_server() -> Iterator[int]:
    """Unit 17: 120 registers 0, 1, 2 … and 40 coils, every third one on. Yields the port."""
    coils, inputs = [n % 3 == 0 for n in range(40)], [n % 2 == 0 for n in range(40)]
    holding, readings = list(range(120)), [n * 100 for n in range(120)]
    with pymodbus_server(unit=UNIT, bits=[coils, inputs], words=[holding, readings]) as port:
        yield port


class Pump:
    """A client session on a plain socket."""

    def __init__(self, port: int) -> None:
        self.session = ClientSession()
        self._socket = socket.create_connection((LOOPBACK, port), PATIENCE_S)

    def ask(self, request: bytes, unit: int = UNIT) -> Event:
        now_ns = time.monotonic_ns()
        self.session.request(unit, request, token=request, timeout_ns=10 * 10**9, now_ns=now_ns)
        for frame in self.session.to_send(now_ns):
            self._socket.sendall(frame)
        while True:
            data = self._socket.recv(4096)
            assert data, "pymodbus closed the connection"
            if events := self.session.receive(data, time.monotonic_ns()):
                (event,) = events
                assert event.token is request
                return event

    def read(self, table: Table, start: int, count: int) -> bytes:
        event = self.ask(pdu.read(table, start=start, count=count))
        assert isinstance(event, Answer), event
        return event.data

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def pump() -> Iterator[Pump]:
    require("pymodbus")
    with example_server() as port:
        pump = Pump(port)
        yield pump
        pump.close()


def test_we_read_all_tables_of_pymodbus(pump: Pump) -> None:
    assert pump.read(Table.HOLDING_REGISTERS, 1, 100) == struct.pack(">100H", *range(1, 101))
    assert pump.read(Table.INPUT_REGISTERS, 3, 2) == struct.pack(">2H", 300, 400)
    assert pdu.unpack_bits(pump.read(Table.COILS, 1, 19), 19) == tuple(n % 3 == 0 for n in range(1, 20))
    assert pdu.unpack_bits(pump.read(Table.DISCRETE_INPUTS, 0, 9), 9) == tuple(n % 2 == 0 for n in range(9))


def test_we_write_registers_and_coils_of_pymodbus(pump: Pump) -> None:
    def write(request: bytes) -> None:
        event = pump.ask(request)
        assert isinstance(event, Answer), event
        assert event.data == b""

    write(pdu.write_single_register(110, 0))
    assert pump.read(Table.HOLDING_REGISTERS, 110, 1) == b"\0\0"
    for name, order in ORDERS.items():
        field = Field(type=DataType.FLOAT32, start=112, order=order)
        write(pdu.write_multiple_registers(112, encode(field, 1234.5)))
        decode = compile_block([field], table=Table.HOLDING_REGISTERS, start=112, count=2)
        assert decode(pump.read(Table.HOLDING_REGISTERS, 112, 2)) == ((1234.5,), 0), name
    write(pdu.write_single_coil(30, on=True))
    write(pdu.write_multiple_coils(31, [True, False, True]))
    assert pdu.unpack_bits(pump.read(Table.COILS, 30, 4), 4) == (True, True, False, True)
    write(pdu.write_single_register(115, 0x12))
    write(pdu.mask_write_register(115, and_mask=0xF2, or_mask=0x25))
    assert pump.read(Table.HOLDING_REGISTERS, 115, 1) == b"\0\x17"


def test_pymodbus_refuses_an_illegal_address(pump: Pump) -> None:
    event = pump.ask(pdu.read(Table.HOLDING_REGISTERS, start=119, count=2))
    assert isinstance(event, Refused)
    assert event.code == ExceptionCode.ILLEGAL_DATA_ADDRESS


# --- our server against pymodbus' client and mbpoll --------------------------------------------------------


class Plant:
    """Unit 17, 100 items in each table."""

    def __init__(self) -> None:
        self.bits = [False] * 100
        self.words = bytearray(struct.pack(">100H", *range(100)))

    def has_unit(self, unit: int) -> bool:
        return unit == UNIT

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return self._refusal(start, count) or pdu.pack_bits(self.bits[start : start + count])

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return self._refusal(start, count) or bytes(self.words[2 * start : 2 * (start + count)])

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        if refusal := self._refusal(start, count):
            return refusal
        self.bits[start : start + count] = pdu.unpack_bits(data, count)
        return None

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        if refusal := self._refusal(start, len(data) // 2):
            return refusal
        self.words[2 * start : 2 * start + len(data)] = data
        return None

    def _refusal(self, start: int, count: int) -> ExceptionCode | None:
        return ExceptionCode.ILLEGAL_DATA_ADDRESS if start + count > 100 else None


@contextmanager
def our_server(plant: Plant, unknown_unit: UnknownUnit = UnknownUnit.EXCEPTION) -> Iterator[int]:
    """One thread that serves connections one after another. Yields the port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                connection, _ = listener.accept()
                with connection:
                    session = ServerSession(Responder(plant), unknown_unit=unknown_unit)
                    while data := connection.recv(4096):
                        try:
                            session.receive(data, 0)
                        except RemoteProtocolError:
                            break
                        connection.sendall(b"".join(session.to_send(0)))

        thread = threading.Thread(target=serve)
        thread.start()
        port = listener.getsockname()[1]
        try:
            yield port
        finally:
            stopping.set()
            socket.create_connection((LOOPBACK, port)).close()
            thread.join(PATIENCE_S)


def test_pymodbus_reads_and_writes_our_server() -> None:
    require("pymodbus")
    from pymodbus.client import ModbusTcpClient

    plant = Plant()
    with our_server(plant) as port, ModbusTcpClient(LOOPBACK, port=port) as client:
        assert client.read_holding_registers(5, count=20, device_id=UNIT).registers == list(range(5, 25))
        assert client.read_input_registers(99, count=1, device_id=UNIT).registers == [99]
        assert not client.write_coil(7, True, device_id=UNIT).isError()
        assert not client.write_coils(10, [True, False, True], device_id=UNIT).isError()
        assert client.read_coils(7, count=6, device_id=UNIT).bits[:6] == [
            True,
            False,
            False,
            True,
            False,
            True,
        ]
        assert client.read_discrete_inputs(7, count=1, device_id=UNIT).bits[0]
        assert not client.write_register(1, 0xBEEF, device_id=UNIT).isError()
        assert not client.write_registers(2, [1, 2], device_id=UNIT).isError()
        assert not client.mask_write_register(
            address=4, and_mask=0xF2, or_mask=0x25, device_id=UNIT
        ).isError()
        assert plant.words[2:10] == bytes.fromhex("beef 0001 0002") + (4 & 0xF2 | 0x25 & ~0xF2).to_bytes(
            2, "big"
        )
        assert client.read_holding_registers(99, count=2, device_id=UNIT).exception_code == 2
        assert client.read_holding_registers(0, count=1, device_id=UNIT + 1).exception_code == 0x0B
        assert client.read_exception_status(device_id=UNIT).exception_code == 1


def mbpoll(port: int, *arguments: str) -> str:
    command = [require("mbpoll"), "-1", "-0", "-a", str(UNIT), "-p", str(port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stdout + done.stderr


def values_of(output: str) -> dict[int, str]:
    return {int(at): value for at, value in re.findall(r"^\[(\d+)\]:\s+(\S+)", output, re.MULTILINE)}


def test_mbpoll_reads_and_writes_our_server() -> None:
    plant = Plant()
    with our_server(plant) as port:
        assert values_of(mbpoll(port, "-r", "5", "-c", "3", LOOPBACK)) == {5: "5", 6: "6", 7: "7"}
        assert "Written 1 references" in mbpoll(port, "-r", "20", LOOPBACK, "0")
        assert plant.words[40:42] == b"\0\0"
        assert "Written 3 references" in mbpoll(port, "-r", "20", LOOPBACK, "1", "2", "3")
        assert plant.words[40:46] == bytes.fromhex("0001 0002 0003")
        assert "Written 1 references" in mbpoll(port, "-t", "0", "-r", "8", LOOPBACK, "1")
        assert values_of(mbpoll(port, "-t", "0", "-r", "7", "-c", "3", LOOPBACK)) == {7: "0", 8: "1", 9: "0"}
        assert values_of(mbpoll(port, "-t", "1", "-r", "8", LOOPBACK)) == {8: "1"}
        assert "Illegal data address" in mbpoll(port, "-r", "99", "-c", "2", LOOPBACK)
        assert "Target device failed to respond" in mbpoll(port, "-a", "18", "-r", "0", LOOPBACK)
        # mbpoll's words for floats are ours: least significant register first, unless told otherwise.
        for flags, order in (([], "CDAB"), (["-B"], "ABCD")):
            field = Field(type=DataType.FLOAT32, start=30, order=ORDERS[order])
            mbpoll(port, *flags, "-t", "4:float", "-r", "30", LOOPBACK, "12.25")
            assert plant.words[60:64] == encode(field, 12.25)


def test_mbpoll_meets_silence_of_an_unknown_unit() -> None:
    with our_server(Plant(), UnknownUnit.SILENCE) as port:
        assert "timed out" in mbpoll(port, "-a", "18", "-r", "0", "-o", "0.05", LOOPBACK)


# --- Wireshark as judge of our bytes -----------------------------------------------------------------------


def dissect(folder: Path, conversation: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
    """What Wireshark sees in segments to port 502 (O) and from it (I)."""
    dump = "".join(f"{way}\n000000 {data.hex(' ')}\n" for way, data in conversation)
    capture = folder / "frames.pcap"
    subprocess.run(
        [require("text2pcap"), "-q", "-D", "-T", "502,40000", "-", str(capture)],
        input=dump.encode(),
        check=True,
        capture_output=True,
        timeout=30,
    )
    output = subprocess.run(
        [require("tshark"), "-r", str(capture), "-T", "json", "-J", "mbtcp modbus _ws.expert"],
        check=True,
        capture_output=True,
        timeout=60,
    ).stdout
    return [packet["_source"]["layers"] for packet in json.loads(output)]


def test_wireshark_understands_what_we_send(tmp_path: Path) -> None:
    client, server = (
        ClientSession(max_in_flight=16, first_transaction=0x1501),
        ServerSession(Responder(Plant())),
    )
    requests = [
        pdu.read(Table.COILS, start=1, count=19),
        pdu.read(Table.DISCRETE_INPUTS, start=2, count=22),
        pdu.read(Table.HOLDING_REGISTERS, start=7, count=3),
        pdu.read(Table.INPUT_REGISTERS, start=8, count=1),
        pdu.write_single_coil(72, on=True),
        pdu.write_single_register(1, 3),
        pdu.write_multiple_coils(19, [True, False] * 5),
        pdu.write_multiple_registers(1, bytes.fromhex("000A0102")),
        pdu.mask_write_register(4, and_mask=0xF2, or_mask=0x25),
        pdu.read(Table.HOLDING_REGISTERS, start=99, count=2),
    ]
    conversation: list[tuple[str, bytes]] = []
    for request in requests:
        client.request(UNIT, request, token=request, timeout_ns=1, now_ns=0)
        (question,) = client.to_send(0)
        server.receive(question, 0)
        (answer,) = server.to_send(0)
        assert len(client.receive(answer, 0)) == 1
        conversation += [("O", question), ("I", answer)]
    layers = dissect(tmp_path, conversation)
    assert len(layers) == 20
    for number, (layer, (_, data)) in enumerate(zip(layers, conversation, strict=True)):
        header, body = layer["mbtcp"], layer["modbus"]
        assert int(header["mbtcp.trans_id"]) == 0x1501 + number // 2
        assert int(header["mbtcp.len"]) == len(data) - 6
        assert int(header["mbtcp.unit_id"]) == UNIT
        assert int(body["modbus.func_code"]) == data[mbap.HEADER_SIZE] & 0x7F
        assert "_ws.expert" not in json.dumps(layer) or number == 19, layer
    bodies = [layer["modbus"] for layer in layers]
    first = [(int(body["modbus.reference_num"]), int(body["modbus.bit_cnt"])) for body in bodies[0:3:2]]
    assert first == [(1, 19), (2, 22)]
    assert (bodies[4]["modbus.reference_num"], bodies[4]["modbus.word_cnt"]) == ("7", "3")
    assert re.findall(r'"modbus.regval_uint16": "(\d+)"', json.dumps(bodies[5])) == ["7", "8", "9"]
    assert bodies[8]["modbus.reference_num"] == bodies[9]["modbus.reference_num"] == "72"
    assert (bodies[8]["modbus.data"], bodies[10]["modbus.data"]) == ("ff:00", "00:03")
    assert (bodies[12]["modbus.bit_cnt"], bodies[12]["modbus.data"]) == ("10", "55:01")
    assert re.findall(r'"modbus.regval_uint16": "(\d+)"', json.dumps(bodies[14])) == ["10", "258"]
    assert (bodies[16]["modbus.and_mask"], bodies[16]["modbus.or_mask"]) == ("0x00f2", "0x0025")
    assert bodies[19]["modbus.exception_code"] == "2"
