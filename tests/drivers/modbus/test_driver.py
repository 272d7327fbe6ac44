"""The driver in front of devices that are gone, slow, wrong or rude: never a lie, never a standstill."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise

import pytest

from gateway.aio.supervisor import Supervisor
from gateway.core.errors import InvariantError
from tests.drivers.modbus.rig import Plc, Request, Rig, driven, frame
from tests.virtual_time import now_ns

ONE = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 500ms, attempts: 3, reconnect: {min: 1s, max: 10s}}}
scan: {normal: 1s, slow: 1h}
devices:
  d:
    link: plc
    unit: 1
    tags:
      a: {at: "hr:0", type: uint16}
      b: {at: "hr:1", type: int32}
      s: {at: "hr:10", type: uint16, scan: slow}
"""
LOST = (None, "bad/comm-lost")


# --- reaching it --------------------------------------------------------------------------------------------


def test_an_unreachable_host_is_told_once_and_read_whole_as_soon_as_it_is_there() -> None:
    plc = Plc()
    plc.network.is_listening = False

    async def script(rig: Rig) -> None:
        await asyncio.sleep(30)
        assert rig.shown.points == {"d/a": LOST, "d/b": LOST, "d/s": LOST}
        assert len(rig.shown.batches) == 2  # one for each scan class, not one for each second
        assert "nothing listens there" in rig.driver.offline_reason("d")
        plc.network.is_listening = True
        await asyncio.sleep(11)
        assert rig.shown.points == {"d/a": (7, "good"), "d/b": (7 << 16 | 7, "good"), "d/s": (7, "good")}
        assert rig.driver.offline_reason("d") == ""

    driven(ONE, script, plc=plc)


def test_no_flash_of_bad_while_the_first_connection_is_made_and_no_wait_for_slow_scans() -> None:
    plc = Plc()
    plc.network.is_reachable = False

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.9)  # the connection still is being made, slots went by
        assert rig.shown.batches == []
        assert rig.driver.offline_reason("d") == "its link is not open yet"
        plc.network.is_reachable = True
        await asyncio.sleep(3)
        first = {point: texts[0][2] for point in ("d/a", "d/s") if (texts := rig.shown.of(point))}
        assert first == {"d/a": "bad/comm-lost", "d/s": "bad/comm-lost"}  # the attempt took longer than 1 s
        assert rig.shown.points["d/s"] == (7, "good")

    driven(ONE, script, plc=plc)

    async def quick(rig: Rig) -> None:
        await asyncio.sleep(3000)
        assert [text for _at, _value, text in rig.shown.of("d/s")] == ["good"]
        assert {text for _at, _value, text in rig.shown.of("d/a")} == {"good"}

    driven(ONE, quick)


def test_a_lost_link_makes_everything_bad_at_once_and_everything_is_read_when_it_is_back() -> None:
    async def script(rig: Rig) -> None:
        await asyncio.sleep(5.5)
        rig.plc.network.is_listening = False
        rig.plc.network.wire.reset()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert set(rig.shown.points.values()) == {LOST}
        count = len(rig.shown.batches)
        await asyncio.sleep(20)
        assert len(rig.shown.batches) == count  # once
        assert [device.reason for device in rig.driver.devices.values()] == ["connection reset by peer"]
        rig.plc.network.is_listening = True
        await asyncio.sleep(11)
        assert rig.shown.points["d/s"] == (7, "good")
        assert [(device.reason, device.state) for device in rig.driver.devices.values()] == [("", "ok")]

    driven(ONE, script)


def test_a_stop_says_nothing_about_the_devices() -> None:
    """With requests under way and more of them waiting."""

    async def script(rig: Rig) -> None:
        await asyncio.sleep(5.5)
        rig.plc.delay_s = 0.3
        await asyncio.sleep(0.6)
        assert rig.plc.under_way
        count = len(rig.shown.batches)
        rig.task.cancel()
        await asyncio.wait([rig.task])
        assert len(rig.shown.batches) == count
        assert rig.shown.points["d/a"] == (7, "good")

    two_blocks = ONE.replace("int32}", 'int32}\n      z: {at: "hr:100", type: uint16}')
    driven(two_blocks, script)


# --- what it answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 6, 7, 8, 50], ids=lambda size: f"{size} bytes")
def test_a_slow_trickle_is_read_right(size: int) -> None:
    plc = Plc()
    plc.registers[1][0] = 4711
    plc.pieces = lambda data: [data[at : at + size] for at in range(0, len(data), size)]

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3)
        assert rig.shown.points["d/a"] == (4711, "good")
        assert rig.driver.session.counters.timeouts == 0

    driven(ONE, script, plc=plc)


@pytest.mark.parametrize("is_rest_sent", [True, False], ids=["rest comes late", "rest never comes"])
def test_half_a_frame_and_then_nothing_is_no_value(is_rest_sent: bool) -> None:
    """The rest of it is no answer to a later question; without it the stream is out of step and given up."""
    plc = Plc()
    rest: list[bytes] = []

    def half(device: Plc, request: Request) -> bytes:
        whole = Plc.answer(device, request)
        if len(device.asked) == 1:
            rest.append(whole[10:])
            return whole[:10]
        return (rest.pop() if rest and is_rest_sent else b"") + whole

    plc.reply = half

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.45)
        assert rig.shown.batches == []
        rig.plc.registers[1][0] = 8  # the half frame says 7
        await asyncio.sleep(10)
        counters = rig.driver.session.counters
        assert (counters.timeouts, counters.late, counters.garbage) == (1, 1, 0 if is_rest_sent else 1)
        assert rig.shown.points["d/a"] == (8, "good")
        assert {value for _at, value, text in rig.shown.of("d/a") if text == "good"} == {8}

    driven(ONE, script, plc=plc)


def test_a_late_answer_is_dropped_counted_and_never_taken_for_another() -> None:
    plc = Plc()

    def late(device: Plc, request: Request) -> bytes:
        if len(device.asked) == 1:
            device.network.wire.feed_later(
                frame(request[0], 1, b"\x03\x06" + struct.pack(">3H", 666, 666, 666)), 0.8
            )
            return b""
        return Plc.answer(device, request)

    plc.reply = late
    plc.delay_s = 0.35  # the second question is open while the answer to the first arrives

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10)
        assert rig.driver.session.counters.late == 1
        assert {value for _at, value, text in rig.shown.of("d/a") if text == "good"} == {7}
        assert 666 not in {value for _at, _point, value, _text in rig.shown.history}

    driven(ONE, script, plc=plc)


RUDE = {
    "wrong unit": (
        lambda t, u, pdu: frame(t, u + 1, pdu),
        "wrong answer: found unit 2, 8 bytes 03 06 00 07 00 07 00 07, expected unit 1, 8 bytes",
    ),
    "wrong transaction": (lambda t, u, pdu: frame(t ^ 0x8000, u, pdu), "no answer within 500 ms"),
    "wrong function": (
        lambda t, u, pdu: frame(t, u, b"\x04" + pdu[1:]),
        "wrong answer: found unit 1, 8 bytes 04",
    ),
    "too short": (lambda t, u, pdu: frame(t, u, pdu[:-2]), "wrong answer: found unit 1, 6 bytes"),
    "too long": (lambda t, u, pdu: frame(t, u, pdu + b"\0\0"), "wrong answer: found unit 1, 10 bytes"),
    "garbage": (
        lambda t, u, pdu: b"HTTP/1.1 400 Bad Request\r\n\r\n",
        "found protocol identifier 0x5450, expected 0x0000; the peer does not speak Modbus TCP here",
    ),
    "silence": (lambda t, u, pdu: b"", "no answer within 500 ms"),
}


@pytest.mark.parametrize("how", list(RUDE))
def test_a_device_that_answers_wrong_is_bad_with_the_reason_and_good_when_it_answers_right(how: str) -> None:
    wrong, reason = RUDE[how]
    plc = Plc()
    plc.reply = lambda device, request: wrong(request[0], request[1], device.respond(request[1], request[2]))

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10)
        assert set(rig.shown.points.values()) == {LOST}
        (device,) = rig.driver.devices.values()
        assert reason in device.reason
        assert device.failure_count >= 3 or how == "garbage"
        plc.reply = Plc.answer
        await asyncio.sleep(61)
        assert rig.shown.points["d/a"] == (7, "good")
        assert rig.shown.points["d/s"] == (7, "good")
        assert (device.reason, device.state) == ("", "ok")

    driven(ONE, script, plc=plc)


def test_a_connection_reset_in_the_middle_of_an_answer_is_lost_and_then_whole_again() -> None:
    plc = Plc()

    def cut(device: Plc, request: Request) -> bytes:
        if len(device.asked) == 4:
            device.network.wire.feed(Plc.answer(device, request)[:10])
            asyncio.get_running_loop().call_soon(device.network.wire.reset)
            return b""
        return Plc.answer(device, request)

    plc.reply = cut

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10)
        texts = [text for _at, _value, text in rig.shown.of("d/a")]
        assert texts.count("bad/comm-lost") == 1
        assert rig.shown.points["d/a"] == (7, "good")

    driven(ONE, script, plc=plc)


def test_answers_in_front_of_garbage_count() -> None:
    plc = Plc()

    def answer_and_garbage(device: Plc, request: Request) -> bytes:
        return Plc.answer(device, request) + b"\xff" * 20

    plc.reply = answer_and_garbage

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.2)
        counters = rig.driver.session.counters
        assert (counters.answers, counters.garbage) == (1, 1)
        assert rig.shown.points["d/a"] == LOST  # the link is down now, and says so

    driven(ONE, script, plc=plc)


def test_nothing_is_asked_of_a_session_whose_link_is_gone() -> None:
    """With scans running and commands waiting, at the very moment of the loss."""
    plc = Plc()
    plc.delay_s = 0.2
    text = ONE.replace("1s, slow", "continuous, slow").replace("type: uint16}", "type: uint16, write: {}}", 1)

    async def script(rig: Rig) -> None:
        for _ in range(20):
            await asyncio.sleep(0.35)
            commands = [asyncio.ensure_future(rig.command("d/a", number)) for number in range(3)]
            await asyncio.sleep(0)
            plc.network.wire.reset()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert rig.driver.session.capacity() == 1
            assert rig.driver.session.to_send(now_ns()) == []
            reasons = [(result.outcome.value, result.reason) for result in await asyncio.gather(*commands)]
            assert ("rejected", "the link went down before it was sent") in reasons
            assert len(reasons) == 3
            await asyncio.sleep(11)

    driven(text, script, plc=plc)


@pytest.mark.parametrize("code", [2, 6], ids=["refused", "busy"])
def test_an_answer_that_asks_for_more_and_comes_with_the_loss_leaves_nothing_behind(code: int) -> None:
    plc = Plc()

    def refuse_and_garbage(device: Plc, request: Request) -> bytes:
        return frame(request[0], 1, bytes((request[2][0] | 0x80, code))) + b"\xff" * 20

    plc.reply = refuse_and_garbage

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.2)
        assert rig.driver.session.to_send(now_ns()) == []
        assert rig.driver.session.capacity() == 1
        assert (list(rig.driver._reads), list(rig.driver._later)) == ([], [])
        assert set(rig.shown.points.values()) == {LOST}
        plc.reply = Plc.answer
        await asyncio.sleep(12)
        assert set(rig.shown.points.values()) == {(7, "good"), (7 << 16 | 7, "good")}

    driven(ONE, script, plc=plc)


# --- several devices on a wire ------------------------------------------------------------------------------

SEVERAL = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 200ms, attempts: 2}}
scan: {normal: 1s, slow: 10m}
templates:
  t: {tags: {v: {at: "hr:0", type: uint16}, s: {at: "hr:50", type: uint16, scan: slow}}}
devices:
  d1: {link: plc, unit: 1, use: t}
  d2: {link: plc, unit: 2, use: t, demote: {after: 3, retry: 30s}}
  d3: {link: plc, unit: 3, use: t}
"""


def test_one_dead_device_costs_the_others_nothing_once_it_is_set_aside() -> None:
    plc = Plc(1, 2, 3)

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10.5)
        plc.silent = {2}
        await asyncio.sleep(60)
        for unit in (1, 3):
            late = [(at - plc.times(unit)[0]) % 1000 for at in plc.times(unit) if at > 15_000]
            assert len([at for at in plc.times(unit) if 15_500 <= at < 65_500]) == 50
            assert sum(1 for wait in late if wait) <= 4  # only while the dead one is tried: once in 30 s
        assert rig.shown.points["d2/v"] == LOST
        assert rig.shown.points["d2/s"] == LOST  # not the value of minutes ago shown as good
        assert rig.shown.points["d1/v"] == rig.shown.points["d3/v"] == (7, "good")
        device = rig.driver.devices["d2"]
        assert device.state == "demoted"
        assert device.reason == "no answer within 200 ms"
        assert rig.driver.offline_reason("d2") == device.reason
        tries = [at for at in plc.times(2) if at > 12_500]
        gaps = [later - sooner for sooner, later in pairwise(tries)]
        assert all(30_000 <= gap <= 31_300 for gap in gaps), gaps
        plc.silent = set()
        await asyncio.sleep(32)
        assert rig.shown.points["d2/v"] == rig.shown.points["d2/s"] == (7, "good")
        assert (device.state, device.reason) == ("ok", "")

    driven(SEVERAL, script, plc=plc)


def test_one_silence_under_many_requests_is_one_failure() -> None:
    tags = ", ".join(f"t{n}: {{at: 'hr:{n * 20}', type: uint16}}" for n in range(8))
    text = MAP % (8, tags)
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(5.5)
        assert plc.under_way_max == 8
        plc.silent = {1}
        await asyncio.sleep(0.75)  # one round of time-outs
        assert rig.driver.devices["d"].state != "demoted"
        plc.silent = set()
        await asyncio.sleep(2)
        assert set(rig.shown.points.values()) == {(7, "good")}
        plc.silent = {1}
        await asyncio.sleep(3)
        assert rig.driver.devices["d"].state == "demoted"

    driven(text, script, plc=plc)


def test_a_slow_scan_that_failed_is_tried_again_after_retry_and_not_at_its_next_slot() -> None:
    plc = Plc(1, 2, 3)
    plc.silent = {2}

    async def script(rig: Rig) -> None:
        await asyncio.sleep(5)
        assert rig.shown.points["d2/s"] == LOST
        plc.silent = set()
        await asyncio.sleep(35)
        assert rig.shown.points["d2/s"] == (7, "good")

    driven(SEVERAL, script, plc=plc)


# --- refusals -----------------------------------------------------------------------------------------------

MAP = """
links: {plc: {driver: modbus, host: 10.0.0.1, timeout: 200ms, attempts: 3, max_in_flight: %d}}
scan: {normal: 1s}
devices:
  d:
    link: plc
    unit: 1
    tags: {%s}
"""


def test_a_register_that_vanished_makes_that_tag_bad_in_the_same_scan_and_the_plan_remembers() -> None:
    tags = ", ".join(f"t{n}: {{at: 'hr:{n}', type: uint16}}" for n in range(20))
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3.5)
        del plc.registers[1][13]
        await asyncio.sleep(1)
        bad = {point: shown for point, shown in rig.shown.points.items() if shown != (7, "good")}
        assert bad == {"d/t13": (None, "bad/no-such-address")}
        # In the very scan that met the refusal, and nothing else ever was bad:
        assert {(p, t) for _at, p, _v, t in rig.shown.history if t != "good"} == {
            ("d/t13", "bad/no-such-address")
        }
        assert rig.driver.devices["d"].reason == "d/t13: the device has no such address"
        assert rig.driver.devices["d"].state == "degraded"
        before = len(plc.asked)
        await asyncio.sleep(10)
        assert len(plc.asked) - before == 20  # two requests a scan, none of them refused
        refused = rig.driver.session.counters.exceptions[2]
        plc.registers[1][13] = 99
        await asyncio.sleep(3580)
        assert rig.shown.points["d/t13"] == (None, "bad/no-such-address")  # not asked in vain before the hour
        assert rig.driver.session.counters.exceptions[2] == refused
        await asyncio.sleep(60)
        assert rig.shown.points["d/t13"] == (99, "good")
        assert rig.driver.devices["d"].state == "ok"
        before = len(plc.asked)
        await asyncio.sleep(10)
        assert len(plc.asked) - before == 10  # one request a scan again

    driven(MAP % (1, tags), script, plc=plc)


def test_what_was_refused_is_asked_again_after_a_reconnect() -> None:
    tags = ", ".join(f"t{n}: {{at: 'hr:{n}', type: uint16}}" for n in range(4))
    plc = Plc()
    del plc.registers[1][2]

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3.5)
        assert rig.shown.points["d/t2"] == (None, "bad/no-such-address")
        plc.registers[1][2] = 5
        plc.network.wire.reset()
        await asyncio.sleep(5)
        assert rig.shown.points["d/t2"] == (5, "good")

    driven(MAP % (1, tags), script, plc=plc)


@pytest.mark.parametrize("code", [1, 3])
def test_exceptions_1_and_3_are_faults_of_the_map(code: int) -> None:
    assert refused_with(code) == ("bad/config-fault", 1)


@pytest.mark.parametrize("limit", [7, 16])
def test_a_device_that_calls_too_many_registers_an_illegal_value_is_read_in_parts(limit: int) -> None:
    tags = ", ".join(f"t{n}: {{at: 'hr:{n}', type: uint16}}" for n in range(40))
    plc = Plc()

    def few(device: Plc, request: Request) -> bytes:
        if request[2][4] > limit:
            return frame(request[0], 1, b"\x83\x03")
        return Plc.answer(device, request)

    plc.reply = few

    async def script(rig: Rig) -> None:
        await asyncio.sleep(9.5)
        assert {text for _at, _p, _v, text in rig.shown.history} == {"good"}, "from the first scan on"
        before = rig.driver.session.counters.exceptions[3]
        asked = len(plc.asked)
        await asyncio.sleep(10)
        assert rig.driver.session.counters.exceptions[3] == before, "learned"
        assert (len(plc.asked) - asked) // 10 <= 2 * -(-40 // limit)
        assert rig.driver.devices["d"].state == "ok"

    driven(MAP % (1, tags), script, plc=plc)


@pytest.mark.parametrize("code", [2, 3])
def test_refusals_of_a_moment_do_not_cut_the_reads_of_a_device_for_ever(code: int) -> None:
    tags = ", ".join(f"t{n}: {{at: 'hr:{n}', type: uint16}}" for n in range(40))
    plc = Plc()
    is_starting = [True]

    def starting(device: Plc, request: Request) -> bytes:
        if is_starting[0]:
            return frame(request[0], 1, bytes((0x83, code)))
        return Plc.answer(device, request)

    plc.reply = starting

    async def script(rig: Rig) -> None:
        await asyncio.sleep(3.5)
        is_starting[0] = False
        await asyncio.sleep(3700)
        assert set(rig.shown.points.values()) == {(7, "good")}
        asked = len(plc.asked)
        await asyncio.sleep(10)
        assert len(plc.asked) - asked == 10, "one request a scan, as on the first day"

    driven(MAP % (1, tags), script, plc=plc)


def test_exception_4_is_a_failure_of_the_device() -> None:
    assert refused_with(4) == ("bad/device-failure", 1)


@pytest.mark.parametrize("code", [8, 99])
def test_other_exceptions_too(code: int) -> None:
    assert refused_with(code) == ("bad/device-failure", 1)


@pytest.mark.parametrize("code", [5, 6])
def test_exceptions_5_and_6_are_asked_again_within_the_attempts(code: int) -> None:
    assert refused_with(code) == ("bad/device-failure", 3)


@pytest.mark.parametrize("code", [10, 11])
def test_exceptions_10_and_11_say_that_the_unit_behind_the_gateway_is_gone(code: int) -> None:
    assert refused_with(code) == ("bad/comm-lost", 1)


def refused_with(code: int) -> tuple[str, int]:
    """The quality of a tag whose block is refused, and how often it is asked for in a scan.

    The other block of the device is good all the time, unless the unit is gone; after that all is well.
    """
    tags = "a: {at: 'hr:100', type: uint16}, b: {at: 'ir:0', type: uint16}"
    plc = Plc()

    def refuse(device: Plc, request: Request) -> bytes:
        if request[2][0] == 4:
            return frame(request[0], 1, bytes((0x84, code)))
        return Plc.answer(device, request)

    plc.reply = refuse

    async def script(rig: Rig) -> None:
        await asyncio.sleep(0.95)
        asked.append(len(plc.requests(4)))
        quality.append(rig.shown.points["d/b"][1])
        assert rig.shown.points["d/a"] == (7, "good")
        device = rig.driver.devices["d"]
        assert f"exception {code} (" in device.reason
        plc.reply = Plc.answer
        await asyncio.sleep(31)
        assert rig.shown.points["d/b"] == (7, "good")
        assert (device.reason, device.state) == ("", "ok")

    asked: list[int] = []
    quality: list[str] = []
    driven(MAP % (1, tags), script, plc=plc)
    return quality[0], asked[0]


def test_busy_for_a_moment_costs_no_value() -> None:
    plc = Plc()

    def busy(device: Plc, request: Request) -> bytes:
        if len(device.asked) % 3:
            return frame(request[0], 1, bytes((request[2][0] | 0x80, 6)))
        return Plc.answer(device, request)

    plc.reply = busy

    async def script(rig: Rig) -> None:
        await asyncio.sleep(10)
        assert {text for _at, _p, _v, text in rig.shown.history} == {"good"}
        first = plc.times()[:3]
        assert [at - first[0] for at in first] == [0, 100, 200]

    driven(MAP % (1, "a: {at: 'hr:0', type: uint16}"), script, plc=plc)


# --- faults of our own --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["answer", "timer"])
def test_a_crash_is_started_again_and_everything_is_read_again(where: str) -> None:
    async def script(rig: Rig) -> None:
        rig.task.cancel()
        await asyncio.wait([rig.task])
        async with Supervisor() as supervisor:
            supervisor.spawn("link plc", rig.driver.run)
            await asyncio.sleep(3.5)
            if where == "answer":
                rig.shown.fault = ZeroDivisionError("sink")
                await asyncio.sleep(1)
                rig.shown.fault = None
            else:
                rig.driver.schedule.due = None  # type: ignore[assignment,method-assign]  # a fault of ours
            await asyncio.sleep(1)
            crashes = dict(supervisor.crashes)
            assert crashes["link plc"] in {1, 2}
            await asyncio.sleep(10)
            assert rig.shown.points == {"d/a": (7, "good"), "d/b": (7 << 16 | 7, "good"), "d/s": (7, "good")}
            count = len(rig.shown.batches)
            await asyncio.sleep(10)
            assert len(rig.shown.batches) - count == 10
            assert supervisor.crashes == crashes

    driven(ONE, script)


def test_a_command_under_way_when_the_driver_crashes_is_answered() -> None:
    plc = Plc()

    async def script(rig: Rig) -> None:
        await asyncio.sleep(1.5)
        plc.silent = {1}
        under_way = asyncio.ensure_future(rig.command("d/a", 1))
        waiting = asyncio.ensure_future(rig.command("d/a", 2))
        await asyncio.sleep(0.01)
        rig.driver.endpoint.fail(ZeroDivisionError("somewhere"))
        results = [result.outcome.value for result in await asyncio.gather(under_way, waiting)]
        assert results == ["unknown", "rejected"]
        with pytest.raises(ZeroDivisionError):
            await rig.task

    with pytest.raises(ZeroDivisionError):
        driven(ONE.replace("type: uint16}", "type: uint16, write: {}}", 1), script, plc=plc)


def test_what_cannot_be_ends_the_group() -> None:
    async def script(rig: Rig) -> None:
        rig.task.cancel()
        await asyncio.wait([rig.task])
        async with Supervisor() as supervisor:
            supervisor.spawn("link plc", rig.driver.run)
            await asyncio.sleep(3.5)
            rig.shown.fault = InvariantError("the same number twice")
            await asyncio.sleep(3600)

    with pytest.raises(ExceptionGroup) as caught:
        driven(ONE, script)
    assert caught.group_contains(InvariantError)
