"""Direction control of an RS-485 transceiver, done by the kernel: TIOCSRS485, linux/serial.h.

Switching RTS from user space is not offered: it would come milliseconds late, and cut off frames.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

TIOCGRS485: Final = 0x542E  # asm-generic/ioctls.h; the same on x86, ARM and RISC-V
TIOCSRS485: Final = 0x542F
_ENABLED: Final = 1 << 0
_RTS_ON_SEND: Final = 1 << 1
_RTS_AFTER_SEND: Final = 1 << 2
_RX_DURING_TX: Final = 1 << 4
_TERMINATE_BUS: Final = 1 << 5
_OURS: Final = _ENABLED | _RTS_ON_SEND | _RTS_AFTER_SEND | _RX_DURING_TX | _TERMINATE_BUS
_STRUCT: Final = struct.Struct("=III5I")  # flags, delay before and after sending in ms, padding

Ioctl: TypeAlias = Callable[[int, int, bytes], bytes]


class Rs485(msgspec.Struct, frozen=True, kw_only=True):
    """How the kernel drives the transceiver. Delays in milliseconds, as the kernel counts them."""

    rts_on_send: bool = True  # level of RTS while sending; the other one while not
    delay_before_ms: int = 0  # between RTS and the first bit
    delay_after_ms: int = 0  # between the last bit and RTS
    receive_during_send: bool = False  # our own bytes come back: the session must expect the echo
    terminate: bool = False  # the port's own termination resistor


def _ioctl(fd: int, request: int, argument: bytes) -> bytes:
    return fcntl.ioctl(fd, request, argument)


def apply(fd: int, wanted: Rs485, *, ioctl: Ioctl = _ioctl) -> None:
    """Turn RS-485 mode on. Raises `OSError` where the port's driver has none, or ignores a part of it."""
    try:
        before = _STRUCT.unpack(ioctl(fd, TIOCGRS485, bytes(_STRUCT.size)))
        flags = before[0] & ~_OURS | _flags(wanted)
        asked = _STRUCT.pack(flags, wanted.delay_before_ms, wanted.delay_after_ms, *before[3:])
        ioctl(fd, TIOCSRS485, asked)
        after = _STRUCT.unpack(ioctl(fd, TIOCGRS485, bytes(_STRUCT.size)))
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
            raise OSError(
                "the driver of this port has no RS-485 mode: leave rs485 out where the adapter switches the "
                "direction itself, as most USB adapters do"
            ) from None
        raise
    ignored = [name for name, value in _settings(after).items() if value != getattr(wanted, name)]
    if ignored:
        is_, them = ("is", "it") if len(ignored) == 1 else ("are", "them")
        raise OSError(
            f"rs485: {', '.join(ignored)} {is_} not done by the driver of this port: leave {them} out"
        )


def _flags(wanted: Rs485) -> int:
    rts = _RTS_ON_SEND if wanted.rts_on_send else _RTS_AFTER_SEND
    echo = _RX_DURING_TX if wanted.receive_during_send else 0
    return _ENABLED | rts | echo | (_TERMINATE_BUS if wanted.terminate else 0)


def _settings(found: tuple[int, ...]) -> dict[str, object]:
    """What the kernel says it does, in our words."""
    flags, before_ms, after_ms = found[:3]
    return {
        "rts_on_send": bool(flags & _RTS_ON_SEND),
        "delay_before_ms": before_ms,
        "delay_after_ms": after_ms,
        "receive_during_send": bool(flags & _RX_DURING_TX),
        "terminate": bool(flags & _TERMINATE_BUS),
    }
