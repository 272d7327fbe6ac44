"""`gateway watch` against a real HTTP service in a thread of its own loop."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import socket
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from gateway.api.http import HttpServer
from gateway.app import watch as watching
from gateway.app.table import TableView
from gateway.app.watch import GatewayClient, NotAGateway, interrupted_by_sigterm, refresh, watch
from gateway.core.errors import LinkError
from tests.api.fake_source import FakeSource, point


@contextlib.contextmanager
def served(source: FakeSource) -> Iterator[str]:
    """An HTTP service on a free port for as long as the context lasts."""
    ready, stop = threading.Event(), asyncio.Event()
    found: dict[str, object] = {}

    async def main() -> None:
        server = HttpServer(source, host="127.0.0.1", port=0)
        await server.start()
        found["url"], found["loop"] = "http://{}:{}".format(*server.address), asyncio.get_running_loop()
        ready.set()
        await stop.wait()
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(10)
    try:
        yield str(found["url"])
    finally:
        found["loop"].call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]  # a loop
        thread.join(10)


def test_it_reads_points_status_and_health_over_one_connection() -> None:
    source = FakeSource()
    source.is_ok = False
    with served(source) as url:
        client = GatewayClient(url)
        assert client.points().points == source.point_list
        assert client.points(since=5).points == []
        assert client.status() == source.status_now
        assert client.health().reasons == ("journal: cannot write",), "503 is an answer too"
        client.close()
    assert source.asked_since == [0, 5]


def test_nothing_listens_and_the_message_says_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(LinkError, match=r"no gateway answers.*refused.*gateway run DIR") as error:
            watch(url)
    assert url in str(error.value)


def test_something_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(
            target=_answer_once, args=(server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        )
        thread.start()
        with pytest.raises(NotAGateway, match="not that of a gateway"):
            watch(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join(5)


def _answer_once(server: socket.socket, answer: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1", "https://127.0.0.1:1", "http://", "///x", "127.0.0.1:99999", "h:x", "http://[1"],
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(NotAGateway, match="expected an address such as"):
        GatewayClient(url)


def test_a_bare_host_and_port_is_an_address() -> None:
    assert GatewayClient("127.0.0.1:8080").url == "http://127.0.0.1:8080"


def test_without_a_terminal_it_prints_plain_lines() -> None:
    source = FakeSource()
    source.point_list = [point("a/x", 1.5, unit="bar", changed=1)]
    console = Console(file=io.StringIO(), width=80)
    with served(source) as url:
        assert watch(url, console=console, for_s=0.3) == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "  a/x 1.5 bar good\n" in text
    assert "\x1b" not in text


def test_on_a_terminal_it_leaves_the_screen_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=True)

    def interrupt(_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    with served(FakeSource()) as url:
        assert watch(url, console=console) == 0
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "\x1b[?1049h" in text
    assert text.rindex("\x1b[?1049l") > text.rindex("water_temp"), "back on the normal screen"
    assert "\x1b[?25h" in text, "the cursor is there again"


def test_a_gateway_that_goes_away_is_shown_and_found_again() -> None:
    source, view = FakeSource(), TableView()
    with served(source) as url:
        client = GatewayClient(url)
        assert refresh(view, client) == len(source.point_list)
    assert refresh(view, client) == 0
    assert view.plain_lines(limit=1)[0].startswith(url)
    client.close()


def test_sigterm_is_an_interrupt_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupted_by_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
