"""MBAP framing: whole, byte by byte, glued, and garbage."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import mbap
from gateway.core.errors import RemoteProtocolError

frames_strategy = st.lists(
    st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.binary(min_size=1, max_size=253)), max_size=8
)


def feed(chunks: list[bytes]) -> tuple[list[mbap.Frame], str]:
    framer = mbap.Framer()
    frames: list[mbap.Frame] = []
    for chunk in chunks:
        try:
            framer.feed(chunk, frames)
        except RemoteProtocolError as error:
            return frames, str(error)
        assert framer.buffered < mbap.ADU_SIZE_MAX
    return frames, ""


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[left:right] for left, right in itertools.pairwise(edges)]


def test_the_example_of_the_guide() -> None:
    # MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.4.1.2: read register 5.
    adu = bytes.fromhex("1501 0000 0006 ff 03 0004 0001")
    assert mbap.encode(0x1501, 0xFF, bytes.fromhex("0300040001")) == adu
    assert feed([adu]) == ([(0x1501, 0xFF, bytes.fromhex("0300040001"))], "")


@settings(deadline=None)  # a shared machine may stall
@given(frames_strategy, st.lists(st.integers(min_value=0)))
def test_frames_come_back_however_the_stream_is_cut(frames: list[mbap.Frame], cuts: list[int]) -> None:
    stream = b"".join(mbap.encode(*frame) for frame in frames)
    assert feed([stream]) == (frames, "")
    assert feed(pieces(stream, cuts)) == (frames, "")
    assert feed([stream[i : i + 1] for i in range(len(stream))]) == (frames, "")


@settings(deadline=None)  # a shared machine may stall
@given(st.binary(max_size=1200), st.lists(st.integers(min_value=0)))
def test_any_bytes_give_the_same_frames_or_the_same_error_however_cut(data: bytes, cuts: list[int]) -> None:
    whole = feed([data])
    assert feed(pieces(data, cuts)) == whole
    assert feed([data[i : i + 1] for i in range(len(data))]) == whole


@settings(deadline=None)  # a shared machine may stall
@given(frames_strategy, st.binary(min_size=8, max_size=8).filter(lambda data: data[2:4] != b"\0\0"))
def test_garbage_behind_good_frames_is_found_at_its_place(frames: list[mbap.Frame], garbage: bytes) -> None:
    stream = b"".join(mbap.encode(*frame) for frame in frames)
    found, error = feed([stream + garbage])
    assert feed([bytes((byte,)) for byte in stream + garbage]) == (found, error)
    assert found == frames
    assert (
        f"byte {len(stream) + 2}: found protocol identifier 0x{garbage[2:4].hex()}, expected 0x0000" in error
    )


@pytest.mark.parametrize("length", [0, 1, 255, 65535])
def test_a_length_no_frame_can_have_is_refused_before_its_bytes_come(length: int) -> None:
    frames, error = feed([bytes.fromhex("0001 0000 0002 01 03"), b"\0\2\0\0" + length.to_bytes(2, "big")])
    assert frames == [(1, 1, b"\3")]
    assert f"byte 12: found length {length}, expected 2..254" in error


def test_a_broken_stream_stays_broken() -> None:
    framer = mbap.Framer()
    with pytest.raises(RemoteProtocolError, match="byte 2"):
        framer.feed(b"HTTP/1.1", [])
    with pytest.raises(RemoteProtocolError, match="byte 2"):
        framer.feed(mbap.encode(1, 1, b"\3"), [])
    assert framer.buffered == 0
