"""The two sliding windows of a connection (IEC 60870-5-104 §5.1 and §5.5): what we sent, what we got."""

from __future__ import annotations

from collections import deque
from typing import Final

from drivers.iec104.wire.terms import SEQUENCE_MODULUS
from gateway.core.errors import LocalProtocolError, RemoteProtocolError

UNACKNOWLEDGED_MAX: Final = SEQUENCE_MODULUS - 1  # received: one more and N(S) could not tell them apart


class SendWindow:
    """ASDUs in the order of `send`: waiting, then in flight until the peer's N(R) passes them."""

    def __init__(self, *, k: int, queue_max: int) -> None:
        self._k: Final = k
        self.queue_max: Final = queue_max
        self.waiting: deque[tuple[object, bytes]] = deque()  # at most queue_max
        self.in_flight: deque[tuple[object, int]] = deque()  # at most k: token, when it was sent
        self.next = 0  # V(S)

    def is_open(self) -> bool:
        """Whether a waiting ASDU may be sent now."""
        return bool(self.waiting) and len(self.in_flight) < self._k

    def take(self, now_ns: int) -> tuple[int, bytes]:
        """The next waiting ASDU and its N(S); it is in flight from now."""
        token, asdu = self.waiting.popleft()
        self.in_flight.append((token, now_ns))
        number = self.next
        self.next = (number + 1) % SEQUENCE_MODULUS
        return number, asdu

    def confirm(self, receive: int) -> list[object]:
        """N(R) of the peer: the tokens it confirms. Raises RemoteProtocolError for what was never sent."""
        in_flight = self.in_flight
        left = (self.next - receive) % SEQUENCE_MODULUS
        count = len(in_flight) - left
        if count < 0:
            first = (self.next - len(in_flight)) % SEQUENCE_MODULUS
            raise RemoteProtocolError(f"N(R): found {receive}, expected {first} to {self.next} (section 5.1)")
        return [in_flight.popleft()[0] for _ in range(count)]

    def lost(self) -> tuple[list[object], list[object]]:
        """Forget everything: tokens that went out unconfirmed, and tokens that never went out."""
        found = [token for token, _ in self.in_flight], [token for token, _ in self.waiting]
        self.in_flight.clear()
        self.waiting.clear()
        self.next = 0
        return found


class ReceiveWindow:
    """I frames received, those of them that may be acknowledged, and those the peer was told of.

    The three counts grow from 0 on each connection; V(R) and N(R) are their remainders.
    """

    def __init__(self) -> None:
        self.received = 0
        self.acknowledged = 0
        self.told = 0
        self._arrivals: deque[tuple[int, int]] = deque()  # of what was not told: count up to here, when

    def take(self, send: int, now_ns: int) -> int:
        """N(S) of the peer: the count of this frame. Raises RemoteProtocolError for a gap or a repetition."""
        expected = self.received % SEQUENCE_MODULUS
        if send != expected:
            raise RemoteProtocolError(f"N(S): found {send}, expected {expected} (section 5.1)")
        if self.received - self.told >= UNACKNOWLEDGED_MAX:
            raise RemoteProtocolError(f"I frame: {UNACKNOWLEDGED_MAX} are not acknowledged, expected no more")
        self.received += 1
        if self._arrivals and self._arrivals[-1][1] == now_ns:
            self._arrivals[-1] = (self.received, now_ns)
        else:
            self._arrivals.append((self.received, now_ns))
        return self.received

    def acknowledge(self, number: int) -> None:
        """Everything up to this count may be acknowledged. Raises LocalProtocolError for what never came."""
        if number > self.received:
            raise LocalProtocolError(f"acknowledge: found {number}, expected {self.received} at most")
        self.acknowledged = max(self.acknowledged, number)

    def tell(self) -> int:
        """N(R) for a frame that goes out now."""
        if self.told != self.acknowledged:
            self.told = self.acknowledged
            while self._arrivals and self._arrivals[0][0] <= self.told:
                self._arrivals.popleft()
        return self.told % SEQUENCE_MODULUS

    def oldest_ns(self) -> int | None:
        """When the oldest frame came in that the peer was not told of."""
        return self._arrivals[0][1] if self._arrivals else None

    def lost(self) -> None:
        """The connection is gone."""
        self.received = self.acknowledged = self.told = 0
        self._arrivals.clear()
