"""One write to one point: which requests, what their answers mean, and the read-back."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec

from drivers.modbus.wire import pdu
from drivers.modbus.wire.client import Answer, Broadcast, Event, Lost, Mismatched, Refused, TimedOut
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.core.clock import Clock
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Value

_VERIFY_WAIT_S: Final = 0.05  # between two read-backs
# Answers after which the device may or may not have written
_MAYBE_DONE: Final = frozenset(
    {
        ExceptionCode.SERVER_DEVICE_FAILURE,
        ExceptionCode.ACKNOWLEDGE,
        ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND,
    }
)


class WriteFunction(enum.Enum):
    """Which function code writes registers."""

    AUTO = "auto"  # 6 for one register, 16 for more
    SINGLE = "single"  # 6 only
    MULTIPLE = "multiple"  # 16 (15 for coils) also for one


class BitWrite(enum.Enum):
    """How a part of a register is written: a bit, some bits, or one byte."""

    MASK = "mask"  # function 22: the device changes the bits itself
    READ_MODIFY_WRITE = "rmw"  # read, change, write: another writer in between is overwritten
    REFUSE = "refuse"


class Queue(enum.Enum):
    """What becomes of commands for one point that wait for the link."""

    EVERY = "every"
    LATEST = "latest"  # a newer one takes the place of one that was not sent


class Superseded(msgspec.Struct, frozen=True):
    """A newer command for the same point came before this one was sent."""


class Step(msgspec.Struct, frozen=True):
    """One request; not sent after `deadline_ns` of the monotonic clock."""

    unit: int
    pdu: bytes
    deadline_ns: int
    replaces: WriteTarget | None = None  # what waits for this one is not sent any more


Ask: TypeAlias = Callable[[Step], Awaitable[Event | Superseded | None]]


class ByPower(msgspec.Struct, frozen=True):
    """A point whose power of ten is in the device: it is read before each write."""

    register: int  # protocol address, in the point's table
    read: Callable[[bytes], int | None]  # the power in a read answer's data; None where it is none
    target: Callable[[int], WriteTarget]  # how the point is written at that power


class WriteTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A writable point, compiled."""

    unit: int
    table: Table
    start: int
    count: int  # registers or coils
    encode: Callable[[Value], bytes]  # registers in wire order, or coils packed; raises ValueError
    decode: Callable[[bytes], Value]  # of a read answer's data
    function: WriteFunction = WriteFunction.AUTO
    mask: int = 0  # bits of the one register, as it travels, that are the point's; 0: whole registers
    bit_write: BitWrite = BitWrite.REFUSE
    verify_within_ns: int = 0  # 0: no read-back
    queue: Queue = Queue.EVERY
    by_power: ByPower | None = None  # `encode` and `decode` are those of the target at the power then
    attempts: int = 1  # writes; another one only when a read-back shows that the last one did nothing

    def steps(self, value: Value) -> Steps:
        """What it takes to write `value`. Raises ValueError with found and expected."""
        if self.mask and self.bit_write is BitWrite.REFUSE:
            raise ValueError("found a part of a register, expected bit_write: mask or rmw at its device")
        return Steps(self, b"" if self.by_power is not None else self.encode(value))

    def read_pdu(self) -> bytes:
        """The request that reads it back."""
        return pdu.read(self.table, start=self.start, count=self.count)


class Steps:
    """One command on its way to one target."""

    __slots__ = ("_data", "_point", "_target")

    def __init__(self, target: WriteTarget, data: bytes) -> None:
        self._point = target  # also where it is written at a power of ten, by a target of that
        self._target = target
        self._data = data

    async def carry_out(
        self,
        command: Command,
        ask: Ask,
        on_sent: Callable[[], None],
        clock: Clock,
        turn: asyncio.Lock | None = None,
        is_newest: Callable[[], bool] = lambda: True,
    ) -> CommandResult:
        """Write and read back, `on_sent` in between.

        A write that may have been carried out is repeated only where `attempts` says so, a read-back shows
        that it was not, and no newer command for the same point came. `turn` is held until the write is
        answered.
        """
        if self._target.by_power is not None:
            failure = await self._take_power(command, ask, self._target.by_power)
            if failure is not None:
                return failure
        attempts = self._target.attempts
        doubt: CommandResult | None = None  # an earlier attempt, which may be carried out yet
        while True:
            if turn is None:
                failure = await self._write(command, ask)
            else:
                async with turn:
                    failure = await self._write(command, ask)
            if failure is None:
                break
            attempts -= 1
            if failure.outcome is not Outcome.UNKNOWN or self._target.attempts == 1:
                if doubt is None:
                    return failure
                return _result(command, Outcome.UNKNOWN, f"{doubt.reason}; once more: {failure.reason}")
            doubt = failure
            event = await ask(
                self._step(self._target.read_pdu(), command.deadline_monotonic_ns, is_write=False)
            )
            if not isinstance(event, Answer):
                return failure
            value = self._target.decode(event.data)
            if self._is_as_written(event.data):
                return _result(command, Outcome.VERIFIED, f"{failure.reason}, but it reads back", value)
            if not attempts or not is_newest():
                return _result(command, Outcome.UNKNOWN, f"{failure.reason}; it reads back {value!r}", value)
        if not self._target.verify_within_ns:
            return _result(command, Outcome.SENT, "")
        on_sent()
        return await self._verify(command, ask, clock)

    async def _take_power(self, command: Command, ask: Ask, by: ByPower) -> CommandResult | None:
        """Go on with the target as it is written at the device's power of ten; nothing was written yet."""
        request = pdu.read(self._target.table, start=by.register, count=1)
        event = await ask(self._step(request, command.deadline_monotonic_ns, is_write=False))
        if not isinstance(event, Answer):
            outcome = meaning(event)[0]
            outcome = Outcome.EXPIRED if outcome is Outcome.EXPIRED else Outcome.REJECTED
            return _result(command, outcome, f"reading its scale factor: {meaning(event)[1]}")
        power = by.read(event.data)
        if power is None:
            found = int.from_bytes(event.data, "big")
            reason = f"its scale factor is {found:#06x}, which is no power of ten from -10 to 10"
            return _result(command, Outcome.REJECTED, reason)
        try:
            self._target = by.target(power)
            self._data = self._target.encode(command.value)
        except ValueError as error:
            return _result(command, Outcome.REJECTED, f"at its scale factor of 10^{power}: {error}")
        return None

    async def _write(self, command: Command, ask: Ask) -> CommandResult | None:
        """None where the device confirmed it."""
        deadline_ns = command.deadline_monotonic_ns
        request = self._write_pdu()
        if request is None:  # read, modify, write
            event = await ask(self._step(self._target.read_pdu(), deadline_ns, is_write=False))
            if not isinstance(event, Answer):
                outcome, reason = meaning(event)
                if outcome is Outcome.UNKNOWN:
                    outcome = Outcome.REJECTED  # only the read is in doubt, nothing was written
                return _result(command, outcome, f"reading the register before changing it: {reason}")
            request = self._modified_pdu(event.data)
        event = await ask(self._step(request, deadline_ns))
        if not isinstance(event, Answer):
            return _result(command, *meaning(event))
        return None

    def _step(self, request: bytes, deadline_ns: int, *, is_write: bool = True) -> Step:
        replaces = self._point if is_write and self._point.queue is Queue.LATEST else None
        return Step(self._target.unit, request, deadline_ns, replaces)

    def _write_pdu(self) -> bytes | None:
        target, data = self._target, self._data
        if target.table is Table.COILS:
            if target.count > 1 or target.function is WriteFunction.MULTIPLE:
                return pdu.write_multiple_coils(target.start, pdu.unpack_bits(data, target.count))
            return pdu.write_single_coil(target.start, on=bool(data[0]))
        if target.mask:
            if target.bit_write is BitWrite.READ_MODIFY_WRITE:
                return None
            return pdu.mask_write_register(
                target.start, and_mask=0xFFFF & ~target.mask, or_mask=int.from_bytes(data, "big")
            )
        return self._register_pdu(data)

    def _modified_pdu(self, found: bytes) -> bytes:
        register = int.from_bytes(found, "big") & ~self._target.mask | int.from_bytes(self._data, "big")
        return self._register_pdu(register.to_bytes(2, "big"))

    def _register_pdu(self, data: bytes) -> bytes:
        target = self._target
        if len(data) == 2 and target.function is not WriteFunction.MULTIPLE:
            return pdu.write_single_register(target.start, int.from_bytes(data, "big"))
        return pdu.write_multiple_registers(target.start, data)

    async def _verify(self, command: Command, ask: Ask, clock: Clock) -> CommandResult:
        target = self._target
        deadline_ns = clock.monotonic_ns() + target.verify_within_ns
        while True:
            event = await ask(self._step(target.read_pdu(), deadline_ns, is_write=False))
            if isinstance(event, Answer):
                value = target.decode(event.data)
                if self._is_as_written(event.data):
                    return _result(command, Outcome.VERIFIED, "", value)
                reason = f"confirmed by the device, but it reads back {value!r}, expected {command.value!r}"
            else:
                value = None
                reason = f"confirmed by the device, but it cannot be read back: {meaning(event)[1]}"
            if clock.monotonic_ns() + _VERIFY_WAIT_S * 1e9 >= deadline_ns:
                return _result(command, Outcome.UNKNOWN, reason, value)
            await asyncio.sleep(_VERIFY_WAIT_S)

    def _is_as_written(self, found: bytes) -> bool:
        target = self._target
        if target.table is Table.COILS:
            return pdu.unpack_bits(found, target.count) == pdu.unpack_bits(self._data, target.count)
        if target.mask:
            return int.from_bytes(found, "big") & target.mask == int.from_bytes(self._data, "big")
        return found == self._data


def meaning(event: Event | Superseded | None) -> tuple[Outcome, str]:
    """What became of a request that was not answered well."""
    if isinstance(event, Superseded):
        return Outcome.REJECTED, "a newer command for it came before it was sent"
    if event is None:
        return Outcome.EXPIRED, "its time ran out while it waited for the link"
    if isinstance(event, Refused):
        outcome = Outcome.UNKNOWN if event.code in _MAYBE_DONE else Outcome.REJECTED
        return outcome, pdu.meaning(event.code)
    if isinstance(event, TimedOut):
        if event.was_sent:
            return Outcome.UNKNOWN, "sent, no answer in time"
        return Outcome.EXPIRED, "not sent in time"
    if isinstance(event, Lost):
        if event.was_sent:
            return Outcome.UNKNOWN, "sent, the link went down before the answer"
        return Outcome.REJECTED, "the link went down before it was sent"
    if isinstance(event, Broadcast):
        return Outcome.UNKNOWN, "sent to all slaves, and none of them confirms it"
    assert isinstance(event, Mismatched)
    return Outcome.UNKNOWN, f"wrong answer: found {event.found}, expected {event.expected}"


def _result(command: Command, outcome: Outcome, reason: str, value: Value = None) -> CommandResult:
    return CommandResult(id=command.id, outcome=outcome, reason=reason, value=value)
