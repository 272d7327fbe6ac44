"""Server side of Modbus TCP: one session for each connection, in front of a data model.

MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.4.2; the order of the checks is that of the
state diagrams in clause 6 of the MODBUS Application Protocol Specification V1.1b3.
"""

from __future__ import annotations

import enum
from typing import Final, Protocol

import msgspec

from drivers.modbus.wire import mbap
from drivers.modbus.wire.pdu import (
    ADDRESS_AND_WORD,
    ExceptionCode,
    MaskWrite,
    ReadRequest,
    Request,
    Table,
    WriteBits,
    WriteRegisters,
    exception_response,
    parse_request,
)
from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.core.session import Address

QUEUED_BYTES_MAX: Final = 256 * 1024  # answers waiting for `to_send`; above it server device busy, §4.4.2.2


class DataModel(Protocol):
    """What a server serves. Bits are packed from the least significant one, registers are two bytes each.

    Called with spans inside 0..65535 and within the standard's limits. Every method returns what was asked
    for, or the exception that refuses it; none blocks.
    """

    def has_unit(self, unit: int) -> bool:
        """Whether that unit is served here."""
        ...

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Coils or discrete inputs: (count + 7) // 8 bytes."""
        ...

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Holding or input registers: count * 2 bytes."""
        ...

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        """Set coils; all of them or none."""
        ...

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        """Set holding registers; all of them or none."""
        ...


class UnknownUnit(enum.Enum):
    """What a request to a unit that is not served gets."""

    EXCEPTION = "exception"  # 0x0B, as a gateway whose target device failed to respond
    SILENCE = "silence"  # nothing, as on a serial line


class Indication(msgspec.Struct, frozen=True, gc=False):
    """One request was taken. `code`: the exception it got, None for a good answer. For counters and logs."""

    unit: int
    function: int
    code: int | None


class ServerSession:
    """One connection: every request of a segment is taken, answers go out in order.

    A malformed frame raises `RemoteProtocolError`: close this connection, no other is touched. Answers to
    what came before it are still in `to_send`.
    """

    def __init__(self, model: DataModel, *, unknown_unit: UnknownUnit = UnknownUnit.EXCEPTION) -> None:
        self._model: Final = model
        self._unknown_unit: Final = unknown_unit
        self._framer = mbap.Framer()
        self._out: list[bytes] = []
        self._queued = 0  # bytes in `_out`
        self._withheld: list[Indication] = []  # of the segment that ended in garbage

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Indication]:  # noqa: ARG002
        """Take requests and queue their answers."""
        frames: list[mbap.Frame] = []
        try:
            self._framer.feed(data, frames)
        except RemoteProtocolError:
            self._withheld += [self._serve(*frame) for frame in frames]
            raise
        return [self._serve(*frame) for frame in frames]

    def to_send(self, now_ns: int) -> list[bytes]:  # noqa: ARG002
        """Answers to send now, in the order of their requests."""
        out, self._out = self._out, []
        self._queued = 0
        return out

    def sent(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """Nothing depends on it."""
        return []

    def lost(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """The connection is gone: unsent answers are forgotten."""
        events, self._withheld = self._withheld, []
        self._out = []
        self._queued = 0
        self._framer = mbap.Framer()
        return events

    def deadline_ns(self) -> int | None:
        """Never: idle connections are the owner's business."""
        return None

    def on_deadline(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """Never called."""
        return []

    def _serve(self, transaction: int, unit: int, pdu: bytes) -> Indication:
        function = pdu[0]
        answer: bytes | ExceptionCode
        if not self._model.has_unit(unit):
            if self._unknown_unit is UnknownUnit.SILENCE:
                return Indication(unit, function, ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND)
            answer = ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND
        elif self._queued > QUEUED_BYTES_MAX:
            answer = ExceptionCode.SERVER_DEVICE_BUSY
        else:
            request = parse_request(pdu)
            answer = request if isinstance(request, ExceptionCode) else self._execute(unit, pdu, request)
        code = None
        if isinstance(answer, ExceptionCode):
            code, answer = answer, exception_response(function, answer)
        frame = mbap.encode(transaction, unit, answer)
        self._out.append(frame)
        self._queued += len(frame)
        return Indication(unit, function, code)

    def _execute(self, unit: int, pdu: bytes, request: Request) -> bytes | ExceptionCode:
        match request:
            case ReadRequest():
                return self._read(unit, request)
            case WriteBits(_, start, count, data):
                refusal = self._model.write_bits(unit, start, count, data)
            case WriteRegisters(_, start, data):
                refusal = self._model.write_registers(unit, start, data)
            case MaskWrite():
                refusal = self._mask_write(unit, request)
        if refusal is not None:
            return refusal
        # Single writes and mask writes echo the request, multiple ones where and how many.
        return pdu[: ADDRESS_AND_WORD.size] if not isinstance(request, MaskWrite) else pdu

    def _read(self, unit: int, request: ReadRequest) -> bytes | ExceptionCode:
        table, start, count = request
        if table.has_bits:
            data = self._model.read_bits(unit, table, start, count)
            size = (count + 7) // 8
        else:
            data = self._model.read_registers(unit, table, start, count)
            size = count * 2
        if isinstance(data, ExceptionCode):
            return data
        if len(data) != size:
            raise LocalProtocolError(f"data model, {table.name} {start}: {len(data)} bytes, expected {size}")
        return bytes((table, size)) + data

    def _mask_write(self, unit: int, request: MaskWrite) -> ExceptionCode | None:
        start, and_mask, or_mask = request
        content = self._model.read_registers(unit, Table.HOLDING_REGISTERS, start, 1)
        if isinstance(content, ExceptionCode):
            return content
        result = (int.from_bytes(content, "big") & and_mask) | (or_mask & ~and_mask)
        return self._model.write_registers(unit, start, result.to_bytes(2, "big"))
