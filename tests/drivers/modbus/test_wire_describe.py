"""Requests and answers in words: the examples of the standard, what is malformed, and anything at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire.describe import exchange_words, frame_words, request_words, response_words
from tests.drivers.modbus.test_wire_pdu import EXAMPLES, example

IN_WORDS = {
    "6.1": "read coils 19..37 → 19 bits 10110011 11010110 101",
    "6.2": "read discrete inputs 196..217 → 22 bits 00110101 11011011 101011",
    "6.3": "read holding registers 107..109 → 3 registers 022b 0000 0064",
    "6.4": "read input registers 8 → 1 register 000a",
    "6.5": "write coil 172 on → done",
    "6.6": "write register 1 = 0003 → done",
    "6.7": "read exception status → exception status 01101101",
    "6.8": "diagnostics: return query data a5 37 → return query data: a5 37",
    "6.9": "get comm event counter → busy, 264 events",
    "6.10": "get comm event log → ready, 264 events, 289 messages, newest first: "
    "event 0x20, not defined by the standard; communication restarted",
    "6.11": "write coils 19..28 = 10110011 10 → done",
    "6.12": "write registers 1..2 = 000a 0102 → done",
    "6.14": "read file 4 records 1..2, file 3 records 9..10 → 2 registers 0dfe 0020; 2 registers 33cd 0040",
    "6.15": "write file 4 records 7..9 = 06af 04be 100d → done",
    "6.16": "mask write register 4: and 00f2, or 0025 → done",
    "6.17": "write registers 14..16 = 00ff 00ff 00ff, then read 3..8 → "
    "6 registers 00fe 0acd 0001 0003 000d 00ff",
    "6.18": "read FIFO queue 1246 → queue of 2 registers 01b8 1284",
    "6.21": "read device identification, basic, from object 0 → "
    'VendorName "Company identification", ProductCode "Product code ", MajorMinorRevision "V2.11"',
}


@pytest.mark.parametrize("clause", [name.split()[0] for name in EXAMPLES])
def test_the_examples_of_the_standard_in_words(clause: str) -> None:
    assert exchange_words(1, *example(clause)) == f"unit 1 {IN_WORDS[clause]}"


@pytest.mark.parametrize(
    ("request_hex", "answer_hex", "words"),
    [
        ("03 0000 0001", "83 02", "read holding registers refused: exception 2 (illegal data address: "),
        ("03 0000 0001", "83 55", "exception 85 (not defined by the standard"),
        ("03 0000 0001", "83", "refused, but malformed"),
        ("03 0000 0001", "03 04 0000 0000", "read holding registers, but malformed: 04 00 00 00 00"),
        ("03 0000 0001", "04 02 0000", "an answer of another function, read input registers: 02 00 00"),
        ("06 0001 0003", "06 0001 0004", "not what was asked: write register 1 = 0004"),
        ("10 0001 0001 02 0000", "10 0001 0002", "not what was asked: 00 01 00 02"),
        ("11", "11 09 09 FF 67 61 74 65 77 61 79", 'server id 09, runs, "gateway"'),
        ("11", "11 03 616263", 'server id "abc"'),
        ("18 0000", "18 0002 0000", "an empty queue"),
        ("41 01", "41 0203", "function 65: 02 03"),
        ("2B 0D 00", "2B 0D 01", "encapsulated interface transport, MEI type 13: 01"),
        ("08 000B 0000", "08 000B 0102", "return bus message count: 258"),
        ("03 0000 0064", "03 C8" + 100 * "1234", "… 68 more"),
    ],
)
def test_answers_that_are_not_as_they_should_be(request_hex: str, answer_hex: str, words: str) -> None:
    assert words in response_words(bytes.fromhex(answer_hex), bytes.fromhex(request_hex))


def test_answers_without_their_request() -> None:
    assert response_words(bytes.fromhex("03 02 1234")) == "1 register 1234"
    assert response_words(bytes.fromhex("01 01 05")) == "8 bits 10100000"
    assert response_words(bytes.fromhex("10 0001 0002")) == "done at 1..2"
    assert response_words(b"") == request_words(b"") == "nothing"


def test_malformed_requests() -> None:
    assert request_words(bytes.fromhex("03 00")) == "read holding registers, but malformed: 00"
    assert request_words(b"\x10") == "write multiple registers, but malformed: nothing more"
    assert request_words(bytes.fromhex("05 0001 1234")) == "write coil 1 neither on nor off: 1234"
    assert request_words(bytes.fromhex("08 0063 0000")) == "diagnostics: sub-function 99 00 00"


def test_frames_in_words() -> None:
    request = bytes.fromhex("03 0000 0001")
    assert frame_words("sent", 1, request, None, "") == ("01 0300000001", "unit 1 read holding registers 0")
    assert frame_words("received", 1, bytes.fromhex("03021234"), request, "late") == (
        "01 03021234",
        "unit 1: 1 register 1234 (late)",
    )
    assert (
        frame_words("fault", 1, request, None, "no answer")[1] == "unit 1 read holding registers 0: no answer"
    )
    assert frame_words("fault", 0, b"", None, "wrong CRC") == ("", "wrong CRC")


def fuzz_words(request: bytes, response: bytes) -> None:
    """Any bytes have words, of a length that can be shown."""
    for words in (request_words(request), response_words(response, request), response_words(response)):
        assert 0 < len(words) < 6000
        assert words.isprintable()


function = st.sampled_from([*range(1, 9), 11, 12, 15, 16, 17, 20, 21, 22, 23, 24, 43, 65, 0x83])
some_pdu = st.builds(lambda code, rest: bytes((code,)) + rest, function, st.binary(max_size=260))


@settings(deadline=None, max_examples=500)
@given(st.one_of(some_pdu, st.binary(max_size=260)), st.one_of(some_pdu, st.binary(max_size=260)))
def test_any_bytes_have_words(request_pdu: bytes, response: bytes) -> None:
    fuzz_words(request_pdu, response)
    fuzz_words(request_pdu, request_pdu[:1] + response)
