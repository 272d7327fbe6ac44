"""The deduplicator that receivers are given: against a set of everything that ever came."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.deduplicate import Deduplicator, Ranges

ROOT = Path(__file__).parents[2]
MESSAGES = st.tuples(
    st.sampled_from(["gw1", "gw2"]),
    st.sampled_from(["d1/a", "d1/b", "d2/a"]),
    st.integers(1, 3),
    st.integers(1, 25),
    st.sampled_from([0, 0, 0, 1]),
)


@given(st.lists(st.integers(0, 60), max_size=80), st.integers(0, 70), st.integers(0, 70))
def test_ranges_are_a_set_in_few_runs(numbers: list[int], first: int, last: int) -> None:
    ranges, model = Ranges(), set[int]()
    for number in numbers:
        assert ranges.add(number) is (number not in model)
        model.add(number)
    assert [number for number in range(-1, 80) if number in ranges] == sorted(model)
    runs = list(ranges)
    assert all(one[1] + 1 < other[0] for one, other in pairwise(runs)), runs
    missing = [number for run in ranges.missing(first, last) for number in range(run[0], run[1] + 1)]
    assert missing == [number for number in range(first, last + 1) if number not in model]


@settings(deadline=None)
@given(st.lists(st.one_of(MESSAGES, st.just("restart")), max_size=150))
def test_drops_exactly_what_came_before_in_any_order_and_over_restarts(story: list[object]) -> None:
    known, model = Deduplicator(), set[object]()
    for message in story:
        if message == "restart":
            known = Deduplicator.from_json(known.to_json())
            continue
        gateway, topic, epoch, seq, part = message  # type: ignore[misc]  # a tuple of MESSAGES
        assert known.accept(gateway, topic, epoch, seq, part) is (message not in model)
        model.add(message)
    assert known.forgotten == 0


@settings(deadline=None)
@given(st.data())
def test_what_is_settled_shrinks_and_stays_exact(data: st.DataObject) -> None:
    """A gateway as it is: in order, some repeated whole after it was killed, `delivered` in between."""
    known, model = Deduplicator(), set[object]()
    seq, delivered = 0, 0
    for _step in range(data.draw(st.integers(1, 20))):
        repeat_from = data.draw(st.integers(max(0, delivered - 3), seq))
        new_upto = seq + data.draw(st.integers(0, 4))
        for number in range(repeat_from + 1, new_upto + 1):
            topics = ["d/a", "d/b", "d/c"][: 1 + number % 3]
            if data.draw(st.integers(0, 9)) == 0:  # the connection breaks in the middle of a record
                topics = topics[:1]
            for topic in topics:
                assert known.accept("gw", topic, 1, number) is ((topic, number) not in model)
                model.add((topic, number))
            if len(topics) < 1 + number % 3:
                new_upto = number - 1  # not acknowledged: it will come again
                break
        seq = max(seq, new_upto)
        if data.draw(st.booleans()):
            delivered = max(delivered, new_upto)
            known.status("gw", {"delivered": [1, new_upto], "committed": [1, seq]})
    whole = {number for _topic, number in model if isinstance(number, int)}  # type: ignore[misc]  # pairs
    assert not [gap for gap in known.gaps("gw") if set(range(gap.first, gap.last + 1)) & whole]
    known.status("gw", {"delivered": [2, 0]})
    epochs = json.loads(known.to_json())["gateways"].get("gw", {})
    assert [one["open"] for one in epochs.values()] == [[]] * len(epochs)
    for topic, number in model:  # type: ignore[misc]  # pairs
        assert not known.accept("gw", topic, 1, number), "it came before"


def test_a_record_that_first_comes_after_it_was_settled_is_taken_whole() -> None:
    known = Deduplicator()
    known.accept("gw", "a", 1, 1)
    known.status("gw", {"delivered": [1, 5]})
    assert known.accept("gw", "a", 1, 3), "lost on the way to us, and repeated after a crash"
    known.status("gw", {"delivered": [1, 2]})  # of the next run, which knows less
    assert known.accept("gw", "b", 1, 3)
    assert not known.accept("gw", "b", 1, 3)
    assert not known.accept("gw", "a", 1, 1)


def test_a_retained_status_settles_nothing() -> None:
    known = Deduplicator()
    assert known.accept("gw", "a", 1, 1)
    known.status("gw", {"delivered": [1, 9], "committed": [1, 9]}, is_retained=True)
    assert known.accept("gw", "b", 1, 1), "the broker still had it in its queue for us"


def test_gaps_are_told_below_what_is_committed_and_say_whether_they_are_final() -> None:
    known = Deduplicator(one_message=True)
    for seq in (1, 2, 5, 9, 12):
        known.accept("gw", "a", 7, seq)
    known.status("gw", {"committed": [7, 11], "delivered": [7, 6]})
    assert [(gap.epoch, gap.first, gap.last, gap.is_final) for gap in known.gaps("gw")] == [
        (7, 3, 4, True),
        (7, 6, 6, True),
        (7, 7, 8, False),
        (7, 10, 11, False),
    ]
    assert known.gaps("other") == []
    known.status("gw", {"committed": [8, 0], "delivered": [8, 0]})
    assert all(gap.is_final for gap in known.gaps("gw"))


def test_memory_is_that_of_the_gaps() -> None:
    known = Deduplicator(one_message=True)
    for seq in range(1, 100_001):
        assert known.accept("gw", f"plant/d{seq % 12}", 1, seq)
    assert len(known.to_json()) < 200
    assert not known.accept("gw", "plant/d1", 1, 50_000)


def test_limits_cost_duplicates_and_never_a_message() -> None:
    known = Deduplicator(ranges_max=10, open_max=20, epochs_max=3)
    for epoch in range(1, 6):
        for seq in range(2, 200, 2):  # nothing but gaps
            assert known.accept("gw", "a", epoch, seq)
    assert known.forgotten > 0
    said = json.loads(known.to_json())
    assert len(said["gateways"]["gw"]) == 3
    assert sum(len(one["seen"]) for one in said["gateways"]["gw"].values()) <= 30
    assert sum(len(one["open"]) for one in said["gateways"]["gw"].values()) <= 20
    assert not known.accept("gw", "a", 5, 198), "what is recent is known"


def test_state_is_saved_in_one_step_and_refused_where_it_is_none(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    known = Deduplicator.load(str(path))
    known.accept("gw", "a", 1, 1)
    known.save(str(path))
    known.accept("gw", "a", 1, 2)
    known.save(str(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["known.json"]
    again = Deduplicator.load(str(path))
    assert not again.accept("gw", "a", 1, 2)
    assert again.accept("gw", "a", 1, 3)
    path.write_text("[]")
    with pytest.raises(ValueError, match="no state of a deduplicator"):
        Deduplicator.load(str(path))


def test_as_a_filter_behind_a_subscriber(tmp_path: Path) -> None:
    def line(topic: str, retained: int = 0, **payload: object) -> str:
        return f"{retained} {topic} {json.dumps(payload)}\n"

    first = (
        line("plant/d1", v=1, e=1, n=1) + line("plant/d1", v=1, e=1, n=1) + line("plant/d1", v=2, e=1, n=3)
    )
    status = line("gateway/gw/status", state="online", committed=[1, 3], delivered=[1, 3])
    command = [sys.executable, "examples/deduplicate.py", "--gateway", "gw", "--state", str(tmp_path / "s")]
    done = subprocess.run(
        command, input=first + status + "0 other plain text\n", capture_output=True, text=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert [json.loads(one.split(" ", 2)[2])["n"] for one in io.StringIO(done.stdout) if "plant" in one] == [
        1,
        3,
    ]
    assert "0 other plain text" in done.stdout
    assert done.stderr == "2 new, 1 duplicates\nmissing: epoch 1: 2 to 2 lost on the way\n"
    assert done.returncode == 1
    done = subprocess.run(
        command, input=first + line("plant/d1", v=5, e=1, n=2), capture_output=True, text=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert [json.loads(one.split(" ", 2)[2])["n"] for one in io.StringIO(done.stdout)] == [2]
    assert done.returncode == 0
