"""In front of what answers: requests that a simulated unit does not hear, or refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from drivers.modbus.simulator.faults import Faults, Kind
from drivers.modbus.wire.line_server import LineServer
from drivers.modbus.wire.model import DataModel
from drivers.modbus.wire.pdu import exception_response
from drivers.modbus.wire.respond import Answers, Reply

Seen: TypeAlias = Callable[[int, bytes, bytes | None], None]
"""(unit, request, answer or None): told of every exchange."""


class Gate:
    """What happens to each request."""

    def __init__(self, link: str, faults: Faults, seen: Seen) -> None:
        self._link: Final = link
        self._faults: Final = faults
        self._seen: Final = seen

    def answer(self, unit: int, pdu: bytes, carry_out: Callable[[int, bytes], Reply | None]) -> Reply | None:
        """The answer, a refusal, or None."""
        struck = self._faults.strike(self._link, unit, pdu[0], of_request=True)
        reply: Reply | None
        if any(fault.kind is Kind.SILENCE for fault in struck):
            reply = None
        elif struck:
            reply = exception_response(pdu[0], struck[-1].code)
        else:
            reply = carry_out(unit, pdu)
        self._seen(unit, pdu, reply if isinstance(reply, bytes) else None)
        return reply


class FaultyResponder:
    """A responder behind the gate: for tcp, tls and udp."""

    def __init__(self, responder: Answers, gate: Gate) -> None:
        self._responder: Final = responder
        self._gate: Final = gate

    @property
    def model(self) -> DataModel:
        """The responder's."""
        return self._responder.model

    def answer(self, unit: int, pdu: bytes) -> Reply | None:
        """As `Answers`."""
        return self._gate.answer(unit, pdu, self._responder.answer)

    def may_broadcast(self, pdu: bytes) -> bool:
        """As `Answers`."""
        return self._responder.may_broadcast(pdu)

    def may_write(self, pdu: bytes) -> bool:
        """As `Answers`."""
        return self._responder.may_write(pdu)


class FaultyStation:
    """The slaves of a line behind the gate."""

    def __init__(self, server: LineServer, gate: Gate) -> None:
        self._server: Final = server
        self._gate: Final = gate

    def answer(self, unit: int, pdu: bytes) -> Reply | None:
        """As `Station`."""
        return self._gate.answer(unit, pdu, self._server.answer)

    def overheard(self) -> None:
        """As `Station`."""
        self._server.overheard()

    def damaged(self) -> None:
        """As `Station`."""
        self._server.damaged()
