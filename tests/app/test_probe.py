"""`gateway probe`: what it prints, word for word; what it refuses to send; exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from drivers.modbus.asker import Exchange
from drivers.modbus.wire.client import TimedOut
from gateway.app.probe import report
from gateway.app.probe.question import Wrong, changes_something, raw_pdu, span_of
from tests.app.simulator import gateway as run
from tests.app.simulator import simulator
from tests.drivers.modbus.pymodbus_server import pymodbus_server
from tests.peers import require

CASES = Path(__file__).parents[1] / "cases/probe"
MAP = """
templates:
  pump:
    tags:
      speed: {at: "hr:0", type: float32, order: CDAB}
      count: {at: "hr:2", type: int16}
      sp:    {at: "hr:10", type: float32, write: {min: 0, max: 3000}}
      run:   {at: "co:3", write: {}}
      name:  {at: "ir:0", type: string, length: 8}
      on:    {at: "di:0"}
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A simulated pump that shows 1482.5, -2 and "on"."""
    path = tmp_path_factory.mktemp("map") / "pump.yaml"
    path.write_text(MAP)
    with simulator("--map", str(path), "--listen", "127.0.0.1:0") as running:
        for line in ("set pump/speed 1482.5", "set pump/count -2", "set pump/on true"):
            assert "until `release" in running.tell(line)
        yield running.addresses[0]


GOLDEN = {
    "registers": ("hr:0", "--count", "2"),
    "float": ("40001", "--type", "float32", "--order", "CDAB"),
    "values": ("hr:2", "--type", "int16"),
    "string": ("ir:0", "--type", "string", "--length", "8"),
    "bits": ("di:0",),
    "write": ("hr:10", "--type", "float32", "--write", "12.5", "--yes"),
    "coil": ("co:3", "--write", "on", "--yes"),
    "refused": ("hr:500",),
    "identification": ("--pdu", "2b0e0100"),
    "server-id": ("--pdu", "11"),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_what_is_printed(name: str, address: str) -> None:
    done = run("probe", "--host", address, "1", *GOLDEN[name])
    assert done.stderr == ""
    assert done.returncode == (1 if name == "refused" else 0)
    text = re.sub(r"\d+\.\d ms", "_ ms", done.stdout.replace(address, "HOST"))
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    path = CASES / f"{name}.txt"
    assert text == path.read_text()
    shown = [line for line in text.splitlines() if not line.startswith("<")]  # answers wrap
    assert max(map(len, shown)) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hr:10", "--write", "7"), "this may change something; --yes if it is meant"),
        (("--pdu", "06 0000 0001"), "this may change something"),
        (("--pdu", "08 0001 0000"), "this may change something"),
        (("hr:10", "--write", "x", "--yes"), "found 'x', expected a number"),
        (("hr:10", "--write", "70000", "--yes"), "expected raw 0..65535"),
        (("ir:0", "--write", "1", "--yes"), "found a table that nothing writes"),
        (("hr:10", "--type", "flaot32"), "did you mean 'float32'"),
        (("hr:10", "--type", "string"), "length: the number of characters"),
        (("hr:65535", "--count", "2"), "all within 0..65535"),
        (("4",), "expected five or six digits"),
        ((), "found no ADDRESS"),
        (("hr:0", "--pdu", "11"), "expected the PDU alone"),
        (("--pdu", "zz"), "found 'zz', expected hexadecimal digits"),
        (("--pdu", "03 00"), "expected a PDU"),
    ],
)
def test_what_makes_no_sense_is_not_sent(arguments: tuple[str, ...], words: str) -> None:
    done = run("probe", "--host", "127.0.0.1:1", "1", *arguments, columns=200)
    assert done.returncode == 2, done.stdout
    assert words in done.stderr


def test_wires_that_are_not_there_are_explained(tmp_path: Path) -> None:
    done = run("probe", "--host", "127.0.0.1:1", "1", "hr:0")
    assert (done.returncode, done.stderr) == (
        1, "gateway: 127.0.0.1:1: connection refused: nothing listens there\n",
    )  # fmt: skip
    done = run("probe", "1", "hr:0")
    assert "found no readable file" in done.stderr
    assert "expected DIR LINK UNIT [ADDRESS]" in run("probe", "1").stderr
    done = run("probe", "configs/demo", "plcc", "1", "hr:0")
    assert (done.returncode, done.stderr) == (
        78, "configs/demo: found no Modbus link 'plcc', expected plc\n",
    )  # fmt: skip
    assert "--line: found '96'" in run("probe", "--port", "/dev/ttyNONE", "--line", "96", "1", "hr:0").stderr


def test_a_port_that_a_gateway_holds_is_explained() -> None:
    with simulator("--map", "configs/demo", "--pty") as running:
        port = running.addresses[0]
        line = ("--port", port, "--line", "19200-8N1")
        with contextlib.closing(serial.Serial(port, exclusive=True)):
            done = run("probe", *line, "3", "hr:0")
        assert done.returncode == 1
        assert f"{port} 19200-8N1: the port is in use by" in done.stderr
        assert "systemctl stop edge-gateway" in done.stderr
        read = run("probe", *line, "3", "hr:30", "--type", "string", "--length", "8")
        assert read.returncode == 0, read.stderr
        assert "SIM-" in read.stdout


def test_silence_and_wrong_answers_are_told_apart(address: str) -> None:
    del address
    exchange = Exchange(event=TimedOut(None, was_sent=True), sent=b"\1\2", received=b"\3\4", took_ns=10**9)
    lines = [line.plain for line in report.answered(b"\3\0\0\0\1", exchange, timeout_ns=10**9)]
    assert lines == ["< no answer within 1000 ms", "  what was heard:", "  03 04"]
    with simulator("--map", "configs/demo", "--listen", "127.0.0.1:0") as running:
        for rule, words in (
            ("silence", "no answer within 200 ms"),
            ("close", "the connection was lost"),
            ("wrong_unit", "a wrong answer: found unit 2"),
        ):
            running.tell("clear")
            running.tell(f"fault {rule}")
            host = running.addresses[0]
            done = run("probe", "--host", host, "1", "hr:0", "--timeout", "200ms", columns=200)
            assert done.returncode == 1
            assert words in done.stdout


def test_a_value_that_does_not_read_back_is_said(address: str) -> None:
    del address
    device = _Stubborn()
    with device as port:
        done = run("probe", "--host", f"127.0.0.1:{port}", "1", "hr:0", "--write", "5", "--yes")
    assert done.returncode == 1
    assert "the device shows another value than the one written" in done.stdout


class _Stubborn:
    """Confirms a write and shows 9 whatever was written."""

    def __enter__(self) -> int:
        self._loop = asyncio.new_event_loop()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                while True:
                    request = await reader.readexactly(12)
                    pdu = request[7:] if request[7] == 6 else bytes.fromhex("03 02 0009")
                    writer.write(request[:4] + (len(pdu) + 1).to_bytes(2, "big") + request[6:7] + pdu)
            writer.close()

        server = self._loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
        self._server = server
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return int(server.sockets[0].getsockname()[1])

    def __exit__(self, *_error: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


READS = ["01 0000 0001", "04 0000 0001", "07", "0b", "0c", "11", "2b 0e 01 00", "08 0002 0000"]
WRITES = ["05 0000 ff00", "10 0000 0001 02 0001", "16 0000 0000 0000", "41 00", "08 0004 0000"]


@pytest.mark.parametrize("pdu", READS)
def test_reads_are_sent_without_asking(pdu: str) -> None:
    assert not changes_something(raw_pdu(pdu))


@pytest.mark.parametrize("pdu", WRITES)
def test_everything_else_is_not(pdu: str) -> None:
    assert changes_something(raw_pdu(pdu))


def test_wrong_pdus_are_refused() -> None:
    for wrong in ("", "00", "80 01", "03", "0g"):
        with pytest.raises(Wrong, match="--pdu"):
            raw_pdu(wrong)


def test_several_values_of_a_type() -> None:
    from drivers.modbus.address import parse

    span = span_of(parse("hr:4"), kind="int32", order="DCBA", count=2, length=None)
    assert span.count == 4
    assert span.decoded(bytes.fromhex("0100 0000 feff ffff")) == [1, -2]


@pytest.mark.interop
def test_a_pymodbus_server_with_holes_is_probed_and_scanned(tmp_path: Path) -> None:
    require("pymodbus")
    held = {0: [11, 12, 13], 100: list(range(1, 31)), 300: [7]}
    with pymodbus_server(unit=1, bits=[[True] * 20, [False] * 9], words=[held, {5: [55, 56]}]) as port:
        host = f"127.0.0.1:{port}"
        done = run("probe", "--host", host, "1", "hr:0", "--count", "3")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "< 3 registers 000b 000c 000d" in done.stdout
        refused = run("probe", "--host", host, "1", "hr:3", columns=200)
        assert (refused.returncode, "refused: exception 2" in refused.stdout) == (1, True)
        ranges = ("hr:0-400", "ir:0-400", "co:0-100", "di:0-100")
        options = [word for one in ranges for word in ("--range", one)]
        site = tmp_path / "gateway.yaml"
        scanned = run(
            "scan", "modbus", "--host", host, "--units", "1", "--step", "1", *options, "--out", str(site)
        )
        assert scanned.returncode == 0, scanned.stderr
        assert "unit 1: 34 holding registers, 2 input registers" in scanned.stderr
        checked = run("check", str(tmp_path))
        assert (checked.returncode, checked.stderr) == (0, "")
        text = site.read_text()
    for words in (
        "holding registers 0..2",
        "holding registers 100..129",
        "holding registers 300",
        "#    56  0x0038",
    ):
        assert f"# {words}\n" in text or f"{words}\n" in text


def test_a_simulated_site_is_scanned_as_a_person_would(tmp_path: Path) -> None:
    with simulator("--map", "configs/demo", "--listen", "127.0.0.1:0") as running:
        host = running.addresses[0]
        done = run("scan", "modbus", "--host", host)
        assert done.returncode == 0, done.stderr
        assert "3 of them answer: 1, 2, 3" in done.stderr
        assert "unit 3 (Edge Gateway simulator): 24 holding registers" in done.stderr
        (tmp_path / "gateway.yaml").write_text(done.stdout)
        assert run("check", str(tmp_path)).returncode == 0
        nobody = run("scan", "modbus", "--host", host, "--units", "9-10")
        assert (nobody.returncode, "# no unit answered" in nobody.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--units", "1-300"), "found '1-300', expected units from 0 to 255"),
        (("--range", "hr:9-1"), "from low to high in one table"),
        (("--range", "xx:1"), "expected one of co, di, hr, ir"),
    ],
)
def test_scans_that_make_no_sense(arguments: tuple[str, ...], words: str) -> None:
    done = run("scan", "modbus", "--host", "127.0.0.1:1", *arguments, columns=200)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
