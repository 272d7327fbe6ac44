"""The hub: one sequence for everything, reports that survive a reload, timers, storage that pushes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.core import quality as q
from gateway.core.batch import Batch, Kind
from gateway.core.point import Layout, Point, Priority, Value, ValueType
from gateway.core.ports import Receipt as CommitReceipt
from gateway.flow.expressions import BlockExpressions, TagExpression
from gateway.flow.hub import Hub, Stream
from gateway.flow.image import Image
from gateway.flow.report import ReportPolicy
from gateway.translate.expression import Kind as Kind_
from gateway.translate.expression import compile_expression

MS = 1_000_000
S = 1_000_000_000


class Told:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.now_ns = 100 * S

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns

    def is_synchronised(self) -> bool:
        return True


class Receipt:
    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.committed = False

    def is_committed(self) -> bool:
        return self.committed

    def on_commit(self, callback: Callable[[], None]) -> None:
        if self.committed:
            callback()
        else:
            self.callbacks.append(callback)

    def commit(self) -> None:
        self.committed = True
        for callback in self.callbacks:
            callback()


class Paper:
    """Journal: what was appended, with the receipts."""

    def __init__(self) -> None:
        self.records: list[tuple[Priority, str, Batch]] = []
        self.receipts: list[Receipt] = []
        self.blocked = False

    def append(self, batch: Batch, *, lane: Priority, stream: str) -> Receipt:
        assert not self.blocked, "put in while it pushed back"
        self.records.append((lane, stream, batch))
        self.receipts.append(Receipt())
        return self.receipts[-1]

    def is_blocked(self) -> bool:
        return self.blocked


class Box:
    """Outbox: what was offered."""

    def __init__(self) -> None:
        self.offered: list[tuple[int, int]] = []
        self.lag = 0

    def offer(self, batch: Batch, stream: str) -> None:
        self.offered.append((batch.epoch, batch.seq))


def layout(device: str = "d", count: int = 2) -> Layout:
    points = [Point(device=device, tag=f"t{n}", type=ValueType.INT) for n in range(count)]
    return Layout(device=device, scan="s", points=points)


class Rig:
    """A hub with its alarm; `run_until` is the loop."""

    def __init__(self, *streams: Stream, layouts: tuple[Layout, ...]) -> None:
        self.clock = Told()
        self.paper = Paper()
        self.alarm: int | None = None
        self.looks = 0
        self.box = Box()
        self.hub = Hub(
            clock=self.clock, journal=self.paper, epoch=7, image=Image(()), set_alarm=self._set_alarm
        )
        self.connect(*streams, layouts=layouts)

    def _set_alarm(self, deadline_ns: int | None) -> None:
        self.alarm = deadline_ns

    def connect(self, *streams: Stream, layouts: tuple[Layout, ...]) -> None:
        box: Any = self.box  # an outbox by its shape
        self.hub.connect([(stream, [box]) for stream in streams], Image(layouts))

    def put(
        self, where: Layout, *values: Value, kind: Kind = Kind.SCAN, quality: int | tuple[int, ...] = q.GOOD
    ) -> CommitReceipt:
        now_ns = self.clock.now_ns
        batch = Batch(
            layout=where, values=values, received_ns=now_ns, monotonic_ns=now_ns, kind=kind, quality=quality
        )
        return self.hub.put(batch)

    def run_until(self, target_ns: int) -> None:
        while self.alarm is not None and self.alarm <= target_ns:
            self.clock.now_ns = max(self.clock.now_ns, self.alarm)
            self.looks += 1
            self.hub.on_deadline(self.clock.now_ns)
        self.clock.now_ns = target_ns


def stream(name: str, where: Layout, *, lane: Priority = Priority.NORMAL, **policy: int) -> Stream:
    return Stream(
        name=name,
        policy=ReportPolicy(**policy),  # type: ignore[arg-type]  # durations only
        lane=lane,
        columns={where: tuple(range(len(where)))},
    )


@given(
    puts=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 400)), max_size=40),
    reload_after=st.integers(0, 40),
)
def test_numbers_rise_by_one_and_are_never_used_twice(
    puts: list[tuple[int, int, int]], reload_after: int
) -> None:
    """Over streams, lanes, timers, events and a reload; the journal and the windows get the same ones."""
    places = tuple(layout(f"d{n}") for n in range(3))
    streams = [
        stream("a", places[0], min_ns=100 * MS, heartbeat_ns=300 * MS),
        stream("b", places[0], lane=Priority.ALARM),
        stream("c", places[1], heartbeat_ns=200 * MS),
        stream("d", places[2]),
    ]
    rig = Rig(*streams, layouts=places)
    for number, (place, value, wait_ms) in enumerate(puts):
        if number == reload_after:
            rig.connect(*reversed(streams), layouts=places)
        kind = Kind.EVENT if value == 3 else Kind.SCAN
        rig.put(places[place], value, value, kind=kind)
        rig.run_until(rig.clock.now_ns + wait_ms * MS)
    numbered = [(record[2].epoch, record[2].seq) for record in rig.paper.records]
    assert numbered == [(7, seq) for seq in range(1, len(numbered) + 1)]
    assert rig.box.offered == numbered
    assert rig.hub.position == (7, len(numbered))
    assert rig.hub.counters.records == len(numbered)


def test_a_held_change_and_a_heartbeat_go_out_when_their_time_has_come() -> None:
    where = layout(count=1)
    rig = Rig(stream("a", where, min_ns=10 * S, heartbeat_ns=60 * S), layouts=(where,))
    rig.put(where, 1)
    rig.run_until(104 * S)
    rig.put(where, 2)
    rig.run_until(300 * S)
    assert [record[2].values for record in rig.paper.records] == [
        (1,),
        *[(2,)] * 4,
    ]


def test_timers_cost_no_more_memory_and_no_more_looks_than_there_are_deadlines() -> None:
    """A change held back each time, below a heartbeat far away."""
    where = layout(count=1)
    rig = Rig(stream("a", where, min_ns=100 * MS, heartbeat_ns=60 * S), layouts=(where,))
    for number in range(5000):
        rig.put(where, number)
        rig.run_until(rig.clock.now_ns + 50 * MS)
        assert len(rig.hub._heap) <= 3
    assert rig.looks <= 2 * len(rig.paper.records)
    assert len(rig.paper.records) >= 2400


def test_reports_of_rules_that_stay_survive_a_reload_and_others_begin_anew() -> None:
    where, other = layout("d"), layout("e")
    stays, changes = stream("stays", where, heartbeat_ns=60 * S), stream("changes", other)
    rig = Rig(stays, changes, layouts=(where, other))
    rig.put(where, 1, 1)
    rig.put(other, 1, 1)
    before = len(rig.paper.records)
    rig.clock.now_ns += 10 * S
    after = (stream("stays", where, heartbeat_ns=60 * S), stream("changes", other, min_ns=S))
    rig.connect(*after, layouts=(where, other))
    rig.put(where, 1, 1)
    rig.put(other, 1, 1)
    assert [record[1] for record in rig.paper.records[before:]] == ["changes"]
    reading = rig.hub.image.find("d", "t0")
    assert reading is not None
    assert reading.value == 1
    rig.run_until(161 * S)
    assert [record[1] for record in rig.paper.records[before + 1 :]] == ["stays"]  # its heartbeat, at 60 s


def test_a_held_change_survives_a_reload() -> None:
    where = layout(count=1)
    rig = Rig(stream("a", where, min_ns=10 * S), layouts=(where,))
    rig.put(where, 1)
    rig.put(where, 2)
    rig.connect(stream("a", where, min_ns=10 * S), layouts=(where,))
    rig.run_until(120 * S)
    assert [record[2].values for record in rig.paper.records] == [(1,), (2,)]


def test_timers_wait_while_storage_pushes_back_and_nothing_is_forgotten() -> None:
    where = layout(count=1)
    rig = Rig(stream("a", where, min_ns=S, heartbeat_ns=10 * S), layouts=(where,))
    rig.put(where, 1)
    rig.put(where, 2)
    rig.paper.blocked = True
    rig.run_until(150 * S)
    assert len(rig.paper.records) == 1
    assert rig.looks <= 60  # each second, not all the time
    assert rig.hub.is_blocked()
    rig.paper.blocked = False
    rig.run_until(152 * S)
    assert [record[2].values for record in rig.paper.records] == [(1,), (2,)]
    rig.run_until(165 * S)
    assert len(rig.paper.records) == 3


def test_the_image_shows_what_was_put_also_where_nothing_is_reported() -> None:
    where = layout()
    rig = Rig(layouts=(where,))
    receipt = rig.put(where, None, 5, quality=(q.BAD | q.COMM_LOST, q.GOOD))
    assert receipt.is_committed()
    called: list[int] = []
    receipt.on_commit(lambda: called.append(1))
    assert called == [1]
    first, second = rig.hub.image.find("d", "t0"), rig.hub.image.find("d", "t1")
    assert first is not None
    assert second is not None
    assert (first.value, first.quality) == (None, q.BAD | q.COMM_LOST)
    assert (second.value, second.quality) == (5, q.GOOD)
    assert rig.hub.position == (7, 0)


def test_a_receipt_of_several_records_is_committed_when_all_are() -> None:
    where = layout()
    rig = Rig(stream("a", where), stream("b", where, lane=Priority.ALARM), layouts=(where,))
    receipt = rig.put(where, 1, 2)
    called: list[int] = []
    receipt.on_commit(lambda: called.append(1))
    rig.paper.receipts[1].commit()
    assert (receipt.is_committed(), called) == (False, [])
    rig.paper.receipts[0].commit()
    assert (receipt.is_committed(), called) == (True, [1])


def test_on_commit_waits_for_the_newest_record_of_its_lane() -> None:
    where, other = layout("d"), layout("e")
    rig = Rig(stream("a", where), stream("b", other, lane=Priority.ALARM), layouts=(where, other))
    called: list[str] = []
    rig.hub.on_commit(Priority.NORMAL, lambda: called.append("nothing yet"))
    rig.put(where, 1, 1)
    rig.put(where, 2, 2)
    rig.put(other, 1, 1)
    rig.hub.on_commit(Priority.NORMAL, lambda: called.append("normal"))
    rig.paper.receipts[0].commit()
    rig.paper.receipts[2].commit()
    assert called == ["nothing yet"]
    rig.paper.receipts[1].commit()
    assert called == ["nothing yet", "normal"]


def test_where_commands_can_come_reading_without_a_period_leaves_the_loop_some_time() -> None:
    clock, used = Told(), [0]
    hub = Hub(
        clock=clock,
        journal=Paper(),
        epoch=1,
        image=Image(()),
        set_alarm=lambda deadline_ns: None,
        cpu_ns=lambda: used[0],
    )

    def run(share: float, windows: int) -> int:
        pause_ns = 0
        for _ in range(windows):
            clock.now_ns += 20 * MS
            used[0] += int(20 * MS * share)
            pause_ns = hub.pause_ns()
        return pause_ns

    assert run(0.95, 20) == 0  # nobody waits for room
    hub.leaves_room = True
    hub.pause_ns()
    assert 0 < run(0.95, 2) < run(0.95, 5)
    assert run(0.95, 200) == 50 * MS  # bounded
    assert run(0.5, 200) == 0
    assert run(0.95, 20) > 0
    hub.leaves_room = False  # a reload took the command rules away
    assert hub.pause_ns() == 0


def test_expressions_come_before_the_report_and_what_stays_remembers_across_a_reload() -> None:
    where = layout(count=1)
    [point] = where.points

    def block(source: str) -> BlockExpressions:
        expression = compile_expression(source, value=Kind_.INT)
        return BlockExpressions(where, {"t0": TagExpression(point, ValueType.INT, expression)})

    rig = Rig(stream("a", where), layouts=(where,))
    rig.hub.calculate({where: block("value - prev")})
    rig.put(where, 10)
    rig.put(where, 17)
    rig.hub.calculate({where: block("value - prev")})
    rig.put(where, 30)
    rig.put(where, 43)  # 13 again: nothing to report
    assert [batch.values for _, _, batch in rig.paper.records] == [(None,), (7,), (13,)]
    rig.hub.calculate({where: block("prev - value")})
    rig.put(where, 50)
    assert rig.paper.records[-1][2].values == (None,)
    rig.hub.calculate({})
    rig.put(where, 51)
    assert rig.paper.records[-1][2].values == (51,)
