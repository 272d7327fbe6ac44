"""PDUs against the examples of the standard and a real capture."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import pdu, pdu_files, pdu_identity, pdu_line
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.pdu_answer import fault_of
from drivers.modbus.wire.pdu_files import FileRecord, FileSpan
from drivers.modbus.wire.pdu_identity import IdentityReader, ReadDeviceId, ServerId
from drivers.modbus.wire.pdu_line import Diagnostic
from drivers.modbus.wire.pdu_size import NEEDS_MORE, UNTOLD, request_size, response_size
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

# Request, response: the example tables of MODBUS Application Protocol Specification V1.1b3, by clause.
EXAMPLES = {
    "6.1 read coils 20-38": ("01 0013 0013", "01 03 CD6B05"),
    "6.2 read discrete inputs 197-218": ("02 00C4 0016", "02 03 ACDB35"),
    "6.3 read holding registers 108-110": ("03 006B 0003", "03 06 022B 0000 0064"),
    "6.4 read input register 9": ("04 0008 0001", "04 02 000A"),
    "6.5 write coil 173 on": ("05 00AC FF00", "05 00AC FF00"),
    "6.6 write register 2": ("06 0001 0003", "06 0001 0003"),
    "6.7 read exception status": ("07", "07 6D"),
    "6.8 return query data": ("08 0000 A537", "08 0000 A537"),
    "6.9 get comm event counter": ("0B", "0B FFFF 0108"),
    "6.10 get comm event log": ("0C", "0C 08 0000 0108 0121 20 00"),
    "6.11 write ten coils from 20": ("0F 0013 000A 02 CD01", "0F 0013 000A"),
    "6.12 write two registers from 2": ("10 0001 0002 04 000A 0102", "10 0001 0002"),
    "6.14 read two spans of files 4 and 3": (
        "14 0E 06 0004 0001 0002 06 0003 0009 0002",
        "14 0C 05 06 0DFE 0020 05 06 33CD 0040",
    ),
    "6.15 write three registers of file 4": (
        "15 0D 06 0004 0007 0003 06AF 04BE 100D",
        "15 0D 06 0004 0007 0003 06AF 04BE 100D",
    ),
    "6.16 mask write register 5": ("16 0004 00F2 0025", "16 0004 00F2 0025"),
    "6.17 write three registers from 15, read six from 4": (
        "17 0003 0006 000E 0003 06 00FF 00FF 00FF",
        "17 0C 00FE 0ACD 0001 0003 000D 00FF",
    ),
    "6.18 read the queue at 1246": ("18 04DE", "18 0006 0002 01B8 1284"),
    # The texts of the example are longer than the lengths it gives: cut to these.
    "6.21 basic identification": (
        "2B 0E 01 00",
        "2B 0E 01 01 00 00 03 00 16" + b"Company identification\1\x0dProduct code \2\5V2.11".hex(),
    ),
}


def example(clause: str) -> tuple[bytes, bytes]:
    (texts,) = (texts for name, texts in EXAMPLES.items() if name.startswith(clause + " "))
    request, response = (bytes.fromhex(text) for text in texts)
    return request, response


COILS_20_TO_29 = (True, False, True, True, False, False, True, True, True, False)  # clause 6.11, written out


@pytest.mark.parametrize(
    ("clause", "built"),
    [
        ("6.1", pdu.read(Table.COILS, start=19, count=19)),
        ("6.2", pdu.read(Table.DISCRETE_INPUTS, start=196, count=22)),
        ("6.3", pdu.read(Table.HOLDING_REGISTERS, start=107, count=3)),
        ("6.4", pdu.read(Table.INPUT_REGISTERS, start=8, count=1)),
        ("6.5", pdu.write_single_coil(172, on=True)),
        ("6.6", pdu.write_single_register(1, 3)),
        ("6.11", pdu.write_multiple_coils(19, COILS_20_TO_29)),
        ("6.12", pdu.write_multiple_registers(1, bytes.fromhex("000A0102"))),
        ("6.7", pdu_line.read_exception_status()),
        ("6.8", pdu_line.return_query_data(b"\xa5\x37")),
        ("6.9", pdu_line.get_comm_event_counter()),
        ("6.10", pdu_line.get_comm_event_log()),
        ("6.14", pdu_files.read_file_record([FileSpan(4, 1, 2), FileSpan(3, 9, 2)])),
        ("6.15", pdu_files.write_file_record([FileRecord(4, 7, bytes.fromhex("06AF04BE100D"))])),
        ("6.16", pdu.mask_write_register(4, and_mask=0xF2, or_mask=0x25)),
        (
            "6.17",
            pdu.read_write_multiple_registers(
                read_start=3, read_count=6, write_start=14, data=bytes.fromhex("00FF00FF00FF")
            ),
        ),
        ("6.18", pdu_files.read_fifo_queue(1246)),
        ("6.21", pdu_identity.read_device_identification(ReadDeviceId.BASIC)),
    ],
)
def test_requests_are_those_of_the_standard(clause: str, built: bytes) -> None:
    assert built == example(clause)[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_answers_of_the_standard_are_those_expected(name: str) -> None:
    request, response = example(name.split(maxsplit=1)[0])
    head, size = pdu.response_head(request)
    assert response.startswith(head)
    assert size in {len(response), 0}
    assert fault_of(request, len(head), response) == ""


def test_bits_are_packed_from_the_least_significant_as_in_clause_6_1() -> None:
    status = pdu.unpack_bits(bytes.fromhex("CD6B05"), 19)
    assert status[:8] == (True, False, True, True, False, False, True, True)  # outputs 20 to 27, CD
    assert status[16:] == (True, False, True)  # outputs 36 to 38, 05
    assert pdu.pack_bits(status) == bytes.fromhex("CD6B05")


@settings(deadline=None)  # a shared machine may stall
@given(st.lists(st.booleans(), max_size=2000))
def test_packed_bits_come_back(bits: list[bool]) -> None:
    packed = pdu.pack_bits(bits)
    assert len(packed) == (len(bits) + 7) // 8
    assert pdu.unpack_bits(packed, len(bits)) == tuple(bits)


@pytest.mark.parametrize(
    ("table", "count_max"),
    [
        (Table.COILS, 2000),
        (Table.DISCRETE_INPUTS, 2000),
        (Table.HOLDING_REGISTERS, 125),
        (Table.INPUT_REGISTERS, 125),
    ],
)
def test_reads_end_at_the_limits_of_the_standard(table: Table, count_max: int) -> None:
    request = pdu.read(table, start=0x10000 - count_max, count=count_max)
    head, size = pdu.response_head(request)
    assert head[1] == size - 2
    assert size <= pdu.PDU_SIZE_MAX
    with pytest.raises(LocalProtocolError, match=f"expected 1..{count_max}"):
        pdu.read(table, start=0, count=count_max + 1)
    with pytest.raises(LocalProtocolError, match="expected 1"):
        pdu.read(table, start=0, count=0)
    with pytest.raises(LocalProtocolError, match=r"0\.\.65535"):
        pdu.read(table, start=0x10000 - count_max + 1, count=count_max)


def test_writes_end_at_the_limits_of_the_standard() -> None:
    assert len(pdu.write_multiple_coils(0, [True] * 1968)) == 6 + 246
    assert len(pdu.write_multiple_registers(0, bytes(246))) == 6 + 246
    for wrong in (
        lambda: pdu.write_multiple_coils(0, [True] * 1969),
        lambda: pdu.write_multiple_coils(0, []),
        lambda: pdu.write_multiple_registers(0, bytes(248)),
        lambda: pdu.write_multiple_registers(0, b""),
        lambda: pdu.write_multiple_registers(0, b"\x00"),
        lambda: pdu.write_multiple_registers(0xFFFF, bytes(4)),
        lambda: pdu.write_single_register(0, 0x10000),
        lambda: pdu.write_single_register(0, -1),
        lambda: pdu.write_single_register(0x10000, 0),
        lambda: pdu.write_single_coil(-1, on=True),
        lambda: pdu.mask_write_register(0, and_mask=0x10000, or_mask=0),
        lambda: pdu.mask_write_register(0, and_mask=0, or_mask=-1),
    ):
        with pytest.raises(LocalProtocolError, match="expected"):
            wrong()


@settings(deadline=None)  # a shared machine may stall
@given(st.binary(max_size=300))
def test_a_client_refuses_requests_it_did_not_build(data: bytes) -> None:
    try:
        head, size = pdu.response_head(data)
    except LocalProtocolError:
        return
    assert head[0] == data[0]
    assert size <= pdu.PDU_SIZE_MAX


def test_exceptions_have_a_meaning_for_people() -> None:
    assert pdu.meaning(2) == "exception 2 (illegal data address: the device has no such register or bit)"
    assert "silent" in pdu.meaning(0x0B)
    assert pdu.meaning(0x55).startswith("exception 85 (not defined by the standard")
    for code in ExceptionCode:
        assert "not defined" not in pdu.meaning(code)
    # Clause 7: function 01 refused with illegal data address.
    assert pdu.exception_response(1, ExceptionCode.ILLEGAL_DATA_ADDRESS) == bytes.fromhex("81 02")


def test_tables_say_what_they_are() -> None:
    assert [table.has_bits for table in Table] == [True, True, False, False]
    assert [table.is_writable for table in Table] == [True, False, True, False]


# --- answers of functions whose length the device chooses ---------------------------------------------------


def data_of(clause: str) -> tuple[bytes, bytes]:
    """The request, and what a session hands on of its answer."""
    request, response = example(clause)
    return request, response[len(pdu.response_head(request)[0]) :]


def test_the_answers_of_the_standard_are_understood() -> None:
    assert data_of("6.7")[1] == b"\x6d"
    assert pdu_line.event_counter(data_of("6.9")[1]) == (pdu_line.STATUS_BUSY, 264)
    log = pdu_line.event_log(data_of("6.10")[1])
    assert (log.status, log.events, log.messages, log.log) == (0, 264, 289, b"\x20\x00")
    assert pdu_files.file_records(*data_of("6.14")) == (
        bytes.fromhex("0DFE 0020"),
        bytes.fromhex("33CD 0040"),
    )
    assert data_of("6.17")[1] == bytes.fromhex("00FE 0ACD 0001 0003 000D 00FF")
    assert pdu_files.fifo_queue(data_of("6.18")[1]) == bytes.fromhex("01B8 1284")
    identity = pdu_identity.device_identification(data_of("6.21")[1])
    assert identity.conformity == 1
    assert identity.next_object is None
    assert identity.objects[::2] == ((0, b"Company identification"), (2, b"V2.11"))


def test_identification_in_two_parts_as_in_clause_6_21() -> None:
    reader = IdentityReader()
    assert reader.request() == bytes.fromhex("2B0E0100")
    # Number of objects is 03 in both parts of the example: those of both together.
    reader.take(
        bytes.fromhex("01 FF 02 03") + b"\0\x16Company identification" + b"\1\x1cProduct codeXXXXXXXXXXXXXXXX"
    )
    assert reader.request() == bytes.fromhex("2B0E0102")
    reader.take(bytes.fromhex("01 00 00 03 02 05") + b"V2.11")
    assert reader.request() is None
    assert list(reader.objects) == [0, 1, 2]


def test_a_device_that_never_ends_its_identification_is_found_out() -> None:
    reader = IdentityReader()
    reader.take(bytes.fromhex("01 FF 01 01 00 00"))
    with pytest.raises(RemoteProtocolError, match="after object 1 the device goes on with 1"):
        reader.take(bytes.fromhex("01 FF 01 01 01 00"))


@pytest.mark.parametrize(
    ("request_hex", "answer_hex", "fault"),
    [
        ("0C", "0C 07 0000 0108 0121 20 00", "found byte count 7 before 8 bytes"),
        ("0C", "0C 05 0000 0108 01", "byte count 5"),
        ("0C", "0C 47" + 71 * "00", "byte count 71"),
        ("11", "11 00", "server id"),
        ("11", "11 02 FF", "found byte count 2 before 1"),
        ("14 07 06 0004 0001 0002", "14 06 05 07 0DFE 0020", "expected 05 06"),
        ("14 07 06 0004 0001 0002", "14 06 03 06 0DFE 0020", "expected 05 06"),
        ("14 07 06 0004 0001 0002", "14 06 05 06 0DFE", "found 4 bytes, expected 6"),
        ("18 04DE", "18 0006 0003 01B8 1284", "FIFO count"),
        ("18 04DE", "18 0042 0020" + 32 * "0000", "FIFO count"),
        ("18 04DE", "18 00", "FIFO"),
        ("2B0E0100", "2B0E01 04 00 00 00", "conformity level 0x04"),
        ("2B0E0100", "2B0E01 01 01 00 00", "more follows 01"),
        ("2B0E0100", "2B0E01 01 00 00 01 00 05 41", "object 0x00 is cut off"),
        ("2B0E0100", "2B0E01 01 00 00 01 00", "object 0x00 is cut off"),
        ("2B0E0100", "2B0E01 01 00 00 00 00 01 41", "found 1 objects, expected 0"),
        ("2B0E0100", "2B0E01 01 00", "found 2 bytes"),
    ],
)
def test_answers_that_are_none_are_told(request_hex: str, answer_hex: str, fault: str) -> None:
    request, answer = bytes.fromhex(request_hex), bytes.fromhex(answer_hex)
    head, size = pdu.response_head(request)
    assert size == 0
    assert answer.startswith(head[:1])
    assert fault in fault_of(request, len(head), answer)


def test_custom_requests_take_what_comes() -> None:
    request = pdu.raw(0x41, b"\1\2\3")
    assert request == bytes.fromhex("41010203")
    assert pdu.response_head(request) == (b"\x41", 0)
    assert fault_of(request, 1, b"\x41anything") == ""
    assert pdu.response_head(pdu.raw(0x2B, b"\x0d\0")) == (b"\x2b\x0d", 0)  # CANopen, clause 6.20
    assert fault_of(b"\x2b\x0d\0", 2, b"\x2b\x0d??") == ""
    for function, data in ((0, b""), (128, b""), (1, bytes(253))):
        with pytest.raises(LocalProtocolError, match="expected"):
            pdu.raw(function, data)


def test_limits_of_requests() -> None:
    assert len(pdu_files.write_file_record([FileRecord(1, 0, bytes(244))])) == 253
    assert len(pdu_files.read_file_record([FileSpan(1, n, 1) for n in range(35)])) == 2 + 0xF5
    assert len(
        pdu.read_write_multiple_registers(read_start=0, read_count=125, write_start=0, data=bytes(242))
    )
    for wrong in (
        lambda: pdu_files.read_file_record([]),
        lambda: pdu_files.read_file_record([FileSpan(1, n, 1) for n in range(36)]),
        lambda: pdu_files.read_file_record([FileSpan(1, 0, 125)]),  # answer of 2 + 2 + 250 bytes
        lambda: pdu_files.read_file_record([FileSpan(0, 0, 1)]),
        lambda: pdu_files.read_file_record([FileSpan(1, 9999, 2)]),
        lambda: pdu_files.read_file_record([FileSpan(1, 0, 0)]),
        lambda: pdu_files.write_file_record([FileRecord(1, 0, bytes(246))]),
        lambda: pdu_files.write_file_record([FileRecord(1, 0, b"\0")]),
        lambda: pdu_files.write_file_record([]),
        lambda: pdu_files.read_fifo_queue(0x10000),
        lambda: pdu.read_write_multiple_registers(read_start=0, read_count=126, write_start=0, data=b"\0\0"),
        lambda: pdu.read_write_multiple_registers(read_start=0, read_count=1, write_start=0, data=bytes(244)),
        lambda: pdu.read_write_multiple_registers(read_start=0, read_count=1, write_start=0, data=b"\0"),
        lambda: pdu_line.return_query_data(b"\0"),
        lambda: pdu_line.return_query_data(bytes(252)),
        lambda: pdu_line.diagnostic(Diagnostic.RETURN_BUS_MESSAGE_COUNT, 0x10000),
        lambda: pdu_identity.read_device_identification(ReadDeviceId.BASIC, 256),
    ):
        with pytest.raises(LocalProtocolError, match="expected"):
            wrong()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_length_of_a_pdu_is_told_from_its_beginning(name: str) -> None:
    for whole, size_of in zip(example(name.split(maxsplit=1)[0]), (request_size, response_size), strict=True):
        told = {size_of(whole[:cut]) for cut in range(len(whole) + 1)}
        if name.startswith("6.8 "):
            assert told == {NEEDS_MORE, UNTOLD}  # data of any length is looped back
        else:
            assert told == {NEEDS_MORE, len(whole)}
            assert size_of(whole + b"more") == len(whole)


def test_lengths_of_other_pdus() -> None:
    assert response_size(b"\x83") == 2
    assert request_size(b"\x08\x00\x0b") == response_size(b"\x08\x00\x0b") == 5
    assert response_size(b"\x11\x03abc") == 5
    for size_of in (request_size, response_size):
        assert size_of(b"\x41") == size_of(b"\x2b\x0d") == UNTOLD


def test_event_bytes_in_words_of_clause_6_10() -> None:
    assert pdu_line.event_words(0x00) == "communication restarted"
    assert pdu_line.event_words(0x04) == "entered listen only mode"
    assert pdu_line.event_words(0xE2) == "received: communication error, in listen only mode, broadcast"
    assert pdu_line.event_words(0x41) == "answered: exception 1 to 3 sent"
    assert pdu_line.event_words(0x40) == "answered"
    assert "not defined" in pdu_line.event_words(0x20)


# modbus-part1.pcap of ITI/ICS-Security-Tools (Creative Commons Attribution 4.0), by frame numbers.
CAPTURED = {
    "17, 18": ("08 0001 0000", "08 0001 0000"),
    "23, 24": ("08 000A 0000", "08 000A 0000"),
    "40, 41": ("11", "11 12 00 FF 57696E6770617468204C696D69746564"),
    "57, 58": ("03 0005 0002", "03 04 0009 0018"),
    "66, 67": ("06 0005 000B", "06 0005 000B"),
}


@pytest.mark.parametrize("frames", CAPTURED)
def test_answers_of_a_real_device_are_those_expected(frames: str) -> None:
    request, response = (bytes.fromhex(text) for text in CAPTURED[frames])
    head, size = pdu.response_head(request)
    assert response.startswith(head)
    assert size in {len(response), 0}
    assert fault_of(request, len(head), response) == ""
    assert response_size(response) == len(response)
    assert request_size(request) == len(request)


def test_a_real_device_says_who_it_is() -> None:
    found = pdu_identity.server_id(bytes.fromhex(CAPTURED["40, 41"][1])[1:])
    assert found.is_running() is True
    assert found.data[2:] == b"Wingpath Limited"
    assert ServerId(b"\x09\x00").is_running() is False
    assert ServerId(b"abc").is_running() is None
    assert ServerId(b"abc\xff").is_running(id_size=3) is True


# --- fuzz: any bytes at all, as plain functions that a longer campaign can call -----------------------------

REQUESTS = [example(name.split(maxsplit=1)[0])[0] for name in EXAMPLES]


def fuzz_answer(choice: int, data: bytes) -> None:
    """Any answer to any request is right, or what is wrong with it is said."""
    request = REQUESTS[choice % len(REQUESTS)]
    head, _ = pdu.response_head(request)
    assert isinstance(fault_of(request, len(head), head + data), str)


def fuzz_sizes(data: bytes) -> None:
    """Lengths are told from any bytes, and hold once they are told."""
    for size_of in (request_size, response_size):
        told = NEEDS_MORE
        for cut in range(min(len(data), 270) + 1):
            size = size_of(data[:cut])
            assert size in {UNTOLD, NEEDS_MORE} or size > 0
            assert told in {NEEDS_MORE, size}, "what was told does not change"
            told = size


def fuzz_identity(parts: list[bytes]) -> None:
    """A device that answers anything is understood or refused, in 256 answers at most."""
    reader = IdentityReader(ReadDeviceId.EXTENDED)
    for part in parts:
        if reader.request() is None:
            break
        try:
            reader.take(part)
        except RemoteProtocolError:
            break


@settings(deadline=None, max_examples=500)
@given(st.integers(0, 30), st.binary(max_size=260))
def test_any_answer_is_right_or_its_fault_is_told(choice: int, data: bytes) -> None:
    fuzz_answer(choice, data)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=120))
def test_any_bytes_have_one_length_or_none(data: bytes) -> None:
    fuzz_sizes(data)


identity_part = st.builds(
    lambda head, objects: head + b"".join(bytes((key, len(value))) + value for key, value in objects),
    st.tuples(st.sampled_from([1, 3, 0x83]), st.sampled_from([0, 0xFF]), st.integers(0, 255), st.just(9)).map(
        bytes
    ),
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=9)), max_size=4),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(identity_part, st.binary(max_size=40))))
def test_any_identification_comes_to_an_end(parts: list[bytes]) -> None:
    fuzz_identity(parts)
