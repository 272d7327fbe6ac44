"""The checker finds what it is there to find: a wrong value, a read lost, a read twice."""

from __future__ import annotations

import msgspec
import pytest

from bench.checker import Checker, packets
from bench.formula import MODULUS, Mode, place_of, registers_of, version_at, version_of

TAGS = [f"r{number:03d}" for number in range(100)]


def payload(read: int, mode: Mode, *, unit: int = 7, **changed: object) -> bytes:
    """A device message of one read; in mode tenth of what that read changed."""
    values = dict(zip(TAGS, registers_of(read, unit=unit, count=100, mode=mode), strict=True))
    if mode is Mode.TENTH and read > 1:
        values = {tag: value for tag, value in values.items() if int(tag[1:]) % 10 == read % 10}
    return msgspec.json.encode({"e": 1, "n": read, "v": {**values, **changed}})


def feed(mode: Mode, *messages: bytes, topic: bytes = b"bench/dev007") -> dict[str, int]:
    checker = Checker(mode, 100, None)
    for message in messages:
        checker.message(topic, message, 0)
    counted = msgspec.structs.asdict(checker.counters)
    return {name: counted[name] for name in ("points", "wrong", "missing", "late", "duplicates", "bad")}


def counts(points: int, **others: int) -> dict[str, int]:
    return {"points": points, "wrong": 0, "missing": 0, "late": 0, "duplicates": 0, "bad": 0} | others


@pytest.mark.parametrize("mode", Mode)
def test_every_read_has_values_of_its_own_and_says_which_read_it_was(mode: Mode) -> None:
    for read in (1, 2, 10, 11, 12345, MODULUS - 1):
        before, now = (registers_of(k, unit=3, count=100, mode=mode) for k in (read - 1, read))
        changed = [column for column in range(100) if before[column] != now[column]]
        assert changed == [column for column in range(100) if mode is Mode.ALL or column % 10 == read % 10]
        version = read if mode is Mode.ALL else version_of(read, 4)
        residue = 0 if mode is Mode.ALL else 4
        place = place_of(version, unit=3, residue=residue)
        assert version_at(place, unit=3, residue=residue) == version % MODULUS


def test_all_is_well_when_every_read_arrives_once() -> None:
    assert feed(Mode.ALL, *(payload(read, Mode.ALL) for read in range(1, 50))) == counts(4900)
    assert feed(Mode.TENTH, *(payload(read, Mode.TENTH) for read in range(1, 50))) == counts(100 + 48 * 10)


def test_one_wrong_value_is_found() -> None:
    assert feed(Mode.ALL, payload(5, Mode.ALL, r050=1))["wrong"] == 1
    assert feed(Mode.ALL, payload(5, Mode.ALL, r050=1.5))["wrong"] == 1
    assert feed(Mode.ALL, payload(5, Mode.ALL, unknown=1))["wrong"] == 1
    assert feed(Mode.TENTH, payload(5, Mode.TENTH, r005=1))["wrong"] == 1
    assert feed(Mode.TENTH, payload(5, Mode.TENTH, r095=1))["wrong"] == 1


def test_values_of_two_reads_in_one_message_are_wrong() -> None:
    old = registers_of(4, unit=7, count=100, mode=Mode.ALL)
    assert feed(Mode.ALL, payload(5, Mode.ALL, r099=old[99]))["wrong"] == 1


def test_a_lost_read_is_missing_until_it_comes() -> None:
    one, two, three = (payload(read, Mode.ALL) for read in (1, 2, 3))
    assert feed(Mode.ALL, one, three) == counts(200, missing=1)
    assert feed(Mode.ALL, one, three, two) == counts(300, late=1)


def test_a_read_that_comes_twice_is_a_duplicate() -> None:
    one, two = (payload(read, Mode.ALL) for read in (1, 2))
    assert feed(Mode.ALL, one, two, two, one)["duplicates"] == 2


def test_nulls_are_bad_not_wrong() -> None:
    nothing = msgspec.json.encode({"e": 1, "n": 1, "v": dict.fromkeys(TAGS)})
    assert feed(Mode.ALL, nothing) == counts(0, bad=100)


def test_single_tags_are_checked_too() -> None:
    shown = {read: registers_of(read, unit=7, count=100, mode=Mode.ALL)[42] for read in (1, 2, 3)}
    messages = [msgspec.json.encode({"v": shown[read]}) for read in (1, 2, 3)]
    topic = b"bench/dev007/r042"
    assert feed(Mode.ALL, *messages, topic=topic) == counts(3)
    assert feed(Mode.ALL, messages[0], messages[2], topic=topic) == counts(2, missing=1)
    assert feed(Mode.ALL, messages[0], b'{"v":70000}', topic=topic)["wrong"] == 1
    assert feed(Mode.ALL, b'{"v":null}', topic=topic) == counts(0, bad=1)


def test_packets_are_cut_from_a_stream() -> None:
    stream = b"\x30\x03\0\1a" + b"\x40\x02\0\7" + b"\x32" + b"\x80\x01" + bytes(128)
    whole = [(0x30, b"\0\1a"), (0x40, b"\0\7"), (0x32, bytes(128))]
    assert packets(stream) == (whole, b"")
    found, rest = [], b""
    for byte in stream:
        more, rest = packets(rest + bytes((byte,)))
        found += more
    assert found == whole
