"""Sends commands one after the other while the plant is polled, and remembers when each left."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter

import msgspec

from bench.checker import packets

PAUSE_S = 0.02  # between two commands: each meets another phase of the polling
ANSWER_S = 5.0


class CommandFigures(msgspec.Struct):
    """How the commands were answered: results by what they said, and the time to the final one."""

    sent: int
    answers: dict[str, int]


class Sent(msgspec.Struct):
    """What was sent: (unit, value) → CLOCK_MONOTONIC ns."""

    sent_ns: dict[tuple[int, int], int]
    figures: CommandFigures


def drive(mqtt_port: int, *, devices: int, count: int) -> Sent:
    """Send `count` commands to the set-points of the devices in turn, QoS 1, each value once."""
    sent_ns: dict[tuple[int, int], int] = {}
    answers: Counter[str] = Counter()
    with socket.create_connection(("127.0.0.1", mqtt_port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"\x10\x15\0\4MQTT\4\2\0\0\0\x09commander")
        link.sendall(b"\x82\x0a\0\1\0\5ack/#\0")
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
                    if first & 0xF0 == 0x30:
                        answers[_status(body[2 + int.from_bytes(body[:2]) :])] += 1

        listen(time.monotonic() + 0.2)
        for number in range(1, count + 1):
            unit = (number - 1) % devices + 1
            topic = f"set/dev{unit:03d}/sp".encode()
            payload = json.dumps({"id": f"b{number}", "v": number, "t": time.time_ns() // 1_000_000}).encode()
            body = len(topic).to_bytes(2) + topic + number.to_bytes(2) + payload
            packet = bytes((0x32, len(body))) + body
            sent_ns[unit, number] = time.monotonic_ns()
            link.sendall(packet)
            listen(time.monotonic() + PAUSE_S)
        listen(time.monotonic() + min(ANSWER_S, 1.0))
        link.sendall(b"\xe0\0")
    return Sent(sent_ns=sent_ns, figures=CommandFigures(sent=count, answers=dict(answers)))


def _status(payload: bytes) -> str:
    said = json.loads(payload)
    return str(next((said[key] for key in ("status", "result", "outcome", "s") if key in said), "?"))
