"""The plant in Python, for a machine without a C compiler: same arguments, ports, logs and values as plant.c.

It is several times slower: figures taken with it may be the plant's, and the report says so.
"""

from __future__ import annotations

import asyncio
import json
import resource
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

from bench.formula import REGISTERS_MAX, WRITABLE, WRITABLE_AT, Mode, registers_of

HEAD = struct.Struct(">HHHBB")  # MBAP (Modbus Messaging on TCP/IP §3.1.3) and function
INPUT_MAX = 65536


class Plant:
    """All units and what was counted."""

    def __init__(
        self,
        mode: Mode,
        *,
        units: int,
        registers: int,
        reads_log: BinaryIO | None,
        writes_log: BinaryIO | None,
    ) -> None:
        self.mode, self.units, self.registers = mode, units, registers
        self.reads = dict.fromkeys(range(1, units + 1), 0)
        self.image = {unit: registers_of(0, unit=unit, count=registers, mode=mode) for unit in self.reads}
        self.writable = {unit: [0] * WRITABLE for unit in self.reads}
        self.logs = reads_log, writes_log
        self.counts = dict.fromkeys(("reads", "registers", "writes", "refused"), 0)

    def answer(self, unit: int, pdu: bytes) -> bytes:
        """One request PDU, one reply PDU."""
        function = pdu[0]
        if unit not in self.reads:
            return self._refuse(function, 11)
        if function in {3, 4} and len(pdu) == 5:
            return self._read(unit, function, *struct.unpack_from(">HH", pdu, 1))
        if function == 6 and len(pdu) == 5:
            at, value = struct.unpack_from(">HH", pdu, 1)
            return pdu if self._write(unit, at, [value]) else self._refuse(function, 2)
        if function == 16 and len(pdu) >= 8 and len(pdu) == 6 + pdu[5] == 6 + 2 * int.from_bytes(pdu[3:5]):
            at, count = struct.unpack_from(">HH", pdu, 1)
            values = struct.unpack_from(f">{count}H", pdu, 6)
            return pdu[:5] if self._write(unit, at, list(values)) else self._refuse(function, 2)
        return self._refuse(function, 3 if function in {3, 4, 6, 16} else 1)

    def _read(self, unit: int, function: int, at: int, count: int) -> bytes:
        if not 1 <= count <= 125:
            return self._refuse(function, 3)
        if at + count <= self.registers:
            if at == 0:
                self._next(unit)
            values = self.image[unit][at : at + count]
        elif at >= WRITABLE_AT and at + count <= WRITABLE_AT + WRITABLE:
            values = self.writable[unit][at - WRITABLE_AT : at - WRITABLE_AT + count]
        else:
            return self._refuse(function, 2)
        self.counts["reads"] += 1
        self.counts["registers"] += count
        return struct.pack(f">BB{count}H", function, 2 * count, *values)

    def _next(self, unit: int) -> None:
        self.reads[unit] += 1
        self.image[unit] = registers_of(self.reads[unit], unit=unit, count=self.registers, mode=self.mode)
        if self.logs[0] is not None:
            self.logs[0].write(struct.pack("<HHIQ", unit, 0, self.reads[unit], time.monotonic_ns()))

    def _write(self, unit: int, at: int, values: list[int]) -> bool:
        if at < WRITABLE_AT or at + len(values) > WRITABLE_AT + WRITABLE:
            return False
        self.writable[unit][at - WRITABLE_AT : at - WRITABLE_AT + len(values)] = values
        self.counts["writes"] += len(values)
        if self.logs[1] is not None:
            for address, value in enumerate(values, at):
                record = struct.pack("<HHHHQ", unit, address, value, 0, time.monotonic_ns())
                self.logs[1].write(record)
            self.logs[1].flush()
        return True

    def _refuse(self, function: int, exception: int) -> bytes:
        self.counts["refused"] += 1
        return bytes((function | 0x80, exception))


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, plant: Plant) -> None:
        self._plant, self._buffer = plant, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request in one write."""
        data = self._buffer + data
        at, replies = 0, []
        while len(data) - at >= HEAD.size:
            transaction, protocol, length, unit, _function = HEAD.unpack_from(data, at)
            if protocol or not 2 <= length <= 254:
                self._transport.close()
                return
            if len(data) - at < 6 + length:
                break
            reply = self._plant.answer(unit, data[at + 7 : at + 6 + length])
            replies.append(struct.pack(">HHHB", transaction, 0, len(reply) + 1, unit) + reply)
            at += 6 + length
        self._buffer = data[at:]
        self._transport.write(b"".join(replies))


def _log(path: str) -> BinaryIO | None:
    return None if path == "-" else Path(path).open("wb")  # open as long as the process


async def main(mode: str, units: int, registers: int, ports: int, reads_log: str, writes_log: str) -> None:
    """Serve until killed."""
    if not (1 <= units <= 247 and 1 <= registers <= REGISTERS_MAX):
        raise SystemExit(f"plant: 1..247 units, 1..{REGISTERS_MAX} registers")
    logs = [_log(path) for path in (reads_log, writes_log)]
    plant = Plant(Mode(mode), units=units, registers=registers, reads_log=logs[0], writes_log=logs[1])

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_us = round((used.ru_utime + used.ru_stime) * 1e6)
        counters = {**plant.counts, "cpu_us": cpu_us, "t_ns": time.monotonic_ns()}
        if logs[0] is not None:
            logs[0].flush()
        writer.write(json.dumps(counters).encode() + b"\n")
        await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Connection(plant), "127.0.0.1", 0) for _ in range(ports)]
    control = await asyncio.start_server(tell, "127.0.0.1", 0)
    numbers = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps({"control": control.sockets[0].getsockname()[1], "ports": numbers}), flush=True)
    await loop.create_future()


if __name__ == "__main__":
    mode, *numbers, reads_log, writes_log = sys.argv[1:]
    units, registers, ports = map(int, numbers)
    try:
        import uvloop

        uvloop.run(main(mode, units, registers, ports, reads_log, writes_log))
    except ImportError:
        asyncio.run(main(mode, units, registers, ports, reads_log, writes_log))
