"""Sessions of both stations: states, windows, times, and when to drop the link."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.iec104.wire import apci
from drivers.iec104.wire.asdu import Asdu, Codec
from drivers.iec104.wire.describe import describe_frame
from drivers.iec104.wire.events import (
    AcknowledgementDue,
    Confirmed,
    Event,
    Lost,
    NoResponse,
    Received,
    Started,
    Stopped,
    Stopping,
)
from drivers.iec104.wire.session import Role, Session, State
from drivers.iec104.wire.settings import Acknowledgement, Settings
from drivers.iec104.wire.terms import Function
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from tests.drivers.iec104.octets import captured_frames, segments

S = 1_000_000_000
CODEC = Codec()
F = Function
BY_OWNER = Acknowledgement.BY_OWNER


def value(number: int) -> Asdu:
    """A spontaneous M_SP_NA_1 of object `number`."""
    return Asdu(1, 3, 1, (number,), ((1,),))


def i(send: int, receive: int, number: int = 1) -> bytes:
    return apci.i_frame(send, receive, CODEC.encode(value(number)))


def u(function: Function) -> bytes:
    return apci.u_frame(function)


def went_out(session: Session, now_ns: int = 0) -> list[str]:
    """Frames to send, in words without their objects."""
    return [describe_frame(frame, CODEC).partition(":")[0] for frame in session.to_send(now_ns)]


def made(role: Role, **settings: object) -> Session:
    session = Session(role, Settings(**settings))
    session.connected(0)
    return session


def controlling(**settings: object) -> Session:
    """Started, at 0."""
    session = made(Role.CONTROLLING, **settings)
    session.start()
    assert went_out(session) == ["STARTDT act"]
    assert session.receive(u(F.STARTDT_CON), 0) == [Started()]
    return session


def controlled(**settings: object) -> Session:
    """Started, at 0."""
    session = made(Role.CONTROLLED, **settings)
    assert session.receive(u(F.STARTDT_ACT), 0) == [Started()]
    assert went_out(session) == ["STARTDT con"]
    return session


def numbers(events: list[Event]) -> list[int]:
    return [event.number for event in events if isinstance(event, Received)]


# --- start and stop ----------------------------------------------------------------------------------------


def test_the_controlled_station_sends_nothing_before_startdt() -> None:
    session = made(Role.CONTROLLED)
    session.send(value(1), token="a")
    assert went_out(session) == []
    session.receive(u(F.STARTDT_ACT), 0)
    assert went_out(session) == ["STARTDT con", "I 0, acknowledges 0"]
    assert session.receive(u(F.STARTDT_ACT), 1) == []  # asked again: confirmed again
    assert went_out(session) == ["STARTDT con"]


def test_the_controlling_station_may_not_send_before_startdt_is_confirmed() -> None:
    session = made(Role.CONTROLLING)
    with pytest.raises(LocalProtocolError, match="found data transfer stopped, expected started"):
        session.send(value(1), token="a")
    session.start()
    with pytest.raises(LocalProtocolError, match="pending started"):
        session.send(value(1), token="a")
    with pytest.raises(LocalProtocolError, match="expected stopped"):
        session.start()


def test_only_the_controlling_station_asks() -> None:
    session = made(Role.CONTROLLED)
    for verb in (session.start, session.stop):
        with pytest.raises(LocalProtocolError, match="only the controlling station"):
            verb()
    for function in (F.STARTDT_ACT, F.STOPDT_ACT):
        with pytest.raises(RemoteProtocolError, match=f"{function.name} of the controlled station"):
            controlling().receive(u(function), 0)


def test_stopdt_of_a_quiet_connection() -> None:
    session = controlling()
    session.receive(i(0, 0), 1)
    session.stop()
    assert session.state is State.PENDING_STOPPED
    assert went_out(session) == ["S, acknowledges 1", "STOPDT act"]
    with pytest.raises(LocalProtocolError, match="pending stopped"):
        session.send(value(1), token="a")
    assert session.receive(u(F.STOPDT_CON), 2) == [Stopped()]
    assert session.state is State.STOPPED
    session.start()
    assert went_out(session) == ["STARTDT act"]
    session.receive(u(F.STARTDT_CON), 3)
    assert numbers(session.receive(i(1, 0), 3)) == [2]  # numbers go on: the connection is the same


def test_stopdt_while_both_directions_are_unconfirmed() -> None:
    ours, theirs = controlling(), controlled()
    ours.send(value(1), token="command")
    theirs.send(value(2), token="event")
    to_theirs, to_ours = ours.to_send(1), theirs.to_send(1)
    ours.stop()
    assert ours.state is State.PENDING_UNCONFIRMED_STOPPED
    to_theirs += ours.to_send(1)
    events = theirs.receive(b"".join(to_theirs), 2)
    assert Stopping() in events
    assert theirs.state is State.UNCONFIRMED_STOPPED  # its event is not acknowledged yet
    theirs.send(value(3), token="later")
    to_ours += theirs.to_send(2)
    assert [describe_frame(f, CODEC).partition(":")[0] for f in to_ours] == [
        "I 0, acknowledges 0", "S, acknowledges 1",
    ]  # fmt: skip
    assert ours.receive(b"".join(to_ours), 3)[1:] == [Confirmed(["command"])]
    assert ours.state is State.PENDING_STOPPED
    assert went_out(ours, 3) == ["S, acknowledges 1"]
    assert theirs.receive(apci.s_frame(1), 4) == [Confirmed(["event"]), Stopped()]
    assert went_out(theirs, 4) == ["STOPDT con"]
    assert ours.receive(u(F.STOPDT_CON), 5) == [Stopped()]
    ours.start()
    theirs.receive(b"".join(ours.to_send(6)), 6)
    assert went_out(theirs, 6) == ["STARTDT con", "I 1, acknowledges 1"]  # what waited


def test_a_peer_that_confirms_stopdt_before_our_command() -> None:
    session = controlling()
    session.send(value(1), token="a")
    session.to_send(1)
    session.stop()
    session.to_send(1)
    assert session.receive(u(F.STOPDT_CON), 2) == []
    assert session.state is State.UNCONFIRMED_STOPPED
    assert session.receive(apci.s_frame(1), 3) == [Confirmed(["a"]), Stopped()]


def test_startdt_again_while_stopping() -> None:
    session = controlled()
    session.send(value(1), token="a")
    session.to_send(0)
    assert session.receive(u(F.STOPDT_ACT), 1) == [Stopping()]
    assert session.receive(u(F.STOPDT_ACT), 1) == []
    assert session.receive(u(F.STARTDT_ACT), 2) == [Started()]
    assert went_out(session) == ["STARTDT con"]
    assert session.state is State.STARTED


def test_stopdt_of_a_stopped_connection_is_confirmed() -> None:
    session = made(Role.CONTROLLED)
    assert session.receive(u(F.STOPDT_ACT), 0) == []
    assert went_out(session) == ["STOPDT con"]


@pytest.mark.parametrize("octets", [i(0, 0), apci.s_frame(0)], ids=["I", "S"])
def test_data_where_there_is_none_ends_the_connection(octets: bytes) -> None:
    pending = made(Role.CONTROLLING)
    pending.start()
    for session in (made(Role.CONTROLLED), made(Role.CONTROLLING), pending):
        with pytest.raises(RemoteProtocolError, match="frame with data transfer"):
            session.receive(octets, 1)
        assert session.state is State.BROKEN
        assert (session.to_send(1), session.receive(octets, 1), session.deadline_ns()) == ([], [], None)
        assert session.on_deadline(1 << 60) == []
        assert session.counters.violations == 1


def test_a_controlled_station_that_stops_takes_s_frames_only() -> None:
    session = controlled()
    session.send(value(1), token="a")
    session.to_send(0)
    session.receive(u(F.STOPDT_ACT), 1)
    with pytest.raises(RemoteProtocolError, match="an I frame with data transfer unconfirmed stopped"):
        session.receive(i(0, 0), 2)
    assert session.lost(3) == [Lost(["a"], [])]


# --- windows -----------------------------------------------------------------------------------------------


def test_no_more_than_k_without_acknowledgement() -> None:
    session = controlled(k=3)
    for n in range(5):
        session.send(value(n), token=n)
    assert went_out(session) == [f"I {n}, acknowledges 0" for n in range(3)]
    assert session.receive(apci.s_frame(2), 1) == [Confirmed([0, 1])]
    assert went_out(session) == ["I 3, acknowledges 0", "I 4, acknowledges 0"]
    assert session.receive(apci.s_frame(2), 1) == []
    assert session.receive(i(0, 5), 1)[0] == Confirmed([2, 3, 4])


def test_an_acknowledgement_after_w() -> None:
    session = controlling(w=3)
    session.receive(i(0, 0) + i(1, 0), 1)
    assert went_out(session) == []
    session.receive(i(2, 0), 1)
    assert went_out(session) == ["S, acknowledges 3"]
    session.receive(b"".join(i(n, 0) for n in range(3, 10)), 1)
    assert went_out(session) == ["S, acknowledges 10"]  # one for all that came in one segment
    session.receive(i(10, 0), 1)
    session.send(value(1), token="a")
    assert went_out(session) == ["I 0, acknowledges 11"]  # rides on data


def test_capacity_and_what_is_taken_back() -> None:
    session = controlled(k=1, queue_max=2)
    session.send(value(0), token=0)
    session.to_send(0)
    session.send(value(1), token=1)
    session.send(value(2), token=2)
    assert session.capacity() == 0
    with pytest.raises(LocalProtocolError, match="2 ASDUs wait already"):
        session.send(value(3), token=3)
    assert session.withdraw() == [1, 2]
    session.send(value(4), token=4)
    assert session.lost(1) == [Lost([0], [4])]
    assert session.lost(1) == []
    with pytest.raises(LocalProtocolError, match="found the session disconnected"):
        session.send(value(5), token=5)


@pytest.mark.parametrize("receive", [3, 32767])
def test_an_acknowledgement_of_what_was_never_sent_ends_the_connection(receive: int) -> None:
    session = controlled()
    for n in range(2):
        session.send(value(n), token=n)
    session.to_send(0)
    with pytest.raises(RemoteProtocolError, match=rf"N\(R\): found {receive}, expected 0 to 2"):
        session.receive(apci.s_frame(receive), 1)
    again = controlled()
    for n in range(2):
        again.send(value(n), token=n)
    again.to_send(0)
    with pytest.raises(RemoteProtocolError, match=r"expected 1 to 2"):
        again.receive(apci.s_frame(1) + apci.s_frame(0), 1)


@pytest.mark.parametrize("send", [0, 2, 32767])
def test_a_gap_or_a_repetition_ends_the_connection(send: int) -> None:
    session = controlling()
    session.receive(i(0, 0), 1)
    with pytest.raises(RemoteProtocolError, match=rf"N\(S\): found {send}, expected 1"):
        session.receive(i(send, 0), 1)


@pytest.mark.parametrize("role", Role)
def test_numbers_wrap_at_32768(role: Role) -> None:
    session = controlling() if role is Role.CONTROLLING else controlled()
    count = 32_768 + 5
    for n in range(count):
        session.send(value(1), token=n)
        (frame,) = session.to_send(0)
        sent = apci.decode(frame)
        assert (sent.send, sent.receive) == (n % 32_768, n % 32_768)
        confirmed, received = session.receive(i(n % 32_768, (n + 1) % 32_768), 0)
        assert confirmed == Confirmed([n])
        assert isinstance(received, Received)
        assert received.number == n + 1


def test_a_window_across_the_wrap() -> None:
    session = controlled(k=12)
    session._outgoing.next = 32_760
    for n in range(12):
        session.send(value(n), token=n)
    assert went_out(session)[-1] == "I 3, acknowledges 0"
    assert session.receive(apci.s_frame(32_765), 1) == [Confirmed([0, 1, 2, 3, 4])]
    assert session.receive(apci.s_frame(4), 1) == [Confirmed([5, 6, 7, 8, 9, 10, 11])]
    with pytest.raises(RemoteProtocolError, match="found 5, expected 4 to 4"):
        session.receive(apci.s_frame(5), 1)


# --- acknowledgement by the owner --------------------------------------------------------------------------


def test_nothing_is_acknowledged_before_the_owner_says_so() -> None:
    session = controlling(w=2, acknowledgement=BY_OWNER)
    assert numbers(session.receive(b"".join(i(n, 0) for n in range(5)), 1)) == [1, 2, 3, 4, 5]
    session.send(value(1), token="a")
    assert went_out(session) == ["I 0, acknowledges 0"]
    assert session.acknowledge(1, 2) == []
    assert went_out(session) == []  # below w
    session.acknowledge(3, 2)
    assert went_out(session) == ["S, acknowledges 3"]
    session.acknowledge(2, 2)  # later news of an older one
    assert went_out(session) == []
    with pytest.raises(LocalProtocolError, match="found 6, expected 5 at most"):
        session.acknowledge(6, 2)


def test_an_owner_that_is_late_is_told_once() -> None:
    session = controlling(t2_s=10, t3_s=200, acknowledgement=BY_OWNER)
    session.receive(i(0, 0), 1 * S)
    session.receive(i(1, 0), 5 * S)
    assert session.deadline_ns() == 11 * S
    assert session.on_deadline(11 * S) == [AcknowledgementDue(1, 10 * S)]
    assert session.deadline_ns() == 201 * S + 4 * S
    assert session.on_deadline(12 * S) == []
    session.acknowledge(1, 13 * S)
    assert went_out(session) == ["S, acknowledges 1"]  # late: at once
    assert session.deadline_ns() == 15 * S
    assert session.on_deadline(15 * S) == [AcknowledgementDue(2, 10 * S)]
    session.stop()
    assert went_out(session) == ["STOPDT act"]
    assert session.acknowledge(2, 16 * S) == []
    assert went_out(session) == ["S, acknowledges 2"]


def test_stopdt_waits_for_the_owner() -> None:
    session = controlled(acknowledgement=BY_OWNER)
    session.receive(i(0, 0) + u(F.STOPDT_ACT), 1)
    assert session.state is State.UNCONFIRMED_STOPPED
    assert went_out(session) == []
    assert session.acknowledge(1, 2) == [Stopped()]
    assert went_out(session) == ["S, acknowledges 1", "STOPDT con"]


def test_a_peer_without_a_window_is_stopped_before_numbers_repeat() -> None:
    session = controlling(acknowledgement=BY_OWNER)
    for n in range(32_767):
        session.receive(i(n, 0), n)
    with pytest.raises(RemoteProtocolError, match="32767 are not acknowledged"):
        session.receive(i(32_767, 0), 32_767)


# --- times -------------------------------------------------------------------------------------------------


def test_t1_of_startdt() -> None:
    session = made(Role.CONTROLLING, t1_s=15)
    session.start()
    assert session.deadline_ns() == 20 * S  # t3: nothing went out yet
    session.to_send(2 * S)
    assert session.deadline_ns() == 17 * S
    assert session.on_deadline(17 * S - 1) == []
    assert session.on_deadline(17 * S) == [NoResponse("STARTDT con", 15 * S)]
    assert session.state is State.BROKEN
    assert session.lost(18 * S) == [Lost([], [])]
    session.connected(19 * S)
    assert session.state is State.STOPPED


def test_t1_of_stopdt() -> None:
    session = controlling()
    session.stop()
    session.to_send(1 * S)
    assert session.on_deadline(16 * S) == [NoResponse("STOPDT con", 15 * S)]


def test_t1_of_an_i_frame_runs_from_its_own_sending() -> None:
    session = controlled(k=2, t3_s=200)
    for n in range(3):
        session.send(value(n), token=n)
    session.to_send(1 * S)
    assert session.deadline_ns() == 16 * S
    session.receive(apci.s_frame(2), 10 * S)
    session.to_send(12 * S)
    assert session.deadline_ns() == 27 * S
    assert session.on_deadline(27 * S) == [NoResponse("acknowledgement of an I frame", 15 * S)]
    assert session.lost(27 * S) == [Lost([2], [])]
    assert session.counters.no_response == 1


def test_t2_acknowledges_without_data() -> None:
    session = controlling(t2_s=10)
    session.receive(i(0, 0), 1 * S)
    session.receive(i(1, 0), 9 * S)
    assert session.deadline_ns() == 11 * S
    assert session.on_deadline(11 * S) == []
    assert session.deadline_ns() == 29 * S  # t3, from the last frame
    assert went_out(session, 11 * S) == ["S, acknowledges 2"]
    assert session.deadline_ns() == 29 * S


def test_t3_tests_a_silent_connection_and_t1_ends_it() -> None:
    for session in (made(Role.CONTROLLED), made(Role.CONTROLLING), controlling()):
        assert session.deadline_ns() == 20 * S
        session.on_deadline(20 * S)
        assert went_out(session, 20 * S) == ["TESTFR act"]
        assert session.receive(u(F.TESTFR_CON), 21 * S) == []
        assert session.deadline_ns() == 41 * S
        session.on_deadline(41 * S)
        assert went_out(session, 42 * S) == ["TESTFR act"]
        assert session.deadline_ns() == 57 * S
        assert session.on_deadline(57 * S) == [NoResponse("TESTFR con", 15 * S)]


def test_any_frame_puts_off_the_test() -> None:
    session = controlling()
    session.receive(u(F.TESTFR_ACT), 19 * S)
    assert went_out(session, 19 * S) == ["TESTFR con"]
    assert session.deadline_ns() == 39 * S
    assert session.receive(u(F.TESTFR_CON), 20 * S) == []  # nobody asked
    assert session.counters.unasked == 1


def test_a_flood_of_test_frames_is_answered_once_for_each_segment() -> None:
    session = made(Role.CONTROLLED)
    session.receive(u(F.TESTFR_ACT) * 10_000, 0)
    assert went_out(session) == ["TESTFR con"]


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"k": 0}, "k: found 0, expected 1 to 32767"), ({"w": 32768}, "w: found"),
        ({"t1_s": 256}, "t1_s"), ({"t3_s": 0.5}, "t3_s"),
        ({"t2_s": 15}, "t2_s: found 15, expected less than t1_s"),
        ({"t0_s": 0}, "t0_s"), ({"queue_max": 0}, "queue_max"),
    ],
)  # fmt: skip
def test_settings_are_checked(wrong: dict[str, float], fault: str) -> None:
    with pytest.raises(LocalProtocolError, match=fault):
        Settings(**wrong)


# --- the end of a link -------------------------------------------------------------------------------------


def test_what_stood_in_front_of_garbage_is_not_lost() -> None:
    session = controlling()
    session.send(value(1), token="a")
    session.to_send(0)
    with pytest.raises(RemoteProtocolError, match="found ff"):
        session.receive(i(0, 1) + b"\xff", 1)
    confirmed, received, lost = session.lost(2)
    assert confirmed == Confirmed(["a"])
    assert isinstance(received, Received)
    assert lost == Lost([], [])


def test_a_malformed_asdu_ends_the_connection() -> None:
    session = controlling()
    with pytest.raises(RemoteProtocolError, match="M_SP_NA_1: found 0 octets of objects, expected 4"):
        session.receive(i(0, 0) + apci.i_frame(1, 0, bytes.fromhex("010103000100")), 1)
    assert numbers(session.lost(1)) == [1]


def test_connected_twice_is_our_fault() -> None:
    with pytest.raises(LocalProtocolError, match="found the session stopped, expected disconnected"):
        made(Role.CONTROLLED).connected(1)


def test_half_a_frame_does_not_survive_the_link() -> None:
    session = controlling()
    session.receive(i(0, 0)[:7], 1)
    session.lost(2)
    session.connected(3)
    session.start()
    session.to_send(3)
    assert session.receive(u(F.STARTDT_CON), 3) == [Started()]


def test_the_frame_log_has_every_frame() -> None:
    session = made(Role.CONTROLLED)
    session.frames.watch(0, 60 * S)
    session.receive(u(F.STARTDT_ACT), 1)
    session.to_send(1)
    with pytest.raises(RemoteProtocolError):
        session.receive(apci.s_frame(3), 2)
    frames, _ = session.frames.read(0)
    assert [(frame.way, frame.text) for frame in frames] == [
        ("received", "STARTDT act"), ("sent", "STARTDT con"), ("received", "S, acknowledges 3"),
        ("fault", "N(R): found 3, expected 0 to 0 (section 5.1)"),
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_captured_connection_from_its_beginning(size: int) -> None:
    """iec104-dissect from packet 105 on: a connection from STARTDT on, seen by the controlling station."""
    session = made(Role.CONTROLLING)
    session.start()
    session.to_send(0)
    session._outgoing.next = 7  # what the captured client sent: so that its acknowledgements fit
    session._outgoing.in_flight.extend((n, 0) for n in range(7))
    events = []
    stream = b"".join(s.payload for s in segments("iec104-dissect") if not s.to_controlled)
    for start in range(0, len(stream), size):
        events += session.receive(stream[start : start + size], 0)
    assert numbers(events) == list(range(1, 13))
    assert [token for event in events if isinstance(event, Confirmed) for token in event.tokens] == [
        *range(7)
    ]
    types = [event.asdu.type_id for event in events if isinstance(event, Received)]
    assert types == [70, 100, 1, 3, 100, 46, 70, 45, 45, 30, 45, 103]


# --- anything at all ---------------------------------------------------------------------------------------

_FRAMES = [frame for _, frame in captured_frames()]
_CHUNKS = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(_FRAMES),
    st.sampled_from([u(function) for function in F]),
    st.builds(i, st.integers(0, 3), st.integers(0, 3)),
    st.builds(apci.s_frame, st.integers(0, 3)),
)


@given(st.sampled_from(Role), st.sampled_from(Acknowledgement), st.lists(_CHUNKS, max_size=30), st.data())
@settings(max_examples=400, deadline=None)
def test_any_octets_give_events_or_the_peers_fault(
    role: Role, acknowledgement: Acknowledgement, chunks: list[bytes], data: st.DataObject
) -> None:
    session = Session(role, Settings(k=3, w=2, queue_max=8, acknowledgement=acknowledgement))
    session.connected(0)
    if role is Role.CONTROLLING:
        session.start()
    now, received, given_back, tokens = 0, 0, [], []

    def note(events: list[Event]) -> None:
        nonlocal received
        for event in events:
            if isinstance(event, Received):
                received += 1
                assert event.number == received
            elif isinstance(event, Confirmed):
                given_back.extend(event.tokens)
            elif isinstance(event, Lost):
                given_back.extend(event.unconfirmed + event.unsent)

    try:
        for chunk in chunks:
            now += data.draw(st.integers(0, 8)) * S
            note(session.on_deadline(now))
            if session.state is State.STARTED and session.capacity():
                tokens.append(len(tokens))
                session.send(value(1), token=tokens[-1])
            out = session.to_send(now)
            assert len(out) <= 3 + 3 + 1 + 1
            note(session.receive(chunk, now))
            note(session.acknowledge(received, now))
            deadline_ns = session.deadline_ns()
            assert deadline_ns is None or deadline_ns > now - 60 * S
    except RemoteProtocolError:
        assert session.state is State.BROKEN
    note(session.lost(now))
    assert given_back == tokens  # every token once, in order
    assert session.state is State.DISCONNECTED
