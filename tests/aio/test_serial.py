"""A serial port as a link: opened beside the loop, drained, unplugged and plugged in, and explained."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import termios
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import serial

from gateway.aio import serial as port_module
from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Backoff, Endpoint, LinkState
from gateway.aio.loop import loop_factory
from gateway.aio.serial import SerialOpener, explain
from gateway.aio.serial_transport import SerialTransport
from gateway.core.line import SerialLine
from tests.aio.memory import LoopClock, until
from tests.aio.ports import Port
from tests.aio.talk import Listener, Talk
from tests.virtual_time import run

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])
LINE = SerialLine(115200)
S = 1_000_000_000


@pytest.fixture
def port(tmp_path: Path) -> Iterator[Port]:
    port = Port(tmp_path / "adapter")
    yield port
    port.unplug()


def endpoint(path: Path | str, line: SerialLine = LINE, *, patience_s: float = 5) -> Endpoint:
    clock = SystemClock()
    return Endpoint(
        "rs485a",
        SerialOpener(str(path), line, clock=clock),
        clock=clock,
        open_timeout_s=patience_s,
        backoff=Backoff(first_s=0.01, limit_s=0.05),
    )


def kept(
    script: Callable[[], Awaitable[None]],
    link: Endpoint,
    owner: Listener,
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    async def main() -> None:
        task = asyncio.get_running_loop().create_task(link.keep(owner))
        try:
            async with asyncio.timeout(10):
                await script()
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


@LOOPS
def test_bytes_go_both_ways_and_all_values_of_a_byte_pass(
    factory: Callable[[], asyncio.AbstractEventLoop], port: Port
) -> None:
    owner, link = Listener(), endpoint(port.path)
    every = bytes(range(256)) * 3  # XON, XOFF, NUL, CR, LF, DEL and 0xFF are bytes like any other
    heard = bytearray()

    async def script() -> None:
        await until(lambda: link.state is LinkState.UP)
        owner.session.out.append(every)
        link.wake()
        await until(lambda: heard.extend(port.heard()) or len(heard) >= len(every))
        port.say(every)
        await until(lambda: sum(len(told) for told in owner.told if isinstance(told, bytes)) >= len(every))

    kept(script, link, owner, factory)
    assert bytes(heard) == every
    assert b"".join(told for told in owner.told if isinstance(told, bytes)) == every
    assert owner.told[0] == "up"
    assert owner.told[-2:] == ["closing", ("down", "stopping")]
    assert (link.traffic.bytes_sent, link.traffic.bytes_received) == (len(every) + len(b"bye"), len(every))


@LOOPS
def test_an_adapter_that_is_unplugged_is_lost_once_and_back_once(
    factory: Callable[[], asyncio.AbstractEventLoop], port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.link")
    owner, link = Listener(), endpoint(port.path)

    async def script() -> None:
        await until(lambda: link.state is LinkState.UP)
        port.unplug()
        await until(lambda: "no such port" in link.last_error)  # several attempts later
        port.plug()
        await until(lambda: link.state is LinkState.UP)
        port.say(b"here again")
        await until(lambda: b"here again" in owner.told)

    kept(script, link, owner, factory)
    lost, found = owner.told[1], owner.told[2]
    assert lost[0] == "down"
    assert lost[1].startswith("the port is gone: the adapter was unplugged")
    assert found == "up"
    assert [record.message for record in caplog.records] == [
        "link is up",
        "link is down, trying again until it is back",
        "link is back",
    ]


def test_a_port_that_hangs_while_it_is_opened_holds_up_nothing_and_is_closed_when_it_comes(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real, opened = threading.Event(), port_module._opened, []

    def slow(path: str, line: SerialLine) -> serial.Serial:
        assert gate.wait(10)
        opened.append(real(path, line))
        return opened[-1]

    monkeypatch.setattr(port_module, "_opened", slow)
    owner, link = Listener(), endpoint(port.path, patience_s=0.05)

    async def script() -> None:
        turns = 0

        def turned() -> bool:  # the loop goes on
            nonlocal turns
            turns += 1
            return "hangs" in link.last_error and turns > 5

        await until(turned)
        assert link.last_error == f"no end to the opening of {port.path}: its driver hangs within 0.05 s"

    async def after() -> None:
        await script()
        assert threading.active_count() < 10  # one call at a time

    kept(after, link, owner)
    assert owner.told == []
    assert not opened
    gate.set()  # nobody waits any more: the loop is gone


def test_a_port_that_opens_too_late_is_what_the_next_attempt_uses(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real, calls = threading.Event(), port_module._opened, []

    def slow(path: str, line: SerialLine) -> serial.Serial:
        calls.append(path)
        assert gate.wait(10)
        return real(path, line)

    monkeypatch.setattr(port_module, "_opened", slow)
    owner, link = Listener(), endpoint(port.path, patience_s=0.03)

    async def script() -> None:
        await until(lambda: bool(link.last_error))
        gate.set()
        await until(lambda: link.state is LinkState.UP)

    kept(script, link, owner)
    assert len(calls) == 1


def test_a_port_that_opens_after_the_end_is_closed(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, real, opened = threading.Event(), port_module._opened, []

    def slow(path: str, line: SerialLine) -> serial.Serial:
        assert gate.wait(10)
        opened.append(real(path, line))
        return opened[-1]

    monkeypatch.setattr(port_module, "_opened", slow)

    async def main() -> None:
        link = endpoint(port.path, patience_s=0.02)
        task = asyncio.get_running_loop().create_task(link.keep(Listener()))
        await until(lambda: bool(link.last_error))
        task.cancel()
        await asyncio.wait([task])
        gate.set()
        await until(lambda: bool(opened) and not opened[0].is_open)

    asyncio.run(main())


@LOOPS
def test_a_port_that_takes_nothing_is_given_up_and_holds_up_nobody(
    factory: Callable[[], asyncio.AbstractEventLoop], port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.aio.serial_transport.STALL_NS", S // 20)
    owner, link = Listener(), endpoint(port.path, SerialLine(4_000_000))

    async def script() -> None:
        await until(lambda: link.state is LinkState.UP)
        owner.session.out.append(bytes(100_000))  # nobody reads at the far end
        link.wake()
        await until(lambda: link.traffic.losses == 1)

    kept(script, link, owner, factory)
    _down, reason = next(told for told in owner.told if isinstance(told, tuple))
    assert reason.startswith("the port hangs: ")
    assert "did not leave within 0.05 s" in reason
    assert owner.session.drained == 0


def test_a_second_owner_of_a_port_is_refused_with_the_name_of_the_first(port: Port) -> None:
    owner, link, other = Listener(), endpoint(port.path), endpoint(os.path.realpath(port.path))

    async def script() -> None:
        await until(lambda: link.state is LinkState.UP)
        task = asyncio.get_running_loop().create_task(other.keep(Listener()))
        await until(lambda: bool(other.last_error))
        task.cancel()
        await asyncio.wait([task])

    kept(script, link, owner)
    words = "the port is in use by this gateway itself: another link leads to it by another name"
    assert other.last_error == words


def test_a_port_is_free_again_after_its_link_is_closed(port: Port) -> None:
    for _ in range(3):
        link = endpoint(port.path)

        async def script(link: Endpoint = link) -> None:
            await until(lambda: link.state is LinkState.UP or bool(link.last_error))
            assert link.last_error == ""

        kept(script, link, Listener())


def test_a_rate_that_no_table_has_is_set(port: Port) -> None:
    link = endpoint(port.path, SerialLine(250_000))

    async def script() -> None:
        await until(lambda: link.state is LinkState.UP or bool(link.last_error))
        assert link.last_error == ""
        fd = os.open(port.path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK) if os.geteuid() == 0 else port.far
        found = port_module._TERMIOS2.unpack(fcntl.ioctl(fd, port_module._TCGETS2, bytes(44)))
        if fd != port.far:
            os.close(fd)
            assert found[-2:] == (250_000, 250_000)

    kept(script, link, Listener())


def test_settings_that_the_driver_refuses_are_said(port: Port) -> None:
    link = endpoint(port.path, SerialLine(19200, 8, "E", 1))  # pseudo-terminals have no parity

    async def script() -> None:
        await until(lambda: bool(link.last_error))

    kept(script, link, Listener())
    assert link.last_error in {  # the C library looks, too, but only where nothing else changed
        "the port cannot do 19200-8E1: its driver made it 19200-8N1",
        "the port cannot do 19200-8E1: its driver refuses these settings",
    }


# What is wrong, in words


def opening(path: str, line: SerialLine = LINE) -> str:
    with pytest.raises((OSError, ValueError, termios.error)) as caught:
        port_module._opened(path, line)
    return explain(caught.value, path, line)


def test_a_port_that_is_not_there_lists_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = str(tmp_path / "ttyUSB0")
    monkeypatch.setattr(port_module, "BY_ID", tmp_path / "by-id")
    assert opening(missing) == (
        f"no such port: {missing} ({tmp_path}/by-id is empty: no USB adapter is plugged in)"
    )
    (tmp_path / "by-id").mkdir()
    for number in range(10):
        (tmp_path / "by-id" / f"usb-FTDI_{number}").touch()
    said = opening(missing)
    assert f"there is {tmp_path}/by-id/usb-FTDI_0, " in said
    assert said.endswith("usb-FTDI_7 and 2 more)")


def test_what_is_no_port_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (str(tmp_path / "file"), "/dev/null", str(tmp_path)):
        assert opening(path) == f"{path} is not a serial port"


def test_a_port_that_belongs_to_a_group_says_how_to_join_it(tmp_path: Path) -> None:
    said = explain(PermissionError(errno.EACCES, "Permission denied"), str(tmp_path), LINE)
    assert " may not open " in said
    assert "usermod -a -G " in said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), "the port does not answer: the adapter was unplugged"),
        (ValueError("Failed to set custom baud rate (123): x"), "the port cannot do 115200 baud"),
        (termios.error(errno.EINVAL, "Invalid argument"), "the port cannot do 115200-8N1"),
        (serial.SerialException(errno.EBUSY, "busy"), "the port is in use"),
    ],
)
def test_each_fault_has_its_words(error: Exception, words: str) -> None:
    assert explain(error, "/dev/tty", LINE).startswith(words)


def test_a_rate_that_the_driver_changed_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(_fd: int, _request: int, _argument: bytes) -> bytes:
        return port_module._TERMIOS2.pack(0, 0, termios.CS8, 0, bytes(20), 9600, 9600)

    monkeypatch.setattr(fcntl, "ioctl", settings)
    with pytest.raises(OSError, match="the port cannot do 250000 baud: it runs at 9600"):
        port_module._check_line(0, SerialLine(250_000))
    port_module._check_line(0, SerialLine(9500))


def test_each_parity_is_read_back_as_it_is_set() -> None:
    flags: list[int] = []
    for parity in "NEOMS":
        port = serial.Serial(parity=parity, bytesize=7, stopbits=2)
        with pytest.MonkeyPatch.context() as patch:  # pyserial's own idea of the flags
            patch.setattr(termios, "tcgetattr", lambda _fd: [0, 0, 0, 0, 0, 0, [b""] * 32])
            patch.setattr(termios, "tcsetattr", lambda _fd, _when, found: flags.append(found[2]))
            port.fd = 99
            port._reconfigure_port(force_update=True)
        port.fd = None
        assert port_module._line_of(flags[-1], 9600) == SerialLine(9600, 7, parity, 2)


# The time of the wire


class Wire:
    """What `SerialTransport` sees of the kernel, by script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 1 << 20
        self.in_kernel = 0
        self.written = bytearray()
        monkeypatch.setattr(os, "write", self._write)
        monkeypatch.setattr(fcntl, "ioctl", lambda *_: self.in_kernel.to_bytes(4, "little"))

    def _write(self, _fd: int, data: bytes) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.written += taken
        return len(taken)


def test_the_wire_has_drained_when_the_kernel_is_empty_and_the_time_of_the_characters_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        clock, talk = LoopClock(), Talk()
        wire = Wire(monkeypatch)
        line = SerialLine(9600, 8, "E", 1)
        transport = SerialTransport(
            99, asyncio.Protocol(), loop=asyncio.get_running_loop(), clock=clock,
            character_ns=line.character_ns, lead_ns=2_000_000, closed=lambda _fd: None,
        )  # fmt: skip
        wait = transport.get_extra_info("drain_wait_s")
        assert wait() == 0
        transport.write(bytes(8))
        assert wait() == pytest.approx(
            8 * 11 / 9600 + 0.002, abs=1e-6
        )  # 11 bits a character, and the RS-485 turn
        await asyncio.sleep(8 * 11 / 9600 + 0.0021)
        assert wait() == 0
        wire.in_kernel = 3  # it is late: the kernel knows
        assert wait() == pytest.approx(3 * 11 / 9600, abs=1e-6)
        wire.in_kernel = 0
        assert wait() == 0
        transport.write(bytes(4))
        transport.write(bytes(4))  # one burst
        assert wait() == pytest.approx(8 * 11 / 9600 + 0.002, abs=1e-6)
        assert (len(wire.written), talk.drained) == (16, 0)

    run(main())


def test_opening_does_not_wait_for_modem_lines_and_reading_does_not_block(port: Port) -> None:
    before = time.monotonic()
    opened = port_module._opened(str(port.path), LINE)
    try:
        attributes = termios.tcgetattr(opened.fileno())
        assert attributes[2] & termios.CLOCAL
        assert attributes[6][termios.VMIN] in {1, b"\x01"}
        with pytest.raises(BlockingIOError):
            os.read(opened.fileno(), 1)
    finally:
        opened.close()
    assert time.monotonic() - before < 5
