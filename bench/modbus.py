"""Rows about Modbus, by CPU time: client, decoding, server and RTU framing, beside pymodbus."""

from __future__ import annotations

import random
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench.formula import Mode, registers_of
from bench.modbus_masters import Counts
from bench.rig import ROOT, Proc, Programs, RigError, broker, plant, running, wait_for
from bench.rows import GATEWAY, Figures, Plan
from bench.sites import SiteSpec, Topics, write_site
from drivers.modbus.decode import compile_block
from drivers.modbus.field import DataType, Field
from drivers.modbus.planner import Block
from drivers.modbus.scale import Scale
from drivers.modbus.scan import Assembly, BlockRead
from drivers.modbus.wire import rtu
from drivers.modbus.wire.client import Counters
from drivers.modbus.wire.pdu import Table
from gateway.core.point import Layout, Point, ValueType
from gateway.flow.report import Reporter, ReportPolicy

REGISTERS: Final = 120
CLIENTS: Final = 16
ROUNDS: Final = 3  # of which the best counts: others use the caches of this machine meanwhile
CHUNK: Final = 4096  # bytes that a framer is fed at once


def client(programs: Programs, folder: Path, plan: Plan) -> Figures:
    """CPU of a read of 120 registers: ours, a bare protocol's, pymodbus'."""
    reads = 20_000 if plan.window_s > 10 else 4_000
    used: dict[str, float] = {}
    figures = Figures(row="modbus client")
    for who in ("raw", "gateway", "gateway-8", "pymodbus", "pymodbus-asyncio") * ROUNDS:
        with plant(programs, _fresh(folder / who), mode=Mode.ALL, units=8, registers=REGISTERS, ports=1,
                   logs_reads=False) as load:  # fmt: skip
            command = [sys.executable, "-m", "bench.modbus_client", who, load.ports[0], reads, REGISTERS]
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
            )
        if done.returncode:
            raise RigError(f"client {who}: {done.stderr[-2000:]}")
        said = msgspec.json.decode(done.stdout)
        used[who] = min(said["us"], used.get(who, said["us"]))
        figures.wrong += said["wrong"]
    figures.extra = {
        "client us": used["gateway"],
        "pymodbus x": used["pymodbus"] / used["gateway"],
        "pymodbus 8 x": used["pymodbus"] / used["gateway-8"],
    }
    figures.lines.append(
        f"CPU of a read of {REGISTERS} registers, {reads:,} one by one: gateway {used['gateway']:.1f} us, "
        f"bare protocol {used['raw']:.1f} us, pymodbus {used['pymodbus']:.1f} us "
        f"({figures.extra['pymodbus x']:.1f} x), on asyncio's loop {used['pymodbus-asyncio']:.1f} us; "
        f"gateway with 8 devices behind a connection {used['gateway-8']:.1f} us "
        f"({figures.extra['pymodbus 8 x']:.1f} x)"
    )
    return figures


# --- decoding ----------------------------------------------------------------------------------------------


def decoding(_folder: Path, plan: Plan) -> Figures:
    """From an answer's bytes to what is reported: unchanged, and moving within the deadband after scaling."""
    rounds = 20_000 if plan.window_s > 10 else 4_000
    figures = Figures(row="modbus decode")
    for name, key, scale, deadband, moves in (
        ("unchanged", "unchanged us", None, 0.0, False),
        ("all changing within their deadband, scaled", "scaled us", Scale.from_factor(0.1), 50.0, True),
    ):
        took = [_decode(rounds, scale=scale, deadband=deadband, moves=moves) for _ in range(ROUNDS)]
        us = figures.extra[key] = min(us for us, _ in took)
        figures.wrong += sum(wrong for _, wrong in took)
        figures.lines.append(f"{name}: {us:.3f} us a tag, {rounds:,} answers of {REGISTERS} tags")
    return figures


def _decode(rounds: int, *, scale: Scale | None, deadband: float, moves: bool) -> tuple[float, int]:
    """µs per tag, and wrong ones."""
    span = range(REGISTERS)
    fields = [Field(type=DataType.UINT16, start=at, scale=scale) for at in span]
    kind = ValueType.INT if scale is None else ValueType.FLOAT
    points = [Point(device="d", tag=f"r{at:03d}", type=kind, deadband=deadband) for at in span]
    layout = Layout(device="d", scan="s", points=points)
    block = Block(Table.HOLDING_REGISTERS, 0, REGISTERS, tuple(span))
    decode = compile_block(fields, table=Table.HOLDING_REGISTERS, start=0, count=REGISTERS)
    read = BlockRead(block=block, pdu=b"", decode=decode, columns=tuple(span))
    assembly, reporter = Assembly(layout), Reporter(layout, policy=ReportPolicy())
    assembly.set_blocks([read], missing={})
    form = struct.Struct(f">{REGISTERS}H")
    base = [1000 + value % 60_000 for value in registers_of(1, unit=1, count=REGISTERS, mode=Mode.ALL)]
    shown = [[value + number * moves for value in base] for number in range(100)]
    answers = [form.pack(*words) for words in shown]
    told, wrong = 0, 0
    began = time.thread_time()
    for number in range(rounds):
        read.take(bytes(memoryview(answers[number % 100])))  # bytes of its own, as from a socket
        batch = assembly.batch(received_ns=number, monotonic_ns=number)
        told += reporter.offer(batch, number) is not None
    us = (time.thread_time() - began) / rounds / REGISTERS * 1e6
    for words, answer in zip(shown, answers, strict=True):
        read.take(answer)
        expected = tuple(words) if scale is None else tuple(word / 10 for word in words)
        wrong += read.values != expected or read.quality != 0
    return us, wrong + abs(told - 1)


# --- the server role ---------------------------------------------------------------------------------------


def server(programs: Programs, folder: Path, plan: Plan) -> Figures:
    """Requests for a second of the server's CPU with 16 clients: ours as shipped, and pymodbus'."""
    figures = Figures(row="modbus server")
    rates: dict[str, float] = {}
    folder = _fresh(folder / "server")
    for name in ("pymodbus", "pymodbus-asyncio"):
        command: list[str | Path] = [sys.executable, "-m", "bench.modbus_masters", name, str(REGISTERS)]
        with running(name, command, folder=folder) as subject:
            rates[name], _ = _asked(figures, name, subject.json_line()["port"], subject, folder, plan)
    for name, scan in (("gateway", "1h"), ("gateway, values changing", "100ms")):
        with (
            broker(_fresh(folder / scan)) as middle,
            plant(programs, folder / scan, mode=Mode.ALL, units=1, registers=REGISTERS, ports=1,
                  logs_reads=False) as load,
        ):  # fmt: skip
            port = _free_port()
            spec = SiteSpec(devices=1, registers=REGISTERS, scan=scan, topics=Topics.DEVICE, serve_port=port)
            site = folder / scan / "site"
            write_site(site, spec, modbus_ports=load.ports, mqtt_port=middle.port)
            command = [GATEWAY, "run", site, "--state", folder / scan / "state"]
            with running("subject", command, folder=folder / scan) as subject:
                wait_for("a value in the first register", partial(_shows, port), subject, load.proc)
                rates[name], moves = _asked(figures, name, port, subject, folder / scan, plan)
                if (moves > CLIENTS) is not (scan != "1h"):
                    raise RigError(f"{name}: {moves} answers showed other values than the one before")
    figures.extra = {
        "server x": rates["gateway"] / rates["pymodbus"],
        "server asyncio x": rates["gateway"] / rates["pymodbus-asyncio"],
        "server moving x": rates["gateway, values changing"] / rates["pymodbus"],
    }
    return figures


def _asked(
    figures: Figures, name: str, port: int, subject: Proc, folder: Path, plan: Plan
) -> tuple[float, int]:
    """Requests for a second of CPU, and how often values were seen to change."""
    command = [sys.executable, "-m", "bench.modbus_masters", *map(str, (port, CLIENTS, REGISTERS))]
    with running("masters", command, folder=folder) as masters:
        wait_for("answers", lambda: msgspec.convert(masters.json_line(), Counts).answers > 0, masters)
        time.sleep(plan.settle_s)
        first, used = msgspec.convert(masters.json_line(), Counts), subject.usage()
        time.sleep(plan.window_s / 2)
        last, used_then = msgspec.convert(masters.json_line(), Counts), subject.usage()
    seconds = (last.t_ns - first.t_ns) / 1e9
    cpu_share = (used_then.cpu_s - used.cpu_s) / ((used_then.t_ns - used.t_ns) / 1e9)
    rate = (last.answers - first.answers) / seconds
    figures.wrong += last.wrong + last.lost
    figures.lines.append(
        f"{name}: {rate:,.0f} requests/s of {REGISTERS} registers by {CLIENTS} clients at "
        f"{100 * cpu_share:.0f}% of a core: {cpu_share / rate * 1e6:.1f} us each, every value checked"
    )
    return rate / cpu_share, last.moves


def _shows(port: int) -> bool:
    """Whether the first register is there: before the first scan reading it is an exception."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
            link.sendall(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 1))
            return link.recv(100)[7:8] == b"\x03"
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


# --- RTU ---------------------------------------------------------------------------------------------------


def framing(_folder: Path, plan: Plan) -> Figures:
    """MB of a serial line for a second of CPU: frames alone, noise, and noise made to look like frames."""
    size = 1_000_000 if plan.window_s > 10 else 200_000
    generator = random.Random(1)
    reads = [
        (unit, bytes((3, 2 * count)) + generator.randbytes(2 * count))
        for unit, count in ((generator.randrange(1, 33), generator.randrange(1, 126)) for _ in range(5000))
    ]
    frames = [frame for frame, _ in zip(reads, _until(size, (len(pdu) for _, pdu in reads)), strict=False)]
    line = b"".join(rtu.encode(*frame) for frame in frames)
    noise = generator.randbytes(size)
    kinds: dict[str, tuple[bytes, list[rtu.Frame] | None]] = {
        "frames": (line, frames),
        "noise": (noise, None),
        "half the noise": (noise[: size // 2], None),
        "bytes that begin like frames": (
            bytes(generator.choices((1, 3, 16, 20, 23, 250), k=size)), None
        ),
        "03 fa again and again": (b"\x03\xfa" * (size // 2), None),
    }  # fmt: skip
    figures = Figures(row="rtu framer")
    for name, (data, expected) in kinds.items():
        rates = [max(_framed(figures, data, expected, hears) for _ in range(ROUNDS)) for hears in rtu.Hears]
        figures.extra[f"rtu {name}"] = min(rates)
        figures.lines.append(
            f"{name}: {rates[0]:.1f} MB/s as a client hears, {rates[1]:.1f} as a server hears"
        )
    figures.extra["rtu worst"] = min(
        rate for name, rate in figures.extra.items() if name not in {"rtu frames", "rtu half the noise"}
    )
    figures.extra["rtu linear"] = figures.extra["rtu half the noise"] / figures.extra["rtu noise"]
    return figures


def _framed(figures: Figures, data: bytes, expected: list[rtu.Frame] | None, hears: rtu.Hears) -> float:
    """MB for a second of CPU."""
    counters, found = Counters(), list[rtu.Frame]()
    framer = rtu.Framer(hears, counters)
    began = time.thread_time()
    for at in range(0, len(data), CHUNK):
        framer.feed(data[at : at + CHUNK], found)
    framer.silence(found)
    rate = len(data) / (time.thread_time() - began) / 1e6
    in_frames = sum(len(pdu) + rtu.OVERHEAD for _, pdu in found)
    figures.wrong += in_frames + counters.noise_bytes != len(data)
    figures.wrong += expected is not None and found != expected
    return rate


def _until(limit: int, sizes: Iterable[int]) -> Iterable[int]:
    total = 0
    for size in sizes:
        total += size
        if total > limit:
            return
        yield total


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
