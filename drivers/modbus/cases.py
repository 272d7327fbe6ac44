"""What maps' cases ask of this driver: registers to values, and a command to requests, as when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from drivers.modbus.address import Address, parse
from drivers.modbus.assemble import LinkParts, decoders_of, write_targets
from drivers.modbus.wire import pdu
from drivers.modbus.wire.client import Answer
from drivers.modbus.wire.pdu import FunctionCode, Table
from drivers.modbus.write import Step
from gateway.aio.clock import SystemClock
from gateway.config.maps import Given, Reading
from gateway.core.command import Command
from gateway.core.point import Value

MODEL: Final = {"driver": "modbus", "host": "127.0.0.1"}
"""A link that a site for cases can have; nothing is opened."""
_WRITES: Final = frozenset(
    {
        FunctionCode.WRITE_SINGLE_COIL,
        FunctionCode.WRITE_SINGLE_REGISTER,
        FunctionCode.WRITE_MULTIPLE_COILS,
        FunctionCode.WRITE_MULTIPLE_REGISTERS,
        FunctionCode.MASK_WRITE_REGISTER,
    }
)


class Registers:
    """What a device has, item by item. Raises ValueError, for people, for what cannot be there."""

    def __init__(self, given: Mapping[str | int, Given]) -> None:
        self._items: dict[tuple[Table, int], int] = {}
        for key, data in given.items():
            address = parse(key)
            for index, item in enumerate(_items(address, data)):
                place = (address.table, address.offset + index)
                if place in self._items:
                    raise ValueError(f"found {Address(*place)} twice, expected it once")
                self._items[place] = item

    def has(self, table: Table, start: int, count: int) -> bool:
        """Whether all of it is known."""
        return all((table, start + index) in self._items for index in range(count))

    def data(self, table: Table, start: int, count: int) -> bytes:
        """As a read answer has it; zero where nothing is known."""
        items = [self._items.get((table, start + index), 0) for index in range(count)]
        if table.has_bits:
            return pdu.pack_bits(bool(item) for item in items)
        return b"".join(item.to_bytes(2, "big") for item in items)


def _items(address: Address, data: Given) -> tuple[int, ...]:
    if not isinstance(data, bytes):
        if address.table.has_bits and any(item > 1 for item in data):
            raise ValueError(f"found {max(data)} at {address}, expected 0 or 1")
        return data
    if address.table.has_bits:
        raise ValueError(f"found bytes at {address}, expected a list of bits such as [1, 0, 0]")
    if len(data) % 2:
        raise ValueError(f"found {len(data)} bytes at {address}, expected two for each register")
    return tuple(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))


def read_case(parts: LinkParts, given: Mapping[str | int, Given]) -> Reading:
    """Tag → (value, quality) of every tag all of whose registers are given. Raises ValueError, for people."""
    registers = Registers(given)
    shown: Reading = {}
    for part in parts.scans:
        for block in part.plan.blocks:
            decode, _ = decoders_of(part)(block)
            values, quality = decode(registers.data(block.table, block.start, block.count))
            for place, column in enumerate(block.columns):
                one = part.fields[column]
                if registers.has(block.table, one.first, one.extent):
                    name = part.layout.points[column].tag
                    shown[name] = values[place], quality if isinstance(quality, int) else quality[place]
    return shown


def write_case(
    parts: LinkParts, tag: str, value: Value, given: Mapping[str | int, Given]
) -> tuple[bytes, ...]:
    """The requests (PDUs) that write a value to a tag. Raises ValueError, for people, for a refusal."""
    targets = {name: target for part in parts.scans for (_, name), target in write_targets(part)}
    if tag not in targets:
        raise ValueError(f"found no writable tag {tag}, expected one of {', '.join(targets) or 'none'}")
    target = msgspec.structs.replace(targets[tag], verify_within_ns=0, attempts=1)
    registers, sent = Registers(given), list[bytes]()

    async def ask(step: Step) -> Answer:
        if step.pdu[0] in _WRITES:
            sent.append(step.pdu)
            return Answer(None, b"", 0)
        return Answer(None, registers.data(target.table, target.start, target.count), 0)

    command = Command(
        id="", device="", tag=tag, value=value, issuer="", received_ns=0, deadline_monotonic_ns=0
    )
    steps = target.steps(value).carry_out(command, ask, lambda: None, SystemClock())
    try:
        steps.send(None)  # nothing in it waits: `ask` answers at once and there is no read-back
    except StopIteration:
        return tuple(sent)
    raise AssertionError("a write without read-back waited")
