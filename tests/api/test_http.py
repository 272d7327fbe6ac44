"""The HTTP service: what it answers, and what it does with clients that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable

import h11
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.aio.threads import Worker
from gateway.api import http
from gateway.api.http import HttpServer
from gateway.api.source import Points, Status
from tests.api.fake_source import FakeSource, plant_status, point

Scenario = Callable[[HttpServer, FakeSource], Awaitable[None]]


def serve(scenario: Scenario, *, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run `scenario` against a server on a free port."""

    async def main() -> None:
        source = FakeSource()
        server = HttpServer(source, host="127.0.0.1", port=0)
        await server.start()
        try:
            async with asyncio.timeout(20):
                await scenario(server, source)
        finally:
            await server.close()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_a_client_that_takes_nothing_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http.Routes, "answer", lambda *_args, **_more: http.Response(200, bytes(32 << 20)))
    monkeypatch.setattr(http, "CLOSE_TIMEOUT_S", 0.05)
    aborted: list[object] = []
    monkeypatch.setattr(
        http._Connection, "abort", lambda connection: aborted.append(connection._transport.abort())
    )

    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(get("/v1/points"))
        await reader.read(1)
        assert server._server is not None

        async def wait_closed() -> None:
            """As Python 3.12 and later do: until the last connection is gone, which it never is here."""
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(server._server, "wait_closed", wait_closed)
        await server.close()
        assert len(aborted) == 1
        writer.transport.abort()

    serve(scenario)


async def talk(server: HttpServer, data: bytes, *, chunk: int | None = None, eof: bool = True) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection(*server.address)
    step = chunk or max(len(data), 1)
    for start in range(0, len(data), step):
        writer.write(data[start : start + step])
        await writer.drain()
    if eof:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def get(path: str, *, host: str = "localhost", method: str = "GET", more: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode()


def parse(data: bytes, *methods: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Answers in order, decoded by h11's client side."""
    answers = []
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    client.receive_data(b"")
    for method in methods or (b"GET",):
        client.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        body, head = b"", None
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                raise AssertionError(f"unexpected {event}")
        assert head is not None
        answers.append((head.status_code, dict(head.headers), body))
        if client.our_state is h11.DONE and client.their_state is h11.DONE:
            client.start_next_cycle()
    return answers


def test_healthz_says_200_or_503_with_reasons() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        code, _, body = parse(await talk(server, get("/healthz")))[0]
        assert (code, json.loads(body)) == (200, {"ok": True, "reasons": []})
        source.is_ok = False
        code, _, body = parse(await talk(server, get("/healthz")))[0]
        assert (code, json.loads(body)) == (503, {"ok": False, "reasons": ["journal: cannot write"]})

    serve(scenario)


def test_status_and_points_come_back_as_the_structs_they_were() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        code, headers, body = parse(await talk(server, get("/v1/status")))[0]
        assert (code, headers[b"content-type"]) == (200, b"application/json")
        assert msgspec.json.decode(body, type=Status) == source.status_now
        _, _, body = parse(await talk(server, get("/v1/points")))[0]
        assert msgspec.json.decode(body, type=Points).points == source.point_list

    serve(scenario)


def test_points_since_gives_what_changed() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        source.point_list = [point("a/x", 1, changed=4), point("a/y", 2, changed=5)]
        _, _, body = parse(await talk(server, get("/v1/points?since=4")))[0]
        assert [found.name for found in msgspec.json.decode(body, type=Points).points] == ["a/y"]
        assert source.asked_since == [4]

    serve(scenario)


@pytest.mark.parametrize(
    ("request_bytes", "code", "words"),
    [
        (get("/v1/points?since=-1"), 400, "since"),
        (get("/v1/points?since=1e3"), 400, "since"),
        (get("/v1/points?since="), 400, "since"),
        (get("/v1/points?sinec=1"), 400, "sinec"),
        (get("/nothing"), 404, "/v1/points"),
        (get("/v1/status", method="POST"), 405, "expected GET"),
        (get("/v1/status", method="DELETE"), 405, "expected GET"),
        (get("/v1/status", more="Content-Length: 3\r\n") + b"abc", 413, "body"),
        (get("/v1/status", host="evil.example"), 421, "evil.example"),
        (b"GET /v1/status HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET /v1/status\r\n\r\n", 400, ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: b\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400, ""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, ""),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, ""),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: " + b"x" * 9000, 431, ""),
    ],
)
def test_bad_requests_get_a_reason(request_bytes: bytes, code: int, words: str) -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        method = request_bytes.split(b" ")[0] if request_bytes[:1] == b"D" else b"GET"
        found, headers, body = parse(await talk(server, request_bytes), method)[0]
        assert found == code
        assert headers[b"content-type"] == b"application/json"
        assert words in json.loads(body)["error"]

    serve(scenario)


def test_a_request_arriving_byte_by_byte_is_answered() -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        assert parse(await talk(server, get("/healthz"), chunk=1))[0][0] == 200

    serve(scenario)


def test_pipelined_requests_are_answered_in_order_on_one_connection() -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        paths = ["/healthz", "/v1/points?since=1", "/nothing", "/v1/points?since=2", "/healthz"]
        sent = b"".join(get(path) for path in paths)
        answers = parse(await talk(server, sent), *[b"GET"] * len(paths))
        assert [code for code, _, _ in answers] == [200, 200, 404, 200, 200]
        assert b"ok" in answers[4][2]

    serve(scenario)


def test_head_has_the_headers_and_no_body() -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        code, headers, body = parse(await talk(server, get("/healthz", method="HEAD")), b"HEAD")[0]
        assert (code, headers[b"content-length"], body) == (200, b"24", b"")

    serve(scenario)


@pytest.mark.parametrize(
    "host", ["localhost:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:8080", "[::1]", "LOCALHOST"]
)
def test_names_of_this_machine_are_served(host: str) -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        assert parse(await talk(server, get("/healthz", host=host)))[0][0] == 200

    serve(scenario)


def test_a_slow_header_is_cut_however_it_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "HEADER_TIMEOUT_S", 0.2)

    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        reader, writer = await asyncio.open_connection(*server.address)
        quiet, other = await asyncio.open_connection(*server.address)
        loop = asyncio.get_running_loop()
        is_open = True

        def trickle() -> None:
            if is_open:
                writer.write(b"x")
                loop.call_later(0.02, trickle)

        writer.write(b"GET /")
        other.write(b"GET /")
        trickle()
        with contextlib.suppress(ConnectionError):  # what is written behind the end may cost the answer
            await reader.read()  # it never ends while a byte buys more time
        is_open = False
        assert parse(await quiet.read())[0][0] == 408
        writer.close()
        other.close()

    serve(scenario)


def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_TIMEOUT_S", 0.1)

    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        assert await talk(server, b"", eof=False) == b""
        answer = await talk(server, get("/healthz"), eof=False)
        assert parse(answer)[0][0] == 200, "answered first, then closed for idleness"

    serve(scenario)


def test_the_seventeenth_connection_is_told_so_and_the_others_are_served() -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        pairs = [await asyncio.open_connection(*server.address) for _ in range(http.CONNECTIONS_MAX)]
        for reader, writer in pairs:  # all are accepted once they answered
            writer.write(get("/healthz"))
            assert b"200" in await reader.readline()
        code, headers, _ = parse(await talk(server, b"", eof=False))[0]
        assert (code, headers[b"retry-after"]) == (503, b"1")
        assert server.refused_total == 1
        pairs[0][1].close()
        await pairs[0][1].wait_closed()
        while len(server._connections) == http.CONNECTIONS_MAX:  # noqa: ASYNC110 - has no event to wait for
            await asyncio.sleep(0)
        assert parse(await talk(server, get("/healthz")))[0][0] == 200
        for _, writer in pairs:
            writer.close()

    serve(scenario)


def test_a_client_that_does_not_read_is_not_answered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(http, "HEADER_TIMEOUT_S", 0.3)

    async def scenario(server: HttpServer, source: FakeSource) -> None:
        source.point_list = [point(f"d/{index}", "x" * 1000) for index in range(500)]
        reader, writer = await asyncio.open_connection(*server.address, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's own transport has it
        writer.write(get("/v1/points") * 200)
        while not source.asked_since:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        while server._connections:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        assert len(source.asked_since) < 100, "half a megabyte each must not pile up in memory"
        writer.transport.abort()
        del reader

    serve(scenario)


def test_a_fault_of_one_page_is_logged_and_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        source.fault = KeyError("links")
        with caplog.at_level(logging.ERROR, logger="gateway.api"):
            code, _, body = parse(await talk(server, get("/v1/status")))[0]
        assert (code, "/v1/status failed" in json.loads(body)["error"]) == (500, True)
        assert "KeyError: 'links'" in caplog.text
        assert parse(await talk(server, get("/healthz")))[0][0] == 200

    serve(scenario)


def test_close_ends_open_connections_and_frees_the_port() -> None:
    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        address = server.address
        reader, writer = await asyncio.open_connection(*address)
        writer.write(get("/healthz"))
        await reader.readline()
        await server.close()
        await reader.read()
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    serve(scenario)


def test_it_runs_on_uvloop_too() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def scenario(server: HttpServer, _source: FakeSource) -> None:
        sent = get("/healthz") + get("/v1/status")
        assert [code for code, _, _ in parse(await talk(server, sent), b"GET", b"GET")] == [200, 200]

    serve(scenario, loop_factory=uvloop.new_event_loop)


class _Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.written = bytearray()
        self.is_closed = False

    def set_write_buffer_limits(self, **_limits: int) -> None: ...

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close


PIECES = [b"GET ", b"/healthz", b" HTTP/1.1", b"\r\n", b"Host: ", b"localhost", b":", b"\x00"]


@settings(max_examples=150, deadline=None)
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.lists(
            st.sampled_from(
                [b"GET ", b"/healthz", b" HTTP/1.1", b"\r\n", b"Host: ", b"localhost", b":", b"\x00"]
            ),
            max_size=30,
        ).map(b"".join),
    ),
    cut=st.integers(1, 40),
)
def test_any_bytes_get_answers_or_a_close_and_nothing_else(data: bytes, cut: int) -> None:
    async def main() -> None:
        worker = Worker("http")
        routes, wire = http.Routes(FakeSource(), worker=worker), _Wire()
        connection = http._Connection(routes, set(), is_full=False, is_loopback=True)
        connection.connection_made(wire)  # type: ignore[arg-type]  # only what is used
        for start in range(0, len(data), cut):
            if not wire.is_closed:
                connection.data_received(data[start : start + cut])
        assert not wire.written or wire.written.startswith(b"HTTP/1.1 ")
        connection.connection_lost(None)
        worker.close()

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - what is looked at has no event
        await asyncio.sleep(0)


def test_long_work_holds_up_only_its_own_connection() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        source.points_may_be_made.clear()
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(get("/v1/points") + get("/healthz"))  # and a request behind it
        ((code, _, _),) = parse(await talk(server, get("/healthz", more="Connection: close\r\n")))
        assert code == 200, "another one is answered meanwhile"
        assert len(source.asked_since) == 1
        writer.write_eof()  # the answer comes all the same
        source.points_may_be_made.set()
        (first, second) = parse(await reader.read(), b"GET", b"GET")
        assert b'"epoch":3' in first[2]
        assert b'"ok":true' in second[2]
        writer.close()

    serve(scenario)


def test_who_does_not_wait_for_long_work_leaves_nothing_behind() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        source.points_may_be_made.clear()
        _reader, writer = await asyncio.open_connection(*server.address)
        writer.write(get("/v1/points"))
        await until(lambda: bool(source.asked_since))
        writer.transport.abort()
        source.points_may_be_made.set()
        await until(lambda: not server._connections)
        ((code, _, _),) = parse(await talk(server, get("/v1/points", more="Connection: close\r\n")))
        assert code == 200

    serve(scenario)


def test_a_fault_in_long_work_is_said() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        source.fault = KeyError("points")
        ((code, _, body),) = parse(await talk(server, get("/v1/points", more="Connection: close\r\n")))
        assert code == 500
        assert b"/v1/points failed" in body

    serve(scenario)


def test_the_fake_is_what_the_protocol_asks_for() -> None:
    assert plant_status().points.total == 17


# --- frames of a link ---------------------------------------------------------------------------------------


def asked(source: FakeSource, method: bytes, target: str, *, is_local: bool = True) -> tuple[int, object]:
    answer = http.Routes(source, worker=Worker("http")).answer(method, target.encode(), "", is_local=is_local)
    return answer.code, json.loads(answer.body)


def test_frames_of_a_link_are_kept_and_read() -> None:
    source = FakeSource()
    assert asked(source, b"PUT", "/v1/links/plc/frames?for=90s")[1]["watched_s"] == 90.0  # type: ignore[index]  # an object of JSON
    assert source.watched == {"plc": 90 * 10**9}
    code, body = asked(source, b"GET", "/v1/links/plc/frames?since=2")
    assert code == 200
    assert isinstance(body, dict)
    assert [frame["text"] for frame in body["frames"]] == ["frame 3"]
    asked(source, b"PUT", "/v1/links/plc/frames")
    assert source.watched == {"plc": 60 * 10**9}, "a minute, unless told"
    asked(source, b"PUT", "/v1/links/plc/frames?for=0s")
    assert source.watched == {"plc": 0}


@pytest.mark.parametrize(
    ("method", "target", "code", "words"),
    [
        (b"PUT", "/v1/links/nope/frames", 404, "no link 'nope'; /v1/status names them"),
        (b"GET", "/v1/links/a%20b/frames", 404, "'a b'"),
        (b"PUT", "/v1/links/plc/frames?for=11m", 400, "10m at most"),
        (b"PUT", "/v1/links/plc/frames?for=soon", 400, "such as 200ms"),
        (b"PUT", "/v1/links/plc/frames?since=1", 400, "unknown parameter 'since', expected for"),
        (b"GET", "/v1/links/plc/frames?for=1s", 400, "unknown parameter 'for', expected since"),
        (b"GET", "/v1/links/plc/frames?since=-1", 400, "found '-1'"),
        (b"POST", "/v1/links/plc/frames", 405, "expected GET or PUT"),
        (b"PUT", "/v1/status", 405, "expected GET"),
        (b"GET", "/v1/links//frames", 404, "/v1/links/NAME/frames"),
    ],
)
def test_frames_refused(method: bytes, target: str, code: int, words: str) -> None:
    found, body = asked(FakeSource(), method, target)
    assert found == code
    assert isinstance(body, dict)
    assert words in body["error"]


def test_frames_are_shown_on_this_machine_only() -> None:
    source = FakeSource()
    for method in (b"GET", b"PUT"):
        code, _ = asked(source, method, "/v1/links/plc/frames", is_local=False)
        assert code == 403
    assert source.watched == {"plc": 0}


def test_frames_over_a_connection() -> None:
    async def scenario(server: HttpServer, source: FakeSource) -> None:
        data = get("/v1/links/plc/frames?for=1s", method="PUT") + get("/v1/links/plc/frames?since=1")
        answers = parse(await talk(server, data), b"PUT", b"GET")
        assert [code for code, _, _ in answers] == [200, 200]
        assert len(json.loads(answers[1][2])["frames"]) == 2

    serve(scenario)
