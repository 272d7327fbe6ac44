"""The bare path: Modbus to MQTT in one uvloop process with no model, no quality, no journal, no errors.

    python -m bench.raw MQTT_PORT DEVICES REGISTERS DEPTH MODBUS_PORT...

What remains when everything that makes a gateway is left out: one struct and one JSON text per block, QoS 1
with a window. The gateway's figures stand beside it to show what its features cost.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from functools import partial
from typing import Any

import msgspec

WINDOW = 4000  # PUBLISH packets not acknowledged
encode = msgspec.json.Encoder().encode


class Broker(asyncio.Protocol):
    """Publishes QoS 1 and counts acknowledgements."""

    def __init__(self) -> None:
        self.ready = asyncio.get_running_loop().create_future()
        self.in_flight, self.identifier = 0, 0
        self.waiting: list[Plant] = []
        self.parts: list[bytes] = []
        self.rest = b""

    def connection_made(self, transport: Any) -> None:
        """Say CONNECT."""
        self.transport = transport
        transport.write(b"\x10\x0f\0\4MQTT\4\2\0\0\0\3raw")

    def data_received(self, data: bytes) -> None:
        """CONNACK first, then only PUBACKs of 4 bytes."""
        data = self.rest + data
        if not self.ready.done():
            self.ready.set_result(None)
            data = data[4:]
        self.in_flight -= len(data) // 4
        self.rest = data[len(data) // 4 * 4 :]
        if self.in_flight < WINDOW // 2:
            waiting, self.waiting = self.waiting, []
            for plant in waiting:
                plant.ask(plant.owed)

    def publish(self, topic: bytes, payload: bytes) -> None:
        """Queue one message for the next flush."""
        self.identifier = self.identifier % 65535 + 1
        length = len(topic) + len(payload) + 2
        head = bytes((0x32, length & 0x7F | 0x80, length >> 7)) if length > 127 else bytes((0x32, length))
        self.parts += (head, topic, self.identifier.to_bytes(2), payload)
        self.in_flight += 1

    def flush(self) -> None:
        """Write what was queued, in one piece."""
        self.transport.write(b"".join(self.parts))
        self.parts.clear()


class Plant(asyncio.Protocol):
    """Reads its units in turn, DEPTH requests in flight."""

    def __init__(self, broker: Broker, units: list[int], registers: int, depth: int) -> None:
        self.broker, self.depth, self.owed, self.at, self.buffer, self.count = broker, depth, 0, 0, b"", 0
        self.size = 9 + 2 * registers
        self.unpack = struct.Struct(f">{registers}H").unpack_from
        names = {f"f{number}": f"r{number:03d}" for number in range(registers)}
        self.values = msgspec.defstruct("Values", names, rename=names, gc=False)
        self.requests = [struct.pack(">HHHBBHH", unit, 0, 6, unit, 3, 0, registers) for unit in units]
        topics = {unit: f"bench/dev{unit:03d}".encode() for unit in units}
        self.topics = {unit: len(topic).to_bytes(2) + topic for unit, topic in topics.items()}

    def connection_made(self, transport: Any) -> None:
        """Fill the pipe."""
        self.transport = transport
        self.ask(self.depth)

    def ask(self, count: int) -> None:
        """Send the next requests."""
        self.owed = 0
        requests, n = self.requests, len(self.requests)
        self.transport.write(b"".join([requests[(self.at + i) % n] for i in range(count)]))
        self.at = (self.at + count) % n

    def data_received(self, data: bytes) -> None:
        """One message for each complete reply."""
        data = self.buffer + data if self.buffer else data
        size, at, end, broker = self.size, 0, len(data), self.broker
        now = time.time_ns() // 1_000_000
        whole = end // size
        for at in range(0, whole * size, size):
            self.count += 1
            text = encode(self.values(*self.unpack(data, at + 9)))
            payload = b'{"t":%d,"e":1,"n":%d,"v":%b}' % (now, self.count, text)
            broker.publish(self.topics[data[at + 6]], payload)
        self.buffer = data[whole * size :]
        if whole:
            broker.flush()
            if broker.in_flight < WINDOW:
                self.ask(whole + self.owed)
            else:
                if not self.owed:
                    broker.waiting.append(self)
                self.owed += whole


def _same(plant: Plant) -> Plant:
    return plant


async def main(mqtt_port: int, devices: int, registers: int, depth: int, ports: list[int]) -> None:
    """Poll until killed."""
    loop = asyncio.get_running_loop()
    _, broker = await loop.create_connection(Broker, "127.0.0.1", mqtt_port)
    await broker.ready
    for number, port in enumerate(ports):
        units = list(range(number + 1, devices + 1, len(ports)))
        plant = Plant(broker, units, registers, depth)
        await loop.create_connection(partial(_same, plant), "127.0.0.1", port)
    await loop.create_future()


if __name__ == "__main__":
    mqtt_port, devices, registers, depth, *ports = map(int, sys.argv[1:])
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run  # type: ignore[assignment]  # the same call, slower
    run(main(mqtt_port, devices, registers, depth, ports))
