"""Opens a serial port, beside the loop, and says what is wrong with it in words."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import os
import pwd
import struct
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import serial

from gateway.aio import rs485
from gateway.aio.aside import Aside
from gateway.aio.pump import Pump
from gateway.aio.rs485 import Rs485
from gateway.aio.serial_transport import SerialTransport
from gateway.core.clock import Clock
from gateway.core.line import SerialLine

BY_ID: Final = Path("/dev/serial/by-id")
PORTS_SHOWN_MAX: Final = 8
_BAUD_TOLERANCE: Final = 0.03  # half a bit in a character of 11 bits is 4.5 %; the other end has its share
_TCGETS2: Final = 0x802C542A  # asm-generic/ioctls.h with struct termios2 of 44 bytes
_CMSPAR: Final = 0o10000000000  # asm-generic/termbits.h: mark and space parity
_TERMIOS2: Final = struct.Struct("=4I20sII")  # iflag, oflag, cflag, lflag, line and cc, ispeed, ospeed


class SerialOpener:
    """One serial port. What can block (a modem line, an adapter that is being unplugged) blocks a thread.

    The port is ours alone while it is open: flock(2) and TIOCEXCL. Opened with VMIN 1, so that no bytes mean
    a hang-up; in low-latency mode where the driver has one (FTDI adapters otherwise hold bytes for 16 ms).
    """

    def __init__(self, port: str, line: SerialLine, *, clock: Clock, rs485: Rs485 | None = None) -> None:
        """`port`: a path, best one below /dev/serial/by-id, which stays the same over unplugging."""
        self._port: Final = port
        self._line: Final = line
        self._clock: Final = clock
        self._rs485: Final = rs485
        self._opening: Final = Aside(f"opening of {port}", self._open_port)
        self._closing: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Port and settings."""
        return f"{self._port} {self._line}"

    @property
    def awaited(self) -> str:
        """The driver of the port."""
        return f"end to the opening of {self._port}: its driver hangs"

    async def open(self, new_pump: Callable[[], Pump]) -> Pump:
        """Open the port. Raises `OSError` in words."""
        port = await self._opening.result()
        pump = new_pump()
        lead_ms = self._rs485.delay_before_ms + self._rs485.delay_after_ms if self._rs485 else 0
        SerialTransport(
            port.fileno(),
            pump,
            loop=asyncio.get_running_loop(),
            clock=self._clock,
            character_ns=self._line.character_ns,
            lead_ns=lead_ms * 1_000_000,
            closed=lambda _fd: self._close(port),
        ).start()
        return pump

    def release(self) -> None:
        """A port that is still being opened is closed as soon as it is open."""
        self._opening.forget(self._close)

    # Beside the loop

    def _open_port(self) -> serial.Serial:
        if self._closing is not None:
            self._closing.join()
        try:
            port = _opened(self._port, self._line)
        except (OSError, termios.error, ValueError) as error:
            raise OSError(explain(error, self._port, self._line)) from error
        try:
            _check_line(port.fileno(), self._line)
            if self._rs485 is not None:
                rs485.apply(port.fileno(), self._rs485)
        except BaseException:
            port.close()
            raise
        return port

    def _close(self, port: serial.Serial) -> None:
        """Closing waits for what is still to be sent, 30 s by default (tty_ioctl(4)): dropped, and aside."""
        self._closing = threading.Thread(
            target=_closed, args=(port,), name=f"close {self._port}", daemon=True
        )
        self._closing.start()


def _opened(path: str, line: SerialLine) -> serial.Serial:
    """The port, exclusive and raw. Raises `OSError`, `termios.error`, `ValueError`."""
    port = serial.Serial(
        port=path,
        baudrate=line.baud,
        bytesize=line.data_bits,
        parity=line.parity,
        stopbits=line.stop_bits,
        timeout=0,
        exclusive=True,
        inter_byte_timeout=0,  # pyserial's way to VMIN 1
    )
    try:
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
        with contextlib.suppress(ValueError, OSError):  # drivers without that mode work as well, only later
            port.set_low_latency_mode(True)
    except BaseException:
        port.close()
        raise
    return port


def _closed(port: serial.Serial) -> None:
    fd = port.fileno()
    for step in (
        lambda: termios.tcflush(fd, termios.TCIOFLUSH),
        lambda: fcntl.ioctl(fd, termios.TIOCNXCL),
        port.close,
    ):
        with contextlib.suppress(OSError, termios.error):  # an unplugged adapter takes none of them
            step()


def _check_line(fd: int, line: SerialLine) -> None:
    """A driver leaves out in silence what its hardware cannot, and says so when asked how the port is set.

    Raises `OSError` where that is not what was wanted.
    """
    try:
        _, _, flags, _, _, _, baud = _TERMIOS2.unpack(fcntl.ioctl(fd, _TCGETS2, bytes(_TERMIOS2.size)))
    except OSError:  # a driver that does not say
        return
    if abs(baud - line.baud) > line.baud * _BAUD_TOLERANCE:
        raise OSError(f"the port cannot do {line.baud} baud: it runs at {baud}")
    found = _line_of(flags, line.baud)
    if found != line:
        raise OSError(f"the port cannot do {line}: its driver made it {found}")


def _line_of(flags: int, baud: int) -> SerialLine:
    data_bits = {termios.CS5: 5, termios.CS6: 6, termios.CS7: 7, termios.CS8: 8}[flags & termios.CSIZE]
    is_odd = bool(flags & termios.PARODD)
    parity = "N"
    if flags & termios.PARENB:
        parity = ("M" if is_odd else "S") if flags & _CMSPAR else ("O" if is_odd else "E")
    return SerialLine(baud, data_bits, parity, 2 if flags & termios.CSTOPB else 1)


# What is wrong, in words


def explain(error: Exception, path: str, line: SerialLine) -> str:
    """One line for people: what is wrong with the port, and what to do."""
    number = _number(error)
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return f"no such port: {path} ({_ports()})"
    if number in {errno.EACCES, errno.EPERM}:
        return _forbidden(path)
    if number in {errno.EBUSY, errno.EAGAIN}:
        return f"the port is in use{_by_whom(path)}"
    if number in {errno.ENOTDIR, errno.EISDIR, errno.ENOTTY} or not Path(path).is_char_device():
        return f"{path} is not a serial port"
    if number == errno.EIO:
        return "the port does not answer: the adapter was unplugged, or there is no hardware behind it"
    if isinstance(error, ValueError) and "baud" in str(error):
        return f"the port cannot do {line.baud} baud"
    if number == errno.EINVAL:
        return f"the port cannot do {line}: its driver refuses these settings"
    return str(getattr(error, "strerror", None) or error)


def _number(error: BaseException | None) -> int | None:
    """The system's number of the error; pyserial puts some into a text, with the real one behind it."""
    if error is None:
        return None
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else _number(error.__context__)


def _ports() -> str:
    try:
        found = sorted(str(path) for path in BY_ID.iterdir())
    except OSError:
        found = []
    if not found:
        return f"{BY_ID} is empty: no USB adapter is plugged in"
    more = f" and {len(found) - PORTS_SHOWN_MAX} more" if len(found) > PORTS_SHOWN_MAX else ""
    return f"there is {', '.join(found[:PORTS_SHOWN_MAX])}{more}"


def _forbidden(path: str) -> str:
    try:
        status = Path(path).stat()
        group = _name(grp.getgrgid, status.st_gid)
        me = _name(pwd.getpwuid, os.geteuid())
    except OSError:
        return f"the user may not open {path}"
    return (
        f"user {me} may not open {path}: it belongs to group {group}; join it with "
        f"'usermod -a -G {group} {me}', or SupplementaryGroups={group} in the unit"
    )


def _name(look_up: Callable[[int], grp.struct_group | pwd.struct_passwd], number: int) -> str:
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)


def _by_whom(path: str) -> str:
    """The process that has the port open, where we may see it."""
    target = os.path.realpath(path)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # not ours to see, or gone
            if any(os.path.realpath(fd) == target for fd in (process / "fd").iterdir()):
                if int(process.name) == os.getpid():
                    return " by this gateway itself: another link leads to it by another name"
                name = (process / "comm").read_text().strip()
                return f" by {name}, process {process.name}"
    return " by another process"
