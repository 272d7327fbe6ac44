"""Frames of serial lines that nobody here made up, and ways to cut them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Published examples, address 17: the pages on function codes and on ASCII of Simply Modbus (FC01.htm,
# FC16.htm, ASCII.htm), and the test vectors of node-modbus/stream (test/tests.js): PDU, CRC as sent, LRC.
REQUESTS: Final = [
    ("01 0013 0025", "0E84", "B6"),
    ("02 00C4 0016", "BAA9", "13"),
    ("03 006B 0003", "7687", "7E"),
    ("04 0008 0001", "B298", "E2"),
    ("05 00AC FF00", "4E8B", "3F"),
    ("06 0001 0003", "9A9B", "E5"),
    ("0F 0013 000A 02 CD01", "BF0B", "F3"),
    ("10 0001 0002 04 000A0102", "C6F0", "CB"),
]
ANSWERS: Final = [
    ("01 05 CD6BB20E1B", "45E6"),  # Simply Modbus, FC01.htm
    ("10 0001 0002", "1298"),  # Simply Modbus, FC16.htm
]
SLAVE: Final = 17
FRAMES: Final = [
    (bytes((SLAVE,)) + bytes.fromhex(pdu + crc), (SLAVE, bytes.fromhex(pdu))) for pdu, crc, _ in REQUESTS
]


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes: whole, one at a time, in halves, in threes."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    yield [data[: len(data) // 2], data[len(data) // 2 :]]
    yield [data[at : at + 3] for at in range(0, len(data), 3)]
