"""The gateway as a process, seen from outside: a plant to read, a wire to cut, listeners, the process."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.respond import Responder
from drivers.modbus.wire.server import ServerSession
from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Backoff, Endpoint
from gateway.aio.tcp import TcpOpener
from gateway.core.batch import Batch
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.inspection import journal_directory, look
from gateway.uplink.mqtt.wire.events import Connected, Event, Message
from gateway.uplink.mqtt.wire.packets import Subscription
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import SESSION_NEVER_EXPIRES, Settings

ROOT: Final = Path(__file__).parents[2]
LOOPBACK: Final = "127.0.0.1"
READY_S: Final = 20.0  # a start on a busy machine
STOP_S: Final = 5.0  # what the gateway promises for SIGTERM
LOOK_S: Final = 0.01  # between two looks at something outside this process
T = TypeVar("T")


def until(true: Callable[[], T], what: str, *, within_s: float = READY_S) -> T:
    """The first truthy result of `true`, asked again until it comes; fails with `what` after `within_s`."""
    give_up = time.monotonic() + within_s
    while True:
        found = true()
        if found:
            return found
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(LOOK_S)


class Background:
    """An event loop on a thread of its own, for servers that must answer while a test waits."""

    def __init__(self) -> None:
        self.loop: Final = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test servers", daemon=True)
        self.at_end: Final[list[Callable[[], None]]] = []  # what lives on it and must be closed before it
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T], *, within_s: float = READY_S) -> T:
        """The result of `work`, done there."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(within_s)

    def launch(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """`work`, done there without waiting."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def do(self, work: Callable[[], T]) -> T:
        """The result of a plain call, made there."""

        async def now() -> T:
            return work()

        return self.call(now())

    def close(self) -> None:
        """End everything on it."""
        while self.at_end:
            self.at_end.pop()()

        async def cancel_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.call(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(READY_S)
        self.loop.close()


# The plant

VALUES: Final = 6  # derived registers beside the counter
SETPOINTS: Final = 100  # the first of the writable registers; they keep what is written


def derived(unit: int, count: int, column: int) -> int:
    """What register `column` of a unit shows at a count: anybody can check it, nobody can guess it."""
    return (count * 40_503 + column * 2_654 + unit * 97) & 0xFFFF


class Plant:
    """Modbus units whose holding registers 0 and 1 count the reads, 2 … follow from the count.

    Registers from 100 on and coils keep what is written. A `DataModel`; lives on the loop of its background.
    """

    def __init__(self, background: Background, *, units: int = 1) -> None:
        self.counts: Final = dict.fromkeys(range(1, units + 1), 0)
        self.writes: Final[list[tuple[int, int, int]]] = []  # (unit, register, value), also of coils
        self.setpoints: Final[dict[tuple[int, int], int]] = {}
        self.is_frozen = False  # each read shows the same
        self.is_silent = False  # requests are taken and never answered
        self.is_silent_on_write = False  # writes are done and never answered
        self.refuses_writes = False  # with exception 2
        self.connections: Final[set[_PlantConnection]] = set()
        self.accepted = 0
        self._background = background
        self._server: asyncio.Server | None = None
        self.port = 0
        background.at_end.append(self.stop)

    def start(self) -> None:
        """Listen, on the same port as before where there was one."""

        async def listen() -> None:
            self._server = await self._background.loop.create_server(
                lambda: _PlantConnection(self), LOOPBACK, self.port
            )
            self.port = self._server.sockets[0].getsockname()[1]

        self._background.call(listen())

    def stop(self) -> None:
        """Off: nothing listens, what was open is cut."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
                await asyncio.sleep(0)
            for connection in tuple(self.connections):
                connection.abort()

        self._background.call(close())

    def has_unit(self, unit: int) -> bool:
        """Units are numbered from 1."""
        return unit in self.counts

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Coils as written."""
        bits = sum(1 << i for i in range(count) if self.setpoints.get((unit, 10_000 + start + i)))
        return bits.to_bytes((count + 7) // 8, "little")

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """The counting block, or set-points."""
        if start >= SETPOINTS:
            values = [self.setpoints.get((unit, start + i), 0) for i in range(count)]
            return struct.pack(f">{count}H", *values)
        if start == 0 and not self.is_frozen:
            self.counts[unit] += 1
        now = self.counts[unit]
        row = [now >> 16, now & 0xFFFF, *(derived(unit, now, column) for column in range(2, start + count))]
        return struct.pack(f">{count}H", *row[start : start + count])

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | None:
        """Counted."""
        if self.refuses_writes:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        bits = int.from_bytes(data, "little")
        for i in range(count):
            self._write(unit, 10_000 + start + i, bits >> i & 1)
        return None

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | None:
        """Counted."""
        if self.refuses_writes:
            return ExceptionCode.ILLEGAL_DATA_ADDRESS
        for i, value in enumerate(struct.unpack(f">{len(data) // 2}H", data)):
            self._write(unit, start + i, value)
        return None

    def _write(self, unit: int, register: int, value: int) -> None:
        self.setpoints[unit, register] = value
        self.writes.append((unit, register, value))


class _PlantConnection(asyncio.Protocol):
    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._session = ServerSession(Responder(plant))
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._plant.connections.add(self)
        self._plant.accepted += 1

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        plant = self._plant
        if plant.is_silent:
            return
        before = len(plant.writes)
        self._session.receive(data, 0)
        answers = self._session.to_send(0)
        if plant.is_silent_on_write and len(plant.writes) > before:
            return
        if self._transport is not None:
            self._transport.writelines(answers)

    def connection_lost(self, exc: Exception | None) -> None:
        self._plant.connections.discard(self)


# The way to the broker


class Wire:
    """A TCP path that can be cut, held and refused: connections to `port` go on to `target`.

    `cut_after`: how many bytes a connection may carry before it is cut (both ways together), None for any.
    """

    def __init__(self, background: Background, target: int) -> None:
        self.port = 0
        self.cut_after: Callable[[], int | None] = lambda: None
        self.cuts = 0
        self.connections: Final[set[_Side]] = set()
        self.accepted = 0
        self.target = target
        self._background = background
        self.is_held = False  # what the target says is kept back
        self.is_swallowing = False  # nothing gets through, either way
        self._server: asyncio.Server | None = None
        background.at_end.append(self.stop)

    def start(self) -> None:
        """Listen, on the same port as before where there was one."""

        async def listen() -> None:
            self._server = await self._background.loop.create_server(
                lambda: _Side(self, None), LOOPBACK, self.port
            )
            self.port = self._server.sockets[0].getsockname()[1]

        self._background.call(listen())

    def hold(self) -> None:
        """From now on nothing that the target says comes through; what we say does."""
        self._background.do(lambda: setattr(self, "is_held", True))

    def release(self) -> None:
        """Cut what was held and let the next connection through."""
        self._background.do(lambda: setattr(self, "is_held", False))
        self.cut()

    def cut(self) -> None:
        """Reset every connection now."""
        self._background.do(lambda: [side.cut() for side in tuple(self.connections)])

    def stop(self) -> None:
        """Refuse connections, and cut those there are."""

        async def close() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
                await asyncio.sleep(0)
            for side in tuple(self.connections):
                side.cut()

        self._background.call(close())


class _Side(asyncio.Protocol):
    """One end of a connection through a wire."""

    def __init__(self, wire: Wire, other: _Side | None) -> None:
        self._wire = wire
        self._other = other
        self._is_far = other is not None
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self.left: int | None = None  # bytes until the cut, kept at the near end
        self._connecting: asyncio.Task[Any] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        wire = self._wire
        if self._is_far:
            assert self._other is not None
            self._other.adopt(self)
            return
        wire.connections.add(self)
        wire.accepted += 1
        self.left = wire.cut_after()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Side(self._wire, self), LOOPBACK, self._wire.target)
        except OSError:
            self.abort()

    def adopt(self, far: _Side) -> None:
        self._other = far
        far.write(b"".join(self._early))
        self._early.clear()
        if self._transport is None:
            far.abort()

    def data_received(self, data: bytes) -> None:
        near = self._other if self._is_far else self
        assert near is not None
        if self._wire.is_swallowing or (self._is_far and self._wire.is_held):
            return
        if near.left is not None:
            if len(data) >= near.left:  # the first half of a packet goes out, then the path breaks
                self._forward(data[: near.left])
                self._wire.cuts += 1
                near.cut()
                return
            near.left -= len(data)
        self._forward(data)

    def _forward(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
        else:
            self._other.write(data)

    def write(self, data: bytes) -> None:
        if self._transport is not None and data:
            self._transport.write(data)

    def cut(self) -> None:
        self.abort()
        if self._other is not None:
            self._other.abort()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._wire.connections.discard(self)
        if self._other is not None:
            self._other.abort()


def seeded_cuts(seed: int, *, low: int, high: int) -> Callable[[], int]:
    """Where each connection breaks, in bytes."""
    chance = random.Random(seed)
    return lambda: chance.randint(low, high)


# Who listens


class Heard(NamedTuple):
    """One message as it came."""

    topic: str
    payload: bytes
    retain: bool

    @property
    def json(self) -> Any:
        """The payload as an object."""
        return msgspec.json.decode(self.payload)


class Listener:
    """Keeps what it hears, in order; a test waits for what it expects."""

    def __init__(self) -> None:
        self.heard: Final[list[Heard]] = []

    def on(self, topic: str) -> list[Heard]:
        """What came on one topic so far."""
        return [one for one in tuple(self.heard) if one.topic == topic]

    def wait_for(self, wanted: Callable[[Heard], Any], what: str, *, within_s: float = READY_S) -> Heard:
        """The first message that is wanted, heard already or soon."""
        start = 0

        def look() -> Heard | None:
            nonlocal start
            while start < len(self.heard):
                start += 1
                if wanted(self.heard[start - 1]):
                    return self.heard[start - 1]
            return None

        return until(look, what, within_s=within_s)  # type: ignore[return-value]  # truthy is not None

    def close(self) -> None:
        """Leave."""


class PahoListener(Listener):
    """paho-mqtt with a session that the broker keeps; also publishes, as an operator's station would."""

    def __init__(
        self,
        port: int,
        *filters: str,
        name: str = "listener",
        version: int = 5,
        clean: bool = False,
        user: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._filters = [(one, 1) for one in filters]
        is_v5 = version == 5
        self._is_v5 = is_v5
        self.subscribed = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
            **({} if is_v5 else {"clean_session": clean}),
        )
        if user is not None:
            self.client.username_pw_set(*user)
        self.client.reconnect_delay_set(0.02, 0.1)  # type: ignore[arg-type]  # seconds; fractions work
        self.client.on_message = self._on_message
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        options: dict[str, Any] = {}
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else SESSION_NEVER_EXPIRES
            options = {"clean_start": clean, "properties": properties}
        self.client.connect(LOOPBACK, port, **options)
        self.client.loop_start()
        assert not filters or self.subscribed.wait(READY_S), "the broker does not take the subscription"

    def _on_connect(self, *_: object) -> None:
        if self._filters:
            self.client.subscribe(self._filters)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.heard.append(Heard(message.topic, message.payload, message.retain))

    def publish(
        self,
        topic: str,
        payload: object,
        *,
        retain: bool = False,
        qos: int = 1,
        expiry_s: int | None = None,
    ) -> None:
        """Send one message (an object as JSON) and wait until the broker has it."""
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        self.client.publish(topic, data, qos=qos, retain=retain, properties=properties).wait_for_publish(
            READY_S
        )

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class WireListener(Listener):
    """Our own session as the subscriber, with a session that the broker keeps."""

    def __init__(self, background: Background, port: int, *filters: str, name: str = "listener") -> None:
        super().__init__()
        self._filters = filters
        self._clock = SystemClock()
        # For ever: mosquitto 2.0.11 takes a saved session with an end for one that has ended already.
        self.session = ClientSession(Settings(client_id=name, session_expiry_s=SESSION_NEVER_EXPIRES))
        self.subscribed = threading.Event()
        self._background = background
        self._endpoint = Endpoint(
            name, TcpOpener(LOOPBACK, port), clock=self._clock, backoff=Backoff(first_s=0.02, limit_s=0.1)
        )
        self._running = background.launch(self._endpoint.keep(self))
        background.at_end.append(self.close)
        assert self.subscribed.wait(READY_S), "the broker does not take the subscription"

    def link_up(self) -> None:
        self.session.connect(self._clock.monotonic_ns())

    def link_events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Connected):
                wanted = [Subscription(filter=one, qos=1) for one in self._filters]
                self.session.subscribe(wanted, self._clock.monotonic_ns())
            elif isinstance(event, Message):
                self.heard.append(Heard(event.topic, event.payload, event.retain))
                self.session.acknowledge(event)
            elif type(event).__name__ == "Subscribed":
                self.subscribed.set()

    def link_closing(self) -> None:
        """The session stays."""

    def link_down(self, reason: str) -> None:
        """The session stays."""

    def close(self) -> None:
        self._running.cancel()


# The gateway


class Answer(NamedTuple):
    """An answer of the HTTP service."""

    code: int
    body: bytes

    @property
    def json(self) -> Any:
        """The body as an object."""
        return msgspec.json.decode(self.body)


class Gateway:
    """`python -m gateway.app.cli run DIR --state DIR` in a folder of its own; each run has its own log."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any] | None = None,
        *,
        env: dict[str, str] | None = None,
        program: Sequence[str] = ("-m", "gateway.app.cli"),
    ) -> None:
        """`program`: what Python is told to run with `run DIR --state DIR`."""
        self.folder: Final = folder
        self._program = tuple(program)
        self.config_dir: Final = folder / "config"
        self.state: Final = folder / "state"
        self._env = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
        self._env.update({"PYTHONPATH": str(ROOT), **(env or {})})
        self.process: subprocess.Popen[bytes] | None = None
        self.runs = 0
        self.config_dir.mkdir(parents=True, exist_ok=True)
        if config is not None:
            self.configure(config)

    def configure(self, config: dict[str, Any]) -> None:
        """Write gateway.yaml; JSON is YAML."""
        (self.config_dir / "gateway.yaml").write_text(json.dumps(config, indent=1))

    def launch(self, *before: str) -> None:
        """Start it and do not wait; `before` are words in front of the command."""
        self.runs += 1
        command = [*before, sys.executable, *self._program, "run", str(self.config_dir)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--state", str(self.state)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env, cwd=self.folder,
                start_new_session=True,
            )  # fmt: skip

    def start(self, *before: str) -> None:
        """Start it and return once it says that it runs and answers."""
        self.launch(*before)
        self.await_log("gateway runs")
        self.get("/healthz")

    def kill(self) -> None:
        """SIGKILL, as a power cut; nothing where it is down."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self, number: signal.Signals = signal.SIGTERM, *, within_s: float = STOP_S) -> tuple[int, float]:
        """Send a signal; the exit code and the seconds it took."""
        process = self.running
        began = time.monotonic()
        process.send_signal(number)
        try:
            code = process.wait(within_s + 10)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still runs {within_s + 10:g} s after {number.name}\n{self.log}") from None
        self.process = None
        took_s = time.monotonic() - began
        assert took_s <= within_s, f"took {took_s:.1f} s to stop, {within_s:g} promised\n{self.log}"
        return code, took_s

    def wait(self, *, within_s: float = READY_S) -> int:
        """Its exit code once it has ended by itself."""
        code = self.running.wait(within_s)
        self.process = None
        return code

    def reload(self) -> str:
        """SIGHUP; what it logged about it."""
        before = len(self.log)
        self.running.send_signal(signal.SIGHUP)
        until(lambda: _RELOADED.search(self.log, before), "an answer to SIGHUP in the log")
        return self.log[before:]

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process. Raises where it is down."""
        assert self.process is not None, "the gateway is not started"
        return self.process

    @property
    def log_path(self) -> Path:
        """Of the last run."""
        return self.folder / f"run-{self.runs}.log"

    @property
    def log(self) -> str:
        """What the last run wrote so far."""
        return self.log_path.read_text(errors="replace")

    def logs(self) -> str:
        """What all runs wrote."""
        return "".join(
            (self.folder / f"run-{i}.log").read_text(errors="replace") for i in range(1, self.runs + 1)
        )

    def await_log(self, text: str, *, within_s: float = READY_S) -> None:
        """Wait until the last run wrote `text`."""

        def look() -> bool:
            assert self.running.poll() is None or text in self.log, f"ended\n{self.log}"
            return text in self.log

        try:
            until(look, f"{text!r} in the log", within_s=within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    @property
    def http(self) -> tuple[str, int]:
        """Where its HTTP service listens."""
        found = re.search(r"HTTP service listens.*?(127\.0\.0\.1):(\d+)", self.log)
        assert found is not None, f"no HTTP service\n{self.log}"
        return found[1], int(found[2])

    def get(self, path: str) -> Answer:
        """GET from its HTTP service."""
        link = http.client.HTTPConnection(*self.http, timeout=READY_S)
        try:
            link.request("GET", path)
            reply = link.getresponse()
            return Answer(reply.status, reply.read())
        finally:
            link.close()

    def status(self) -> Any:
        """`/v1/status`."""
        return self.get("/v1/status").json

    def link(self, name: str) -> Any:
        """One link of the status."""
        return next(one for one in self.status()["links"] if one["name"] == name)

    def uplink(self, name: str = "broker") -> Any:
        """One uplink of the status."""
        return next(one for one in self.status()["uplinks"] if one["name"] == name)

    def metric(self, name: str) -> float:
        """One that has no labels; 0 where it is not there."""
        text = self.get("/metrics").body.decode()
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found is not None else 0.0

    def points(self) -> dict[str, Any]:
        """`/v1/points` by name."""
        return {point["name"]: point for point in self.get("/v1/points").json["points"]}

    def audit(self, stem: str = "commands") -> list[Any]:
        """The lines of the audit file."""
        files = sorted((self.state / "audit").glob(f"{stem}-*.jsonl"))
        return [msgspec.json.decode(line) for file in files for line in file.read_bytes().splitlines()]

    def await_connected(self, name: str = "broker") -> None:
        """Wait until the broker let it in."""
        until(lambda: self.uplink(name)["state"] == "up", f"uplink {name} up")


_NOT_INHERITED: Final = {"JOURNAL_STREAM", "NOTIFY_SOCKET", "STATE_DIRECTORY", "COVERAGE_PROCESS_START"}
_RELOADED: Final = re.compile(r"configuration is taken over|the old one stays|configuration is unchanged")


class Stored(NamedTuple):
    """One record of the journal."""

    epoch: int
    seq: int
    stream: str
    batch: Batch


def dump_journal(state: Path) -> list[Stored]:
    """Every whole record of a journal, by (epoch, seq). Nothing in it changes; damage fails."""
    filesystem = RealFileSystem()
    found: list[Stored] = []
    for view in look(journal_directory(state), filesystem):
        found += [
            Stored(*record.position, record.stream, record.batch) for record in view.records(filesystem)
        ]
        assert not view.damage, view.damage
    return sorted(found, key=lambda record: record[:2])


# Configurations


def counting_tags(scan: str) -> dict[str, Any]:
    """The counting block of a unit, read in one request."""
    tags: dict[str, Any] = {"count": {"at": "hr:0", "type": "uint32", "scan": scan, "atomic": "row"}}
    for column in range(2, 2 + VALUES):
        tags[f"r{column}"] = {"at": f"hr:{column}", "type": "uint16", "scan": scan, "atomic": "row"}
    return tags


def wrong_values(device: str, values: dict[str, int], *, unit: int, served: int) -> str:
    """What a row says that the plant cannot have served; empty where all is true."""
    count = values["count"]
    if not 0 < count <= served:
        return f"{device}: count {count}, the plant served 1 to {served}"
    for column in range(2, 2 + VALUES):
        found, expected = values[f"r{column}"], derived(unit, count, column)
        if found != expected:
            return f"{device}: r{column} {found} at count {count}, expected {expected}"
    return ""


def no_tracebacks(gateways: Iterable[Gateway]) -> None:
    """Nothing of what they wrote is a traceback or a warning of Python's."""
    for gateway in gateways:
        text = gateway.logs()
        found = re.search(
            r"Traceback|\w(Error|Warning|Exception): |task crashed|never (awaited|retrieved)", text
        )
        assert found is None, f"{found and found[0]!r} in the log of {gateway.folder}\n{text}"
