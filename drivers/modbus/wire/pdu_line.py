"""Functions of serial lines: exception status (7), diagnostics (8), event counter (11) and event log (12).

MODBUS Application Protocol Specification V1.1b3, clauses 6.7 to 6.10.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

from drivers.modbus.wire.pdu import ADDRESS_AND_WORD, PDU_SIZE_MAX, FunctionCode, check_word
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

EVENTS_MAX: Final = 64  # clause 6.10
STATUS_BUSY: Final = 0xFFFF  # clause 6.9: a program command is still being processed
CLEAR_EVENT_LOG: Final = 0xFF00  # clause 6.8.1, Restart Communications Option
_COUNTER: Final = struct.Struct(">HH")
_LOG: Final = struct.Struct(">BHHH")
_LOG_HEAD_SIZE: Final = 6  # bytes of status and counters, which the byte count includes


class Diagnostic(enum.IntEnum):
    """Sub-functions of function 8, clause 6.8.1; 5 to 9, 19 and all from 21 on are reserved."""

    RETURN_QUERY_DATA = 0
    RESTART_COMMUNICATIONS_OPTION = 1
    RETURN_DIAGNOSTIC_REGISTER = 2
    CHANGE_ASCII_INPUT_DELIMITER = 3
    FORCE_LISTEN_ONLY_MODE = 4
    CLEAR_COUNTERS_AND_DIAGNOSTIC_REGISTER = 10
    RETURN_BUS_MESSAGE_COUNT = 11
    RETURN_BUS_COMMUNICATION_ERROR_COUNT = 12
    RETURN_BUS_EXCEPTION_ERROR_COUNT = 13
    RETURN_SERVER_MESSAGE_COUNT = 14
    RETURN_SERVER_NO_RESPONSE_COUNT = 15
    RETURN_SERVER_NAK_COUNT = 16
    RETURN_SERVER_BUSY_COUNT = 17
    RETURN_BUS_CHARACTER_OVERRUN_COUNT = 18
    CLEAR_OVERRUN_COUNTER_AND_FLAG = 20


class EventCounter(NamedTuple):
    """Answer to function 11."""

    status: int  # 0, or STATUS_BUSY
    events: int  # requests completed with success


class EventLog(NamedTuple):
    """Answer to function 12. `log`: one byte for each event, the newest first, at most 64."""

    status: int
    events: int
    messages: int
    log: bytes


def read_exception_status() -> bytes:
    """Request for the eight exception status outputs: clause 6.7. The answer's data is one byte."""
    return bytes((FunctionCode.READ_EXCEPTION_STATUS,))


def return_query_data(data: bytes) -> bytes:
    """Request to be sent the same again: clause 6.8.1. `data`: 2..250 bytes, an even number."""
    if not 2 <= len(data) <= PDU_SIZE_MAX - 3 or len(data) % 2:
        raise LocalProtocolError(f"query data: found {len(data)} bytes, expected 2..250, an even number")
    return bytes((FunctionCode.DIAGNOSTICS, 0, 0)) + data


def diagnostic(what: Diagnostic, data: int = 0) -> bytes:
    """Request for a diagnostic, clause 6.8.1. The answer's data is one word for those that return something.

    `data`: `CLEAR_EVENT_LOG` with a restart, a character * 256 with the ASCII delimiter, else 0.
    To `FORCE_LISTEN_ONLY_MODE` no answer comes, nor to a restart that ends it: these time out.
    """
    check_word("diagnostic data", data)
    return ADDRESS_AND_WORD.pack(FunctionCode.DIAGNOSTICS, what, data)


def get_comm_event_counter() -> bytes:
    """Request for status and event counter: clause 6.9."""
    return bytes((FunctionCode.GET_COMM_EVENT_COUNTER,))


def get_comm_event_log() -> bytes:
    """Request for status, counters and event log: clause 6.10."""
    return bytes((FunctionCode.GET_COMM_EVENT_LOG,))


def event_counter(data: bytes) -> EventCounter:
    """Understand an answer to function 11, without its function code. Raises `RemoteProtocolError`."""
    if len(data) != _COUNTER.size:
        raise RemoteProtocolError(f"event counter: found {len(data)} bytes, expected {_COUNTER.size}")
    return EventCounter(*_COUNTER.unpack(data))


def event_log(data: bytes) -> EventLog:
    """Understand an answer to function 12, without its function code. Raises `RemoteProtocolError`."""
    if len(data) < _LOG.size or not len(data) - 1 == data[0] <= _LOG_HEAD_SIZE + EVENTS_MAX:
        count = data[0] if data else "no"
        raise RemoteProtocolError(
            f"event log: found byte count {count} before {max(0, len(data) - 1)} bytes, expected the same"
        )
    _, status, events, messages = _LOG.unpack_from(data)
    return EventLog(status, events, messages, data[_LOG.size :])


_RECEIVE_BITS: Final[tuple[tuple[int, str], ...]] = (
    (1, "communication error"),
    (4, "character overrun"),
    (5, "in listen only mode"),
    (6, "broadcast"),
)
_SEND_BITS: Final[tuple[tuple[int, str], ...]] = (
    (0, "exception 1 to 3 sent"),
    (1, "exception 4 sent"),
    (2, "exception 5 or 6 sent"),
    (3, "exception 7 sent"),
    (4, "write timed out"),
    (5, "in listen only mode"),
)


def event_words(event: int) -> str:
    """Say one byte of an event log in words: clause 6.10, "What the Event Bytes Contain"."""
    if event == 0:
        return "communication restarted"
    if event == ENTERED_LISTEN_ONLY:
        return "entered listen only mode"
    if event & RECEIVED:
        what, bits = "received", _RECEIVE_BITS
    elif event & SENT:
        what, bits = "answered", _SEND_BITS
    else:
        return f"event 0x{event:02x}, not defined by the standard"
    found = [text for bit, text in bits if event >> bit & 1]
    return f"{what}: {', '.join(found)}" if found else what


RESTARTED: Final = 0x00
ENTERED_LISTEN_ONLY: Final = 0x04  # in the text of clause 6.10; its example shows 0x20
RECEIVED: Final = 0x80
SENT: Final = 0x40
