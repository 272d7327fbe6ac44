"""Writes: the right function code, the truth about what became of them, and never behind a poll."""

from __future__ import annotations

import asyncio
import struct

import pytest

from drivers.modbus.wire.pdu import Table
from drivers.modbus.write import WriteTarget
from tests.drivers.modbus.rig import Plc, Request, Rig, driven, frame, parts_of

SITE = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 500ms%s}}
scan: {normal: %s}
devices:
  d: {link: plc, unit: 1, %s tags: {%s}}
"""
VERIFIED = "write: {verify: readback, within: 1s}"


def written(device: str, tag: str, value: object, *, name: str = "t") -> list[bytes]:
    """The requests other than reads that one command makes; it must succeed."""
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        result = await rig.command(f"d/{name}", value)  # type: ignore[arg-type]  # any value
        assert (result.outcome.value, result.reason) == ("sent", "")

    driven(SITE % ("", "1s", device, f"{name}: {{{tag}}}"), script, plc=plc)
    return plc.requests(5, 6, 15, 16, 22)


@pytest.mark.parametrize(
    ("device", "tag", "value", "requests"),
    [
        ("", "at: 'hr:4', type: uint16, write: {}", 513, ["06 0004 0201"]),
        ("", "at: 'hr:4', type: uint16, write: {}", 0, ["06 0004 0000"]),
        ("", "at: 'hr:4', type: int16, write: {}", -2, ["06 0004 fffe"]),
        ("write_function: multiple,", "at: 'hr:4', type: uint16, write: {}", 1, ["10 0004 0001 02 0001"]),
        ("", "at: 'hr:4', type: uint16, write: {function: multiple}", 1, ["10 0004 0001 02 0001"]),
        (
            "write_function: multiple,",
            "at: 'hr:4', type: uint16, write: {function: single}",
            1,
            ["06 0004 0001"],
        ),
        ("", "at: 'hr:4', type: float32, write: {}", 1.5, ["10 0004 0002 04 3fc00000"]),
        ("", "at: 'hr:4', type: float32, order: CDAB, write: {}", 1.5, ["10 0004 0002 04 00003fc0"]),
        ("", "at: 'hr:4', type: uint32, write: {}", 1, ["10 0004 0002 04 00000001"]),
        ("", "at: 'hr:4', type: float64, write: {}", 1.0, ["10 0004 0004 08 3ff0000000000000"]),
        ("", "at: 'co:4', write: {}", True, ["05 0004 ff00"]),
        ("", "at: 'co:4', write: {}", False, ["05 0004 0000"]),
        ("write_function: multiple,", "at: 'co:4', write: {}", True, ["0f 0004 0001 01 01"]),
        ("bit_write: mask,", "at: 'hr:4', bit: 3, write: {}", True, ["16 0004 fff7 0008"]),
        ("bit_write: mask,", "at: 'hr:4', bit: 3, write: {}", False, ["16 0004 fff7 0000"]),
        ("bit_write: mask,", "at: 'hr:4', bit: 3, order: BADC, write: {}", True, ["16 0004 f7ff 0800"]),
        ("bit_write: mask,", "at: 'hr:4', bit: 11, order: DCBA, write: {}", False, ["16 0004 fff7 0000"]),
        ("bit_write: rmw,", "at: 'hr:4', bit: 8, order: BADC, write: {}", False, ["06 0004 0006"]),
        ("bit_write: rmw,", "at: 'hr:4', bit: 3, write: {}", True, ["06 0004 000f"]),
        ("bit_write: rmw,", "at: 'hr:4', bit: 0, write: {}", False, ["06 0004 0006"]),
        (
            "bit_write: rmw, write_function: multiple,",
            "at: 'hr:4', bit: 3, write: {}",
            True,
            ["10 0004 0001 02 000f"],
        ),
    ],
)  # the registers hold 7; PDUs as in MODBUS Application Protocol Specification V1.1b3, clauses 6.5 to 6.16
def test_one_command_is_one_request_of_the_right_kind(
    device: str, tag: str, value: object, requests: list[str]
) -> None:
    assert written(device, tag, value) == [bytes.fromhex(request) for request in requests]


@pytest.mark.parametrize("order", ["ABCD", "CDAB", "BADC", "DCBA"])
@pytest.mark.parametrize("how", ["mask", "rmw"])
def test_the_bit_that_is_written_is_the_bit_that_is_read(order: str, how: str) -> None:
    plc = Plc()
    verified = []

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        for bit in range(16):
            result = await rig.command(f"d/b{bit}", not rig.shown.points[f"d/b{bit}"][0])
            verified.append(result.outcome.value)
        await asyncio.sleep(1.5)
        for bit in range(16):
            told = rig.shown.of(f"d/b{bit}")
            assert told[-1][1] is (not told[0][1])

    tags = ", ".join(f"b{bit}: {{at: 'hr:4', bit: {bit}, order: {order}, {VERIFIED}}}" for bit in range(16))
    driven(SITE % ("", "1s", f"bit_write: {how},", tags), script, plc=plc)
    assert verified == ["verified"] * 16
    assert plc.registers[1][4] == 0xFFFF ^ 7


def test_what_tag_and_device_together_forbid_is_found_before_anything_runs() -> None:
    parts = parts_of(SITE % ("", "1s", "", "b: {at: 'hr:4', bit: 3, write: {}}"))
    (problem,) = parts.problems
    assert problem.path[-1] == "write"
    assert problem.found == "write for bit 3 of hr:4"
    assert "bit_write: mask (FC 22) or rmw" in problem.expected
    single = parts_of(SITE % ("", "1s", "write_function: single,", "b: {at: 'hr:4', type: int32, write: {}}"))
    assert [one.found for one in single.problems] == [
        "write for 2 registers of a device with write_function: single"
    ]
    fine = SITE % (
        "",
        "1s",
        "write_function: single,",
        "b: {at: 'hr:4', type: int32, write: {function: multiple}}",
    )
    assert parts_of(fine).problems == ()


def test_a_bit_whose_device_allows_neither_way_is_refused_whatever_the_configuration_let_through() -> None:
    target = WriteTarget(
        unit=1,
        table=Table.HOLDING_REGISTERS,
        start=4,
        count=1,
        encode=lambda _value: b"\x01",
        decode=lambda data: data,
        mask=8,
    )
    with pytest.raises(ValueError, match="expected bit_write: mask or rmw"):
        target.steps(True)


def ask(
    value: object,
    *,
    reply: object = None,
    tag: str = "at: 'hr:0', type: uint16, write: {}",
    within_s: float = 5,
    device: str = "",
    delay_s: float = 0.0,
) -> tuple[str, str, object]:
    """What one command comes to: outcome, reason, value read back."""
    plc = Plc()
    plc.delay_s = delay_s
    found = []

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        if reply is not None:
            plc.reply = reply  # type: ignore[assignment]  # a function of device and request
        result = await rig.command("d/t", value, within_s=within_s)  # type: ignore[arg-type]  # any value
        found.append((result.outcome.value, result.reason, result.value))

    driven(SITE % ("", "1s", device, f"t: {{{tag}}}"), script, plc=plc)
    return found[0]


def refusing(code: int) -> object:
    def reply(device: Plc, request: Request) -> bytes:
        if request[2][0] in {5, 6, 15, 16, 22}:
            return frame(request[0], 1, bytes((request[2][0] | 0x80, code)))
        return Plc.answer(device, request)

    return reply


@pytest.mark.parametrize("code", [1, 2, 3, 6, 10])
def test_a_refusal_is_rejected_with_what_it_means(code: int) -> None:
    outcome, reason, _value = ask(1, reply=refusing(code))
    assert outcome == "rejected"
    assert reason.startswith(f"exception {code} (")


@pytest.mark.parametrize("code", [4, 5, 11])
def test_a_refusal_after_which_it_may_have_happened_is_unknown(code: int) -> None:
    outcome, reason, _value = ask(1, reply=refusing(code))
    assert outcome == "unknown"
    assert reason.startswith(f"exception {code} (")


def test_sent_and_no_answer_is_unknown_and_never_sent_again() -> None:
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        plc.silent = {1}
        result = await rig.command("d/t", 5)
        assert (result.outcome.value, result.reason) == ("unknown", "sent, no answer in time")
        plc.silent = set()
        await asyncio.sleep(60)
        assert len(plc.requests(6)) == 1

    driven(SITE % ("", "1s", "", "t: {at: 'hr:0', type: uint16, write: {}}"), script, plc=plc)


def test_not_sent_before_its_deadline_is_expired_and_never_sent() -> None:
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        plc.silent = {1}
        await asyncio.sleep(0.55)  # a read is under way and will time out
        result = await rig.command("d/t", 5, within_s=0.1)
        assert (result.outcome.value, result.reason) == (
            "expired",
            "its time ran out while it waited for the link",
        )
        plc.silent = set()
        await asyncio.sleep(60)
        assert plc.requests(6) == []

    driven(SITE % ("", "1s", "", "t: {at: 'hr:0', type: uint16, write: {}}"), script, plc=plc)


def test_sent_when_the_link_goes_down_is_unknown() -> None:
    def reset(device: Plc, request: Request) -> bytes:
        asyncio.get_running_loop().call_soon(device.network.wire.reset)
        return b""

    assert ask(1, reply=reset)[:2] == ("unknown", "sent, the link went down before the answer")


def test_while_the_link_is_down_it_is_rejected_at_once() -> None:
    plc = Plc()
    plc.network.is_listening = False

    async def script(rig: Rig) -> None:
        await asyncio.sleep(5.5)
        result = await rig.command("d/t", 5)
        assert result.outcome.value == "rejected"
        assert result.reason == "link plc is down: connection refused: nothing listens there"
        plc.network.is_listening = True
        await asyncio.sleep(60)
        assert plc.requests(6) == []
        read_only = await rig.command("d/r", 5)
        assert (read_only.outcome.value, read_only.reason) == ("rejected", "d/r cannot be written")

    tags = "t: {at: 'hr:0', type: uint16, write: {}}, r: {at: 'hr:1', type: uint16}"
    driven(SITE % ("", "1s", "", tags), script, plc=plc)


def test_a_wrong_answer_to_a_write_is_unknown() -> None:
    def wrong(device: Plc, request: Request) -> bytes:
        return frame(request[0], 1, request[2][:-1] + b"\x63")

    outcome, reason, _value = ask(1, reply=wrong)
    assert outcome == "unknown"
    assert "wrong answer: found unit 1, 5 bytes 06 00 00 00 63, expected unit 1, 5 bytes" in reason


@pytest.mark.parametrize("value", [70_000, -1, 1.5, "full", None])
def test_what_the_register_cannot_hold_is_rejected_and_not_sent(value: object) -> None:
    outcome, reason, _value = ask(value)
    assert outcome == "rejected"
    assert "expected" in reason


# --- read back ----------------------------------------------------------------------------------------------


def test_read_back_and_equal_is_verified_and_sent_was_told_before() -> None:
    told: list[str] = []

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        result = await rig.command("d/t", 12.5, on_sent=lambda: told.append("sent"))
        assert (result.outcome.value, result.value, told) == ("verified", 12.5, ["sent"])

    driven(SITE % ("", "1s", "", f"t: {{at: 'hr:0', type: float32, {VERIFIED}}}"), script)


def test_a_device_that_takes_its_time_is_read_until_it_shows_the_value() -> None:
    def slow(device: Plc, request: Request) -> bytes:
        if request[2][0] == 6:
            words = struct.unpack(">HH", request[2][1:])
            asyncio.get_running_loop().call_later(0.4, device.registers[1].__setitem__, *words)
            return frame(*request)
        return Plc.answer(device, request)

    assert ask(9, reply=slow, tag=f"at: 'hr:0', type: uint16, {VERIFIED}") == ("verified", "", 9)


def test_read_back_and_different_is_unknown_with_both_values() -> None:
    def forgets(device: Plc, request: Request) -> bytes:
        return frame(*request) if request[2][0] == 6 else Plc.answer(device, request)

    assert ask(9, reply=forgets, tag=f"at: 'hr:0', type: uint16, {VERIFIED}") == (
        "unknown",
        "confirmed by the device, but it reads back 7, expected 9",
        7,
    )


def test_not_readable_afterwards_is_unknown() -> None:
    def one_way(device: Plc, request: Request) -> bytes:
        if request[2][0] == 6:
            return frame(*request)
        return frame(request[0], 1, bytes((request[2][0] | 0x80, 4)))

    outcome, reason, value = ask(9, reply=one_way, tag=f"at: 'hr:0', type: uint16, {VERIFIED}")
    assert (outcome, value) == ("unknown", None)
    assert reason.startswith("confirmed by the device, but it cannot be read back: exception 4")


@pytest.mark.parametrize("how", ["mask", "rmw"])
@pytest.mark.parametrize("value", [True, False])
def test_a_bit_is_verified_by_that_bit_alone(how: str, value: bool) -> None:
    tag = f"at: 'hr:0', bit: 1, {VERIFIED}"
    assert ask(value, tag=tag, device=f"bit_write: {how},") == ("verified", "", value)


def test_a_read_that_fails_before_a_bit_is_changed_rejects_and_writes_nothing() -> None:
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        plc.silent = {1}
        result = await rig.command("d/t", True)
        assert result.outcome.value == "rejected"
        assert result.reason == "reading the register before changing it: sent, no answer in time"
        assert plc.requests(6, 16) == []

    driven(SITE % ("", "1s", "bit_write: rmw,", "t: {at: 'hr:0', bit: 1, write: {}}"), script, plc=plc)


def test_two_bits_of_one_register_written_at_once_are_both_written() -> None:
    plc = Plc()
    plc.delay_s = 0.02
    tags = "t: {at: 'hr:0', bit: 14, write: {}}, u: {at: 'hr:0', bit: 15, write: {}}"
    tags += ", w: {at: 'hr:0', type: uint16, write: {}}"

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.5)
        for register in (7, 0xC007):
            is_on = register == 7
            both = await asyncio.gather(rig.command("d/t", is_on), rig.command("d/u", is_on))
            assert [result.outcome.value for result in both] == ["sent", "sent"]
            assert plc.registers[1][0] == (0xC007 if is_on else 7)
        await asyncio.gather(rig.command("d/t", True), rig.command("d/w", 0), rig.command("d/u", True))
        assert plc.registers[1][0] == 0x8000  # in the order they were asked for

    driven(SITE % (", max_in_flight: 4", "1s", "bit_write: rmw,", tags), script, plc=plc)


# --- before polls -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 4])
def test_a_command_waits_for_no_more_than_the_requests_under_way(depth: int) -> None:
    plc = Plc(count=1000)
    plc.delay_s = 0.01
    many = "".join(f", b{n}: {{at: 'hr:{n * 20}', type: uint16}}" for n in range(1, 40))
    tags = "t: {at: 'hr:0', type: uint16, write: {}}" + many

    async def script(rig: Rig) -> None:
        for number in range(20):
            await asyncio.sleep(0.1007 + number * 0.0011)
            before = len(plc.asked)
            result = await rig.command("d/t", number)
            assert result.outcome.value == "sent"
            place = next(n for n, (_at, _unit, pdu) in enumerate(plc.asked[before:]) if pdu[0] == 6)
            assert place == 0  # the very next request on the wire

    driven(SITE % (f", max_in_flight: {depth}", "continuous", "", tags), script, plc=plc)


def test_more_commands_than_may_wait_are_rejected() -> None:
    plc = Plc()
    plc.delay_s = 0.4

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.6)
        results = await asyncio.gather(*(rig.command("d/t", 1, within_s=1) for _ in range(300)))
        outcomes = [result.outcome.value for result in results]
        assert outcomes.count("rejected") >= 40
        assert "256 requests wait on link plc already" in {result.reason for result in results}
        assert set(outcomes) == {"sent", "expired", "rejected"}

    driven(SITE % ("", "1s", "", "t: {at: 'hr:0', type: uint16, write: {}}"), script, plc=plc)


SCALED = "at: 'hr:20', type: int16, scale: {power: 'hr:22'}, write: {min: 0, max: 200, verify: readback}"


@pytest.mark.parametrize(("factor", "value", "raw"), [(-2, 50.25, 5025), (0, 7, 7), (1, 120, 12)])
def test_a_value_with_its_scale_factor_in_the_device_is_written_by_that_factor(
    factor: int, value: float, raw: int
) -> None:
    plc_words: dict[int, int] = {}

    def reply(device: Plc, request: Request) -> bytes:
        device.registers[1][22] = factor & 0xFFFF
        plc_words.update(device.registers[1])
        said = Plc.answer(device, request)
        plc_words.update(device.registers[1])
        return said

    assert ask(value, tag=SCALED, reply=reply) == ("verified", "", value)
    assert plc_words[20] == raw


def test_a_scale_factor_that_is_none_or_unread_writes_nothing() -> None:
    written = []

    def reply(device: Plc, request: Request) -> bytes:
        device.registers[1][22] = 0x8000
        if request[2][0] in {6, 16}:
            written.append(request)
        return Plc.answer(device, request)

    outcome, reason, _value = ask(5, tag=SCALED, reply=reply)
    assert (outcome, reason) == (
        "rejected",
        "its scale factor is 0x8000, which is no power of ten from -10 to 10",
    )

    def refuses(device: Plc, request: Request) -> bytes:
        if request[2] == bytes.fromhex("0300160001"):
            return frame(request[0], 1, b"\x83\x04")
        return reply(device, request)

    outcome, reason, _value = ask(5, tag=SCALED, reply=refuses)
    assert outcome == "rejected"
    assert reason.startswith("reading its scale factor: exception 4")
    outcome, reason, _value = ask(5000, tag=SCALED, reply=reply)
    assert outcome == "rejected"
    assert written == []
