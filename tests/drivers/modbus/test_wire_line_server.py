"""Slaves on a shared line: what is for them, what is not, and when they speak."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import pdu
from drivers.modbus.wire.line import Mode, Timing
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.line_server_session import LineServerSession
from drivers.modbus.wire.model import Later
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import OPEN_MAX, Indication
from gateway.core.errors import LocalProtocolError

MS = 1_000_000
OURS, OTHER = 17, 3
READ = pdu.read(Table.HOLDING_REGISTERS, start=1, count=2)
ANSWER = bytes.fromhex("03 04 0001 0002")
WRITE = pdu.write_single_register(5, 0xBEEF)


class Registers:
    """100 registers for each of two units; `is_slow`: writes are handed on."""

    def __init__(self) -> None:
        self.words = {
            unit: bytearray(b"".join(n.to_bytes(2, "big") for n in range(100))) for unit in (OURS, 18)
        }
        self.is_slow = False

    def has_unit(self, unit: int) -> bool:
        return unit in self.words

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return ExceptionCode.ILLEGAL_DATA_ADDRESS

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        data = bytes(self.words[unit][2 * start : 2 * (start + count)])
        return data if len(data) == 2 * count else ExceptionCode.ILLEGAL_DATA_ADDRESS

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | Later | None:
        return ExceptionCode.ILLEGAL_DATA_ADDRESS

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | Later | None:
        if self.is_slow:
            return Later(("write", unit, start))
        self.words[unit][2 * start : 2 * start + len(data)] = data
        return None


class Slaves:
    """A session with its clock on a wire that says what it is told to."""

    def __init__(self, mode: Mode = Mode.RTU, *, timing: Timing | None = None, **more: Any) -> None:
        self.mode = mode
        self.timing = timing or Timing.serial(mode, baud=19_200)
        self.model = Registers()
        self.station = LineServer(Responder(self.model))
        self.session = LineServerSession(
            self.station, units=(OURS, 18), mode=mode, timing=self.timing, **more
        )
        self.now = 10**12
        self.said: list[tuple[int, bytes]] = []
        self.taken: list[Indication] = []

    def hear(self, data: bytes) -> None:
        self.taken += self.session.receive(data, self.now)
        self.flush()

    def hear_frame(self, unit: int, body: bytes) -> None:
        self.hear(self.mode.encode(unit, body))

    def wait(self, ns: int) -> None:
        end = self.now + ns
        for _ in range(1000):
            due = self.session.deadline_ns()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.taken += self.session.on_deadline(self.now)
            self.flush()
        else:
            raise AssertionError("a deadline that never passes")
        self.now = end

    def flush(self) -> None:
        self.said += [(self.now, frame) for frame in self.session.to_send(self.now)]

    def answers(self) -> list[bytes]:
        return [frame for _, frame in self.said]


@pytest.fixture(params=list(Mode))
def slaves(request: pytest.FixtureRequest) -> Slaves:
    return Slaves(request.param)


def test_a_request_is_answered_behind_the_silence(slaves: Slaves) -> None:
    heard = slaves.now
    slaves.hear_frame(OURS, READ)
    slaves.wait(100 * MS)
    assert slaves.said == [(heard + slaves.timing.silence_ns, slaves.mode.encode(OURS, ANSWER))]
    assert slaves.taken == [Indication(OURS, 3, None)]


def test_both_units_answer_in_their_own_name(slaves: Slaves) -> None:
    for unit in (OURS, 18):
        slaves.hear_frame(unit, READ)
        slaves.wait(100 * MS)
    assert slaves.answers() == [slaves.mode.encode(unit, ANSWER) for unit in (OURS, 18)]


def test_others_requests_and_answers_pass_by(slaves: Slaves) -> None:
    bits = pdu.read(Table.COILS, start=0x300, count=20)
    for body in (READ, ANSWER, bits, bytes((1, 3, 1, 2, 3)), WRITE, WRITE, b"\x83\x02"):
        slaves.hear_frame(OTHER, body)
        slaves.wait(5 * MS)
    slaves.wait(100 * MS)
    assert slaves.said == []
    assert slaves.taken == []
    assert (slaves.session.counters.frames, slaves.station.messages) == (7, 7)
    assert slaves.session.counters.noise_bytes == 0
    assert slaves.model.words[OURS][10:12] == b"\0\5"


def test_a_request_right_behind_anothers_answer_in_one_read_is_answered(slaves: Slaves) -> None:
    slaves.hear(
        slaves.mode.encode(OTHER, READ) + slaves.mode.encode(OTHER, ANSWER) + slaves.mode.encode(OURS, READ)
    )
    slaves.wait(100 * MS)
    assert slaves.answers() == [slaves.mode.encode(OURS, ANSWER)]


def test_an_answer_is_dropped_when_the_client_went_on(slaves: Slaves) -> None:
    slaves.hear(slaves.mode.encode(OURS, READ) + slaves.mode.encode(OTHER, READ))
    slaves.wait(100 * MS)
    assert slaves.said == []
    assert slaves.session.counters.late == 1


def test_over_tcp_all_requests_of_a_segment_are_answered_in_order(slaves: Slaves) -> None:
    slaves = Slaves(slaves.mode, timing=Timing.over_tcp())
    slaves.hear(b"".join(slaves.mode.encode(OURS, READ) for _ in range(5)))
    assert slaves.answers() == [slaves.mode.encode(OURS, ANSWER)] * 5


def test_a_broadcast_is_carried_out_by_all_and_answered_by_none(slaves: Slaves) -> None:
    slaves.hear_frame(0, WRITE)
    slaves.wait(100 * MS)
    assert slaves.said == []
    assert all(words[10:12] == b"\xbe\xef" for words in slaves.model.words.values())
    assert slaves.session.counters.broadcasts == 1


def test_a_refusal_and_an_unknown_function(slaves: Slaves) -> None:
    slaves.hear_frame(OURS, pdu.read(Table.HOLDING_REGISTERS, start=99, count=2))
    slaves.wait(100 * MS)
    slaves.hear_frame(OURS, bytes((100, 1, 2, 3)))
    slaves.wait(slaves.timing.patience_ns + 100 * MS)
    assert slaves.answers() == [slaves.mode.encode(OURS, b"\x83\x02"), slaves.mode.encode(OURS, b"\xe4\x01")]
    assert slaves.session.counters.exceptions == {2: 1, 1: 1}


def test_damage_harms_nobody_and_is_counted(slaves: Slaves) -> None:
    bad = bytearray(slaves.mode.encode(OURS, WRITE))
    bad[4] ^= 1
    slaves.hear(bytes(bad))
    slaves.wait(slaves.timing.patience_ns)
    assert slaves.said == []
    assert slaves.model.words[OURS][10:12] == b"\0\5"
    assert (slaves.session.counters.check_errors, slaves.station.damaged_frames) == (1, 1)
    slaves.hear_frame(OURS, READ)
    slaves.wait(100 * MS)
    assert slaves.answers() == [slaves.mode.encode(OURS, ANSWER)]


def test_a_write_handed_on_is_answered_when_its_outcome_is_known(slaves: Slaves) -> None:
    slaves.model.is_slow = True
    slaves.hear_frame(OURS, WRITE)
    slaves.wait(100 * MS)
    assert slaves.said == []
    assert slaves.session.conclude(("write", OURS, 5), None)
    slaves.flush()
    assert slaves.answers() == [slaves.mode.encode(OURS, WRITE)]
    assert not slaves.session.conclude(("write", OURS, 5), None)


def test_an_outcome_that_comes_too_late_is_kept_from_the_line(slaves: Slaves) -> None:
    slaves.model.is_slow = True
    slaves.hear_frame(OURS, WRITE)
    slaves.wait(100 * MS)
    slaves.hear_frame(OTHER, READ)
    assert not slaves.session.conclude(("write", OURS, 5), None)
    slaves.wait(100 * MS)
    assert slaves.said == []


def test_over_tcp_answers_behind_an_open_write_wait_for_it(slaves: Slaves) -> None:
    slaves = Slaves(slaves.mode, timing=Timing.over_tcp())
    slaves.model.is_slow = True
    slaves.hear(slaves.mode.encode(OURS, WRITE) + slaves.mode.encode(OURS, READ))
    assert slaves.said == []
    slaves.session.conclude(("write", OURS, 5), ExceptionCode.SERVER_DEVICE_FAILURE)
    slaves.flush()
    assert slaves.answers() == [slaves.mode.encode(OURS, b"\x86\x04"), slaves.mode.encode(OURS, ANSWER)]


def test_over_tcp_open_writes_are_bounded_and_nobody_is_told_to_try_again(slaves: Slaves) -> None:
    slaves = Slaves(slaves.mode, timing=Timing.over_tcp())
    slaves.model.is_slow = True
    for at in range(OPEN_MAX + 1):
        slaves.hear_frame(OURS, pdu.write_single_register(at, 1))
    for at in range(OPEN_MAX):
        assert slaves.session.conclude(("write", OURS, at), None)
    slaves.flush()
    assert slaves.answers()[-1] == slaves.mode.encode(OURS, b"\x86\x04")


def test_the_own_echo_is_not_a_request(slaves: Slaves) -> None:
    slaves = Slaves(slaves.mode, has_echo=True)
    slaves.hear_frame(OURS, WRITE)
    slaves.wait(100 * MS)
    slaves.hear(slaves.said[0][1])
    slaves.wait(100 * MS)
    assert len(slaves.said) == 1
    assert slaves.session.counters.echoes == 1


def test_the_echo_of_a_read_shows_that_there_is_one(slaves: Slaves) -> None:
    for request in (READ, WRITE):
        slaves.hear_frame(OURS, request)
        slaves.wait(100 * MS)
        slaves.hear(slaves.said[-1][1])
        slaves.wait(100 * MS)
    assert len(slaves.said) == 2
    assert slaves.session.counters.echoes == 2


def test_a_lost_line_forgets_what_was_begun(slaves: Slaves) -> None:
    slaves.hear_frame(OURS, READ)
    slaves.hear(b":11" if slaves.mode is Mode.ASCII else b"\x11\x03")
    assert slaves.session.lost(slaves.now) == []
    assert slaves.session.deadline_ns() is None
    slaves.hear_frame(18, READ)
    slaves.wait(100 * MS)
    assert slaves.answers()[-1] == slaves.mode.encode(18, ANSWER)


def test_addresses_that_no_slave_has() -> None:
    for unit in (0, 248):
        with pytest.raises(LocalProtocolError, match=f"unit: found {unit}"):
            LineServerSession(
                LineServer(Responder(Registers())), units=(unit,), mode=Mode.RTU, timing=Timing.over_tcp()
            )


def fuzz_line_server(data: bytes) -> None:
    """Any bytes, cut anyhow: never an exception, never a spin, and nothing said but answers of our own."""
    for mode in Mode:
        slaves = Slaves(mode, has_echo=bool(data[:1] > b"\x80"))
        for at in range(0, len(data), 9):
            slaves.hear(data[at : at + 9])
            slaves.wait(data[at] * MS // 8)
        slaves.wait(2_000 * MS)
        assert slaves.session.deadline_ns() is None
        own = [mode.encode(unit, b"")[: 1 if mode is Mode.RTU else 3] for unit in (OURS, 18)]
        assert all(frame.startswith(tuple(own)) for frame in slaves.answers())


frames = [mode.encode(unit, body) for mode in Mode for unit in (0, 3, OURS) for body in (READ, WRITE, ANSWER)]


@settings(deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=12), st.sampled_from(frames)), max_size=8).map(b"".join))
def test_any_bytes(data: bytes) -> None:
    fuzz_line_server(data)


def test_many_bytes() -> None:
    generator = random.Random(22)
    for _ in range(300):
        fuzz_line_server(b"".join(generator.choice([generator.randbytes(5), *frames]) for _ in range(5)))
