"""Protocol data units of the four tables (functions 1 to 6, 15, 16, 22, 23), and what all functions share.

`pdu_line` has the functions of serial lines (7, 8, 11, 12), `pdu_identity` 17 and 43/14, `pdu_files` 20, 21
and 24. Numbers and names: MODBUS Application Protocol Specification V1.1b3, clause 6 (function codes) and
clause 7 (exception codes). Numbers are big-endian (clause 4.2), addresses count from 0 (clause 4.4).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable
from typing import Final

from gateway.core.errors import LocalProtocolError

PDU_SIZE_MAX: Final = 253  # bytes, clause 4.1
ADDRESS_COUNT: Final = 0x10000  # data items in each table, clause 4.3
READ_BITS_MAX: Final = 2000  # clauses 6.1, 6.2
READ_REGISTERS_MAX: Final = 125  # clauses 6.3, 6.4
WRITE_BITS_MAX: Final = 1968  # 0x07B0, clause 6.11
WRITE_REGISTERS_MAX: Final = 123  # 0x7B, clause 6.12
READ_WRITE_READ_MAX: Final = 125  # 0x7D, clause 6.17
READ_WRITE_WRITE_MAX: Final = 121  # 0x79, clause 6.17
EXCEPTION_FLAG: Final = 0x80  # set in the function code of an exception response, clause 7
COIL_ON: Final = 0xFF00  # clause 6.5
COIL_OFF: Final = 0x0000

ADDRESS_AND_WORD: Final = struct.Struct(">BHH")
WRITE_MULTIPLE: Final = struct.Struct(">BHHB")
MASK_WRITE: Final = struct.Struct(">BHHH")
READ_WRITE: Final = struct.Struct(">BHHHHB")


class FunctionCode(enum.IntEnum):
    """The public function codes spoken here, clause 5.1."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_HOLDING_REGISTERS = 3
    READ_INPUT_REGISTERS = 4
    WRITE_SINGLE_COIL = 5
    WRITE_SINGLE_REGISTER = 6
    READ_EXCEPTION_STATUS = 7
    DIAGNOSTICS = 8
    GET_COMM_EVENT_COUNTER = 11
    GET_COMM_EVENT_LOG = 12
    WRITE_MULTIPLE_COILS = 15
    WRITE_MULTIPLE_REGISTERS = 16
    REPORT_SERVER_ID = 17
    READ_FILE_RECORD = 20
    WRITE_FILE_RECORD = 21
    MASK_WRITE_REGISTER = 22
    READ_WRITE_MULTIPLE_REGISTERS = 23
    READ_FIFO_QUEUE = 24
    ENCAPSULATED_INTERFACE_TRANSPORT = 43


class Table(enum.IntEnum):
    """The four primary tables, clause 4.3. The number is the function code that reads the table."""

    COILS = 1
    DISCRETE_INPUTS = 2
    HOLDING_REGISTERS = 3
    INPUT_REGISTERS = 4

    @property
    def has_bits(self) -> bool:
        """Whether an item is one bit; otherwise it is a register of 16."""
        return self <= Table.DISCRETE_INPUTS

    @property
    def is_writable(self) -> bool:
        """Whether the standard knows a function that writes it."""
        return self in {Table.COILS, Table.HOLDING_REGISTERS}

    @property
    def read_max(self) -> int:
        """How many items one request may read."""
        return READ_BITS_MAX if self.has_bits else READ_REGISTERS_MAX


class ExceptionCode(enum.IntEnum):
    """Why a device refuses a request, clause 7."""

    ILLEGAL_FUNCTION = 0x01
    ILLEGAL_DATA_ADDRESS = 0x02
    ILLEGAL_DATA_VALUE = 0x03
    SERVER_DEVICE_FAILURE = 0x04
    ACKNOWLEDGE = 0x05
    SERVER_DEVICE_BUSY = 0x06
    MEMORY_PARITY_ERROR = 0x08
    GATEWAY_PATH_UNAVAILABLE = 0x0A
    GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND = 0x0B


_MEANINGS: Final = {
    ExceptionCode.ILLEGAL_FUNCTION: "illegal function: the device does not support this function code",
    ExceptionCode.ILLEGAL_DATA_ADDRESS: "illegal data address: the device has no such register or bit",
    ExceptionCode.ILLEGAL_DATA_VALUE: "illegal data value: the device does not accept the count or the value",
    ExceptionCode.SERVER_DEVICE_FAILURE: "server device failure: the device failed while it did this",
    ExceptionCode.ACKNOWLEDGE: "acknowledge: the device has begun, and needs more time",
    ExceptionCode.SERVER_DEVICE_BUSY: "server device busy: try again later",
    ExceptionCode.MEMORY_PARITY_ERROR: "memory parity error: the device's memory is damaged",
    ExceptionCode.GATEWAY_PATH_UNAVAILABLE: "gateway path unavailable: the gateway has no way to the unit",
    ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND: (
        "gateway target device failed to respond: the unit behind the gateway is silent"
    ),
}


def meaning(code: int) -> str:
    """Say an exception code in words, with its number; also a code the standard does not know."""
    try:
        return f"exception {code} ({_MEANINGS[ExceptionCode(code)]})"
    except ValueError:
        return f"exception {code} (not defined by the standard: see the device's manual)"


# --- requests, built by a client ---------------------------------------------------------------------------


def read(table: Table, *, start: int, count: int) -> bytes:
    """Request to read `count` items of a table from `start`: clauses 6.1 to 6.4."""
    check_span(start, count, table.read_max)
    return ADDRESS_AND_WORD.pack(table, start, count)


def write_single_coil(address: int, *, on: bool) -> bytes:
    """Request to switch one coil: clause 6.5."""
    check_span(address, 1, 1)
    return ADDRESS_AND_WORD.pack(FunctionCode.WRITE_SINGLE_COIL, address, COIL_ON if on else COIL_OFF)


def write_single_register(address: int, value: int) -> bytes:
    """Request to write one register, 0..65535: clause 6.6."""
    check_span(address, 1, 1)
    check_word("register value", value)
    return ADDRESS_AND_WORD.pack(FunctionCode.WRITE_SINGLE_REGISTER, address, value)


def write_multiple_coils(start: int, bits: Iterable[bool]) -> bytes:
    """Request to write 1..1968 coils: clause 6.11."""
    states = tuple(bits)
    check_span(start, len(states), WRITE_BITS_MAX)
    data = pack_bits(states)
    function = FunctionCode.WRITE_MULTIPLE_COILS
    return WRITE_MULTIPLE.pack(function, start, len(states), len(data)) + data


def write_multiple_registers(start: int, data: bytes) -> bytes:
    """Request to write 1..123 registers, given as their bytes in wire order: clause 6.12."""
    count, odd = divmod(len(data), 2)
    if odd:
        raise LocalProtocolError(f"registers to write: found {len(data)} bytes, expected two for each")
    check_span(start, count, WRITE_REGISTERS_MAX)
    return WRITE_MULTIPLE.pack(FunctionCode.WRITE_MULTIPLE_REGISTERS, start, count, len(data)) + data


def mask_write_register(address: int, *, and_mask: int, or_mask: int) -> bytes:
    """Request to make a register (content AND and_mask) OR (or_mask AND NOT and_mask): clause 6.16."""
    check_span(address, 1, 1)
    check_word("and_mask", and_mask)
    check_word("or_mask", or_mask)
    return MASK_WRITE.pack(FunctionCode.MASK_WRITE_REGISTER, address, and_mask, or_mask)


def read_write_multiple_registers(
    *, read_start: int, read_count: int, write_start: int, data: bytes
) -> bytes:
    """Request to write 1..121 holding registers, given as bytes, and then read 1..125: clause 6.17."""
    count, odd = divmod(len(data), 2)
    if odd:
        raise LocalProtocolError(f"registers to write: found {len(data)} bytes, expected two for each")
    check_span(read_start, read_count, READ_WRITE_READ_MAX)
    check_span(write_start, count, READ_WRITE_WRITE_MAX)
    function = FunctionCode.READ_WRITE_MULTIPLE_REGISTERS
    return READ_WRITE.pack(function, read_start, read_count, write_start, count, len(data)) + data


def raw(function: int, data: bytes = b"") -> bytes:
    """Request of any function, 1..127, with 0..252 bytes behind it: user defined ones (clause 5), for one.

    An answer to a function known here is checked, any other is taken as it comes.
    """
    if not 1 <= function < EXCEPTION_FLAG:
        raise LocalProtocolError(f"function: found {function}, expected 1..127")
    if len(data) >= PDU_SIZE_MAX:
        raise LocalProtocolError(f"request: found {len(data)} bytes of data, expected 0..{PDU_SIZE_MAX - 1}")
    return bytes((function,)) + data


def check_span(start: int, count: int, count_max: int) -> None:
    """Raise `LocalProtocolError` unless 1..count_max items lie within 0..65535."""
    if not 1 <= count <= count_max:
        raise LocalProtocolError(f"count: found {count}, expected 1..{count_max}")
    if not 0 <= start <= ADDRESS_COUNT - count:
        raise LocalProtocolError(f"address: found {start} with count {count}, expected all within 0..65535")


def check_word(what: str, value: int) -> None:
    """Raise `LocalProtocolError` unless the value fits a register."""
    if not 0 <= value <= 0xFFFF:
        raise LocalProtocolError(f"{what}: found {value}, expected 0..65535")


# --- responses, expected by a client -----------------------------------------------------------------------


def response_head(request: bytes) -> tuple[bytes, int]:
    """What a good answer to a request begins with, and its size: (first bytes of the PDU, PDU bytes).

    For a read the head is function and byte count, and the data follow; for most writes it is the whole
    answer, an echo of what was written (clauses 6.5, 6.6, 6.15, 6.16) or of where (clauses 6.11, 6.12). The
    size is 0 where the device chooses it: `pdu_answer.fault_of` checks such an answer.
    """
    function = request[0] if request else 0
    size = len(request)
    if size == 5 and function <= 4:
        count = request[3] << 8 | request[4]
        data_size = (count + 7) >> 3 if function <= 2 else count << 1
        if 0 < data_size <= PDU_SIZE_MAX - 2:
            return bytes((function, data_size)), 2 + data_size
    elif (size == 5 and 4 < function <= 6) or (size == 7 and function == FunctionCode.MASK_WRITE_REGISTER):
        return request, size
    elif 7 <= size <= PDU_SIZE_MAX and function in _MULTIPLE:
        if request[5] == size - 6:
            return request[:5], 5
    elif function in _OTHERS and size <= PDU_SIZE_MAX:
        head, answer_size = _OTHERS[function](request)
        if head:
            return head, answer_size
    elif 0 < function < EXCEPTION_FLAG and function not in _KNOWN and size <= PDU_SIZE_MAX:
        return request[:1], 0
    raise LocalProtocolError(f"request {request.hex()}: expected a PDU built by this module")


_KNOWN: Final = frozenset(FunctionCode)
_MULTIPLE: Final = frozenset({FunctionCode.WRITE_MULTIPLE_COILS, FunctionCode.WRITE_MULTIPLE_REGISTERS})
_NONE: Final = (b"", 0)
# Diagnostics whose answer is the request again, clause 6.8.1; after 4 none comes at all.
ECHOED_DIAGNOSTICS: Final = frozenset({0, 1, 3, 4, 10, 20})


def _alone(answer_size: int) -> Callable[[bytes], tuple[bytes, int]]:
    """Functions without any request data: clauses 6.7, 6.9, 6.10, 6.13."""
    return lambda request: (request, answer_size) if len(request) == 1 else _NONE


def _diagnostics_head(request: bytes) -> tuple[bytes, int]:
    if len(request) < 3 or len(request) % 2 == 0:
        return _NONE
    if request[1] << 8 | request[2] in ECHOED_DIAGNOSTICS:
        return request, len(request)
    return (request[:3], 5) if len(request) == 5 else _NONE


def _read_file_head(request: bytes) -> tuple[bytes, int]:
    if len(request) < 9 or request[1] != len(request) - 2 or request[1] % 7:
        return _NONE
    size = sum(2 + 2 * (request[at] << 8 | request[at + 1]) for at in range(7, len(request), 7))
    return (bytes((request[0], size)), 0) if size <= PDU_SIZE_MAX - 2 else _NONE


def _write_file_head(request: bytes) -> tuple[bytes, int]:
    return (request, len(request)) if len(request) > 10 and request[1] == len(request) - 2 else _NONE


def _read_write_head(request: bytes) -> tuple[bytes, int]:
    if len(request) < READ_WRITE.size + 2 or request[9] != len(request) - READ_WRITE.size:
        return _NONE
    data_size = (request[3] << 8 | request[4]) * 2
    return (bytes((request[0], data_size)), 2 + data_size) if data_size <= PDU_SIZE_MAX - 2 else _NONE


def _transport_head(request: bytes) -> tuple[bytes, int]:
    if len(request) < 2:
        return _NONE
    return (request[: 3 if request[1] == DEVICE_IDENTIFICATION else 2], 0)


DEVICE_IDENTIFICATION: Final = 14  # MEI type, clause 6.21
_OTHERS: Final[dict[int, Callable[[bytes], tuple[bytes, int]]]] = {
    FunctionCode.READ_EXCEPTION_STATUS: _alone(2),
    FunctionCode.DIAGNOSTICS: _diagnostics_head,
    FunctionCode.GET_COMM_EVENT_COUNTER: _alone(5),
    FunctionCode.GET_COMM_EVENT_LOG: _alone(0),
    FunctionCode.REPORT_SERVER_ID: _alone(0),
    FunctionCode.READ_FILE_RECORD: _read_file_head,
    FunctionCode.WRITE_FILE_RECORD: _write_file_head,
    FunctionCode.READ_WRITE_MULTIPLE_REGISTERS: _read_write_head,
    FunctionCode.READ_FIFO_QUEUE: lambda request: (request[:1], 0) if len(request) == 3 else _NONE,
    FunctionCode.ENCAPSULATED_INTERFACE_TRANSPORT: _transport_head,
}


def exception_response(function: int, code: int) -> bytes:
    """The answer that refuses a request: clause 7."""
    return bytes((function | EXCEPTION_FLAG, code))


# --- bits --------------------------------------------------------------------------------------------------


def pack_bits(bits: Iterable[bool]) -> bytes:
    """Bits as bytes, the first one least significant, the last byte filled with zeros: clause 6.1."""
    number = count = 0
    for count, bit in enumerate(bits, 1):
        number |= bool(bit) << (count - 1)
    return number.to_bytes((count + 7) // 8, "little")


def unpack_bits(data: bytes, count: int) -> tuple[bool, ...]:
    """The first `count` bits of packed bytes."""
    number = int.from_bytes(data, "little")
    return tuple(number >> position & 1 == 1 for position in range(count))
