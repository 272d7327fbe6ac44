"""Protocol data units: what the function codes look like, both ways, without any header.

Numbers and names: MODBUS Application Protocol Specification V1.1b3, clause 6 (function codes), clause 7
(exception codes). All multi-byte numbers are big-endian (clause 4.2), addresses count from 0 (clause 4.4).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from gateway.core.errors import LocalProtocolError

PDU_SIZE_MAX: Final = 253  # bytes, clause 4.1
ADDRESS_COUNT: Final = 0x10000  # data items in each table, clause 4.3
READ_BITS_MAX: Final = 2000  # clauses 6.1, 6.2
READ_REGISTERS_MAX: Final = 125  # clauses 6.3, 6.4
WRITE_BITS_MAX: Final = 1968  # 0x07B0, clause 6.11
WRITE_REGISTERS_MAX: Final = 123  # 0x7B, clause 6.12
EXCEPTION_FLAG: Final = 0x80  # set in the function code of an exception response, clause 7
COIL_ON: Final = 0xFF00  # clause 6.5
COIL_OFF: Final = 0x0000

ADDRESS_AND_WORD: Final = struct.Struct(">BHH")
_WRITE_MULTIPLE: Final = struct.Struct(">BHHB")
_MASK_WRITE: Final = struct.Struct(">BHHH")


class FunctionCode(enum.IntEnum):
    """The public function codes spoken here, clause 5.1."""

    READ_COILS = 1
    READ_DISCRETE_INPUTS = 2
    READ_HOLDING_REGISTERS = 3
    READ_INPUT_REGISTERS = 4
    WRITE_SINGLE_COIL = 5
    WRITE_SINGLE_REGISTER = 6
    WRITE_MULTIPLE_COILS = 15
    WRITE_MULTIPLE_REGISTERS = 16
    MASK_WRITE_REGISTER = 22


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
    _check_span(start, count, table.read_max)
    return ADDRESS_AND_WORD.pack(table, start, count)


def write_single_coil(address: int, *, on: bool) -> bytes:
    """Request to switch one coil: clause 6.5."""
    _check_span(address, 1, 1)
    return ADDRESS_AND_WORD.pack(FunctionCode.WRITE_SINGLE_COIL, address, COIL_ON if on else COIL_OFF)


def write_single_register(address: int, value: int) -> bytes:
    """Request to write one register, 0..65535: clause 6.6."""
    _check_span(address, 1, 1)
    _check_word("register value", value)
    return ADDRESS_AND_WORD.pack(FunctionCode.WRITE_SINGLE_REGISTER, address, value)


def write_multiple_coils(start: int, bits: Iterable[bool]) -> bytes:
    """Request to write 1..1968 coils: clause 6.11."""
    states = tuple(bits)
    _check_span(start, len(states), WRITE_BITS_MAX)
    data = pack_bits(states)
    function = FunctionCode.WRITE_MULTIPLE_COILS
    return _WRITE_MULTIPLE.pack(function, start, len(states), len(data)) + data


def write_multiple_registers(start: int, data: bytes) -> bytes:
    """Request to write 1..123 registers, given as their bytes in wire order: clause 6.12."""
    count, odd = divmod(len(data), 2)
    if odd:
        raise LocalProtocolError(f"registers to write: found {len(data)} bytes, expected two for each")
    _check_span(start, count, WRITE_REGISTERS_MAX)
    return _WRITE_MULTIPLE.pack(FunctionCode.WRITE_MULTIPLE_REGISTERS, start, count, len(data)) + data


def mask_write_register(address: int, *, and_mask: int, or_mask: int) -> bytes:
    """Request to make a register (content AND and_mask) OR (or_mask AND NOT and_mask): clause 6.16."""
    _check_span(address, 1, 1)
    _check_word("and_mask", and_mask)
    _check_word("or_mask", or_mask)
    return _MASK_WRITE.pack(FunctionCode.MASK_WRITE_REGISTER, address, and_mask, or_mask)


def _check_span(start: int, count: int, count_max: int) -> None:
    if not 1 <= count <= count_max:
        raise LocalProtocolError(f"count: found {count}, expected 1..{count_max}")
    if not 0 <= start <= ADDRESS_COUNT - count:
        raise LocalProtocolError(f"address: found {start} with count {count}, expected all within 0..65535")


def _check_word(what: str, value: int) -> None:
    if not 0 <= value <= 0xFFFF:
        raise LocalProtocolError(f"{what}: found {value}, expected 0..65535")


# --- responses, expected by a client -----------------------------------------------------------------------


def response_head(request: bytes) -> tuple[bytes, int]:
    """What a good answer to a request begins with, and its size: (first bytes of the PDU, PDU bytes).

    For a read the head is function and byte count, and the data follow; for a write it is the whole answer,
    an echo of what was written (clauses 6.5, 6.6, 6.16) or of where (clauses 6.11, 6.12).
    """
    function = request[0] if request else 0
    size = len(request)
    if size == 5 and function <= 4:
        count = request[3] << 8 | request[4]
        data_size = (count + 7) >> 3 if function <= 2 else count << 1
        if data_size <= PDU_SIZE_MAX - 2:
            return bytes((function, data_size)), 2 + data_size
    elif (size == 5 and function <= 6) or (size == 7 and function == FunctionCode.MASK_WRITE_REGISTER):
        return request, size
    elif 7 <= size <= PDU_SIZE_MAX and function in _MULTIPLE and request[5] == size - 6:
        return request[:5], 5
    raise LocalProtocolError(f"request {request.hex()}: expected a PDU built by this module")


_MULTIPLE: Final = frozenset({FunctionCode.WRITE_MULTIPLE_COILS, FunctionCode.WRITE_MULTIPLE_REGISTERS})


# --- requests, parsed by a server --------------------------------------------------------------------------


class ReadRequest(NamedTuple):
    """Function codes 1 to 4; the counts are within the standard's limits."""

    table: Table
    start: int
    quantity: int


class WriteBits(NamedTuple):
    """Function codes 5 and 15. `data`: bits packed from the least significant one."""

    function: FunctionCode
    start: int
    quantity: int
    data: bytes


class WriteRegisters(NamedTuple):
    """Function codes 6 and 16. `data`: two bytes for each register."""

    function: FunctionCode
    start: int
    data: bytes


class MaskWrite(NamedTuple):
    """Function code 22."""

    start: int
    and_mask: int
    or_mask: int


Request = ReadRequest | WriteBits | WriteRegisters | MaskWrite


def parse_request(pdu: bytes) -> Request | ExceptionCode:
    """Understand a request, or say with which exception it is to be refused.

    In the order of the standard's state diagrams: function (1), counts, sizes and values (3), address (2).
    """
    function = pdu[0] if pdu else 0
    if function <= 4:
        return _parse_read(pdu) if function else ExceptionCode.ILLEGAL_FUNCTION
    if function == FunctionCode.WRITE_SINGLE_COIL:
        return _parse_write_single_coil(pdu)
    if function == FunctionCode.WRITE_SINGLE_REGISTER:
        if len(pdu) != 5:
            return ExceptionCode.ILLEGAL_DATA_VALUE
        return WriteRegisters(FunctionCode.WRITE_SINGLE_REGISTER, pdu[1] << 8 | pdu[2], pdu[3:])
    if function in _MULTIPLE:
        return _parse_write_multiple(pdu)
    if function == FunctionCode.MASK_WRITE_REGISTER:
        return MaskWrite(*_MASK_WRITE.unpack(pdu)[1:]) if len(pdu) == 7 else ExceptionCode.ILLEGAL_DATA_VALUE
    return ExceptionCode.ILLEGAL_FUNCTION


def _parse_read(pdu: bytes) -> ReadRequest | ExceptionCode:
    if len(pdu) != 5:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    function, start, count = ADDRESS_AND_WORD.unpack(pdu)
    table = Table(function)
    if not 1 <= count <= table.read_max:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    if start + count > ADDRESS_COUNT:
        return ExceptionCode.ILLEGAL_DATA_ADDRESS
    return ReadRequest(table, start, count)


def _parse_write_single_coil(pdu: bytes) -> WriteBits | ExceptionCode:
    if len(pdu) != 5:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    _, address, state = ADDRESS_AND_WORD.unpack(pdu)
    if state not in {COIL_ON, COIL_OFF}:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    return WriteBits(FunctionCode.WRITE_SINGLE_COIL, address, 1, b"\x01" if state else b"\x00")


def _parse_write_multiple(pdu: bytes) -> WriteBits | WriteRegisters | ExceptionCode:
    if len(pdu) < _WRITE_MULTIPLE.size:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    function, start, count, data_size = _WRITE_MULTIPLE.unpack_from(pdu)
    data = pdu[_WRITE_MULTIPLE.size :]
    bits = function == FunctionCode.WRITE_MULTIPLE_COILS
    expected_size = (count + 7) // 8 if bits else count * 2
    count_max = WRITE_BITS_MAX if bits else WRITE_REGISTERS_MAX
    if not 1 <= count <= count_max or not data_size == expected_size == len(data):
        return ExceptionCode.ILLEGAL_DATA_VALUE
    if start + count > ADDRESS_COUNT:
        return ExceptionCode.ILLEGAL_DATA_ADDRESS
    if bits:
        return WriteBits(FunctionCode.WRITE_MULTIPLE_COILS, start, count, data)
    return WriteRegisters(FunctionCode.WRITE_MULTIPLE_REGISTERS, start, data)


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
