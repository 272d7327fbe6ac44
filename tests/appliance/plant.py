"""Inside the machine: a Modbus unit whose holding registers 0 and 1 count how often they were read.

Needs nothing but Python, so that it outlives the package under test.
"""

import asyncio
import struct
import sys
from pathlib import Path

HEAD = struct.Struct(">HHHBB")  # MBAP header and function, Modbus Messaging on TCP/IP V1.0b clause 3.1.3


class Unit(asyncio.Protocol):
    """One connection; the count is everybody's."""

    count = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 12:
            transaction, _, length, unit, function = HEAD.unpack_from(self.buffer)
            request, self.buffer = self.buffer[: 6 + length], self.buffer[6 + length :]
            start, registers = struct.unpack_from(">HH", request, 8)
            if function != 3:
                self.transport.write(HEAD.pack(transaction, 0, 3, unit, function | 0x80) + b"\x01")
                continue
            if start == 0:
                Unit.count += 1
            values = [Unit.count >> 16, Unit.count & 0xFFFF, *([7] * registers)]
            body = struct.pack(f">{registers}H", *values[start : start + registers])
            self.transport.write(
                HEAD.pack(transaction, 0, 3 + len(body), unit, function) + bytes([len(body)]) + body
            )


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Unit, "127.0.0.1", int(sys.argv[1]))
    ready()
    await server.serve_forever()


def ready() -> None:
    """It listens."""
    Path(sys.argv[2]).touch()


asyncio.run(main())
