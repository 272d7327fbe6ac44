"""A driver made from YAML, in virtual time, in front of a device that speaks bytes by script."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from drivers.modbus.assemble import LinkParts, compile_link, make_driver
from drivers.modbus.driver import ModbusDriver
from gateway.config.load import load
from gateway.core.batch import Batch
from gateway.core.command import Command, CommandResult
from gateway.core.point import Value
from gateway.core.quality import describe
from tests.aio.memory import LoopClock, Network, Wire
from tests.config.kinds import kinds
from tests.virtual_time import now_ns, run

S = 1_000_000_000
MS = 1_000_000
Request = tuple[int, int, bytes]
"""(transaction, unit, PDU)"""


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """MODBUS Messaging on TCP/IP Implementation Guide V1.0b §3.1.3, written here once more on purpose."""
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


class Plc:
    """Answers by script. `registers[unit]`: address → word, the same for registers and, as bits, for coils.

    `reply` may be replaced: it gets a request and says the bytes to send, b"" for none.
    """

    def __init__(self, *units: int, count: int = 200) -> None:
        self.registers = {unit: dict.fromkeys(range(count), 7) for unit in units or (1,)}
        self.asked: list[tuple[int, int, bytes]] = []  # (time, unit, PDU)
        self.delay_s = 0.0
        self.silent: set[int] = set()
        self.reply: Callable[[Plc, Request], bytes] = Plc.answer
        self.pieces: Callable[[bytes], list[bytes]] = lambda data: [data]
        self.network = Network(self._on_data)
        self.under_way = 0
        self.under_way_max = 0

    def times(self, unit: int = 1) -> list[int]:
        """When it was asked, in ms since the start."""
        return [(at - 1000 * S) // MS for at, asked, _pdu in self.asked if asked == unit]

    def requests(self, *functions: int) -> list[bytes]:
        """PDUs it got, those of some functions only."""
        return [pdu for _at, _unit, pdu in self.asked if not functions or pdu[0] in functions]

    def _on_data(self, wire: Wire, data: bytes) -> None:
        while data:
            transaction, protocol, length, unit = struct.unpack_from(">HHHB", data)
            assert protocol == 0
            pdu, data = data[7 : 6 + length], data[6 + length :]
            self.asked.append((now_ns(), unit, pdu))
            self.under_way += 1
            self.under_way_max = max(self.under_way_max, self.under_way)
            if unit in self.silent:
                continue
            said = self.reply(self, (transaction, unit, pdu))
            asyncio.get_running_loop().call_later(self.delay_s, self._say, wire, said)

    def _say(self, wire: Wire, said: bytes) -> None:
        self.under_way -= 1
        for number, piece in enumerate(self.pieces(said) if said else []):
            wire.feed_later(piece, number * 0.001)

    def answer(self, request: Request) -> bytes:
        """As a device does that knows its registers."""
        transaction, unit, pdu = request
        return frame(transaction, unit, self.respond(unit, pdu))

    def respond(self, unit: int, pdu: bytes) -> bytes:
        """The PDU of the answer."""
        words, function = self.registers[unit], pdu[0]
        start, last = struct.unpack(">HH", pdu[1:5])
        count = last if function in {1, 2, 3, 4, 15, 16} else 1
        if any(address not in words for address in range(start, start + count)):
            return bytes((function | 0x80, 2))
        span = range(start, start + count)
        if function in {3, 4}:
            data = b"".join(struct.pack(">H", words[address]) for address in span)
            return bytes((function, len(data))) + data
        if function in {1, 2}:
            bits = sum((words[address] & 1) << n for n, address in enumerate(span))
            data = bits.to_bytes((count + 7) // 8, "little")
            return bytes((function, len(data))) + data
        if function in {5, 6}:
            words[start] = int(last == 0xFF00) if function == 5 else last
        elif function == 16:
            words.update(zip(span, struct.unpack(f">{count}H", pdu[6:]), strict=True))
        elif function == 15:
            words.update({address: pdu[6 + n // 8] >> n % 8 & 1 for n, address in enumerate(span)})
        elif function == 22:
            and_mask, or_mask = struct.unpack(">HH", pdu[3:7])
            words[start] = words[start] & and_mask | or_mask & ~and_mask & 0xFFFF
            return pdu
        return pdu[:5]


class Shown:
    """Sink: every batch, and the last value and quality of every point."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.points: dict[str, tuple[Value, str]] = {}
        self.history: list[tuple[int, str, Value, str]] = []  # (ms since the start, point, value, quality)
        self.blocked = False
        self.hurried = False
        self.fault: Exception | None = None

    def put(self, batch: Batch) -> Shown:
        if self.fault is not None:
            raise self.fault
        self.batches.append(batch)
        for point, value, quality, _time in batch.rows():
            text = describe(quality)
            assert (value is None) == text.startswith("bad"), "bad is never a number, good never nothing"
            self.points[point.name] = (value, text)
            self.history.append(((now_ns() - 1000 * S) // MS, point.name, value, text))
        return self

    def is_blocked(self) -> bool:
        return self.blocked

    def is_hurried(self) -> bool:
        return self.hurried

    def pause_ns(self) -> int:
        return 0

    def is_committed(self) -> bool:
        return True

    def on_commit(self, callback: Callable[[], None]) -> None:
        callback()

    def of(self, point: str) -> list[tuple[int, Value, str]]:
        """What was shown of one point."""
        return [(at, value, text) for at, name, value, text in self.history if name == point]


class Rig:
    """A driver and what stands around it."""

    def __init__(self, driver: ModbusDriver, plc: Plc, shown: Shown, clock: LoopClock) -> None:
        self.driver = driver
        self.plc = plc
        self.shown = shown
        self.clock = clock
        self.task = asyncio.get_running_loop().create_task(driver.run())

    async def command(
        self, target: str, value: Value, *, within_s: float = 5, on_sent: Callable[[], None] = lambda: None
    ) -> CommandResult:
        """Execute one command."""
        device, tag = target.split("/")
        deadline_ns = now_ns() + round(within_s * S)
        command = Command(
            id="c", device=device, tag=tag, value=value, issuer="test", received_ns=0,
            deadline_monotonic_ns=deadline_ns,
        )  # fmt: skip
        return await self.driver.execute(command, on_sent or (lambda: None))


def parts_of(text: str) -> LinkParts:
    """The parts of the link `plc` of a configuration; `text` is everything below the first two lines."""
    head = "version: 1\ngateway: {name: g}\nhttp: {listen: '127.0.0.1:0'}\n"
    with TemporaryDirectory() as folder:
        path = Path(folder, "gateway.yaml")
        path.write_text(head + text)
        site = load(path, kinds())
    devices = [device for device in site.devices.values() if device.link == "plc"]
    return compile_link(site.links["plc"], devices, site.scans)


def driven(
    text: str, script: Callable[[Rig], Awaitable[None]], *, plc: Plc | None = None, shown: Shown | None = None
) -> Rig:
    """Run a driver in virtual time while `script` does."""
    parts = parts_of(text)
    assert parts.problems == ()

    async def main() -> Rig:
        device, sink, clock = plc or Plc(), shown or Shown(), LoopClock()
        device.network.install()
        rig = Rig(make_driver(parts, sink=sink, clock=clock), device, sink, clock)
        try:
            await script(rig)
        except AssertionError as failure:
            if rig.task.done() and not rig.task.cancelled():
                failure.add_note(f"the driver ended with {rig.task.exception()!r}")
            raise
        rig.task.cancel()
        await asyncio.wait([rig.task], timeout=5)
        assert rig.task.done()
        assert not [wire for wire in device.network.wires if wire.is_open]
        if not rig.task.cancelled() and rig.task.exception() is not None:
            raise rig.task.exception()  # type: ignore[misc]  # mypy does not see the condition
        return rig

    return run(main())
