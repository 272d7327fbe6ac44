"""The one door to devices: judges a command, writes it down, has it carried out, and answers."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, TypeAlias

import msgspec

from gateway.core.bounded import Bound, Level
from gateway.core.clock import Clock
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.errors import StorageError
from gateway.core.point import Point, Value, ValueType
from gateway.core.ports import CommandTarget
from gateway.flow.audit import Audit, Key, Known, Opened, said_by
from gateway.translate.command import ParsedCommand, Refusal

log = logging.getLogger(__name__)

TAKEN_MAX: Final = 10_000  # ids of accepted commands remembered; beyond it the oldest are forgotten
REFUSED_MAX: Final = 1_000  # ids of refused commands remembered
IN_PROGRESS_MAX: Final = 64  # commands under way at once, each of them a point
DEADLINE_NS: Final = 10_000_000_000  # for a command whose issuer and rule set no time to live
CLOCK_SKEW_NS_MAX: Final = 2_000_000_000  # how far in the future an issue time may lie

TAKEN: Final = Bound(
    noun="command_taken",
    unit="commands",
    what="ids of accepted commands remembered, so that none is carried out twice",
    beyond="the oldest is forgotten",
    lost="forgotten",
    holds=("_Memory._known",),
)
REFUSED: Final = Bound(
    noun="command_refused",
    unit="commands",
    what="ids of refused commands remembered",
    beyond="the oldest is forgotten",
    lost="forgotten",
)
RUNNING: Final = Bound(
    noun="command_running",
    unit="commands",
    what="commands accepted and being carried out, one for each point",
    beyond="a command is refused",
    lost="refused",
)

RunInThread: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
Progress: TypeAlias = Callable[[CommandResult], None]
_TYPES: Final[dict[ValueType, tuple[type, ...]]] = {
    ValueType.BOOL: (bool,),
    ValueType.INT: (int,),
    ValueType.FLOAT: (float, int),
    ValueType.STRING: (str,),
    ValueType.BYTES: (bytes,),
}


class AgeProof(enum.Enum):
    """What shows how old a command is, where it may live only so long."""

    ISSUE_TIME = "issue_time"  # the issuer's time against our synchronised clock, nothing else
    LIVE_DELIVERY = "live_delivery"  # or: delivered live, with a message expiry that is not above the ttl


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a `commands:` rule demands."""

    ttl_ns: int | None = None  # how old a command may be when it is sent; None: any age
    age_proof: AgeProof = AgeProof.ISSUE_TIME


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """How a command came in. The default is a live call whose issuer waits for the answer."""

    retained: bool = False  # MQTT RETAIN: a copy kept by the broker, of any age
    redelivered: bool = False  # MQTT DUP: it may have been delivered before
    expiry_ns: int | None = None  # MQTT 5.0 §3.3.2.3.3, what is left of it
    has_own_id: bool = True  # False: the id is ours, so a redelivery cannot be recognised


class Writable(msgspec.Struct, frozen=True, kw_only=True):
    """A point and what may be written to it, in engineering units."""

    point: Point
    low: float | None = None
    high: float | None = None
    interval_ns_min: int = 0  # between two accepted commands


class _Running(msgspec.Struct):
    command: Command
    done: asyncio.Future[CommandResult]


class Gatekeeper:
    """Every command passes here, wherever it comes from. Owned by the event loop; starts no tasks.

    A command is carried out at most once: its id is on disk before it is sent, a second one with the same id
    gets the answer of the first, also after a restart. What cannot be written down is not carried out.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        audit: Audit,
        opened: Opened,
        run_in_thread: RunInThread,
        offline_reason: Callable[[str], str],
        taken_max: int = TAKEN_MAX,
    ) -> None:
        """`opened` is what `audit.open` returned; `offline_reason(device)` is "" while a device is there."""
        self._clock = clock
        self._audit = audit
        self._run_in_thread = run_in_thread
        self.offline_reason: Final = offline_reason
        self._taken = _Memory(opened.taken, taken_max)
        self._refused = _Memory(opened.refused, REFUSED_MAX)
        self._points: dict[str, Writable] = {}
        self._running: dict[str, _Running] = {}  # by target
        self._last_ns: dict[str, int] = {}  # by target: when the last command was accepted
        self._ids_made = 0
        self._crowded_out = 0  # commands refused because too many were under way
        self._started_ns = clock.wall_ns()
        self.outcomes: Final = Counter[Outcome]()

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (
            TAKEN.at(len(self._taken), self._taken.limit, self._taken.forgotten),
            REFUSED.at(len(self._refused), self._refused.limit, self._refused.forgotten),
            RUNNING.at(len(self._running), IN_PROGRESS_MAX, self._crowded_out),
        )

    def set_points(self, points: Iterable[Writable]) -> None:
        """What exists from now on; the writable and the others, so that each gets its own reason."""
        self._points = {writable.point.name: writable for writable in points}
        self._last_ns = {name: last for name, last in self._last_ns.items() if name in self._points}

    def command(self, parsed: ParsedCommand, *, issuer: str, policy: Policy) -> Command:
        """A command from what a message said; it gets an id of ours where it has none."""
        ttl_ns = effective_ttl_ns(policy, parsed.ttl_ns)
        self._ids_made += 1
        return Command(
            id=parsed.id or f"gw-{self._started_ns:x}-{self._ids_made}",
            device=parsed.device,
            tag=parsed.tag,
            value=parsed.value,
            issuer=issuer,
            issued_ns=parsed.issued_ns,
            received_ns=self._clock.wall_ns(),
            deadline_monotonic_ns=self._clock.monotonic_ns() + (DEADLINE_NS if ttl_ns is None else ttl_ns),
        )

    async def obey(
        self,
        parsed: ParsedCommand,
        route: CommandTarget,
        on_progress: Progress,
        *,
        issuer: str,
        arrival: Arrival,
        policy: Policy,
    ) -> CommandResult:
        """`execute` for what a message said, under the stricter of its own and the rule's time to live."""
        command = self.command(parsed, issuer=issuer, policy=policy)
        return await self.execute(
            command,
            route,
            on_progress,
            arrival=msgspec.structs.replace(arrival, has_own_id=parsed.id is not None),
            policy=msgspec.structs.replace(policy, ttl_ns=effective_ttl_ns(policy, parsed.ttl_ns)),
        )

    async def execute(
        self,
        command: Command,
        route: CommandTarget,
        on_progress: Progress,
        *,
        arrival: Arrival | None = None,
        policy: Policy | None = None,
    ) -> CommandResult:
        """Judge, write down, carry out. The result is final.

        `on_progress` gets ACCEPTED once the id is on disk, and SENT once the device has confirmed where a
        read-back follows. A route that raises leaves the command UNKNOWN: it may have been sent.
        """
        key: Key = (command.issuer, command.id)
        said = said_by(command.target, command.value)
        known = self._taken.get(key) or self._refused.get(key)
        if known is not None:
            return await self._answer_again(command, known, said)
        objection = self._objection(command, arrival or Arrival(), policy or Policy())
        if objection is not None:
            result = CommandResult(id=command.id, outcome=objection[0], reason=objection[1])
            self._refused.remember(Known(key=key, said=said, result=result))
            return await self._refuse(command, result)
        limited = self._with_deadline(command, policy or Policy())
        running = _Running(limited, asyncio.get_running_loop().create_future())
        known = Known(key=key, said=said, result=CommandResult(id=command.id, outcome=Outcome.ACCEPTED))
        self._taken.remember(known)
        self._running[command.target] = running
        try:
            known.result = await self._carry_out(limited, route, on_progress)
        except BaseException:
            known.result = CommandResult(
                id=command.id, outcome=Outcome.UNKNOWN, reason="was interrupted; it may have been sent"
            )
            raise
        finally:
            del self._running[command.target]
            running.done.set_result(known.result)
            self.outcomes[known.result.outcome] += 1
        return known.result

    async def refuse(self, refusal: Refusal, *, issuer: str) -> CommandResult:
        """Write down a message that could not even be read as a command; the result is its answer."""
        device, _, tag = refusal.target.partition("/")
        command = Command(
            id=refusal.id or "",
            device=device,
            tag=tag,
            value=None,
            issuer=issuer,
            received_ns=self._clock.wall_ns(),
            deadline_monotonic_ns=self._clock.monotonic_ns(),
        )
        result = CommandResult(id=command.id, outcome=Outcome.REJECTED, reason=refusal.reason)
        return await self._refuse(command, result)

    async def _carry_out(
        self, command: Command, route: CommandTarget, on_progress: Progress
    ) -> CommandResult:
        try:
            await self._run_in_thread(partial(self._audit.accept, command, self._clock.wall_ns()))
        except StorageError as error:
            result = _rejected(command, f"{error}; what cannot be audited is not carried out")
            await self._finish(command, result)  # half of the line may have reached the disk
            return result
        self._last_ns[command.target] = self._clock.monotonic_ns()
        if (late_ns := self._clock.monotonic_ns() - command.deadline_monotonic_ns) > 0:
            result = CommandResult(
                id=command.id,
                outcome=Outcome.EXPIRED,
                reason=f"its time ran out {_seconds(late_ns)} before it was sent",
            )
        else:
            on_progress(CommandResult(id=command.id, outcome=Outcome.ACCEPTED))
            confirmed = CommandResult(id=command.id, outcome=Outcome.SENT)
            result = await self._send(command, route, partial(on_progress, confirmed))
        await self._finish(command, result)
        return result

    async def _send(
        self, command: Command, route: CommandTarget, on_sent: Callable[[], None]
    ) -> CommandResult:
        try:
            result = await route.execute(command, on_sent)
        except Exception as error:
            log.exception("a command's route failed", extra={"target": command.target, "id": command.id})
            reason = f"its route failed, it may have been sent: {type(error).__name__}: {error}"
            return CommandResult(id=command.id, outcome=Outcome.UNKNOWN, reason=reason)
        if result.outcome is Outcome.ACCEPTED:
            reason = "its route ended without saying what became of it"
            return CommandResult(id=command.id, outcome=Outcome.UNKNOWN, reason=reason)
        return result if result.id == command.id else msgspec.structs.replace(result, id=command.id)

    async def _finish(self, command: Command, result: CommandResult) -> None:
        try:
            await self._run_in_thread(partial(self._audit.finish, command, result, self._clock.wall_ns()))
        except StorageError as error:
            log.error("a command's outcome is not in the audit file", extra=_facts(command, result, error))

    async def _refuse(self, command: Command, result: CommandResult) -> CommandResult:
        self.outcomes[result.outcome] += 1
        try:
            await self._run_in_thread(partial(self._audit.refuse, command, result, self._clock.wall_ns()))
        except StorageError as error:
            log.error("a refused command is not in the audit file", extra=_facts(command, result, error))
        return result

    async def _answer_again(self, command: Command, known: Known, said: bytes) -> CommandResult:
        if said != known.said:
            reason = f"the id was used before, for {known.said.decode()}; expected an id of its own"
            return await self._refuse(command, _rejected(command, reason))
        running = self._running.get(command.target)
        if running is not None and (running.command.issuer, running.command.id) == known.key:
            return await asyncio.shield(running.done)
        return known.result

    def _objection(self, command: Command, arrival: Arrival, policy: Policy) -> tuple[Outcome, str] | None:
        """The first reason not to carry it out."""
        reason = (
            self._objection_to_target(command)
            or _objection_to_arrival(arrival)
            or self._objection_to_age(command, arrival, policy)
            or self._objection_to_moment(command)
        )
        if not reason:
            late_ns = self._clock.monotonic_ns() - command.deadline_monotonic_ns
            if late_ns > 0:
                return Outcome.EXPIRED, f"its time ran out {_seconds(late_ns)} ago"
            if offline := self.offline_reason(command.device):
                return Outcome.REJECTED, f"{command.device} is offline: {offline}"
            return None
        return reason

    def _objection_to_target(self, command: Command) -> tuple[Outcome, str] | None:
        writable = self._points.get(command.target)
        if writable is None:
            return Outcome.REJECTED, f"there is no point {command.target}"
        if not writable.point.writable:
            return Outcome.REJECTED, f"{command.target} is read-only: it has no write: in the configuration"
        if reason := _objection_to_value(writable, command.value):
            return Outcome.REJECTED, f"{command.target}: {reason}"
        return None

    def _objection_to_age(
        self, command: Command, arrival: Arrival, policy: Policy
    ) -> tuple[Outcome, str] | None:
        ttl_ns = policy.ttl_ns
        if ttl_ns is None:
            return None
        synchronised = self._clock.is_synchronised()
        if command.issued_ns is not None and synchronised:
            age_ns = self._clock.wall_ns() - command.issued_ns
            if age_ns > ttl_ns:
                return Outcome.EXPIRED, f"issued {_seconds(age_ns)} ago, may be {_seconds(ttl_ns)} old"
            if age_ns < -CLOCK_SKEW_NS_MAX:
                return Outcome.REJECTED, f"issued {_seconds(-age_ns)} in the future by our synchronised clock"
            return None
        lives = arrival.expiry_ns is not None and arrival.expiry_ns <= ttl_ns and not arrival.redelivered
        if policy.age_proof is AgeProof.LIVE_DELIVERY and lives:
            return None
        why = (
            'it has no issue time, expected "t"'
            if command.issued_ns is None
            else "our clock is not synchronised"
        )
        return Outcome.REJECTED, f"may be {_seconds(ttl_ns)} old, and its age cannot be verified: {why}"

    def _objection_to_moment(self, command: Command) -> tuple[Outcome, str] | None:
        running = self._running.get(command.target)
        if running is not None:
            return Outcome.REJECTED, f"{command.target} is busy with the command {running.command.id}"
        if len(self._running) >= IN_PROGRESS_MAX:
            self._crowded_out += 1
            return Outcome.REJECTED, f"{len(self._running)} commands are under way, {IN_PROGRESS_MAX} may be"
        last_ns = self._last_ns.get(command.target)
        interval_ns = self._points[command.target].interval_ns_min
        if last_ns is not None and (since_ns := self._clock.monotonic_ns() - last_ns) < interval_ns:
            reason = f"{_seconds(since_ns)} after the last command, expected at least {_seconds(interval_ns)}"
            return Outcome.REJECTED, f"{command.target}: {reason}"
        return None

    def _with_deadline(self, command: Command, policy: Policy) -> Command:
        """A command that is already old has only the rest of its time to live."""
        if policy.ttl_ns is None or command.issued_ns is None or not self._clock.is_synchronised():
            return command
        rest_ns = policy.ttl_ns - max(self._clock.wall_ns() - command.issued_ns, 0)
        deadline_ns = min(command.deadline_monotonic_ns, self._clock.monotonic_ns() + rest_ns)
        return msgspec.structs.replace(command, deadline_monotonic_ns=deadline_ns)


class _Memory:
    """The last commands by key; those under way are never forgotten."""

    __slots__ = ("_known", "forgotten", "limit")

    def __init__(self, known: Iterable[Known], limit: int) -> None:
        self._known: OrderedDict[Key, Known] = OrderedDict()
        self.limit = limit
        self.forgotten = 0
        for one in known:
            self.remember(one)

    def __len__(self) -> int:
        return len(self._known)

    def get(self, key: Key) -> Known | None:
        return self._known.get(key)

    def remember(self, known: Known) -> None:
        self._known[known.key] = known
        while len(self._known) > self.limit:
            key, oldest = next(iter(self._known.items()))
            if oldest.result.outcome is Outcome.ACCEPTED:
                self._known.move_to_end(key)
                if len(self._known) <= self.limit + IN_PROGRESS_MAX:
                    break
            else:
                self.forgotten += 1
                del self._known[key]


def effective_ttl_ns(policy: Policy, asked_ns: int | None) -> int | None:
    """The shorter of what the rule and the issuer set; None where neither does."""
    return min((ttl for ttl in (policy.ttl_ns, asked_ns) if ttl is not None), default=None)


def _objection_to_arrival(arrival: Arrival) -> tuple[Outcome, str] | None:
    if arrival.retained:
        return Outcome.REJECTED, "a retained message is of any age; publish commands without retain"
    if arrival.redelivered and not arrival.has_own_id:
        return (
            Outcome.REJECTED,
            'a redelivery without an id may have been carried out before; expected an "id"',
        )
    return None


def _objection_to_value(writable: Writable, value: Value) -> str:
    point = writable.point
    if not isinstance(value, _TYPES[point.type]) or (
        isinstance(value, bool) and point.type is not ValueType.BOOL
    ):
        return f"found {value!r}, expected a value of type {point.type.value}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if not math.isfinite(value):
        return f"found {value!r}, expected a finite number"
    unit = f" {point.unit}" if point.unit else ""
    low = max((limit for limit in (writable.low, point.low) if limit is not None), default=None)
    high = min((limit for limit in (writable.high, point.high) if limit is not None), default=None)
    if low is not None and value < low:
        return f"{value}{unit} is below {low:g}{unit}, the least that may be written"
    if high is not None and value > high:
        return f"{value}{unit} is above {high:g}{unit}, the most that may be written"
    return ""


def _rejected(command: Command, reason: str) -> CommandResult:
    return CommandResult(id=command.id, outcome=Outcome.REJECTED, reason=reason)


def _facts(command: Command, result: CommandResult, error: Exception) -> dict[str, str]:
    return {"target": command.target, "id": command.id, "outcome": result.outcome.value, "fault": str(error)}


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / 1e9:.3g} s"
