"""The plant's server as a process: ready line, a client nobody here wrote, garbage, SIGTERM."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.peers import require

COMMAND = [sys.executable, "-m", "gateway.app.demo.server", "--seed", "1", "--port"]


@contextlib.contextmanager
def plant() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A running plant and its port."""
    with subprocess.Popen([*COMMAND, "0"], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(rb"ready 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
            assert found
            yield process, int(found[1])
        finally:
            process.kill()


def mbpoll(port: int, *arguments: str) -> str:
    command = ["mbpoll", "-m", "tcp", "-0", "-1", "-q", "-p", str(port), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + done.stderr


def ask(connection: socket.socket, unit: int, pdu: bytes) -> bytes:
    connection.sendall(struct.pack(">HHHB", 7, 0, len(pdu) + 1, unit) + pdu)
    head = connection.recv(7, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(head[4:6], "big") - 1, socket.MSG_WAITALL)


@pytest.mark.interop
def test_mbpoll_reads_and_writes_the_plant() -> None:
    require("mbpoll")
    with plant() as (_process, port):
        serial = mbpoll(port, "-a", "3", "-r", "30", "-c", "4", "-t", "4:hex", "127.0.0.1")
        assert re.findall(r"0x([0-9A-F]{4})", serial) == ["454D", "3334", "302D", "3037"], serial  # EM340-07
        assert "Written 1 references" in mbpoll(port, "-a", "1", "-r", "0", "-t", "4", "127.0.0.1", "750")
        assert re.search(r"\[0\]:\s+750", mbpoll(port, "-a", "1", "-r", "0", "-t", "4", "127.0.0.1"))
        refused = mbpoll(port, "-a", "1", "-r", "0", "-t", "4", "127.0.0.1", "950")
        assert "Illegal data value" in refused


def test_the_water_follows_a_written_setpoint() -> None:
    with plant() as (_process, port), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        read = struct.pack(">BHH", 4, 1, 1)
        before = int.from_bytes(ask(connection, 1, read)[2:], "big")
        write = struct.pack(">BHH", 6, 0, 900)
        assert ask(connection, 1, write) == write
        deadline = time.monotonic() + 20
        while int.from_bytes(ask(connection, 1, read)[2:], "big") < before + 5:
            assert time.monotonic() < deadline, "the water did not warm by half a degree"
            time.sleep(0.05)


def test_garbage_closes_one_connection_and_no_other() -> None:
    with plant() as (_process, port), socket.create_connection(("127.0.0.1", port), timeout=10) as good:
        assert ask(good, 1, struct.pack(">BHH", 3, 0, 1))[:2] == b"\x03\x02"
        with socket.create_connection(("127.0.0.1", port), timeout=10) as bad:
            request = bytes.fromhex("0001 0000 0006 01 03 0000 0001".replace(" ", ""))
            bad.sendall(request + b"\xff" * 300)
            answers = b""
            with contextlib.suppress(ConnectionResetError):
                while data := bad.recv(1024):
                    answers += data
            assert answers[:2] == b"\x00\x01", "what came before the garbage is answered"
        assert ask(good, 2, struct.pack(">BHH", 3, 0, 1))[:2] == b"\x03\x02"
        assert ask(good, 9, struct.pack(">BHH", 3, 0, 1)) == b"\x83\x0b"


def test_sigterm_ends_it_with_0() -> None:
    with plant() as (process, port):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_busy_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, str(port)], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "another --port" in done.stderr
