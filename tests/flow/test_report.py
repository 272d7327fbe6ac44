"""Report by exception: what goes out, when, and that a receiver is never left with a wrong picture."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core import quality as q
from gateway.core.batch import Batch, Kind
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.flow.report import Reporter, ReportOn, ReportPolicy

S = 1_000_000_000


def layout(*deadbands: float) -> Layout:
    points = [
        Point(device="d", tag=f"t{i}", type=ValueType.FLOAT, deadband=b) for i, b in enumerate(deadbands)
    ]
    return Layout(device="d", scan="s", points=points)


def scan(where: Layout, *values: Value, quality: int | tuple[int, ...] = q.GOOD, at_ns: int = 0) -> Batch:
    return Batch(layout=where, values=values, quality=quality, received_ns=at_ns, monotonic_ns=at_ns)


def told(batch: Batch | None) -> dict[str, Value] | None:
    return None if batch is None else {point.tag: value for point, value, _q, _t in batch.rows()}


def test_first_scan_goes_out_whole_and_an_equal_one_not_at_all() -> None:
    where = layout(0, 0)
    reporter = Reporter(where, policy=ReportPolicy())
    assert told(reporter.offer(scan(where, 1, 2), 0)) == {"t0": 1, "t1": 2}
    assert reporter.offer(scan(where, 1, 2), 1) is None


def test_only_what_changed_goes_out() -> None:
    where = layout(0, 0, 0)
    reporter = Reporter(where, policy=ReportPolicy())
    reporter.offer(scan(where, 1, 2, 3), 0)
    out = reporter.offer(scan(where, 1, 5, 3), 1)
    assert out is not None
    assert out.columns == (1,)
    assert told(out) == {"t1": 5}


def test_on_scan_every_scan_goes_out() -> None:
    where = layout(0)
    reporter = Reporter(where, policy=ReportPolicy(on=ReportOn.SCAN))
    assert told(reporter.offer(scan(where, 1), 0)) == {"t0": 1}
    assert told(reporter.offer(scan(where, 1), 1)) == {"t0": 1}


def test_deadband_compares_with_what_was_last_sent_so_that_slow_drift_is_seen() -> None:
    where = layout(1.0)
    reporter = Reporter(where, policy=ReportPolicy())
    reporter.offer(scan(where, 10.0), 0)
    assert reporter.offer(scan(where, 10.6), 1) is None
    assert told(reporter.offer(scan(where, 11.2), 2)) == {"t0": 11.2}


def test_percent_deadband_is_of_the_range() -> None:
    point = Point(device="d", tag="t0", type=ValueType.FLOAT, low=0, high=200, deadband_percent=1)
    where = Layout(device="d", scan="s", points=[point])
    reporter = Reporter(where, policy=ReportPolicy())
    reporter.offer(scan(where, 10.0), 0)
    assert reporter.offer(scan(where, 12.0), 1) is None
    assert told(reporter.offer(scan(where, 12.1), 2)) == {"t0": 12.1}


def test_a_quality_change_is_a_change_even_within_the_deadband() -> None:
    where = layout(100, 100)
    reporter = Reporter(where, policy=ReportPolicy())
    reporter.offer(scan(where, 1.0, 2.0), 0)
    lost = reporter.offer(scan(where, None, None, quality=q.BAD | q.COMM_LOST), 1)
    assert told(lost) == {"t0": None, "t1": None}
    back = reporter.offer(scan(where, 1.0, None, quality=(q.GOOD, q.BAD | q.INVALID)), 2)
    assert back is not None
    assert [row[2] for row in back.rows()] == [q.GOOD, q.BAD | q.INVALID]


def test_a_change_suppressed_by_min_is_sent_when_the_interval_ends() -> None:
    where = layout(0, 0)
    reporter = Reporter(where, policy=ReportPolicy(min_ns=10 * S))
    reporter.offer(scan(where, 1, 1), 0)
    assert reporter.offer(scan(where, 2, 1), 4 * S) is None
    assert reporter.deadline_ns == 10 * S
    assert reporter.due(9 * S) is None
    assert told(reporter.due(10 * S)) == {"t0": 2}
    assert reporter.offer(scan(where, 3, 1), 12 * S) is None
    assert told(reporter.offer(scan(where, 3, 7), 20 * S)) == {"t0": 3, "t1": 7}


def test_a_held_change_goes_out_although_later_scans_are_equal() -> None:
    where = layout(0)
    reporter = Reporter(where, policy=ReportPolicy(min_ns=10 * S))
    reporter.offer(scan(where, 1), 0)
    changed = scan(where, 2)
    assert reporter.offer(changed, 1 * S) is None
    assert reporter.offer(changed, 2 * S) is None
    assert told(reporter.offer(changed, 11 * S)) == {"t0": 2}


def test_heartbeat_repeats_the_value_with_the_time_it_was_read() -> None:
    where = layout(0, 0)
    reporter = Reporter(where, policy=ReportPolicy(heartbeat_ns=60 * S))
    reporter.offer(scan(where, 1, 1, at_ns=5), 0)
    assert told(reporter.offer(scan(where, 2, 1, at_ns=30 * S), 30 * S)) == {"t0": 2}
    out = reporter.due(60 * S)
    assert told(out) == {"t1": 1}
    assert out is not None
    assert out.received_ns == 30 * S
    assert told(reporter.due(90 * S)) == {"t0": 2}


def test_events_bypass_everything_and_repeat_points() -> None:
    where = layout(5, 5)
    reporter = Reporter(where, policy=ReportPolicy(min_ns=100 * S), columns=(1,))
    events = Batch(
        layout=where,
        values=(1, 2, 3),
        columns=(1, 0, 1),
        kind=Kind.EVENT,
        received_ns=0,
        source_time_ns=(7, 8, 9),
    )
    out = reporter.offer(events, 0)
    assert out is not None
    assert (out.values, out.columns, out.source_time_ns) == ((1, 3), (1, 1), (7, 9))


def test_part_of_a_layout() -> None:
    where = layout(0, 0, 0)
    reporter = Reporter(where, policy=ReportPolicy(), columns=(0, 2))
    assert told(reporter.offer(scan(where, 1, 2, 3), 0)) == {"t0": 1, "t2": 3}
    assert reporter.offer(scan(where, 1, 9, 3), 1) is None
    out = reporter.offer(scan(where, 1, 9, 4), 2)
    assert out is not None
    assert out.columns == (2,)


VALUES = st.one_of(st.integers(-3, 3).map(float), st.none())
STEPS = st.lists(
    st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.integers(1, 40), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(
    steps=STEPS,
    min_s=st.sampled_from([0, 5, 30]),
    heartbeat_s=st.sampled_from([0, 20, 100]),
    part=st.sampled_from([None, (0, 2), (1,)]),
)
def test_a_receiver_ends_up_with_the_latest_picture(
    steps: list[tuple[list[Value], int, bool]], min_s: int, heartbeat_s: int, part: tuple[int, ...] | None
) -> None:
    """Once the intervals are over, the receiver's values differ by no more than the deadband."""
    assume(not heartbeat_s or heartbeat_s > min_s)
    bands = (0.0, 1.0, 2.0)
    where = layout(*bands)
    policy = ReportPolicy(min_ns=min_s * S, heartbeat_ns=heartbeat_s * S)
    reporter = Reporter(where, policy=policy, columns=part)
    seen: dict[int, tuple[Value, int]] = {}
    sent_at: dict[int, int] = {}
    now = 0

    def take(out: Batch | None) -> None:
        if out is None:
            return
        columns = out.columns if out.columns is not None else range(3)
        for column, value, quality in zip(columns, out.values, out.quality_column(), strict=True):
            if column in sent_at:
                assert now - sent_at[column] >= policy.min_ns
            seen[column] = (value, quality)
            sent_at[column] = now

    values: list[Value] = []
    for values, wait_s, follow in steps:
        quality = tuple(q.BAD if value is None else q.GOOD for value in values)
        take(reporter.offer(scan(where, *values, quality=quality, at_ns=now), now))
        target = now + wait_s * S
        while follow and reporter.deadline_ns <= target:
            now = max(now, reporter.deadline_ns)
            take(reporter.due(now))
        now = target
    for _ in range(20):
        if reporter.deadline_ns > now + 200 * S:
            break
        now = max(now, reporter.deadline_ns)
        take(reporter.due(now))
    for column in part or range(3):
        value, quality = seen[column]
        assert quality == (q.BAD if values[column] is None else q.GOOD)
        if isinstance(value, float) and isinstance(values[column], float):
            assert abs(value - values[column]) <= bands[column]
        else:
            assert value == values[column]
    if heartbeat_s:
        assert all(now - at <= policy.heartbeat_ns + 200 * S for at in sent_at.values())
