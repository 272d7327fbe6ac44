"""What the rows about Modbus measure is the shipped code, and a wrong value in them is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import modbus, modbus_client
from bench.formula import Mode, registers_of
from bench.modbus_masters import Counts, Master
from bench.rows import Figures
from bench.sites import SiteSpec, Topics, write_site
from drivers.modbus.scale import Scale
from drivers.modbus.wire import rtu
from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.config.load import load


@pytest.mark.parametrize("scale", [None, Scale.from_factor(0.1)])
def test_decoding_reports_the_first_answer_only_and_is_right(scale: Scale | None) -> None:
    us, wrong = modbus._decode(30, scale=scale, deadband=50.0, moves=scale is not None)
    assert us > 0
    assert wrong == 0
    assert modbus._decode(30, scale=scale, deadband=0.0, moves=True)[1] > 0  # every one was reported


def test_wrong_and_missing_blocks_of_a_client_are_counted() -> None:
    blocks = [registers_of(read, unit=3, count=5, mode=Mode.ALL) for read in range(7, 20)]
    assert modbus_client.wrong_blocks(blocks, 5, unit=3) == 0
    assert modbus_client.wrong_blocks([*blocks[:4], *blocks[5:]], 5, unit=3) == 8
    blocks[6] = [*blocks[6][:4], 1]
    assert modbus_client.wrong_blocks(blocks, 5, unit=3) == 1
    assert modbus_client.wrong_blocks([], 5, unit=3) > 0
    assert modbus_client.wrong_blocks([()], 5, unit=3) > 0  # a quality that was not good


class _Transport:
    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.requests.append(data)


def test_a_master_checks_every_answer() -> None:
    def answer(words: list[int]) -> bytes:
        body = b"".join(word.to_bytes(2) for word in words)
        return b"\x00\x07\x00\x00\x00\x0b\x01\x03\x08" + body

    counts, transport = Counts(), _Transport()
    master = Master(counts, 4)
    master.connection_made(transport)
    right: Any = [registers_of(read, unit=1, count=4, mode=Mode.ALL) for read in (1, 2)]
    for words in right:
        data = answer(words)
        master.data_received(data[:9])
        master.data_received(data[9:])
    assert (counts.answers, counts.wrong, counts.moves) == (2, 0, 2)
    assert len(transport.requests) == 3
    master.data_received(answer([*right[0][:3], 0]))
    master.data_received(b"\x00\x07\x00\x00\x00\x03\x01\x83\x0b")
    assert (counts.answers, counts.wrong) == (4, 2)


def test_bytes_that_a_framer_loses_are_counted() -> None:
    figures = Figures(row="rtu framer")
    frame = 5, bytes.fromhex("03 02 0001")
    line = rtu.encode(*frame)
    assert modbus._framed(figures, line + b"\xff\xff" + line, [frame, frame], rtu.Hears.RESPONSES) > 0
    assert figures.wrong == 0
    modbus._framed(figures, line, [frame, frame], rtu.Hears.RESPONSES)
    assert figures.wrong == 1


def test_the_site_that_serves_shows_all_its_registers(tmp_path: Path) -> None:
    spec = SiteSpec(devices=1, registers=120, scan="1h", topics=Topics.DEVICE, serve_port=1502)
    site = load(write_site(tmp_path, spec, modbus_ports=[1], mqtt_port=1), kinds())
    (server,) = compile_site(site).servers.values()
    assert sum(len(sheet) for unit in server.units.values() for sheet in unit.sheets.values()) == 120
