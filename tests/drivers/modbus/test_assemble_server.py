"""What a server's configuration becomes: what is refused, what makes it anew, what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.modbus.assemble_server import make_server
from drivers.modbus.wire import mbap
from drivers.modbus.wire.respond import Responder
from gateway.aio.clock import SystemClock
from gateway.app.compiled import Compiled, compile_site
from gateway.app.plan import server_lines
from gateway.config.load import ConfigErrors, load
from gateway.core.command import CommandResult, Outcome
from gateway.core.point import Value
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
    """A gatekeeper that takes nothing."""

    def offline_reason(self, device: str) -> str:
        return ""

    async def command(self, device: str, tag: str, value: Value, *, issuer: str) -> CommandResult:
        return CommandResult(id="c", outcome=Outcome.REJECTED)


def test_it_says_who_it_is(tmp_path: Path) -> None:
    parts = compiled(tmp_path).servers["hmi"]
    server = make_server(parts, door=Door(), launch=lambda _name, work: work.close(), clock=SystemClock())

    class Nothing:
        def has_unit(self, unit: int) -> bool:
            return unit == 1

    session = server.make_session(Responder(Nothing(), identity=server.identity))  # type: ignore[arg-type]  # a model of no registers
    session.receive(mbap.encode(1, 1, bytes.fromhex("2b 0e 01 00")), 0)
    (answer,) = session.to_send(0)
    assert answer[7:].startswith(
        bytes.fromhex("2b 0e 01 82 00 00 03 00 0c") + b"Edge Gateway\x01\x0cedge-gateway"
    )
    session.receive(mbap.encode(2, 1, bytes.fromhex("2b 0e 04 06")), 0)
    assert session.to_send(0)[0].endswith(b"\x06\x03hmi")
