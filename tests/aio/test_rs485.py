"""TIOCSRS485 as linux/serial.h and asm-generic/ioctls.h define it, read from the system's own headers.

No adapter with an RS-485 mode was there: the kernel's side is stood in for.
"""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from gateway.aio import rs485
from gateway.aio.rs485 import TIOCGRS485, TIOCSRS485, Rs485

HEADER = Path("/usr/include/linux/serial.h")
IOCTLS = Path("/usr/include/asm-generic/ioctls.h")


class Driver:
    """A port's driver that keeps what it is told, and can do what `can` says."""

    def __init__(self, *, can: int = 0xFFFF, delay_max_ms: int = 1000, state: bytes = bytes(32)) -> None:
        self.state = state
        self.asked: list[bytes] = []
        self._can = can
        self._delay_max_ms = delay_max_ms

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        assert fd == 7
        assert len(argument) == 32
        if request == TIOCSRS485:
            self.asked.append(argument)
            flags, before_ms, after_ms = struct.unpack("=III", argument[:12])
            limit = self._delay_max_ms
            delays = struct.pack("=II", min(before_ms, limit), min(after_ms, limit))
            self.state = struct.pack("=I", flags & self._can) + delays + argument[12:]
        else:
            assert request == TIOCGRS485
        return self.state


def flags_of_header() -> dict[str, int]:
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is missing: apt-get install linux-libc-dev")
    found = re.findall(r"#define\s+(SER_RS485_\w+)\s+\(1 << (\d+)\)", HEADER.read_text())
    return {name: 1 << int(bit) for name, bit in found}


def test_the_bytes_are_those_of_the_header() -> None:
    bit = flags_of_header()
    driver = Driver()
    rs485.apply(7, Rs485(delay_before_ms=2, delay_after_ms=3), ioctl=driver.ioctl)
    flags = bit["SER_RS485_ENABLED"] | bit["SER_RS485_RTS_ON_SEND"]
    assert driver.asked == [struct.pack("=8I", flags, 2, 3, 0, 0, 0, 0, 0)]

    wanted = Rs485(rts_on_send=False, receive_during_send=True, terminate=True)
    driver = Driver()
    rs485.apply(7, wanted, ioctl=driver.ioctl)
    flags = bit["SER_RS485_ENABLED"] | bit["SER_RS485_RTS_AFTER_SEND"]
    flags |= bit["SER_RS485_RX_DURING_TX"] | bit["SER_RS485_TERMINATE_BUS"]
    assert driver.asked == [struct.pack("=8I", flags, 0, 0, 0, 0, 0, 0, 0)]


def test_the_requests_are_those_of_the_header() -> None:
    if not IOCTLS.exists():
        pytest.skip(f"{IOCTLS} is missing: apt-get install linux-libc-dev")
    text = IOCTLS.read_text()
    for name, number in (("TIOCGRS485", TIOCGRS485), ("TIOCSRS485", TIOCSRS485)):
        found = re.search(rf"#define\s+{name}\s+(0x[0-9A-Fa-f]+)", text)
        assert found is not None
        assert int(found[1], 16) == number


def test_what_others_set_is_left_as_it_is() -> None:
    other = 1 << 6
    driver = Driver(state=struct.pack("=8I", other, 9, 9, 5, 0, 0, 0, 0))
    rs485.apply(7, Rs485(), ioctl=driver.ioctl)
    assert driver.asked == [struct.pack("=8I", 0b11 | other, 0, 0, 5, 0, 0, 0, 0)]


def test_what_the_driver_ignores_is_said() -> None:
    with pytest.raises(
        OSError, match="rs485: terminate is not done by the driver of this port: leave it out"
    ):
        rs485.apply(7, Rs485(terminate=True), ioctl=Driver(can=0b11).ioctl)
    with pytest.raises(
        OSError, match=r"rs485: delay_before_ms, delay_after_ms are not done .* leave them out"
    ):
        rs485.apply(7, Rs485(delay_before_ms=200, delay_after_ms=300), ioctl=Driver(delay_max_ms=100).ioctl)


@pytest.mark.parametrize("number", [errno.ENOTTY, errno.EINVAL])
def test_a_driver_without_the_mode_is_said(number: int) -> None:
    def refuse(_fd: int, _request: int, _argument: bytes) -> bytes:
        raise OSError(number, "Inappropriate ioctl for device")

    with pytest.raises(OSError, match="no RS-485 mode: leave rs485 out"):
        rs485.apply(7, Rs485(), ioctl=refuse)
