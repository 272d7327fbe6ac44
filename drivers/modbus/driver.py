"""The owner of one Modbus link: one queue, writes first, scans on their schedule, dead devices set aside."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from drivers.modbus.device import BUSY_WAIT_NS, ReadJob, Scan, Verdict
from drivers.modbus.wire.client import ClientSession, Event, Lost
from drivers.modbus.write import Step, WriteTarget
from gateway.aio.alarm import Alarm
from gateway.aio.endpoint import STOPPING, LinkState, TcpEndpoint
from gateway.core import quality as q
from gateway.core.clock import Clock
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Layout
from gateway.core.ports import Sink
from gateway.flow.schedule import ScanSchedule

_BLOCKED_WAIT_NS: Final = 200_000_000  # how long scans pause when storage pushes back, before asking again
_DOWN_WAIT_NS: Final = 100_000_000  # how soon a continuous scan looks again whether its link is up
URGENT_MAX: Final = 256  # requests for commands waiting at once; more are rejected


class Request:
    """One request for a command: goes out before any read that has not."""

    __slots__ = ("answer", "deadline_ns", "pdu", "unit")

    def __init__(
        self, *, unit: int, pdu: bytes, deadline_ns: int, answer: asyncio.Future[Event | None]
    ) -> None:
        self.unit = unit
        self.pdu = pdu
        self.deadline_ns = deadline_ns
        self.answer = answer


class ModbusDriver:
    """One link with all its devices. An `Owner` for the pump, a `CommandTarget` for the gatekeeper."""

    def __init__(
        self,
        *,
        name: str,
        endpoint: TcpEndpoint,
        session: ClientSession,
        scans: Mapping[Layout, tuple[Scan, int, int]],
        writes: Mapping[tuple[str, str], WriteTarget],
        sink: Sink,
        clock: Clock,
        timeout_ns: int,
        max_in_flight: int,
        gap_ns: int = 0,
    ) -> None:
        """`scans`: for each layout its scan, its period and its offset from the start, both in ns."""
        self.name: Final = name
        self.endpoint: Final = endpoint
        self.session: Final = session
        self.devices: Final = {scan.device.name: scan.device for scan, _every, _offset in scans.values()}
        self.schedule: Final[ScanSchedule[Scan]] = ScanSchedule()
        self._scans: Final = scans
        self._has_continuous = not all(every_ns for _scan, every_ns, _offset in scans.values())
        self._writes: Final = dict(writes)
        self._sink = sink
        self._clock = clock
        self._timeout_ns = timeout_ns
        self.max_in_flight: Final = max_in_flight
        self._gap_ns = gap_ns
        self._not_before_ns = 0  # the gap behind the last answer
        self._urgent: deque[Request] = deque()
        self._reads: deque[ReadJob] = deque()
        self._later: deque[tuple[int, ReadJob]] = (
            deque()
        )  # busy devices; all wait equally long, so it is sorted
        self._is_up = False
        self._is_stopping = False
        self._alarm: Alarm | None = None
        self.points_read = 0
        self.paused_scans = 0

    # Life

    async def run(self) -> None:
        """Keep the link open and the schedule going until cancelled."""
        loop = asyncio.get_running_loop()
        self._alarm = Alarm(loop=loop, clock=self._clock, fire=self._tick)
        start_ns = self._clock.monotonic_ns()
        if not self.schedule.entries():
            for scan, every_ns, offset_ns in self._scans.values():
                self.schedule.add(
                    scan, group=scan.device.name, every_ns=every_ns, first_ns=start_ns + offset_ns
                )
        self._alarm.set(self.schedule.deadline_ns())
        try:
            await self.endpoint.keep(self)
        finally:
            self._alarm.cancel()
            self._is_up = False

    # Owner: what the pump tells

    def link_up(self) -> None:
        """A new connection: every device gets a fresh chance."""
        self._is_up, self._is_stopping = True, False
        now_ns = self._clock.monotonic_ns()
        for device in self.devices.values():
            device.link_back()
        for scan, _every, _offset in self._scans.values():
            scan.link_back(now_ns)

    def link_events(self, events: list[Event]) -> None:
        """Answers, refusals, time-outs."""
        for event in events:
            job = event.token
            if job.__class__ is ReadJob:
                self._take(job, event)
            else:
                assert isinstance(job, Request)
                if not job.answer.done():
                    job.answer.set_result(event)
        now_ns = self._clock.monotonic_ns()
        if self._gap_ns:
            self._not_before_ns = now_ns + self._gap_ns
        # With several in flight, send the next ones a few at a time: a segment for each would cost more.
        if self._urgent or self.session.capacity() * 2 >= self.max_in_flight:
            self._fill(now_ns)

    def link_closing(self) -> None:
        """Modbus has no farewell."""

    def link_down(self, reason: str) -> None:
        """Nothing can be read: what waits is failed, every point is bad."""
        self._is_up = False
        for request in self._urgent:
            if not request.answer.done():
                request.answer.set_result(Lost(request, was_sent=False))
        self._urgent.clear()
        waiting = [*self._reads, *(job for _due, job in self._later)]
        self._reads.clear()
        self._later.clear()
        for job in waiting:
            self._take(job, Lost(job, was_sent=False))
        self._is_stopping = reason == STOPPING  # which says nothing about the devices
        if not self._is_stopping:
            for scan, _every, _offset in self._scans.values():
                self._tell_lost(scan, reason)

    # Scans

    def _tick(self, now_ns: int) -> None:
        """A scan is due, or a busy device may be asked again."""
        later = self._later
        while later and later[0][0] <= now_ns:
            self._reads.append(later.popleft()[1])
        self._start(self.schedule.due(now_ns), now_ns)
        self._fill(now_ns)
        self.endpoint.wake()
        self._set_alarm()

    def _set_alarm(self) -> None:
        deadline_ns = self.schedule.deadline_ns()
        if self._later and (deadline_ns is None or self._later[0][0] < deadline_ns):
            deadline_ns = self._later[0][0]
        if self._gap_ns and (self._reads or self._urgent):
            deadline_ns = (
                self._not_before_ns if deadline_ns is None else min(deadline_ns, self._not_before_ns)
            )
        if self._alarm is not None:
            self._alarm.set(deadline_ns)

    def _start(self, due: list[Scan], now_ns: int) -> None:
        while due:
            scan = due.pop()
            if not self._is_up:
                if self.endpoint.state is not LinkState.UP and self.endpoint.last_error:
                    self._tell_lost(scan, self.endpoint.last_error)
                due += self._done(scan, now_ns, defer_ns=_DOWN_WAIT_NS)
            elif scan.device.is_left_alone(now_ns):
                due += self._done(scan, now_ns, defer_ns=_DOWN_WAIT_NS)
            elif self._sink.is_blocked():
                self.paused_scans += 1
                due += self._done(scan, now_ns, defer_ns=_BLOCKED_WAIT_NS)
            else:
                jobs = scan.start(now_ns)
                if jobs:
                    self._reads.extend(jobs)
                else:  # every address of it is refused
                    self._complete(scan, now_ns, defer_ns=_DOWN_WAIT_NS)

    def _take(self, job: ReadJob, event: Event) -> None:
        now_ns = self._clock.monotonic_ns()
        self._follow(job.scan, job.scan.take(job, event, now_ns), now_ns)

    def _follow(self, scan: Scan, verdict: Verdict, now_ns: int) -> None:
        if verdict.is_complete:
            self._complete(scan, now_ns)
            return
        if verdict.now:
            self._reads.extendleft(reversed(verdict.now))
        for job in verdict.later:
            self._later.append((now_ns + BUSY_WAIT_NS, job))
            self._set_alarm()

    def _complete(self, scan: Scan, now_ns: int, *, defer_ns: int = 0) -> None:
        scan.finish()
        if self._is_stopping:
            return
        batch = scan.assembly.batch(received_ns=self._clock.wall_ns(), monotonic_ns=now_ns)
        scan.settle()
        scan.is_lost_told = False
        self.points_read += len(batch.values)
        self._sink.put(batch)
        if self._has_continuous and not defer_ns:
            defer_ns = self._sink.pause_ns()
        following = self._done(scan, now_ns, defer_ns=defer_ns)
        if following:
            self._start(following, now_ns)

    def _done(self, scan: Scan, now_ns: int, *, defer_ns: int = 0) -> list[Scan]:
        following = self.schedule.done(scan, now_ns, defer_ns=defer_ns)
        self._set_alarm()
        return following

    def _tell_lost(self, scan: Scan, reason: str) -> None:
        if scan.is_lost_told or self._sink.is_blocked():
            return
        scan.is_lost_told = True
        scan.device.reason = reason
        batch = scan.assembly.lost(
            received_ns=self._clock.wall_ns(),
            monotonic_ns=self._clock.monotonic_ns(),
            quality=q.BAD | q.COMM_LOST,
        )
        self._sink.put(batch)

    # The queue

    def _fill(self, now_ns: int) -> None:
        """Hand out as many requests as the link takes; the pump sends them right after."""
        session = self.session
        if now_ns < self._not_before_ns:
            self._set_alarm()
            return
        while self._is_up and session.capacity():
            if self._urgent:
                request = self._urgent.popleft()
                if request.answer.done():
                    continue
                if now_ns >= request.deadline_ns:
                    request.answer.set_result(None)
                    continue
                session.request(
                    request.unit, request.pdu, token=request, timeout_ns=self._timeout_ns, now_ns=now_ns
                )
            elif self._reads:
                job = self._reads.popleft()
                scan = job.scan
                if scan.aborted:
                    self._follow(scan, scan.skip(job, scan.aborted), now_ns)
                    continue
                device = scan.device
                session.request(
                    device.unit, job.block.pdu, token=job, timeout_ns=device.timeout_ns, now_ns=now_ns
                )
            else:
                return

    # What people ask

    def overruns(self) -> dict[str, int]:
        """Scans left out because the one before was still running, by device."""
        counts: dict[str, int] = {}
        for entry in self.schedule.entries():
            name = entry.key.device.name
            counts[name] = counts.get(name, 0) + entry.overruns
        return counts

    def offline_reason(self, device: str) -> str:
        """Why a device cannot be written to now; empty while it can."""
        if not self._is_up:
            return self.endpoint.last_error or "its link is not open yet"
        found = self.devices.get(device)
        if found is not None and found.state == "demoted":
            return found.reason
        return ""

    # Commands

    async def execute(self, command: Command, on_sent: Callable[[], None] | None = None) -> CommandResult:
        """Write one value, read it back where that is asked for. The result is final."""
        target = self._writes.get((command.device, command.tag))
        if target is None:
            return _result(command, Outcome.REJECTED, f"{command.target} cannot be written")
        if not self._is_up:
            return _result(command, Outcome.REJECTED, f"link {self.name} is down: {self.endpoint.last_error}")
        if len(self._urgent) >= URGENT_MAX:
            return _result(
                command, Outcome.REJECTED, f"{URGENT_MAX} requests wait on link {self.name} already"
            )
        try:
            steps = target.steps(command.value)
        except ValueError as error:
            return _result(command, Outcome.REJECTED, str(error))
        return await steps.carry_out(command, self._ask, on_sent, self._clock)

    async def _ask(self, step: Step) -> Event | None:
        answer: asyncio.Future[Event | None] = asyncio.get_running_loop().create_future()
        self._urgent.append(
            Request(unit=step.unit, pdu=step.pdu, deadline_ns=step.deadline_ns, answer=answer)
        )
        if self._is_up:
            self._fill(self._clock.monotonic_ns())
            self.endpoint.flush()
        else:
            answer.set_result(Lost(None, was_sent=False))
        return await answer


def _result(command: Command, outcome: Outcome, reason: str, value: Any = None) -> CommandResult:
    return CommandResult(id=command.id, outcome=outcome, reason=reason, value=value)
