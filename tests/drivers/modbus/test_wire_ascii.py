"""ASCII framing: published frames, noise between and within frames, and any characters at all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import ascii as framing
from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.rtu import Frame
from tests.drivers.modbus.line_frames import REQUESTS, SLAVE, cuts


def heard(pieces: list[bytes], *, silent: bool = False) -> tuple[list[Frame], Counters]:
    counters, frames = Counters(), list[Frame]()
    framer = framing.Framer(counters)
    for piece in pieces:
        framer.feed(piece, frames)
        assert framer.buffered < framing.ADU_SIZE_MAX
    if silent:
        framer.silence(frames)
        assert framer.buffered == 0
    return frames, counters


# Simply Modbus, ASCII.htm: `3A 3131 3033 3030 3642 3030 3033 3745 0D 0A`.
EXAMPLE = bytes.fromhex("3A 3131 3033 3030 3642 3030 3033 3745 0D0A")


def test_the_published_frame() -> None:
    assert framing.encode(17, bytes.fromhex("03 006B 0003")) == EXAMPLE
    for pieces in cuts(EXAMPLE * 2):
        frames, counters = heard(pieces)
        assert frames == [(17, bytes.fromhex("03 006B 0003"))] * 2
        assert counters == Counters(frames=2)


def test_the_published_checksums() -> None:
    for text, _, check in REQUESTS:
        assert f"{framing.lrc(bytes((SLAVE,)) + bytes.fromhex(text)):02X}" == check


@pytest.mark.parametrize(
    ("noise", "errors"),
    [(b"\xff\0", 0), (b"11037E\r\n", 0), (b":1103", 1), (b"::", 2), (EXAMPLE[:-1], 1), (b":11 03\r\n", 1),
     (b":110300" + b"0" * 600, 1), (EXAMPLE.replace(b"7E", b"7F"), 1), (EXAMPLE.replace(b"\r", b""), 1)],
)  # fmt: skip
def test_noise_before_a_frame_drops_nothing_of_it(noise: bytes, errors: int) -> None:
    for pieces in cuts(noise + EXAMPLE):
        frames, counters = heard(pieces)
        assert frames == [(17, bytes.fromhex("03 006B 0003"))]
        assert (counters.noise_bytes, counters.check_errors) == (len(noise), errors)


def test_the_longest_frame_and_one_character_more() -> None:
    pdu = bytes(253)
    longest = framing.encode(17, pdu)
    assert len(longest) == framing.ADU_SIZE_MAX
    for pieces in cuts(longest + longest.replace(b"\r", b"00\r") + EXAMPLE):
        frames, counters = heard(pieces)
        assert [body for _, body in frames] == [pdu, bytes.fromhex("03 006B 0003")]
        assert counters.check_errors == 1


def test_what_was_begun_ends_with_the_patience_of_the_owner() -> None:
    frames, counters = heard([EXAMPLE[:9]], silent=True)
    assert (frames, counters.noise_bytes, counters.check_errors) == ([], 9, 1)


def test_another_delimiter() -> None:
    framer, frames = framing.Framer(Counters()), list[Frame]()
    framer.delimiter = b"@"
    framer.feed(EXAMPLE.replace(b"\n", b"@"), frames)
    assert frames == [(17, bytes.fromhex("03 006B 0003"))]


def fuzz_ascii(data: bytes) -> None:
    """Any characters: nothing is raised, nothing is held for ever, and every character is accounted for."""
    frames, counters = heard([data], silent=True)
    assert sum(2 * len(pdu) + framing.OVERHEAD for _, pdu in frames) + counters.noise_bytes == len(data)


def test_any_characters() -> None:
    generator = random.Random(21)
    for _ in range(50_000):
        fuzz_ascii(bytes(generator.choices(b":00011FfG\r\n\xff", k=generator.choice((4, 12, 40)))))


parts = st.lists(
    st.one_of(
        st.builds(framing.encode, st.integers(0, 255), st.binary(min_size=1, max_size=253)),
        st.binary(max_size=20),
        st.text(":01AF\r\n", max_size=30).map(str.encode),
    ),
    max_size=5,
)


@settings(max_examples=300, deadline=None)
@given(parts, st.integers(1, 40))
def test_how_characters_are_cut_makes_no_difference(some: list[bytes], size: int) -> None:
    stream = b"".join(some)
    whole = heard([stream], silent=True)
    assert heard([stream[at : at + size] for at in range(0, len(stream), size)], silent=True) == whole
    assert heard([stream[at : at + 1] for at in range(len(stream))], silent=True) == whole


@given(st.integers(0, 255), st.binary(min_size=1, max_size=253))
def test_what_is_sent_is_what_is_heard(unit: int, pdu: bytes) -> None:
    assert heard([framing.encode(unit, pdu)]) == ([(unit, pdu)], Counters(frames=1))


@given(parts.map(b"".join))
def test_any_characters_found_by_search(data: bytes) -> None:
    fuzz_ascii(data)
