"""How long a PDU is, told from its first bytes: for serial lines, where nothing else says it.

MODBUS Application Protocol Specification V1.1b3, clause 6. All take what has come so far of one PDU, from the
function code on, and answer in bytes of the PDU: without address and checksum.
"""

from __future__ import annotations

from typing import Final

from drivers.modbus.wire.pdu import DEVICE_IDENTIFICATION, EXCEPTION_FLAG, READ_WRITE, FunctionCode

UNTOLD: Final = -1  # the PDU does not say how long it is: a custom function, or diagnostics 8/0
NEEDS_MORE: Final = 0  # it will, once more of it has come

_F = FunctionCode
_FIXED_REQUESTS: Final[dict[int, int]] = {
    **dict.fromkeys((1, 2, 3, 4, 5, 6), 5),
    _F.READ_EXCEPTION_STATUS: 1,
    _F.GET_COMM_EVENT_COUNTER: 1,
    _F.GET_COMM_EVENT_LOG: 1,
    _F.REPORT_SERVER_ID: 1,
    _F.MASK_WRITE_REGISTER: 7,
    _F.READ_FIFO_QUEUE: 3,
}
# Function → where the count of the bytes behind it stands.
_COUNTED_REQUESTS: Final[dict[int, int]] = {
    _F.WRITE_MULTIPLE_COILS: 5,
    _F.WRITE_MULTIPLE_REGISTERS: 5,
    _F.READ_FILE_RECORD: 1,
    _F.WRITE_FILE_RECORD: 1,
    _F.READ_WRITE_MULTIPLE_REGISTERS: READ_WRITE.size - 1,
}
_FIXED_RESPONSES: Final[dict[int, int]] = {
    _F.WRITE_SINGLE_COIL: 5,
    _F.WRITE_SINGLE_REGISTER: 5,
    _F.READ_EXCEPTION_STATUS: 2,
    _F.GET_COMM_EVENT_COUNTER: 5,
    _F.WRITE_MULTIPLE_COILS: 5,
    _F.WRITE_MULTIPLE_REGISTERS: 5,
    _F.MASK_WRITE_REGISTER: 7,
}
_COUNTED_RESPONSES: Final = frozenset(
    {
        *(1, 2, 3, 4),
        _F.GET_COMM_EVENT_LOG,
        _F.REPORT_SERVER_ID,
        _F.READ_FILE_RECORD,
        _F.WRITE_FILE_RECORD,
        _F.READ_WRITE_MULTIPLE_REGISTERS,
    }
)
_RETURN_QUERY_DATA: Final = b"\0\0"  # clause 6.8.1: as much as the client likes
_DEVICE_ID_REQUEST_SIZE: Final = 4
_DEVICE_ID_HEAD_SIZE: Final = 7


def request_size(data: bytes) -> int:
    """How long the request is that begins with `data`; `NEEDS_MORE` or `UNTOLD`."""
    if not data:
        return NEEDS_MORE
    function = data[0]
    size = _FIXED_REQUESTS.get(function)
    if size is not None:
        return size
    at = _COUNTED_REQUESTS.get(function)
    if at is not None:
        return at + 1 + data[at] if len(data) > at else NEEDS_MORE
    if function == _F.DIAGNOSTICS:
        return _diagnostics_size(data)
    if function == _F.ENCAPSULATED_INTERFACE_TRANSPORT:
        if len(data) < 2:
            return NEEDS_MORE
        return _DEVICE_ID_REQUEST_SIZE if data[1] == DEVICE_IDENTIFICATION else UNTOLD
    return UNTOLD


def response_size(data: bytes) -> int:
    """How long the response is that begins with `data`; `NEEDS_MORE` or `UNTOLD`.

    Of a device identification it is known only once the heads of all its objects have come.
    """
    if not data:
        return NEEDS_MORE
    function = data[0]
    if function >= EXCEPTION_FLAG:
        return 2
    if function in _COUNTED_RESPONSES:
        return 2 + data[1] if len(data) > 1 else NEEDS_MORE
    size = _FIXED_RESPONSES.get(function)
    if size is not None:
        return size
    if function == _F.DIAGNOSTICS:
        return _diagnostics_size(data)
    if function == _F.READ_FIFO_QUEUE:
        return 3 + (data[1] << 8 | data[2]) if len(data) > 2 else NEEDS_MORE
    if function == _F.ENCAPSULATED_INTERFACE_TRANSPORT:
        return _identification_size(data)
    return UNTOLD


def _diagnostics_size(data: bytes) -> int:
    if len(data) < 3:
        return NEEDS_MORE
    return UNTOLD if data[1:3] == _RETURN_QUERY_DATA else 5


def _identification_size(data: bytes) -> int:
    if len(data) < 2:
        return NEEDS_MORE
    if data[1] != DEVICE_IDENTIFICATION:
        return UNTOLD
    if len(data) < _DEVICE_ID_HEAD_SIZE:
        return NEEDS_MORE
    at = _DEVICE_ID_HEAD_SIZE
    for _ in range(data[_DEVICE_ID_HEAD_SIZE - 1]):
        if len(data) < at + 2:
            return NEEDS_MORE
        at += 2 + data[at + 1]
    return at
