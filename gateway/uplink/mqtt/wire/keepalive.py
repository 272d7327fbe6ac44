"""Keep Alive (MQTT 5.0 §3.1.2.10): when a PINGREQ is due and when the server counts as dead."""

from __future__ import annotations

from typing import Final

NS_PER_S: Final = 1_000_000_000


class KeepAlive:
    """Times of one link, all monotonic nanoseconds.

    A PINGREQ is due when for `keep_alive_s` nothing was sent, or nothing was received: a server that vanished
    is found also while we keep sending. The server is dead when after a PINGREQ nothing at all came for the
    response timeout.
    """

    __slots__ = ("_interval_ns", "_pinged_ns", "_received_ns", "_sent_ns", "_timeout_ns")

    def __init__(self, *, response_timeout_s: float) -> None:
        self._timeout_ns: Final = int(response_timeout_s * NS_PER_S)
        self._interval_ns = 0
        self._sent_ns = 0
        self._received_ns = 0
        self._pinged_ns: int | None = None

    def start(self, *, keep_alive_s: int, now_ns: int) -> None:
        """The server has accepted us; 0 seconds turns it off."""
        self._interval_ns = keep_alive_s * NS_PER_S
        self._sent_ns = self._received_ns = now_ns
        self._pinged_ns = None

    def stop(self) -> None:
        """No link."""
        self._interval_ns = 0
        self._pinged_ns = None

    def sent(self, now_ns: int) -> None:
        """Something went out."""
        self._sent_ns = now_ns

    def received(self, now_ns: int) -> None:
        """Something came in."""
        self._received_ns = now_ns

    def pinged(self, now_ns: int) -> None:
        """A PINGREQ was queued. A second one before the answer does not extend the wait."""
        self._sent_ns = now_ns
        if self._pinged_ns is None:
            self._pinged_ns = now_ns

    def answered(self) -> None:
        """PINGRESP."""
        self._pinged_ns = None

    def ping_ns(self) -> int | None:
        """When the next PINGREQ is due."""
        if not self._interval_ns:
            return None
        if self._pinged_ns is not None:
            return self._sent_ns + self._interval_ns
        return min(self._sent_ns, self._received_ns) + self._interval_ns

    def dead_ns(self) -> int | None:
        """When the server counts as dead; None while no PINGREQ waits for its answer."""
        if self._pinged_ns is None:
            return None
        return max(self._pinged_ns, self._received_ns) + self._timeout_ns

    def silent_ns(self, now_ns: int) -> int:
        """How long nothing has come in."""
        return now_ns - self._received_ns
