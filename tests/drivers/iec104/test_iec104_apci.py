"""Frames out of a byte stream: captures whole, octet by octet and glued, and what is no frame."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.iec104.wire import apci
from drivers.iec104.wire.terms import Function
from gateway.core.errors import RemoteProtocolError
from tests.drivers.iec104.octets import captured_frames

FRAMES = [frame for _, frame in captured_frames()]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 1 << 20])
def test_frames_come_out_of_any_segmentation(size: int) -> None:
    stream = b"".join(FRAMES)
    framer, found = apci.Framer(), []
    for start in range(0, len(stream), size):
        framer.feed(stream[start : start + size], found)
    assert found == FRAMES


@pytest.mark.parametrize("function", Function)
def test_every_function(function: Function) -> None:
    assert apci.decode(apci.u_frame(function)) == apci.Frame(function=function)


@given(st.integers(0, 32767), st.integers(0, 32767), st.binary(min_size=1, max_size=249))
def test_numbers_and_data_there_and_back(send: int, receive: int, asdu: bytes) -> None:
    assert apci.decode(apci.i_frame(send, receive, asdu)) == apci.Frame(send, receive, None, asdu)
    assert apci.decode(apci.s_frame(receive)) == apci.Frame(receive=receive)


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        ("00", "frame: found 00, expected it to start with 68"),  # iec104-dissect packet 7
        ("0168", "found 01 68"),  # iec104-dissect packet 9
        ("6803436a", r"found length 3, expected 4\.\.253"),
        ("68fe", "found length 254"),
    ],
)
def test_what_is_no_frame_is_the_peers_fault(octets: str, fault: str) -> None:
    frames: list[bytes] = []
    with pytest.raises(RemoteProtocolError, match=fault):
        apci.Framer().feed(bytes.fromhex("680443000000" + octets), frames)
    assert frames == [bytes.fromhex("680443000000")]


@pytest.mark.parametrize(
    ("octets", "fault"),
    [
        ("680400000000", "I frame: found no ASDU"),
        ("68050100000000", "S frame: found length 5, expected 4"),
        ("68054300000000", "U frame: found length 5"),
        ("680403000000", "found control octet 0x03, expected exactly one function"),
        ("680447000000", "found control octet 0x47"),
        ("6804ff000000", "found control octet 0xff"),
    ],
)
def test_control_fields_that_mean_nothing(octets: str, fault: str) -> None:
    with pytest.raises(RemoteProtocolError, match=fault):
        apci.decode(bytes.fromhex(octets))


@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(FRAMES)), max_size=12))
@settings(max_examples=500, deadline=None)
def test_any_octets_cost_their_length_and_leave_less_than_a_frame(chunks: list[bytes]) -> None:
    framer, frames = apci.Framer(), []
    try:
        for chunk in chunks:
            framer.feed(chunk, frames)
            assert len(framer._rest) < apci.FRAME_SIZE_MAX
    except RemoteProtocolError:
        pass
    assert sum(map(len, frames)) <= sum(map(len, chunks))
    for frame in frames:
        assert 6 <= len(frame) <= apci.FRAME_SIZE_MAX
