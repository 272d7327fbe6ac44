"""What durability costs: commits beside the bare disk and SQLite, CPU of a record, replay to who takes all.

`python -m bench.journal [--directory DIR] [--seconds 2]` for a table of its own; the rows of `script/bench`
use the same functions.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.formula import PLACE, SERIES, Mode, registers_of
from bench.sites import SiteSpec, Topics, write_site
from gateway.aio.clock import SystemClock
from gateway.app.compiled import Compiled, compile_site
from gateway.app.kinds import kinds
from gateway.app.rules import LANES, RuleCompiler, buffer_bytes, missing, stream_name
from gateway.app.store import Store
from gateway.config.load import load
from gateway.core.batch import Batch
from gateway.core.point import Layout, Priority
from gateway.disk.filesystem import RealFileSystem
from gateway.disk.record import Entry
from gateway.flow.outbox import Outbox, Replay
from gateway.journal import codec
from gateway.journal.cursor import Cursor, Full
from gateway.journal.journal import Journal
from gateway.journal.settings import JournalSettings

N = Priority.NORMAL
UNITS = 100
POINTS = 100
READS = 400  # different ones; then they begin anew
SLICE = 10  # groups one behind the other
Calls = queue.SimpleQueue[Callable[[], None]]


class Took(msgspec.Struct, frozen=True):
    """Microseconds of each commit of some batches, taken in turns on the same disk."""

    together: int
    bare: list[float]  # write and fdatasync of as many bytes
    ours: list[float]  # first append until the owner knows that it is durable
    sqlite: list[float]  # WAL, synchronous FULL, a row for each batch
    stream_bare: list[float]  # a group, where one follows the other: mean of a slice of them
    stream_ours: list[float]  # the next group is appended while one is on its way to the disk

    @property
    def ratio(self) -> float:
        """Ours to bare where groups follow each other: the median slice of each."""
        return percentile(self.stream_ours, 0.5) / percentile(self.stream_bare, 0.5)


class Cpu(msgspec.Struct, frozen=True):
    """Microseconds of CPU for each batch of 100 points; `size` in bytes."""

    size: int
    append: float  # the loop's thread
    whole: float  # all threads, until it is durable
    encode: float
    decode: float
    read: float


class Replayed(msgspec.Struct, frozen=True):
    """A backlog, from its segments to ready messages, every one taken at once and acknowledged."""

    points: int
    cpu_s: float
    wrong: int

    @property
    def points_per_s(self) -> float:
        """Of one core."""
        return self.points / self.cpu_s


def percentile(samples: Sequence[float], share: float) -> float:
    """Nearest rank."""
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


def site(folder: Path, **changes: Any) -> Compiled:
    """The site of the rows, compiled."""
    spec = SiteSpec(devices=UNITS, registers=POINTS, scan="continuous", topics=Topics.DEVICE, **changes)
    return compile_site(load(write_site(folder, spec, modbus_ports=[1502], mqtt_port=1883), kinds()))


def scans(layouts: Sequence[Layout], epoch: int, count: int, *, first_seq: int = 1) -> Iterator[Batch]:
    """Scans as the plant would have served them, one unit after the other."""
    by_unit = {int(layout.device[3:]): layout for layout in layouts if layout.scan == "flat"}
    shown = {
        (unit, read): tuple(registers_of(read, unit=unit, count=POINTS, mode=Mode.ALL))
        for unit in by_unit
        for read in range(1, READS + 1)
    }
    units = sorted(by_unit)
    for number in range(count):
        unit, read = units[number % len(units)], number // len(units) % READS + 1
        yield Batch(
            layout=by_unit[unit], values=shown[unit, read], received_ns=time.time_ns(),
            monotonic_ns=time.monotonic_ns(), epoch=epoch, seq=first_seq + number,
        )  # fmt: skip


def is_true(values: Sequence[object]) -> bool:
    """Whether they are what a unit shows at some read."""
    place = PLACE.get(values[0]) if isinstance(values[0], int) else None
    return place is not None and len(values) == POINTS and tuple(values) == SERIES[place : place + POINTS]


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[tuple[Journal, Cursor, Calls, Compiled]]:
    """A journal by itself, with the cursor of the site's rule and the calls its threads ask for."""
    calls: Calls = queue.SimpleQueue()
    compiled = site(folder / "site")
    (rule,) = compiled.site.publish
    made = Journal(
        folder / "journal", filesystem=RealFileSystem(), lanes=(N,), settings=JournalSettings(**settings),
        config_version="bench", notify=calls.put, clock=SystemClock(),
    )  # fmt: skip
    made.register(compiled.layouts)
    made.open()
    name = stream_name(rule)
    cursor = made.cursor(
        name, lane=N, streams=frozenset({name}), keep_ns=1 << 62, max_bytes=1 << 40, full=Full.BLOCK
    )
    try:
        yield made, cursor, calls, compiled
    finally:
        made.close()


def commits(folder: Path, *, together: int, seconds: float) -> Took:
    """Taken in turns, because what else the disk does changes from second to second."""
    took = Took(together, [], [], [], [], [])
    with opened(folder, commit_interval_ms=0) as (store, cursor, calls, compiled):
        stream = cursor.name
        ready = list(scans(compiled.layouts, store.epoch, together))
        bodies = [codec.encode_batch(batch, b"abcd") for batch in ready]
        data = os.urandom(sum(len(body) + 36 for body in bodies))
        descriptor = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        database = sqlite3.connect(folder / "rows.db", isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, time INTEGER, body BLOB)")
        seq, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            took.bare.append((time.perf_counter() - start) * 1e6)
            start = time.perf_counter()
            for batch in ready:
                seq += 1
                batch.seq = seq
                receipt = store.append(batch, lane=N, stream=stream)
            while not receipt.is_committed():
                calls.get()()
            took.ours.append((time.perf_counter() - start) * 1e6)
            start = time.perf_counter()
            database.execute("BEGIN")
            database.executemany(
                "INSERT INTO log (time, body) VALUES (?, ?)",
                [(batch.received_ns, codec.encode_batch(batch, b"abcd")) for batch in ready],
            )
            database.execute("COMMIT")
            took.sqlite.append((time.perf_counter() - start) * 1e6)
            start = time.perf_counter()
            for _ in range(SLICE):
                os.write(descriptor, data)
                os.fdatasync(descriptor)
            took.stream_bare.append((time.perf_counter() - start) * 1e6 / SLICE)
            start, before = time.perf_counter(), receipt
            for _ in range(SLICE):
                for batch in ready:
                    seq += 1
                    batch.seq = seq
                    receipt = store.append(batch, lane=N, stream=stream)
                while not before.is_committed():
                    calls.get()()
                before = receipt
            while not receipt.is_committed():
                calls.get()()
            took.stream_ours.append((time.perf_counter() - start) * 1e6 / SLICE)
        database.close()
        os.close(descriptor)
    return took


def cpu(folder: Path, *, count: int = 20_000) -> Cpu:
    """Append, encode, write, sync, report, read back."""
    with opened(folder, buffer_bytes_max=1 << 30) as (store, cursor, calls, compiled):
        batches = list(scans(compiled.layouts, store.epoch, count))
        owner, whole = time.thread_time(), time.process_time()
        for batch in batches:
            receipt = store.append(batch, lane=N, stream=cursor.name)
        append_s = time.thread_time() - owner
        while not receipt.is_committed():
            calls.get()()
        whole_s = time.process_time() - whole
        start = time.process_time()
        bodies = [codec.encode_batch(batch, b"abcd") for batch in batches]
        encode_s = time.process_time() - start
        start = time.process_time()
        reader, read = store.reader(N, (0, 0)), []
        while not reader.is_at_end:
            read += reader.read()
        read_s = time.process_time() - start
        reader.close()
        assert [record.batch.values for record in read] == [batch.values for batch in batches]
        entries = [
            (Entry(5, (1, 1), 1, 0, body, 0), batch.layout)
            for body, batch in zip(bodies, batches, strict=True)
        ]
        start = time.process_time()
        for entry, layout in entries:
            codec.decode_batch(entry, layout)
        decode_s = time.process_time() - start
    a_batch = [seconds / count * 1e6 for seconds in (append_s, whole_s, encode_s, decode_s, read_s)]
    return Cpu(len(bodies[0]), *a_batch)


class _Now:
    """A worker that has done it already: everything on one core."""

    def submit(
        self, work: Callable[[], Any], *, done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - handed on, as a thread does
            failed(error)
        else:
            done(result)


def replay(folder: Path, *, count: int = 20_000) -> Replayed:
    """Journal, outbox, translation and cursor as shipped; in the uplink's place somebody who takes all."""
    with opened(folder, buffer_bytes_max=1 << 30) as (store, cursor, calls, compiled):
        for batch in scans(compiled.layouts, store.epoch, count):
            receipt = store.append(batch, lane=N, stream=cursor.name)
        while not receipt.is_committed():
            calls.get()()
        end = store.end(N)
        outbox = Outbox(
            cursor=cursor, open_reader=lambda after: store.reader(cursor, after),
            committed=lambda: store.committed(N), on_commit=lambda _callback: None, background=_Now(),
            holes=missing(cursor, end), end=end, replay=Replay(), wake=lambda: None, fail=_raise,
        )  # fmt: skip
        outbox.online()
        routes = RuleCompiler(compiled.site).routes
        taken: list[bytes] = []
        start = time.process_time()
        while outbox.is_behind:
            entry = outbox.take()
            if entry is None:
                continue
            for route in routes(entry.stream, entry.batch.layout):
                taken += [payload for _topic, payload in route.messages(entry.batch, historical=True)]
            entry.acknowledge()
        cpu_s = time.process_time() - start
        assert cursor.low >= end, "something was left behind"
    wrong = sum(not is_true(list(msgspec.json.decode(payload)["v"].values())) for payload in taken)
    return Replayed(POINTS * len(taken), cpu_s, wrong + abs(count - len(taken)))


def _raise(error: BaseException) -> None:
    raise error


def fill(config: Path, state: Path, *, size_bytes: int) -> tuple[int, int]:
    """Leave so much backlog for the site in `config` as a gateway whose broker was away.

    How many records, and their epoch.
    """
    calls: Calls = queue.SimpleQueue()
    compiled = compile_site(load(config, kinds()))
    store = Store(
        compiled.site, state=state, clock=SystemClock(), notify=calls.put, fail=_raise, live_only=lambda: None
    )
    store.open(compiled.layouts)
    (rule,) = compiled.site.publish
    name = stream_name(rule)
    for lane in LANES:
        store.journal.cursor(
            name, lane=lane, streams=frozenset({name}), keep_ns=1 << 62,
            max_bytes=buffer_bytes(compiled.site, rule, lane), full=Full.DROP_OLDEST,
        )  # fmt: skip
    count = 0
    for batch in scans(compiled.layouts, store.epoch, 1 << 40):
        receipt = store.append(batch, lane=N, stream=name)
        count += 1
        if count % 1000 == 0:
            while store.is_blocked():
                calls.get()()
            if _size(store) >= size_bytes:
                break
    while not receipt.is_committed():
        calls.get()()
    store.close()
    return count, store.epoch


def _size(store: Store) -> int:
    return sum(lane.size_bytes for lane in store.journal.stats().lanes)


def lines(took: Took) -> list[str]:
    """For people."""
    said = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        bare, ours, sqlite = (percentile(each, share) for each in (took.bare, took.ours, took.sqlite))
        said.append(
            f"{took.together:2} a commit, one at a time, {name} of {len(took.bare)}: bare {bare:,.0f} us, "
            f"journal {ours:,.0f} us ({ours / bare:.2f} x), SQLite {sqlite:,.0f} us ({sqlite / bare:.2f} x)"
        )
    stream = percentile(took.stream_ours, 0.5)
    said.append(
        f"{took.together:2} a commit, in a row: bare {percentile(took.stream_bare, 0.5):,.0f} us, "
        f"journal {stream:,.0f} us ({took.ratio:.2f} x), {stream / took.together:.1f} us a batch, "
        f"{took.together / stream * 1e6:,.0f} batches/s"
    )
    return said


def main() -> None:
    """All of it, on one disk."""
    parser = argparse.ArgumentParser(prog="python -m bench.journal", description=__doc__)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gateway-bench-journal-", dir=options.directory))
    try:
        for together in (1, 20):
            print(
                *lines(commits(folder / f"commits{together}", together=together, seconds=options.seconds)),
                sep="\n",
            )
        used = cpu(folder / "cpu")
        print(
            f"CPU of a batch of {POINTS} points, {used.size} bytes: append {used.append:.2f} us, "
            f"with the writer's {used.whole:.2f} us (encode {used.encode:.2f}), read {used.read:.2f} us "
            f"(decode {used.decode:.2f})"
        )
        done = replay(folder / "replay")
        print(f"replay to ready messages: {done.points_per_s:,.0f} points/s of one core, {done.wrong} wrong")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
