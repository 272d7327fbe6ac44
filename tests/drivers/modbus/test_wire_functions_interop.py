"""The functions beyond the four tables against pymodbus, libmodbus and Wireshark, both ways."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.modbus.wire import mbap, pdu, pdu_files, pdu_identity, pdu_line
from drivers.modbus.wire.client import Answer, ClientSession
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.pdu_files import FileRecord, FileSpan
from drivers.modbus.wire.pdu_identity import IdentityReader, ReadDeviceId
from drivers.modbus.wire.pdu_line import Diagnostic
from drivers.modbus.wire.server import ServerSession
from tests.drivers.modbus import libmodbus
from tests.drivers.modbus.pymodbus_server import pymodbus_server
from tests.drivers.modbus.test_wire_interop import Pump, dissect
from tests.drivers.modbus.test_wire_pdu import EXAMPLES, example
from tests.drivers.modbus.test_wire_respond import EXTENDED, Memory, prepared, responder
from tests.peers import require

pytestmark = pytest.mark.interop

UNIT = 1
PATIENCE_S = 10.0


# --- our client, their server ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pump() -> Iterator[Pump]:
    require("pymodbus")
    from pymodbus import ModbusDeviceIdentification

    names = {0: "Company", 1: "Product", 2: "V2.11", 4: "Name", 0x80: "x" * 120, 0x81: "y" * 120, 0x82: "z"}
    identity = ModbusDeviceIdentification(info=names)
    words = [list(range(120))] * 2
    with pymodbus_server(unit=UNIT, bits=[[False] * 16] * 2, words=words, identity=identity) as port:
        pump = Pump(port)
        yield pump
        pump.close()


def asked(pump: Pump, request: bytes) -> bytes:
    event = pump.ask(request, unit=UNIT)
    assert isinstance(event, Answer), event
    return event.data


def test_we_read_and_write_registers_of_pymodbus_in_one_request(pump: Pump) -> None:
    request = pdu.read_write_multiple_registers(
        read_start=9, read_count=3, write_start=10, data=b"\xbe\xef\0\1"
    )
    assert asked(pump, request) == bytes.fromhex("0009 BEEF 0001")


def test_we_read_the_line_functions_of_pymodbus(pump: Pump) -> None:
    assert len(asked(pump, pdu_line.read_exception_status())) == 1
    assert asked(pump, pdu_line.return_query_data(b"\xa5\x37\1\2")) == b""
    asked(pump, pdu_line.diagnostic(Diagnostic.CLEAR_COUNTERS_AND_DIAGNOSTIC_REGISTER))
    for what in Diagnostic:
        if what not in pdu.ECHOED_DIAGNOSTICS:
            assert len(asked(pump, pdu_line.diagnostic(what))) == 2, what
    assert pdu_line.event_counter(asked(pump, pdu_line.get_comm_event_counter())).status in {0, 0xFFFF}
    log = pdu_line.event_log(asked(pump, pdu_line.get_comm_event_log()))
    assert len(log.log) <= pdu_line.EVENTS_MAX


def test_we_write_files_and_read_queues_of_pymodbus(pump: Pump) -> None:
    records = [FileRecord(4, 7, bytes.fromhex("06AF04BE100D")), FileRecord(3, 0, b"\0\1")]
    assert asked(pump, pdu_files.write_file_record(records)) == b""
    assert pdu_files.fifo_queue(asked(pump, pdu_files.read_fifo_queue(1246))) == struct.pack(
        ">4H", 0, 1, 2, 3
    )


def test_we_read_who_pymodbus_is(pump: Pump) -> None:
    found = pdu_identity.server_id(asked(pump, pdu_identity.report_server_id()))
    assert b"Company-Product" in found.data
    assert found.data.endswith(b"\xff"), "its run indicator"
    for code, ids in ((ReadDeviceId.BASIC, [0, 1, 2]), (ReadDeviceId.REGULAR, [0, 1, 2, 4])):
        reader = IdentityReader(code)
        while (request := reader.request()) is not None:
            reader.take(asked(pump, request))
        assert sorted(reader.objects) == ids
        assert reader.objects[0] == b"Company"
    one = pdu_identity.device_identification(
        asked(pump, pdu_identity.read_device_identification(ReadDeviceId.INDIVIDUAL, 2))
    )
    assert one.objects == ((2, b"V2.11"),)


def test_we_read_the_extended_identification_of_pymodbus_in_two_requests(pump: Pump) -> None:
    reader, count = IdentityReader(ReadDeviceId.EXTENDED), 0
    while (request := reader.request()) is not None:
        reader.take(asked(pump, request))
        count += 1
    assert count == 2
    assert {0x80, 0x81, 0x82} <= set(reader.objects)


def test_we_read_the_functions_of_libmodbus() -> None:
    with libmodbus.server() as port:
        pump = Pump(port)
        found = pdu_identity.server_id(asked(pump, pdu_identity.report_server_id()))
        assert found.data[2:].startswith(b"LMB3.")
        assert found.is_running() is True
        request = pdu.read_write_multiple_registers(
            read_start=9, read_count=3, write_start=10, data=b"\xbe\xef\0\1"
        )
        assert asked(pump, request) == bytes.fromhex("0009 BEEF 0001")
        assert asked(pump, pdu.mask_write_register(4, and_mask=0xF2, or_mask=0x25)) == b""
        pump.close()


# --- their client, our server ------------------------------------------------------------------------------


@contextmanager
def our_server(memory: Memory) -> Iterator[int]:
    """One connection at a time, with all functions, those of lines too. Yields the port."""
    server = LineServer(responder(memory, EXTENDED), set_delimiter=lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                connection, _ = listener.accept()
                with connection:
                    session = ServerSession(server)
                    while data := connection.recv(4096):
                        session.receive(data, 0)
                        connection.sendall(b"".join(session.to_send(0)))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopping.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join(PATIENCE_S)


def test_pymodbus_uses_every_function_of_our_server() -> None:
    require("pymodbus")
    from pymodbus.client import ModbusTcpClient
    from pymodbus.pdu.file_message import FileRecord as TheirRecord

    memory = prepared()
    with our_server(memory) as port, ModbusTcpClient("127.0.0.1", port=port) as client:
        assert client.read_exception_status().status == 0x6D
        assert client.diag_query_data(b"\xa5\x37").message == b"\xa5\x37"
        assert client.diag_read_bus_message_count().message == 3
        assert client.diag_read_device_message_count().message == 3
        for read in (
            client.diag_read_diagnostic_register,
            client.diag_read_bus_comm_error_count,
            client.diag_read_bus_exception_error_count,
            client.diag_read_device_no_response_count,
            client.diag_read_device_nak_count,
            client.diag_read_device_busy_count,
            client.diag_read_bus_char_overrun_count,
        ):
            assert read().message == 0
        assert not client.diag_change_ascii_input_delimeter(delimiter=0x3B00).isError()
        assert not client.diag_clear_overrun_counter().isError()
        counter = client.diag_get_comm_event_counter()
        assert (counter.status, counter.count) == (True, 13)
        log = client.diag_get_comm_event_log()
        assert (log.event_count, log.message_count) == (13, 15)
        assert log.events[:2] == [0x80, 0x40]
        assert not client.diag_clear_counters().isError()
        assert not client.diag_restart_communication(toggle=True).isError()
        assert client.diag_get_comm_event_log().events == [0x80, 0x00]
        found = client.report_device_id()
        assert found.identifier + bytes((0xFF if found.status else 0,)) == b"\x09\xffgatewa" + b"\0", (
            "its last byte"
        )
        assert not client.write_file_record([TheirRecord(4, 7, b"\6\xaf\4\xbe\x10\x0d")]).isError()
        assert memory.files[4][14:20] == bytes.fromhex("06AF04BE100D")
        records = client.read_file_record([TheirRecord(4, 1, record_length=4)]).records
        assert [record.record_data for record in records] == [bytes.fromhex("0DFE0020")]
        assert client.readwrite_registers(
            read_address=3, read_count=6, write_address=14, values=[0xFF] * 3
        ).registers == [0xFE, 0xACD, 1, 3, 0xD, 0xFF]
        assert not client.mask_write_register(address=4, and_mask=0xF2, or_mask=0x25).isError()
        assert client.read_fifo_queue(address=1246).values == [0x01B8, 0x1284]
        assert client.read_fifo_queue(address=1247).exception_code == 2
        basic = client.read_device_information(read_code=1)
        assert (basic.information[0], basic.conformity) == (b"Company identification", 0x83)
        first = client.read_device_information(read_code=3)
        assert (first.more_follows, first.next_object_id) == (0xFF, 0x80)
        second = client.read_device_information(read_code=3, object_id=0x80)
        assert second.information == {0x80: b"a" * 200}
        assert client.read_device_information(read_code=4, object_id=0xFF).information == {0xFF: b"last"}
        assert client.read_device_information(read_code=4, object_id=5).exception_code == 2


def test_libmodbus_uses_our_server() -> None:
    with our_server(prepared()) as port:
        client = libmodbus.Client(port, unit=UNIT)
        assert client.write_and_read(write_start=14, values=[0xFF] * 3, start=3, count=2) == [0xFE, 0xACD]
        client.mask_write(4, and_mask=0xF2, or_mask=0x25)
        assert client.read(4, 1) == [0x0ACD & 0xF2 | 0x25 & ~0xF2]
        assert client.report_server_id() == b"\x09\xffgateway"
        with pytest.raises(OSError, match="Illegal data address"):
            client.read(60000, 1)
        client.close()


# --- Wireshark ---------------------------------------------------------------------------------------------


def test_wireshark_understands_every_function(tmp_path: Path) -> None:
    client = ClientSession()
    server = ServerSession(LineServer(responder(prepared(), EXTENDED)))
    clauses = [name.split()[0] for name in EXAMPLES]
    requests = [example(clause)[0] for clause in clauses]
    requests += [pdu_line.diagnostic(Diagnostic.RETURN_BUS_MESSAGE_COUNT), pdu_line.get_comm_event_log()]
    requests += [pdu_identity.report_server_id(), pdu_files.read_file_record([FileSpan(99, 0, 1)])]
    requests += [pdu_identity.read_device_identification(ReadDeviceId.EXTENDED, 0x80)]
    conversation: list[tuple[str, bytes]] = []
    for request in requests:
        client.request(UNIT, request, token=request, timeout_ns=1, now_ns=0)
        (question,) = client.to_send(0)
        server.receive(question, 0)
        (answer,) = server.to_send(0)
        assert len(client.receive(answer, 0)) == 1
        conversation += [("O", question), ("I", answer)]
    layers = dissect(tmp_path, conversation)
    assert len(layers) == len(conversation)
    faults = []
    for layer, (_, data) in zip(layers, conversation, strict=True):
        assert int(layer["modbus"]["modbus.func_code"]) == data[mbap.HEADER_SIZE] & 0x7F
        if "_ws.expert" in json.dumps(layer):
            faults.append(data[mbap.HEADER_SIZE :].hex())
    assert faults == []
    by_request = {data[mbap.HEADER_SIZE :]: layers[at] for at, (_, data) in enumerate(conversation)}

    def shown(pdu_hex: str, field: str) -> list[str]:
        layer = by_request[bytes.fromhex(pdu_hex)]["modbus"]
        return [value for name, value in _fields(layer) if name == field]

    assert shown("07 6D", "modbus.exceptionstatus") or shown("07 6D", "modbus.data")
    assert shown("0B", "modbus.func_code") == ["11"]
    read_files = example("6.14")[0].hex()
    assert shown(read_files, "modbus.reference_type") == ["6", "6"]
    assert shown("17 0003 0006 000E 0003 06 00FF 00FF 00FF", "modbus.read_word_cnt") == ["6"]
    assert shown("18 0006 0002 01B8 1284", "modbus.byte_cnt_16") == ["6"]
    assert shown("2B 0E 01 00", "modbus.read_device_id") == ["1"]


def _fields(layer: object) -> Iterator[tuple[str, str]]:
    if isinstance(layer, dict):
        for name, value in layer.items():
            if isinstance(value, str):
                yield name, value
            elif isinstance(value, list):
                for one in value:
                    if isinstance(one, str):
                        yield name, one
                    else:
                        yield from _fields(one)
            else:
                yield from _fields(value)
