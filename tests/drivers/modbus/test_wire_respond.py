"""What a server answers to every function: the examples of the standard, its refusals in order, lines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import mbap, pdu
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.model import Later
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.pdu_answer import fault_of
from drivers.modbus.wire.pdu_files import FileRecord
from drivers.modbus.wire.pdu_identity import Identity, IdentityReader, ReadDeviceId
from drivers.modbus.wire.respond import Open, Responder
from drivers.modbus.wire.server import OPEN_MAX, ServerSession
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from tests.drivers.modbus.test_wire_pdu import EXAMPLES, example


class Memory:
    """Units 1 and 2 over one memory: all 65536 items of each table but item 60000. Files 1 to 10. Queues."""

    HOLE = 60000

    def __init__(self) -> None:
        self.bits = bytearray(0x10000)
        self.words = bytearray(0x20000)
        self.files = {number: bytearray(20_000) for number in range(1, 11)}
        self.queues: dict[int, bytes] = {}
        self.later: list[int] | None = None  # tokens of writes handed on
        self.writes = 0

    def has_unit(self, unit: int) -> bool:
        return unit in {1, 2}

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return self._refusal(start, count) or pdu.pack_bits(map(bool, self.bits[start : start + count]))

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return self._refusal(start, count) or bytes(self.words[2 * start : 2 * (start + count)])

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | Later | None:
        if refusal := self._refusal(start, count):
            return refusal
        self.writes += 1
        self.bits[start : start + count] = bytes(pdu.unpack_bits(data, count))
        return None

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | Later | None:
        if refusal := self._refusal(start, len(data) // 2):
            return refusal
        self.writes += 1
        self.words[2 * start : 2 * start + len(data)] = data
        if self.later is not None:
            self.later.append(self.writes)
            return Later(self.writes)
        return None

    def read_file(self, unit: int, file: int, record: int, count: int) -> bytes | ExceptionCode:
        content = self.files.get(file)
        if content is None:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        return bytes(content[2 * record : 2 * (record + count)])

    def write_files(self, unit: int, records: tuple[FileRecord, ...]) -> ExceptionCode | None:
        if any(file not in self.files for file, _, _ in records):
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        for file, record, data in records:
            self.files[file][2 * record : 2 * record + len(data)] = data
        return None

    def read_queue(self, unit: int, address: int) -> bytes | ExceptionCode:
        return self.queues.get(address, ExceptionCode.ILLEGAL_DATA_ADDRESS)

    def _refusal(self, start: int, count: int) -> ExceptionCode | None:
        return ExceptionCode.ILLEGAL_DATA_ADDRESS if start <= self.HOLE < start + count else None


OBJECTS = {0: b"Company identification", 1: b"Product codeX", 2: b"V2.11"}


def responder(memory: Memory, objects: dict[int, bytes] | None = None) -> Responder:
    return Responder(
        memory,
        identity=Identity(objects or OBJECTS, server_id=b"\x09\xffgateway"),
        files=memory,
        queues=memory,
        exception_status=lambda unit: 0x6D if unit == 1 else ExceptionCode.SERVER_DEVICE_FAILURE,
        custom={0x41: lambda unit, data: data[::-1] if data else ExceptionCode.ILLEGAL_DATA_VALUE},
    )


def ask(server: Responder | LineServer, request_hex: str, unit: int = 1) -> str:
    reply = server.answer(unit, bytes.fromhex(request_hex))
    assert not isinstance(reply, Open)
    return "" if reply is None else reply.hex(" ").upper()


def plain(text: str) -> str:
    return bytes.fromhex(text).hex(" ").upper()


def prepared() -> Memory:
    """The contents that the examples of the standard show."""
    memory = Memory()
    memory.bits[19:38] = bytes(pdu.unpack_bits(bytes.fromhex("CD6B05"), 19))
    memory.bits[196:218] = bytes(pdu.unpack_bits(bytes.fromhex("ACDB35"), 22))
    for address, words in ((107, "022B00000064"), (8, "000A"), (4, "0012"), (3, "00FE0ACD00010003000D00FF")):
        memory.words[2 * address : 2 * address + len(words) // 2] = bytes.fromhex(words)
    memory.files[4][2:6], memory.files[3][18:22] = bytes.fromhex("0DFE0020"), bytes.fromhex("33CD0040")
    memory.queues[1246] = bytes.fromhex("01B81284")
    return memory


# 6.8 to 6.10 are answered by a line, below; conformity level 0x81: individual access is there as well.
CLAUSES = [
    name.split()[0] for name in EXAMPLES if name.split()[0] not in {"6.8", "6.9", "6.10", "6.4", "6.21"}
]


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_examples_of_the_standard(clause: str) -> None:
    request, response = example(clause)
    assert responder(prepared()).answer(1, request) == response


def test_what_the_writes_of_the_standard_leave_behind() -> None:
    memory = prepared()
    server = responder(memory)
    for clause in ("6.5", "6.6", "6.11", "6.15", "6.17"):
        server.answer(1, example(clause)[0])
    assert memory.bits[172]
    assert memory.bits[19:29] == bytes((1, 0, 1, 1, 0, 0, 1, 1, 1, 0))
    assert memory.words[2:4] == b"\0\3"
    assert memory.files[4][14:20] == bytes.fromhex("06AF04BE100D")
    assert memory.words[28:34] == bytes.fromhex("00FF00FF00FF")
    memory.words[8:10] = b"\0\x12"
    server.answer(1, example("6.16")[0])
    assert memory.words[8:10] == b"\0\x17"


@pytest.mark.parametrize(
    ("request_hex", "answer"),
    [
        ("00", "80 01"),
        ("09", "89 01"),
        ("7F", "FF 01"),
        ("83 0000 0001", "83 01"),  # a function code of an exception: not one of a request
        ("03 0000 0000", "83 03"),  # no register
        ("03 0000 007E", "83 03"),  # 126 registers
        ("04 0000 007E", "84 03"),
        ("01 0000 07D1", "81 03"),  # 2001 bits
        ("02 0000 0000", "82 03"),
        ("03 0000 00", "83 03"),  # cut
        ("03 0000 0001 00", "83 03"),  # a byte too many
        ("03 FFFF 0002", "83 02"),
        ("01 FFFF 0002", "81 02"),
        ("03 FFFF 007E", "83 03"),  # quantity comes before address
        ("03 EA60 0001", "83 02"),
        ("05 0000 0001", "85 03"),  # neither on nor off
        ("05 EA60 0001", "85 03"),  # value comes before address
        ("05 EA60 FF00", "85 02"),
        ("05 0000", "85 03"),
        ("06 0000 0000 00", "86 03"),
        ("06 EA60 0000", "86 02"),
        ("0F 0000 0000 00", "8F 03"),
        ("0F 0000 07B1 F7" + 247 * "00", "8F 03"),  # 1969 coils
        ("0F 0000 0009 01 FF", "8F 03"),  # nine coils in one byte
        ("0F 0000 0008 02 FF", "8F 03"),  # says two bytes, has one
        ("0F FFFF 0002 01 03", "8F 02"),
        ("0F 0000", "8F 03"),
        ("10 0000 0001 02 00", "90 03"),
        ("10 0000 007C F8" + 124 * "0000", "90 03"),  # 124 registers
        ("10 FFFF 0002 04 0000 0000", "90 02"),
        ("16 0000 0000", "96 03"),
        ("16 EA60 0000 0000", "96 02"),
        ("17 0000 007E 0000 0001 02 0000", "97 03"),  # reads 126
        ("17 0000 0001 0000 007A F4" + 122 * "0000", "97 03"),  # writes 122
        ("17 0000 0001 0000 0001 04 0000 0000", "97 03"),  # byte count of two
        ("17 0000 0001 0000 0001 02 00", "97 03"),
        ("17 FFFF 0002 0000 0001 02 0000", "97 02"),
        ("17 0000 0001 FFFF 0002 04 0000 0000", "97 02"),
        ("17 EA60 0001 0000 0001 02 BEEF", "97 02"),
        ("17 0000 0001 EA60 0001 02 0000", "97 02"),
        ("07 00", "87 03"),
        ("11 00", "91 03"),
        ("14", "94 03"),
        ("14 00", "94 03"),
        ("14 06 06 0001 0000 00", "94 03"),  # byte count below 7
        ("14 08 06 0001 0000 0001 06", "94 03"),
        ("14 07 05 0001 0000 0001", "94 02"),  # reference type, figure 24
        ("14 07 06 0000 0000 0001", "94 02"),
        ("14 07 06 0001 270F 0002", "94 02"),  # beyond record 9999
        ("14 07 06 0001 0000 0000", "94 02"),
        ("14 07 06 000B 0000 0001", "94 02"),  # no such file here
        ("14 07 06 0001 0000 007D", "94 03"),  # an answer of 254 bytes
        ("15 07 06 0001 0000 0000", "95 03"),  # byte count below 9
        ("15 09 06 0001 0000 0002 0000", "95 03"),  # two registers, data of one
        ("15 0A 06 0001 0000 0001 0000 06", "95 03"),
        ("15 09 05 0001 0000 0001 0000", "95 02"),
        ("15 09 06 000B 0000 0001 0000", "95 02"),
        ("18 04DF", "98 02"),
        ("18 04", "98 03"),
        ("18 0001", "98 03"),  # 32 in the queue
        ("18 0000", "18 00 02 00 00"),  # none
        ("2B", "AB 01"),
        ("2B 0D 00", "AB 01"),  # CANopen
        ("2B 0E 00 00", "AB 03"),
        ("2B 0E 05 00", "AB 03"),
        ("2B 0E 01", "AB 03"),
        ("2B 0E 04 03", "AB 02"),
        ("41", "C1 03"),
        ("41 010203", "41 03 02 01"),
        ("11", "11 09 09 FF 67 61 74 65 77 61 79"),
    ],
)
def test_refusals_in_the_order_of_the_state_diagrams(request_hex: str, answer: str) -> None:
    memory = Memory()
    memory.queues.update({1: bytes(64), 0: b""})
    assert ask(responder(memory), request_hex) == answer
    assert memory.words == bytes(0x20000), "what is refused changes nothing"


def test_a_server_without_the_parts_refuses_their_functions() -> None:
    server = Responder(Memory())
    for function in (7, 8, 11, 12, 17, 20, 21, 24, 43, 65):
        assert ask(server, f"{function:02X}0000") == f"{function | 0x80:02X} 01"


def test_function_23_writes_before_it_reads() -> None:
    assert ask(responder(Memory()), "17 0000 0002 0001 0001 02 BEEF") == "17 04 00 00 BE EF"


def test_a_failed_execution_is_exception_4() -> None:
    assert ask(responder(Memory()), "07", unit=2) == "87 04"


# --- device identification ----------------------------------------------------------------------------------

EXTENDED = {**OBJECTS, 3: b"http://example.org", 0x80: b"a" * 200, 0x81: b"b" * 244, 0xFF: b"last"}


def identify(objects: dict[int, bytes], code: ReadDeviceId) -> tuple[IdentityReader, int]:
    server, reader, count = responder(Memory(), objects), IdentityReader(code), 0
    while (request := reader.request()) is not None:
        answer = server.answer(1, request)
        assert isinstance(answer, bytes)
        assert len(answer) <= pdu.PDU_SIZE_MAX
        assert fault_of(request, 3, answer) == ""
        reader.take(answer[3:])
        count += 1
    return reader, count


def test_identification_is_streamed_in_answers_of_253_bytes() -> None:
    reader, count = identify(EXTENDED, ReadDeviceId.EXTENDED)
    assert reader.objects == EXTENDED
    assert reader.conformity == 0x83
    assert count == 4  # 7 + 66 | 7 + 202 | 7 + 246 | 7 + 6


@pytest.mark.parametrize(("size", "count"), [(199, 1), (200, 2)])
def test_an_answer_is_filled_to_the_last_byte(size: int, count: int) -> None:
    objects = {0: bytes(20), 1: bytes(21), 2: bytes(size)}  # 7 + 22 + 23 + 2 + 199 = 253
    assert identify(objects, ReadDeviceId.BASIC)[1] == count


def test_a_stream_ends_with_its_category() -> None:
    assert identify(EXTENDED, ReadDeviceId.BASIC)[0].objects == OBJECTS
    assert list(identify(EXTENDED, ReadDeviceId.REGULAR)[0].objects) == [0, 1, 2, 3]


def test_a_level_that_is_not_there_is_answered_by_the_one_that_is() -> None:
    reader, _ = identify(OBJECTS, ReadDeviceId.EXTENDED)
    assert reader.objects == OBJECTS
    assert reader.conformity == 0x81


def test_single_objects_and_unknown_beginnings() -> None:
    server = responder(Memory(), EXTENDED)
    assert ask(server, "2B 0E 04 02") == plain("2B 0E 04 83 00 00 01 02 05") + " " + plain(b"V2.11".hex())
    assert ask(server, "2B 0E 04 FF").endswith(plain(b"last".hex()))
    # "If the Object Id does not match any known object, the server responds as if object 0 were pointed out"
    assert ask(server, "2B 0E 01 07") == ask(server, "2B 0E 01 00")


def test_an_identity_that_cannot_be_sent_is_refused() -> None:
    for objects, words in (({0: b""}, "ProductCode"), ({**OBJECTS, 3: bytes(245)}, "245 bytes")):
        with pytest.raises(LocalProtocolError, match=words):
            Identity(objects)
    with pytest.raises(LocalProtocolError, match="252"):
        Identity(OBJECTS, server_id=bytes(252))


# --- writes whose outcome comes later -----------------------------------------------------------------------


def test_a_write_is_answered_when_its_outcome_is_known() -> None:
    memory = Memory()
    memory.later = []
    session = ServerSession(responder(memory))
    write, read = bytes.fromhex("06 0001 BEEF"), bytes.fromhex("03 0005 0001")
    both = bytes.fromhex("17 0001 0001 0002 0001 02 CAFE")
    session.receive(b"".join(mbap.encode(n, 1, request) for n, request in enumerate((write, read, both))), 0)
    assert session.to_send(0) == [mbap.encode(1, 1, bytes.fromhex("03 02 0000"))]
    assert session.conclude(memory.later[1], None)
    assert session.to_send(0) == [mbap.encode(2, 1, bytes.fromhex("17 02 BEEF"))]
    assert session.conclude(memory.later[0], ExceptionCode.SERVER_DEVICE_FAILURE)
    assert session.to_send(0) == [mbap.encode(0, 1, b"\x86\x04")]
    assert not session.conclude(memory.later[0], None), "once only"
    session.receive(mbap.encode(3, 1, both), 0)
    session.conclude(memory.later[2], ExceptionCode.ILLEGAL_DATA_VALUE)
    assert session.to_send(0) == [mbap.encode(3, 1, b"\x97\x03")]


def test_open_writes_are_bounded_and_forgotten_with_the_connection() -> None:
    memory = Memory()
    memory.later = []
    session = ServerSession(responder(memory))
    write, read = bytes.fromhex("10 0001 0001 02 BEEF"), bytes.fromhex("03 0005 0001")
    both = bytes.fromhex("17 0001 0001 0002 0001 02 CAFE")
    session.receive(b"".join(mbap.encode(n, 1, write) for n in range(OPEN_MAX + 1)), 0)
    assert session.to_send(0) == [mbap.encode(OPEN_MAX, 1, b"\x90\x04")], "never 6: do not try again"
    session.receive(mbap.encode(90, 1, read) + mbap.encode(91, 1, both), 0)
    assert session.to_send(0) == [
        mbap.encode(90, 1, bytes.fromhex("03 02 0000")),
        mbap.encode(91, 1, b"\x97\x04"),
    ], "who only reads is served"
    assert len(memory.later) == OPEN_MAX
    session.lost(0)
    assert not session.conclude(memory.later[0], None)
    assert session.to_send(0) == []


# --- a serial line ------------------------------------------------------------------------------------------


def line() -> tuple[Memory, LineServer]:
    memory = Memory()
    return memory, LineServer(responder(memory))


def test_queries_are_looped_back() -> None:
    _, server = line()
    assert ask(server, "08 0000 A537") == "08 00 00 A5 37"  # clause 6.8.2
    assert ask(server, "08 0000") == "08 00 00"
    assert server.answer(0, bytes.fromhex("08 0000")) is None
    assert ask(server, "08 0000 A537 0102") == "08 00 00 A5 37 01 02"


@pytest.mark.parametrize(
    ("request_hex", "answer"),
    [
        ("08 0005 0000", "88 01"),  # figure 18: a sub-function that is not supported
        ("08 0013 0000", "88 01"),
        ("08 0015 0000", "88 01"),
        ("08 0003 0A00", "88 01"),  # no ASCII here
        ("08 0001 0001", "88 03"),
        ("08 000B 0001", "88 03"),
        ("08 000B", "88 03"),
        ("08 00", "88 03"),
        ("08 0000 A5", "88 03"),
        ("0B 00", "8B 03"),
        ("0C 00", "8C 03"),
    ],
)
def test_diagnostics_refused(request_hex: str, answer: str) -> None:
    assert ask(line()[1], request_hex) == answer


def test_counters_count_what_clause_6_8_1_says() -> None:
    _, server = line()

    def counts() -> list[int]:
        return [int(ask(server, f"08 00{sub:02X} 0000")[-5:].replace(" ", ""), 16) for sub in range(11, 19)]

    ask(server, "03 0000 0001")
    ask(server, "03 0000 0000")  # an exception
    ask(server, "03 0000 0001", unit=9)  # another's
    server.overheard()  # its answer
    server.damaged()
    server.overran()
    # messages, damaged, exceptions, processed, unanswered, NAK, busy, overruns: each counts those before it
    assert counts() == [5, 1, 1, 5, 0, 0, 0, 1]
    assert ask(server, "0B") == "0B 00 00 00 09"  # one read, eight diagnostics; not itself, not the exception
    assert ask(server, "0B") == "0B 00 00 00 09"
    assert ask(server, "08 0014 0000") == "08 00 14 00 00"
    assert counts()[7] == 0
    assert ask(server, "08 000A 0000") == "08 00 0A 00 00"
    assert counts() == [1, 0, 0, 3, 0, 0, 0, 0]
    assert ask(server, "08 0002 0000") == "08 00 02 00 00"


def test_each_unit_counts_for_itself() -> None:
    _, server = line()
    ask(server, "03 0000 0001", unit=1)
    ask(server, "08 000A 0000", unit=1)
    assert ask(server, "08 000B 0000", unit=2) == "08 00 0B 00 03"
    assert ask(server, "08 000B 0000", unit=1) == "08 00 0B 00 02"
    assert ask(server, "08 000E 0000", unit=2) == "08 00 0E 00 01"


def test_the_event_log_tells_the_newest_first() -> None:
    _, server = line()
    ask(server, "03 0000 0001")
    ask(server, "07 00")
    assert ask(server, "0C") == "0C 0B 00 00 00 01 00 03 80 41 80 40 80"
    for _ in range(100):
        ask(server, "07")
    assert len(ask(server, "0C").split()) == 2 + 6 + 64


def test_listen_only_mode_ends_by_a_restart_alone() -> None:
    memory, server = line()
    assert ask(server, "08 0004 0000") == ""
    assert ask(server, "03 0000 0001") == ask(server, "08 0000 A537") == ask(server, "0C") == ""
    server.answer(0, bytes.fromhex("06 0000 BEEF"))
    assert memory.writes == 1, "a broadcast reaches the other unit only"
    assert ask(server, "03 0000 0001", unit=2) != "", "the other unit answers"
    assert ask(server, "08 0001 0001") == ""
    assert ask(server, "08 0001 0000") == "", "the restart that ends it is not answered"
    assert ask(server, "03 0000 0001") == "03 02 BE EF"
    log = ask(server, "0C").split()[8:]
    assert log[:6] == ["80", "40", "80", "00", "60", "A0"]
    assert log[-2:] == ["40", "80"]
    assert "04" in log


def test_a_restart_clears_the_counters_and_if_told_so_the_log() -> None:
    _, server = line()
    ask(server, "03 0000 0001")
    assert ask(server, "08 0001 0000") == "08 00 01 00 00"
    assert ask(server, "0C") == "0C 0C 00 00 00 00 00 01 80 00 40 80 40 80"
    assert ask(server, "08 0001 FF00") == "08 00 01 FF 00"
    assert ask(server, "0C") == "0C 08 00 00 00 00 00 01 80 00"


def test_a_broadcast_writes_to_every_unit_and_is_never_answered() -> None:
    memory, server = line()
    assert server.answer(0, bytes.fromhex("06 0000 BEEF")) is None
    assert memory.words[:2] == b"\xbe\xef"
    assert memory.writes == 2
    assert server.answer(0, bytes.fromhex("03 0000 0001")) is None
    assert ask(server, "0B") == "0B 00 00 00 01"
    assert ask(server, "0C").split()[8:] == ["80", "40", "80", "40", "C0", "40", "C0"]
    assert server.answer(0, bytes.fromhex("08 0004 0000")) is None
    assert ask(server, "07") == ask(server, "07", unit=2) == ""
    assert server.answer(0, bytes.fromhex("08 0001 0000")) is None
    assert ask(server, "07") == "07 6D"


def test_the_delimiter_of_an_ascii_line_is_handed_on() -> None:
    told: list[int] = []
    server = LineServer(responder(Memory()), set_delimiter=told.append)
    assert ask(server, "08 0003 3B00") == "08 00 03 3B 00"
    assert told == [0x3B]
    assert ask(server, "08 0003 3B01") == "88 03"


# --- fuzz ---------------------------------------------------------------------------------------------------

SERVER = LineServer(responder(Memory()), set_delimiter=lambda _: None)


def fuzz_server(unit: int, request: bytes) -> None:
    """Any request of at least a byte gets an answer that its client understands, an exception, or none."""
    answer = SERVER.answer(unit, request)
    if answer is None:
        return
    assert isinstance(answer, bytes)
    assert 2 <= len(answer) <= pdu.PDU_SIZE_MAX
    assert answer[0] & 0x7F == request[0] & 0x7F
    if answer[0] & 0x80:
        assert len(answer) == 2
        assert 1 <= answer[1] <= 4
        return
    head, size = pdu.response_head(request)  # what a server takes, a client could have built
    assert answer.startswith(head)
    assert size in {0, len(answer)}
    assert fault_of(request, len(head), answer) == ""


function = st.sampled_from([*range(1, 9), 11, 12, 15, 16, 17, 20, 21, 22, 23, 24, 43, 65]).map(
    lambda n: bytes((n,))
)
small = st.sampled_from(
    [b"\0\0", b"\0\1", b"\0\2", b"\0\x7d", b"\xff\xff", b"\xff\0", b"\x06\0", b"\x0e\1", b"\2\xbe"]
)
likely = st.builds(lambda first, rest: first + b"".join(rest), function, st.lists(small, max_size=8))


@settings(deadline=None, max_examples=1000)
@given(st.sampled_from([0, 1, 2, 9]), st.one_of(likely, st.binary(min_size=1, max_size=253)))
def test_any_request_gets_an_answer_that_is_one(unit: int, request: bytes) -> None:
    fuzz_server(unit, request)


def test_remote_faults_are_not_ours() -> None:
    with pytest.raises(RemoteProtocolError):
        IdentityReader().take(b"")
