"""What the journal costs: commits against the bare fdatasync of the same disk, CPU per batch, replay rate.

python bench/journal.py [--directory DIR] [--seconds 2]
"""

from __future__ import annotations

import argparse
import os
import queue
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Priority, ValueType
from gateway.disk.filesystem import RealFileSystem
from gateway.disk.record import Entry
from gateway.journal import codec
from gateway.journal.cursor import Full
from gateway.journal.journal import Journal
from gateway.journal.settings import JournalSettings

N = Priority.NORMAL
POINTS = 100
BYTES_MAX = 1 << 40


class SystemClock:
    def wall_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def is_synchronised(self) -> bool:
        return True


def layout(kind: ValueType) -> Layout:
    points = [Point(device="plc", tag=f"tag{i:03}", type=kind) for i in range(POINTS)]
    return Layout(device="plc", scan="fast", points=points)


def floats(where: Layout, seq: int, epoch: int = 1) -> Batch:
    values = tuple(random.random() * 1000 for _ in range(POINTS))
    return Batch(layout=where, values=values, received_ns=time.time_ns(), epoch=epoch, seq=seq)


def words(where: Layout, seq: int, epoch: int = 1) -> Batch:
    values = tuple(random.randrange(65536) for _ in range(POINTS))
    return Batch(layout=where, values=values, received_ns=time.time_ns(), epoch=epoch, seq=seq)


def percentile(samples: list[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]


def bare(descriptor: int, data: bytes) -> float:
    """Microseconds of one write + fdatasync at a file's end."""
    start = time.perf_counter()
    os.write(descriptor, data)
    os.fdatasync(descriptor)
    return (time.perf_counter() - start) * 1e6


def journal(directory: Path, calls: queue.SimpleQueue[Callable[[], None]], **settings: int) -> Journal:
    made = Journal(
        directory,
        filesystem=RealFileSystem(),
        lanes=(N,),
        settings=JournalSettings(**settings),
        config_version="bench",
        notify=calls.put,
        clock=SystemClock(),
    )
    made.open()
    made.cursor("c", lane=N, streams=frozenset("a"), keep_ns=1 << 62, max_bytes=BYTES_MAX, full=Full.BLOCK)
    return made


def commits(directory: Path, together: int, seconds: float) -> tuple[list[float], list[float]]:
    """Microseconds of bare commits, and from a group's first append until its owner knows that it is durable.

    Taken in turns, because what else the disk does changes from second to second.
    """
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    store = journal(directory, calls, commit_interval_ms=0)
    descriptor = os.open(directory / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    where, seq = layout(ValueType.FLOAT), 0
    raw: list[float] = []
    ours: list[float] = []
    ready = [floats(where, 0) for _ in range(together)]
    data = os.urandom(together * (len(codec.encode_batch(ready[0], b"abcd")) + 36))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        raw.append(bare(descriptor, data))
        start = time.perf_counter()
        for batch in ready:
            seq += 1
            batch.epoch, batch.seq = store.epoch, seq
            receipt = store.append(batch, lane=N, stream="a")
        while not receipt.is_committed():
            calls.get()()
        ours.append((time.perf_counter() - start) * 1e6)
    os.close(descriptor)
    store.close()
    return raw, ours


def cpu(make: Callable[[Layout, int], Batch], kind: ValueType, directory: Path, count: int = 20000) -> None:
    """CPU of all threads: append, encode, write, sync, report."""
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    store = journal(directory, calls, buffer_bytes_max=1 << 30)
    where = layout(kind)
    batches = [make(where, seq) for seq in range(1, count + 1)]
    for batch in batches:
        batch.epoch = store.epoch
    owner, whole = time.thread_time(), time.process_time()
    for batch in batches:
        receipt = store.append(batch, lane=N, stream="a")
    append_us = (time.thread_time() - owner) / count * 1e6
    while not receipt.is_committed():
        calls.get()()
    all_us = (time.process_time() - whole) / count * 1e6
    start = time.process_time()
    bodies = [codec.encode_batch(batch, b"abcd") for batch in batches]
    encode_us = (time.process_time() - start) / count * 1e6
    entries = [Entry(5, (1, 1), 1, 0, body, 0) for body in bodies]
    start = time.process_time()
    for entry in entries:
        codec.decode_batch(entry, where)
    decode_us = (time.process_time() - start) / count * 1e6
    start = time.process_time()
    reader, records = store.reader(N, (0, 0)), 0
    while not reader.is_at_end:
        records += len(reader.read())
    replay_us = (time.process_time() - start) / records * 1e6
    size = len(bodies[0])
    print(
        f"{kind.value:6} {size:5} B: encode {encode_us:5.2f} µs, append in all {append_us:5.2f} µs, with the "
        f"writer's thread {all_us:5.2f} µs, decode {decode_us:5.2f} µs, "
        f"replay {replay_us:5.2f} µs = {POINTS / replay_us:.2f} M points/s"
    )
    store.close()


def start_up(directory: Path, size_bytes: int) -> None:
    calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    store, where, seq = journal(directory, calls), layout(ValueType.FLOAT), 0
    batch = floats(where, 0, store.epoch)
    while seq * 1000 < size_bytes:
        seq += 1
        batch.seq = seq
        receipt = store.append(batch, lane=N, stream="a")
        while store.is_blocked():
            calls.get()()
    while not receipt.is_committed():
        calls.get()()
    store.close()
    start = time.perf_counter()
    store = journal(directory, calls)
    took = time.perf_counter() - start
    print(f"open with {size_bytes >> 20} MiB of backlog: {took * 1000:.1f} ms")
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--backlog-mib", type=int, default=256)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="bench-journal-", dir=options.directory))
    try:
        for together in (1, 20):
            raw, ours = commits(directory / f"commits{together}", together, options.seconds)
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                a, b = percentile(ours, share), percentile(raw, share)
                print(
                    f"{together:2} a commit, {name} of {len(raw)}: bare {b:7.0f} µs, journal {a:7.0f} µs, "
                    f"{a / together:6.1f} µs a batch, ratio {a / b:.2f}"
                )
        for number in range(2):
            cpu(floats, ValueType.FLOAT, directory / f"f{number}")
            cpu(words, ValueType.INT, directory / f"w{number}")
        start_up(directory / "large", options.backlog_mib << 20)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
