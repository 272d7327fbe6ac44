"""`/v1/history`: the question in a query string, the answer as rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias
from urllib.parse import parse_qs

import msgspec

from gateway.api.moments import length_ns, moment_ns
from gateway.api.source import PlainValue, plain_value, rfc3339
from gateway.config.scalars import shown
from gateway.core.errors import GatewayError
from gateway.core.quality import describe, is_bad
from gateway.journal.buckets import Bucket
from gateway.journal.historian import LIMIT_MAX, Page, Question
from gateway.journal.samples import Gap, Sample
from gateway.translate.match import Match, check_match
from gateway.translate.payload import label_of

LIMIT_DEFAULT: Final = 1000
TAGS_MAX: Final = 100  # patterns in one question
_KEYS: Final = ("tag", "from", "to", "every", "limit", "after")
_FROM_DEFAULT: Final = "-1h"
_TICK_NS: Final = 1_000_000  # what an answer says of its times can be asked again


class ValueRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="value"):
    """One recorded value. `value` is null where the quality is bad."""

    name: str  # device/tag
    time: str
    time_origin: Literal["device", "gateway"]  # whose clock `time` is from
    time_quality: str = "good"
    value: PlainValue
    text: str | None = None  # the label of an enumerated value
    unit: str = ""
    quality: str
    received: str  # by our clock
    missing: int = 0  # values of the point taken out of the journal right before it, to save room
    e: int  # epoch and number: the order of recording, and what messages carry
    n: int


class GapRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="gap"):
    """Nothing is known of what was between these times; nothing is drawn across.

    `to` before `from`: the clock was set back, and that time was lived through twice.
    """

    reason: str
    from_: str = msgspec.field(name="from")
    to: str
    lane: str = ""  # of the journal, where it concerns only one


class SpanRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="span"):
    """Aggregates of one point over [from, to); see docs/history.md for what each one is."""

    name: str
    from_: str = msgspec.field(name="from")
    to: str
    unit: str = ""
    count: int  # good values recorded in it
    not_good: int  # others recorded in it
    min: float | None
    max: float | None
    mean: float | None
    first: PlainValue
    last: PlainValue
    good: float  # share of the time with a good value, 0 to 1


Row: TypeAlias = ValueRow | GapRow | SpanRow


class HistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One page. Ask again with `after` for the next one, and everything else the same; null at the end."""

    from_: str = msgspec.field(name="from")
    to: str
    every_s: float | None = None
    rows: list[Row]
    after: str | None


class HistorySource(Protocol):
    """Implemented by the running gateway. Called from the event loop, never blocks."""

    def wall_ns(self) -> int:
        """Its clock, for times such as `-2h`."""
        ...

    def ask(
        self, question: Question, *, done: Callable[[Page], None], failed: Callable[[int, str], None]
    ) -> Callable[[], None] | None:
        """Work it out aside and call exactly one of them, unless the returned function gives it up.

        `failed(code, reason)` has an HTTP status. None where as many as allowed are at work.
        """
        ...


class QuestionError(GatewayError):
    """What was asked is no question."""


def question_of(query: str, now_ns: int) -> Question:
    """Raises `QuestionError` with the parameter, what was found and what was expected."""
    fields = parse_qs(query, keep_blank_values=True)
    if unknown := sorted(set(fields) - set(_KEYS)):
        raise QuestionError(f"unknown parameter {shown(unknown[0])}, expected {', '.join(_KEYS)}")
    if twice := [key for key, values in fields.items() if key != "tag" and len(values) > 1]:
        raise QuestionError(f"{twice[0]}: found {len(fields[twice[0]])} of it, expected one")
    one = {key: values[0] for key, values in fields.items() if key != "tag"}
    return make_question(fields.get("tag", []), one, now_ns)


def make_question(tags: Sequence[str], words: Mapping[str, str], now_ns: int) -> Question:
    """From words as people write them, the times relative to `now_ns`. Raises `QuestionError`."""
    match = _match(tags)
    every = words.get("every", "")
    every_ns = _said("every", length_ns, every) if every else None
    if every_ns == 0:
        raise QuestionError(f"every: found {shown(every)}, expected a duration above 0")
    begin, end = words.get("from") or _FROM_DEFAULT, words.get("to") or "now"
    from_ns = _said("from", lambda text: moment_ns(text, now_ns), begin)
    to_ns = min(_said("to", lambda text: moment_ns(text, now_ns), end), now_ns)
    if every_ns and begin.strip().startswith("-"):
        from_ns -= from_ns % every_ns  # two hours by the minute begin at a full minute
    from_ns, to_ns = from_ns - from_ns % _TICK_NS, to_ns - to_ns % _TICK_NS
    if from_ns >= to_ns:
        raise QuestionError(
            f"from: found {rfc3339(from_ns)}, expected a time before {rfc3339(to_ns)} (to, at most now)"
        )
    limit = words.get("limit") or str(LIMIT_DEFAULT)
    if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 0 < int(limit) <= LIMIT_MAX):
        raise QuestionError(f"limit: found {shown(limit)}, expected a whole number from 1 to {LIMIT_MAX}")
    return Question(
        wanted=match.covers,
        from_ns=from_ns,
        to_ns=to_ns,
        every_ns=every_ns,
        limit=int(limit),
        after=words.get("after", ""),
    )


def answer_of(question: Question, page: Page) -> HistoryAnswer:
    """In words."""
    return HistoryAnswer(
        from_=rfc3339(question.from_ns),
        to=rfc3339(question.to_ns),
        every_s=None if question.every_ns is None else question.every_ns / 1e9,
        rows=[_row(row) for row in page.rows],
        after=page.after or None,
    )


def _said(key: str, parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise QuestionError(f"{key}: {error}") from None


def _match(tags: Sequence[str]) -> Match:
    if not tags or not all(tags):
        raise QuestionError("tag: found none, expected device/tag, such as pump-07/speed or pump-*/*")
    if len(tags) > TAGS_MAX:
        raise QuestionError(f"tag: found {len(tags)} of it, expected at most {TAGS_MAX}")
    if problems := check_match(tags):
        problem = problems[0]
        raise QuestionError(f"tag: found {problem.found}, expected {problem.expected}")
    return Match(tags)


def _row(row: Sample | Gap | Bucket) -> Row:
    if isinstance(row, Gap):
        return GapRow(reason=row.why.value, from_=rfc3339(row.from_ns), to=rfc3339(row.to_ns), lane=row.lane)
    if isinstance(row, Bucket):
        return SpanRow(
            name=row.point.name,
            from_=rfc3339(row.start_ns),
            to=rfc3339(row.end_ns),
            unit=row.point.unit,
            count=row.count,
            not_good=row.not_good,
            min=row.minimum,
            max=row.maximum,
            mean=row.mean,
            first=plain_value(row.first),
            last=plain_value(row.last),
            good=round(row.good, 6),
        )
    value = None if is_bad(row.quality) else plain_value(row.value)
    return ValueRow(
        name=row.point.name,
        time=rfc3339(row.time_ns),
        time_origin="device" if row.is_device_time else "gateway",
        time_quality=describe(row.time_quality),
        value=value,
        text=label_of(row.point, value),
        unit=row.point.unit,
        quality=describe(row.quality),
        received=rfc3339(row.received_ns),
        missing=row.missing,
        e=row.key[0],
        n=row.key[1],
    )
