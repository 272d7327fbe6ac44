"""The production gateway in virtual time: its own runtime, journal, driver and MQTT session, nothing outside.

Devices and broker are at the far ends of links in memory, and can be sent away. What is different from the
shipped process: the journal's writer and the worker threads do their work in the loop, because a thread would
not know what time it is, and the HTTP service has nobody to listen to.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest.mock import patch

import msgspec

from examples.deduplicate import Deduplicator
from gateway.aio.threads import Worker
from gateway.app.kinds import kinds
from gateway.app.runtime import Gateway
from gateway.config.load import load
from gateway.disk.filesystem import File, RealFileSystem
from gateway.disk.writer import Group
from gateway.journal.journal import Journal, Writing
from tests.aio.memory import LoopClock, Network, Wire
from tests.drivers.modbus.rig import Plc

T = TypeVar("T")
PLANT_PORT: Final = 502
BROKER_PORT: Final = 1883
GATEWAY: Final = "gw"


class SteppingClock(LoopClock):
    """A wall clock that somebody sets, and whether it is disciplined."""

    def __init__(self) -> None:
        super().__init__()
        self.synchronised = True

    def is_synchronised(self) -> bool:
        return self.synchronised

    def set_wall_ns(self, wall_ns: int) -> None:
        """As `date --set` does."""
        self.step_ns += wall_ns - self.wall_ns()


class SmallDisk(RealFileSystem):
    """The real file system, which now and then has no room. Nothing is synced: nobody pulls this plug."""

    def __init__(self) -> None:
        self.is_full = False

    def create(self, path: Path) -> File:
        return _NoRoom(super().create(path), self)

    def open(self, path: Path) -> File:
        return _NoRoom(super().open(path), self)

    def sync_directory(self, directory: Path) -> None:
        """Nobody pulls the plug."""


class _NoRoom:
    def __init__(self, inner: File, disk: SmallDisk) -> None:
        self._inner, self._disk = inner, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def append(self, data: bytes) -> None:
        if self._disk.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._inner.append(data)

    def fdatasync(self) -> None:
        """Nobody pulls the plug."""


class LoopJournal(Journal):
    """Its file work is done in the loop, one commit interval after something was put in."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options, writing=Writing.CALLER)
        self._commit_s = options["settings"].commit_interval_ms / 1000
        self._retry_s = options["settings"].full_retry_ms / 1000
        self._commit_timer: asyncio.TimerHandle | None = None

    def append(self, *args: Any, **options: Any) -> Group:
        self._commit_soon(self._commit_s)
        return super().append(*args, **options)

    def maintain(self) -> None:
        super().maintain()
        if any(lane.log.waiting_bytes() for lane in self._each_lane):
            self._commit_soon(self._commit_s)

    def ask(self) -> None:
        """The loop, which asks, is who would answer."""

    def close(self) -> None:
        if self._commit_timer is not None:
            self._commit_timer.cancel()
        super().close()

    def _commit_soon(self, wait_s: float) -> None:
        if self._commit_timer is None:
            self._commit_timer = asyncio.get_running_loop().call_later(wait_s, self._commit)

    def _commit(self) -> None:
        self._commit_timer = None
        if not self.commit() and self.failure is None:
            self._commit_soon(self._retry_s)


class LoopWorker(Worker):
    """Without its thread."""

    async def run(self, work: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        return work()

    def submit(
        self, work: Callable[[], T], *, done: Callable[[T], None], failed: Callable[[BaseException], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - handed on, as the thread does
            loop.call_soon(failed, error)
        else:
            loop.call_soon(done, result)


class Subscriber:
    """A broker and who listens behind it: takes every message, and judges values."""

    def __init__(self, plant: CountingPlc) -> None:
        self.network = Network(self._on_data)
        self.known = Deduplicator(one_message=True)
        self.connects = 0
        self.values = 0
        self.statuses: list[dict[str, Any]] = []  # the last ones
        self.rows: list[dict[str, Any]] = []  # where a test keeps them
        self.is_keeping = False
        self._plant = plant
        self._early: dict[Wire, bytes] = {}

    def _on_data(self, wire: Wire, data: bytes) -> None:
        wire.sent.clear()
        data = self._early.pop(wire, b"") + data
        while (size := _packet_size(data)) is not None and size <= len(data):
            self._packet(wire, data[:size])
            data = data[size:]
        if data:
            self._early[wire] = data

    def _packet(self, wire: Wire, packet: bytes) -> None:
        """MQTT 3.1.1 §2.2.1: the packet type is the upper half of the first byte."""
        kind, flags = packet[0] >> 4, packet[0] & 0xF
        if kind == 1:  # CONNECT → CONNACK, §3.2
            self.connects += 1
            wire.feed(b"\x20\x02\x00\x00")
        elif kind == 3:  # PUBLISH, §3.3
            body = packet[1 + _varint_size(packet) :]
            (length,) = struct.unpack_from(">H", body)
            topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
            if flags >> 1 & 3:  # PUBACK, §3.4
                wire.feed(b"\x40\x02" + rest[:2])
                rest = rest[2:]
            self._message(topic, msgspec.json.decode(rest), is_retained=False)
        elif kind == 12:  # PINGREQ → PINGRESP, §3.13
            wire.feed(b"\xd0\x00")

    def _message(self, topic: str, said: dict[str, Any], *, is_retained: bool) -> None:
        if not topic.startswith("plant/"):
            self.known.status(GATEWAY, said, is_retained=is_retained)
            self.statuses[:] = [*self.statuses[-3:], said]
            return
        if not self.known.accept(GATEWAY, topic, said["e"], said["n"], said.get("p", 0)):
            return
        self.values += 1
        if "count" in said["v"] and said["v"]["count"] is not None:
            unit = int(topic.rpartition("/d")[2])
            assert said["v"]["double"] == 2 * said["v"]["count"] % 65536, said
            assert said["v"]["count"] <= self._plant.counts[unit], said
        if self.is_keeping:
            self.rows.append(said)


class CountingPlc(Plc):
    """Register 0 counts the reads, register 1 is twice that."""

    def __init__(self, *units: int) -> None:
        super().__init__(*units)
        self.counts = dict.fromkeys(units, 0)
        self.scans_ns: list[int] = []  # where a test keeps them
        self.is_keeping = False

    def respond(self, unit: int, pdu: bytes) -> bytes:
        self.asked.clear()
        self.network.wire.sent.clear()
        if pdu[:3] == b"\x03\x00\x00":
            self.counts[unit] += 1
            if self.is_keeping:
                self.scans_ns.append(asyncio.get_running_loop().now_ns)  # type: ignore[attr-defined]  # virtual
            count = self.counts[unit]
            self.registers[unit] |= {0: count >> 16, 1: count & 0xFFFF, 2: 2 * count % 65536}
        return super().respond(unit, pdu)


def _varint_size(data: bytes) -> int:
    return next((n for n in range(1, 5) if n < len(data) and not data[n] & 0x80), 0)


def _packet_size(data: bytes) -> int | None:
    """MQTT 3.1.1 §2.2.3: seven bits a byte, the lowest first. None while it is not all there."""
    size = _varint_size(data)
    if not size:
        return None
    return 1 + size + sum((data[1 + n] & 0x7F) << 7 * n for n in range(size))


class _Nobody:
    """What `create_server` gives: the HTTP service listens and nobody comes."""

    def __init__(self) -> None:
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 8080)

    def close(self) -> None: ...

    async def wait_closed(self) -> None: ...


SITE: Final = """\
version: 1
gateway: {{name: {name}}}
http: {{listen: "127.0.0.1:8080"}}
journal: {{commit: 20ms, unsynchronised: {unsynchronised}}}
links:
  plc: {{driver: modbus, host: "127.0.0.1:{plant}"}}
scan: {{slow: {scan}}}
templates:
  meter:
    defaults: {{scan: slow}}
    tags:
      count: {{at: "hr:0", type: uint32, atomic: row}}
      double: {{at: "hr:2", type: uint16, atomic: row}}
devices:
{devices}
uplinks:
  broker: {{kind: mqtt, url: "mqtt://127.0.0.1:{broker}", version: "3.1.1"}}
publish:
  - uplink: broker
    topic: "plant/{{device}}"
    report: {{on: scan}}
    buffer: {{keep: {keep}}}
    fields: {{v: value, q: quality, t: time, ts: time_origin, tq: time_quality, e: epoch, n: seq}}
"""


class VirtualSite:
    """A gateway between a plant of some units and a subscriber."""

    def __init__(
        self,
        folder: Path,
        *,
        units: int = 2,
        scan: str = "1s",
        keep: str = "1h",
        unsynchronised: str = "mark",
    ) -> None:
        self.state = folder / "state"
        self.config = folder / "config"
        self.config.mkdir(parents=True)
        devices = "\n".join(
            f"  d{unit}: {{link: plc, unit: {unit}, use: meter}}" for unit in range(1, units + 1)
        )
        text = SITE.format(
            name=GATEWAY,
            plant=PLANT_PORT,
            broker=BROKER_PORT,
            scan=scan,
            devices=devices,
            keep=keep,
            unsynchronised=unsynchronised,
        )
        (self.config / "gateway.yaml").write_text(text)
        self.plant = CountingPlc(*range(1, units + 1))
        self.subscriber = Subscriber(self.plant)
        self.clock = SteppingClock()
        self.disk = SmallDisk()
        self.gateway: Gateway

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """The gateway, for the length of a block; stopped in order after it."""
        loop = asyncio.get_running_loop()
        networks = {PLANT_PORT: self.plant.network, BROKER_PORT: self.subscriber.network}

        async def connect(factory: Any, host: str, port: int, **more: object) -> Any:
            network = networks[port]
            network.wires[:] = [wire for wire in network.wires if wire.is_open]
            network.attempts_ns.clear()
            return await network._connect(factory, host, port, **more)

        async def nobody(*_args: object, **_more: object) -> _Nobody:
            return _Nobody()

        stand_ins: dict[str, Any] = {
            "create_connection": connect,
            "create_server": nobody,
            "add_signal_handler": lambda *_args: None,
        }
        for name, stand_in in stand_ins.items():
            setattr(loop, name, stand_in)
        with _in_the_loop(self.disk):
            self.gateway = Gateway(self.config, state=self.state, clock=self.clock)
            task = asyncio.create_task(self.gateway.run(load(self.config, kinds())))
            try:
                yield self.gateway
            finally:
                self.gateway._stop.set()
                code = await task
            assert code == 0

    def journal_bytes(self) -> int:
        """On disk."""
        return sum(path.stat().st_size for path in (self.state / "journal").rglob("*.log"))


@contextmanager
def _in_the_loop(disk: SmallDisk) -> Iterator[None]:
    with (
        patch("gateway.app.store.RealFileSystem", lambda: disk),
        patch("gateway.app.store.Journal", LoopJournal),
        patch("gateway.app.runtime.Worker", LoopWorker),
    ):
        yield
