"""One device behind a link: its scans, what refusals teach, and when it is left alone for a while."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from drivers.modbus.patience import Patience
from drivers.modbus.planner import Block, Plan
from drivers.modbus.scan import Assembly, BlockRead, Decode
from drivers.modbus.vigil import Counter
from drivers.modbus.wire import pdu
from drivers.modbus.wire.client import Answer, Event, Lost, Mismatched, Refused, TimedOut
from drivers.modbus.wire.pdu import ExceptionCode
from gateway.core import quality as q
from gateway.core.point import Layout
from gateway.core.quality import Quality

_log = logging.getLogger("drivers.modbus")

BUSY_WAIT_NS: Final = 100_000_000
SILENT_SHARE: Final = 30  # all silent devices of a link together take one part in so many of its time

_LOST: Final = q.BAD | q.COMM_LOST
_BUSY: Final = frozenset({ExceptionCode.ACKNOWLEDGE, ExceptionCode.SERVER_DEVICE_BUSY})
_UNREACHABLE: Final = frozenset(
    {ExceptionCode.GATEWAY_PATH_UNAVAILABLE, ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND}
)
_MAP_FAULT: Final = frozenset({ExceptionCode.ILLEGAL_FUNCTION, ExceptionCode.ILLEGAL_DATA_VALUE})

CompileDecode: TypeAlias = Callable[[Block], tuple[Decode, tuple[int, ...]]]
DeviceState = Literal["ok", "degraded", "demoted", "unknown"]


class Demotion(msgspec.Struct, frozen=True):
    """After so many failures in a row a device is only asked again every `retry_ns`."""

    after: int = 3
    retry_ns: int = 30_000_000_000


class Neighbours:
    """The devices that share a link: what the silent ones may cost the others."""

    __slots__ = ("has_answered", "silent")

    def __init__(self) -> None:
        self.silent: set[str] = set()  # the demoted ones
        self.has_answered = False  # whether any of them ever did


class Device:
    """A unit and its health.

    A device that does not answer costs its link one timeout per `retry_ns`, and all of them together no more
    than one part in `SILENT_SHARE` of its time: where that is more, they are asked less often.
    """

    def __init__(
        self,
        *,
        name: str,
        unit: int,
        timeout_ns: int,
        attempts: int,
        demotion: Demotion,
        patience: Patience | None = None,
        counter: Counter | None = None,
        neighbours: Neighbours | None = None,
    ) -> None:
        """`attempts`: how often one block is asked for in one scan, where the device is busy or silent.

        `patience` learns the time-out; without one it is always `timeout_ns`. `neighbours`: one for all
        devices of the link.
        """
        self.name: Final = name
        self.unit: Final = unit
        self.patience: Final = patience
        self.counter: Final = counter
        self._timeout_ns: Final = timeout_ns
        self.attempts: Final = attempts
        self.scans: list[Scan] = []
        self.identity: dict[str, str] = {}  # what it says of itself, by the standard's names
        self.reason = ""
        self.scan_count = 0
        self.failure_count = 0
        self.asked_again_ns = 0
        self.is_away = False  # it was demoted, and its other scans were told
        self._demotion = demotion
        self._neighbours = neighbours or Neighbours()
        self._failures_in_row = 0
        self._failed_ns = -1
        self.has_answered = False  # ever

    @property
    def timeout_ns(self) -> int:
        """How long to wait for its answer now."""
        return self._timeout_ns if self.patience is None else self.patience.timeout_ns

    @property
    def state(self) -> DeviceState:
        """For the status page."""
        if self._is_demoted:
            return "demoted"
        if self.reason or (self.counter is not None and self.counter.is_frozen):
            return "degraded"
        return "ok" if self.has_answered else "unknown"

    def is_left_alone(self, now_ns: int) -> bool:
        """Whether it failed too often and it is not yet time to try again."""
        return self._is_demoted and now_ns < self.asked_again_ns

    @property
    def _is_demoted(self) -> bool:
        return self.name in self._neighbours.silent

    def failed(self, reason: str, now_ns: int, *, sent_ns: int) -> None:
        """No answer, or one that cannot be used.

        What was sent before the last failure showed is the same failure: several requests in flight, and one
        silence, are not several failures in a row.
        """
        self.failure_count += 1
        self.reason = reason
        if sent_ns < self._failed_ns:
            return
        self._failed_ns = now_ns
        self._failures_in_row += 1
        silent, was_demoted = self._neighbours.silent, self._is_demoted
        # One that never spoke among others that do is not there: three waits would only be taken from them.
        is_absent = self._neighbours.has_answered and not self.has_answered
        if is_absent or self._failures_in_row >= self._demotion.after:
            silent.add(self.name)
        wait_ns = max(self._demotion.retry_ns, SILENT_SHARE * self._timeout_ns * len(silent))
        self.asked_again_ns = now_ns + wait_ns
        if self._is_demoted and not was_demoted:
            _log.warning(
                "device does not answer, asking it less often until it does",
                extra={"device": self.name, "reason": reason, "every_s": wait_ns / 1e9},
            )

    def answered(self) -> None:
        """It is alive."""
        if self._is_demoted:
            _log.info("device answers again", extra={"device": self.name})
            self._neighbours.silent.discard(self.name)
        self._failures_in_row = 0
        self.has_answered = True
        self._neighbours.has_answered = True

    def link_back(self) -> None:
        """A new connection: try at once."""
        self.asked_again_ns = 0


class ReadJob:
    """One block of one running scan, in the link's queue."""

    __slots__ = ("attempts", "block", "is_probe", "scan", "sent_ns")

    def __init__(self, scan: Scan, block: BlockRead, *, is_probe: bool = False) -> None:
        self.scan = scan
        self.block = block
        self.is_probe = is_probe
        self.attempts = 1
        self.sent_ns = 0


class Verdict(msgspec.Struct, frozen=True):
    """What a scan wants after an answer: jobs to send now, jobs to send later, and whether it is complete."""

    now: tuple[ReadJob, ...] = ()
    later: tuple[ReadJob, ...] = ()
    is_complete: bool = False


_COMPLETE: Final = Verdict(is_complete=True)
_WAIT: Final = Verdict()


class Scan:
    """One scan class of one device. At most one run of it is under way."""

    def __init__(
        self,
        *,
        device: Device,
        layout: Layout,
        plan: Plan,
        compile_decode: CompileDecode,
    ) -> None:
        """`compile_decode(block)`: its decoder, and the places of float32 values in it."""
        self.device: Final = device
        self.layout: Final = layout
        self.assembly: Final = Assembly(layout)
        self.is_continuous = False  # without a period: it yields to what has one, and to commands
        self.first_ns = 0  # monotonic: when the first answer of this run came; 0 for none yet
        self.is_lost_told = False  # whether the sink knows already that nothing can be read
        self.is_owed = False  # it was left out, or shown as lost: read as soon as that is possible
        self.aborted: Quality = 0  # why the rest of this run is not sent
        self._plan = plan
        self._compile_decode = compile_decode
        self._compiled: dict[Block, BlockRead] = {}
        self._waiting = 0
        self._run: list[BlockRead] = []  # the blocks of this run, refused ones replaced by their halves
        self._has_learned = False
        self._is_probe_due = False  # a new connection: what was refused may be legal now
        self._faults: dict[Block, int] = {}  # what is refused for a fault, by code; was logged
        device.scans.append(self)
        self._install()

    def start(self, now_ns: int) -> list[ReadJob]:
        """The requests of a new run."""
        self.device.scan_count += 1
        self.aborted = 0
        self.first_ns = 0
        if self._is_probe_due or self._plan.probe_due(now_ns):
            self._is_probe_due = False
            self._plan = self._plan.probe(now_ns)
            self._install()
        self._run = list(self.assembly.blocks)
        self._has_learned = False
        jobs = [ReadJob(self, block) for block in self._run]
        if self._plan.probes:
            jobs += [ReadJob(self, self._block_read(block), is_probe=True) for block in self._plan.probes]
        self._waiting = len(jobs)
        return jobs

    def link_back(self) -> None:
        """A new connection: what was refused may be legal now."""
        self._is_probe_due = self._plan.has_learned

    def take(self, job: ReadJob, event: Event, now_ns: int) -> Verdict:
        """An answer to one of this run's requests."""
        if event.__class__ is Answer:
            job.block.take(event.data)
            if not self.first_ns:
                self.first_ns = event.received_ns
            patience = self.device.patience
            if patience is not None and job.attempts == 1:  # whose answer the other is, nobody knows
                patience.answered(event.received_ns - job.sent_ns)
            if job.is_probe:
                self._run.append(job.block)
            if self._faults:
                self._faults.pop(job.block.block, None)
            if self._plan.is_learning:
                self._learn(self._plan.accepted(job.block.block))
            self.device.answered()
            return self._one_less()
        if isinstance(event, Refused):
            return self._refused(job, event.code, now_ns)
        if isinstance(event, Lost):
            self.aborted = _LOST
            return self.skip(job, _LOST)
        if isinstance(event, TimedOut):
            reason = f"no answer within {self.device.timeout_ns // 1_000_000} ms"
            if self.device.patience is not None:
                self.device.patience.silent()
        else:
            assert isinstance(event, Mismatched)
            reason = f"wrong answer: found {event.found}, expected {event.expected}"
        self.device.failed(reason, now_ns, sent_ns=job.sent_ns)
        if job.attempts < self.device.attempts and self.device.state != "demoted":
            job.attempts += 1
            # One that never spoke lets the others go first: then it shows whether anybody is there at all.
            return Verdict(now=(job,)) if self.device.has_answered else Verdict(later=(job,))
        self.aborted = _LOST
        return self.skip(job, _LOST)

    def skip(self, job: ReadJob, quality: Quality) -> Verdict:
        """The request was not answered and will not be asked again in this run."""
        if not job.is_probe:
            job.block.fail(quality)
        return self._one_less()

    def finish(self) -> None:
        """The run is complete: make the assembly ready for its batch."""
        if self._has_learned:
            self.assembly.set_blocks(self._run, missing=self._missing())
        device = self.device
        if device.reason and not self.aborted:
            device.reason = next((scan.complaint for scan in device.scans if scan.complaint), "")

    @property
    def complaint(self) -> str:
        """What this scan cannot read, for people; empty where it reads all."""
        for block, code in self._faults.items():
            return f"{block.span}: {pdu.meaning(code)}"
        for column in sorted(self._plan.dead_columns):
            return f"{self.layout.points[column].name}: the device has no such address"
        return ""

    def settle(self) -> None:
        """The batch was made: use what was learned from the next run on."""
        if self._has_learned:
            self._install()

    # Refusals

    def _refused(self, job: ReadJob, code: int, now_ns: int) -> Verdict:
        device = self.device
        if code in _UNREACHABLE:
            device.failed(pdu.meaning(code), now_ns, sent_ns=job.sent_ns)
            self.aborted = _LOST
            return self.skip(job, _LOST)
        device.answered()
        is_part_refused = code == ExceptionCode.ILLEGAL_DATA_VALUE and bool(
            self._plan.narrower(job.block.block)
        )
        if code == ExceptionCode.ILLEGAL_DATA_ADDRESS or (is_part_refused and not job.is_probe):
            return self._narrow(job, now_ns)  # with 3, some devices mean that so many are too many
        if code in _BUSY and job.attempts < device.attempts:
            job.attempts += 1
            return Verdict(later=(job,))
        device.failure_count += 1
        if code == ExceptionCode.ILLEGAL_DATA_VALUE and self._plan.is_learning:
            self._learn(self._plan.accepted(job.block.block))  # refused alone: it is read apart from now on
        self._log_fault(job.block.block, code)
        return self.skip(job, q.BAD | (q.CONFIG_FAULT if code in _MAP_FAULT else q.DEVICE_FAILURE))

    def _narrow(self, job: ReadJob, now_ns: int) -> Verdict:
        """A part is refused: read the block in halves, in this very run, until the culprit is alone."""
        before = self._plan
        after = before.refused(job.block.block)
        if len(after.dead_columns) > len(before.dead_columns):  # asked just now: again in an hour
            after = msgspec.structs.replace(after, probed_ns=now_ns)
        self._learn(after)
        if job.is_probe:
            return self._one_less()
        if job.block in self._run:
            self._run.remove(job.block)
        # Not only the plan's own halves: with several in flight, it may have been laid anew meanwhile.
        jobs = tuple(ReadJob(self, self._block_read(block)) for block in self._plan.narrower(job.block.block))
        if jobs:
            self._run += [part.block for part in jobs]
            self._waiting += len(jobs) - 1
            self._has_learned = True
            return Verdict(now=jobs)
        for column in job.block.columns:
            if column in self._plan.dead_columns:
                self._log_hole(column)
        if not self._plan.dead_columns.issuperset(job.block.columns):
            job.block.fail(q.BAD | q.NO_SUCH_ADDRESS)
            self._run.append(job.block)
        return self._one_less()

    def _learn(self, plan: Plan) -> None:
        if plan is not self._plan:
            self._plan = plan
            self._has_learned = True

    def _missing(self) -> dict[int, Quality]:
        return dict.fromkeys(self._plan.dead_columns, q.BAD | q.NO_SUCH_ADDRESS)

    def _install(self) -> None:
        # Where a search is open the plan still has refused blocks' halves only: all of it is readable.
        blocks = [self._block_read(block) for block in self._plan.blocks]
        self._compiled = {read.block: read for read in blocks}
        self.assembly.set_blocks(blocks, missing=self._missing())

    def _block_read(self, block: Block) -> BlockRead:
        read = self._compiled.get(block)
        if read is None:
            request = pdu.read(block.table, start=block.start, count=block.count)
            decode, singles = self._compile_decode(block)
            read = BlockRead(block=block, pdu=request, decode=decode, columns=block.columns, singles=singles)
            self._compiled[block] = read
        return read

    def _one_less(self) -> Verdict:
        self._waiting -= 1
        return _WAIT if self._waiting else _COMPLETE

    # What people are told, once

    def _log_hole(self, column: int) -> None:
        point = self.layout.points[column]
        self.device.reason = f"{point.name}: the device has no such address"
        _log.warning(
            "device refuses this address, its tag is bad and the others are read without it",
            extra={"device": self.device.name, "tag": point.tag},
        )

    def _log_fault(self, block: Block, code: int) -> None:
        self.device.reason = f"{block.span}: {pdu.meaning(code)}"
        if self._faults.get(block) != code:
            self._faults[block] = code
            _log.warning(
                "device refuses to read",
                extra={"device": self.device.name, "block": str(block.span), "reason": pdu.meaning(code)},
            )
