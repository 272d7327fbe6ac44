"""The gatekeeper: every reason exact, nothing carried out twice, nothing carried out unaudited."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Point, Value, ValueType
from gateway.flow.audit import INTERRUPTED, Audit
from gateway.flow.gatekeeper import AgeProof, Arrival, Gatekeeper, Policy, Writable
from gateway.translate.command import ParsedCommand, Refusal
from tests.disk.faulty import FaultyFileSystem

SECOND = 1_000_000_000
WALL = 1_700_000_000 * SECOND
DIRECTORY = Path("/var/audit")
TTL = Policy(ttl_ns=5 * SECOND)
LIVE = Policy(ttl_ns=5 * SECOND, age_proof=AgeProof.LIVE_DELIVERY)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0
        self.synchronised = True

    def wall_ns(self) -> int:
        return WALL + self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def is_synchronised(self) -> bool:
        return self.synchronised


class Route:
    """Answers at once, or when told to."""

    def __init__(self, outcome: Outcome = Outcome.VERIFIED) -> None:
        self.outcome = outcome
        self.seen: list[Command] = []
        self.reached: asyncio.Event | None = None
        self.gate: asyncio.Event | None = None
        self.fault: BaseException | None = None

    async def execute(self, command: Command, on_sent: Callable[[], None]) -> CommandResult:
        self.seen.append(command)
        if self.outcome is Outcome.VERIFIED:
            on_sent()
        if self.gate is not None and self.reached is not None:
            self.reached.set()
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return CommandResult(id=command.id, outcome=self.outcome, value=command.value)

    def hold(self) -> tuple[asyncio.Event, asyncio.Event]:
        """From now on commands wait; what tells that one does, and what lets it go on."""
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        return self.reached, self.gate


class Site:
    """A gatekeeper with everything around it."""

    def __init__(self, disk: FaultyFileSystem | None = None) -> None:
        self.disk = disk or FaultyFileSystem()
        self.clock = Clock()
        self.route = Route()
        self.offline = ""
        self.progress: list[Outcome] = []
        self.audit = Audit(self.disk, DIRECTORY)
        self.gatekeeper = Gatekeeper(
            clock=self.clock,
            audit=self.audit,
            opened=self.audit.open(WALL),
            run_in_thread=self.in_thread,
            offline_reason=lambda _: self.offline,
        )
        types = {
            "on": ValueType.BOOL,
            "level": ValueType.INT,
            "sp": ValueType.FLOAT,
            "name": ValueType.STRING,
        }
        points = [
            Writable(
                point=Point(device="p1", tag=tag, type=kind, writable=True, unit="rpm", low=0, high=3000),
                high=2000,
            )
            for tag, kind in types.items()
        ]
        slow = Point(device="p1", tag="slow", type=ValueType.INT, writable=True)
        points.append(Writable(point=slow, interval_ns_min=SECOND))
        points.append(Writable(point=Point(device="p1", tag="pv", type=ValueType.INT)))
        self.gatekeeper.set_points(points)

    async def in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.sleep(0)
        work()

    def command(self, tag: str = "sp", value: Value = 5.0, **given: Any) -> Command:
        fields: dict[str, Any] = {
            "id": "a",
            "device": "p1",
            "issuer": "uplink:cloud",
            "received_ns": self.clock.wall_ns(),
            "deadline_monotonic_ns": self.clock.now_ns + 5 * SECOND,
        }
        return Command(tag=tag, value=value, **(fields | given))

    async def execute(self, command: Command, **given: Any) -> CommandResult:
        return await self.gatekeeper.execute(
            command, self.route, lambda result: self.progress.append(result.outcome), **given
        )

    def do(self, command: Command, **given: Any) -> CommandResult:
        return asyncio.run(self.execute(command, **given))


def test_a_command_is_on_disk_before_it_is_sent_and_reported_step_by_step() -> None:
    site = Site()
    durable: list[bytes] = []

    async def execute(command: Command, on_sent: Callable[[], None]) -> CommandResult:
        on_sent()
        durable.append(site.disk.entries[DIRECTORY / "commands-000001.jsonl"].durable)
        return CommandResult(id=command.id, outcome=Outcome.VERIFIED, value=5.0)

    site.route.execute = execute  # type: ignore[method-assign]  # a route that looks at the disk
    result = site.do(site.command())
    assert result == CommandResult(id="a", outcome=Outcome.VERIFIED, value=5.0)
    assert b'"id":"a"' in durable[0]
    assert durable[0].count(b"\n") == 1
    assert site.progress == [Outcome.ACCEPTED, Outcome.SENT]


def test_sent_is_reported_when_the_device_confirms_not_when_the_read_back_is_over() -> None:
    async def script() -> None:
        site = Site()
        reached, gate = site.route.hold()
        running = asyncio.create_task(site.execute(site.command()))
        await reached.wait()
        assert site.progress == [Outcome.ACCEPTED, Outcome.SENT]
        assert not running.done()
        gate.set()
        assert (await running).outcome is Outcome.VERIFIED
        assert site.progress == [Outcome.ACCEPTED, Outcome.SENT]

    asyncio.run(script())


def test_writing_zero_and_false_works() -> None:
    site = Site()
    assert site.do(site.command("sp", 0.0, id="1")).outcome is Outcome.VERIFIED
    assert site.do(site.command("on", False, id="2")).outcome is Outcome.VERIFIED
    assert [one.value for one in site.route.seen] == [0.0, False]


@pytest.mark.parametrize(
    ("tag", "value", "reason"),
    [
        ("nope", 1, "there is no point p1/nope"),
        ("pv", 1, "p1/pv is read-only: it has no write: in the configuration"),
        ("on", 1, "p1/on: found 1, expected a value of type bool"),
        ("level", True, "p1/level: found True, expected a value of type int"),
        ("level", 1.5, "p1/level: found 1.5, expected a value of type int"),
        ("level", None, "p1/level: found None, expected a value of type int"),
        ("name", b"x", "p1/name: found b'x', expected a value of type string"),
        ("sp", float("nan"), "p1/sp: found nan, expected a finite number"),
        ("sp", 2000.5, "p1/sp: 2000.5 rpm is above 2000 rpm, the most that may be written"),
        ("sp", -1, "p1/sp: -1 rpm is below 0 rpm, the least that may be written"),
    ],
)
def test_what_may_not_be_written_says_why(tag: str, value: Value, reason: str) -> None:
    site = Site()
    assert site.do(site.command(tag, value)) == CommandResult(id="a", outcome=Outcome.REJECTED, reason=reason)
    assert site.route.seen == []
    refused = bytes(site.disk.entries[DIRECTORY / "refused-000001.jsonl"].content)
    assert b'"id":"a"' in refused
    assert b'"outcome":"rejected"' in refused


@pytest.mark.parametrize("value", [0, 2000, 2000.0])
def test_limits_belong_to_the_range(value: float) -> None:
    site = Site()
    assert site.do(site.command("sp", value)).outcome is Outcome.VERIFIED


def test_a_retained_message_is_refused() -> None:
    site = Site()
    result = site.do(site.command(issued_ns=WALL), arrival=Arrival(retained=True), policy=TTL)
    assert result.outcome is Outcome.REJECTED
    assert "retained" in result.reason
    assert site.route.seen == []


def test_a_redelivery_without_an_id_is_refused() -> None:
    site = Site()
    result = site.do(site.command(), arrival=Arrival(redelivered=True, has_own_id=False))
    assert result.outcome is Outcome.REJECTED
    assert site.route.seen == []


@pytest.mark.parametrize(
    ("issued_s", "synchronised", "policy", "arrival", "outcome", "reason"),
    [
        (-4, True, TTL, Arrival(), Outcome.VERIFIED, ""),
        (-5, True, TTL, Arrival(), Outcome.VERIFIED, ""),
        (-6, True, TTL, Arrival(), Outcome.EXPIRED, "issued 6 s ago, may be 5 s old"),
        (1, True, TTL, Arrival(), Outcome.VERIFIED, ""),
        (3, True, TTL, Arrival(), Outcome.REJECTED, "issued 3 s in the future by our synchronised clock"),
        (0, False, TTL, Arrival(), Outcome.REJECTED, "cannot be verified: our clock is not synchronised"),
        (
            None,
            True,
            TTL,
            Arrival(),
            Outcome.REJECTED,
            'cannot be verified: it has no issue time, expected "t"',
        ),
        (None, True, TTL, Arrival(expiry_ns=SECOND), Outcome.REJECTED, "cannot be verified"),
        (None, True, LIVE, Arrival(expiry_ns=SECOND), Outcome.VERIFIED, ""),
        (0, False, LIVE, Arrival(expiry_ns=5 * SECOND), Outcome.VERIFIED, ""),
        (None, True, LIVE, Arrival(), Outcome.REJECTED, "cannot be verified"),
        (None, True, LIVE, Arrival(expiry_ns=6 * SECOND), Outcome.REJECTED, "cannot be verified"),
        (
            None,
            True,
            LIVE,
            Arrival(expiry_ns=SECOND, redelivered=True),
            Outcome.REJECTED,
            "cannot be verified",
        ),
        (-6, True, LIVE, Arrival(expiry_ns=SECOND), Outcome.EXPIRED, "issued 6 s ago"),
        (None, False, Policy(), Arrival(), Outcome.VERIFIED, ""),
        (-9999, True, Policy(), Arrival(), Outcome.VERIFIED, ""),
    ],
)
def test_age(
    issued_s: int | None, synchronised: bool, policy: Policy, arrival: Arrival, outcome: Outcome, reason: str
) -> None:
    site = Site()
    site.clock.synchronised = synchronised
    issued_ns = None if issued_s is None else WALL + issued_s * SECOND
    result = site.do(site.command(issued_ns=issued_ns), arrival=arrival, policy=policy)
    assert result.outcome is outcome
    assert reason in result.reason
    assert len(site.route.seen) == (outcome is Outcome.VERIFIED)


def test_an_old_command_has_only_the_rest_of_its_time() -> None:
    site = Site()
    site.do(site.command(issued_ns=WALL - 4 * SECOND), policy=TTL)
    assert site.route.seen[0].deadline_monotonic_ns == SECOND


def test_a_deadline_that_has_passed() -> None:
    site = Site()
    site.clock.now_ns = 10 * SECOND
    result = site.do(site.command(deadline_monotonic_ns=9 * SECOND))
    assert result == CommandResult(id="a", outcome=Outcome.EXPIRED, reason="its time ran out 1 s ago")


def test_a_slow_disk_lets_a_command_expire_before_it_is_sent() -> None:
    site = Site()

    async def slow(work: Callable[[], None]) -> None:
        work()
        site.clock.now_ns += 6 * SECOND

    site.gatekeeper._run_in_thread = slow
    assert site.do(site.command()).outcome is Outcome.EXPIRED
    assert site.route.seen == []
    assert site.progress == []
    assert b'"expired"' in bytes(site.disk.entries[DIRECTORY / "commands-000001.jsonl"].durable)


def test_an_offline_device_rejects() -> None:
    site = Site()
    site.offline = "no answer since 08:00"
    assert site.do(site.command()).reason == "p1 is offline: no answer since 08:00"


def test_the_same_id_gets_the_same_answer_and_is_carried_out_once() -> None:
    site = Site()
    first = site.do(site.command())
    site.clock.now_ns += (
        3600 * SECOND
    )  # the second is long too old, and retained: still it is the first answer
    again = site.do(site.command(issued_ns=WALL), arrival=Arrival(retained=True), policy=TTL)
    assert again == first
    assert len(site.route.seen) == 1


def test_a_refused_command_stays_refused() -> None:
    site = Site()
    site.offline = "gone"
    first = site.do(site.command())
    site.offline = ""
    assert site.do(site.command()) == first
    reborn = Site(site.disk)
    assert reborn.do(reborn.command()) == first
    assert reborn.route.seen == []


def test_an_id_used_for_another_value_is_told_so_and_forgets_nothing() -> None:
    site = Site()
    first = site.do(site.command())
    other = site.do(site.command(value=6.0))
    assert other.outcome is Outcome.REJECTED
    assert 'the id was used before, for ["p1/sp",5.0]' in other.reason
    assert site.do(site.command()) == first
    assert site.do(site.command(value=6.0, issuer="console")).outcome is Outcome.VERIFIED


def test_after_a_restart_the_answer_is_the_same() -> None:
    site = Site()
    first = site.do(site.command())
    reborn = Site(site.disk)
    assert reborn.do(reborn.command()) == first
    assert reborn.route.seen == []


def test_after_a_crash_midway_the_answer_is_unknown_and_nothing_is_sent() -> None:
    site = Site()

    async def main() -> None:
        reached, _ = site.route.hold()
        running = asyncio.create_task(site.execute(site.command()))
        await reached.wait()
        crashed = Site(site.disk.after_crash(1))
        result = await crashed.execute(crashed.command())
        assert result == CommandResult(id="a", outcome=Outcome.UNKNOWN, reason=INTERRUPTED)
        assert crashed.route.seen == []
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        here = await site.execute(site.command())
        assert here.outcome is Outcome.UNKNOWN

    asyncio.run(main())


def test_a_duplicate_of_a_running_command_waits_for_its_answer_and_another_is_told_to_wait() -> None:
    site = Site()

    async def main() -> None:
        reached, gate = site.route.hold()
        first = asyncio.create_task(site.execute(site.command()))
        await reached.wait()
        second = asyncio.create_task(site.execute(site.command()))
        other = await site.execute(site.command(value=6.0, id="b"))
        assert other.reason == "p1/sp is busy with the command a"
        assert not second.done()
        gate.set()
        assert await first == await second
        assert len(site.route.seen) == 1
        assert (await site.execute(site.command(value=6.0, id="c"))).outcome is Outcome.VERIFIED

    asyncio.run(main())


def test_two_of_the_same_id_at_once_are_one() -> None:
    site = Site()

    async def main() -> None:
        results = await asyncio.gather(*(site.execute(site.command()) for _ in range(5)))
        assert len({result.outcome for result in results}) == 1

    asyncio.run(main())
    assert len(site.route.seen) == 1


def test_commands_to_one_point_keep_their_distance() -> None:
    site = Site()
    assert site.do(site.command("slow", 1, id="1")).outcome is Outcome.VERIFIED
    site.clock.now_ns += SECOND // 4
    told = site.do(site.command("slow", 2, id="2"))
    assert told.reason == "p1/slow: 0.25 s after the last command, expected at least 1 s"
    site.clock.now_ns += SECOND
    assert site.do(site.command("slow", 2, id="3")).outcome is Outcome.VERIFIED


@pytest.mark.parametrize("fault", ["full", "sync"])
def test_what_cannot_be_audited_is_not_carried_out(fault: str) -> None:
    site = Site()
    if fault == "full":
        site.disk.room = 10
    else:
        site.disk.sync_error = errno.EIO
    result = site.do(site.command())
    assert result.outcome is Outcome.REJECTED
    assert "what cannot be audited is not carried out" in result.reason
    assert site.route.seen == []
    site.disk.room, site.disk.sync_error = None, 0
    assert site.do(site.command()) == result
    assert site.do(site.command(id="b")).outcome is Outcome.VERIFIED


def test_a_disk_that_fails_after_the_write_changes_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()

    async def execute(command: Command, _on_sent: Callable[[], None]) -> CommandResult:
        site.disk.sync_error = errno.EIO
        return CommandResult(id=command.id, outcome=Outcome.SENT)

    site.route.execute = execute  # type: ignore[method-assign]  # a route during which the disk dies
    assert site.do(site.command()).outcome is Outcome.SENT
    assert "outcome is not in the audit file" in caplog.text


def test_a_route_that_fails_leaves_the_command_unknown(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    site.route.fault = RuntimeError("boom")
    result = site.do(site.command())
    assert result.outcome is Outcome.UNKNOWN
    assert "RuntimeError: boom" in result.reason
    assert "route failed" in caplog.text
    assert site.do(site.command()) == result


def test_a_route_that_says_nothing_leaves_it_unknown() -> None:
    site = Site()
    site.route.outcome = Outcome.ACCEPTED
    assert site.do(site.command()).outcome is Outcome.UNKNOWN


def test_the_stricter_time_to_live_holds_and_a_missing_id_is_made() -> None:
    site = Site()
    parsed = ParsedCommand(
        device="p1",
        tag="sp",
        value=5.0,
        id=None,
        issued_ns=WALL - 3 * SECOND,
        ttl_ns=2 * SECOND,
        reply_topic=None,
    )

    def obey(parsed: ParsedCommand, arrival: Arrival) -> CommandResult:
        return asyncio.run(
            site.gatekeeper.obey(
                parsed, site.route, lambda _: None, issuer="uplink:cloud", arrival=arrival, policy=TTL
            )
        )

    assert obey(parsed, Arrival()).outcome is Outcome.EXPIRED
    longer = msgspec.structs.replace(parsed, ttl_ns=60 * SECOND)
    results = [obey(longer, Arrival()) for _ in range(2)]
    assert [result.outcome for result in results] == [Outcome.VERIFIED] * 2
    assert len({result.id for result in results}) == 2
    assert obey(longer, Arrival(redelivered=True)).outcome is Outcome.REJECTED


def test_a_message_that_is_no_command_is_written_down() -> None:
    site = Site()
    refusal = Refusal(reason="p1/sp: found 'x', expected a number", target="p1/sp", id="z")
    result = asyncio.run(site.gatekeeper.refuse(refusal, issuer="uplink:cloud"))
    assert result == CommandResult(id="z", outcome=Outcome.REJECTED, reason=refusal.reason)
    assert b"expected a number" in bytes(site.disk.entries[DIRECTORY / "refused-000001.jsonl"].content)


def test_the_oldest_ids_are_forgotten_and_never_one_under_way() -> None:
    site = Site()
    site.gatekeeper._taken.limit = 3
    for number in range(5):
        site.do(site.command(id=str(number)))
    site.do(site.command(id="4"))
    assert len(site.route.seen) == 5
    site.do(site.command(id="0"))
    assert len(site.route.seen) == 6

    async def main() -> None:
        reached, gate = site.route.hold()
        running = asyncio.create_task(site.execute(site.command("level", 1, id="long")))
        await reached.wait()
        site.route.gate = None
        for number in range(10, 16):
            await site.execute(site.command(id=str(number)))
        again = asyncio.create_task(site.execute(site.command("level", 1, id="long")))
        await asyncio.sleep(0)
        gate.set()
        assert await again == await running

    asyncio.run(main())
    assert [one.id for one in site.route.seen].count("long") == 1
