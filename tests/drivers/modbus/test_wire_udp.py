"""Modbus in datagrams: each is one frame or none, and a bad one spoils no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.wire import mbap, pdu
from drivers.modbus.wire.client import Answer, ClientSession, TimedOut
from drivers.modbus.wire.pdu import Table
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession
from tests.drivers.modbus.test_wire_line_server import Registers

READ = pdu.read(Table.HOLDING_REGISTERS, start=1, count=2)
GOOD = mbap.encode(1, 17, bytes.fromhex("03 04 0001 0002"))
BAD = [b"", GOOD[:-1], GOOD + b"\0", GOOD + GOOD, b"\0\1\0\1" + GOOD[4:], mbap.encode(1, 17, b""), bytes(300)]


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_is_dropped_and_the_good_one_still_counts(bad: bytes) -> None:
    session = ClientSession(has_datagrams=True)
    session.request(17, READ, token="read", timeout_ns=100, now_ns=0)
    assert session.receive(bad, 1) == []
    assert session.receive(GOOD, 2) == [Answer("read", bytes.fromhex("0001 0002"), 2)]
    assert session.counters.garbage == 1


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_request_is_dropped_and_the_next_one_answered(bad: bytes) -> None:
    session = ServerSession(Responder(Registers()), has_datagrams=True)
    assert session.receive(bad, 0) == []
    assert session.malformed == 1
    session.receive(mbap.encode(1, 17, READ), 0)
    assert session.to_send(0) == [GOOD]


def test_answers_come_in_any_order_and_a_lost_one_times_out() -> None:
    session = ClientSession(max_in_flight=3, has_datagrams=True)
    for number in (1, 2, 3):
        session.request(17, READ, token=number, timeout_ns=100, now_ns=0)
    assert len(session.to_send(0)) == 3
    for number in (3, 1):
        (event,) = session.receive(number.to_bytes(2, "big") + GOOD[2:], 5)
        assert event == Answer(number, bytes.fromhex("0001 0002"), 5)
    assert session.receive(GOOD, 6) == []  # the network doubled it
    assert session.counters.late == 1
    assert session.on_deadline(100) == [TimedOut(2, was_sent=True)]


@given(st.binary(max_size=300))
def test_any_datagram(data: bytes) -> None:
    client, server = (
        ClientSession(has_datagrams=True),
        ServerSession(Responder(Registers()), has_datagrams=True),
    )
    client.receive(data, 0)
    server.receive(data, 0)
    assert client.counters.garbage == server.malformed == (mbap.decode(data) is None)
