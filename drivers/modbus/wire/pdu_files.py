"""File records (20, 21) and FIFO queues (24), both ways.

MODBUS Application Protocol Specification V1.1b3, clauses 6.14, 6.15 and 6.18.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from drivers.modbus.wire.pdu import PDU_SIZE_MAX, ExceptionCode, FunctionCode
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

FILE_MAX: Final = 0xFFFF  # files count from 1; above 10 old devices may not follow (clause 6.14)
RECORD_COUNT: Final = 10_000  # records 0..9999 in each file
REFERENCE_TYPE: Final = 6
READ_BYTES_MAX: Final = 0xF5  # byte count of a read request: 35 sub-requests
WRITE_BYTES_MAX: Final = 0xFB  # byte count of a write request
FIFO_MAX: Final = 31  # registers in a queue, clause 6.18
_SUB_REQUEST: Final = struct.Struct(">BHHH")
_WORD: Final = struct.Struct(">H")
_DATA_SIZE_MAX: Final = PDU_SIZE_MAX - 2


class FileSpan(NamedTuple):
    """Some registers of a file: `record` is where they begin, 0..9999, `registers` how many they are."""

    file: int
    record: int
    registers: int


class FileRecord(NamedTuple):
    """Registers for a file from `record` on, two bytes each."""

    file: int
    record: int
    data: bytes


def read_file_record(spans: Sequence[FileSpan]) -> bytes:
    """Request to read 1..35 spans, as many as their answer has room for: clause 6.14."""
    for span in spans:
        _check_file(span.file, span.record, span.registers)
    answer_size = sum(2 + 2 * span.registers for span in spans)
    size = len(spans) * _SUB_REQUEST.size
    if not spans or size > READ_BYTES_MAX or answer_size > _DATA_SIZE_MAX:
        raise LocalProtocolError(
            f"file spans: found {len(spans)} with an answer of {answer_size} bytes, "
            f"expected 1..35 with {_DATA_SIZE_MAX} bytes at most: 2 for each and 2 for each register"
        )
    parts = [_SUB_REQUEST.pack(REFERENCE_TYPE, *span) for span in spans]
    return bytes((FunctionCode.READ_FILE_RECORD, size)) + b"".join(parts)


def write_file_record(records: Sequence[FileRecord]) -> bytes:
    """Request to write records, as many as the PDU has room for: clause 6.15."""
    parts: list[bytes] = []
    for file, record, data in records:
        if len(data) % 2:
            raise LocalProtocolError(f"file {file} record {record}: found {len(data)} bytes, expected pairs")
        _check_file(file, record, len(data) // 2)
        parts += (_SUB_REQUEST.pack(REFERENCE_TYPE, file, record, len(data) // 2), data)
    body = b"".join(parts)
    if not body or len(body) > WRITE_BYTES_MAX:
        raise LocalProtocolError(
            f"file records: found {len(body)} bytes, expected 9..{WRITE_BYTES_MAX}: 7 for each and their data"
        )
    return bytes((FunctionCode.WRITE_FILE_RECORD, len(body))) + body


def read_fifo_queue(address: int) -> bytes:
    """Request for the content of the queue at `address`, which stays as it is: clause 6.18."""
    if not 0 <= address <= 0xFFFF:
        raise LocalProtocolError(f"FIFO pointer address: found {address}, expected 0..65535")
    return bytes((FunctionCode.READ_FIFO_QUEUE,)) + _WORD.pack(address)


def _check_file(file: int, record: int, count: int) -> None:
    if not 1 <= file <= FILE_MAX:
        raise LocalProtocolError(f"file: found {file}, expected 1..{FILE_MAX}")
    if record < 0 or count < 1 or record + count > RECORD_COUNT:
        raise LocalProtocolError(
            f"file {file}: found record {record} with {count} registers, expected 1 or more within 0..9999"
        )


# --- answers -----------------------------------------------------------------------------------------------


def file_records(request: bytes, data: bytes) -> tuple[bytes, ...]:
    """The registers of each span asked for; `data` is what follows function and length of the answer.

    Raises `RemoteProtocolError` when a part has not the length that was asked for, or another reference type.
    """
    found: list[bytes] = []
    at = 0
    for number, (_, _, count) in enumerate(_spans(request), 1):
        size = 2 * count
        head = data[at : at + 2]
        if head != bytes((size + 1, REFERENCE_TYPE)):
            raise RemoteProtocolError(
                f"file record, part {number}: found length and type {head.hex(' ') or 'nothing'}, "
                f"expected {size + 1:02x} 06"
            )
        found.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    if at != len(data):
        raise RemoteProtocolError(f"file record: found {len(data)} bytes, expected {at}")
    return tuple(found)


def fifo_queue(data: bytes) -> bytes:
    """The registers of a queue, two bytes each, the oldest first; `data` is what follows the function code.

    Raises `RemoteProtocolError` when byte count, FIFO count and length do not agree, or it is above 31.
    """
    if len(data) >= 4:
        size, count = _WORD.unpack_from(data)[0], _WORD.unpack_from(data, 2)[0]
        if size == len(data) - 2 == 2 + 2 * count and count <= FIFO_MAX:
            return data[4:]
    raise RemoteProtocolError(
        f"FIFO queue: found {len(data)} bytes {data[:4].hex(' ')}, expected a byte count of "
        f"2 + 2 * FIFO count, a FIFO count of 0..{FIFO_MAX}, and the registers"
    )


# --- requests, parsed by a server --------------------------------------------------------------------------


def parse_read(pdu: bytes) -> tuple[FileSpan, ...] | ExceptionCode:
    """Understand function 20, or say with which exception it is to be refused: clause 6.14, figure 24."""
    size = len(pdu) - 2
    if not 7 <= size <= READ_BYTES_MAX or pdu[1] != size or size % _SUB_REQUEST.size:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    if any(not _is_legal(*_SUB_REQUEST.unpack_from(pdu, at)) for at in range(2, len(pdu), _SUB_REQUEST.size)):
        return ExceptionCode.ILLEGAL_DATA_ADDRESS
    spans = _spans(pdu)
    if sum(2 + 2 * span.registers for span in spans) > _DATA_SIZE_MAX:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    return spans


def parse_write(pdu: bytes) -> tuple[FileRecord, ...] | ExceptionCode:
    """Understand function 21, or say with which exception it is to be refused: clause 6.15.

    The byte count may be 9..251 as in the clause's table; its figure 25 shows the limits of function 20.
    """
    if not 9 <= len(pdu) - 2 <= WRITE_BYTES_MAX or pdu[1] != len(pdu) - 2:
        return ExceptionCode.ILLEGAL_DATA_VALUE
    records: list[FileRecord] = []
    legal = True
    at = 2
    while at < len(pdu):
        if len(pdu) - at < _SUB_REQUEST.size:
            return ExceptionCode.ILLEGAL_DATA_VALUE
        kind, file, record, count = _SUB_REQUEST.unpack_from(pdu, at)
        at += _SUB_REQUEST.size
        data = pdu[at : at + 2 * count]
        if len(data) != 2 * count:
            return ExceptionCode.ILLEGAL_DATA_VALUE
        at += 2 * count
        legal = legal and _is_legal(kind, file, record, count)
        records.append(FileRecord(file, record, data))
    return tuple(records) if legal else ExceptionCode.ILLEGAL_DATA_ADDRESS


def _spans(request: bytes) -> tuple[FileSpan, ...]:
    return tuple(
        FileSpan(*_SUB_REQUEST.unpack_from(request, at)[1:])
        for at in range(2, len(request), _SUB_REQUEST.size)
    )


def _is_legal(kind: int, file: int, record: int, count: int) -> bool:
    return kind == REFERENCE_TYPE and file > 0 and count > 0 and record + count <= RECORD_COUNT
