"""Requests for commands, which go out before any read, and how many of them and of reads may wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, TypeAlias

from drivers.modbus.wire.client import Event, Lost
from drivers.modbus.write import Superseded, WriteTarget
from gateway.core.bounded import Bound, Level

URGENT_MAX: Final = 256  # requests for commands waiting at once; more are rejected

Reply: TypeAlias = Event | Superseded | None
"""What became of a request; None: its time ran out before it was sent."""


class Request:
    """One request for a command: goes out before any read that has not."""

    __slots__ = ("answer", "deadline_ns", "pdu", "point", "unit")

    def __init__(
        self,
        *,
        unit: int,
        pdu: bytes,
        deadline_ns: int,
        answer: asyncio.Future[Reply],
        point: WriteTarget | None = None,
    ) -> None:
        """`point`: a newer request for the same one takes its place while it waits."""
        self.point = point
        self.unit = unit
        self.pdu = pdu
        self.deadline_ns = deadline_ns
        self.answer = answer


class Urgent:
    """The requests for commands of one link: first come, first sent."""

    def __init__(self) -> None:
        self._waiting: deque[Request] = deque()
        self._asked: set[Request] = set()  # those without an answer, waiting and sent
        self._refused = 0

    def __bool__(self) -> bool:
        """Whether any waits."""
        return bool(self._waiting)

    def has_room(self) -> bool:
        """Whether one more may wait; counted where not."""
        is_full = len(self._waiting) >= URGENT_MAX
        self._refused += is_full
        return not is_full

    def add(
        self, unit: int, pdu: bytes, deadline_ns: int, point: WriteTarget | None = None
    ) -> asyncio.Future[Reply]:
        """One more waits; its answer."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        one = Request(unit=unit, pdu=pdu, deadline_ns=deadline_ns, answer=answer, point=point)
        if point is not None:
            for waiting in self._waiting:
                if waiting.point is point and not waiting.answer.done():
                    waiting.answer.set_result(Superseded())
        self._asked.add(one)
        answer.add_done_callback(lambda _answer: self._asked.discard(one))
        self._waiting.append(one)
        return answer

    def take(self, now_ns: int) -> Request | None:
        """The next to send; None where none is worth it any more."""
        while self._waiting:
            request = self._waiting.popleft()
            if request.answer.done():
                continue
            if now_ns < request.deadline_ns:
                return request
            request.answer.set_result(None)
        return None

    def fail(self) -> None:
        """The link is gone: what waits is not sent."""
        for request in self._waiting:
            if not request.answer.done():
                request.answer.set_result(Lost(request, was_sent=False))
        self._waiting.clear()

    def forget(self) -> None:
        """The driver ends: nobody will answer what was sent."""
        self.fail()
        for request in self._asked:
            if not request.answer.done():
                request.answer.set_result(Lost(request, was_sent=True))

    def level(self) -> Level:
        """How many wait."""
        return URGENT.at(len(self._waiting), URGENT_MAX, self._refused)


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
    holds=("requests.Urgent._waiting",),
)
IN_FLIGHT: Final = Bound(
    noun="link_in_flight",
    unit="requests",
    what="requests sent and not answered (`max_in_flight`)",
    beyond="the next ones wait",
    lost="",
    labels=("link",),
)
