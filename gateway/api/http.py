"""The loopback HTTP service of a running gateway: health, metrics, points, status, history, frames of links.

h11 parses; this shell moves bytes, keeps time and enforces limits. It changes nothing of the plant. It makes
no tasks: a request is answered in the callback that completed it, or, where a disk must be read for it or the
answer is long work for a thread, in the callback that says that it was.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, urlsplit

import h11
import msgspec

from gateway.aio.threads import Worker
from gateway.api.history import HistorySource, QuestionError, answer_of, question_of
from gateway.api.http_frames import BadQuestion, frames, link_of
from gateway.api.metrics import Exposition
from gateway.api.source import StatusSource
from gateway.core.bounded import Bound, Level
from gateway.journal.historian import Page

_log = logging.getLogger("gateway.api")

CONNECTIONS_MAX: Final = 16
HEADER_BYTES_MAX: Final = 8192  # request line and header fields together
HEADER_TIMEOUT_S: Final = 5.0  # from a request's first byte to the end of its header, however it trickles
IDLE_TIMEOUT_S: Final = 30.0  # between requests, and for a peer that does not take its answer
CLOSE_TIMEOUT_S: Final = 0.5  # at the end, for answers that are on their way
WRITE_HIGH_BYTES: Final = 256 * 1024  # above it no further request of this connection is answered
CONNECTIONS: Final = Bound(
    noun="http_open",
    unit="connections",
    what="open connections of the HTTP service",
    beyond="the next one is answered 503",
    lost="refused",
)
_METHODS: Final = frozenset({b"GET", b"HEAD"})
_JSON: Final = "application/json"
FRAMES_PATH: Final = "/v1/links/NAME/frames"


class Response(msgspec.Struct, frozen=True):
    """Status code, body and content type."""

    code: int
    body: bytes
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """The body of every answer that is not 200: what was wrong and what to do."""

    error: str


class Pending:
    """An answer that comes later, on the event loop, unless it is given up."""

    def __init__(self, *, is_brief: bool = False) -> None:
        """`is_brief`: it comes soon, so that who only ended his own sending still gets it."""
        self.is_brief: Final = is_brief
        self._send: Callable[[Response], None] | None = None
        self._response: Response | None = None
        self.give_up: Callable[[], None] = lambda: None  # nobody waits for it any more

    def answer(self, response: Response) -> None:
        """Here it is."""
        if self._send is None:
            self._response = response
        else:
            self._send(response)

    def then(self, send: Callable[[Response], None]) -> None:
        """Call `send` with it, at once where it is there."""
        self._send = send
        if self._response is not None:
            send(self._response)


def refusal(code: int, error: str, *headers: tuple[str, str]) -> Response:
    """An answer that says no."""
    return Response(code, msgspec.json.encode(Refusal(error)), headers=headers)


class Routes:
    """Path → answer, from one source."""

    def __init__(self, source: StatusSource, history: HistorySource | None = None, *, worker: Worker) -> None:
        self._worker: Final = worker
        self._source: Final = source
        self._history_source: Final = history
        self._exposition: Final = Exposition(source)
        self._paths: Final[dict[str, Callable[[str, str], Response | Pending]]] = {
            "/healthz": self._health,
            "/metrics": self._metrics,
            "/v1/points": self._points,
            "/v1/status": self._status,
        }
        if history is not None:
            self._paths["/v1/history"] = self._history

    def answer(
        self, method: bytes, target: bytes, accept: str, *, is_local: bool = True
    ) -> Response | Pending:
        """The answer to one request; never raises. `is_local`: asked from this machine."""
        try:
            url = urlsplit(target.decode("ascii"))
        except ValueError:
            return refusal(400, "the request target is not a path")
        link = link_of(url.path)
        if method not in _METHODS and not (link is not None and method == b"PUT"):
            allowed = "GET, HEAD" if link is None else "GET, HEAD, PUT"
            expected = "GET" if link is None else "GET or PUT"
            return refusal(
                405,
                f"{method.decode('ascii')} is not served here, expected {expected}",
                ("Allow", allowed),
            )
        if link is not None:
            return self._frames(method, link, url.query, is_local=is_local)
        handler = self._paths.get(url.path)
        if handler is None:
            return refusal(404, f"nothing at {url.path}; there are {', '.join((*self._paths, FRAMES_PATH))}")
        try:
            return handler(url.query, accept)
        except Exception:  # noqa: BLE001 - a fault of one page must not stop the gateway; it is logged
            _log.exception("cannot answer a request", extra={"path": url.path})
            return refusal(500, f"{url.path} failed; the log of the gateway has the details")

    def _health(self, _query: str, _accept: str) -> Response:
        health = self._source.health()
        return Response(200 if health.ok else 503, msgspec.json.encode(health))

    def _metrics(self, _query: str, accept: str) -> Response:
        body, content_type = self._exposition.write(accept)
        return Response(200, body, content_type)

    def _points(self, query: str, _accept: str) -> Response | Pending:
        fields = parse_qs(query, keep_blank_values=True)
        unknown = sorted(set(fields) - {"since"})
        if unknown:
            return refusal(400, f"unknown parameter {unknown[0]!r}, expected since")
        text = fields.get("since", ["0"])[-1]
        if not text.isascii() or not text.isdigit() or len(text) > 19:
            return refusal(
                400, f"since: found {text!r}, expected the counter of an earlier answer, a whole number"
            )
        pending = Pending(is_brief=True)
        self._make_aside("/v1/points", self._source.points(int(text)), pending)
        return pending

    def _make_aside(self, path: str, make: Callable[[], object], pending: Pending) -> None:
        """Answer with what `make()` returns, worked out and encoded on the thread: it may be megabytes."""

        def failed(error: BaseException) -> None:
            _log.error("cannot answer a request", extra={"path": path}, exc_info=error)
            pending.answer(refusal(500, f"{path} failed; the log of the gateway has the details"))

        self._worker.submit(
            lambda: Response(200, msgspec.json.encode(make())), done=pending.answer, failed=failed
        )

    def _frames(self, method: bytes, link: str, query: str, *, is_local: bool) -> Response:
        if not is_local:
            return refusal(403, "the frames of a link are shown on the gateway itself only, at 127.0.0.1")
        try:
            return Response(200, frames(self._source, method=method, link=link, query=query))
        except BadQuestion as question:
            return refusal(question.code, question.error)
        except Exception:  # noqa: BLE001 - as above
            _log.exception("cannot show the frames of a link", extra={"link": link})
            return refusal(500, "the frames cannot be shown; the log of the gateway has the details")

    def _status(self, _query: str, _accept: str) -> Response:
        return Response(200, msgspec.json.encode(self._source.status()))

    def _history(self, query: str, _accept: str) -> Response | Pending:
        source = self._history_source
        assert source is not None
        try:
            question = question_of(query, source.wall_ns())
        except QuestionError as error:
            return refusal(400, str(error))
        pending = Pending()

        def done(page: Page) -> None:
            self._make_aside("/v1/history", lambda: answer_of(question, page), pending)

        def failed(code: int, reason: str) -> None:
            pending.answer(refusal(code, reason))

        give_up = source.ask(question, done=done, failed=failed)
        if give_up is None:
            return refusal(
                503, "enough questions about the past are at work, try again", ("Retry-After", "1")
            )
        pending.give_up = give_up
        return pending


class HttpServer:
    """Listens on one address. `start` binds, `close` ends every connection."""

    def __init__(
        self, source: StatusSource, *, host: str, port: int, history: HistorySource | None = None
    ) -> None:
        self._worker: Final = Worker("http")
        self._routes: Final = Routes(source, history, worker=self._worker)
        self._host: Final = host
        self._port: Final = port
        self._server: asyncio.Server | None = None
        self._connections: Final[set[_Connection]] = set()
        self.refused_total = 0  # connections above the limit

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (
            CONNECTIONS.at(len(self._connections), CONNECTIONS_MAX, self.refused_total),
            self._worker.level(CONNECTIONS_MAX),
        )

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the one the kernel gave when 0 was asked for."""
        if self._server is None:
            raise RuntimeError("the HTTP service is not started")
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    async def start(self) -> None:
        """Bind and listen; raises OSError when the address is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, self._host, self._port, backlog=CONNECTIONS_MAX)
        _log.info("HTTP service listens", extra={"address": "{}:{}".format(*self.address)})

    async def close(self) -> None:
        """Stop listening and end what is open; answers already written are sent where they are taken soon."""
        if self._server is None:
            return
        self._server.close()
        for connection in tuple(self._connections):
            connection.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._server.wait_closed()  # from Python 3.12 on also for connections
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.abort()
        self._worker.close()
        self._server = None

    def _accept(self) -> _Connection:
        is_full = len(self._connections) >= CONNECTIONS_MAX
        self.refused_total += is_full
        return _Connection(
            self._routes, self._connections, is_full=is_full, is_loopback=_is_loopback(self._host)
        )


class _Connection(asyncio.Protocol):
    """One client: bytes → requests → answers, in order, one at a time."""

    def __init__(
        self, routes: Routes, connections: set[_Connection], *, is_full: bool, is_loopback: bool
    ) -> None:
        self._routes = routes
        self._connections = connections
        self._is_full = is_full
        self._is_loopback = is_loopback
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEADER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_in_header = False
        self._is_paused = False
        self._request: h11.Request | None = None
        self._pending: Pending | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports only duck-type
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._connections.add(self)
        self._arm(IDLE_TIMEOUT_S)
        if self._is_full:
            self._connections.discard(self)  # it is on its way out and must not hold a place
            self._give_up(
                refusal(503, f"{CONNECTIONS_MAX} connections are open, try again", ("Retry-After", "1"))
            )

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._http.our_state is h11.MUST_CLOSE:
            return
        if self._pending is not None:
            self._http.receive_data(data)
            if len(self._http.trailing_data[0]) > HEADER_BYTES_MAX:
                self.abort()  # it talks on and on while it waits for an answer
            return
        if not self._is_in_header and self._http.their_state is h11.IDLE:
            self._is_in_header = True
            self._arm(HEADER_TIMEOUT_S)
        self._http.receive_data(data)
        self._work()

    def eof_received(self) -> bool:
        pending = self._pending
        if pending is not None and not pending.is_brief:
            return False  # who does not wait for the answer is gone
        self._http.receive_data(b"")
        self._work()
        return self._pending is not None  # half open until it is answered

    def pause_writing(self) -> None:
        self._is_paused = True
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._transport is not None:
            self._transport.resume_reading()
            self._arm(IDLE_TIMEOUT_S)
            self._work()

    def connection_lost(self, _exc: Exception | None) -> None:
        self._transport = None
        self._connections.discard(self)
        if self._pending is not None:
            self._pending.give_up()
        if self._timer is not None:
            self._timer.cancel()

    # Inside

    def close(self) -> None:
        """Close after what is written has gone out; an answer that is not there yet is given up."""
        if self._pending is not None:
            self._pending.give_up()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now, whatever was not taken."""
        if self._transport is not None:
            self._transport.abort()

    def _work(self) -> None:
        while self._transport is not None and not self._is_paused and self._pending is None:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                self._give_up(refusal(error.error_status_hint, str(error)))
                return
            if event is h11.NEED_DATA or event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._request = event
                if _header_size(event) > HEADER_BYTES_MAX:  # h11 limits only what is incomplete
                    self._give_up(refusal(431, f"header above {HEADER_BYTES_MAX} bytes"))
                    return
            elif isinstance(event, h11.Data):
                self._give_up(refusal(413, "requests with a body are not served here"))
                return
            elif isinstance(event, h11.EndOfMessage):
                self._reply()
            elif isinstance(event, h11.ConnectionClosed):
                self.close()
                return

    def _reply(self) -> None:
        request, self._request = self._request, None
        assert request is not None
        fields = {name: value.decode("latin-1") for name, value in request.headers}
        host = fields.get(b"host", "")
        response: Response | Pending
        if self._is_loopback and host and not _is_local_name(host):
            # A web page whose name was rebound to 127.0.0.1 must not read the plant through a browser.
            response = refusal(421, f"host {host!r} is not this service, expected localhost or an IP address")
        else:
            accept = fields.get(b"accept", "")
            is_local = self._is_peer_local()
            response = self._routes.answer(request.method, request.target, accept, is_local=is_local)
        is_head = request.method == b"HEAD"
        if isinstance(response, Pending):
            self._wait(response, is_head=is_head)
        else:
            self._finish(response, is_head=is_head)

    def _wait(self, pending: Pending, *, is_head: bool) -> None:
        """No more is read of this connection until it is answered; whoever answers keeps the time."""
        self._pending = pending
        if self._timer is not None:
            self._timer.cancel()

        def send(response: Response) -> None:
            self._pending = None
            if self._transport is not None:
                self._finish(response, is_head=is_head)
                self._work()

        pending.then(send)

    def _finish(self, response: Response, *, is_head: bool) -> None:
        self._send(response, is_head=is_head)
        if self._http.our_state is h11.MUST_CLOSE:
            self.close()
            return
        self._http.start_next_cycle()
        # What follows in the buffer is the next request's beginning: its time runs from here.
        self._is_in_header = bool(self._http.trailing_data[0])
        self._arm(HEADER_TIMEOUT_S if self._is_in_header else IDLE_TIMEOUT_S)

    def _is_peer_local(self) -> bool:
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return peer is not None and _is_loopback(peer[0])

    def _send(self, response: Response, *, is_head: bool = False, is_last: bool = False) -> None:
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            *response.headers,
        ]
        if is_last:
            headers.append(("Connection", "close"))
        parts = [
            self._http.send(
                h11.Response(
                    status_code=response.code, headers=headers, reason=HTTPStatus(response.code).phrase
                )
            ),
            b"" if is_head else self._http.send(h11.Data(data=response.body)),
            self._http.send(h11.EndOfMessage()),
        ]
        if self._transport is not None:
            self._transport.write(b"".join(part for part in parts if part))

    def _give_up(self, response: Response) -> None:
        """Say why, and close: what follows on this connection cannot be trusted."""
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._send(response, is_last=True)
        self.close()

    def _arm(self, timeout_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(timeout_s, self._on_timeout)

    def _on_timeout(self) -> None:
        if self._transport is None:
            return
        if self._is_in_header and not self._is_paused:
            self._give_up(refusal(408, f"the request was not complete within {HEADER_TIMEOUT_S:g} s"))
        else:
            self._transport.abort()


def _header_size(request: h11.Request) -> int:
    fields = sum(len(name) + len(value) + 4 for name, value in request.headers)
    return len(request.method) + len(request.target) + fields


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_local_name(host: str) -> bool:
    """Whether a Host field names this machine: localhost, or any IP address (which cannot be rebound)."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") and host.count(":") != 0 else host
    name = name.removeprefix("[").removesuffix("]")
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
