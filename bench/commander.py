"""Sends commands one after the other while the plant is polled, and remembers when each left.

Between two commands it sends itself a message, to know what the broker alone takes under the same load.
"""

from __future__ import annotations

import json
import socket
import time

import msgspec

from bench.checker import packets

PAUSE_S = 0.02  # between two commands: each meets another phase of the polling
ANSWER_S = 1.0
COMMANDS_MAX = 30_000  # packet identifiers of commands and echoes stay apart


class CommandFigures(msgspec.Struct):
    """How the commands were answered: how many of each result, and how long each took to arrive here."""

    sent: int
    answers: dict[str, int]
    answers_ms: dict[str, list[float]]


class Sent(msgspec.Struct):
    """What was sent: (unit, value) → CLOCK_MONOTONIC ns; and how long each echo took."""

    sent_ns: dict[tuple[int, int], int]
    echoes_ms: list[float]
    figures: CommandFigures


def drive(mqtt_port: int, *, devices: int, count: int) -> Sent:
    """Send `count` commands to the set-points of the devices in turn, QoS 1, each value once."""
    sent_ns: dict[tuple[int, int], int] = {}
    answers_ms: dict[str, list[float]] = {}
    echoes_ms: list[float] = []
    with socket.create_connection(("127.0.0.1", mqtt_port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"\x10\x15\0\4MQTT\4\2\0\0\0\x09commander")
        link.sendall(b"\x82\x11\0\1\0\5ack/#\0\0\4echo\0")
        link.settimeout(PAUSE_S)
        rest = b""

        def listen(until: float) -> None:
            nonlocal rest
            while time.monotonic() < until:
                try:
                    found, rest = packets(rest + link.recv(65536))
                except TimeoutError:
                    continue
                for first, body in found:
                    topic, payload = body[2:6], body[2 + int.from_bytes(body[:2]) :]
                    if first & 0xF0 == 0x30 and topic == b"echo":
                        echoes_ms.append((time.monotonic_ns() - int(payload)) / 1e6)
                    elif first & 0xF0 == 0x30:
                        status, number = _status(payload)
                        unit = (number - 1) % devices + 1
                        took_ms = (time.monotonic_ns() - sent_ns[unit, number]) / 1e6
                        answers_ms.setdefault(status, []).append(took_ms)

        listen(time.monotonic() + 0.2)
        for number in range(1, count + 1):
            unit = (number - 1) % devices + 1
            said = {"id": f"b{number}", "v": number, "t": time.time_ns() // 1_000_000}
            sent_ns[unit, number] = time.monotonic_ns()
            _publish(link, f"set/dev{unit:03d}/sp".encode(), json.dumps(said).encode(), number=number)
            listen(time.monotonic() + PAUSE_S)
            _publish(link, b"echo", str(time.monotonic_ns()).encode(), number=COMMANDS_MAX + number)
            listen(time.monotonic() + PAUSE_S)
        listen(time.monotonic() + ANSWER_S)
        link.sendall(b"\xe0\0")
    answers = {status: len(took) for status, took in answers_ms.items()}
    figures = CommandFigures(sent=count, answers=answers, answers_ms=answers_ms)
    return Sent(sent_ns=sent_ns, echoes_ms=echoes_ms, figures=figures)


def _publish(link: socket.socket, topic: bytes, payload: bytes, *, number: int) -> None:
    """One PUBLISH of QoS 1, shorter than 128 bytes (MQTT 3.1.1 §3.3)."""
    body = len(topic).to_bytes(2) + topic + number.to_bytes(2) + payload
    link.sendall(bytes((0x32, len(body))) + body)


def _status(payload: bytes) -> tuple[str, int]:
    """What a reply says, and the number of its command."""
    said = json.loads(payload)
    status = str(next((said[key] for key in ("status", "result", "outcome", "s") if key in said), "?"))
    return status, int(str(said.get("id", "b0"))[1:])
