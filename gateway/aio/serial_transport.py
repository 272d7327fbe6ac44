"""A serial port in the loop: non-blocking reads and writes, and when the wire has drained."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections.abc import Callable
from typing import Any, Final

from gateway.core.clock import Clock

READ_BYTES_MAX: Final = 4096  # of one turn of the loop; as much as the kernel's line discipline holds
_LOOK_S: Final = 0.002  # how soon to look again whether the kernel has taken what it was given
STALL_NS: Final = 2_000_000_000  # bytes that are still here so long after they should have left: it hangs
_UNPLUGGED: Final = frozenset({errno.EIO, errno.ENODEV, errno.ENXIO, errno.EBADF})


class SerialTransport(asyncio.Transport):
    """Duck-typed as asyncio's stream transports are. Owns `fd` until `closed` is called with it.

    What was written counts as drained when the kernel has handed over all of it (TIOCOUTQ, tty_ioctl(4)) and
    the time of its characters is over: what a UART or a USB adapter holds, nobody can ask.
    """

    def __init__(
        self,
        fd: int,
        protocol: asyncio.Protocol,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        character_ns: int,
        lead_ns: int = 0,
        closed: Callable[[int], None],
    ) -> None:
        """`lead_ns`: what each burst takes longer than its characters, as for turning an RS-485 line."""
        super().__init__()
        self._fd = fd
        self._protocol: Final = protocol
        self._loop: Final = loop
        self._clock: Final = clock
        self._character_ns: Final = character_ns
        self._lead_ns: Final = lead_ns
        self._closed: Final = closed
        self._waiting = bytearray()  # what the kernel did not take yet, bounded by the pump that pauses
        self._drained_ns = 0  # when the wire has carried all that was written
        self._high, self._low = 65536, 16384
        self._is_paused = False
        self._is_closing = False
        self._is_lost = False

    def start(self) -> None:
        """Tell the protocol, then listen."""
        self._protocol.connection_made(self)
        if not self._is_lost:
            self._loop.add_reader(self._fd, self._on_readable)

    # asyncio.Transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`drain_wait_s`: a function that says how long until it is worth asking again; 0 once drained."""
        return self._drain_wait_s if name == "drain_wait_s" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As asyncio."""
        self._high = self._high if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel did not take yet."""
        return len(self._waiting)

    def is_closing(self) -> bool:
        """As asyncio."""
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand over what the kernel takes now, and the rest when it has room."""
        if self._is_closing or not data:
            return
        now_ns = self._clock.monotonic_ns()
        if self._drained_ns <= now_ns:
            self._drained_ns = now_ns + self._lead_ns
        self._drained_ns += len(data) * self._character_ns
        if not self._waiting:
            data = memoryview(data)[self._hand_over(data) :]
            if not data or self._is_lost:
                return
            self._loop.add_writer(self._fd, self._on_writable)
        self._waiting += data
        if len(self._waiting) > self._high and not self._is_paused:
            self._is_paused = True
            self._protocol.pause_writing()

    def close(self) -> None:
        """Close when the wire has drained."""
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.remove_reader(self._fd)
        self._close_drained()

    def abort(self) -> None:
        """Close now; what was not sent never will be."""
        self._is_closing = True
        self._lose(None)

    # Inside

    def _drain_wait_s(self) -> float:
        if self._is_lost:
            return _LOOK_S  # never drained
        now_ns = self._clock.monotonic_ns()
        left = len(self._waiting) or self._in_kernel()
        if left and now_ns > self._drained_ns + STALL_NS:
            what = f"{left} bytes did not leave within {STALL_NS / 1e9:g} s of their time"
            self._lose(OSError(f"the port hangs: {what} (flow control, or the adapter)"))
            return _LOOK_S
        if left:
            return max(_LOOK_S, min(left, READ_BYTES_MAX) * self._character_ns / 1e9)
        return max(0, self._drained_ns - now_ns) / 1e9

    def _in_kernel(self) -> int:
        try:
            count: int = struct.unpack("i", fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4)))[0]
        except OSError:  # where the driver cannot say, the time of the characters has to do
            return 0
        return count

    def _hand_over(self, data: bytes | bytearray | memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._lose(_in_words(error))
            return 0

    def _on_writable(self) -> None:
        del self._waiting[: self._hand_over(self._waiting)]
        if self._is_lost:
            return
        if not self._waiting:
            self._loop.remove_writer(self._fd)
        if self._is_paused and len(self._waiting) <= self._low:
            self._is_paused = False
            self._protocol.resume_writing()

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES_MAX)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(_in_words(error))
            return
        if data:
            self._protocol.data_received(data)
        else:  # VMIN is 1: no bytes is not "none yet" but a hang-up, termios(3)
            self._lose(OSError("the port is gone: the adapter was unplugged, or hung up"))

    def _close_drained(self) -> None:
        if self._is_lost:
            return
        if wait_s := self._drain_wait_s():
            self._loop.call_later(wait_s, self._close_drained)
        else:
            self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._is_lost:
            return
        self._is_lost = self._is_closing = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._waiting.clear()
        fd, self._fd = self._fd, -1
        self._closed(fd)
        self._loop.call_soon(self._protocol.connection_lost, error)


def _in_words(error: OSError) -> OSError:
    if error.errno in _UNPLUGGED:
        return OSError(f"the port is gone: the adapter was unplugged ({os.strerror(error.errno or 0)})")
    return OSError(f"the port failed: {error.strerror or error}")
