"""A scan and its assembly: refusals are narrowed down in the same run, and no batch says what is not so."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.decode import compile_block
from drivers.modbus.device import Demotion, Device, ReadJob, Scan
from drivers.modbus.field import DataType, Field
from drivers.modbus.planner import PROBE_INTERVAL_NS, Block, Options, Wanted, make_plan
from drivers.modbus.scan import Assembly, BlockRead, Decode
from drivers.modbus.wire.client import Answer, Event, Lost, Refused
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.core import quality as q
from gateway.core.batch import Batch
from gateway.core.point import Layout, Point, Value, ValueType

TABLE = Table.HOLDING_REGISTERS
NO_SUCH = q.BAD | q.NO_SUCH_ADDRESS


def layout(count: int) -> Layout:
    points = [Point(device="d", tag=f"t{n}", type=ValueType.INT) for n in range(count)]
    return Layout(device="d", scan="s", points=points)


class Bench:
    """One scan of uint16 and uint32 values in front of a device with illegal addresses."""

    def __init__(self, places: list[tuple[int, int]], *, max_hole: int, attempts: int = 1) -> None:
        """`places`: address and registers of each value."""
        self.fields = tuple(
            Field(type=DataType.UINT16 if count == 1 else DataType.UINT32, start=start)
            for start, count in places
        )
        wanted = [
            Wanted(column=column, table=TABLE, start=start, count=count)
            for column, (start, count) in enumerate(places)
        ]
        self.places = places
        self.device = Device(name="d", unit=1, timeout_ns=10**9, attempts=attempts, demotion=Demotion())
        self.scan = Scan(
            device=self.device,
            layout=layout(len(places)),
            plan=make_plan(wanted, Options(max_hole=max_hole, max_registers=20)),
            compile_decode=self._compile,
        )
        self.illegal: set[int] = set()
        self.asked = 0

    def _compile(self, block: Block) -> tuple[Decode, tuple[int, ...]]:
        fields = tuple(self.fields[column] for column in block.columns)
        return compile_block(fields, table=block.table, start=block.start, count=block.count), ()

    def answer(self, job: ReadJob) -> Event:
        _function, start, count = struct.unpack(">BHH", job.block.pdu)
        self.asked += 1
        if self.illegal.intersection(range(start, start + count)):
            return Refused(job, ExceptionCode.ILLEGAL_DATA_ADDRESS, 0)
        return Answer(job, struct.pack(f">{count}H", *range(start, start + count)), 0)

    def run(self, now_ns: int, order: list[int]) -> Batch:
        """One run; `order` picks which of the open requests is answered next."""
        self.asked = 0
        jobs = self.scan.start(now_ns)
        turn = 0
        while True:
            if not jobs:
                assert not self.scan.assembly.blocks
                break
            turn += 1
            assert turn < 2000
            job = jobs.pop(order[turn % len(order)] % len(jobs) if order else 0)
            verdict = self.scan.take(job, self.answer(job), now_ns)
            jobs += verdict.now
            if verdict.is_complete:
                assert not jobs
                break
        self.scan.finish()
        batch = self.scan.assembly.batch(received_ns=0, monotonic_ns=now_ns)
        self.scan.settle()
        return batch

    def expected(self) -> list[tuple[Value, int]]:
        rows: list[tuple[Value, int]] = []
        for start, count in self.places:
            if self.illegal.intersection(range(start, start + count)):
                rows.append((None, NO_SUCH))
            else:
                rows.append((start if count == 1 else start << 16 | start + 1, q.GOOD))
        return rows


PLACES = st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1, 2])), min_size=1, max_size=25)
ILLEGAL = st.sets(st.integers(0, 62), max_size=8)
ORDER = st.lists(st.integers(0, 20), max_size=12)


@settings(deadline=None)
@given(places=PLACES, max_hole=st.integers(0, 8), first=ILLEGAL, second=ILLEGAL, order=ORDER)
def test_only_tags_with_an_illegal_address_are_bad_in_the_very_run_that_finds_it(
    places: list[tuple[int, int]], max_hole: int, first: set[int], second: set[int], order: list[int]
) -> None:
    """Answers in any order, as with several requests in flight; then other addresses are illegal."""
    bench = Bench(places, max_hole=max_hole)
    now_ns = 10 * PROBE_INTERVAL_NS
    for illegal in (set(), first, second):
        bench.illegal = illegal
        if not illegal:
            bench.scan.link_back()
        for run in range(4):
            now_ns += 10**9
            rows = [(value, quality) for _point, value, quality, _time in bench.run(now_ns, order).rows()]
            truth = bench.expected()
            for column, (row, expected) in enumerate(zip(rows, truth, strict=True)):
                # What was illegal before and is legal now may stay bad until it is asked for again.
                is_remembered = row == (None, NO_SUCH) and column in bench.scan._plan.dead_columns
                assert row == expected or is_remembered
            if run == 3:
                refused_before = len([1 for _value, quality in rows if quality == NO_SUCH])
                assert refused_before >= len([1 for _value, quality in truth if quality == NO_SUCH])
    bench.illegal = second
    now_ns += 2 * PROBE_INTERVAL_NS  # an hour later everything is asked for once more
    for _ in range(3):
        now_ns += 10**9
        rows = [(value, quality) for _point, value, quality, _time in bench.run(now_ns, order).rows()]
    assert rows == bench.expected()


def test_the_plan_remembers_and_asks_for_nothing_it_knows_to_be_illegal() -> None:
    bench = Bench([(n, 1) for n in range(16)], max_hole=0)
    bench.illegal = {5}
    bench.run(10**9, [])
    assert bench.asked == 9  # the block, and halves down to the culprit: 1 + 2 * 4
    bench.run(2 * 10**9, [])
    assert bench.asked == 2  # below and above it


def test_an_unchanged_answer_gives_the_very_same_values() -> None:
    bench = Bench([(0, 1), (1, 1), (40, 1)], max_hole=0)
    assert bench.run(0, []).values is bench.run(1, []).values


def test_a_run_cut_off_by_the_link_keeps_what_was_answered_and_makes_the_rest_bad() -> None:
    bench = Bench([(0, 1), (40, 1)], max_hole=0)
    first, second = bench.scan.start(0)
    bench.scan.take(first, bench.answer(first), 0)
    assert bench.scan.take(second, Lost(second, was_sent=True), 0).is_complete
    bench.scan.finish()
    batch = bench.scan.assembly.batch(received_ns=0, monotonic_ns=0)
    assert [(v, qual) for _p, v, qual, _t in batch.rows()] == [(0, q.GOOD), (None, q.BAD | q.COMM_LOST)]


# --- assembly -----------------------------------------------------------------------------------------------


def block(columns: tuple[int, ...], quality: int | tuple[int, ...] = q.GOOD) -> BlockRead:
    def decode(data: bytes) -> tuple[tuple[Value, ...], int | tuple[int, ...]]:
        return tuple(data[: len(columns)]), quality

    return BlockRead(block=None, pdu=b"", decode=decode, columns=columns)


def test_a_value_that_could_not_be_read_is_nothing_and_never_the_old_one() -> None:
    assembly = Assembly(layout(3))
    one, two = block((0, 1)), block((2,))
    assembly.set_blocks([one, two], missing={})
    one.take(b"\x01\x02")
    two.take(b"\x03")
    assert assembly.batch(received_ns=0, monotonic_ns=0).values == (1, 2, 3)
    one.fail(q.BAD | q.DEVICE_FAILURE)
    batch = assembly.batch(received_ns=0, monotonic_ns=0)
    assert batch.values == (None, None, 3)
    assert batch.quality == (q.BAD | q.DEVICE_FAILURE, q.BAD | q.DEVICE_FAILURE, q.GOOD)
    one.take(b"\x01\x02")  # the same bytes as before the failure
    assert assembly.batch(received_ns=0, monotonic_ns=0).values == (1, 2, 3)
    lost = assembly.lost(received_ns=0, monotonic_ns=0, quality=q.BAD | q.COMM_LOST)
    assert (lost.values, lost.quality) == ((None, None, None), q.BAD | q.COMM_LOST)


def test_columns_out_of_order_and_columns_nobody_reads() -> None:
    assembly = Assembly(layout(4))
    one, two = block((3, 0)), block((1,), quality=(q.UNCERTAIN | q.OUT_OF_RANGE,))
    assembly.set_blocks([one, two], missing={2: NO_SUCH})
    one.take(b"\x09\x08")
    two.take(b"\x07")
    batch = assembly.batch(received_ns=5, monotonic_ns=6)
    assert batch.values == (8, 7, None, 9)
    assert batch.quality == (q.GOOD, q.UNCERTAIN | q.OUT_OF_RANGE, NO_SUCH, q.GOOD)
    assert (batch.received_ns, batch.monotonic_ns) == (5, 6)


def test_one_quality_for_all_stays_one_number() -> None:
    assembly = Assembly(layout(2))
    one, two = block((0,)), block((1,))
    assembly.set_blocks([one, two], missing={})
    one.take(b"\x01")
    two.take(b"\x02")
    assert assembly.batch(received_ns=0, monotonic_ns=0).quality == q.GOOD
    two.fail(q.BAD)
    assert assembly.batch(received_ns=0, monotonic_ns=0).quality == (q.GOOD, q.BAD)
