"""Rules of faults: what people write, when they strike, and what that does to bytes."""

from __future__ import annotations

import pytest

from drivers.modbus.simulator.faults import RULES_MAX, Faults, Kind, parse
from drivers.modbus.simulator.serve import Place, Server
from drivers.modbus.simulator.units import make_units
from drivers.modbus.wire.ascii import encode as ascii_frame
from drivers.modbus.wire.crc import crc16
from drivers.modbus.wire.rtu import encode as rtu_frame
from tests.aio.memory import LoopClock
from tests.drivers.modbus.simulated import devices_of

S = 10**9


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unit=3,kind=drop,probability=0.1", "kind=drop,unit=3,probability=0.1"),
        ("drop", "kind=drop"),
        ("kind=exception", "kind=exception,code=4"),
        ("exception, code=0x0b, unit = 1", "kind=exception,unit=1,code=11"),
        ("delay,time=1.5s", "kind=delay,time=1500ms"),
        ("split,pieces=8,time=1ms,link=plc1,function=3", "kind=split,link=plc1,function=3,pieces=8,time=1ms"),
        ("garbage,bytes=4,count=2,probability=50%", "kind=garbage,bytes=4,probability=0.5,count=2"),
        ("cut,for=10s", "kind=cut,for=10s"),
    ],
)
def test_rules_as_people_write_them(text: str, shown: str) -> None:
    assert str(parse(text)) == shown
    assert parse(shown) == parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "found no kind in '', expected kind=silence"),
        ("unit=3", "found no kind in 'unit=3', expected kind=silence"),
        ("kind=dorp", "kind: found 'dorp', expected .* did you mean 'drop'"),
        ("drop,unit=300", "unit: found '300', expected a whole number from 0 to 255"),
        ("drop,units=3", "found 'units' in 'drop,units=3', expected .*unit"),
        ("drop,probability=0", "probability: found '0', expected more than 0"),
        ("drop,probability=x", "probability: found 'x'"),
        ("delay,time=5", "time: found '5', expected a duration with its unit"),
        ("drop,time=5s", "found time with kind=drop, expected it not to be there"),
        ("drop,unit=1,unit=2", "found unit twice"),
        ("exception,code=0", "code: found '0'"),
    ],
)
def test_wrong_rules_are_explained(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse(text)


class Now:
    ns = 0


def faults(*texts: str, seed: int = 1) -> tuple[Faults, Now]:
    now = Now()
    return Faults(map(parse, texts), seed=seed, now_ns=lambda: now.ns), now


def test_a_rule_strikes_its_link_unit_and_function_only() -> None:
    found, _now = faults("drop,link=a,unit=2,function=3")
    assert [one.kind for one in found.strike("a", 2, 3, of_request=False)] == [Kind.DROP]
    for link, unit, function in (("b", 2, 3), ("a", 1, 3), ("a", 2, 4)):
        assert not found.strike(link, unit, function, of_request=False)
    assert not found.strike("a", 2, 3, of_request=True)
    assert found.total == found.rules[0].struck == 1


def test_a_rule_ends_by_its_count_or_its_time() -> None:
    found, now = faults("drop,count=2", "silence,for=10s")
    assert sum(len(found.strike("l", 1, 3, of_request=False)) for _ in range(5)) == 2
    assert found.strike("l", 1, 3, of_request=True)
    now.ns = 10 * S
    assert not found.strike("l", 1, 3, of_request=True)
    assert found.rules == []


def test_the_dice_are_fair_and_the_same_for_a_seed() -> None:
    def story(seed: int) -> list[bool]:
        found, _now = faults("drop,probability=0.1", seed=seed)
        return [bool(found.strike("l", 1, 3, of_request=False)) for _ in range(2000)]

    assert story(3) == story(3)
    assert story(3) != story(4)
    assert 140 < sum(story(3)) < 260


def test_rules_are_numbered_taken_away_and_bounded() -> None:
    found, _now = faults("drop", "cut")
    assert [rule.number for rule in found.rules] == [1, 2]
    assert found.clear(1) == 1
    assert found.add(parse("crc")) == 3
    assert found.clear() == 2
    for _ in range(RULES_MAX):
        found.add(parse("drop"))
    with pytest.raises(ValueError, match="expected at most"):
        found.add(parse("drop"))


# --- bytes -------------------------------------------------------------------------------------------------

REQUEST = bytes.fromhex("03 0000 0001")
ANSWER = bytes.fromhex("03 02 1234")


def spoiled(transport: str, rule: str) -> list[tuple[int, bytes]]:
    """What goes out for one request of unit 1, and how many ms after it."""
    devices = devices_of("devices:\n  d: {host: 10.0.0.1, unit: 1, tags: {a: {at: 'hr:0', type: uint16}}}\n")
    units = make_units(devices, seed=0, start_ns=0, second=lambda: 0.0)
    units.hold("d/a", 0x1234)
    found, _now = faults(*filter(None, [rule]))
    closed: list[str] = []
    place = Place(transport=transport, host="x")  # type: ignore[arg-type]  # its name
    server = Server("l", units, place, faults=found, clock=LoopClock())
    session = server.session(closed.append)
    request = {
        "tcp": bytes.fromhex("0007 0000 0006 01") + REQUEST,
        "rtu_over_tcp": rtu_frame(1, REQUEST),
        "ascii_over_tcp": ascii_frame(1, REQUEST),
    }[transport]
    session.receive(request, 0)
    out = [(0, data) for data in session.to_send(0)]
    while (deadline_ns := session.deadline_ns()) is not None:
        session.on_deadline(deadline_ns)
        out += [(deadline_ns // 10**6, data) for data in session.to_send(deadline_ns)]
    return [*out, *((-1, reason.encode()) for reason in closed)]


GOOD = {
    "tcp": bytes.fromhex("0007 0000 0005 01") + ANSWER,
    "rtu_over_tcp": rtu_frame(1, ANSWER),
    "ascii_over_tcp": ascii_frame(1, ANSWER),
}


@pytest.mark.parametrize("transport", GOOD)
def test_what_each_fault_does_to_the_bytes(transport: str) -> None:
    good = GOOD[transport]
    assert spoiled(transport, "") == [(0, good)]
    for rule in ("drop", "silence"):
        assert spoiled(transport, rule) == []
    assert spoiled(transport, "delay,time=70ms") == [(70, good)]
    assert spoiled(transport, "glue") == [(0, good + good)]
    assert spoiled(transport, "cut") == [(0, good[: len(good) // 2])]
    pieces = spoiled(transport, "split,pieces=3,time=5ms")
    assert [at for at, _data in pieces] == [0, 5, 10]
    assert b"".join(data for _at, data in pieces) == good
    ((_, garbage),) = spoiled(transport, "garbage,bytes=9")
    assert len(garbage) == 9
    assert garbage != good[:9]
    assert spoiled(transport, "close") == [(-1, b"the simulated device closes the connection")]


def test_exceptions_other_units_and_wrong_checks_in_every_framing() -> None:
    refusal = bytes.fromhex("83 06")
    assert spoiled("tcp", "exception,code=6") == [(0, bytes.fromhex("0007 0000 0003 01") + refusal)]
    assert spoiled("rtu_over_tcp", "exception,code=6") == [(0, rtu_frame(1, refusal))]
    assert spoiled("tcp", "wrong_unit") == [(0, bytes.fromhex("0007 0000 0005 02") + ANSWER)]
    assert spoiled("rtu_over_tcp", "wrong_unit") == [(0, rtu_frame(2, ANSWER))]
    assert spoiled("ascii_over_tcp", "wrong_unit") == [(0, ascii_frame(2, ANSWER))]
    assert spoiled("tcp", "wrong_transaction") == [(0, bytes.fromhex("5552 0000 0005 01") + ANSWER)]
    ((_, damaged),) = spoiled("rtu_over_tcp", "crc")
    assert damaged[:-2] == GOOD["rtu_over_tcp"][:-2]
    assert crc16(damaged, 0, len(damaged)) != 0
    ((_, damaged),) = spoiled("ascii_over_tcp", "crc")
    assert damaged[:-4] == GOOD["ascii_over_tcp"][:-4]
    assert sum(bytes.fromhex(damaged[1:-2].decode())) & 0xFF != 0


def test_what_came_before_garbage_is_answered_and_then_the_connection_ends() -> None:
    devices = devices_of("devices:\n  d: {host: 10.0.0.1, unit: 1, tags: {a: {at: 'hr:0', type: uint16}}}\n")
    units = make_units(devices, seed=0, start_ns=0, second=lambda: 0.0)
    closed: list[str] = []
    found, _now = faults()
    place = Place(transport="tcp", host="x")
    session = Server("l", units, place, faults=found, clock=LoopClock()).session(closed.append)
    session.receive(bytes.fromhex("0007 0000 0006 01") + REQUEST + b"\xff" * 20, 0)
    (answer,) = session.to_send(0)
    assert answer.startswith(bytes.fromhex("0007 0000 0005 01 03"))
    session.sent(0)
    assert "expected 0x0000" in closed[0]
