"""A server session whose answers go wrong on their way out, as its rules say."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Final

from drivers.modbus.simulator.faults import Fault, Faults, Kind
from drivers.modbus.wire import mbap
from drivers.modbus.wire.line import Mode
from drivers.modbus.wire.pdu import EXCEPTION_FLAG
from drivers.modbus.wire.server import Indication
from gateway.core.errors import RemoteProtocolError
from gateway.core.session import Address, Session

WAITING_MAX: Final = 1024  # answers, or pieces of them, that go out later; more are dropped
_UNITS: Final = 247


class FaultySession:
    """Between a `ServerSession` or `LineServerSession` and its link; the answers of one go out by time."""

    def __init__(
        self,
        session: Session[Indication],
        *,
        link: str,
        mode: Mode | None,
        faults: Faults,
        close: Callable[[str], None],
    ) -> None:
        """`mode`: of a line, None for tcp, tls and udp. `close(reason)`: closes the connection."""
        self._inner: Final = session
        self._link: Final = link
        self._mode: Final = mode
        self._faults: Final = faults
        self._close: Final = close
        self._waiting: list[tuple[int, int, bytes]] = []  # (when, order, bytes), at most WAITING_MAX
        self._order = 0
        self._garbage = ""  # what was wrong with what came

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Indication]:
        """As the session's; behind garbage nothing is taken, and what came before it is answered first."""
        if self._garbage:
            return []
        try:
            return self._inner.receive(data, now_ns, source)
        except RemoteProtocolError as error:
            self._put_off(self._inner.to_send(now_ns), now_ns)
            if not self._waiting:
                raise
            self._garbage = str(error)
            return []

    def to_send(self, now_ns: int) -> list[bytes]:
        """The session's answers, spoiled."""
        frames = self._inner.to_send(now_ns)
        if not self._waiting and not self._faults.rules:
            return frames
        self._put_off(frames, now_ns)
        out: list[bytes] = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            out.append(self._waiting.pop(0)[2])
        return out

    def sent(self, now_ns: int) -> list[Indication]:
        """As the session's. Closes the connection that ended in garbage."""
        if self._garbage and not self._waiting:
            self._close(self._garbage)
        return self._inner.sent(now_ns)

    def lost(self, now_ns: int) -> list[Indication]:
        """As the session's; what waited is forgotten."""
        self._waiting.clear()
        self._garbage = ""
        return self._inner.lost(now_ns)

    def deadline_ns(self) -> int | None:
        """The session's, or when the next answer goes out."""
        mine, inner = (self._waiting[0][0] if self._waiting else None), self._inner.deadline_ns()
        return inner if mine is None else mine if inner is None else min(mine, inner)

    def on_deadline(self, now_ns: int) -> list[Indication]:
        """As the session's; call `to_send` after it."""
        inner_ns = self._inner.deadline_ns()
        return self._inner.on_deadline(now_ns) if inner_ns is not None and inner_ns <= now_ns else []

    def _put_off(self, frames: list[bytes], now_ns: int) -> None:
        for frame in frames:
            for when_ns, data in self._spoiled(frame, now_ns):
                if len(self._waiting) < WAITING_MAX:
                    self._order += 1
                    insort(self._waiting, (when_ns, self._order, data))

    def _spoiled(self, frame: bytes, now_ns: int) -> list[tuple[int, bytes]]:
        unit, pdu = self._parse(frame)
        faults = self._faults.strike(self._link, unit, pdu[0] & ~EXCEPTION_FLAG, of_request=False)
        data, when_ns = frame, now_ns
        split: Fault | None = None
        for fault in faults:
            match fault.kind:
                case Kind.DROP:
                    return []
                case Kind.CLOSE:
                    self._close("the simulated device closes the connection")
                    return []
                case Kind.DELAY:
                    when_ns += fault.time_ns
                case Kind.SPLIT:
                    split = fault
                case _:
                    data = self._changed(data, unit, pdu, fault)
        if split is None:
            return [(when_ns, data)]
        size = -(-len(data) // split.pieces)
        cuts = range(0, len(data), size)
        return [(when_ns + number * split.time_ns, data[at : at + size]) for number, at in enumerate(cuts)]

    def _changed(self, data: bytes, unit: int, pdu: bytes, fault: Fault) -> bytes:
        match fault.kind:
            case Kind.GARBAGE:
                return self._faults.random.randbytes(fault.size)
            case Kind.CUT:
                return data[: max(1, len(data) // 2)]
            case Kind.GLUE:
                return data + data
            case Kind.WRONG_UNIT:
                other = unit % _UNITS + 1
                return self._mode.encode(other, pdu) if self._mode else data[:6] + bytes((other,)) + data[7:]
            case Kind.WRONG_TRANSACTION if self._mode is None:
                return bytes((data[0] ^ 0x55, data[1] ^ 0x55)) + data[2:]
            case Kind.CRC if self._mode is Mode.RTU:
                return data[:-1] + bytes((data[-1] ^ 0xFF,))
            case Kind.CRC if self._mode is Mode.ASCII:
                check = int(data[-4:-2], 16) ^ 0xFF
                return data[:-4] + b"%02X" % check + data[-2:]
        return data

    def _parse(self, frame: bytes) -> tuple[int, bytes]:
        if self._mode is None:
            return frame[6], frame[mbap.HEADER_SIZE :]
        if self._mode is Mode.RTU:
            return frame[0], frame[1:-2]
        data = bytes.fromhex(frame[1:-4].decode())
        return data[0], data[1:]
