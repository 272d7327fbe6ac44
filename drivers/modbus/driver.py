"""The owner of one Modbus link: one queue, writes first, scans on their schedule, dead devices set aside."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from drivers.modbus.device import BUSY_WAIT_NS, ReadJob, Scan, Verdict
from drivers.modbus.identify import Inquiry
from drivers.modbus.requests import IN_FLIGHT, READS, URGENT_MAX, Reply, Request, Urgent
from drivers.modbus.transport import AnySession
from drivers.modbus.vigil import Heartbeat, stale
from drivers.modbus.wire.client import Answer, Event, Lost
from drivers.modbus.write import BitWrite, Step, WriteTarget, meaning
from gateway.aio.alarm import Alarm
from gateway.aio.endpoint import Endpoint, LinkState
from gateway.core import quality as q
from gateway.core.bounded import Level
from gateway.core.clock import Clock
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Layout
from gateway.core.ports import Sink
from gateway.flow.schedule import ScanSchedule, on_grid

_BLOCKED_WAIT_NS: Final = 200_000_000  # how long scans pause when storage pushes back, before asking again
_HURRIED_WAIT_NS: Final = 2_000_000  # how long a continuous scan lets a command go first, before asking again
_DOWN_WAIT_NS: Final = 500_000_000  # how soon a scan looks again whether its link is known to be down


class ModbusDriver:
    """One link with all its devices. An `Owner` for the pump, a `CommandTarget` for the gatekeeper."""

    def __init__(
        self,
        *,
        name: str,
        endpoint: Endpoint,
        session: AnySession,
        scans: Mapping[Layout, tuple[Scan, int, int]],
        writes: Mapping[tuple[str, str], WriteTarget],
        sink: Sink,
        clock: Clock,
        timeout_ns: int,
        max_in_flight: int,
        gap_ns: int = 0,
        heartbeats: Sequence[Heartbeat] = (),
        inquiries: Sequence[Inquiry] = (),
    ) -> None:
        """`scans`: for each layout its scan, its period and its offset from the start, both in ns."""
        self.name: Final = name
        self.endpoint: Final = endpoint
        self.session: Final = session
        self.devices: Final = {scan.device.name: scan.device for scan, _every, _offset in scans.values()}
        self.schedule: ScanSchedule[Scan] = ScanSchedule()
        self._scans: Final = scans
        self._has_continuous = False
        self._resume_ns = 0  # when to go on with continuous reads that let a command go first; 0: none waits
        for scan, every_ns, _offset in scans.values():
            scan.is_continuous = not every_ns
            self._has_continuous |= scan.is_continuous
        self._writes: Final = dict(writes)
        self._reads_max: Final = sum(map(len, scans))  # of all layouts
        self._sink = sink
        self._clock = clock
        self._timeout_ns = timeout_ns
        self.max_in_flight: Final = max_in_flight
        self._gap_ns = gap_ns
        self._not_before_ns = 0  # the gap behind the last answer
        self._is_gap_awaited = False
        self._urgent: Final = Urgent()
        self._newest: dict[tuple[str, str], Command] = {}  # of each point that is being written
        self._turns = _turns(self._writes.values())
        self._heartbeats: Final = tuple(heartbeats)
        self._inquiries: Final = {inquiry.device.name: inquiry for inquiry in inquiries}
        self._inquiring: deque[Inquiry] = deque()  # at most one for each device
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
        self._alarm = Alarm(loop=loop, clock=self._clock, fire=self._on_alarm)
        start_ns = on_grid(self._clock.monotonic_ns())
        self.schedule = ScanSchedule()
        for scan, every_ns, offset_ns in self._scans.values():
            self.schedule.add(scan, group=scan.device.name, every_ns=every_ns, first_ns=start_ns + offset_ns)
        self._alarm.set(self.schedule.deadline_ns())
        try:
            await self.endpoint.keep(self)
        finally:
            self._alarm.cancel()
            self._forget()

    def _forget(self) -> None:
        """Nothing is under way any more, also where a fault of ours left something behind."""
        self._is_up = False
        self._urgent.forget()
        self._reads.clear()
        self._later.clear()
        self._inquiring.clear()
        self.session.lost(self._clock.monotonic_ns())

    # Owner: what the pump tells

    def link_up(self) -> None:
        """A new connection: every device gets a fresh chance."""
        self._is_up, self._is_stopping = True, False
        now_ns = self._clock.monotonic_ns()
        for device in self.devices.values():
            device.link_back()
        for inquiry in self._inquiries.values():
            inquiry.again()
        scans = [scan for scan, _every, _offset in self._scans.values()]
        for scan in scans:
            scan.link_back()
        self._make_up(scans, now_ns)
        self._fill(now_ns)

    def link_events(self, events: list[Event]) -> None:
        """Answers, refusals, time-outs."""
        for event in events:
            job = event.token
            if job.__class__ is ReadJob:
                self._take(job, event)
            elif job.__class__ is Inquiry:
                if job.take(event):
                    self._inquiring.append(job)
            else:
                assert isinstance(job, Request)
                if not job.answer.done():
                    job.answer.set_result(event)
        if not self._is_up:  # what came with the loss may ask for more: nobody is there to ask
            self._fail_reads()
            return
        now_ns = self._clock.monotonic_ns()
        if self._gap_ns:
            self._not_before_ns = now_ns + self._gap_ns
        # With several in flight, send the next ones a few at a time: a segment for each would cost more.
        if self._urgent or self.session.capacity() * 2 >= self.max_in_flight:
            self._fill(now_ns)

    def link_closing(self) -> None:
        """Modbus has no farewell. That we close says nothing about the devices: no value changes by it."""
        self._is_up, self._is_stopping = False, True

    def link_down(self, reason: str) -> None:
        """Nothing can be read: what waits is failed, every point is bad."""
        self._is_up = False
        if not self._is_stopping:
            for scan, _every, _offset in self._scans.values():
                self._tell_lost(scan, reason)
        self._urgent.fail()
        self._fail_reads()

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (
            READS.at(len(self._reads) + len(self._later) + len(self._inquiring), self._reads_max),
            self._urgent.level(),
            IN_FLIGHT.at(self.max_in_flight - self.session.capacity(), self.max_in_flight),
            *self.endpoint.levels(),
        )

    def _fail_reads(self) -> None:
        self._inquiring.clear()
        waiting = [*self._reads, *(job for _due, job in self._later)]
        self._reads.clear()
        self._later.clear()
        for job in waiting:
            self._take(job, Lost(job, was_sent=False))

    # Scans

    def _on_alarm(self, now_ns: int) -> None:
        try:
            self._tick(now_ns)
        except Exception as error:  # noqa: BLE001 - comes out of `run`, where the supervisor sees it
            self.endpoint.fail(error)

    def _tick(self, now_ns: int) -> None:
        """A scan is due, or a busy device may be asked again."""
        self._resume_ns = 0
        later = self._later
        while later and later[0][0] <= now_ns:
            self._reads.append(later.popleft()[1])
        self._start(self.schedule.due(now_ns), now_ns)
        if self._heartbeats:
            self._beat(now_ns)
        self._fill(now_ns)
        self.endpoint.wake()
        self._set_alarm()

    def _set_alarm(self) -> None:
        deadline_ns = self.schedule.deadline_ns()
        if self._later and (deadline_ns is None or self._later[0][0] < deadline_ns):
            deadline_ns = self._later[0][0]
        if self._is_gap_awaited:
            deadline_ns = (
                self._not_before_ns if deadline_ns is None else min(deadline_ns, self._not_before_ns)
            )
        if self._resume_ns:
            deadline_ns = self._resume_ns if deadline_ns is None else min(deadline_ns, self._resume_ns)
        for heartbeat in self._heartbeats:
            deadline_ns = heartbeat.due_ns if deadline_ns is None else min(deadline_ns, heartbeat.due_ns)
        if self._alarm is not None:
            self._alarm.set(deadline_ns)

    def _start(self, due: list[Scan], now_ns: int) -> None:
        while due:
            scan = due.pop()
            if not self._is_up:
                due += self._leave_out(scan, now_ns)
            elif scan.device.is_left_alone(now_ns):
                scan.is_owed = True
                due += self._done(scan, now_ns, again_ns=scan.device.asked_again_ns)
            elif self._sink.is_blocked():
                self.paused_scans += 1
                due += self._done(scan, now_ns, again_ns=now_ns + _BLOCKED_WAIT_NS)
            elif scan.is_continuous and self._sink.is_hurried():
                due += self._done(scan, now_ns, again_ns=now_ns + _HURRIED_WAIT_NS)
            else:
                scan.is_owed = False
                jobs = scan.start(now_ns)
                if jobs:
                    self._reads.extend(jobs)
                else:  # every address of it is refused
                    self._complete(scan, now_ns, defer_ns=_DOWN_WAIT_NS)

    def _leave_out(self, scan: Scan, now_ns: int) -> list[Scan]:
        """There is no link: the scan is made up for once there is. Say so, when the first attempt is over."""
        if self.endpoint.state is not LinkState.UP and self.endpoint.last_error:
            self._tell_lost(scan, self.endpoint.last_error)
        scan.is_owed = True
        again_ns = None if scan.is_lost_told else now_ns + _DOWN_WAIT_NS
        return self._done(scan, now_ns, defer_ns=_DOWN_WAIT_NS, again_ns=again_ns)

    def _make_up(self, scans: Iterable[Scan], now_ns: int) -> None:
        """What was left out or shown as lost is read now, not at its next slot, which may be in hours."""
        for scan in scans:
            if scan.is_owed:
                self._start(self.schedule.hasten(scan), now_ns)

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
        has_turned = False  # its device's counter froze, or moves again
        if self._is_up:
            # The time of the first answer: with several requests no value is shown fresher than it is.
            first_ns = scan.first_ns or now_ns
            received_ns = self._clock.wall_ns() - (now_ns - first_ns)
            batch = scan.assembly.batch(received_ns=received_ns, monotonic_ns=first_ns)
            scan.settle()
            scan.is_lost_told = False
            self.points_read += len(batch.values)
            counter = scan.device.counter
            if counter is not None:
                has_turned = counter.look(scan.layout, batch.values, now_ns)
                if counter.is_frozen:
                    batch = stale(batch)
            self._sink.put(batch)
        else:  # the link went away under it, which was told
            scan.settle()
        if self._has_continuous and not defer_ns:
            defer_ns = self._sink.pause_ns()
        again_ns = None
        if scan.aborted or scan.device.is_away:
            again_ns = self._judge(scan, now_ns)
        elif self._inquiries:
            inquiry = self._inquiries.get(scan.device.name)
            if inquiry is not None and inquiry.is_due and self._is_up:
                inquiry.is_due = False
                self._inquiring.append(inquiry)
        following = self._done(scan, now_ns, defer_ns=defer_ns, again_ns=again_ns)
        if following:
            self._start(following, now_ns)
        if has_turned:  # its other scans show it now, not at their next slots
            for other in scan.device.scans:
                other.is_owed |= other is not scan
            self._make_up(scan.device.scans, now_ns)

    def _judge(self, scan: Scan, now_ns: int) -> int | None:
        """A device goes away or is back: so do the points of its other scans. When to try this one again."""
        device = scan.device
        if not scan.aborted:
            device.is_away = False
            self._make_up(device.scans, now_ns)
            # Where one comes back others may: one is tried, and if it answers it is the turn of the next.
            away = next((mate for mate in self.devices.values() if mate.is_away), None)
            if away is not None:
                away.link_back()
                self._make_up(away.scans, now_ns)
            return None
        if device.state != "demoted":
            return None
        if self._is_up and not device.is_away:
            device.is_away = True
            for other in device.scans:
                if other is not scan:
                    self._tell_lost(other, device.reason)
        return device.asked_again_ns

    def _done(self, scan: Scan, now_ns: int, *, defer_ns: int = 0, again_ns: int | None = None) -> list[Scan]:
        following = self.schedule.done(scan, now_ns, defer_ns=defer_ns, again_ns=again_ns)
        self._set_alarm()
        return following

    def _tell_lost(self, scan: Scan, reason: str) -> None:
        scan.is_owed = True
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

    # Heartbeats

    def _beat(self, now_ns: int) -> None:
        for heartbeat in self._heartbeats:
            if now_ns < heartbeat.due_ns:
                continue
            heartbeat.due_ns = now_ns + heartbeat.every_ns  # missed ones are not made up for
            device = self.devices.get(heartbeat.device)
            if not self._is_up or (device is not None and device.is_left_alone(now_ns)):
                continue
            if self._urgent.has_room():
                answer = self._urgent.add(heartbeat.unit, heartbeat.request(), heartbeat.due_ns)
                answer.add_done_callback(partial(_tell, heartbeat))
            else:
                heartbeat.ended(f"{URGENT_MAX} requests wait on the link already")

    # The queue

    def _fill(self, now_ns: int) -> None:
        """Hand out as many requests as the link takes; the pump sends them right after."""
        session = self.session
        self._is_gap_awaited = now_ns < self._not_before_ns and bool(
            self._reads or self._urgent or self._inquiring
        )
        if now_ns < self._not_before_ns:
            self._set_alarm()
            return
        while self._is_up and session.capacity():
            if (request := self._urgent.take(now_ns)) is not None:
                session.request(
                    request.unit, request.pdu, token=request, timeout_ns=self._timeout_ns, now_ns=now_ns
                )
            elif self._inquiring:
                self._inquire(self._inquiring.popleft(), now_ns)
            elif self._reads:
                if self._reads[0].scan.is_continuous and self._sink.is_hurried():
                    self._resume_ns = now_ns + _HURRIED_WAIT_NS
                    self._set_alarm()
                    return
                job = self._reads.popleft()
                scan = job.scan
                if scan.aborted:
                    self._follow(scan, scan.skip(job, scan.aborted), now_ns)
                    continue
                device = scan.device
                job.sent_ns = now_ns
                session.request(
                    device.unit, job.block.pdu, token=job, timeout_ns=device.timeout_ns, now_ns=now_ns
                )
            else:
                return

    def _inquire(self, inquiry: Inquiry, now_ns: int) -> None:
        device, pdu = inquiry.device, inquiry.request()
        self.session.request(device.unit, pdu, token=inquiry, timeout_ns=device.timeout_ns, now_ns=now_ns)

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

    async def execute(self, command: Command, on_sent: Callable[[], None]) -> CommandResult:
        """Write one value, and read it back where that is asked for. The result is final."""
        target = self._writes.get((command.device, command.tag))
        if target is None:
            return _result(command, Outcome.REJECTED, f"{command.target} cannot be written")
        if not self._is_up:
            why = self.offline_reason(command.device)
            return _result(command, Outcome.REJECTED, f"link {self.name} is down: {why}")
        if not self._urgent.has_room():
            return _result(
                command, Outcome.REJECTED, f"{URGENT_MAX} requests wait on link {self.name} already"
            )
        try:
            steps = target.steps(command.value)
        except ValueError as error:
            return _result(command, Outcome.REJECTED, str(error))
        turn = self._turns.get(target.unit)
        self._newest[command.device, command.tag] = command

        def is_newest() -> bool:
            return self._newest.get((command.device, command.tag)) is command

        try:
            return await steps.carry_out(command, self._ask, on_sent, self._clock, turn, is_newest)
        finally:
            if is_newest():
                del self._newest[command.device, command.tag]

    async def _ask(self, step: Step) -> Reply:
        if not self._is_up:
            return Lost(None, was_sent=False)
        answer = self._urgent.add(step.unit, step.pdu, step.deadline_ns, step.replaces)
        self._fill(self._clock.monotonic_ns())
        self.endpoint.flush()
        return await answer


def _tell(heartbeat: Heartbeat, answer: asyncio.Future[Reply]) -> None:
    if not answer.cancelled():
        event = answer.result()
        heartbeat.ended("" if isinstance(event, Answer) else meaning(event)[1])


def _turns(targets: Iterable[WriteTarget]) -> dict[int, asyncio.Lock]:
    """For units where a register is read, changed and written: nothing of ours may write in between."""
    return {
        target.unit: asyncio.Lock() for target in targets if target.bit_write is BitWrite.READ_MODIFY_WRITE
    }


def _result(command: Command, outcome: Outcome, reason: str, value: Any = None) -> CommandResult:
    return CommandResult(id=command.id, outcome=outcome, reason=reason, value=value)
