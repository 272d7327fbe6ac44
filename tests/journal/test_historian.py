"""History says what was recorded, all of it and nothing else, whatever clocks, restarts and disks did."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.quality import BAD, CLOCK_NOT_SYNCHRONISED, COMM_LOST, GOOD, UNCERTAIN
from gateway.disk.block import Compression
from gateway.journal import historian, places
from gateway.journal.buckets import Bucket
from gateway.journal.historian import HistoryError, Pages, Question
from gateway.journal.samples import Gap, Sample, Why
from gateway.journal.settings import JournalSettings
from tests.journal.historian_model import FAN, PUMP, Past, drive
from tests.journal.support import SECOND_NS, N, everything

S = SECOND_NS


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CHUNK_BYTES", 300)
    monkeypatch.setattr("gateway.disk.segment._PACKED_STEP_BYTES", 1)


numbers = st.integers(-50, 50)
steps = st.one_of(
    st.tuples(st.just("pump"), numbers, st.sampled_from([GOOD, GOOD, GOOD, BAD | COMM_LOST, UNCERTAIN])),
    st.tuples(st.just("fan"), numbers, st.sampled_from(["a", "ab", "abc"])),
    st.tuples(st.just("event"), numbers, st.integers(0, 40)),
    st.tuples(st.just("wait"), st.integers(1, 20), st.none()),
    st.tuples(st.just("maintain"), st.integers(1, 2), st.none()),
    st.tuples(st.just("step"), st.sampled_from([-3000, -40, 40, 3000]), st.none()),
    st.tuples(st.just("restart"), st.integers(-30, 300), st.none()),
)


def lived(moves: list[tuple[str, int, object]]) -> Past:
    """Some records share a commit, and are packed together then."""
    past = Past()
    for verb, number, more in moves:
        if verb == "pump":
            past.put(PUMP, (float(number), float(-number)), quality=more, is_committed=False)  # type: ignore[arg-type]  # as drawn
        elif verb == "fan":
            past.put(FAN, (float(number),), streams=str(more), is_committed=False)
        elif verb == "event":
            source_ns = past.clock.wall_ns() - int(str(more)) * S
            past.put(PUMP, (float(number),), source_ns=source_ns, columns=(1,), is_committed=False)
        elif verb == "wait":
            past.wait(number * S)
        elif verb == "maintain":
            past.wait(number * S)
            past.bench.journal.maintain()
            past.bench.journal.commit()
        elif verb == "step":
            past.clock.now_wall_ns += number * S
        else:
            past.restart(number * S)
        past.wait(S // 2 if verb in ("pump", "fan", "event") else 0)
        if number % 5 == 0:
            past.bench.journal.commit()
    past.bench.journal.commit()
    return past


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(steps, min_size=1, max_size=60),
    start=st.one_of(st.integers(-60, 60), st.integers(-3300, 3300)), length=st.integers(1, 6000),
    limit=st.integers(1, 10),
)  # fmt: skip
def test_every_value_of_a_time_is_told_once_in_the_order_of_recording(
    moves: list[tuple[str, int, object]], start: int, length: int, limit: int
) -> None:
    past = lived(moves)
    begin = 1_700_000_000 * S
    low, high = begin + start * S, begin + (start + length) * S
    rows = past.ask(from_ns=low, to_ns=high, limit=limit)
    assert [row for row in rows if isinstance(row, Sample)] == past.values(low, high)
    keys = [row.key for row in rows if isinstance(row, (Sample, Gap))]
    assert keys == sorted(keys)


@settings(max_examples=60, deadline=None)
@given(
    moves=st.lists(steps, min_size=1, max_size=60),
    start=st.integers(-100, 300), length=st.integers(1, 600), every=st.integers(1, 300),
    limit=st.integers(1, 40),
)  # fmt: skip
def test_aggregates_are_those_of_all_intervals_added_up(
    moves: list[tuple[str, int, object]], start: int, length: int, every: int, limit: int
) -> None:
    # A clock that is set leaves times unclear that the model takes for clear: those are tested by hand.
    past = lived([move for move in moves if move[0] != "step" and (move[0] != "restart" or move[1] >= 0)])
    begin = 1_700_000_000 * S
    low, high = begin + start * S, begin + (start + length) * S
    for row in past.ask(from_ns=low, to_ns=high, every_ns=every * S, limit=max(limit, 3)):
        assert isinstance(row, Bucket)
        good, not_good, good_ns, area = past.aggregate(row.point.name, row.start_ns, row.end_ns)
        assert (row.count, row.not_good) == (good, not_good)
        assert math.isclose(row.good, min(1.0, good_ns / (row.end_ns - row.start_ns)), abs_tol=1e-12)
        if good_ns:
            assert row.mean is not None
            assert math.isclose(row.mean, area / good_ns, rel_tol=1e-9, abs_tol=1e-6)
            assert row.minimum is not None
            assert row.maximum is not None
            assert row.minimum - 1e-9 <= row.mean <= row.maximum + 1e-9
        else:
            assert row.mean is None


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_of_any_size_put_together_are_the_whole(limit: int) -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(40):
        past.put(FAN, (float(number),), streams="ab")
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
        if number == 20:
            past.restart(5 * S)
    rows = past.ask(from_ns=begin, to_ns=begin + 100 * S, limit=limit)
    assert [row for row in rows if isinstance(row, Sample)] == past.samples
    assert [row.why for row in rows if isinstance(row, Gap)] == [Why.OFF]


def test_a_value_that_does_not_change_holds_while_the_gateway_runs_and_not_a_second_longer() -> None:
    past = Past()
    past.put(PUMP, (10.0, 0.0))
    for _ in range(10):
        past.wait(60 * S)
        past.bench.journal.maintain()
    begin = past.samples[0].time_ns
    past.restart(300 * S)  # off for five of the last ten minutes asked for
    past.wait(300 * S)  # on again, and the device says nothing
    rows = past.ask(from_ns=begin + 300 * S, to_ns=begin + 1200 * S, every_ns=300 * S)
    pump = [row for row in rows if isinstance(row, Bucket) and row.point.name == "pump/t0"]
    assert [(row.mean, row.minimum, row.good, row.count) for row in pump] == [
        (10.0, 10.0, 1.0, 0), (None, None, 0.0, 0), (None, None, 0.0, 0),
    ]  # fmt: skip
    [gap] = past.ask(from_ns=begin + 300 * S, to_ns=begin + 1200 * S)
    assert isinstance(gap, Gap)
    assert (gap.why, gap.from_ns - begin, gap.to_ns - begin) == (Why.OFF, 600 * S, 900 * S)


def test_after_a_power_cut_values_hold_until_the_last_sign_of_life_on_the_disk() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    past.put(PUMP, (10.0, 0.0))
    for _ in range(100):
        past.wait(S)
        past.bench.journal.maintain()
        past.bench.journal.commit()
    past.wait(S // 2)
    past.boots += 1  # no stop, and an hour later
    past.wait(3600 * S)
    past.clock.now_ns = S
    past.start()
    [gap] = past.ask(from_ns=begin + 50 * S, to_ns=begin + 3700 * S)
    assert isinstance(gap, Gap)
    assert begin + 99 * S <= gap.from_ns <= begin + 100 * S
    assert gap.to_ns == begin + 3700 * S + S // 2
    [one, *_] = past.ask(from_ns=begin, to_ns=begin + 200 * S, every_ns=200 * S)
    assert isinstance(one, Bucket)
    assert 99 / 200 <= one.good <= 100 / 200


def test_a_clock_set_forward_is_a_gap_and_one_set_back_counts_an_hour_twice() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    past.put(FAN, (1.0,))
    past.wait(60 * S)
    past.clock.now_wall_ns += 3600 * S
    past.put(FAN, (2.0,))
    past.wait(60 * S)
    past.clock.now_wall_ns -= 3600 * S
    past.put(FAN, (4.0,))
    past.wait(60 * S)
    rows = past.ask(from_ns=begin, to_ns=begin + 7200 * S)
    assert [row.value if isinstance(row, Sample) else row.why for row in rows] == [
        1.0, Why.STEPPED, 2.0, Why.STEPPED, 4.0,
    ]  # fmt: skip
    gaps = [row for row in rows if isinstance(row, Gap)]
    assert [(gap.from_ns - begin, gap.to_ns - begin) for gap in gaps] == [
        (60 * S, 3660 * S), (3720 * S, 120 * S),
    ]  # fmt: skip
    buckets = past.ask(from_ns=begin, to_ns=begin + 3780 * S, every_ns=60 * S)
    means = {(row.start_ns - begin) // S: (row.mean, row.good) for row in buckets if isinstance(row, Bucket)}
    assert means[0] == (1.0, 1.0)
    assert means[60] == (None, 0.0)  # nobody lived through it
    assert means[120] == (4.0, 1.0)
    assert means[3660] == (2.0, 1.0)


def test_what_is_damaged_is_a_gap_and_nothing_is_held_across_it() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(60):
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
    lane = past.bench.journal._lanes[0]
    segment = lane.log.segments()[1]
    content = past.disk.entries[segment.path].content
    content[len(content) // 2] ^= 0x10
    rows = past.ask(from_ns=begin, to_ns=begin + 60 * S, wanted=lambda _device, tag: tag == "t0")
    values = [row.value for row in rows if isinstance(row, Sample)]
    lost = [number for number in range(60) if float(number) not in values]
    assert len(lost) == 1
    [gap] = [row for row in rows if isinstance(row, Gap)]
    assert gap.why is Why.DAMAGED
    assert (gap.from_ns - begin, gap.to_ns - begin) == ((lost[0] - 1) * S, (lost[0] + 1) * S)
    place = rows.index(gap)
    assert rows[place - 1].value == lost[0] - 1  # type: ignore[union-attr]  # a sample stands there
    assert past.bench.journal.stats().quarantined_ranges == 1
    buckets = past.ask(from_ns=begin, to_ns=begin + 60 * S, every_ns=S, wanted=lambda _, tag: tag == "t0")
    not_good = [(row.start_ns - begin) // S for row in buckets if isinstance(row, Bucket) and row.good < 1]
    assert not_good == [lost[0] - 1, lost[0]]


def test_an_answer_is_read_in_small_steps_and_pages_of_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(300):
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
    monkeypatch.setattr("gateway.journal.lane_scan.READ_BYTES", 400)
    monkeypatch.setattr(historian, "PAGE_BYTES_MAX", 4000)
    most, pages, after = 0, 0, ""
    found = 0
    while after or not pages:
        question = Question(
            wanted=lambda d, t: (d, t) == ("pump", "t9"), from_ns=begin, to_ns=begin + 300 * S, after=after
        )

        def watched(pages: Pages) -> Pages:
            nonlocal most
            while True:
                before = past.disk.bytes_read
                try:
                    next(pages)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]  # a page
                finally:
                    most = max(most, past.disk.bytes_read - before)
                yield

        page = drive(watched(past.historian().ask(question, past.now)))
        found += len(page.rows)
        after = page.after
        pages += 1
    assert found == 0  # there is no such tag: the whole past was looked through, page by page
    assert pages > 3
    assert most < 3 * 4096  # a piece, and a definition


def test_a_question_about_a_minute_of_a_long_past_reads_little() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(2000):
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
    whole = sum(segment.size for segment in past.bench.journal._lanes[0].log.segments())
    past.disk.bytes_read = 0
    rows = past.ask(from_ns=begin + 1000 * S, to_ns=begin + 1003 * S, wanted=lambda _, tag: tag == "t0")
    assert [row.value for row in rows if isinstance(row, Sample)] == [1000.0, 1001.0, 1002.0]
    assert past.disk.bytes_read < 20_000 < whole // 5
    past.disk.bytes_read = 0
    past.ask(from_ns=begin + 1000 * S, to_ns=begin + 1003 * S, every_ns=S)
    assert past.disk.bytes_read < 40_000


def test_late_events_of_a_device_are_counted_where_they_happened() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    past.wait(100 * S)
    past.put(FAN, (1.0,), source_ns=begin + 80 * S)
    past.put(FAN, (9.0,), source_ns=begin + 20 * S)
    past.wait(20 * S)
    rows = past.ask(from_ns=begin, to_ns=begin + 120 * S, every_ns=60 * S)
    assert [(row.count, row.maximum, row.good) for row in rows if isinstance(row, Bucket)] == [
        (1, 9.0, 0.0), (1, 1.0, pytest.approx(40 / 60)),
    ]  # fmt: skip


def test_values_taken_out_of_a_backlog_leave_a_hole_that_is_told() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    past.put(FAN, (1.0,))
    past.wait(30 * S)
    past.put(FAN, (2.0,), missing=7)
    past.wait(30 * S)
    rows = past.ask(from_ns=begin, to_ns=begin + 60 * S)
    assert [row.missing for row in rows if isinstance(row, Sample)] == [0, 7]
    [one] = past.ask(from_ns=begin, to_ns=begin + 60 * S, every_ns=60 * S)
    assert isinstance(one, Bucket)
    assert (one.count, one.good, one.mean) == (2, 0.5, 2.0)  # what held before the second is not known


def test_what_was_recorded_before_the_clock_was_set_is_found_where_it_belongs() -> None:
    past = Past()
    true_ns = past.clock.wall_ns()
    past.clock.now_wall_ns = 1000 * S  # no battery
    past.clock.is_synchronised = lambda: False  # type: ignore[method-assign]  # for this test
    past.put(FAN, (1.0,), time_quality=CLOCK_NOT_SYNCHRONISED)
    past.wait(60 * S)
    assert [row.time_ns for row in past.ask(from_ns=0, to_ns=2000 * S) if isinstance(row, Sample)] == [
        1000 * S
    ]
    past.clock.now_wall_ns = true_ns + 60 * S
    del past.clock.is_synchronised
    past.bench.journal.maintain()
    past.put(FAN, (2.0,))
    past.wait(60 * S)
    rows = past.ask(from_ns=true_ns, to_ns=true_ns + 120 * S)
    assert [(row.value, row.time_ns - true_ns) for row in rows if isinstance(row, Sample)] == [
        (1.0, 0), (2.0, 60 * S),
    ]  # fmt: skip
    assert [row for row in past.ask(from_ns=0, to_ns=2000 * S) if isinstance(row, Sample)] == []
    means = [row.mean for row in past.ask(from_ns=true_ns, to_ns=true_ns + 120 * S, every_ns=60 * S)]  # type: ignore[union-attr]  # spans
    assert means == [1.0, 2.0]


@pytest.mark.parametrize("compression", list(Compression))
def test_packed_or_not_the_past_is_the_same(
    compression: Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.journal.historian_model.SETTINGS",
        JournalSettings(segment_bytes=30_000, mark_ms=1000, compression=compression),
    )
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(60):  # many records in each commit, so that they are packed together
        for more in range(20):
            past.put(PUMP, (float(number * 20 + more), 0.0), is_committed=False)
            past.wait(S // 20)
        past.bench.journal.commit()
    for low, high in ((0, 60), (7, 8), (31, 33), (59, 60)):
        rows = past.ask(from_ns=begin + low * S, to_ns=begin + high * S, limit=17)
        assert rows == past.values(begin + low * S, begin + high * S)
    for row in past.ask(from_ns=begin + 20 * S, to_ns=begin + 40 * S, every_ns=S):
        assert isinstance(row, Bucket)
        assert row.count == 20
        assert row.good == 1.0


def test_of_records_packed_together_only_those_of_the_time_are_told_and_each_once() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for hours in (10, -10, 0):  # a clock that goes away for a while, all in one commit
        for number in range(12):
            past.put(FAN, (float(number),), is_committed=False)
            past.wait(S)
        past.clock.now_wall_ns += hours * 3600 * S
    past.bench.journal.commit()
    rows = past.ask(from_ns=begin, to_ns=begin + 100 * S)
    values = [row for row in rows if isinstance(row, Sample)]
    assert len(values) == 24
    assert values == past.values(begin, begin + 100 * S)


def test_segments_that_go_while_they_are_read_are_asked_for_again() -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(300):
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
    question = Question(wanted=lambda _, tag: tag == "t0", from_ns=begin, to_ns=begin + 300 * S)
    pages = past.historian().ask(question, past.now)
    next(pages)
    next(pages)
    next(pages)
    past.bench.journal._lanes[N].delete_passed(10)
    past.bench.journal.commit()
    values = [row.value for row in drive(pages).rows if isinstance(row, Sample)]
    left = numbers_of(past)
    assert values == left
    assert 0 < len(left) < 300


def numbers_of(past: Past) -> list[float]:
    reader = past.bench.journal.reader(N, (0, 0))
    return [record.batch.values[0] for record in everything(reader)]  # type: ignore[misc]  # floats


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"from_ns": 5, "to_ns": 5}, "ends before it begins"),
        ({"from_ns": 0, "to_ns": 5, "limit": 0}, "limit: found 0"),
        ({"from_ns": 0, "to_ns": 5, "limit": 10_001}, "limit: found 10001"),
        ({"from_ns": 0, "to_ns": 5, "after": "x"}, "after: found 'x'"),
        ({"from_ns": 0, "to_ns": 5, "after": "1-2-" + "9" * 30}, "after: found"),
        ({"from_ns": 0, "to_ns": 5, "every_ns": 0}, "every: expected"),
        ({"from_ns": 0, "to_ns": 5, "every_ns": 2, "after": "3"}, "after: found '3'"),
        ({"from_ns": 0, "to_ns": 5, "every_ns": 2, "after": "6"}, "after: found '6'"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_with_words(words: dict[str, int], said: str) -> None:
    past = Past()
    question = Question(wanted=lambda _device, _tag: True, **words)  # type: ignore[arg-type]  # by name
    with pytest.raises(HistoryError, match=said):
        drive(past.historian().ask(question, past.now))


def test_a_segment_of_an_older_version_is_read_once_for_what_it_does_not_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    past = Past()
    begin = past.clock.wall_ns()
    for number in range(100):
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
    lane = past.bench.journal._lanes[0]
    for segment in lane.log.segments()[:-1]:
        segment.note = b""
    rows = past.ask(from_ns=begin, to_ns=begin + 100 * S, wanted=lambda _, tag: tag == "t0")
    assert [row.value for row in rows if isinstance(row, Sample)] == [float(n) for n in range(100)]
    past.disk.bytes_read = 0
    past.ask(from_ns=begin, to_ns=begin + S)
    assert past.disk.bytes_read < 12_000
