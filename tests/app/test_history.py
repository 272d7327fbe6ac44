"""Questions to a running gateway: in turns, not too many, not too long; what history records by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.app import history as desk_module
from gateway.app.compiled import compile_site
from gateway.app.history import AT_ONCE_MAX, HistoryDesk
from gateway.app.history_plan import history_lines
from gateway.app.history_rule import STREAM, history_streams
from gateway.app.kinds import kinds
from gateway.config.load import load
from gateway.core.point import Priority
from gateway.flow.report import ReportOn
from gateway.journal.historian import Page, Question
from gateway.journal.samples import Sample
from tests.journal.historian_model import PUMP, Past
from tests.journal.support import SECOND_NS

S = SECOND_NS


def lived() -> Past:
    past = Past()
    for number in range(50):
        past.put(PUMP, (float(number), 0.0))
        past.wait(S)
    return past


def question(past: Past, **more: object) -> Question:
    begin = past.samples[0].time_ns
    words: dict[str, object] = {"wanted": lambda *_: True, "from_ns": begin, "to_ns": begin + 60 * S}
    return Question(**(words | more))  # type: ignore[arg-type]  # by name


def run(scenario: Callable[[HistoryDesk, Past], object]) -> None:
    async def main() -> None:
        past = lived()
        desk = HistoryDesk(past.bench.journal, clock=past.clock)
        try:
            async with asyncio.timeout(20):
                await scenario(desk, past)  # type: ignore[misc]  # a coroutine
        finally:
            desk.close()

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    """A thread works: look until it has."""
    while not true():  # noqa: ASYNC110 - what changes tells nobody
        await asyncio.sleep(0.001)


async def answer(desk: HistoryDesk, asked: Question) -> Page | str:
    done: asyncio.Future[Page | str] = asyncio.get_running_loop().create_future()
    assert desk.ask(asked, done=done.set_result, failed=lambda code, why: done.set_result(f"{code}: {why}"))
    return await done


def test_a_question_is_answered_aside_with_all_that_was_accepted_before_it() -> None:
    async def scenario(desk: HistoryDesk, past: Past) -> None:
        past.bench.append(layout=PUMP)  # accepted and not on disk yet
        asyncio.get_running_loop().call_later(0.01, past.bench.journal.commit)
        page = await answer(desk, question(past))
        assert isinstance(page, Page)
        values = [row.value for row in page.rows if isinstance(row, Sample) and row.point.tag == "t0"]
        assert values[:50] == [float(number) for number in range(50)]
        assert len(values) == 51

    run(scenario)


def test_only_so_many_are_at_work_at_once() -> None:
    async def scenario(desk: HistoryDesk, past: Past) -> None:
        pages: list[Page] = []
        for _ in range(AT_ONCE_MAX):
            assert desk.ask(question(past), done=pages.append, failed=lambda *_: None)
        assert desk.ask(question(past), done=pages.append, failed=lambda *_: None) is None
        at_work = desk.levels()[0]
        assert (at_work.depth, at_work.limit, at_work.lost) == (AT_ONCE_MAX, AT_ONCE_MAX, 1)
        await until(lambda: len(pages) == AT_ONCE_MAX)
        assert isinstance(await answer(desk, question(past)), Page)

    run(scenario)


def test_what_takes_too_long_ends_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "STEPS_AT_ONCE", 1)

    async def scenario(desk: HistoryDesk, past: Past) -> None:
        asked = asyncio.ensure_future(answer(desk, question(past)))
        await asyncio.sleep(0)
        past.clock.now_ns += 31 * S
        assert "503: not answered within 30 s" in str(await asked)
        assert desk.levels()[0].depth == 0

    run(scenario)


def test_a_question_that_is_given_up_frees_its_place() -> None:
    async def scenario(desk: HistoryDesk, past: Past) -> None:
        said: list[object] = []
        give_up = desk.ask(question(past), done=said.append, failed=lambda *why: said.append(why))
        assert give_up is not None
        give_up()
        await until(lambda: desk.levels()[0].depth == 0)
        assert said == []

    run(scenario)


def test_faults_are_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(desk: HistoryDesk, past: Past) -> None:
        assert "400: after: found 'x'" in str(await answer(desk, question(past, after="x")))
        assert "400: limit: found 0" in str(await answer(desk, question(past, limit=0)))

        def broken(path: Path) -> None:
            raise OSError(5, "Input/output error", str(path))

        monkeypatch.setattr(past.disk, "open_read", broken)
        said = str(await answer(desk, question(past)))
        assert said.startswith("500: ")
        assert "Input/output error" in said

    run(scenario)


# What is recorded

SITE = """
version: 1
gateway: {name: gw1, site: north}
journal: {history: %s}
links: {line: {driver: modbus, host: "10.0.0.5:502"}}
scan: {fast: 1s}
uplinks: {cloud: {kind: mqtt, url: "mqtt://broker.example"}}
devices:
  pump:
    link: line
    unit: 1
    tags:
      speed: {at: "hr:0", type: uint16, scan: fast}
      flow: {at: "hr:1", type: uint16, scan: fast}
      trip: {at: "hr:2", type: uint16, scan: fast, priority: alarm}
publish:
  - {match: "*/speed", uplink: cloud, topic: "a/{device}/{tag}", report: %s}
"""


@pytest.mark.parametrize(
    ("history", "report", "own"),
    [
        ("{}", "{}", {"flow", "trip"}),  # what is published is recorded already
        ("{}", "{on: scan}", {"flow", "trip"}),
        ("{}", "{min: 10s}", {"speed", "flow", "trip"}),  # coarser than what history wants
        ("{report: {min: 10s}}", "{min: 10s}", {"flow", "trip"}),
        ("{report: {on: scan}}", "{}", {"speed", "flow", "trip"}),
        ("{report: {heartbeat: 1m}}", "{}", {"speed", "flow", "trip"}),
        ("{report: {heartbeat: 1m}}", "{heartbeat: 10s}", {"flow", "trip"}),
        ('{match: "*/flow"}', "{}", {"flow"}),
        ('{match: ["*/*", "!*/trip"]}', "{}", {"flow"}),
    ],
)
def test_history_records_what_no_rule_records_as_finely(
    tmp_path: Path, history: str, report: str, own: set[str]
) -> None:
    (tmp_path / "gateway.yaml").write_text(SITE % (history, report))
    compiled = compile_site(load(tmp_path, kinds()))
    streams = history_streams(compiled.site, compiled.layouts)
    found = {
        (layout.points[column].tag, stream.lane)
        for stream in streams
        for layout, columns in stream.columns.items()
        for column in columns
    }
    assert {tag for tag, _lane in found} == own
    assert all((lane is Priority.ALARM) == (tag == "trip") for tag, lane in found)
    assert {stream.name for stream in streams} == {STREAM}
    is_scan = "on: scan" in history
    assert all((stream.policy.on is ReportOn.SCAN) == is_scan for stream in streams)


def test_the_plan_says_what_history_costs(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text(SITE % ("{keep: 10d, max: 1GB}", "{}"))
    [line, more] = history_lines(compile_site(load(tmp_path, kinds())))
    assert line.startswith("history: 3 of 3 points, kept 10d of running time within 1.0 GB")
    assert more.endswith(" 1 as published, 2 for history alone, at most 2.0 values/s more")
    (tmp_path / "gateway.yaml").write_text(SITE % ('{match: "*/speed"}', "{}"))
    [_, more] = history_lines(compile_site(load(tmp_path, kinds())))
    assert more.endswith("1 as published, none twice")


def test_without_the_section_nothing_is_recorded_for_history(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text((SITE % ("", "{}")).replace("journal: {history: }\n", ""))
    compiled = compile_site(load(tmp_path, kinds()))
    assert history_streams(compiled.site, compiled.layouts) == []
    assert history_lines(compiled) == []
