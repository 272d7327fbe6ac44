"""Both plants, C and Python, show what the formula says, take writes, refuse the rest, and keep true logs."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.formula import WRITABLE_AT, Mode, registers_of
from bench.rig import Plant, Programs, build, plant


@pytest.fixture(scope="module", params=["c", "python"])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    if request.param == "python":
        return Programs(plant=(sys.executable, "-m", "bench.plant"), hammer=None)
    built = build(tmp_path_factory.mktemp("plant"))
    if not built.is_compiled:
        pytest.skip("no C compiler")
    return built


@pytest.fixture(params=Mode)
def running(
    programs: Programs, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Plant, Mode]]:
    with plant(
        programs, tmp_path, mode=request.param, units=5, registers=100, ports=2, logs_reads=True
    ) as load:
        yield load, request.param


def ask(link: socket.socket, *pdus: bytes, unit: int = 3) -> list[bytes]:
    """Send requests in one segment (MBAP, Modbus Messaging on TCP/IP §3.1.3); their reply PDUs in order."""
    link.sendall(b"".join(struct.pack(">HHHB", n, 0, len(pdu) + 1, unit) + pdu for n, pdu in enumerate(pdus)))
    stream, replies = link.makefile("rb"), []
    for number in range(len(pdus)):
        transaction, protocol, length, back = struct.unpack(">HHHB", stream.read(7))
        assert (transaction, protocol, back) == (number, 0, unit)
        replies.append(stream.read(length - 1))
    return replies


def read(at: int, count: int, function: int = 3) -> bytes:
    return struct.pack(">BHH", function, at, count)


def values(reply: bytes) -> list[int]:
    assert reply[1] == len(reply) - 2
    return list(struct.unpack(f">{reply[1] // 2}H", reply[2:]))


def test_each_read_shows_what_the_formula_says(running: tuple[Plant, Mode]) -> None:
    load, mode = running
    with socket.create_connection(("127.0.0.1", load.ports[1]), timeout=5) as link:
        replies = ask(link, *[read(0, 100)] * 30, read(0, 100, function=4), read(7, 2))
    expected = [registers_of(number, unit=3, count=100, mode=mode) for number in range(1, 32)]
    assert [values(reply) for reply in replies] == [*expected, expected[-1][7:9]]
    counted = load.counters()
    assert (counted["reads"], counted["registers"], counted["refused"]) == (32, 3102, 0)
    log = list(struct.iter_unpack("<HHIQ", load.reads_log.read_bytes()))
    assert [record[:3] for record in log] == [(3, 0, number) for number in range(1, 32)]
    assert 0 < time.monotonic_ns() - log[0][3] < 10**10


def test_writes_are_kept_and_logged(running: tuple[Plant, Mode]) -> None:
    load, _ = running
    with socket.create_connection(("127.0.0.1", load.ports[0]), timeout=5) as link:
        single = struct.pack(">BHH", 6, WRITABLE_AT, 4711)
        many = struct.pack(">BHHBHH", 16, WRITABLE_AT + 1, 2, 4, 1, 2)
        assert ask(link, single, many, read(WRITABLE_AT, 3)) == [
            single, many[:5], bytes.fromhex("03 06 1267 0001 0002"),
        ]  # fmt: skip
    log = list(struct.iter_unpack("<HHHHQ", load.writes_log.read_bytes()))
    assert [record[:4] for record in log] == [
        (3, WRITABLE_AT, 4711, 0), (3, WRITABLE_AT + 1, 1, 0), (3, WRITABLE_AT + 2, 2, 0),
    ]  # fmt: skip


def test_what_is_not_there_is_refused(running: tuple[Plant, Mode]) -> None:
    load, _ = running
    with socket.create_connection(("127.0.0.1", load.ports[0]), timeout=5) as link:
        assert ask(link, read(99, 2), struct.pack(">BHH", 6, 0, 1), b"\x01\0\0\0\1", read(0, 0)) == [
            b"\x83\x02", b"\x86\x02", b"\x81\x01", b"\x83\x03",
        ]  # fmt: skip
        assert ask(link, read(0, 1), unit=6) == [b"\x83\x0b"]


def test_a_request_byte_by_byte(running: tuple[Plant, Mode]) -> None:
    load, mode = running
    with socket.create_connection(("127.0.0.1", load.ports[0]), timeout=5) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in struct.pack(">HHHB", 9, 0, 6, 1) + read(0, 4):
            link.sendall(bytes((byte,)))
        reply = link.makefile("rb").read(17)
    assert values(reply[7:]) == registers_of(1, unit=1, count=100, mode=mode)[:4]
