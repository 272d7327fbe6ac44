"""A client on a line without transaction identifiers: what it sends when, and what it takes for an answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import pdu
from drivers.modbus.wire.client import Answer, Broadcast, Event, Lost, Mismatched, Refused, TimedOut
from drivers.modbus.wire.line import Mode, Timing
from drivers.modbus.wire.line_client import LineClientSession
from drivers.modbus.wire.pdu import Table
from gateway.core.errors import LocalProtocolError

MS = 1_000_000
TIMEOUT = 1000 * MS
READ = pdu.read(Table.HOLDING_REGISTERS, start=0, count=2)
OTHER = pdu.read(Table.HOLDING_REGISTERS, start=40, count=2)
LONGER = pdu.read(Table.HOLDING_REGISTERS, start=80, count=3)
DATA = bytes.fromhex("0001 0002")
GOOD = bytes((3, 4)) + DATA


class Line:
    """A session and its clock. `say` is the slave, `wait` lets time pass as the pump does."""

    def __init__(self, mode: Mode = Mode.RTU, *, timing: Timing | None = None, **more: Any) -> None:
        self.timing = timing or Timing.serial(mode, baud=19_200)
        self.mode = mode
        self.session = LineClientSession(mode=mode, timing=self.timing, **more)
        self.now = 10**12
        self.sent: list[tuple[int, bytes]] = []
        self.events: list[Event] = []

    def ask(self, unit: int = 1, request: bytes = READ, token: object = None) -> None:
        self.session.request(unit, request, token=token or request, timeout_ns=TIMEOUT, now_ns=self.now)
        self._flush()

    def say(self, data: bytes, *, apart_ns: int = 0) -> list[Event]:
        before = len(self.events)
        pieces = [data] if not apart_ns else [data[at : at + 1] for at in range(len(data))]
        for piece in pieces:
            self.events += self.session.receive(piece, self.now)
            self._flush()
            self.wait(apart_ns)
        return self.events[before:]

    def answer(self, body: bytes = GOOD, unit: int = 1) -> list[Event]:
        return self.say(self.mode.encode(unit, body))

    def wait(self, ns: int) -> list[Event]:
        before, end = len(self.events), self.now + ns
        for _ in range(1000):
            due = self.session.deadline_ns()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.events += self.session.on_deadline(self.now)
            self._flush()
        else:
            raise AssertionError("a deadline that never passes")
        self.now = end
        return self.events[before:]

    def _flush(self) -> None:
        self.sent += [(self.now, frame) for frame in self.session.to_send(self.now)]


@pytest.fixture(params=list(Mode))
def line(request: pytest.FixtureRequest) -> Line:
    return Line(request.param)


def test_a_request_and_its_answer(line: Line) -> None:
    line.ask()
    assert line.sent == [(line.now, line.mode.encode(1, READ))]
    assert line.session.capacity() == 0
    assert line.answer() == [Answer(READ, DATA, line.now)]
    assert line.session.capacity() == 1
    assert line.session.deadline_ns() is None
    assert (line.session.counters.requests, line.session.counters.answers) == (1, 1)


def test_an_answer_byte_by_byte_as_the_wire_carries_it(line: Line) -> None:
    line.ask()
    (event,) = line.say(line.mode.encode(1, GOOD), apart_ns=line.timing.character_ns)
    assert isinstance(event, Answer)
    assert line.session.counters.noise_bytes == 0


def test_a_refusal(line: Line) -> None:
    line.ask()
    assert line.answer(b"\x83\x02") == [Refused(READ, 2, line.now)]
    assert line.session.counters.exceptions == {2: 1}


def test_silence_is_kept_before_every_frame_of_rtu() -> None:
    # Serial Line V1.02 §2.5.1.1: 3.5 characters of 11 bits; 1.750 ms above 19,200 baud.
    for baud, silence in ((9600, 4_010_417), (19_200, 2_005_209), (115_200, 1_750_000)):
        line = Line(timing=Timing.serial(Mode.RTU, baud=baud))
        assert abs(line.timing.silence_ns - silence) < 10
        line.ask()
        line.answer()
        heard = line.now
        line.ask(2)
        assert len(line.sent) == 1
        line.wait(TIMEOUT)
        assert line.sent[1][0] == heard + line.timing.silence_ns


def test_a_converter_at_the_end_of_a_tcp_connection_is_sent_to_at_once() -> None:
    line = Line(timing=Timing.over_tcp())
    line.ask()
    line.answer()
    line.ask(2)
    assert len(line.sent) == 2


def test_the_timeout_runs_from_the_end_of_the_request_and_leaves_room_for_the_answer(line: Line) -> None:
    line.ask()
    characters = len(line.mode.encode(1, READ)) + len(line.mode.encode(1, GOOD))
    assert line.wait(TIMEOUT) == []
    assert line.wait(characters * line.timing.character_ns) == [TimedOut(READ, was_sent=True)]
    assert line.session.counters.timeouts == 1


def test_after_a_timeout_nothing_is_sent_until_the_line_is_silent(line: Line) -> None:
    line.ask()
    line.wait(2 * TIMEOUT)
    line = Line(line.mode)
    line.ask()
    line.events.clear()
    while not line.events:
        line.wait(MS)
    line.ask(2, token="next")
    late = line.mode.encode(1, GOOD)
    line.say(late, apart_ns=line.timing.character_ns)  # the late answer, just then
    heard = line.now - line.timing.character_ns
    assert len(line.sent) == 1
    assert line.session.counters.late == 1
    line.wait(TIMEOUT // 2)
    assert line.sent[1][0] == heard + line.timing.quiet_ns
    (event,) = line.answer(unit=2)
    assert isinstance(event, Answer)
    assert event.token == "next"


def test_a_late_answer_of_another_slave_is_counted_and_the_wait_goes_on(line: Line) -> None:
    line.ask(1)
    line.wait(2 * TIMEOUT)
    line.ask(2)
    assert line.answer(unit=1) == []
    assert line.session.counters.late == 1
    (event,) = line.answer(unit=2)
    assert isinstance(event, Answer)


def test_a_request_that_a_late_answer_would_fit_waits_for_it(line: Line) -> None:
    line.ask(1, READ)
    line.wait(TIMEOUT + 100 * MS)
    line.ask(1, OTHER)  # the same slave, function and count: nothing would tell the answers apart
    assert len(line.sent) == 1
    assert line.answer() == []
    assert line.session.counters.late == 1
    line.wait(TIMEOUT + 200 * MS)
    assert [frame for _, frame in line.sent] == [line.mode.encode(1, READ), line.mode.encode(1, OTHER)]


def test_a_retry_of_the_same_request_does_not_wait_and_any_of_its_answers_is_right(line: Line) -> None:
    line.ask(1, READ)
    line.wait(TIMEOUT + 100 * MS)
    line.ask(1, READ)
    line.wait(line.timing.quiet_ns)
    assert len(line.sent) == 2
    (event,) = line.answer()
    assert isinstance(event, Answer)
    line.ask(1, OTHER)  # one more answer is under way
    line.wait(100 * MS)
    assert len(line.sent) == 2
    assert line.answer() == []
    line.wait(TIMEOUT)
    assert len(line.sent) == 3


def test_a_late_answer_of_another_shape_is_not_the_answer(line: Line) -> None:
    line.ask(1, READ)
    line.wait(TIMEOUT + 100 * MS)
    line.ask(1, LONGER)
    line.wait(50 * MS)
    assert len(line.sent) == 2
    assert line.answer() == []
    assert line.answer(bytes((3, 6)) + DATA + b"\0\3") == [Answer(LONGER, DATA + b"\0\3", line.now)]
    assert (line.session.counters.late, line.session.counters.mismatched) == (1, 0)


@pytest.mark.parametrize("body", [bytes((3, 2, 0, 1)), bytes((4, 4)) + DATA, b"\x84\x02"])
def test_an_answer_of_the_wrong_shape_is_a_mismatch(line: Line, body: bytes) -> None:
    line.ask()
    (event,) = line.answer(body)
    assert isinstance(event, Mismatched)
    assert event.found == f"unit 1, {len(body)} bytes {body.hex(' ')}"


def test_a_write_must_be_echoed_exactly(line: Line) -> None:
    for body, expected in (
        (pdu.write_single_register(7, 5), Answer),
        (pdu.write_single_register(7, 6), Mismatched),
    ):
        line.ask(1, pdu.write_single_register(7, 5))
        line.wait(line.timing.silence_ns)
        (event,) = line.answer(body)
        assert type(event) is expected
        line.wait(TIMEOUT)


def test_noise_before_the_answer_costs_nothing_but_a_count(line: Line) -> None:
    line.ask()
    line.say(b"\xff\x00")
    line.answer()
    line.wait(line.timing.patience_ns)
    assert [type(event) for event in line.events] == [Answer]
    assert line.session.counters.noise_bytes == 2


def test_noise_that_looks_like_the_beginning_of_an_answer_delays_it_at_most() -> None:
    line = Line()
    line.ask()
    line.say(bytes((9, 3, 250)))
    assert line.answer() == []
    assert [type(event) for event in line.wait(line.timing.patience_ns)] == [Answer]
    assert line.session.counters.check_errors == 1


def test_an_answer_behind_such_noise_is_found_when_its_time_is_over() -> None:
    line = Line(timing=Timing.over_tcp(patience_ns=10 * TIMEOUT))
    line.ask()
    line.say(bytes((9, 3, 250)))
    line.answer()
    assert [type(event) for event in line.wait(TIMEOUT)] == [Answer]


def test_a_damaged_answer_ends_in_a_timeout(line: Line) -> None:
    line.ask()
    bad = bytearray(line.mode.encode(1, GOOD))
    bad[5] ^= 1
    line.say(bytes(bad))
    assert [type(event) for event in line.wait(2 * TIMEOUT)] == [TimedOut]
    assert line.session.counters.check_errors == 1


def test_a_babbling_line_is_given_up_without_sending(line: Line) -> None:
    line.ask()
    line.wait(2 * TIMEOUT)
    line.events.clear()
    line.say(b"\xff")
    line.ask(2)
    for _ in range(3000):
        line.say(b"\xff")
        line.wait(MS // 2)
    if line.timing.silence_ns:
        assert line.events == [TimedOut(READ, was_sent=False)]
        assert len(line.sent) == 1


def test_a_custom_function_is_answered_by_what_ends_with_silence() -> None:
    line = Line()
    line.ask(1, pdu.raw(100, b"\1\2"))
    body = bytes((100,)) + bytes(range(33))
    assert line.answer(body) == []
    (event,) = line.wait(line.timing.patience_ns)
    assert isinstance(event, Answer)
    assert event.data == body[1:]


# --- broadcasts --------------------------------------------------------------------------------------------


def test_a_broadcast_has_no_answer_and_a_turnaround(line: Line) -> None:
    line.ask(0, pdu.write_single_register(1, 1))
    start, frame = line.sent[0]
    turnaround = len(frame) * line.timing.character_ns + line.timing.turnaround_ns
    assert line.wait(turnaround - 1) == []
    assert line.wait(1) == [Broadcast(pdu.write_single_register(1, 1), start)]
    assert line.session.counters.broadcasts == 1
    assert line.session.counters.timeouts == 0


def test_a_read_is_never_broadcast(line: Line) -> None:
    with pytest.raises(LocalProtocolError, match="function 3 to all slaves"):
        line.ask(0, READ)
    assert line.session.capacity() == 1


# --- echo --------------------------------------------------------------------------------------------------


def test_an_echo_is_taken_off_exactly(line: Line) -> None:
    line = Line(line.mode, has_echo=True)
    write = pdu.write_single_register(1, 1)
    line.ask(1, write)
    assert line.answer(write) == []  # the echo
    assert [type(event) for event in line.answer(write)] == [Answer]
    assert line.session.counters.echoes == 1
    line.wait(TIMEOUT)
    line.ask()
    both = line.sent[-1][1] + line.mode.encode(1, GOOD)
    assert [type(event) for event in line.say(both, apart_ns=1)] == [Answer]
    assert (line.session.counters.echoes, line.session.counters.collisions) == (2, 0)


def test_a_damaged_echo_is_a_collision(line: Line) -> None:
    line = Line(line.mode, has_echo=True)
    line.ask()
    frame = line.sent[0][1]
    line.say(frame[:5] + b"\0" + frame[6:])
    assert line.session.counters.collisions == 1
    line.answer()
    line.wait(line.timing.patience_ns)
    assert [type(event) for event in line.events] == [Answer]


def test_the_echo_of_a_read_shows_itself_and_is_expected_from_then_on(line: Line) -> None:
    line.ask()
    line.say(line.sent[0][1] + line.mode.encode(1, GOOD))
    write = pdu.write_single_register(1, 1)
    line.wait(TIMEOUT)
    line.ask(1, write)
    assert line.answer(write) == []
    assert [type(event) for event in line.answer(write)] == [Answer]
    assert line.session.counters.noise_bytes == 0
    line.session.lost(line.now)  # another adapter may come
    line.ask(1, write)
    assert [type(event) for event in line.answer(write)] == [Answer]


# --- the verbs ---------------------------------------------------------------------------------------------


def test_a_lost_link_fails_the_request_and_forgets_the_rest(line: Line) -> None:
    line.ask()
    line.say(line.mode.encode(1, GOOD)[:4])
    assert line.session.lost(line.now) == [Lost(READ, was_sent=True)]
    assert line.session.deadline_ns() is None
    line.ask(2)
    assert [type(event) for event in line.answer(unit=2)] == [Answer]
    line.ask(2)
    assert line.session.lost(line.now) == [Lost(READ, was_sent=not line.timing.silence_ns)]


def test_what_the_caller_may_not_do(line: Line) -> None:
    with pytest.raises(LocalProtocolError, match="unit: found 256"):
        line.ask(256)
    line.ask()
    with pytest.raises(LocalProtocolError, match="ask capacity"):
        line.ask()


def test_a_link_that_takes_nothing_does_not_spin(line: Line) -> None:
    line.ask()
    line.answer()
    session = line.session
    session.request(1, READ, token=1, timeout_ns=TIMEOUT, now_ns=line.now)
    for _ in range(3):  # the owner cannot send
        due = session.deadline_ns()
        assert due is not None
        if session.on_deadline(due):
            break
    else:
        raise AssertionError("more than two deadlines for one request")


def fuzz_line_client(data: bytes) -> None:
    """Any bytes, cut anyhow: one event for each request at most, never an exception, never a spin."""
    for mode in Mode:
        line = Line(mode, has_echo=bool(data[:1] > b"\x80"))
        asked = 0
        for at in range(0, len(data), 7):
            if line.session.capacity():
                asked += 1
                line.ask(at % 4, pdu.write_single_register(3, 4) if at % 4 == 0 else READ)
            line.say(data[at : at + 7])
            line.wait(data[at] * 8 * MS)
        line.wait(3 * TIMEOUT)
        assert len(line.events) == asked
        assert line.session.capacity() == 1


frames = [mode.encode(unit, GOOD) for mode in Mode for unit in (1, 2, 3)]


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=12), st.sampled_from(frames)), max_size=8).map(b"".join))
def test_any_bytes(data: bytes) -> None:
    fuzz_line_client(data)


def test_many_bytes() -> None:
    generator = random.Random(22)
    for _ in range(300):
        fuzz_line_client(b"".join(generator.choice([generator.randbytes(5), *frames]) for _ in range(5)))
