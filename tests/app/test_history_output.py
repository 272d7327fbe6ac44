"""What `gateway history` prints: fits a terminal, and programs can read it."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest
from rich.console import Console

from gateway.api.history import GapRow, HistoryAnswer, Row, SpanRow, ValueRow
from gateway.app.history_output import write_csv, write_jsonl, write_table

FROM, TO = "2026-05-01T10:00:00.000Z", "2026-05-01T12:00:00.000Z"
LATER = "2026-05-01T10:05:00.000Z"


def value(second: int, number: object, **more: object) -> ValueRow:
    words: dict[str, object] = {
        "name": "pump-07-in-a-hall-far-away/speed-of-the-first-motor", "time_origin": "gateway",
        "quality": "good",
        "time": f"2026-05-01T10:00:{second:02d}.500Z", "received": FROM, "value": number, "unit": "rpm",
        "e": 7, "n": second,
    }  # fmt: skip
    return ValueRow(**(words | more))  # type: ignore[arg-type]  # by name


ROWS: list[Row] = [
    value(0, 1499.98765),
    value(1, None, quality="bad/comm-lost"),
    GapRow(reason="the gateway was not running", from_="2026-05-01T10:00:02.000Z", to=LATER),
    GapRow(reason="the gateway's clock was set", from_=LATER, to="2026-05-01T09:00:00.000Z"),
    GapRow(reason="the gateway was not running", from_=FROM, to=FROM),
    value(3, 1, text="running", missing=12),
    value(4, True, time_origin="device", time_quality="uncertain/clock-not-synchronised"),
]  # fmt: skip
SPAN = SpanRow(
    name="pump/speed", from_=FROM, to=TO, unit="rpm", count=3, not_good=1, min=-1.5, max=1234567.0, mean=3.3,
    first=1, last=2, good=0.99999,
)  # fmt: skip


def pages(*groups: list[Row], every_s: float | None = None) -> list[HistoryAnswer]:
    return [
        HistoryAnswer(from_=FROM, to=TO, every_s=every_s, rows=group, after=None if last else "x")
        for last, group in ((number == len(groups), group) for number, group in enumerate(groups, 1))
    ]


def table(answers: list[HistoryAnswer], limit: int = 1000) -> list[str]:
    out = io.StringIO()
    write_table(iter(answers), limit, Console(file=out, width=80))
    return out.getvalue().splitlines()


def test_the_table_says_everything_and_values_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    lines = table(pages(ROWS[:4], ROWS[4:]))
    text = "\n".join(lines)
    for word in (
        "2026-05-01", "10:00:00.500", "1499.99 rpm", "bad/comm-lost", "running: 5 min, until 10:05:00.000",
        "back by 65 min, to 09:00:00.000", "nobody knows how long", "running rpm", "12 before thinned out",
        "time uncertain/clock-not-synchronised", "device's time",
    ):  # fmt: skip
        assert word in text
    assert max(len(line) for line in lines if "clock" not in line) <= 80


def test_spans_fit_too_and_a_share_that_is_not_whole_is_not_shown_as_whole() -> None:
    lines = table(
        pages([SPAN, msgspec.structs.replace(SPAN, good=0.0, mean=None, min=None, max=None)], every_s=60)
    )
    assert lines[0].split() == ["time", "tag", "mean", "min", "max", "count", "good"]
    assert lines[2].split()[1:] == ["pump/speed", "3.3", "-1.5", "1.2346e+06", "3", "99.9%", "rpm"]
    assert lines[3].split()[2:] == ["-", "-", "-", "3", "0%", "rpm"]
    assert max(map(len, lines)) <= 80


def test_programs_get_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    assert write_jsonl(iter(pages(ROWS)), None, out) == 4
    assert [json.loads(line)["kind"] for line in out.getvalue().splitlines()] == [
        "value", "value", "gap", "gap", "gap", "value", "value",
    ]  # fmt: skip
    out = io.StringIO()
    assert write_csv(iter(pages(ROWS)), 4, out) == 2
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["value"] for row in rows] == ["1499.98765", "", "", ""]
    assert rows[2]["reason"] == "the gateway was not running"
    assert set(rows[0]) >= set(msgspec.to_builtins(ROWS[0]))
    assert set(rows[0]) >= set(msgspec.to_builtins(ROWS[2])) - {"lane"}
    assert "the first 4 rows; --limit asks for more" in capsys.readouterr().err
    out = io.StringIO()
    write_csv(iter(pages([SPAN], every_s=60)), None, out)
    [row] = csv.DictReader(io.StringIO(out.getvalue()))
    assert set(row) == set(msgspec.to_builtins(SPAN))
    assert (row["max"], row["good"]) == ("1234567.0", "0.99999")
