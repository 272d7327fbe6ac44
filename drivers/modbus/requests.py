"""Requests for commands, and how many of them and of reads may wait for the wire."""

from __future__ import annotations

import asyncio
from typing import Final

from drivers.modbus.wire.client import Event
from drivers.modbus.write import Superseded, WriteTarget
from gateway.core.bounded import Bound

URGENT_MAX: Final = 256  # requests for commands waiting at once; more are rejected


class Request:
    """One request for a command: goes out before any read that has not."""

    __slots__ = ("answer", "deadline_ns", "pdu", "point", "unit")

    def __init__(
        self,
        *,
        unit: int,
        pdu: bytes,
        deadline_ns: int,
        answer: asyncio.Future[Event | Superseded | None],
        point: WriteTarget | None = None,
    ) -> None:
        """`point`: a newer request for the same one takes its place while it waits."""
        self.point = point
        self.unit = unit
        self.pdu = pdu
        self.deadline_ns = deadline_ns
        self.answer = answer


READS: Final = Bound(
    noun="link_waiting_reads",
    unit="requests",
    what="reads of scans under way that wait for the wire; at most one for each tag",
    beyond="cannot be: a scan starts when the last one has ended",
    lost="",
    labels=("link",),
    holds=("driver.ModbusDriver._reads", "driver.ModbusDriver._later", "driver.ModbusDriver._inquiring"),
)
URGENT: Final = Bound(
    noun="link_waiting_writes",
    unit="requests",
    what="writes and read-backs of commands that wait for the wire",
    beyond="a command is refused",
    lost="refused",
    labels=("link",),
    holds=("driver.ModbusDriver._urgent",),
)
IN_FLIGHT: Final = Bound(
    noun="link_in_flight",
    unit="requests",
    what="requests sent and not answered (`max_in_flight`)",
    beyond="the next ones wait",
    lost="",
    labels=("link",),
)
