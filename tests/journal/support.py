"""A journal on a file system in memory, with a clock that is told the time."""

from __future__ import annotations

from pathlib import Path

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Priority, ValueType
from gateway.disk.filesystem import FileSystem
from gateway.journal.cursor import Cursor, Full
from gateway.journal.journal import Journal, Recovery, Writing
from gateway.journal.reader import Reader, Record
from gateway.journal.settings import JournalSettings

HERE = Path("/journal")
SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
N = Priority.NORMAL
SMALL = JournalSettings(segment_bytes=1600, cursor_save_ms=1000, mark_ms=1000)


def points(count: int = 2) -> list[Point]:
    return [Point(device="d", tag=f"t{i}", type=ValueType.INT, unit="rpm") for i in range(count)]


LAYOUT = Layout(device="d", scan="fast", points=points(), attributes={"site": "north"})


class ToldClock:
    def __init__(self, monotonic_ns: int = 50 * SECOND_NS, wall_ns: int = 1_700_000_000 * SECOND_NS) -> None:
        self.now_ns = monotonic_ns
        self.now_wall_ns = wall_ns

    def wall_ns(self) -> int:
        return self.now_wall_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def is_synchronised(self) -> bool:
        return True


class Bench:
    """One run of a journal; `again` is the next one on the same disk."""

    def __init__(
        self,
        disk: FileSystem,
        *,
        clock: ToldClock | None = None,
        settings: JournalSettings = SMALL,
        boot_id: str = "boot-1",
        config_version: str = "v1",
        lanes: tuple[Priority, ...] = (N,),
        layouts: tuple[Layout, ...] = (LAYOUT,),
        first_epoch: int = 1,
    ) -> None:
        self.disk = disk
        self.clock = clock or ToldClock()
        self.journal = Journal(
            HERE,
            filesystem=disk,
            lanes=lanes,
            settings=settings,
            config_version=config_version,
            notify=lambda call: call(),
            clock=self.clock,
            boot_id=boot_id,
            writing=Writing.CALLER,
            first_epoch=first_epoch,
        )
        self.recovery: Recovery = self.journal.open()
        self.journal.register(layouts)
        self.seq = 0

    def put(
        self, count: int = 1, *, stream: str = "a", lane: Priority = N, layout: Layout = LAYOUT
    ) -> list[int]:
        """Numbered, appended, committed; values say which seq they are."""
        numbers = []
        for _ in range(count):
            self.append(stream=stream, lane=lane, layout=layout)
            numbers.append(self.seq)
        self.journal.commit()
        return numbers

    def append(self, *, stream: str = "a", lane: Priority = N, layout: Layout = LAYOUT):  # type: ignore[no-untyped-def]  # keywords passed on as they are
        self.seq += 1
        batch = Batch(
            layout=layout,
            values=(self.seq, self.journal.epoch),
            received_ns=self.clock.wall_ns(),
            epoch=self.journal.epoch,
            seq=self.seq,
        )
        return self.journal.append(batch, lane=lane, stream=stream)

    def cursor(
        self,
        name: str = "c",
        *,
        streams: str = "a",
        keep_ns: int = DAY_NS,
        max_bytes: int = 1 << 30,
        full: Full = Full.DROP_OLDEST,
        lane: Priority = N,
    ) -> Cursor:
        return self.journal.cursor(
            name, lane=lane, streams=frozenset(streams), keep_ns=keep_ns, max_bytes=max_bytes, full=full
        )

    def backlog(self, cursor: Cursor, **more: int) -> list[Record]:
        reader = self.journal.reader(cursor, cursor.low)
        found = everything(reader, skip=cursor.ranges, **more)
        reader.close()
        return found


def everything(reader: Reader, **more: object) -> list[Record]:
    found: list[Record] = []
    while True:
        found += reader.read(**more)  # type: ignore[arg-type]  # keywords passed on as they are
        if reader.is_at_end:
            return found


def numbers(records: list[Record]) -> list[tuple[int, int]]:
    for record in records:  # never a record that was not written
        assert record.batch.values == (record.position[1], record.position[0])
        assert (record.batch.epoch, record.batch.seq) == record.position
    return [record.position for record in records]
