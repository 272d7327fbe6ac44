"""Server side of Modbus TCP: one session for each connection, in front of what answers.

MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.4.2.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

import msgspec

from drivers.modbus.wire import mbap
from drivers.modbus.wire.pdu import EXCEPTION_FLAG, ExceptionCode, exception_response
from drivers.modbus.wire.respond import Answers, Open
from gateway.core.errors import RemoteProtocolError
from gateway.core.session import Address

QUEUED_BYTES_MAX: Final = 256 * 1024  # answers waiting for `to_send`; who asks on above it is disconnected
OPEN_MAX: Final = 16  # writes of one connection whose outcome is not known yet; above it they are refused


class UnknownUnit(enum.Enum):
    """What a request to a unit that is not served gets."""

    EXCEPTION = "exception"  # 0x0B, as a gateway whose target device failed to respond
    SILENCE = "silence"  # nothing, as on a serial line


class Indication(msgspec.Struct, frozen=True, gc=False):
    """One request was taken. `code`: the exception it got, None for a good answer. For counters and logs."""

    unit: int
    function: int
    code: int | None


class ServerSession:
    """One connection: every request of a segment is taken, answers go out in order.

    A write that the model hands on (`Later`) is answered when `conclude` tells its outcome; requests behind
    it are answered meanwhile, which the transaction identifier permits (§4.1).

    Nothing is answered with server device busy (6), as §4.4.2.2 of the guide has it: it invites to send the
    same once more, and a write that is repeated later is another one than was meant.

    A malformed frame raises `RemoteProtocolError`, as does a peer that goes on asking and takes no answers:
    close this connection, no other is touched. Answers to what came before are still in `to_send`.
    """

    ignores_sent: Final = True

    def __init__(
        self,
        responder: Answers,
        *,
        unknown_unit: UnknownUnit = UnknownUnit.EXCEPTION,
        has_datagrams: bool = False,
    ) -> None:
        """`has_datagrams`: one UDP client, each of whose requests comes in a datagram of its own."""
        self._responder: Final = responder
        self._unknown_unit: Final = unknown_unit
        self._has_datagrams: Final = has_datagrams
        self.malformed = 0  # datagrams that were no frames, and were dropped
        self._framer = mbap.Framer()
        self._out: list[bytes] = []
        self._queued = 0  # bytes in `_out`
        self._open: dict[object, tuple[int, int, Callable[[ExceptionCode | None], bytes]]] = {}
        self._withheld: list[Indication] = []  # of the segment that ended in garbage

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Indication]:  # noqa: ARG002
        """Take requests and queue their answers."""
        if self._has_datagrams:
            frame = mbap.decode(data)
            self.malformed += frame is None
            return [self._serve(*frame)] if frame is not None else []
        if self._queued > QUEUED_BYTES_MAX:
            raise RemoteProtocolError(f"{self._queued} bytes of answers wait: the peer asks, and takes none")
        frames: list[mbap.Frame] = []
        try:
            self._framer.feed(data, frames)
        except RemoteProtocolError:
            self._withheld += [self._serve(*frame) for frame in frames]
            raise
        return [self._serve(*frame) for frame in frames]

    def conclude(self, token: object, refusal: ExceptionCode | None) -> bool:
        """The outcome of a write handed on; queues its answer. Whether this connection waited for it."""
        found = self._open.pop(token, None)
        if found is None:
            return False
        transaction, unit, conclude = found
        self._queue(transaction, unit, conclude(refusal))
        return True

    def to_send(self, now_ns: int) -> list[bytes]:  # noqa: ARG002
        """Answers to send now, in the order of their requests."""
        out, self._out = self._out, []
        self._queued = 0
        return out

    def sent(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """Nothing depends on it."""
        return []

    def lost(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """The connection is gone: unsent answers are forgotten."""
        events, self._withheld = self._withheld, []
        self._out = []
        self._open.clear()
        self._queued = 0
        self._framer = mbap.Framer()
        return events

    def deadline_ns(self) -> int | None:
        """Never: idle connections are the owner's business."""
        return None

    def on_deadline(self, now_ns: int) -> list[Indication]:  # noqa: ARG002
        """Never called."""
        return []

    def _serve(self, transaction: int, unit: int, pdu: bytes) -> Indication:
        function = pdu[0]
        if not self._responder.model.has_unit(unit):
            code = ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND
            if self._unknown_unit is UnknownUnit.EXCEPTION:
                self._queue(transaction, unit, exception_response(function, code))
            return Indication(unit, function, code)
        if len(self._open) >= OPEN_MAX and self._responder.may_write(pdu):
            answer: bytes | Open | None = exception_response(function, ExceptionCode.SERVER_DEVICE_FAILURE)
        else:
            answer = self._responder.answer(unit, pdu)
        if isinstance(answer, Open):
            self._open[answer.token] = (transaction, unit, answer.conclude)
            return Indication(unit, function, None)
        if answer is None:
            return Indication(unit, function, None)
        self._queue(transaction, unit, answer)
        return Indication(unit, function, answer[1] if answer[0] & EXCEPTION_FLAG else None)

    def _queue(self, transaction: int, unit: int, answer: bytes) -> None:
        frame = mbap.encode(transaction, unit, answer)
        self._out.append(frame)
        self._queued += len(frame)
