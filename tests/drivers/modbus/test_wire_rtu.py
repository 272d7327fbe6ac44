"""RTU framing: published frames, every function's length, noise, and any bytes at all."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import crc, pdu, rtu, sieve
from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.pdu import Table
from drivers.modbus.wire.rtu import Frame, Framer, Hears
from tests.drivers.modbus.line_frames import ANSWERS, FRAMES, REQUESTS, SLAVE, cuts


def heard(
    pieces: list[bytes], hears: Hears = Hears.ALL, *, silent: bool = False, **more: Any
) -> tuple[list[Frame], Counters]:
    counters, frames = Counters(), list[Frame]()
    framer = Framer(hears, counters, **more)
    for piece in pieces:
        framer.feed(piece, frames)
        assert framer.buffered < rtu.ADU_SIZE_MAX
    if silent:
        framer.silence(frames)
        assert framer.buffered == 0
    return frames, counters


def test_the_published_checksums() -> None:
    for text, sent, _ in REQUESTS + [(text, sent, "") for text, sent in ANSWERS]:
        body = bytes((SLAVE,)) + bytes.fromhex(text)
        assert crc.with_crc(body)[-2:].hex().upper() == sent
        assert rtu.encode(SLAVE, bytes.fromhex(text)) == body + bytes.fromhex(sent)


def test_the_checksum_of_the_specification() -> None:
    # Serial Line V1.02 §6.2.2 as manuals repeat it: the CRC of 02 07 is 1241 hex, 41 sent first.
    assert crc.crc16(b"\x02\x07", 0, 2) == 0x1241
    assert crc.with_crc(b"\x02\x07") == bytes.fromhex("02074112")


@given(st.binary(max_size=254), st.binary(max_size=3))
def test_the_checksum_is_the_one_computed_bit_by_bit(data: bytes, before: bytes) -> None:
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ 0xA001 if register & 1 else register >> 1
    assert crc.crc16(before + data, len(before), len(data)) == register
    assert crc.crc16(crc.with_crc(data), 0, len(data) + 2) == 0


def test_published_requests_however_they_are_cut() -> None:
    stream = b"".join(frame for frame, _ in FRAMES)
    for pieces in cuts(stream):
        frames, counters = heard(pieces, own=(SLAVE,))
        assert frames == [expected for _, expected in FRAMES]
        assert (counters.frames, counters.noise_bytes, counters.check_errors) == (len(FRAMES), 0, 0)


def test_published_answers_however_they_are_cut() -> None:
    stream = b"".join(bytes((SLAVE,)) + bytes.fromhex(text + sent) for text, sent in ANSWERS)
    for hears in Hears:
        for pieces in cuts(stream):
            assert heard(pieces, hears)[0] == [(SLAVE, bytes.fromhex(text)) for text, _ in ANSWERS]


def test_others_requests_and_their_answers_on_one_wire() -> None:
    asked = [bytes((SLAVE,)) + bytes.fromhex(text + sent) for text, sent, _ in REQUESTS]
    stream = asked[0] + bytes((SLAVE,)) + bytes.fromhex("".join(ANSWERS[0]))
    stream += asked[7] + bytes((SLAVE,)) + bytes.fromhex("".join(ANSWERS[1]))
    for pieces in cuts(stream):
        frames, counters = heard(pieces)
        assert [body[0] for _, body in frames] == [1, 1, 16, 16]
        assert counters.noise_bytes == 0


@pytest.mark.parametrize("function", [65, 100, 110])
def test_a_custom_function_ends_with_silence(function: int) -> None:
    answer = bytes((function,)) + bytes(range(40))
    counters, frames = Counters(), list[Frame]()
    framer = Framer(Hears.RESPONSES, counters)
    framer.expect([bytes((SLAVE, function))])
    for byte in b"\xff" + rtu.encode(SLAVE, answer):
        framer.feed(bytes((byte,)), frames)
    assert frames == []
    framer.silence(frames)
    assert frames == [(SLAVE, answer)]
    assert (counters.noise_bytes, counters.check_errors) == (1, 1)


def test_a_custom_function_nobody_asked_for_is_noise() -> None:
    frame = rtu.encode(SLAVE, bytes((65, 1, 2, 3)))
    good, _ = FRAMES[2]
    frames, counters = heard([frame + good], silent=True)
    assert frames == [FRAMES[2][1]]
    assert counters.noise_bytes == len(frame)


def test_a_diagnostic_of_any_length_where_it_is_known() -> None:
    request = bytes((8, 0, 0)) + bytes(range(20))
    framer, frames = Framer(Hears.RESPONSES, Counters()), list[Frame]()
    framer.expect([bytes((SLAVE, 8))], len(request))
    framer.feed(rtu.encode(SLAVE, request) * 2, frames)
    assert frames == [(SLAVE, request)] * 2


@pytest.mark.parametrize(
    "noise", [b"\0", b"\xff", b"\x11", b"\x11\x03", b"\x11\x03\x04", b"\x11\x10\0\0\0\x7b\xf6"]
)
def test_no_good_byte_is_dropped_behind_noise(noise: bytes) -> None:
    answer = rtu.encode(SLAVE, bytes.fromhex("03 04 0001 0002"))
    for pieces in cuts(noise + answer):
        frames, counters = heard(pieces, Hears.RESPONSES, silent=True)
        assert frames == [(SLAVE, bytes.fromhex("03 04 0001 0002"))]
        assert (counters.noise_bytes, counters.check_errors) == (len(noise), 1)


def test_a_frame_with_one_bit_turned_is_none() -> None:
    good, expected = FRAMES[7]
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            frames, counters = heard([bytes(bad) + good], silent=True)
            assert expected in frames[-1:]
            assert len(frames) == 1
            assert counters.check_errors == 1


def test_what_was_cut_short_is_given_up_in_silence_and_what_follows_is_read() -> None:
    good, expected = FRAMES[2]
    counters, frames = Counters(), list[Frame]()
    framer = Framer(Hears.ALL, counters)
    framer.feed(good[:5], frames)
    framer.silence(frames)
    framer.feed(good, frames)
    assert frames == [expected]
    assert (counters.check_errors, counters.noise_bytes) == (1, 5)


def test_a_device_identification_ends_behind_its_last_object() -> None:
    # Application Protocol V1.1b3 clause 6.21: code, conformity, more, next, count; id, length, value each.
    objects = b"".join(
        bytes((n, len(text))) + text for n, text in enumerate([b"Company", b"Product", b"V2.11"])
    )
    answer = bytes.fromhex("2b 0e 01 01 00 00 03") + objects
    for pieces in cuts(rtu.encode(SLAVE, answer) * 2):
        assert heard(pieces, Hears.RESPONSES)[0] == [(SLAVE, answer)] * 2


def test_work_on_noise_grows_with_its_length_and_no_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    work = [0]

    def counting(data: bytes, start: int, size: int) -> int:
        work[0] += size
        return crc.crc16(data, start, size)

    def sifting(data: bytes, start: int) -> sieve.Sifted:
        work[0] += min(len(data) - start, 3 * rtu.ADU_SIZE_MAX)
        return sieve.sift(data, start)

    monkeypatch.setattr(rtu, "crc16", counting)
    monkeypatch.setattr(rtu, "sift", sifting)

    def cost(data: bytes, step: int) -> int:
        work[0] = 0
        heard([data[at : at + step] for at in range(0, len(data), step)])
        return work[0]

    random_bytes = random.Random(1).randbytes(8_000)
    for worst in (
        b"\x01\x03\xfa" * 3000,
        b"\x01\x10\0\0\0\x7b\xf6" * 1000,
        b"\x01\x01" * 4000,
        random_bytes,
    ):
        for step in (1, 100, 100_000):
            once, half = cost(worst, step), cost(worst[: len(worst) // 2], step)
            assert once <= 2.3 * half + 1000
            assert once <= 2 * rtu.ADU_SIZE_MAX * len(worst)
        assert cost(worst, 4096) <= 4 * len(worst) + 4 * rtu.ADU_SIZE_MAX


@given(st.binary(max_size=300), st.binary(max_size=1500), st.binary(max_size=40))
def test_a_place_that_begins_a_good_checksum_is_never_sifted_out(
    body: bytes, before: bytes, behind: bytes
) -> None:
    frame = crc.with_crc(body[:254])
    data = before + frame + behind
    for start in {0, max(0, len(before) - 511), len(before)}:
        position, places = start, list[int]()
        while position < len(data):
            found = sieve.sift(data, position)
            assert position < found.until <= len(data)
            places += found.places
            position = found.until
        assert len(before) in places
        assert places == sorted(set(places))


@pytest.mark.parametrize("step", [32, 100, 700, 5000])
def test_sifted_noise_gives_what_looking_at_each_place_gives(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = random.Random(step)
    good = [frame for frame, _ in FRAMES] + [rtu.encode(5, bytes((3, 250)) + bytes(range(250)))]
    frame_count = 0
    crafted = [b"\x01\x03\xfa", b"\x10", b"\x81\x01", b"\xff\xff\0", b"\x2b\x0e\x01", b"\0"]
    for _ in range(20):
        parts = list[bytes]()
        for _ in range(8):
            parts.append(generator.choice(crafted) * generator.randrange(200))
            parts.append(generator.randbytes(generator.randrange(400)))
            parts.append(generator.choice(good)[: generator.choice((7, 300))])
        stream = b"".join(parts)
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        for hears in Hears:
            sifted = heard(pieces, hears, silent=True, own=(17,))
            with monkeypatch.context() as patch:
                patch.setattr(rtu, "FAILURES_MAX", len(stream))
                assert heard(pieces, hears, silent=True, own=(17,)) == sifted
            frame_count += len(sifted[0])
    assert frame_count > 20


def test_of_noise_nearly_nothing_is_left() -> None:
    sifted = sieve.sift(random.Random(2).randbytes(2000), 0)
    assert sifted.until == 512
    assert len(sifted.places) < 20


def counted(*head: int) -> st.SearchStrategy[bytes]:
    """A PDU whose last byte of `head` is replaced by the count of what follows it."""
    return st.binary(max_size=100).map(lambda data: bytes((*head[:-1], 2 * len(data))) + 2 * data)


requests = st.one_of(
    st.builds(
        lambda table, start, count: pdu.read(table, start=start, count=count),
        st.sampled_from(Table), st.integers(0, 60_000), st.integers(1, 125),
    ),
    counted(16, 0, 1, 0, 2, 0), counted(20, 0), counted(23, 0, 1, 0, 1, 0, 2, 0, 1, 0),
    st.sampled_from("07 0b 0c 11 080001ff00 1804de 2b0e0100".split()).map(bytes.fromhex),
)  # fmt: skip
answers = st.one_of(
    *(counted(function, 0).filter(lambda answer: len(answer) > 2) for function in (1, 3, 12, 17, 20, 23)),
    st.builds(lambda function, code: bytes((function | 0x80, code)), st.integers(1, 127), st.integers(1, 31)),
    st.sampled_from("0755 0bffff0108 080001ff00 2b0e010100000100023132".split()).map(bytes.fromhex),
)
pdus = st.one_of(requests, answers)
parts = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 247), pdus).map(lambda part: rtu.encode(*part)), st.binary(max_size=30)
    ),
    max_size=6,
)


@settings(max_examples=400, deadline=None)
@given(parts, st.sampled_from(Hears), st.data())
def test_how_bytes_are_cut_makes_no_difference(some: list[bytes], hears: Hears, data: st.DataObject) -> None:
    stream = b"".join(some)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    whole, counted = heard([stream], hears, silent=True, own=(1, 2))
    for cut in (pieces, [stream[at : at + 1] for at in range(len(stream))]):
        assert heard(cut, hears, silent=True, own=(1, 2)) == (whole, counted)
    assert sum(3 + len(body) for _, body in whole) + counted.noise_bytes == len(stream)
    assert counted.frames == len(whole)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 247), requests), min_size=1, max_size=5))
def test_what_a_client_sends_its_slaves_hear(sent: list[tuple[int, bytes]]) -> None:
    stream = b"".join(rtu.encode(*frame) for frame in sent)
    assert heard([stream], own=range(256)) == (sent, Counters(frames=len(sent)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 247), answers), min_size=1, max_size=5))
def test_what_slaves_answer_their_client_hears(sent: list[tuple[int, bytes]]) -> None:
    stream = b"".join(rtu.encode(*frame) for frame in sent)
    assert heard([stream], Hears.RESPONSES) == (sent, Counters(frames=len(sent)))


def test_a_request_that_begins_like_an_answer_is_a_request_to_its_own_slave() -> None:
    # The first 8 bytes have a good checksum by themselves: to others than 201 it may as well be an answer.
    frame = rtu.encode(201, bytes.fromhex("10 0001 0002 00"))
    assert heard([frame], own=(201,))[0] == [(201, bytes.fromhex("10 0001 0002 00"))]
    assert heard([frame], silent=True)[0] == [(201, bytes.fromhex("10 0001 0002"))]


def fuzz_rtu(data: bytes) -> None:
    """Any bytes: nothing is raised, nothing is held for ever, and every byte is accounted for."""
    for hears in Hears:
        frames, counters = heard([data], hears, silent=True, own=(0, 17))
        assert sum(3 + len(body) for _, body in frames) + counters.noise_bytes == len(data)


def test_any_bytes() -> None:
    generator = random.Random(20)
    for _ in range(25_000):  # for both kinds of ears
        size = generator.choice((1, 4, 8, 20, 60))
        fuzz_rtu(
            bytes(generator.choices((0, 1, 3, 16, 17, 43, 0x83, 0xFF, generator.randrange(256)), k=size))
        )


@given(parts.map(b"".join))
def test_any_bytes_found_by_search(data: bytes) -> None:
    fuzz_rtu(data)
