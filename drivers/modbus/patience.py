"""How long to wait for a device's answer: learned from how long it took so far."""

from __future__ import annotations

from typing import Final

_GAIN_SHIFT: Final = 3  # RFC 6298 §2.3: alpha 1/8, beta 1/4
_VARIANCE_GAIN_SHIFT: Final = 2
_VARIANCES: Final = 4  # K
_HEADROOM_NS: Final = 5_000_000  # G: what our own loop and timers may add


class Patience:
    """RFC 6298's estimate between two bounds, in ns: smoothed answer time plus four times its variation.

    Doubled by each silence, up to `most_ns`, which is also where it begins.
    """

    __slots__ = ("_least_ns", "_most_ns", "_smoothed_ns", "_variation_ns", "timeout_ns")

    def __init__(self, *, least_ns: int, most_ns: int) -> None:
        self._least_ns = least_ns
        self._most_ns = most_ns
        self._smoothed_ns = 0
        self._variation_ns = 0
        self.timeout_ns = most_ns

    def answered(self, took_ns: int) -> None:
        """One more answer, and what it took."""
        if not self._smoothed_ns:
            self._smoothed_ns, self._variation_ns = max(1, took_ns), took_ns // 2
        else:
            off_ns = took_ns - self._smoothed_ns
            self._variation_ns += (abs(off_ns) - self._variation_ns) >> _VARIANCE_GAIN_SHIFT
            self._smoothed_ns += off_ns >> _GAIN_SHIFT
        self._set(self._smoothed_ns + max(_HEADROOM_NS, _VARIANCES * self._variation_ns))

    def silent(self) -> None:
        """No answer in the time that was given."""
        self._set(2 * self.timeout_ns)

    def _set(self, timeout_ns: int) -> None:
        self.timeout_ns = min(self._most_ns, max(self._least_ns, timeout_ns))
