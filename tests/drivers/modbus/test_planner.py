"""Plans are minimal, never cross what they must not, and learn every illegal address in few requests."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.planner import (
    PROBE_INTERVAL_NS,
    Block,
    Cost,
    Options,
    Plan,
    Span,
    Wanted,
    cost,
    make_plan,
)
from drivers.modbus.wire.pdu import Table

HR, IR, CO = Table.HOLDING_REGISTERS, Table.INPUT_REGISTERS, Table.COILS


def registers(*places: tuple[int, int]) -> list[Wanted]:
    return [Wanted(column, HR, start, count) for column, (start, count) in enumerate(places)]


def ranges(plan: Plan) -> list[tuple[int, int]]:
    return [(block.start, block.count) for block in plan.blocks]


# --- laying blocks -----------------------------------------------------------------------------------------


def test_neighbours_are_one_request() -> None:
    plan = make_plan(registers((0, 1), (1, 2), (3, 4)), Options())
    assert plan.blocks == (Block(HR, 0, 7, (0, 1, 2)),)
    assert str(plan.blocks[0].span) == "hr:0..6"


def test_holes_are_read_in_vain_up_to_the_limit() -> None:
    fields = registers((0, 1), (9, 1), (19, 1))
    assert ranges(make_plan(fields, Options(max_hole=8))) == [(0, 10), (19, 1)]
    assert ranges(make_plan(fields, Options(max_hole=9))) == [(0, 20)]
    assert ranges(make_plan(fields, Options(max_hole=0))) == [(0, 1), (9, 1), (19, 1)]


def test_a_value_is_never_split_by_the_limit() -> None:
    fields = registers(*((2 * i, 2) for i in range(100)))
    assert ranges(make_plan(fields, Options())) == [(0, 124), (124, 76)]
    assert ranges(make_plan(fields, Options(max_registers=3))) == [(2 * i, 2) for i in range(100)]


def test_an_atomic_group_is_read_in_one_request_with_all_between() -> None:
    fields = [
        Wanted(0, HR, 0, 1, "g"),
        Wanted(1, HR, 100, 2, "g"),
        Wanted(2, HR, 50, 1),
        Wanted(3, HR, 110, 20),
    ]
    plan = make_plan(fields, Options(max_hole=0))
    assert plan.blocks == (Block(HR, 0, 102, (0, 1, 2)), Block(HR, 110, 20, (3,)))


def test_forbidden_ranges_are_never_read_not_even_in_vain() -> None:
    fields = registers((0, 1), (5, 1))
    assert ranges(make_plan(fields, Options(forbidden=(Span(HR, 3, 1),)))) == [(0, 1), (5, 1)]
    assert ranges(make_plan(fields, Options(forbidden=(Span(IR, 3, 1), Span(HR, 6, 9))))) == [(0, 6)]


def test_tables_are_apart_and_bits_have_limits_of_their_own() -> None:
    fields = [Wanted(0, HR, 0), Wanted(1, IR, 1), *(Wanted(2 + i, CO, i) for i in range(2001))]
    plan = make_plan(fields, Options())
    assert [(b.table, b.start, b.count) for b in plan.blocks] == [
        (CO, 0, 2000),
        (CO, 2000, 1),
        (HR, 0, 1),
        (IR, 1, 1),
    ]
    assert cost(plan.blocks) == Cost(
        requests=4, registers=2, bits=2001, request_bytes=48, answer_bytes=4 * 9 + 250 + 1 + 2 + 2
    )


def test_bits_of_one_register_are_one_place() -> None:
    fields = [Wanted(bit, HR, 109) for bit in range(16)]
    assert make_plan(fields, Options()).blocks == (Block(HR, 109, 1, tuple(range(16))),)


def test_an_overlap_longer_than_a_request_is_cut_between_values() -> None:
    fields = registers(*((i, 4) for i in range(20)))
    plan = make_plan(fields, Options(max_registers=10))
    assert ranges(plan) == [(0, 10), (7, 10), (14, 9)]
    assert [column for block in plan.blocks for column in block.columns] == list(range(20))


def test_nothing_to_read_is_no_request() -> None:
    assert make_plan([], Options()).blocks == ()
    assert cost(()) == Cost(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        (registers((65535, 2)), Options(), "found beyond the table"),
        (registers((-1, 1)), Options(), "found beyond the table"),
        (
            registers((0, 4)),
            Options(max_registers=3),
            "found 4 registers that belong together, expected at most 3",
        ),
        (
            registers((4, 2)),
            Options(forbidden=(Span(HR, 5, 3),)),
            "hr:4..5: found in the forbidden range hr:5..7",
        ),
        (
            [Wanted(0, HR, 0, 1, "g"), Wanted(1, HR, 125, 1, "g")],
            Options(),
            "126 registers that belong together",
        ),
        ([Wanted(0, HR, 0, 1, "g"), Wanted(1, IR, 1, 1, "g")], Options(), "atomic group 'g': found holding"),
        (
            [Wanted(0, HR, 0, 1, "g"), Wanted(1, HR, 9, 1, "g")],
            Options(forbidden=(Span(HR, 5, 1),)),
            "forbidden",
        ),
        ([], Options(max_hole=-1), "max_hole: found -1"),
        ([], Options(max_registers=126), "max_registers: found 126"),
        ([], Options(max_bits=0), "max_bits: found 0"),
    ],
)
def test_what_cannot_be_read_is_said(fields: list[Wanted], options: Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(fields, options)


@st.composite
def small_problems(draw: st.DrawFn) -> tuple[list[Wanted], Options]:
    """Up to eight disjoint values, some of them in groups, with forbidden places between."""
    fields, forbidden = [], []
    position = 0
    for column in range(draw(st.integers(0, 8))):
        gap = draw(st.integers(0, 4))
        if gap and draw(st.integers(0, 5)) == 0:
            forbidden.append(Span(HR, position + draw(st.integers(0, gap - 1)), 1))
        count = draw(st.integers(1, 4))
        fields.append(Wanted(column, HR, position + gap, count))
        position += gap + count
    limits = Options(
        max_hole=draw(st.integers(0, 4)), max_registers=draw(st.integers(4, 20)), forbidden=tuple(forbidden)
    )
    return fields, limits


def is_allowed(block: list[Wanted], options: Options) -> bool:
    start, end = block[0].start, block[-1].start + block[-1].count
    gaps = [(a.start + a.count, b.start) for a, b in itertools.pairwise(block)]
    return (
        end - start <= options.max_registers
        and all(right - left <= options.max_hole for left, right in gaps)
        and not any(span.start < end and start < span.end for span in options.forbidden)
    )


@settings(deadline=None)  # a shared machine may stall
@given(small_problems())
def test_plans_are_as_short_as_the_best_of_all_partitions(problem: tuple[list[Wanted], Options]) -> None:
    fields, options = problem
    plan = make_plan(fields[::-1], options)
    assert sorted(c for block in plan.blocks for c in block.columns) == [field.column for field in fields]
    for block in plan.blocks:
        assert is_allowed([fields[column] for column in block.columns], options)
    best = math.inf if fields else 0
    for cuts in range(1 << max(0, len(fields) - 1)):
        parts: list[list[Wanted]] = []
        for index, field in enumerate(fields):
            if not parts or cuts >> (index - 1) & 1:
                parts.append([])
            parts[-1].append(field)
        if all(is_allowed(part, options) for part in parts):
            best = min(best, len(parts))
    assert len(plan.blocks) == best


@st.composite
def any_problem(draw: st.DrawFn) -> list[Wanted]:
    """Values anywhere, overlapping or not, of two tables, with groups."""
    fields = []
    for column in range(draw(st.integers(1, 40))):
        table = draw(st.sampled_from([HR, CO]))
        start, count = draw(st.integers(0, 150)), draw(st.integers(1, 4))
        fields.append(Wanted(column, table, start, count))
    for name in ("a", "b"):
        start = draw(st.integers(0, 150))
        for _ in range(draw(st.integers(0, 3))):
            fields.append(Wanted(len(fields), HR, start + draw(st.integers(0, 9)), 1, name))
    return fields


@settings(deadline=None)  # a shared machine may stall
@given(any_problem(), st.integers(0, 10), st.integers(13, 125))
def test_every_field_lies_whole_in_one_block(fields: list[Wanted], max_hole: int, limit: int) -> None:
    plan = make_plan(fields, Options(max_hole=max_hole, max_registers=limit, max_bits=limit))
    seen: list[int] = []
    for block in plan.blocks:
        assert 0 < block.count <= limit
        seen += block.columns
        used = set()
        for column in block.columns:
            field = fields[column]
            assert field.table == block.table
            assert block.start <= field.start <= field.start + field.count <= block.start + block.count
            used |= set(range(field.start, field.start + field.count))
        for name in {fields[column].group for column in block.columns} - {None}:
            members = [field for field in fields if field.group == name]
            assert {member.column for member in members} <= set(block.columns), "a group is split"
            used |= set(range(min(m.start for m in members), max(m.start for m in members)))
        assert {block.start, block.start + block.count - 1} <= used
        unused = "".join("." if i in used else "#" for i in range(block.start, block.start + block.count))
        assert max(map(len, unused.split("."))) <= max_hole
    assert sorted(seen) == [field.column for field in fields]


# --- learning ----------------------------------------------------------------------------------------------


LONGEST = st.sampled_from([13, 40, 2000])


class Device:
    """Refuses what touches an illegal item, and what is longer than it likes."""

    def __init__(self, illegal: set[tuple[Table, int]], longest: int = 2000) -> None:
        self.illegal = illegal
        self.longest = longest
        self.requests = 0

    def accepts(self, block: Block) -> bool:
        self.requests += 1
        items = range(block.start, block.start + block.count)
        return block.count <= self.longest and not any((block.table, item) in self.illegal for item in items)


def scan(plan: Plan, device: Device) -> tuple[Plan, set[int], bool]:
    """One scan as a driver does it: the new plan, the columns read, whether all blocks were accepted."""
    read: set[int] = set()
    clean = True
    for block in (*plan.blocks, *plan.probes):
        if device.accepts(block):
            read |= set(block.columns)
            if plan.is_learning:
                plan = plan.accepted(block)
        else:
            clean = False
            plan = plan.refused(block)
    return plan, read, clean


def learn(plan: Plan, device: Device) -> tuple[Plan, set[int]]:
    for _ in range(300):
        before = plan
        plan, read, clean = scan(plan, device)
        if clean and plan == before:
            assert not plan.is_learning
            return plan, read
    raise AssertionError("does not converge")


def test_one_illegal_register_is_found_by_halves() -> None:
    device = Device({(HR, 57)})
    plan, read = learn(make_plan(registers(*((2 * i, 2) for i in range(50))), Options()), device)
    assert plan.dead_columns == {28}
    assert plan.holes == (Span(HR, 56, 2),)
    assert str(plan.holes[0]) == "hr:56..57"
    assert read == set(range(50)) - {28}
    assert ranges(plan) == [(0, 56), (58, 42)]


def test_a_refusal_costs_only_the_tag_it_is_about_while_it_is_searched() -> None:
    device = Device({(HR, 7)})
    plan = make_plan(registers(*((i, 1) for i in range(8)), (500, 1)), Options())
    plan, read, _ = scan(plan, device)
    assert read == {8}, "other blocks go on"
    plan, read, _ = scan(plan, device)
    assert read == {0, 1, 2, 3, 8}, "and the good half at once"


def test_an_illegal_register_nobody_wants_becomes_a_cut() -> None:
    device = Device({(HR, 5)})
    plan, read = learn(make_plan(registers((0, 2), (2, 2), (8, 2), (10, 2)), Options()), device)
    assert plan.dead_columns == frozenset()
    assert read == {0, 1, 2, 3}
    assert ranges(plan) == [(0, 4), (8, 4)]


def test_a_device_that_refuses_long_requests_is_read_in_shorter_ones() -> None:
    device = Device(set(), longest=30)
    plan, read = learn(make_plan(registers(*((i, 1) for i in range(120))), Options()), device)
    assert read == set(range(120))
    assert plan.dead_columns == frozenset()
    assert len(plan.blocks) <= 8


def test_an_atomic_group_dies_as_one() -> None:
    fields = [Wanted(0, HR, 0), Wanted(1, HR, 1, 1, "g"), Wanted(2, HR, 3, 1, "g"), Wanted(3, HR, 4)]
    plan, read = learn(make_plan(fields, Options()), Device({(HR, 3)}))
    assert plan.dead_columns == {1, 2}
    assert read == {0, 3}


def test_of_overlapping_values_only_those_that_touch_the_hole_die() -> None:
    fields = registers((0, 2), (0, 1), (1, 1), (2, 1))
    plan, read = learn(make_plan(fields, Options()), Device({(HR, 1)}))
    assert plan.dead_columns == {0, 2}
    assert read == {1, 3}


def test_a_device_without_any_of_it() -> None:
    plan, read = learn(
        make_plan(registers((0, 1), (1, 1), (2, 1)), Options()), Device({(HR, i) for i in range(3)})
    )
    assert plan.blocks == ()
    assert read == set()
    assert plan.dead_columns == {0, 1, 2}


def test_probes_revive_what_became_legal_and_only_that() -> None:
    device = Device({(HR, 1), (HR, 2)})
    plan, _ = learn(make_plan(registers(*((i, 1) for i in range(5))), Options(), now_ns=0), device)
    assert plan.dead_columns == {1, 2}
    assert not plan.probe_due(PROBE_INTERVAL_NS - 1)
    assert plan.probe_due(PROBE_INTERVAL_NS)
    plan = plan.probe(PROBE_INTERVAL_NS)
    assert [probe.start for probe in plan.probes] == [1, 2]
    assert not plan.probe_due(PROBE_INTERVAL_NS)
    assert ranges(plan) == [(0, 1), (3, 2)], "the scan goes on beside"
    device.illegal = {(HR, 2)}
    device.requests = 0
    plan, read = learn(plan, device)
    assert plan.dead_columns == {2}
    assert read == {0, 1, 3, 4}
    assert ranges(plan) == [(0, 2), (3, 2)]
    assert plan.probes == ()


def test_nothing_is_due_where_nothing_was_refused() -> None:
    plan = make_plan(registers((0, 1)), Options())
    assert not plan.probe_due(10 * PROBE_INTERVAL_NS)
    assert plan.probe(5).probes == ()
    assert not plan.is_learning


def test_verdicts_on_blocks_that_are_no_longer_planned_change_nothing() -> None:
    plan = make_plan(registers((0, 1), (1, 1)), Options())
    (whole,) = plan.blocks
    halves = plan.refused(whole)
    assert halves.refused(whole) is halves
    assert halves.accepted(whole) is halves
    assert plan.accepted(whole) is plan


@settings(deadline=None)  # a shared machine may stall
@given(any_problem(), st.sets(st.tuples(st.sampled_from([HR, CO]), st.integers(0, 160)), max_size=8), LONGEST)
def test_learning_converges_reads_all_that_is_legal_and_asks_little(
    fields: list[Wanted], illegal: set[tuple[Table, int]], longest: int
) -> None:
    device = Device(illegal, longest)
    first = make_plan(fields, Options())
    plan, read = learn(first, device)
    sound = [atom for atom in first._atoms if not touches(atom.table, atom.start, atom.end, illegal)]
    legal = {column for atom in sound for column in atom.columns}
    assert read == legal
    assert plan.dead_columns == {field.column for field in fields} - legal
    if longest == 2000:
        # Each search ends in a culprit, after one refusal at each level.
        culprits = len(plan._dead) + len(plan._cuts)
        levels = math.ceil(math.log2(len(fields) + 1)) + 1
        assert refusals(first, Device(illegal)) <= culprits * levels
    # Settled: as few requests as a plan with these holes and cuts can have, and stable.
    again, _, clean = scan(plan, device)
    assert clean
    assert again == plan


def touches(table: Table, start: int, end: int, illegal: set[tuple[Table, int]]) -> bool:
    return any((table, item) in illegal for item in range(start, end))


def refusals(plan: Plan, device: Device) -> int:
    count = 0
    while True:
        before, clean = plan, True
        for block in plan.blocks:
            if device.accepts(block):
                plan = plan.accepted(block)
            else:
                count, clean = count + 1, False
                plan = plan.refused(block)
        if clean and plan == before:
            return count


@settings(deadline=None)  # a shared machine may stall
@given(st.sets(st.integers(0, 99), max_size=5))
def test_the_requests_of_a_search_are_bounded_by_holes_times_log(illegal: set[int]) -> None:
    device = Device({(HR, item) for item in illegal})
    plan = make_plan(registers(*((i, 1) for i in range(100))), Options())
    for _ in range(200):
        plan, _, clean = scan(plan, device)
        if clean and not plan.is_learning:
            break
    scans_worst = len(illegal) * (math.ceil(math.log2(100)) + 1) + 1
    blocks_worst = 1 + len(illegal) * (math.ceil(math.log2(100)) + 1)
    assert device.requests <= scans_worst * blocks_worst
    assert plan.dead_columns == illegal
