"""Whether an answer is one: for functions whose answers have a length that the device chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from drivers.modbus.wire.pdu import DEVICE_IDENTIFICATION, FunctionCode
from drivers.modbus.wire.pdu_files import fifo_queue, file_records
from drivers.modbus.wire.pdu_identity import device_identification, server_id
from drivers.modbus.wire.pdu_line import event_log
from gateway.core.errors import RemoteProtocolError


def fault_of(request: bytes, head_size: int, answer: bytes) -> str:
    """What is wrong with an answer that begins as it should; empty when nothing is.

    `head_size`: of the head from `pdu.response_head(request)`. Answers to custom functions are never wrong.
    """
    check = _CHECKS.get(request[0])
    if check is None:
        return ""
    try:
        check(request, answer[head_size:])
    except RemoteProtocolError as fault:
        return str(fault)
    return ""


def _check_transport(request: bytes, data: bytes) -> object:
    return device_identification(data) if request[1] == DEVICE_IDENTIFICATION else None


_CHECKS: Final[dict[int, Callable[[bytes, bytes], object]]] = {
    FunctionCode.GET_COMM_EVENT_LOG: lambda _request, data: event_log(data),
    FunctionCode.REPORT_SERVER_ID: lambda _request, data: server_id(data),
    FunctionCode.READ_FILE_RECORD: file_records,
    FunctionCode.READ_FIFO_QUEUE: lambda _request, data: fifo_queue(data),
    FunctionCode.ENCAPSULATED_INTERFACE_TRANSPORT: _check_transport,
}
