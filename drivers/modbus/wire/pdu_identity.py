"""Who a device is: report server id (17) and read device identification (43/14), both ways.

MODBUS Application Protocol Specification V1.1b3, clauses 6.13 and 6.21.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from drivers.modbus.wire.pdu import DEVICE_IDENTIFICATION, PDU_SIZE_MAX, ExceptionCode, FunctionCode
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

OBJECT_SIZE_MAX: Final = 244  # PDU of 253 less the 7 bytes of its head and the 2 of the object's
SERVER_ID_SIZE_MAX: Final = PDU_SIZE_MAX - 2
OBJECT_NAMES: Final = {
    0x00: "VendorName",
    0x01: "ProductCode",
    0x02: "MajorMinorRevision",
    0x03: "VendorUrl",
    0x04: "ProductName",
    0x05: "ModelName",
    0x06: "UserApplicationName",
}
_MORE: Final = 0xFF
_INDIVIDUAL_FLAG: Final = 0x80  # of the conformity level
_CONFORMITIES: Final = frozenset({0x01, 0x02, 0x03, 0x81, 0x82, 0x83})
_HEAD_SIZE: Final = 7
_ANSWER_HEAD_SIZE: Final = 4  # conformity level, more follows, next object id, number of objects
_RUN: Final = 0xFF


class ReadDeviceId(enum.IntEnum):
    """What is asked for: three streams, each with the one before it, and one object alone."""

    BASIC = 1
    REGULAR = 2
    EXTENDED = 3
    INDIVIDUAL = 4


# The last object id of each stream.
_LAST: Final = {ReadDeviceId.BASIC: 0x02, ReadDeviceId.REGULAR: 0x7F, ReadDeviceId.EXTENDED: 0xFF}


class Identification(NamedTuple):
    """One answer to 43/14. `next_object`: where to go on asking; None when this is all."""

    conformity: int
    next_object: int | None
    objects: tuple[tuple[int, bytes], ...]


class ServerId(NamedTuple):
    """Answer to function 17, whose parts each device lays out as it likes. `data`: all, 1..251 bytes."""

    data: bytes

    def is_running(self, *, id_size: int = 1) -> bool | None:
        """The run indicator behind an id of so many bytes; None where there is no 0x00 or 0xFF."""
        status = self.data[id_size : id_size + 1]
        return {b"\x00": False, b"\xff": True}.get(status)


def report_server_id() -> bytes:
    """Request for the device's description of itself: clause 6.13."""
    return bytes((FunctionCode.REPORT_SERVER_ID,))


def read_device_identification(code: ReadDeviceId, object_id: int = 0) -> bytes:
    """Request for identification objects from `object_id` on, or for that one: clause 6.21."""
    if not 0 <= object_id <= 0xFF:
        raise LocalProtocolError(f"object id: found {object_id}, expected 0..255")
    return bytes((FunctionCode.ENCAPSULATED_INTERFACE_TRANSPORT, DEVICE_IDENTIFICATION, code, object_id))


def server_id(data: bytes) -> ServerId:
    """Understand an answer to function 17, without its function code. Raises `RemoteProtocolError`."""
    if len(data) < 2 or data[0] != len(data) - 1:
        count = data[0] if data else "no"
        raise RemoteProtocolError(
            f"server id: found byte count {count} before {max(0, len(data) - 1)} bytes, expected the same"
        )
    return ServerId(data[1:])


def device_identification(data: bytes) -> Identification:
    """Understand an answer to 43/14; `data` is what follows function, MEI type and code.

    Raises `RemoteProtocolError` when its parts do not fit together. The number of objects may be more than
    what is there: the standard's own example of an answer in two parts counts those of both.
    """
    if len(data) < _ANSWER_HEAD_SIZE:
        raise RemoteProtocolError(f"device identification: found {len(data)} bytes, expected 4 or more")
    conformity, more, next_object, count = data[:_ANSWER_HEAD_SIZE]
    if conformity not in _CONFORMITIES:
        raise RemoteProtocolError(
            f"device identification: found conformity level 0x{conformity:02x}, expected 1..3 or 0x81..0x83"
        )
    if more not in {0, _MORE}:
        raise RemoteProtocolError(f"device identification: found more follows {more:02x}, expected 00 or ff")
    objects: list[tuple[int, bytes]] = []
    at = _ANSWER_HEAD_SIZE
    while at < len(data):
        value = data[at + 2 : at + 2 + data[at + 1]] if at + 1 < len(data) else b""
        if at + 1 >= len(data) or len(value) != data[at + 1]:
            raise RemoteProtocolError(f"device identification: object 0x{data[at]:02x} is cut off")
        objects.append((data[at], value))
        at += 2 + len(value)
    if len(objects) > count or (count and not objects):
        raise RemoteProtocolError(f"device identification: found {len(objects)} objects, expected {count}")
    return Identification(conformity, next_object if more else None, tuple(objects))


class IdentityReader:
    """Asks for one stream, request after request, until all its objects are there.

    Ends also with a device that goes on for ever: object ids must grow from answer to answer.
    """

    def __init__(self, code: ReadDeviceId = ReadDeviceId.BASIC) -> None:
        self.objects: Final[dict[int, bytes]] = {}
        self.conformity = 0
        self._code: Final = code
        self._next: int | None = 0

    def request(self) -> bytes | None:
        """The next request; None when all is there."""
        return None if self._next is None else read_device_identification(self._code, self._next)

    def take(self, data: bytes) -> None:
        """Take the answer to it (`Answer.data`). `RemoteProtocolError`: it goes round in circles."""
        found = device_identification(data)
        if found.next_object is not None and (not found.objects or found.next_object <= (self._next or 0)):
            raise RemoteProtocolError(
                f"device identification: after object {self._next} the device goes on with "
                f"{found.next_object}, expected a higher one"
            )
        self.conformity = found.conformity
        self.objects.update(found.objects)
        self._next = found.next_object


# --- server ------------------------------------------------------------------------------------------------


class Identity:
    """What a server says of itself: objects by id, 0 to 2 at least, 244 bytes each at most.

    `server_id`: what function 17 answers, run indicator included; empty where it is not supported.
    """

    def __init__(self, objects: Mapping[int, bytes], *, server_id: bytes = b"") -> None:
        for name, missing in ((OBJECT_NAMES[key], key) for key in (0, 1, 2) if key not in objects):
            raise LocalProtocolError(f"identity: object {missing} ({name}) is missing, which is mandatory")
        for key, value in objects.items():
            if not 0 <= key <= 0xFF or len(value) > OBJECT_SIZE_MAX:
                raise LocalProtocolError(
                    f"identity: found object {key} with {len(value)} bytes, expected 0..255 with 0..244 bytes"
                )
        if len(server_id) > SERVER_ID_SIZE_MAX:
            raise LocalProtocolError(
                f"identity: found a server id of {len(server_id)} bytes, expected 0..{SERVER_ID_SIZE_MAX}"
            )
        self.server_id: Final = server_id
        self.objects: Final = dict(sorted(objects.items()))
        highest = max(objects)
        self._level: Final = ReadDeviceId(1 if highest <= 2 else 2 if highest < 0x80 else 3)

    def answer(self, pdu: bytes) -> bytes | ExceptionCode:
        """The answer to a request 43/14, or the exception that refuses it: clause 6.21, figure 30."""
        if len(pdu) != 4 or not ReadDeviceId.BASIC <= pdu[2] <= ReadDeviceId.INDIVIDUAL:
            return ExceptionCode.ILLEGAL_DATA_VALUE
        code, first = ReadDeviceId(pdu[2]), pdu[3]
        if code is ReadDeviceId.INDIVIDUAL:
            value = self.objects.get(first)
            if value is None:
                return ExceptionCode.ILLEGAL_DATA_ADDRESS
            return self._packed(code, None, [(first, value)])
        last = _LAST[code]  # asked for more than there is, there is no more
        stream = [(key, value) for key, value in self.objects.items() if key <= last]
        if first not in {key for key, _ in stream}:
            first = 0  # "the server responds as if object 0 were pointed out"
        chosen: list[tuple[int, bytes]] = []
        size = _HEAD_SIZE
        for key, value in stream:
            if key < first:
                continue
            size += 2 + len(value)
            if size > PDU_SIZE_MAX:
                return self._packed(code, key, chosen)
            chosen.append((key, value))
        return self._packed(code, None, chosen)

    def _packed(self, code: int, follows: int | None, objects: list[tuple[int, bytes]]) -> bytes:
        head = (
            FunctionCode.ENCAPSULATED_INTERFACE_TRANSPORT,
            DEVICE_IDENTIFICATION,
            code,
            self._level | _INDIVIDUAL_FLAG,
            0 if follows is None else _MORE,
            follows or 0,
            len(objects),
        )
        return bytes(head) + b"".join(bytes((key, len(value))) + value for key, value in objects)
