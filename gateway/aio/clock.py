"""The real clock."""

from __future__ import annotations

import ctypes
import time
from typing import Final

_STA_UNSYNC: Final = 0x0040  # linux/timex.h
_TIMEX_STATUS_OFFSET: Final = 40 if ctypes.sizeof(ctypes.c_long) == 8 else 20
_TIMEX_SIZE: Final = 256  # larger than struct timex on every architecture
_SYNC_CHECK_NS: Final = 1_000_000_000


class SystemClock:
    """Wall and monotonic time of this machine; whether the kernel says the wall clock is disciplined."""

    def __init__(self) -> None:
        self._adjtimex = getattr(ctypes.CDLL(None, use_errno=True), "adjtimex", None)
        self._synchronised = False
        self._checked_ns = -_SYNC_CHECK_NS

    # The functions themselves: called several times for each block, a frame around them would show.
    wall_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)  # CLOCK_MONOTONIC

    def is_synchronised(self) -> bool:
        """adjtimex(2) without STA_UNSYNC; asked at most once a second. False where it does not say."""
        now = time.monotonic_ns()
        if now - self._checked_ns >= _SYNC_CHECK_NS:
            self._checked_ns = now
            self._synchronised = self._ask_kernel()
        return self._synchronised

    def _ask_kernel(self) -> bool:
        if self._adjtimex is None:
            return False
        timex = (ctypes.c_ubyte * _TIMEX_SIZE)()  # modes = 0: read only
        state = self._adjtimex(ctypes.byref(timex))
        status = ctypes.c_int.from_buffer(timex, _TIMEX_STATUS_OFFSET).value
        return state >= 0 and state != 5 and not status & _STA_UNSYNC  # 5: TIME_ERROR
