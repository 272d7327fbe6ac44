"""Client session: matching, timing, loss, and frames of a real capture."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import mbap, pdu, pdu_line
from drivers.modbus.wire.client import (
    QUARANTINE_MAX,
    Answer,
    ClientSession,
    Event,
    Lost,
    Mismatched,
    Refused,
    TimedOut,
)
from drivers.modbus.wire.describe import frame_words
from drivers.modbus.wire.pdu import Table
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.core.frames import AT_ONCE_MAX, FRAMES_MAX, WATCH_MAX_NS, FrameLog
from gateway.core.session import Session

# modbus-part1.pcap of ITI/ICS-Security-Tools (Creative Commons Attribution 4.0): frame numbers, TCP payloads.
# (frame of the request, request, frame of the answer, answer)
CAPTURED = [
    (51, "0001 0000 0006 0a 01 0000 0001", 52, "0001 0000 0004 0a 01 01 00"),
    (54, "0001 0000 0006 0a 01 0002 0002", 55, "0001 0000 0004 0a 01 01 00"),
    (57, "0001 0000 0006 0a 03 0005 0002", 58, "0001 0000 0007 0a 03 04 0009 0018"),
    (60, "0001 0000 0006 0a 05 0002 0000", 61, "0001 0000 0006 0a 05 0002 0000"),
    (66, "0001 0000 0006 0a 06 0005 000b", 67, "0001 0000 0006 0a 06 0005 000b"),
]
BUILT = [
    pdu.read(Table.COILS, start=0, count=1),
    pdu.read(Table.COILS, start=2, count=2),
    pdu.read(Table.HOLDING_REGISTERS, start=5, count=2),
    pdu.write_single_coil(2, on=False),
    pdu.write_single_register(5, 11),
]
DATA = [b"\0", b"\0", bytes.fromhex("0009 0018"), b"", b""]
# Frames 91 and 101: exceptions 6 and 5 with a byte too many behind them.
PADDED_EXCEPTIONS = [(91, "0001 0000 0004 0a 81 06 00"), (101, "0001 0000 0004 0a 81 05 00")]

MS = 10**6
READ_TWO = pdu.read(Table.HOLDING_REGISTERS, start=5, count=2)


def session_with(*pdus: bytes, unit: int = 10, max_in_flight: int = 16) -> ClientSession:
    """A session that has sent these requests at time 0, tokens 0, 1, 2 …, transactions 1, 2, 3 …"""
    session = ClientSession(max_in_flight=max_in_flight)
    for token, request in enumerate(pdus):
        session.request(unit, request, token=token, timeout_ns=100 * MS, now_ns=0)
    session.to_send(0)
    return session


def answer_to(transaction: int, answer_hex: str, unit: int = 10) -> bytes:
    return mbap.encode(transaction, unit, bytes.fromhex(answer_hex))


def test_it_is_a_session() -> None:
    session: Session[Event] = ClientSession()
    assert session.sent(0) == []
    assert session.deadline_ns() is None
    assert session.on_deadline(0) == []


@pytest.mark.parametrize("index", range(len(CAPTURED)))
def test_captured_exchanges(index: int) -> None:
    _, request, _, answer = CAPTURED[index]
    session = ClientSession()
    session.request(10, BUILT[index], token="t", timeout_ns=MS, now_ns=0)
    assert session.to_send(0) == [bytes.fromhex(request)]
    assert session.to_send(0) == []
    assert session.receive(bytes.fromhex(answer), 7) == [Answer("t", DATA[index], 7)]
    assert session.counters.answers == 1


@pytest.mark.parametrize(("frame", "answer"), PADDED_EXCEPTIONS)
def test_captured_exceptions_of_the_wrong_length_are_not_believed(frame: int, answer: str) -> None:
    session = session_with(BUILT[0])
    (event,) = session.receive(bytes.fromhex(answer), 1)
    expected = "unit 10, 3 bytes beginning with 01 01"
    assert event == Mismatched(0, f"unit 10, 3 bytes {answer[-8:]}", expected, 1)


def test_the_refused_example_of_clause_7() -> None:
    # Specification V1.1b3 clause 7: read output 1185, refused with 02.
    session = ClientSession()
    session.request(1, bytes.fromhex("01 04A1 0001"), token="t", timeout_ns=MS, now_ns=0)
    assert session.receive(answer_to(1, "81 02", unit=1), 3) == [Refused("t", 2, 3)]
    assert session.counters.exceptions == {2: 1}
    assert ClientSession().counters.exceptions == {}, "counters are shared between sessions"


def test_answers_may_come_in_any_order_glued_and_in_pieces() -> None:
    answers = [answer_to(n + 1, f"03 04 0000 {n:04x}") for n in range(16)]
    expected: list[Event] = [Answer(n, bytes((0, 0, 0, n)), 5) for n in reversed(range(16))]
    stream = b"".join(reversed(answers))
    assert session_with(*[READ_TWO] * 16).receive(stream, 5) == expected
    slow = session_with(*[READ_TWO] * 16)
    assert [event for byte in stream for event in slow.receive(bytes((byte,)), 5)] == expected


def test_capacity_is_free_places_in_flight() -> None:
    session = ClientSession(max_in_flight=2)
    assert session.capacity() == 2
    session.request(10, READ_TWO, token=0, timeout_ns=MS, now_ns=0)
    session.request(10, READ_TWO, token=1, timeout_ns=MS, now_ns=0)
    assert session.capacity() == 0
    with pytest.raises(LocalProtocolError, match="2 are in flight"):
        session.request(10, READ_TWO, token=2, timeout_ns=MS, now_ns=0)
    session.receive(answer_to(2, "03 04 0000 0000"), 1)
    assert session.capacity() == 1


@pytest.mark.parametrize("max_in_flight", [0, 17])
def test_in_flight_limits_of_the_guide(max_in_flight: int) -> None:
    with pytest.raises(LocalProtocolError, match=r"1\.\.16"):
        ClientSession(max_in_flight=max_in_flight)


def test_requests_that_are_none_are_refused_and_leave_no_trace() -> None:
    session = ClientSession()
    for unit, request in ((256, READ_TWO), (-1, READ_TWO), (1, b""), (1, b"\x2b"), (1, b"\x0b\x00")):
        with pytest.raises(LocalProtocolError, match="expected"):
            session.request(unit, request, token=0, timeout_ns=MS, now_ns=0)
    assert session.capacity() == 1
    assert session.to_send(0) == []


@pytest.mark.parametrize(
    ("request_pdu", "wrong"),
    [
        (READ_TWO, mbap.encode(1, 11, bytes.fromhex("03 04 0009 0018"))),  # another unit
        (READ_TWO, answer_to(1, "04 04 0009 0018")),  # another function
        (READ_TWO, answer_to(1, "84 02")),  # another function's exception
        (READ_TWO, answer_to(1, "03 02 0009")),  # one register
        (READ_TWO, answer_to(1, "03 04 0009")),  # byte count says more than there is
        (READ_TWO, answer_to(1, "03 06 0009 0018 0000")),  # three
        (READ_TWO, answer_to(1, "03 04 0009 0018 00")),
        (READ_TWO, answer_to(1, "83")),
        (BUILT[3], answer_to(1, "05 0002 ff00")),  # echo: the other state
        (BUILT[3], answer_to(1, "05 0003 0000")),  # another coil
        (BUILT[4], answer_to(1, "06 0005 000c")),
        (pdu.write_multiple_registers(5, bytes(4)), answer_to(1, "10 0005 0001")),
        (pdu.write_multiple_registers(5, bytes(4)), answer_to(1, "10 0006 0002")),
        (pdu.write_multiple_coils(5, [True] * 9), answer_to(1, "0f 0005 0008")),
        (pdu.mask_write_register(4, and_mask=0xF2, or_mask=0x25), answer_to(1, "16 0004 00f2 0024")),
    ],
)
def test_an_answer_that_does_not_fit_fails_its_request(request_pdu: bytes, wrong: bytes) -> None:
    session = session_with(request_pdu)
    (event,) = session.receive(wrong, 1)
    assert isinstance(event, Mismatched)
    assert event.token == 0
    assert event.found != event.expected
    assert session.counters.mismatched == 1
    assert session.counters.answers == 0
    assert session.capacity() == 16


def test_a_late_answer_is_dropped_and_never_meets_a_later_request() -> None:
    session = session_with(READ_TWO, max_in_flight=1)
    assert session.deadline_ns() == 100 * MS
    assert session.on_deadline(100 * MS - 1) == []
    assert session.on_deadline(100 * MS) == [TimedOut(0, True)]
    # 65,535 further requests go once around the identifiers; number 1 is not used again.
    for _ in range(0x10000 + 10):
        session.request(10, READ_TWO, token="next", timeout_ns=MS, now_ns=0)
        (frame,) = session.to_send(0)
        assert frame[:2] != b"\0\1"
        session.receive(frame[:4] + bytes.fromhex("0007 0a 03 04 0000 0001"), 0)
    session.request(10, READ_TWO, token="now", timeout_ns=MS, now_ns=0)
    assert session.receive(answer_to(1, "03 04 dead beef"), 1) == []
    assert session.counters.late == 1
    assert session.capacity() == 0
    assert session.counters.timeouts == 1


def test_identifiers_under_way_are_not_used_twice() -> None:
    session = ClientSession(max_in_flight=2, first_transaction=0xFFFF)
    session.request(10, READ_TWO, token="slow", timeout_ns=MS, now_ns=0)
    assert session.to_send(0)[0][:2] == b"\xff\xff"
    for _ in range(0x10000):
        session.request(10, READ_TWO, token="fast", timeout_ns=MS, now_ns=0)
        (frame,) = session.to_send(0)
        assert frame[:2] != b"\xff\xff"
        assert len(session.receive(frame[:4] + bytes.fromhex("0007 0a 03 04 0000 0001"), 0)) == 1


def test_quarantine_is_bounded() -> None:
    session = ClientSession()
    for _ in range(QUARANTINE_MAX + 5):
        session.request(10, READ_TWO, token=0, timeout_ns=1, now_ns=0)
        session.to_send(0)
        assert len(session.on_deadline(1)) == 1
    assert len(session._quarantine) == QUARANTINE_MAX
    assert 1 not in session._quarantine, "the oldest is released first"


def test_what_timed_out_before_it_was_sent_is_never_sent() -> None:
    session = ClientSession(max_in_flight=3)
    session.request(10, BUILT[4], token="sent", timeout_ns=50, now_ns=0)
    first = session.to_send(0)
    session.request(10, BUILT[4], token="waits", timeout_ns=50, now_ns=0)
    session.request(10, BUILT[3], token="later", timeout_ns=90, now_ns=0)
    assert session.deadline_ns() == 50
    assert session.on_deadline(50) == [TimedOut("sent", True), TimedOut("waits", False)]
    assert [frame[:2] for frame in first + session.to_send(50)] == [b"\0\1", b"\0\3"]
    assert session.deadline_ns() == 90


def test_link_loss_fails_everything_and_says_what_was_sent() -> None:
    session = ClientSession(max_in_flight=3)
    session.request(10, BUILT[4], token="sent", timeout_ns=50, now_ns=0)
    session.to_send(0)
    session.request(10, BUILT[4], token="waits", timeout_ns=50, now_ns=0)
    session.receive(b"\0\1\0", 1)
    assert session.lost(2) == [Lost("sent", True), Lost("waits", False)]
    assert session.lost(2) == []
    assert session.capacity() == 3
    assert session.to_send(3) == []
    assert session.deadline_ns() is None
    # The next connection starts in step, and with new identifiers.
    session.request(10, READ_TWO, token="new", timeout_ns=50, now_ns=3)
    assert session.to_send(3)[0][:2] == b"\0\3"
    assert session.receive(answer_to(1, "03 04 0000 0000"), 4) == []
    assert session.receive(answer_to(3, "03 04 0000 0000"), 4) == [Answer("new", bytes(4), 4)]


def test_garbage_breaks_the_link_but_not_the_answers_in_front_of_it() -> None:
    session = session_with(READ_TWO, READ_TWO)
    with pytest.raises(RemoteProtocolError, match="byte 15: found protocol identifier 0x5450"):
        session.receive(answer_to(2, "03 04 0009 0018") + b"HTTP/1.1", 1)
    assert session.counters.garbage == 1
    assert session.lost(2) == [Answer(1, bytes.fromhex("00090018"), 1), Lost(0, True)]


# What a device may do to three pipelined reads; each list element becomes bytes.
hostile = st.lists(
    st.one_of(
        st.builds(
            mbap.encode,
            st.integers(0, 5),
            st.sampled_from([9, 10]),
            st.sampled_from([b"\x03\x04\0\x09\0\x18", b"\x83\x02", b"\x03\x02\0\x09", b"\x03"]),
        ),
        st.binary(max_size=12),
    ),
    max_size=6,
)


@settings(deadline=None)  # a shared machine may stall
@given(hostile, st.lists(st.integers(0, 200), max_size=4))
def test_every_request_gets_exactly_one_event_whatever_the_device_does(
    parts: list[bytes], cuts: list[int]
) -> None:
    stream = b"".join(parts)
    whole = _events_of([stream])
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    assert _events_of([stream[a:b] for a, b in itertools.pairwise(edges)]) == whole
    assert _events_of([stream[i : i + 1] for i in range(len(stream))]) == whole
    assert sorted(str(event.token) for event in whole) == ["0", "1", "2"]


def _events_of(chunks: list[bytes]) -> list[Event]:
    session = session_with(*[READ_TWO] * 3)
    events: list[Event] = []
    try:
        for chunk in chunks:
            events += session.receive(chunk, 1)
    except RemoteProtocolError:
        pass
    return events + session.lost(1)


def test_the_wire_is_busy_while_something_is_under_way() -> None:
    session = ClientSession(max_in_flight=2)
    counters = session.counters
    assert counters.busy_until(5 * MS) == 0
    session.request(10, READ_TWO, token=0, timeout_ns=100 * MS, now_ns=10 * MS)
    session.request(10, READ_TWO, token=1, timeout_ns=50 * MS, now_ns=12 * MS)
    assert counters.busy_until(14 * MS) == 4 * MS
    session.to_send(14 * MS)
    session.receive(answer_to(1, "03 04 0000 0000"), 15 * MS)
    session.on_deadline(62 * MS)
    assert counters.busy_until(90 * MS) == counters.busy_ns == 52 * MS
    session.request(10, READ_TWO, token=2, timeout_ns=50 * MS, now_ns=100 * MS)
    session.lost(101 * MS)
    assert counters.busy_until(200 * MS) == 53 * MS


def test_frames_are_noted_while_somebody_looks() -> None:
    session = ClientSession()
    log = session.frames
    session.request(10, READ_TWO, token=0, timeout_ns=MS, now_ns=1)
    session.receive(answer_to(1, "03 04 0000 0000"), 2)
    assert log.read(0) == ([], 0), "nobody asked yet"
    log.watch(3, 100 * MS)
    session.request(10, READ_TWO, token=0, timeout_ns=MS, now_ns=4)
    session.receive(answer_to(2, "03 04 0001 0002"), 5)
    session.request(10, READ_TWO, token=0, timeout_ns=MS, now_ns=6)
    session.on_deadline(2 * MS)
    session.receive(answer_to(3, "03 04 0001 0002"), 3 * MS)
    session.request(10, READ_TWO, token=0, timeout_ns=MS, now_ns=4 * MS)
    session.receive(answer_to(4, "03 02 0001"), 5 * MS)
    frames, missed = log.read(0)
    assert missed == 0
    malformed = "read holding registers, but malformed: 02 00 01"
    assert [(frame.number, frame.way, frame.text) for frame in frames] == [
        (1, "sent", "unit 10 read holding registers 5..6"),
        (2, "received", "unit 10: 2 registers 0001 0002"),
        (3, "sent", "unit 10 read holding registers 5..6"),
        (4, "fault", "unit 10 read holding registers 5..6: no answer in time"),
        (5, "received", "unit 10: 2 registers 0001 0002 (too late, or never asked for)"),
        (6, "sent", "unit 10 read holding registers 5..6"),
        (7, "received", f"unit 10: {malformed} (does not fit the request)"),
    ]
    assert [frame.number for frame in log.read(5)[0]] == [6, 7]
    assert frames[1].hex == "0a 030400010002"
    session.request(10, READ_TWO, token=0, timeout_ns=MS, now_ns=101 * MS)
    assert len(log.read(0)[0]) == 7, "its time is over"


def test_frames_forgotten_are_counted() -> None:
    log = FrameLog(frame_words)
    log.watch(0, 10**18)
    for number in range(FRAMES_MAX + 20):
        log.add(number, "sent", 1, READ_TWO, None, "")
    frames, missed = log.read(5)
    assert (missed, frames[0].number, len(frames)) == (15, 21, AT_ONCE_MAX)
    assert log.until_ns == WATCH_MAX_NS


def test_an_answer_of_its_own_length_must_fit_together() -> None:
    session = ClientSession()
    for number, (request, answer, data) in enumerate(
        (
            (pdu_line.get_comm_event_log(), "0C 08 0000 0108 0121 20 00", "08 0000 0108 0121 20 00"),
            (pdu_line.get_comm_event_log(), "0C 09 0000 0108 0121 20 00", None),
            (pdu.raw(0x41, b"?"), "41 0102", "0102"),
            (pdu.raw(0x41, b"?"), "42 0102", None),
        ),
        1,
    ):
        session.request(10, request, token=number, timeout_ns=100 * MS, now_ns=0)
        (event,) = session.receive(answer_to(number, answer), 1)
        if data is None:
            assert isinstance(event, Mismatched)
        else:
            assert event == Answer(number, bytes.fromhex(data), 1)
    assert session.counters.mismatched == 2
