"""Questions about the past over HTTP: what is understood, what is refused, and answers that come later."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.history import HistoryAnswer, QuestionError, SpanRow, answer_of, question_of
from gateway.api.http import HttpServer
from gateway.api.moments import moment_ns
from gateway.core.point import Point, Value, ValueType
from gateway.core.quality import BAD, COMM_LOST, GOOD
from gateway.journal.buckets import Spans, Track
from gateway.journal.historian import Page, Question
from gateway.journal.samples import Gap, Sample, Why
from tests.api.fake_source import FakeSource

S = 1_000_000_000
NOW_NS = 1_777_636_800 * S  # 2026-05-01T12:00:00Z
POINT = Point(device="pump", tag="state", type=ValueType.INT, unit="", labels=((1, "auto"),))


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "offset_s"),
    [
        ("now", 0), ("-2h", -7200), ("-1.5m", -90), ("2026-05-01T12:00:00Z", 0),
        ("2026-05-01T12:00:00.250Z", 0.25), ("2026-05-01T14:00:00+02:00", 0),
        ("2026-05-01T14:00:00 02:00", 0), ("2026-05-01T14:00", 0), ("2026-05-01 14:00:30", 30),
        ("2026-05-01", -14 * 3600), ("2026-01-01", -10_414_800), ("20260501T140000", 0),
    ],
)  # fmt: skip
def test_times_are_understood_as_people_write_them(text: str, offset_s: float) -> None:
    assert moment_ns(text, NOW_NS) == NOW_NS + round(offset_s * S)


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_is_refused_with_words(text: str) -> None:
    try:
        moment_ns(text, NOW_NS)
    except ValueError as error:
        assert "expected" in str(error)  # noqa: PT017 - either way is right


@given(st.text(max_size=80))
def test_any_query_is_a_question_or_is_refused_with_words(text: str) -> None:
    try:
        question_of(f"tag=a/b&{text}", NOW_NS)
    except QuestionError as error:
        assert "expected" in str(error)  # noqa: PT017 - either way is right


def test_a_question_in_full() -> None:
    question = question_of(
        "tag=pump-*/speed&tag=!pump-7/*&from=-2h&to=-1h&every=1m&limit=50&after=7", NOW_NS + 5 * S
    )
    assert question.wanted("pump-1", "speed")
    assert not question.wanted("pump-7", "speed")
    assert question.from_ns == NOW_NS - 7200 * S  # a full minute
    assert question.to_ns == NOW_NS - 3595 * S
    assert (question.every_ns, question.limit, question.after) == (60 * S, 50, "7")


def test_the_future_is_not_asked_for() -> None:
    assert question_of("tag=a/b&to=2027-01-01", NOW_NS).to_ns == NOW_NS


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "tag: found none, expected device/tag"),
        ("tag=pump", "tag: found 'pump', expected device/tag with one slash"),
        ("tag=!a/b", "at least one, for example '*/*'"),
        ("tag=a/b&from=tuesday", "from: found 'tuesday', expected a time such as now, -2h"),
        ("tag=a/b&from=-2", "from: found '2', expected a duration with its unit"),
        ("tag=a/b&from=-1h&to=-2h", "from: found 2026-05-01T11:00:00.000Z, expected a time before 2026"),
        ("tag=a/b&every=0s", "every: found '0s', expected a duration above 0"),
        ("tag=a/b&limit=10001", "limit: found '10001', expected a whole number from 1 to 10000"),
        ("tag=a/b&limit=x&limit=3", "limit: found 2 of it, expected one"),
        ("tag=a/b&window=3", "unknown parameter 'window', expected tag, from, to, every, limit, after"),
        ("&".join(["tag=a/b"] * 101), "tag: found 101 of it, expected at most 100"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(query: str, said: str) -> None:
    with pytest.raises(QuestionError) as caught:
        question_of(query, NOW_NS)
    assert said in str(caught.value)


def sample(value: object, quality: int = GOOD) -> Sample:
    return Sample(
        key=(5, 9, 0), point=POINT, time_ns=NOW_NS, is_device_time=True, received_ns=NOW_NS + S,
        monotonic_ns=1, value=value, quality=quality, time_quality=0, missing=3,  # type: ignore[arg-type]  # as drawn
    )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "low", "high", "mean"),
    [
        ((False, True), 0, 1, 0.5), ((3, 5), 3, 5, 4), ((1.5, 2.5), 1.5, 2.5, 2),
        (("a", "b"), None, None, None), ((math.nan, 2.0), 2, 2, 2),
        ((2**53 + 1, 2**53 + 3), 2**53 + 1, 2**53 + 3, 2.0**53 + 2),
    ],
)  # fmt: skip
def test_aggregates_of_values_of_every_type_are_answers(
    values: tuple[Value, Value], low: float | None, high: float | None, mean: float | None
) -> None:
    track = Track(Spans(NOW_NS, NOW_NS + 2 * S, 2 * S), POINT)
    for number, value in enumerate(values):
        at_ns = NOW_NS + number * S
        track.take(
            Sample(
                key=(1, number, 0), point=POINT, time_ns=at_ns, is_device_time=False, received_ns=at_ns,
                monotonic_ns=0, value=value, quality=GOOD, time_quality=GOOD,
            )
        )  # fmt: skip
    track.hold_until(NOW_NS + 2 * S)
    bucket = track.bucket(0)
    assert (bucket.minimum, bucket.maximum, bucket.count) == (low, high, 2)
    question = question_of("tag=pump/state&from=-1h&every=2s", NOW_NS)
    body = msgspec.json.encode(answer_of(question, Page(rows=[bucket], after="")))
    (row,) = msgspec.json.decode(body, type=HistoryAnswer).rows
    assert isinstance(row, SpanRow)
    assert row.min == (None if low is None else float(low))
    assert row.mean == (None if mean is None else pytest.approx(mean))


def test_quality_and_origin_of_time_travel_with_each_value_and_gaps_are_gaps() -> None:
    question = question_of("tag=pump/state&from=-1h", NOW_NS)
    gap = Gap(key=(5, 10, -1), from_ns=NOW_NS, to_ns=NOW_NS + 60 * S, why=Why.OFF)
    answer = answer_of(question, Page(rows=[sample(1), sample(1, BAD | COMM_LOST), gap], after="5-9-2"))
    said = msgspec.json.decode(msgspec.json.encode(answer))
    assert said["after"] == "5-9-2"
    assert said["rows"][0] == {
        "kind": "value", "name": "pump/state", "time": "2026-05-01T12:00:00.000Z", "time_origin": "device",
        "time_quality": "good", "value": 1, "text": "auto", "unit": "", "quality": "good",
        "received": "2026-05-01T12:00:01.000Z", "missing": 3, "e": 5, "n": 9,
    }  # fmt: skip
    assert (said["rows"][1]["value"], said["rows"][1]["quality"]) == (None, "bad/comm-lost")
    assert said["rows"][2]["reason"] == "the gateway was not running"
    assert msgspec.json.decode(msgspec.json.encode(answer), type=HistoryAnswer) == answer


# Over the wire


class Oracle:
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Question, Callable[[Page], None], Callable[[int, str], None]]] = []
        self.given_up = 0
        self.is_busy = False
        self._change = asyncio.Event()

    async def changed(self, until: Callable[[], bool]) -> None:
        """Once it is so."""
        while not until():
            self._change.clear()
            await self._change.wait()

    def wall_ns(self) -> int:
        return NOW_NS

    def ask(
        self, question: Question, *, done: Callable[[Page], None], failed: Callable[[int, str], None]
    ) -> Callable[[], None] | None:
        if self.is_busy:
            return None
        self.asked.append((question, done, failed))
        self._change.set()

        def give_up() -> None:
            self.given_up += 1
            self._change.set()

        return give_up


def serve(scenario: Callable[[HttpServer, Oracle], Awaitable[None]]) -> None:
    async def main() -> None:
        oracle = Oracle()
        server = HttpServer(FakeSource(), host="127.0.0.1", port=0, history=oracle)
        await server.start()
        try:
            async with asyncio.timeout(20):
                await scenario(server, oracle)
        finally:
            await server.close()

    asyncio.run(main())


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def asked(oracle: Oracle, count: int) -> None:
    await oracle.changed(lambda: len(oracle.asked) >= count)


def test_an_answer_comes_when_it_is_there_and_requests_behind_it_wait_their_turn() -> None:
    async def scenario(server: HttpServer, oracle: Oracle) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/v1/history?tag=a/b") + request("/healthz"))
        await asked(oracle, 1)
        writer.write(request("/v1/history?tag=c/d"))
        await writer.drain()
        oracle.asked[0][1](Page(rows=[sample(1)], after=""))
        await asked(oracle, 2)
        oracle.asked[1][2](500, "the disk says no")
        said = b""
        while said.count(b"HTTP/1.1 ") < 3 or not said.endswith(b"}"):
            said += await reader.read(65536)
        assert [said.find(text) for text in (b'"pump/state"', b'"ok"', b"the disk says no")] == sorted(
            said.find(text) for text in (b'"pump/state"', b'"ok"', b"the disk says no")
        )
        assert said.count(b"HTTP/1.1 200") == 2
        assert said.count(b"HTTP/1.1 500") == 1
        writer.close()

    serve(scenario)


def test_a_page_is_put_into_words_beside_the_loop_and_what_fails_there_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> HistoryAnswer:
        assert threading.current_thread() is not threading.main_thread()
        raise RuntimeError("no words")

    monkeypatch.setattr("gateway.api.http.answer_of", fail)

    async def scenario(server: HttpServer, oracle: Oracle) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/v1/history?tag=a/b"))
        await asked(oracle, 1)
        oracle.asked[0][1](Page(rows=[], after=""))
        assert b"500" in await reader.readline()
        writer.close()

    serve(scenario)
    assert [str(one.exc_info[1]) for one in caplog.records if one.exc_info] == ["no words"]


def test_who_waits_when_the_service_ends_is_given_up() -> None:
    async def scenario(server: HttpServer, oracle: Oracle) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/v1/history?tag=a/b"))
        await asked(oracle, 1)
        closing = asyncio.ensure_future(server.close())
        await asyncio.sleep(0)
        assert oracle.given_up
        await closing
        assert not await reader.read()
        writer.close()

    serve(scenario)


def test_nobody_is_waited_for_who_has_gone() -> None:
    async def scenario(server: HttpServer, oracle: Oracle) -> None:
        _, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/v1/history?tag=a/b"))
        await asked(oracle, 1)
        writer.transport.abort()
        await oracle.changed(lambda: oracle.given_up == 1)
        oracle.asked[0][1](Page(rows=[], after=""))  # too late: nothing happens

    serve(scenario)


def test_too_many_at_once_are_refused_and_nonsense_is_not_even_asked() -> None:
    async def scenario(server: HttpServer, oracle: Oracle) -> None:
        oracle.is_busy = True
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/v1/history?tag=a/b") + request("/v1/history"))
        writer.write_eof()
        said = await reader.read()
        assert b"HTTP/1.1 503" in said
        assert b"Retry-After: 1" in said
        assert b"HTTP/1.1 400" in said
        assert not oracle.asked
        writer.close()

    serve(scenario)


def test_who_talks_on_and_on_while_waiting_is_cut_off() -> None:
    async def scenario(server: HttpServer, oracle: Oracle) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(request("/v1/history?tag=a/b"))
        await asked(oracle, 1)
        writer.write(bytes(100_000))
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            assert await reader.read() == b""
        await oracle.changed(lambda: oracle.given_up == 1)
        writer.close()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await writer.wait_closed()

    serve(scenario)
