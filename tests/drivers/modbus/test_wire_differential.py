"""Random requests to our server and to libmodbus' and pymodbus': the same answers, or a clause says why."""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from drivers.modbus.wire import mbap, pdu
from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.pdu_size import request_size
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession
from tests.drivers.modbus import libmodbus
from tests.drivers.modbus.pymodbus_server import pymodbus_server
from tests.peers import require

pytestmark = pytest.mark.interop

UNIT = 17
ITEMS = libmodbus.ITEMS
REQUESTS = 3000
SILENCE_S = 0.15  # of a peer that does not answer at all


class Plant:
    """What both peers have: ITEMS in each table, every third bit on, registers 0, 1, 2 …"""

    def __init__(self) -> None:
        bits = bytearray(number % 3 == 0 for number in range(ITEMS))
        words = bytearray(struct.pack(f">{ITEMS}H", *range(ITEMS)))
        self.bits = {Table.COILS: bits, Table.DISCRETE_INPUTS: bytearray(bits)}
        self.words = {Table.HOLDING_REGISTERS: words, Table.INPUT_REGISTERS: bytearray(words)}

    def has_unit(self, unit: int) -> bool:
        return unit == UNIT

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return _refusal(start, count) or pdu.pack_bits(map(bool, self.bits[table][start : start + count]))

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        return _refusal(start, count) or bytes(self.words[table][2 * start : 2 * (start + count)])

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        if refusal := _refusal(start, count):
            return refusal
        self.bits[Table.COILS][start : start + count] = bytes(pdu.unpack_bits(data, count))
        return None

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        if refusal := _refusal(start, len(data) // 2):
            return refusal
        self.words[Table.HOLDING_REGISTERS][2 * start : 2 * start + len(data)] = data
        return None


def _refusal(start: int, count: int) -> ExceptionCode | None:
    return ExceptionCode.ILLEGAL_DATA_ADDRESS if start + count > ITEMS else None


# --- requests -----------------------------------------------------------------------------------------------

ADDRESSES = (0, 1, 7, 50, 90, ITEMS - 2, ITEMS - 1, ITEMS, 0x7FFF, 0xFFFE, 0xFFFF)
COUNTS = (0, 1, 2, 7, 8, 9, 16, 50, ITEMS, *range(120, 127), 255, 1968, 1969, 2000, 2001, 0xFFFF)


def some_request(rng: random.Random, functions: tuple[int, ...]) -> bytes:
    """A request of one of the functions: of the right form, its numbers at and beyond their limits."""
    function, start, count = rng.choice(functions), rng.choice(ADDRESSES), rng.choice(COUNTS)
    match function:
        case 1 | 2 | 3 | 4:
            return struct.pack(">BHH", function, start, count)
        case 5:
            return struct.pack(">BHH", function, start, rng.choice((0, 0xFF00, 0xFF00, 1, 0xFF01, 0xFFFF)))
        case 6:
            return struct.pack(">BHH", function, start, rng.randrange(0x10000))
        case 15 | 16:
            size = (count + 7) // 8 if function == 15 else 2 * count
            size = min(size, 246)
            if rng.random() < 0.1:
                size = rng.choice((0, 1, 2, 3, 4, max(0, size - 1), min(246, size + 1)))
            return struct.pack(">BHHB", function, start, count, size) + rng.randbytes(size)
        case 22:
            return struct.pack(">BHHH", function, start, rng.randrange(0x10000), rng.randrange(0x10000))
        case 23:
            write_count = rng.choice(COUNTS)
            size = min(2 * write_count, 242)
            head = struct.pack(">BHHHHB", function, start, count, rng.choice(ADDRESSES), write_count, size)
            return head + rng.randbytes(size)
        case _:
            return bytes((function,))


def damaged(rng: random.Random, request: bytes) -> bytes:
    """The same, sometimes cut or with bytes behind it."""
    fate = rng.random()
    if fate < 0.1 and len(request) > 1:
        return request[: rng.randrange(1, len(request))]
    if fate < 0.2:
        return (request + rng.randbytes(rng.randrange(1, 4)))[: pdu.PDU_SIZE_MAX]
    return request


# --- asking -------------------------------------------------------------------------------------------------


class Peer:
    """Asks a server; a connection on which it fell silent or that it closed is made anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = self._connect()

    def ask(self, request: bytes) -> bytes | None:
        self._socket.sendall(mbap.encode(7, UNIT, request))
        framer, frames = mbap.Framer(), list[mbap.Frame]()
        try:
            while not frames:
                data = self._socket.recv(300)
                if not data:
                    break
                framer.feed(data, frames)
        except TimeoutError:
            pass
        if frames:
            assert frames[0][:2] == (7, UNIT)
            return frames[0][2]
        self.close()
        self._socket = self._connect()
        return None

    def close(self) -> None:
        self._socket.close()

    def _connect(self) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self._port), 10)
        made.settimeout(SILENCE_S)
        return made


@contextmanager
def peer(server: Callable[[], object]) -> Iterator[Peer]:
    with server() as port:  # type: ignore[attr-defined]  # a context manager
        asked = Peer(port)
        try:
            yield asked
        finally:
            asked.close()


class Ours:
    """Our server, asked without a wire."""

    def __init__(self) -> None:
        self.plant = Plant()
        self._session = ServerSession(Responder(self.plant))

    def ask(self, request: bytes) -> bytes:
        self._session.receive(mbap.encode(7, UNIT, request), 0)
        (frame,) = self._session.to_send(0)
        return frame[mbap.HEADER_SIZE :]

    def state(self) -> list[bytes]:
        """All coils and holding registers, as answers to reads."""
        return [self.ask(request) for request in READ_ALL]


READ_ALL = (
    pdu.read(Table.COILS, start=0, count=ITEMS),
    pdu.read(Table.HOLDING_REGISTERS, start=0, count=ITEMS),
)


def write_all(plant: Plant) -> Iterator[bytes]:
    """Requests that bring a peer to where we are."""
    yield pdu.write_multiple_coils(0, map(bool, plant.bits[Table.COILS]))
    yield pdu.write_multiple_registers(0, bytes(plant.words[Table.HOLDING_REGISTERS]))


# --- differences, and the clause of the Application Protocol Specification V1.1b3 that decides --------------

Reason = Callable[[bytes, bytes, bytes | None, bool], bool]
"""(request, our answer, theirs, whether their memory differs afterwards) → whether this is why"""


def _exception(answer: bytes | None, code: int) -> bool:
    return answer is not None and len(answer) == 2 and answer[0] & 0x80 == 0x80 and answer[1] == code


LIBMODBUS: dict[str, Reason] = {
    "6.5, figure 15: the output value is checked before the output address": (
        lambda asked, we, they, _: asked[0] == 5 and _exception(we, 3) and _exception(they, 2)
    ),
    "6.11, figure 21: the byte count must be that of the quantity, before the address is looked at": (
        lambda asked, we, they, _: (
            asked[0] == 15 and _exception(we, 3) and asked[5] != (int.from_bytes(asked[3:5]) + 7) // 8
        )
    ),
}
PYMODBUS: dict[str, Reason] = {
    "6.5, figure 15: the output value is checked before the output address": (
        lambda asked, we, they, _: asked[0] == 5 and _exception(we, 3) and _exception(they, 2)
    ),
    "6.5: all other values are illegal and will not affect the output": (
        lambda asked, we, they, _: asked[0] == 5 and _exception(we, 3) and they == asked[:3] + b"\xff\0"
    ),
    "6.17, figure 27: both spans are checked before anything is written": (
        lambda asked, we, they, differs: asked[0] == 23 and we == they == b"\x97\2" and differs
    ),
    "7, exception 03: the implied length is incorrect": (
        lambda asked, we, they, _: _exception(we, 3) and 0 < request_size(asked) < len(asked)
    ),
    "7: the function code of an exception response is that of the request, with its highest bit set": (
        lambda asked, we, they, _: we[0] == asked[0] | 0x80 and they == b"\x80\1"
    ),
}


def compare(server: Callable[[], object], reasons: dict[str, Reason], *, damages: bool) -> Counter[str]:
    """Ask both the same; how often each reason decided. What has none fails the test."""
    rng = random.Random(20121)  # any seed will do; a fixed one makes a failure repeat itself
    us, unexplained, decided = Ours(), list[str](), Counter[str]()
    with peer(server) as them:
        for _ in range(REQUESTS):
            request = some_request(rng, FUNCTIONS)
            if damages:
                request = damaged(rng, request)
            we, they = us.ask(request), them.ask(request)
            differs = us.state() != [them.ask(read) for read in READ_ALL]
            if we == they and not differs:
                decided["equal"] += 1
                continue
            found = [clause for clause, is_why in reasons.items() if is_why(request, we, they, differs)]
            if found:
                decided[found[0]] += 1
            else:
                theirs = "no answer" if they is None else they[:8].hex()
                unexplained.append(f"{request[:16].hex()} ({len(request)}): {we[:8].hex()}, theirs {theirs}")
            for repair in write_all(us.plant):
                them.ask(repair)
    assert unexplained == []
    assert set(decided) == {"equal", *reasons}, "each reason in the table was needed"
    return decided


FUNCTIONS = (1, 2, 3, 4, 5, 6, 15, 16, 22, 23, 9, 65, 100)  # 9 is reserved, 65 and 100 are user defined


def test_the_same_answers_as_libmodbus_or_a_clause() -> None:
    """In their right form only: libmodbus takes the end of a request from its function, not from MBAP."""
    assert compare(libmodbus.server, LIBMODBUS, damages=False)["equal"] > 0.9 * REQUESTS


def test_the_same_answers_as_pymodbus_or_a_clause() -> None:
    require("pymodbus")
    bits, words = [[number % 3 == 0 for number in range(ITEMS)]] * 2, [list(range(ITEMS))] * 2
    server = partial(pymodbus_server, unit=UNIT, bits=bits, words=words)
    assert compare(server, PYMODBUS, damages=True)["equal"] > 0.4 * REQUESTS
