"""How `gateway history` shows rows: a table for people, CSV and JSON lines for programs."""

from __future__ import annotations

import csv
import datetime
import sys
from collections.abc import Iterator
from typing import Final, TextIO

import msgspec
from rich.console import Console
from rich.text import Text

from gateway.api.history import GapRow, HistoryAnswer, Row, SpanRow, ValueRow
from gateway.api.source import PlainValue
from gateway.app.table import duration

_VALUE_COLUMNS: Final = (
    "kind", "name", "time", "time_origin", "time_quality", "value", "text", "unit", "quality", "received",
    "missing", "e", "n", "from", "to", "reason",
)  # fmt: skip
_SPAN_COLUMNS: Final = (
    "kind", "name", "from", "to", "unit", "count", "not_good", "min", "max", "mean", "first", "last", "good",
)  # fmt: skip
_NAME_WIDTH_MAX: Final = 28
_SPAN_NAME_WIDTH_MAX: Final = 18
_NUMBER_WIDTH: Final = 10


def write_csv(pages: Iterator[HistoryAnswer], rows_max: int | None, out: TextIO) -> int:
    """A line for each row under a line of names; how many that are no gaps."""
    writer: csv.DictWriter[str] | None = None
    count = 0
    for answer, row in _limited(pages, rows_max):
        if writer is None:
            columns = _VALUE_COLUMNS if answer.every_s is None else _SPAN_COLUMNS
            writer = csv.DictWriter(out, columns, lineterminator="\n")
            writer.writeheader()
        said = msgspec.to_builtins(row)
        writer.writerow({key: _cell(said.get(key)) for key in writer.fieldnames})
        count += not isinstance(row, GapRow)
    return count


def write_jsonl(pages: Iterator[HistoryAnswer], rows_max: int | None, out: TextIO) -> int:
    """A JSON object for each row; how many that are no gaps."""
    count = 0
    for _answer, row in _limited(pages, rows_max):
        out.write(msgspec.json.encode(row).decode() + "\n")
        count += not isinstance(row, GapRow)
    return count


def write_table(pages: Iterator[HistoryAnswer], rows_max: int | None, console: Console) -> int:
    """Lines of this machine's time, as they come; how many rows that are no gaps."""
    table = _Lines(console)
    count = 0
    for answer, row in _limited(pages, rows_max):
        table.show(answer, row)
        count += not isinstance(row, GapRow)
    return count


class _Lines:
    """Keeps what is the same in all lines out of them: the day, and the tag where there is one."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._day = ""
        self._name = ""
        self._width = 0

    def show(self, answer: HistoryAnswer, row: Row) -> None:
        if not self._width:
            names = {one.name for one in answer.rows if not isinstance(one, GapRow)}
            is_spans = answer.every_s is not None
            most = _SPAN_NAME_WIDTH_MAX if is_spans else _NAME_WIDTH_MAX
            self._width = min(max(map(len, names), default=8), most)
            if is_spans:
                numbers = "".join(f" {title:>{_NUMBER_WIDTH}}" for title in ("mean", "min", "max"))
                self._print(Text(f"{'time':<13}{'tag':<{self._width}}{numbers}  count  good", style="bold"))
        moment = _local(row.time if isinstance(row, ValueRow) else row.from_)
        day = f"{moment:%A, %Y-%m-%d %Z}"
        if day != self._day:
            self._day = day
            self._print(Text(day, style="dim"))
        if isinstance(row, GapRow):
            self._print(Text(f"{_clock(moment)} ── {_gap(row)} ──", style="yellow"))
        elif isinstance(row, SpanRow):
            self._print(self._span(moment, row))
        else:
            self._print(self._value(moment, row))

    def _value(self, moment: datetime.datetime, row: ValueRow) -> Text:
        text = Text.assemble((_clock(moment), ""), " ", (_fit(row.name, self._width), "bold"), " ")
        shown = row.text or _shown(row.value)
        text.append(f"{shown:>{_NUMBER_WIDTH}} {row.unit}".rstrip())
        if row.quality != "good":
            text.append(f"  {row.quality}", style="bold red" if row.quality.startswith("bad") else "yellow")
        if row.time_quality != "good":
            text.append(f"  time {row.time_quality}", style="yellow")
        if row.missing:
            text.append(f"  {row.missing} before thinned out", style="yellow")
        if row.time_origin == "device":
            text.append("  device's time", style="dim")
        return text

    def _span(self, moment: datetime.datetime, row: SpanRow) -> Text:
        numbers = "".join(f" {_short(number):>{_NUMBER_WIDTH}}" for number in (row.mean, row.min, row.max))
        share = f"{row.good:.0%}" if row.good in {0.0, 1.0} else f"{min(max(row.good, 0.001), 0.999):.1%}"
        style = "" if row.good == 1.0 else "yellow" if row.good else "dim"
        line = f"{_clock(moment)} {_fit(row.name, self._width)}{numbers}{row.count:>7}{share:>6} {row.unit}"
        return Text(line.rstrip(), style=style)

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


def _limited(pages: Iterator[HistoryAnswer], rows_max: int | None) -> Iterator[tuple[HistoryAnswer, Row]]:
    count = 0
    for answer in pages:
        for row in answer.rows:
            if count == rows_max:
                print(f"the first {count} rows; --limit asks for more", file=sys.stderr)
                return
            yield answer, row
            count += 1


def _gap(row: GapRow) -> str:
    begin, end = _local(row.from_), _local(row.to)
    seconds = (end - begin).total_seconds()
    if seconds < 0:
        return f"{row.reason}: back by {duration(-seconds)}, to {_clock(end)}"
    where = f" (lane {row.lane})" if row.lane else ""
    if not seconds:
        return f"{row.reason}{where}, nobody knows how long: the clock was set meanwhile"
    return f"{row.reason}{where}: {duration(seconds)}, until {_clock(end)}"


def _local(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).astimezone()


def _clock(moment: datetime.datetime) -> str:
    return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"


def _fit(name: str, width: int) -> str:
    return f"{name:<{width}}" if len(name) <= width else f"…{name[-width + 1 :]}"


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.5g}"


def _shown(value: PlainValue) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return value
