"""What a server's configuration becomes: what is refused, what makes it anew, what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from drivers.modbus.assemble_server import make_server
from drivers.modbus.server import WRITES_MAX, Client, Permission
from drivers.modbus.wire import mbap
from drivers.modbus.wire.line_server_session import LineServerSession
from gateway.aio.clock import SystemClock
from gateway.aio.listener import Full, Limits
from gateway.app.compiled import Compiled, compile_site
from gateway.app.plan import server_lines
from gateway.config.load import ConfigErrors, load
from gateway.core.command import CommandResult, Outcome
from gateway.core.point import Value
from gateway.flow.image import Image
from tests.config.kinds import kinds

SITE = """
version: 1
gateway: {name: g}
links:
  plc: {driver: modbus, host: 10.0.0.1}
  hmi: {driver: modbus, role: server, %s}
devices:
  d:
    link: plc
    unit: 1
    defaults: {scan: normal}
    tags:
      n: {at: "hr:0", type: uint16, write: {max: %s}}
      x: {at: "hr:1", type: float32}
      name: {at: "hr:10", type: string, length: 8}
      clock: {at: "hr:20", type: unix32}
      run: {at: "co:0", write: {}}
      m: {at: "hr:30", type: uint16, write: {}}
      b{n}: {at: "co:100", write: {}, repeat: {count: 80, stride: 1, first: 0}}
expose:
  - link: hmi
    unit: %s
    points:
      %s
"""
TCP = "listen: 127.0.0.1:0"
N = "d/n: {at: 'hr:0', type: uint16, write: true}"


def compiled(folder: Path, points: str = N, *, link: str = TCP, unit: int = 1, high: int = 10) -> Compiled:
    (folder / "gateway.yaml").write_text(SITE % (link, high, unit, points))
    return compile_site(load(folder, kinds()))


def problems(folder: Path, points: str = N, *, link: str = TCP, unit: int = 1) -> str:
    try:
        found = compiled(folder, points, link=link, unit=unit)
    except ConfigErrors as errors:
        return str(errors)
    return str(found.servers["hmi"].problems)


@pytest.mark.parametrize(
    ("points", "link", "found"),
    [
        (N, TCP, ""),
        ("d/x: {at: 'hr:0', type: float32, scale: {table: [[0, 0], [10, 100]]}}", TCP, ""),
        ("d/name: {at: 'hr:0', type: string, length: 12}", TCP, ""),
        ("d/clock: {at: 'hr:0', type: unix32}", TCP, ""),
        ("d/run: {at: 'hr:0', bit: 3, type: bool}", TCP, ""),
        (N, "transport: udp, listen: 127.0.0.1:0", ""),
        (N, "transport: udp, listen: 127.0.0.1:0, full: refuse", "full with transport: udp"),
        (N, "transport: udp, listen: 127.0.0.1:0, roles: {a: read}", "roles with transport: udp"),
        (N, "transport: tls, listen: 127.0.0.1:0", "no 'ca'"),
        (N, "transport: rtu", "no 'port'"),
        ("d/n: {at: 'hr:0', type: uint16, bad: {value: 70000}}", TCP, "70000"),
        ("d/n: {at: 'hr:0', type: uint16, bad: {value: 1.5}}", TCP, "found the number 1.5"),
        ("d/n: {at: 'hr:0', type: int16, bad: {value: 0x8000}}", TCP, ""),
        ("d/x: {at: 'hr:0', type: float32, bad: {value: .inf}}", TCP, "found the number inf"),
        ("d/n: {at: 'hr:0', type: bcd16, bad: {value: 12345}}", TCP, "12345"),
        ("d/run: {at: 'hr:0', bit: 3, bad: {value: 1}}", TCP, "a value for a bool"),
        ("d/n: {at: 'hr:0', type: uint16, bad: hold}", TCP, "hold without quality"),
        ("d/x: {at: 'hr:0', type: uint16}", TCP, "a float, as uint16"),
        ("d/run: {at: 'hr:0', type: uint16}", TCP, "a bool, as uint16"),
        ("d/x: {at: 'hr:0', type: float32, write: true}", TCP, "read-only"),
        ("d/gone: {at: 'hr:0', type: float32}", TCP, "no tag matches"),
    ],
)
def test_what_is_taken_and_what_is_refused(points: str, link: str, found: str, tmp_path: Path) -> None:
    said = problems(tmp_path, points, link=link)
    assert (found in said) if found else (said == "()"), said


def test_a_line_has_units_1_to_247(tmp_path: Path) -> None:
    link = "transport: rtu, port: /dev/ttyS9, serial: 9600-8E1"
    for unit in (0, 248, 255):
        assert "1 to 247" in problems(tmp_path, link=link, unit=unit)
    assert problems(tmp_path, link=link, unit=247) == "()"
    assert problems(tmp_path, unit=0) == problems(tmp_path, unit=255) == "()", "a network has all of them"


def test_another_limit_of_what_may_be_written_makes_it_anew(tmp_path: Path) -> None:
    before = compiled(tmp_path).servers["hmi"].made_from
    limits = before[-1]
    assert limits != compiled(tmp_path, high=11).servers["hmi"].made_from[-1]
    assert limits == compiled(tmp_path).servers["hmi"].made_from[-1]


def test_the_plan_names_each_server(tmp_path: Path) -> None:
    assert server_lines(compiled(tmp_path, link="listen: 0.0.0.0:1502", unit=7)) == [
        "server hmi (0.0.0.0:1502): unit 7 with 1 points"
    ]


class Door:
    """A gatekeeper that says what became of each command by a list, and whether the device is there."""

    def __init__(self, *outcomes: Outcome, offline: str = "") -> None:
        self.outcomes = list(outcomes)
        self.offline = offline
        self.commands: list[tuple[str, Value, str]] = []

    def offline_reason(self, device: str) -> str:
        return self.offline

    async def command(self, device: str, tag: str, value: Value, *, issuer: str) -> CommandResult:
        self.commands.append((f"{device}/{tag}", value, issuer))
        return CommandResult(id="c", outcome=self.outcomes.pop(0) if self.outcomes else Outcome.SENT)


class Desk:
    """A server as its clients see it, without a wire."""

    def __init__(self, folder: Path, points: str, door: Door, *, link: str = TCP) -> None:
        parts = compiled(folder, points, link=link).servers["hmi"]
        self.works: list[Coroutine[Any, Any, None]] = []
        self.server = make_server(
            parts, door=door, launch=lambda _name, work: self.works.append(work), clock=SystemClock()
        )
        layouts = {one.layout for sheet in parts.units[1].sheets.values() for one in sheet.points()}
        self.server.bind(Image(layouts).snapshot)
        self.client = Client(self.server, "10.0.0.9", Permission())

    def ask(self, pdu: str, *, unit: int = 1) -> str:
        """The answer, once every command has ended; empty for none."""
        self.client.session.receive(mbap.encode(1, unit, bytes.fromhex(pdu)), 0)
        for work in self.works:
            asyncio.run(work)
        self.works.clear()
        return b"".join(self.client.session.to_send(0))[7:].hex(" ")


TWO = "d/n: {at: 'hr:0', type: uint16, write: true}\n      d/m: {at: 'hr:1', type: uint16, write: true}"


@pytest.mark.parametrize(
    ("outcomes", "offline", "answer", "commands"),
    [
        ((Outcome.SENT, Outcome.VERIFIED), "", "10 00 00 00 02", 2),
        ((Outcome.REJECTED,), "", "90 04", 1),
        ((Outcome.SENT, Outcome.REJECTED), "", "90 04", 2),
        ((Outcome.UNKNOWN,), "", "90 0b", 1),
        ((Outcome.EXPIRED,), "", "90 0b", 1),
        ((Outcome.REJECTED,), "no answer", "90 0b", 1),
    ],
)
def test_the_first_command_that_fails_ends_the_request_and_says_why(
    outcomes: tuple[Outcome, ...], offline: str, answer: str, commands: int, tmp_path: Path
) -> None:
    door = Door(*outcomes, offline=offline)
    assert Desk(tmp_path, TWO, door).ask("10 0000 0002 04 0005 0006") == answer
    assert door.commands == [("d/n", 5, "hmi:10.0.0.9"), ("d/m", 6, "hmi:10.0.0.9")][:commands]


def test_a_refused_value_beyond_its_bounds_is_exception_3(tmp_path: Path) -> None:
    assert Desk(tmp_path, TWO, Door(Outcome.REJECTED)).ask("06 0000 000b") == "86 03", "max is 10"
    assert Desk(tmp_path, TWO, Door(Outcome.REJECTED)).ask("06 0000 000a") == "86 04"


def test_more_points_in_one_write_than_a_request_may_start(tmp_path: Path) -> None:
    bits = "\n      ".join(f"d/b{n}: {{at: 'co:{n}', write: true}}" for n in range(WRITES_MAX + 1))
    door = Door()
    desk = Desk(tmp_path, bits, door)
    assert desk.ask(f"0f 0000 {WRITES_MAX + 1:04x} 09" + "ff" * 9) == "8f 03"
    assert door.commands == []
    assert desk.ask(f"0f 0000 {WRITES_MAX:04x} 08" + "ff" * 8) == f"0f 00 00 00 {WRITES_MAX:02x}"
    assert len(door.commands) == WRITES_MAX


def test_a_unit_that_is_not_served_is_silent_where_that_is_asked_for(tmp_path: Path) -> None:
    assert Desk(tmp_path, TWO, Door()).ask("03 0000 0001", unit=9) == "83 0b"
    assert Desk(tmp_path, TWO, Door(), link=f"{TCP}, unknown_unit: silence").ask("03 0000 0001", unit=9) == ""


def test_what_is_configured_reaches_the_listener_and_the_line(tmp_path: Path) -> None:
    keys = "allow: [10.0.0.0/8], idle: 5s, connections: 3, full: drop_idle"
    listener = Desk(tmp_path, TWO, Door(), link=f"{TCP}, {keys}").server.listener
    assert listener is not None
    assert listener.limits == Limits(
        connections_max=3, full=Full.DROP_IDLE, idle_ns=5 * 10**9, allow=(ip_network("10.0.0.0/8"),)
    )
    line = "transport: rtu, port: /dev/ttyS9, serial: 9600-8E1, echo: true"
    session = Desk(tmp_path, TWO, Door(), link=line).client.session
    assert isinstance(session, LineServerSession)
    assert session.has_echo


def test_it_says_who_it_is(tmp_path: Path) -> None:
    desk = Desk(tmp_path, TWO, Door())
    assert bytes.fromhex(desk.ask("2b 0e 01 00")).startswith(
        bytes.fromhex("2b 0e 01 82 00 00 03 00 0c") + b"Edge Gateway\x01\x0cedge-gateway"
    )
    assert bytes.fromhex(desk.ask("2b 0e 04 06")).endswith(b"\x06\x03hmi")
