"""`gateway watch`: the live table of a running gateway, read from its HTTP service."""

from __future__ import annotations

import contextlib
import http.client
import signal
import time
from collections.abc import Iterator
from typing import Final, Protocol, TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from rich.console import Console
from rich.live import Live

from gateway.api.http import Refusal
from gateway.api.source import Frames, Health, Points, Status
from gateway.app.table import TableView, glyphs_for
from gateway.core.errors import GatewayError, LinkError

DEFAULT_URL: Final = "http://127.0.0.1:8080"
ANSWER_TIMEOUT_S: Final = 2.0
ANSWER_BYTES_MAX: Final = 64 << 20
LOOK_S: Final = 0.25
POINTS_PER_S_MAX: Final = 4000  # asked of the gateway: 10,000 points are looked at every 2.5 s
PLAIN_INTERVAL_S: Final = 5.0
PLAIN_LINES_MAX: Final = 40

T = TypeVar("T")


class NotAGateway(GatewayError):
    """Something answers at that address, but not a gateway."""


def open_connection(url: str, *, timeout_s: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection that opens with its first request, and the address as it was understood.

    Raises `NotAGateway` when `url` is not an http address.
    """
    try:
        parts = urlsplit(url if "//" in url else f"//{url}", scheme="http")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port or an IPv6 address that is none
        host, port = None, None
    if not host or parts.scheme != "http":
        raise NotAGateway(f"found {url!r}, expected an address such as {DEFAULT_URL}")
    return http.client.HTTPConnection(host, port or 80, timeout=timeout_s), f"http://{parts.netloc}"


class GatewayClient:
    """Reads the HTTP service of one gateway over one kept connection."""

    def __init__(self, url: str) -> None:
        """Raises `NotAGateway` when `url` is not an http address."""
        self._connection, self.url = open_connection(url, timeout_s=ANSWER_TIMEOUT_S)

    def points(self, *, since: int = 0) -> Points:
        """`/v1/points`; raises `LinkError`, `NotAGateway`."""
        return self._get(f"/v1/points?since={since}" if since else "/v1/points", Points)

    def status(self) -> Status:
        """`/v1/status`; raises `LinkError`, `NotAGateway`."""
        return self._get("/v1/status", Status)

    def health(self) -> Health:
        """`/healthz`, whatever its code; raises `LinkError`, `NotAGateway`."""
        return self._get("/healthz", Health)

    def frames(self, link: str, *, since: int) -> Frames:
        """`/v1/links/NAME/frames`; raises `LinkError`, `NotAGateway`."""
        return self._get(f"/v1/links/{quote(link, safe='')}/frames?since={since}", Frames)

    def watch_frames(self, link: str, *, for_s: float) -> Frames:
        """Have frames kept for so long; raises `LinkError`, `NotAGateway`."""
        path = f"/v1/links/{quote(link, safe='')}/frames?for={for_s:g}s"
        return self._get(path, Frames, method="PUT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _get(self, path: str, kind: type[T], *, method: str = "GET") -> T:
        try:
            code, body = self._ask(path, method)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise LinkError(f"{self.url}{path}: {reason}") from error
        if code != 200 and kind is not Health:
            raise NotAGateway(f"{self.url}{path}: answered {code}, expected 200: {_reason(body)}")
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise NotAGateway(f"{self.url}{path}: the answer is not that of a gateway: {error}") from error

    def _ask(self, path: str, method: str) -> tuple[int, bytes]:
        try:
            return self._ask_once(path, method)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self._connection.close()  # a kept connection may have been closed while idle: once more, afresh
            return self._ask_once(path, method)

    def _ask_once(self, path: str, method: str) -> tuple[int, bytes]:
        self._connection.request(method, path)
        response = self._connection.getresponse()
        return response.status, response.read(ANSWER_BYTES_MAX)


def _reason(body: bytes) -> str:
    """What a gateway says in a refusal; else what came, shortened."""
    try:
        return msgspec.json.decode(body, type=Refusal).error
    except msgspec.DecodeError:
        return repr(body[:200])


class Screen(Protocol):
    """Where a `TableView` is shown."""

    def show(self, view: TableView) -> None:
        """Draw it now."""
        ...


class _LiveScreen:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, view: TableView) -> None:
        self._live.update(view, refresh=True)


class _PlainScreen:
    """For pipes and files: what changed, at intervals, one line each."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next_ns = 0

    def show(self, view: TableView) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + int(PLAIN_INTERVAL_S * 1e9)
        for line in view.plain_lines(limit=PLAIN_LINES_MAX):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def open_screen(console: Console) -> Iterator[Screen]:
    """The whole terminal for as long as the context lasts, or plain lines where there is no terminal."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield _PlainScreen(console)
        return
    with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
        yield _LiveScreen(live)


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that everything is cleaned up behind it."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refresh(view: TableView, client: GatewayClient) -> int:
    """Read everything once into `view`; how many points there are, 0 when the gateway did not answer."""
    try:
        points, status = client.points(), client.status()
    except LinkError as error:
        view.lose(str(error), now_ns=time.monotonic_ns())
        return 0
    view.update(points=points, status=status, now_ns=time.monotonic_ns())
    return len(points.points)


def watch(url: str = DEFAULT_URL, *, console: Console | None = None, for_s: float | None = None) -> int:
    """Show the gateway at `url` until Ctrl-C, SIGTERM, or for `for_s` seconds. Returns the exit code.

    Raises `LinkError` with what to do when nothing listens there, `NotAGateway` when something else does.
    """
    console = console or Console()
    client = GatewayClient(url)
    try:
        client.status()
    except LinkError as error:
        raise LinkError(
            f"no gateway answers: {error}. `gateway run DIR` starts one, listening where `http:` in its "
            "configuration says; `gateway watch --url http://HOST:PORT` looks there"
        ) from error
    except NotAGateway:
        client.close()
        raise
    view = TableView(glyphs=glyphs_for(console))
    ends_ns = None if for_s is None else time.monotonic_ns() + int(for_s * 1e9)
    try:
        with interrupted_by_sigterm(), open_screen(console) as screen:
            while ends_ns is None or time.monotonic_ns() < ends_ns:
                points = refresh(view, client)
                screen.show(view)
                time.sleep(max(LOOK_S, points / POINTS_PER_S_MAX))
    except KeyboardInterrupt:
        pass
    finally:
        client.close()
    return 0
