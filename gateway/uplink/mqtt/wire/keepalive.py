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

    __slots__ = ("_interval_ns", "_pings", "_received_ns", "_sent_ns", "_timeout_ns")

    def __init__(self, *, response_timeout_s: float) -> None:
        self._timeout_ns: Final = int(response_timeout_s * NS_PER_S)
        self._interval_ns = 0
        self._sent_ns = 0
        self._received_ns = 0
        # (when, token) of each PINGREQ without its answer: of round trips one, of ours as many as fit in the
        # response timeout
        self._pings: list[tuple[int, object]] = []

    def start(self, *, keep_alive_s: int, now_ns: int) -> None:
        """The server has accepted us; 0 seconds turns it off."""
        self._interval_ns = keep_alive_s * NS_PER_S
        self._sent_ns = self._received_ns = now_ns
        self._pings.clear()

    def stop(self) -> None:
        """No link."""
        self._interval_ns = 0
        self._pings.clear()

    def sent(self, now_ns: int) -> None:
        """Something went out."""
        self._sent_ns = now_ns

    def received(self, now_ns: int) -> None:
        """Something came in."""
        self._received_ns = now_ns

    def pinged(self, now_ns: int, token: object = None) -> None:
        """A PINGREQ was queued; `token` comes back with its answer."""
        self._sent_ns = now_ns
        self._pings.append((now_ns, token))

    def answered(self) -> object:
        """PINGRESP: the token of the oldest PINGREQ without an answer (MQTT 5.0 §3.12.4: one for each)."""
        return self._pings.pop(0)[1] if self._pings else None

    @property
    def has_round_trip(self) -> bool:
        """Whether a PINGREQ with a token waits for its answer."""
        return any(token is not None for _at, token in self._pings)

    def ping_ns(self) -> int | None:
        """When the next PINGREQ is due."""
        if not self._interval_ns:
            return None
        if self._pings:
            return self._sent_ns + self._interval_ns
        return min(self._sent_ns, self._received_ns) + self._interval_ns

    def dead_ns(self) -> int | None:
        """When the server counts as dead; None while no PINGREQ waits for its answer."""
        if not self._pings:
            return None
        return max(self._pings[0][0], self._received_ns) + self._timeout_ns

    def silent_ns(self, now_ns: int) -> int:
        """How long nothing has come in."""
        return now_ns - self._received_ns
