"""Requests and answers in words, for people who look at a wire: the frame log, probes, errors.

Addresses are those on the wire, counted from 0. Any bytes at all have words; what is no PDU of its function
is shown as such. Terms: MODBUS Application Protocol Specification V1.1b3, clause 6.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from drivers.modbus.wire.pdu import (
    ADDRESS_AND_WORD,
    COIL_OFF,
    COIL_ON,
    DEVICE_IDENTIFICATION,
    EXCEPTION_FLAG,
    MASK_WRITE,
    READ_WRITE,
    WRITE_MULTIPLE,
    FunctionCode,
    Table,
    meaning,
    response_head,
    unpack_bits,
)
from drivers.modbus.wire.pdu_files import (
    FileRecord,
    FileSpan,
    fifo_queue,
    file_records,
    parse_read,
    parse_write,
)
from drivers.modbus.wire.pdu_identity import OBJECT_NAMES, device_identification, server_id
from drivers.modbus.wire.pdu_line import STATUS_BUSY, Diagnostic, event_counter, event_log, event_words
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

WORDS_SHOWN_MAX: Final = 32  # registers of one frame; more are counted
BITS_SHOWN_MAX: Final = 64
BYTES_SHOWN_MAX: Final = 64
EVENTS_SHOWN_MAX: Final = 8
_F = FunctionCode
_TABLES: Final = {table: table.name.lower().replace("_", " ") for table in Table}
_STREAMS: Final = {1: "basic", 2: "regular", 3: "extended", 4: "one object"}


def request_words(pdu: bytes) -> str:
    """A request: `read holding registers 100..109`."""
    if not pdu:
        return "nothing"
    describe = _REQUESTS.get(pdu[0])
    if describe is not None:
        try:
            return describe(pdu)
        except (struct.error, IndexError, ValueError):
            return f"{_name(pdu[0])}, but malformed: {_bytes(pdu[1:]) or 'nothing more'}"
    return f"{_name(pdu[0])}: {_bytes(pdu[1:])}" if len(pdu) > 1 else _name(pdu[0])


def response_words(pdu: bytes, request: bytes = b"") -> str:
    """An answer: `10 registers 0001 0002 …`, or what it refuses and why. With its request it can say more."""
    if not pdu:
        return "nothing"
    if pdu[0] & EXCEPTION_FLAG:
        what = f"{_name(pdu[0] & ~EXCEPTION_FLAG)} refused"
        return f"{what}: {meaning(pdu[1])}" if len(pdu) == 2 else f"{what}, but malformed: {_bytes(pdu[1:])}"
    if request and pdu[0] != request[0]:
        return f"an answer of another function, {_name(pdu[0])}: {_bytes(pdu[1:])}"
    describe = _RESPONSES.get(pdu[0])
    try:
        if describe is not None:
            return describe(pdu, request)
    except (struct.error, IndexError, ValueError, LocalProtocolError, RemoteProtocolError):
        return f"{_name(pdu[0])}, but malformed: {_bytes(pdu[1:]) or 'nothing more'}"
    return f"{_name(pdu[0])}: {_bytes(pdu[1:])}" if len(pdu) > 1 else _name(pdu[0])


def exchange_words(unit: int, request: bytes, response: bytes | None) -> str:
    """Both: `unit 1 read holding registers 100..109 → 10 registers 0001 …`; no answer where there is none."""
    answer = "no answer" if response is None else response_words(response, request)
    return f"unit {unit} {request_words(request)} → {answer}"


def frame_words(way: str, unit: int, pdu: bytes, request: bytes | None, note: str) -> tuple[str, str]:
    """For the frame log: the frame's digits, and its words. `request`: None for a request itself."""
    digits = bytes((unit,)).hex() + " " + pdu.hex()
    if way == "fault":
        return digits if pdu else "", f"unit {unit} {request_words(pdu)}: {note}" if pdu else note
    words = f" {request_words(pdu)}" if request is None else f": {response_words(pdu, request)}"
    return digits, f"unit {unit}{words}" + (f" ({note})" if note else "")


# --- parts -------------------------------------------------------------------------------------------------


def _name(function: int) -> str:
    try:
        return (
            FunctionCode(function)
            .name.lower()
            .replace("_", " ")
            .replace(" id", " ID")
            .replace("fifo", "FIFO")
        )
    except ValueError:
        return f"function {function}"


def _span(start: int, count: int) -> str:
    return f"{start}" if count == 1 else f"{start}..{start + count - 1}" if count else f"{start}, none"


def _words(data: bytes) -> str:
    if len(data) % 2:
        raise ValueError("half a register")
    shown = data[: 2 * WORDS_SHOWN_MAX].hex(" ", 2)
    more = len(data) // 2 - WORDS_SHOWN_MAX
    return f"{shown} … {more} more" if more > 0 else shown


def _bits(data: bytes, count: int) -> str:
    if len(data) != (count + 7) // 8:
        raise ValueError("bits and bytes differ")
    shown = "".join("01"[bit] for bit in unpack_bits(data, min(count, BITS_SHOWN_MAX)))
    groups = " ".join(shown[at : at + 8] for at in range(0, len(shown), 8))
    return f"{groups} … {count - BITS_SHOWN_MAX} more" if count > BITS_SHOWN_MAX else groups


def _bytes(data: bytes) -> str:
    shown = data[:BYTES_SHOWN_MAX].hex(" ")
    more = len(data) - BYTES_SHOWN_MAX
    return f"{shown} … {more} more" if more > 0 else shown


def _text(data: bytes) -> str:
    """ASCII as text, all else as digits."""
    return (
        f'"{data.decode("ascii")}"' if data.isascii() and data.decode("ascii").isprintable() else _bytes(data)
    )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _exactly(pdu: bytes, size: int) -> None:
    if len(pdu) != size:
        raise ValueError("another length")


# --- requests ----------------------------------------------------------------------------------------------


def _read(pdu: bytes) -> str:
    function, start, count = ADDRESS_AND_WORD.unpack(pdu)
    return f"read {_TABLES[Table(function)]} {_span(start, count)}"


def _write_coil(pdu: bytes) -> str:
    _, address, state = ADDRESS_AND_WORD.unpack(pdu)
    return f"write coil {address} " + {COIL_ON: "on", COIL_OFF: "off"}.get(
        state, f"neither on nor off: {state:04x}"
    )


def _write_register(pdu: bytes) -> str:
    _, address, value = ADDRESS_AND_WORD.unpack(pdu)
    return f"write register {address} = {value:04x}"


def _write_coils(pdu: bytes) -> str:
    _, start, count, size = WRITE_MULTIPLE.unpack_from(pdu)
    _exactly(pdu, WRITE_MULTIPLE.size + size)
    return f"write coils {_span(start, count)} = {_bits(pdu[WRITE_MULTIPLE.size :], count)}"


def _write_registers(pdu: bytes) -> str:
    _, start, count, size = WRITE_MULTIPLE.unpack_from(pdu)
    _exactly(pdu, WRITE_MULTIPLE.size + size)
    return f"write registers {_span(start, count)} = {_words(pdu[WRITE_MULTIPLE.size :])}"


def _mask_write(pdu: bytes) -> str:
    _, address, and_mask, or_mask = MASK_WRITE.unpack(pdu)
    return f"mask write register {address}: and {and_mask:04x}, or {or_mask:04x}"


def _read_write(pdu: bytes) -> str:
    _, start, count, write_start, write_count, size = READ_WRITE.unpack_from(pdu)
    _exactly(pdu, READ_WRITE.size + size)
    written = f"write registers {_span(write_start, write_count)} = {_words(pdu[READ_WRITE.size :])}"
    return f"{written}, then read {_span(start, count)}"


def _diagnostic_name(pdu: bytes) -> str:
    number = pdu[1] << 8 | pdu[2]
    try:
        return (
            Diagnostic(number).name.lower().replace("_", " ").replace("ascii", "ASCII").replace("nak", "NAK")
        )
    except ValueError:
        return f"sub-function {number}"


def _diagnose(pdu: bytes) -> str:
    return f"diagnostics: {_diagnostic_name(pdu)} {_bytes(pdu[3:])}".rstrip()


def _files(parts: tuple[FileSpan, ...] | tuple[FileRecord, ...] | int) -> str:
    if isinstance(parts, int):
        raise ValueError("refused")
    texts: list[str] = []
    for part in parts:
        if isinstance(part, FileSpan):
            texts.append(f"file {part.file} records {_span(part.record, part.registers)}")
        else:
            span = _span(part.record, len(part.data) // 2)
            texts.append(f"file {part.file} records {span} = {_words(part.data)}")
    return ", ".join(texts)


def _read_queue(pdu: bytes) -> str:
    _exactly(pdu, 3)
    return f"read FIFO queue {pdu[1] << 8 | pdu[2]}"


def _identify(pdu: bytes) -> str:
    if pdu[1] != DEVICE_IDENTIFICATION:
        return f"encapsulated interface transport, MEI type {pdu[1]}: {_bytes(pdu[2:])}"
    _exactly(pdu, 4)
    stream = _STREAMS.get(pdu[2], f"code {pdu[2]}")
    return f"read device identification, {stream}, from object {pdu[3]}"


_REQUESTS: Final[dict[int, Callable[[bytes], str]]] = {
    **dict.fromkeys(tuple(Table), _read),
    _F.WRITE_SINGLE_COIL: _write_coil,
    _F.WRITE_SINGLE_REGISTER: _write_register,
    _F.DIAGNOSTICS: _diagnose,
    _F.WRITE_MULTIPLE_COILS: _write_coils,
    _F.WRITE_MULTIPLE_REGISTERS: _write_registers,
    _F.READ_FILE_RECORD: lambda pdu: f"read {_files(parse_read(pdu))}",
    _F.WRITE_FILE_RECORD: lambda pdu: f"write {_files(parse_write(pdu))}",
    _F.MASK_WRITE_REGISTER: _mask_write,
    _F.READ_WRITE_MULTIPLE_REGISTERS: _read_write,
    _F.READ_FIFO_QUEUE: _read_queue,
    _F.ENCAPSULATED_INTERFACE_TRANSPORT: _identify,
}


# --- responses ---------------------------------------------------------------------------------------------


def _registers(data: bytes) -> str:
    return f"{_counted(len(data) // 2, 'register')} {_words(data)}"


def _read_answer(pdu: bytes, request: bytes) -> str:
    _exactly(pdu, 2 + pdu[1])
    if request and len(pdu) != response_head(request)[1]:
        raise ValueError("another count than asked for")
    data = pdu[2:]
    if pdu[0] > Table.DISCRETE_INPUTS:
        return _registers(data)
    count = request[3] << 8 | request[4] if request else 8 * len(data)
    return f"{_counted(count, 'bit')} {_bits(data, count)}"


def _echo(pdu: bytes, request: bytes) -> str:
    if request:
        head, size = response_head(request)
        if len(pdu) != size or not pdu.startswith(head):
            return f"not what was asked: {request_words(pdu) if size == len(request) else _bytes(pdu[1:])}"
    return "done"


def _where(pdu: bytes, request: bytes) -> str:
    _exactly(pdu, 5)
    return _echo(pdu, request) if request else f"done at {_span(*ADDRESS_AND_WORD.unpack(pdu)[1:])}"


def _exception_status(pdu: bytes, _request: bytes) -> str:
    _exactly(pdu, 2)
    return f"exception status {pdu[1]:08b}"


def _diagnosed(pdu: bytes, _request: bytes) -> str:
    data = f"{pdu[3] << 8 | pdu[4]}" if len(pdu) == 5 and pdu[1:3] != b"\0\0" else _bytes(pdu[3:])
    return f"{_diagnostic_name(pdu)}: {data}"


def _busy(status: int) -> str:
    return {0: "ready", STATUS_BUSY: "busy"}.get(status, f"status {status:04x}")


def _counter(pdu: bytes, _request: bytes) -> str:
    status, events = event_counter(pdu[1:])
    return f"{_busy(status)}, {_counted(events, 'event')}"


def _log(pdu: bytes, _request: bytes) -> str:
    status, events, messages, log = event_log(pdu[1:])
    shown = "; ".join(event_words(event) for event in log[:EVENTS_SHOWN_MAX])
    more = f"; … {len(log) - EVENTS_SHOWN_MAX} more" if len(log) > EVENTS_SHOWN_MAX else ""
    counts = f"{_busy(status)}, {_counted(events, 'event')}, {_counted(messages, 'message')}"
    return f"{counts}, newest first: {shown}{more}" if log else counts


def _server_id(pdu: bytes, _request: bytes) -> str:
    found = server_id(pdu[1:])
    running = {True: ", runs", False: ", stopped", None: ""}[found.is_running()]
    return f"server id {_text(found.data) if not running else _text(found.data[:1])}{running}" + (
        f", {_text(found.data[2:])}" if running and len(found.data) > 2 else ""
    )


def _file_answer(pdu: bytes, request: bytes) -> str:
    _exactly(pdu, 2 + pdu[1])
    if not request:
        return f"file records: {_bytes(pdu[2:])}"
    return "; ".join(_registers(data) for data in file_records(request, pdu[2:]))


def _queue(pdu: bytes, _request: bytes) -> str:
    data = fifo_queue(pdu[1:])
    return f"queue of {_registers(data)}" if data else "an empty queue"


def _identified(pdu: bytes, _request: bytes) -> str:
    if pdu[1] != DEVICE_IDENTIFICATION:
        return f"encapsulated interface transport, MEI type {pdu[1]}: {_bytes(pdu[2:])}"
    found = device_identification(pdu[3:])
    objects = ", ".join(
        f"{OBJECT_NAMES.get(key, f'object {key}')} {_text(value)}" for key, value in found.objects
    )
    more = "" if found.next_object is None else f", more from object {found.next_object}"
    return f"{objects or 'no objects'}{more}"


_RESPONSES: Final[dict[int, Callable[[bytes, bytes], str]]] = {
    **dict.fromkeys((*Table, _F.READ_WRITE_MULTIPLE_REGISTERS), _read_answer),
    **dict.fromkeys((_F.WRITE_SINGLE_COIL, _F.WRITE_SINGLE_REGISTER), _echo),
    **dict.fromkeys((_F.WRITE_FILE_RECORD, _F.MASK_WRITE_REGISTER), _echo),
    **dict.fromkeys((_F.WRITE_MULTIPLE_COILS, _F.WRITE_MULTIPLE_REGISTERS), _where),
    _F.READ_EXCEPTION_STATUS: _exception_status,
    _F.DIAGNOSTICS: _diagnosed,
    _F.GET_COMM_EVENT_COUNTER: _counter,
    _F.GET_COMM_EVENT_LOG: _log,
    _F.REPORT_SERVER_ID: _server_id,
    _F.READ_FILE_RECORD: _file_answer,
    _F.READ_FIFO_QUEUE: _queue,
    _F.ENCAPSULATED_INTERFACE_TRANSPORT: _identified,
}
