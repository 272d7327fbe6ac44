"""The whole driver against pymodbus' server over loopback: every type and order read and written."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from drivers.modbus.assemble import make_driver
from drivers.modbus.driver import ModbusDriver
from gateway.aio.clock import SystemClock
from gateway.aio.loop import loop_factory
from gateway.core.batch import Batch
from gateway.core.command import Command, CommandResult
from gateway.core.point import Value
from gateway.core.quality import describe
from tests.drivers.modbus.rig import parts_of
from tests.peers import LOOPBACK, require

pytestmark = pytest.mark.interop

UNIT = 17
PATIENCE_S = 10.0
VALUES: dict[str, tuple[str, Value]] = {  # type → what `struct` writes it with, big endian, and a value
    "int16": (">h", -12345),
    "uint16": (">H", 54321),
    "int32": (">i", -1234567890),
    "uint32": (">I", 4234567890),
    "int64": (">q", -1234567890123456789),
    "uint64": (">Q", 12345678901234567890),
    "float32": (">f", 1234.5),
    "float64": (">d", -1234.56789),
}
ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")


def words(code: str, value: Value, order: str) -> list[int]:
    """As registers, written here with plain slices: CDAB swaps words, BADC bytes, DCBA both."""
    data = struct.pack(code, value)
    pairs = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order in {"CDAB", "DCBA"}:
        pairs.reverse()
    if order in {"BADC", "DCBA"}:
        pairs = [pair[::-1] for pair in pairs]
    return [int.from_bytes(pair, "big") for pair in pairs]


def layout() -> tuple[str, dict[str, Value], list[int]]:
    """Tags in YAML, their values, and 200 holding registers."""
    lines: list[str] = []
    truth: dict[str, Value] = {}
    registers = [0] * 200
    at = 0
    for name, (code, value) in VALUES.items():
        for order in ORDERS:
            tag = f"{name}-{order}".lower()
            own = words(code, value, order)
            registers[at : at + len(own)] = own
            lines.append(
                f'{tag}: {{at: "hr:{at}", type: {name}, order: {order}, write: {{verify: readback}}}}'
            )
            truth[f"d/{tag}"] = value
            at += len(own)
    registers[at : at + 3] = [0x1234, 0x1234, 0x5678]
    lines.append(f'bcd16: {{at: "hr:{at}", type: bcd16}}')
    lines.append(f'bcd32: {{at: "hr:{at + 1}", type: bcd32}}')
    truth |= {"d/bcd16": 1234, "d/bcd32": 12345678}
    at += 3
    registers[at : at + 3] = [0x5055, 0x4D50, 0x3700]
    lines.append(f'name: {{at: "hr:{at}", type: string, length: 6, write: {{verify: readback}}}}')
    truth["d/name"] = "PUMP7"
    at += 3
    registers[at] = 0b1000
    lines += [
        f'bit3: {{at: "hr:{at}", bit: 3, write: {{verify: readback}}}}',
        f'bit4: {{at: "hr:{at}", bit: 4, write: {{verify: readback}}}}',
        f'scaled: {{at: "hr:{at + 1}", type: int16, scale: 0.1, write: {{verify: readback}}}}',
        'coil: {at: "co:9", write: {verify: readback}}',
        'contact: {at: "di:8"}',
        'input: {at: "ir:5", type: uint16}',
        'nowhere: {at: "hr:900", type: uint16}',
    ]
    registers[at + 1] = 215
    truth |= {"d/bit3": True, "d/bit4": False, "d/scaled": 21.5}
    truth |= {"d/coil": True, "d/contact": True, "d/input": 500}
    return "\n".join(f"      {line}" for line in lines), truth, registers


class Last:
    """Sink: the last value of every point; `changed` is set by each batch."""

    def __init__(self) -> None:
        self.points: dict[str, tuple[Value, str]] = {}
        self.changed = asyncio.Event()

    def put(self, batch: Batch) -> Last:
        for point, value, quality, _time in batch.rows():
            self.points[point.name] = (value, describe(quality))
        self.changed.set()
        return self

    def is_blocked(self) -> bool:
        return False

    def is_hurried(self) -> bool:
        return False

    def pause_ns(self) -> int:
        return 0

    def is_committed(self) -> bool:
        return True

    def on_commit(self, callback: Callable[[], None]) -> None:
        callback()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@contextmanager
def pymodbus_device(registers: list[int]) -> Iterator[Any]:
    """Its pieces, to be made inside the loop that serves them."""
    require("pymodbus")
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    def make(port: int = 0) -> Any:
        coils = SimData(0, values=[n % 3 == 0 for n in range(40)], datatype=DataType.BITS)
        inputs = SimData(0, values=[n % 2 == 0 for n in range(40)], datatype=DataType.BITS)
        holding = SimData(0, values=registers, datatype=DataType.REGISTERS)
        readings = SimData(0, values=[n * 100 for n in range(40)], datatype=DataType.REGISTERS)
        device = SimDevice(id=UNIT, simdata=([coils], [inputs], [holding], [readings]))
        return ModbusTcpServer(device, address=(LOOPBACK, port))

    yield make


def driven(
    script: Callable[[ModbusDriver, Last, Any, Callable[..., Any]], Awaitable[None]], *, options: str = ""
) -> None:
    """A server of pymodbus and our driver in one loop."""
    tags, _truth, registers = layout()

    async def main() -> None:
        with pymodbus_device(registers) as make:
            server = make()
            await server.listen()
            port = server.transport.sockets[0].getsockname()[1]
            site = (
                f'links: {{plc: {{driver: modbus, host: "{LOOPBACK}:{port}", timeout: 2s,'
                " reconnect: {min: 10ms, max: 50ms}}}\n"
                "scan: {normal: 20ms}\n"
                f"devices:\n  d:\n    link: plc\n    unit: {UNIT}\n{options}    tags:\n{tags}\n"
            )
            last = Last()
            driver = make_driver(parts_of(site), sink=last, clock=SystemClock())
            task = asyncio.get_running_loop().create_task(driver.run())
            try:
                await script(driver, last, server, make)
            finally:
                task.cancel()
                await asyncio.wait([task])
                await server.shutdown()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


async def command(driver: ModbusDriver, tag: str, value: Value) -> CommandResult:
    deadline_ns = SystemClock().monotonic_ns() + 5 * 10**9
    asked = Command(
        id="c",
        device="d",
        tag=tag,
        value=value,
        issuer="test",
        received_ns=0,
        deadline_monotonic_ns=deadline_ns,
    )
    return await driver.execute(asked, lambda: None)


def test_every_type_and_order_is_read_as_pymodbus_holds_it() -> None:
    _tags, truth, _registers = layout()

    async def script(driver: ModbusDriver, last: Last, server: Any, make: Any) -> None:
        await last.until(lambda: len(last.points) == len(truth) + 1 and last.points["d/name"][0] is not None)
        found = {name: value for name, (value, _quality) in last.points.items() if name in truth}
        assert found == truth
        assert last.points.pop("d/nowhere") == (None, "bad/no-such-address")  # and only that one
        assert {quality for _value, quality in last.points.values()} == {"good"}

    driven(script)


@pytest.mark.parametrize("function", ["auto", "multiple"])
def test_every_type_and_order_is_written_so_that_pymodbus_reads_it(function: str) -> None:
    _tags, truth, _registers = layout()
    new: dict[str, Value] = {"name": "VALVE", "scaled": -1.5, "coil": False, "bit3": False, "bit4": True}
    changed: dict[str, Value] = {"int16": 1, "uint16": 0, "int32": 7, "uint32": 0, "int64": -1, "uint64": 1}
    changed |= {"float32": -0.5, "float64": 0.0}

    async def script(driver: ModbusDriver, last: Last, server: Any, make: Any) -> None:
        await last.until(lambda: len(last.points) == len(truth) + 1)
        for name, value in changed.items():
            for order in ORDERS:
                new[f"{name}-{order}".lower()] = value
        for tag, value in new.items():
            result = await command(driver, tag, value)
            assert (tag, result.outcome.value, result.value) == (tag, "verified", value), result.reason
        held = await server.async_getValues(UNIT, 3, 0, 200)
        at = 0
        for name, (code, _value) in VALUES.items():
            for order in ORDERS:
                expected = words(code, changed[name], order)
                assert held[at : at + len(expected)] == expected, (name, order)
                at += len(expected)
        assert held[at : at + 3] == [0x1234, 0x1234, 0x5678]  # its neighbours are untouched
        assert held[at + 3 : at + 8] == [0x5641, 0x4C56, 0x4500, 0b10000, 0x10000 - 15]
        assert list(await server.async_getValues(UNIT, 1, 8, 3)) == [False, False, False]
        assert driver.session.counters.exceptions == {2: driver.session.counters.exceptions[2]}

    how = "mask" if function == "auto" else "rmw"
    driven(script, options=f"    write_function: {function}\n    bit_write: {how}\n")


def test_a_server_that_goes_away_and_comes_back() -> None:
    _tags, truth, _registers = layout()

    async def script(driver: ModbusDriver, last: Last, server: Any, make: Any) -> None:
        await last.until(lambda: len(last.points) == len(truth) + 1)
        port = server.transport.sockets[0].getsockname()[1]
        await server.shutdown()
        await last.until(lambda: last.points["d/bcd16"] == (None, "bad/comm-lost"))
        assert {quality for _value, quality in last.points.values()} == {"bad/comm-lost"}
        second = make(port)
        await second.listen()
        try:
            await last.until(lambda: last.points["d/bcd16"] == (1234, "good"))
        finally:
            await second.shutdown()

    driven(script)
