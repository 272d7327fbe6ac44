"""Server session: the standard's answers and refusals, order, isolation; and our two ends back to back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import mbap, pdu
from drivers.modbus.wire.client import Answer, ClientSession, Lost, Mismatched, Refused, TimedOut
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import QUEUED_BYTES_MAX, Indication, ServerSession, UnknownUnit
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.core.session import Session


class Plant:
    """Unit 10: 200 items in each table; coil and register 100 cannot be touched."""

    ITEMS = 200
    FORBIDDEN = 100

    def __init__(self) -> None:
        self.bits = {table: [False] * self.ITEMS for table in (Table.COILS, Table.DISCRETE_INPUTS)}
        self.words = {
            table: bytearray(2 * self.ITEMS) for table in (Table.HOLDING_REGISTERS, Table.INPUT_REGISTERS)
        }

    def has_unit(self, unit: int) -> bool:
        return unit == 10

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return self._refusal(start, count) or pdu.pack_bits(self.bits[table][start : start + count])

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return self._refusal(start, count) or bytes(self.words[table][2 * start : 2 * (start + count)])

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        if refusal := self._refusal(start, count):
            return refusal
        self.bits[Table.COILS][start : start + count] = pdu.unpack_bits(data, count)
        return None

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        if refusal := self._refusal(start, len(data) // 2):
            return refusal
        self.words[Table.HOLDING_REGISTERS][2 * start : 2 * start + len(data)] = data
        return None

    def _refusal(self, start: int, count: int) -> ExceptionCode | None:
        if start + count > self.ITEMS or start <= self.FORBIDDEN < start + count:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        return None


def ask(session: ServerSession, request_hex: str, *, unit: int = 10) -> str:
    session.receive(mbap.encode(0x1501, unit, bytes.fromhex(request_hex)), 0)
    (answer,) = session.to_send(0)
    assert answer[:4] == bytes.fromhex("1501 0000"), "transaction and protocol are the request's"
    assert int.from_bytes(answer[4:6], "big") == len(answer) - 6
    assert answer[6] == unit
    return answer[7:].hex(" ")


def test_it_is_a_session() -> None:
    session: Session[Indication] = ServerSession(Responder(Plant()))
    assert session.sent(0) == session.lost(0) == session.on_deadline(0) == []
    assert session.deadline_ns() is None


def test_the_examples_of_the_standard() -> None:
    # Specification V1.1b3, examples of clauses 6.1 to 6.16, contents set up as there.
    plant = Plant()
    session = ServerSession(Responder(plant))
    plant.bits[Table.COILS][19:38] = pdu.unpack_bits(bytes.fromhex("CD6B05"), 19)
    plant.bits[Table.DISCRETE_INPUTS][170:192] = pdu.unpack_bits(bytes.fromhex("ACDB35"), 22)
    plant.words[Table.HOLDING_REGISTERS][2 * 107 : 2 * 110] = bytes.fromhex("022B 0000 0064")
    plant.words[Table.INPUT_REGISTERS][16:18] = bytes.fromhex("000A")
    assert ask(session, "01 0013 0013") == "01 03 cd 6b 05"
    assert ask(session, "02 00AA 0016") == "02 03 ac db 35"  # clause 6.2, 26 lower to stay within 200 items
    assert ask(session, "03 006B 0003") == "03 06 02 2b 00 00 00 64"
    assert ask(session, "04 0008 0001") == "04 02 00 0a"
    assert ask(session, "05 00AC FF00") == "05 00 ac ff 00"
    assert plant.bits[Table.COILS][172]
    assert ask(session, "05 00AC 0000") == "05 00 ac 00 00"
    assert not plant.bits[Table.COILS][172]
    assert ask(session, "06 0001 0003") == "06 00 01 00 03"
    assert plant.words[Table.HOLDING_REGISTERS][2:4] == b"\0\3"
    assert ask(session, "0F 0013 000A 02 CD01") == "0f 00 13 00 0a"
    assert plant.bits[Table.COILS][19:29] == [True, False, True, True, False, False, True, True, True, False]
    assert ask(session, "10 0001 0002 04 000A 0102") == "10 00 01 00 02"
    assert plant.words[Table.HOLDING_REGISTERS][2:6] == bytes.fromhex("000A 0102")
    plant.words[Table.HOLDING_REGISTERS][8:10] = b"\0\x12"
    assert ask(session, "16 0004 00F2 0025") == "16 00 04 00 f2 00 25"
    assert plant.words[Table.HOLDING_REGISTERS][8:10] == b"\0\x17"


@pytest.mark.parametrize(
    ("request_hex", "answer"),
    [
        ("07", "87 01"),
        ("2b 0e 01 00", "ab 01"),
        ("03 0000 0000", "83 03"),
        ("03 0000 007e", "83 03"),
        ("01 0000", "81 03"),
        ("03 00c4 0004", "03 08 00 00 00 00 00 00 00 00"),
        ("03 00c4 0005", "83 02"),
        ("03 0060 0008", "83 02"),  # over item 100
        ("01 ffff 0002", "81 02"),
        ("05 0064 ff00", "85 02"),
        ("06 00c8 0000", "86 02"),
        ("10 0063 0002 04 0000 0000", "90 02"),
        ("16 0064 0000 0000", "96 02"),
        ("0f 0000 0001 01", "8f 03"),
    ],
)
def test_refusals(request_hex: str, answer: str) -> None:
    assert ask(ServerSession(Responder(Plant())), request_hex) == answer


def test_an_unknown_unit_is_refused_or_met_with_silence() -> None:
    assert ask(ServerSession(Responder(Plant())), "03 0000 0001", unit=11) == "83 0b"
    silent = ServerSession(Responder(Plant()), unknown_unit=UnknownUnit.SILENCE)
    assert silent.receive(mbap.encode(1, 11, bytes.fromhex("0300000001")), 0) == [Indication(11, 3, 0x0B)]
    assert silent.to_send(0) == []
    assert ask(silent, "03 0000 0001", unit=10) == "03 02 00 00"


def test_all_requests_of_one_segment_are_answered_in_order() -> None:
    session = ServerSession(Responder(Plant()))
    segment = b"".join(mbap.encode(n, 10, pdu.write_single_register(n, n * 3)) for n in range(50))
    events = session.receive(
        segment + mbap.encode(50, 10, pdu.read(Table.HOLDING_REGISTERS, start=0, count=50)), 0
    )
    assert events == [Indication(10, 6, None)] * 50 + [Indication(10, 3, None)]
    answers = session.to_send(0)
    assert [int.from_bytes(answer[:2], "big") for answer in answers] == list(range(51))
    assert answers[-1][9:] == b"".join((n * 3).to_bytes(2, "big") for n in range(50))


def test_a_malformed_frame_harms_only_its_own_connection() -> None:
    plant = Plant()
    bad, good = ServerSession(Responder(plant)), ServerSession(Responder(plant))
    with pytest.raises(RemoteProtocolError, match="byte 14"):
        bad.receive(mbap.encode(1, 10, pdu.write_single_register(1, 7)) + b"\0\2\0\1\0\6\x0a\3\0\0\0\1", 0)
    assert [answer.hex() for answer in bad.to_send(0)] == ["0001000000060a0600010007"]
    assert bad.lost(0) == [Indication(10, 6, None)]
    assert ask(good, "03 0001 0001") == "03 02 00 07"


def test_a_peer_that_asks_on_and_takes_no_answers_is_disconnected() -> None:
    session = ServerSession(Responder(Plant()))
    read = mbap.encode(1, 10, pdu.read(Table.HOLDING_REGISTERS, start=0, count=100))
    for _ in range(QUEUED_BYTES_MAX // 2090 + 1):
        assert {event.code for event in session.receive(read * 10, 0)} == {None}, "none is told busy"
    with pytest.raises(RemoteProtocolError, match="the peer asks, and takes none"):
        session.receive(read, 0)
    assert QUEUED_BYTES_MAX < sum(map(len, session.to_send(0))) <= QUEUED_BYTES_MAX + 10 * 209


def test_a_data_model_that_gives_the_wrong_size_is_our_fault() -> None:
    class Short(Plant):
        def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes:
            return b""

    with pytest.raises(LocalProtocolError, match="0 bytes, expected 4"):
        ServerSession(Responder(Short())).receive(
            mbap.encode(1, 10, pdu.read(Table.HOLDING_REGISTERS, start=0, count=2)), 0
        )


@settings(deadline=None)  # a shared machine may stall
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=20),
            st.builds(mbap.encode, st.just(1), st.just(10), st.binary(min_size=1, max_size=12)),
        )
    )
)
def test_any_bytes_give_answers_or_an_error_the_same_however_cut(parts: list[bytes]) -> None:
    stream = b"".join(parts)
    whole = serve([stream])
    assert serve([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert sum(map(len, whole[1])) <= 260 * (len(stream) // 8)


def serve(chunks: list[bytes]) -> tuple[list[Indication], list[bytes], str]:
    session = ServerSession(Responder(Plant()))
    events: list[Indication] = []
    error = ""
    try:
        for chunk in chunks:
            events += session.receive(chunk, 0)
    except RemoteProtocolError as caught:
        error = str(caught)
    answers = session.to_send(0)
    return events + session.lost(0), answers, error


def some_request(choice: int, start: int, count: int) -> bytes:
    match choice:
        case 0:
            return pdu.read(Table.COILS, start=start, count=count)
        case 1:
            return pdu.read(Table.HOLDING_REGISTERS, start=start, count=count)
        case 2:
            return pdu.write_multiple_registers(start, bytes(2 * count))
        case 3:
            return pdu.write_multiple_coils(start, [True] * count)
        case 4:
            return pdu.write_single_coil(start, on=True)
        case 5:
            return pdu.write_single_register(start, count)
        case _:
            return pdu.mask_write_register(start, and_mask=count, or_mask=start)


request_strategy = st.builds(some_request, st.integers(0, 6), st.integers(0, 210), st.integers(1, 100))


@settings(deadline=None)  # a shared machine may stall
@given(st.lists(request_strategy, max_size=16), st.lists(st.integers(1, 40)))
def test_back_to_back_every_request_is_answered_or_refused(requests: list[bytes], sizes: list[int]) -> None:
    client, server = ClientSession(max_in_flight=16), ServerSession(Responder(Plant()))
    for token, request in enumerate(requests):
        client.request(10, request, token=token, timeout_ns=1000, now_ns=0)
    events = []
    for chunk in cut(b"".join(client.to_send(0)), sizes):
        server.receive(chunk, 1)
        for answer in cut(b"".join(server.to_send(1)), sizes):
            events += client.receive(answer, 2)
    assert [event.token for event in events] == list(range(len(requests)))
    for event, request in zip(events, requests, strict=True):
        legal = int.from_bytes(request[1:3], "big") < 200
        assert isinstance(event, Answer | Refused)
        assert legal or isinstance(event, Refused)
    assert client.counters.mismatched == client.counters.late == 0


@settings(deadline=None)  # a shared machine may stall
@given(st.lists(st.tuples(request_strategy, st.integers(0, 4), st.booleans())))
def test_back_to_back_over_a_link_that_loses_delays_and_cuts(steps: list[tuple[bytes, int, bool]]) -> None:
    """Whatever the link does: one event for each request, and none from another request's answer."""
    client, server = ClientSession(max_in_flight=4), ServerSession(Responder(Plant()))
    under_way: list[bytes] = []  # answers the link still holds
    outcomes: dict[object, int] = {}
    now = 0
    for token, (request, fate, cuts) in enumerate(steps):
        now += 30
        events = client.on_deadline(now)
        if client.capacity():
            client.request(10, request, token=token, timeout_ns=100, now_ns=now)
            outcomes[token] = 0
        for frame in client.to_send(now):
            server.receive(frame, now)
            under_way += server.to_send(now)
        if fate == 0 and under_way:
            under_way.pop(0)  # lost
        elif fate >= 2:
            events += client.receive(b"".join(under_way), now)  # all at once, some of them late
            under_way.clear()
        if cuts and fate == 4:
            under_way.clear()
            events += client.lost(now)
            server.lost(now)
        for event in events:
            outcomes[event.token] += 1
            assert not isinstance(event, Mismatched)
    for event in client.lost(now):
        assert isinstance(event, Lost | TimedOut)
        outcomes[event.token] += 1
    assert set(outcomes.values()) <= {1}


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks, position = [], 0
    for size in sizes:
        chunks.append(data[position : position + size])
        position += size
    return [*chunks, data[position:]]
