"""What a server answers: one PDU in, one PDU out, by a table of functions.

MODBUS Application Protocol Specification V1.1b3: the order of the checks is that of the state diagrams in
clause 6: function (1), quantities, sizes and values (3), addresses (2), then the execution (4 and others).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeAlias

from drivers.modbus.wire.model import DataModel, Files, Later, Queues
from drivers.modbus.wire.pdu import (
    ADDRESS_AND_WORD,
    ADDRESS_COUNT,
    COIL_OFF,
    COIL_ON,
    DEVICE_IDENTIFICATION,
    MASK_WRITE,
    PDU_SIZE_MAX,
    READ_BITS_MAX,
    READ_REGISTERS_MAX,
    READ_WRITE,
    READ_WRITE_READ_MAX,
    READ_WRITE_WRITE_MAX,
    WRITE_BITS_MAX,
    WRITE_MULTIPLE,
    WRITE_REGISTERS_MAX,
    ExceptionCode,
    FunctionCode,
    Table,
    exception_response,
)
from drivers.modbus.wire.pdu_files import FIFO_MAX, parse_read, parse_write
from drivers.modbus.wire.pdu_identity import Identity
from gateway.core.errors import LocalProtocolError


class Open(NamedTuple):
    """The answer waits for a write's outcome; `conclude(refusal)` makes it."""

    token: object
    conclude: Callable[[ExceptionCode | None], bytes]


Reply: TypeAlias = bytes | Open
Custom: TypeAlias = Callable[[int, bytes], bytes | ExceptionCode]
"""(unit, what follows the function code) → what follows it in the answer, 252 bytes at most."""
_Handler: TypeAlias = Callable[[int, bytes], Reply]

_TABLES: Final = (None, *Table)  # by function code
_ADDRESS, _VALUE = ExceptionCode.ILLEGAL_DATA_ADDRESS, ExceptionCode.ILLEGAL_DATA_VALUE
# Functions that only write, and so may be broadcast (Serial Line V1.02 §2.1: "necessarily writing commands").
_BROADCAST: Final = frozenset(
    {
        FunctionCode.WRITE_SINGLE_COIL,
        FunctionCode.WRITE_SINGLE_REGISTER,
        FunctionCode.WRITE_MULTIPLE_COILS,
        FunctionCode.WRITE_MULTIPLE_REGISTERS,
        FunctionCode.WRITE_FILE_RECORD,
        FunctionCode.MASK_WRITE_REGISTER,
    }
)


class Answers(Protocol):
    """What stands behind a server session: a `Responder`, or something in front of one."""

    @property
    def model(self) -> DataModel:
        """Whose data they are."""
        ...

    def answer(self, unit: int, pdu: bytes) -> Reply | None:
        """The answer to a request for a unit that is served; None for none at all."""
        ...

    def may_broadcast(self, pdu: bytes) -> bool:
        """Whether a request only writes, and so may go to all units at once."""
        ...

    def may_write(self, pdu: bytes) -> bool:
        """Whether a request may change something."""
        ...


class Responder:
    """Answers for all units of one data model; one serves any number of connections.

    Functions whose part is not given are refused as illegal. Functions 7 and 17 are the standard's for serial
    lines only; where they are provided they are answered everywhere.
    """

    def __init__(
        self,
        model: DataModel,
        *,
        identity: Identity | None = None,
        files: Files | None = None,
        queues: Queues | None = None,
        exception_status: Callable[[int], int | ExceptionCode] | None = None,
        custom: Mapping[int, Custom] | None = None,
    ) -> None:
        """`exception_status(unit)`: eight outputs as 0..255. `custom`: by function code, 1..127."""
        self.model: Final = model
        self._handlers: Final[dict[int, _Handler]] = {
            FunctionCode.READ_COILS: self._read_bits,
            FunctionCode.READ_DISCRETE_INPUTS: self._read_bits,
            FunctionCode.READ_HOLDING_REGISTERS: self._read_registers,
            FunctionCode.READ_INPUT_REGISTERS: self._read_registers,
            FunctionCode.WRITE_SINGLE_COIL: self._write_single_coil,
            FunctionCode.WRITE_SINGLE_REGISTER: self._write_single_register,
            FunctionCode.WRITE_MULTIPLE_COILS: self._write_multiple_coils,
            FunctionCode.WRITE_MULTIPLE_REGISTERS: self._write_multiple_registers,
            FunctionCode.MASK_WRITE_REGISTER: self._mask_write,
            FunctionCode.READ_WRITE_MULTIPLE_REGISTERS: self._read_write,
        }
        if identity is not None:
            self._handlers[FunctionCode.ENCAPSULATED_INTERFACE_TRANSPORT] = partial(_identify, identity)
            if identity.server_id:
                self._handlers[FunctionCode.REPORT_SERVER_ID] = partial(_server_id, identity.server_id)
        if files is not None:
            self._handlers[FunctionCode.READ_FILE_RECORD] = partial(_read_files, files)
            self._handlers[FunctionCode.WRITE_FILE_RECORD] = partial(_write_files, files)
        if queues is not None:
            self._handlers[FunctionCode.READ_FIFO_QUEUE] = partial(_read_queue, queues)
        if exception_status is not None:
            self._handlers[FunctionCode.READ_EXCEPTION_STATUS] = partial(_exception_status, exception_status)
        for function, execute in (custom or {}).items():
            if not 1 <= function <= 127:
                raise LocalProtocolError(f"custom function: found {function}, expected 1..127")
            self._handlers[function] = partial(_custom, execute)

    def answer(self, unit: int, pdu: bytes) -> Reply | None:
        """The answer to a request of at least one byte for a unit that is served here. Never None."""
        handler = self._handlers.get(pdu[0])
        return exception_response(pdu[0], 1) if handler is None else handler(unit, pdu)

    def may_write(self, pdu: bytes) -> bool:
        """Whether a request may change something."""
        return pdu[0] in _BROADCAST or pdu[0] == FunctionCode.READ_WRITE_MULTIPLE_REGISTERS

    def may_broadcast(self, pdu: bytes) -> bool:
        """Whether a request only writes, and so may go to all units at once."""
        return pdu[0] in _BROADCAST

    # Reads

    def _read_bits(self, unit: int, pdu: bytes) -> bytes:
        if len(pdu) != 5:
            return exception_response(pdu[0], _VALUE)
        function, start, count = ADDRESS_AND_WORD.unpack(pdu)
        if not 1 <= count <= READ_BITS_MAX:
            return exception_response(function, _VALUE)
        if start + count > ADDRESS_COUNT:
            return exception_response(function, _ADDRESS)
        data = self.model.read_bits(unit, _TABLES[function], start, count)
        return _counted(function, data, (count + 7) >> 3)

    def _read_registers(self, unit: int, pdu: bytes) -> bytes:
        if len(pdu) != 5:
            return exception_response(pdu[0], _VALUE)
        function, start, count = ADDRESS_AND_WORD.unpack(pdu)
        if not 1 <= count <= READ_REGISTERS_MAX:
            return exception_response(function, _VALUE)
        if start + count > ADDRESS_COUNT:
            return exception_response(function, _ADDRESS)
        return _counted(function, self.model.read_registers(unit, _TABLES[function], start, count), 2 * count)

    # Writes

    def _write_single_coil(self, unit: int, pdu: bytes) -> Reply:
        if len(pdu) != 5:
            return exception_response(pdu[0], _VALUE)
        function, address, state = ADDRESS_AND_WORD.unpack(pdu)
        if state not in {COIL_ON, COIL_OFF}:
            return exception_response(function, _VALUE)
        written = self.model.write_bits(unit, address, 1, b"\x01" if state else b"\x00")
        return pdu if written is None else _not_yet(pdu, written)

    def _write_single_register(self, unit: int, pdu: bytes) -> Reply:
        if len(pdu) != 5:
            return exception_response(pdu[0], _VALUE)
        written = self.model.write_registers(unit, pdu[1] << 8 | pdu[2], pdu[3:])
        return pdu if written is None else _not_yet(pdu, written)

    def _write_multiple_coils(self, unit: int, pdu: bytes) -> Reply:
        size = len(pdu) - WRITE_MULTIPLE.size
        if size < 1:
            return exception_response(pdu[0], _VALUE)
        function, start, count, data_size = WRITE_MULTIPLE.unpack_from(pdu)
        if not 1 <= count <= WRITE_BITS_MAX or not data_size == size == (count + 7) >> 3:
            return exception_response(function, _VALUE)
        if start + count > ADDRESS_COUNT:
            return exception_response(function, _ADDRESS)
        written = self.model.write_bits(unit, start, count, pdu[WRITE_MULTIPLE.size :])
        return pdu[:5] if written is None else _not_yet(pdu[:5], written)

    def _write_multiple_registers(self, unit: int, pdu: bytes) -> Reply:
        size = len(pdu) - WRITE_MULTIPLE.size
        if size < 1:
            return exception_response(pdu[0], _VALUE)
        function, start, count, data_size = WRITE_MULTIPLE.unpack_from(pdu)
        if not 1 <= count <= WRITE_REGISTERS_MAX or not data_size == size == 2 * count:
            return exception_response(function, _VALUE)
        if start + count > ADDRESS_COUNT:
            return exception_response(function, _ADDRESS)
        written = self.model.write_registers(unit, start, pdu[WRITE_MULTIPLE.size :])
        return pdu[:5] if written is None else _not_yet(pdu[:5], written)

    def _mask_write(self, unit: int, pdu: bytes) -> Reply:
        if len(pdu) != MASK_WRITE.size:
            return exception_response(pdu[0], _VALUE)
        function, address, and_mask, or_mask = MASK_WRITE.unpack(pdu)
        content = self.model.read_registers(unit, Table.HOLDING_REGISTERS, address, 1)
        if isinstance(content, ExceptionCode):
            return exception_response(function, content)
        result = (int.from_bytes(content, "big") & and_mask) | (or_mask & ~and_mask)
        written = self.model.write_registers(unit, address, result.to_bytes(2, "big"))
        return pdu if written is None else _not_yet(pdu, written)

    def _read_write(self, unit: int, pdu: bytes) -> Reply:
        size = len(pdu) - READ_WRITE.size
        if size < 1:
            return exception_response(pdu[0], _VALUE)
        function, start, count, write_start, write_count, data_size = READ_WRITE.unpack_from(pdu)
        if (
            not 1 <= count <= READ_WRITE_READ_MAX
            or not 1 <= write_count <= READ_WRITE_WRITE_MAX
            or not data_size == size == 2 * write_count
        ):
            return exception_response(function, _VALUE)
        if start + count > ADDRESS_COUNT or write_start + write_count > ADDRESS_COUNT:
            return exception_response(function, _ADDRESS)
        # Figure 27: both spans are checked before anything is written.
        content = self.model.read_registers(unit, Table.HOLDING_REGISTERS, start, count)
        if isinstance(content, ExceptionCode):
            return exception_response(function, content)
        written = self.model.write_registers(unit, write_start, pdu[READ_WRITE.size :])
        read = partial(self._read_written, unit, start, count)
        return read(None) if written is None else _pending(function, written, read)

    def _read_written(self, unit: int, start: int, count: int, refusal: ExceptionCode | None) -> bytes:
        function = FunctionCode.READ_WRITE_MULTIPLE_REGISTERS
        if refusal is not None:
            return exception_response(function, refusal)
        data = self.model.read_registers(unit, Table.HOLDING_REGISTERS, start, count)
        return _counted(function, data, 2 * count)


def _counted(function: int, data: bytes | ExceptionCode, size: int) -> bytes:
    """Function, byte count and data; or the exception."""
    if isinstance(data, ExceptionCode):
        return exception_response(function, data)
    if len(data) != size:
        raise LocalProtocolError(f"data model, function {function}: {len(data)} bytes, expected {size}")
    return bytes((function, size)) + data


def _not_yet(echo: bytes, written: ExceptionCode | Later) -> Reply:
    return _pending(echo[0], written, partial(_echoed, echo))


def _pending(
    function: int, written: ExceptionCode | Later, conclude: Callable[[ExceptionCode | None], bytes]
) -> Reply:
    if isinstance(written, Later):
        return Open(written.token, conclude)
    return exception_response(function, written)


def _echoed(echo: bytes, refusal: ExceptionCode | None) -> bytes:
    return echo if refusal is None else exception_response(echo[0], refusal)


# --- functions that only some servers have -----------------------------------------------------------------


def _exception_status(status: Callable[[int], int | ExceptionCode], unit: int, pdu: bytes) -> bytes:
    found = status(unit) if len(pdu) == 1 else _VALUE
    if isinstance(found, ExceptionCode):
        return exception_response(pdu[0], found)
    return bytes((pdu[0], found))


def _server_id(data: bytes, _unit: int, pdu: bytes) -> bytes:
    if len(pdu) != 1:
        return exception_response(pdu[0], _VALUE)
    return bytes((pdu[0], len(data))) + data


def _identify(identity: Identity, _unit: int, pdu: bytes) -> bytes:
    if len(pdu) < 2 or pdu[1] != DEVICE_IDENTIFICATION:
        return exception_response(pdu[0], ExceptionCode.ILLEGAL_FUNCTION)
    answer = identity.answer(pdu)
    return exception_response(pdu[0], answer) if isinstance(answer, ExceptionCode) else answer


def _read_files(files: Files, unit: int, pdu: bytes) -> bytes:
    spans = parse_read(pdu)
    if isinstance(spans, ExceptionCode):
        return exception_response(pdu[0], spans)
    parts: list[bytes] = []
    for file, record, count in spans:
        data = files.read_file(unit, file, record, count)
        if isinstance(data, ExceptionCode):
            return exception_response(pdu[0], data)
        if len(data) != 2 * count:
            raise LocalProtocolError(f"file {file} record {record}: {len(data)} bytes, expected {2 * count}")
        parts += (bytes((len(data) + 1, 6)), data)
    body = b"".join(parts)
    return bytes((pdu[0], len(body))) + body


def _write_files(files: Files, unit: int, pdu: bytes) -> bytes:
    records = parse_write(pdu)
    refusal = records if isinstance(records, ExceptionCode) else files.write_files(unit, records)
    return pdu if refusal is None else exception_response(pdu[0], refusal)


def _read_queue(queues: Queues, unit: int, pdu: bytes) -> bytes:
    data = queues.read_queue(unit, pdu[1] << 8 | pdu[2]) if len(pdu) == 3 else _VALUE
    if not isinstance(data, ExceptionCode) and len(data) > 2 * FIFO_MAX:
        data = _VALUE  # clause 6.18: "If the queue count exceeds 31"
    if isinstance(data, ExceptionCode):
        return exception_response(pdu[0], data)
    size, count = len(data) + 2, len(data) // 2
    return bytes((pdu[0], size >> 8, size & 0xFF, 0, count)) + data


def _custom(execute: Custom, unit: int, pdu: bytes) -> bytes:
    data = execute(unit, pdu[1:])
    if isinstance(data, ExceptionCode):
        return exception_response(pdu[0], data)
    if len(data) >= PDU_SIZE_MAX:
        raise LocalProtocolError(f"function {pdu[0]}: {len(data)} bytes, expected 0..{PDU_SIZE_MAX - 1}")
    return pdu[:1] + data
