"""A plant whose whole past a list remembers, beside a journal that is asked about it."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Priority, Value, ValueType
from gateway.core.quality import GOOD, Quality, is_good
from gateway.disk.block import Compression
from gateway.journal.buckets import STEP_NS, Bucket
from gateway.journal.historian import Historian, Now, Page, Pages, Question
from gateway.journal.lane_scan import HistoryLane
from gateway.journal.samples import Gap, Sample
from gateway.journal.settings import JournalSettings
from tests.disk.faulty import FaultyFileSystem
from tests.journal.support import SECOND_NS, Bench, N, ToldClock

A = Priority.ALARM
SETTINGS = JournalSettings(
    segment_bytes=2500, cursor_save_ms=1000, mark_ms=1000, compression=Compression.ZSTD
)


def layout(device: str, tags: int) -> Layout:
    return Layout(
        device=device,
        scan="fast",
        points=[Point(device=device, tag=f"t{n}", type=ValueType.FLOAT) for n in range(tags)],
    )


PUMP, FAN = layout("pump", 2), layout("fan", 1)
WHERE = {PUMP: N, FAN: A}


def drive(pages: Pages) -> Page:
    """All steps of one page."""

    def steps() -> Generator[None, None, None]:
        answer.append((yield from pages))

    answer: list[Page] = []
    for _ in steps():
        pass
    return answer[0]


class Past:
    """One disk through several runs."""

    def __init__(self) -> None:
        self.disk = FaultyFileSystem()
        self.clock = ToldClock()
        self.samples: list[Sample] = []
        self.runs: list[tuple[int, int, int]] = []  # epoch, first, last sign of life
        self.boots = 0
        self.start()

    def start(self) -> None:
        self.bench = Bench(
            self.disk, clock=self.clock, settings=SETTINGS, lanes=(N, A), layouts=(PUMP, FAN),
            boot_id=f"boot-{self.boots}",
        )  # fmt: skip
        for lane in self.bench.journal._each_lane:
            lane.keeps_history = True
        self.runs.append((self.bench.journal.epoch, self.clock.wall_ns(), self.clock.wall_ns()))

    @property
    def now(self) -> Now:
        return Now(self.clock.wall_ns(), self.bench.journal.epoch)

    def restart(self, off_ns: int) -> None:
        """Stop cleanly, be off, start."""
        self.bench.journal.close()
        epoch, first, _ = self.runs[-1]
        self.runs[-1] = (epoch, first, self.clock.wall_ns())
        self.clock.now_wall_ns += off_ns
        self.boots += 1
        self.clock.now_ns = SECOND_NS
        self.start()

    def wait(self, by_ns: int) -> None:
        self.clock.now_ns += by_ns
        self.clock.now_wall_ns += by_ns

    def put(
        self,
        where: Layout,
        values: Sequence[Value],
        *,
        quality: Quality = GOOD,
        source_ns: int | None = None,
        streams: str = "a",
        columns: tuple[int, ...] | None = None,
        missing: int = 0,
        time_quality: Quality = GOOD,
        is_committed: bool = True,
    ) -> None:
        """One scan; each stream records it, history has it once."""
        bench = self.bench
        for number, stream in enumerate(streams):
            bench.seq += 1
            batch = Batch(
                layout=where, values=tuple(values), received_ns=self.clock.wall_ns(), quality=quality,
                monotonic_ns=self.clock.monotonic_ns(), source_time_ns=source_ns, columns=columns,
                epoch=bench.journal.epoch, seq=bench.seq, missing=missing, time_quality=time_quality,
            )  # fmt: skip
            bench.journal.append(batch, lane=WHERE[where], stream=stream)
            for row, column in enumerate(columns if columns is not None else range(len(where))):
                sample = Sample(
                    key=(batch.epoch, batch.seq, row), point=where.points[column],
                    time_ns=batch.received_ns if source_ns is None else source_ns,
                    is_device_time=source_ns is not None, received_ns=batch.received_ns,
                    monotonic_ns=batch.monotonic_ns, value=values[row], quality=quality, time_quality=0,
                )  # fmt: skip
                if not number:
                    self.samples.append(sample)
        if is_committed:
            bench.journal.commit()

    # Asking

    def historian(self) -> Historian:
        return Historian(
            [
                HistoryLane(lane.priority.name.lower(), lane.log, lane.places, self.bench.journal._boots)
                for lane in self.bench.journal._each_lane
            ],
            filesystem=self.disk,
            report=self.bench.journal._report,
        )

    def ask(self, **question: object) -> list[Sample | Gap | Bucket]:
        """Every page of an answer."""
        words: dict[str, object] = {"wanted": lambda _device, _tag: True} | question
        rows: list[Sample | Gap | Bucket] = []
        while True:
            page = drive(self.historian().ask(Question(**words), self.now))  # type: ignore[arg-type]  # by name
            assert len(page.rows) <= int(str(words.get("limit", 1000)))
            rows += page.rows
            if not page.after:
                return rows
            words["after"] = page.after

    # What is right

    def values(self, from_ns: int, to_ns: int) -> list[Sample]:
        return [sample for sample in self.samples if from_ns <= sample.time_ns < to_ns]

    def aggregate(self, name: str, start_ns: int, end_ns: int) -> tuple[int, int, float, float]:
        """(good values, others, good nanoseconds, area) of one span: interval by interval, the slow way."""
        lasts = {epoch: last for epoch, _, last in self.runs}
        lasts[self.runs[-1][0]] = self.clock.wall_ns()
        own = [sample for sample in self.samples if sample.point.name == name]
        inside = [sample for sample in own if start_ns <= sample.time_ns < end_ns]
        good = sum(is_good(sample.quality) for sample in inside)
        good_ns, area = 0, 0.0
        held = [sample for n, sample in enumerate(own) if not _is_late(own[:n], sample)]
        for n, sample in enumerate(held):
            after = held[n + 1] if n + 1 < len(held) else None
            if after is None or after.key[0] != sample.key[0]:
                end = lasts[sample.key[0]]
            else:
                end = after.time_ns
                true = sample.time_ns + after.monotonic_ns - sample.monotonic_ns
                if not (sample.is_device_time or after.is_device_time) and abs(true - end) > STEP_NS:
                    end = true
            held_ns = max(0, min(end, end_ns) - max(sample.time_ns, start_ns))
            if is_good(sample.quality):
                good_ns += held_ns
                area += float(sample.value) * held_ns  # type: ignore[arg-type]  # numbers only
        return good, len(inside) - good, good_ns, area


def _is_late(earlier: list[Sample], sample: Sample) -> bool:
    held: Sample | None = None
    for one in earlier:
        if held is None or held.key[0] != one.key[0] or not _goes_back(held, one):
            held = one
    return held is not None and held.key[0] == sample.key[0] and _goes_back(held, sample)


def _goes_back(held: Sample, sample: Sample) -> bool:
    return sample.is_device_time and sample.time_ns < held.time_ns
