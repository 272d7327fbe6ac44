"""The server end: who is let in, who is refused and by what name, and that one peer harms no other."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Backoff
from gateway.aio.listener import Connection, Full, Limits, Listener, Over, Refusal
from gateway.aio.loop import loop_factory
from gateway.aio.pump import Owner
from gateway.aio.tls import TlsFault, TlsFiles, client_context, server_context
from gateway.core.errors import InvariantError
from tests.aio.memory import until
from tests.aio.talk import Listener as Told
from tests.aio.talk import Talk
from tests.certificates import Authority
from tests.peers import require

LOOPS = pytest.mark.parametrize("factory", [asyncio.new_event_loop, loop_factory()])
Factory = Callable[[], asyncio.AbstractEventLoop]


class Answering(Talk):
    """Session: says everything back."""

    def receive(self, data: bytes, now_ns: int, source: Any = None) -> list[Any]:
        events = super().receive(data, now_ns, source)
        self.out.append(data)
        return events


class Hall:
    """Owners of all who came in."""

    def __init__(self) -> None:
        self.owners: list[Told] = []
        self.connections: list[Connection] = []
        self.refuse = ""
        self._callers: list[asyncio.StreamWriter] = []

    async def call(
        self, listener: Listener, **options: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client that comes in; closed at the end where the script did not do it."""
        assert listener.bound is not None
        host, port = listener.bound
        reader, writer = await asyncio.open_connection("127.0.0.1" if host == "::" else host, port, **options)
        self._callers.append(writer)
        return reader, writer

    async def leave(self) -> None:
        for writer in self._callers:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    def accept(self, connection: Connection) -> Owner | str:
        self.connections.append(connection)
        if self.refuse:
            return self.refuse
        self.owners.append(Told(Answering()))
        return self.owners[-1]


def served(
    script: Callable[[Listener, Hall], Awaitable[None]],
    *,
    factory: Factory = asyncio.new_event_loop,
    host: str = "127.0.0.1",
    over: Over = Over.TCP,
    tls: ssl.SSLContext | None = None,
    limits: Limits | None = None,
) -> tuple[Listener, Hall]:
    """A listener that a script speaks to."""
    hall = Hall()

    async def main() -> Listener:
        listener = Listener(
            "scada", host, 0, accept=hall.accept, clock=SystemClock(), over=over, tls=tls, limits=limits
        )
        task = asyncio.get_running_loop().create_task(listener.serve())
        await until(lambda: listener.bound is not None)
        try:
            async with asyncio.timeout(10):
                await script(listener, hall)
        finally:
            await hall.leave()
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()
        assert not listener.connections
        return listener

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main()), hall


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the other side closed, gently or not."""
    try:
        return await reader.read(100) == b""
    except ConnectionError:
        return True


@LOOPS
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_connection_has_a_session_of_its_own(factory: Factory, host: str) -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        lines = [await hall.call(listener) for _ in range(3)]
        for number, (reader, writer) in enumerate(lines):
            writer.write(b"%d" % number)
            assert await reader.read(100) == b"%d" % number
        assert len(listener.connections) == 3
        lines[0][1].close()
        await until(lambda: len(listener.connections) == 2)

    listener, hall = served(script, factory=factory, host=host)
    assert [owner.told[:2] for owner in hall.owners] == [["up", b"0"], ["up", b"1"], ["up", b"2"]]
    assert hall.owners[0].told[2:] == [("down", "closed by peer")]
    assert (listener.accepted, set(listener.refused.values())) == (3, {0})


@LOOPS
def test_one_that_breaks_the_protocol_and_one_that_meets_our_fault_harm_nobody(
    factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(what: Any) -> None:
        if what == b"fault":
            raise ZeroDivisionError

    async def script(listener: Listener, hall: Hall) -> None:
        lines = [await hall.call(listener) for _ in range(3)]
        await until(lambda: len(hall.owners) == 3)
        hall.owners[1].react = fail
        lines[0][1].write(b"GARBAGE")
        lines[1][1].write(b"fault")
        assert await ended(lines[0][0])
        assert await ended(lines[1][0])
        lines[2][1].write(b"fine")
        assert await lines[2][0].read(100) == b"fine"

    listener, _hall = served(script, factory=factory)
    assert listener.crashes == 1
    (fault,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert fault.exc_info is not None
    assert fault.exc_info[0] is ZeroDivisionError


@LOOPS
def test_one_too_many_is_refused_and_named_once(factory: Factory, caplog: pytest.LogCaptureFixture) -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        first, second = await hall.call(listener), await hall.call(listener)
        await until(lambda: len(listener.connections) == 2)
        for _ in range(3):
            reader, writer = await hall.call(listener)
            assert await ended(reader)
            writer.close()
        first[1].write(b"still here")
        assert await first[0].read(100) == b"still here"
        first[1].close()
        await until(lambda: len(listener.connections) == 1)
        third = await hall.call(listener)
        third[1].write(b"room again")
        assert await third[0].read(100) == b"room again"
        second[1].close()
        third[1].close()

    listener, _hall = served(script, factory=factory, limits=Limits(connections_max=2))
    assert listener.refused[Refusal.FULL] == 3
    (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert said.__dict__["reason"] == "too many connections: 2 are there"


def test_where_it_is_so_configured_the_one_silent_longest_makes_room() -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        lines = []
        for number in range(2):
            lines.append(await hall.call(listener))
            await until(lambda number=number: len(listener.connections) == number + 1)
        await asyncio.sleep(0.002)
        lines[0][1].write(b"x")
        assert await lines[0][0].read(1) == b"x"
        lines.append(await hall.call(listener))
        assert await ended(lines[1][0])
        lines[2][1].write(b"y")
        assert await lines[2][0].read(1) == b"y"

    _listener, hall = served(script, limits=Limits(connections_max=2, full=Full.DROP_IDLE))
    assert hall.owners[1].told[-1] == ("down", "room was needed for another, and it was silent longest")


@pytest.mark.parametrize(
    ("allow", "is_in"), [("127.0.0.0/8", True), ("10.0.0.5/32", False), ("::1/128", False)]
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
def test_only_who_is_allowed_comes_in(allow: str, is_in: bool, host: str) -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        reader, writer = await hall.call(listener)
        writer.write(b"me")
        assert await ended(reader) is not is_in
        writer.close()

    listener, hall = served(script, host=host, limits=Limits(allow=(ipaddress.ip_network(allow),)))
    assert listener.refused[Refusal.NOT_ALLOWED] == (not is_in)
    assert [one.peer.host for one in hall.connections] == (["127.0.0.1"] if is_in else [])


def test_whom_the_protocol_refuses_is_closed() -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        hall.refuse = "its master is there already"
        reader, writer = await hall.call(listener)
        assert await ended(reader)
        writer.close()

    listener, _hall = served(script)
    assert listener.refused[Refusal.OWNER] == 1
    assert listener.accepted == 0


@LOOPS
def test_who_says_nothing_is_closed_and_who_speaks_is_not(factory: Factory) -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        silent, speaks = await hall.call(listener), await hall.call(listener)
        closed = asyncio.get_running_loop().create_task(ended(silent[0]))
        while not closed.done():
            speaks[1].write(b".")
            await speaks[0].read(1)
            await asyncio.sleep(0.01)
        assert len(listener.connections) == 1
        silent[1].close()
        speaks[1].close()

    listener, _hall = served(script, factory=factory, limits=Limits(idle_ns=200_000_000))
    assert listener.idle == 1


def test_an_address_that_is_taken_is_tried_until_it_is_free(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        other = socket.create_server(("127.0.0.1", 0))
        listener = Listener(
            "l", "127.0.0.1", other.getsockname()[1], accept=Hall().accept, clock=SystemClock(),
            backoff=Backoff(first_s=0.005, limit_s=0.01),
        )  # fmt: skip
        task = asyncio.get_running_loop().create_task(listener.serve())
        await until(lambda: bool(listener.last_error))
        assert "cannot listen on 127.0.0.1:" in listener.last_error
        await asyncio.sleep(0.05)
        other.close()
        await until(lambda: listener.bound is not None)
        assert listener.last_error == ""
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(main())
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


# UDP


@LOOPS
def test_each_sender_of_datagrams_has_a_session_of_its_own_and_idle_ones_are_forgotten(
    factory: Factory,
) -> None:
    async def script(listener: Listener, hall: Hall) -> None:
        assert listener.bound is not None
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
        ):
            for near in (one, two):
                near.connect(listener.bound)
                near.setblocking(False)
            one.send(b"1a")
            one.send(b"1b")
            two.send(b"2")
            got: list[bytes] = []

            def heard() -> bool:
                for near in (one, two):
                    try:
                        got.append(near.recv(100))
                    except BlockingIOError:
                        pass
                return len(got) == 3

            await until(heard)
            assert sorted(got) == [b"1a", b"1b", b"2"]
            assert len(listener.connections) == 2
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
                third.sendto(b"3", listener.bound)
                await until(lambda: listener.refused[Refusal.FULL] == 1)
            await until(lambda: not listener.connections)
            two.send(b"again")
            await until(lambda: len(hall.owners) == 3)

    listener, hall = served(
        script, factory=factory, over=Over.UDP, limits=Limits(connections_max=2, idle_ns=200_000_000)
    )
    assert [owner.told[:3] for owner in hall.owners[:2]] == [
        ["up", b"1a", b"1b"],
        ["up", b"2", ("down", "nothing was heard for 0.2 s")],
    ]
    assert listener.idle == 2


# TLS


def files(authority: Authority, name: str) -> TlsFiles:
    cert, key = authority.issue(name)
    return TlsFiles(ca=authority.file, cert=cert, key_file=key)


@LOOPS
def test_a_tls_client_shows_its_certificate_and_who_has_none_is_refused(
    factory: Factory, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "site")
    ours, theirs = files(authority, "us"), files(authority, "them")

    async def script(listener: Listener, hall: Hall) -> None:
        reader, writer = await hall.call(listener, ssl=client_context(theirs))
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"
        writer.close()
        nobody = client_context(TlsFiles(ca=authority.file))
        try:
            reader, writer = await hall.call(listener, ssl=nobody)
            writer.write(b"let me in")
            assert await ended(reader)
            writer.close()
        except (ssl.SSLError, ConnectionError):
            pass  # with TLS 1.2 the handshake itself fails
        reader, writer = await hall.call(listener)  # no TLS at all
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await ended(reader)
        writer.close()
        await until(lambda: listener.refused[Refusal.HANDSHAKE] == 2)

    _listener, hall = served(script, factory=factory, over=Over.TLS, tls=server_context(ours))
    (connection,) = hall.connections
    assert connection.peer.certificate is not None
    assert theirs.cert is not None
    assert ssl.DER_cert_to_PEM_cert(connection.peer.certificate) == theirs.cert.read_text()


@pytest.mark.interop
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_as_a_client_comes_in_with_tls_12_and_13(tmp_path: Path, version: str) -> None:
    authority = Authority(tmp_path, "site")
    ours, theirs = files(authority, "us"), files(authority, "them")

    async def script(listener: Listener, hall: Hall) -> None:
        assert listener.bound is not None
        process = await asyncio.create_subprocess_exec(
            require("openssl"), "s_client", "-connect", f"127.0.0.1:{listener.bound[1]}", version, "-quiet",
            "-CAfile", str(theirs.ca), "-cert", str(theirs.cert), "-key", str(theirs.key_file),
            "-verify_return_error",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"hello\n")
        assert await process.stdout.readexactly(6) == b"hello\n"
        process.kill()
        await process.wait()

    served(script, over=Over.TLS, tls=server_context(ours))


def test_an_old_version_of_tls_is_not_spoken(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "site")
    for context in (server_context(files(authority, "us")), client_context(files(authority, "them"))):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_REQUIRED


def test_files_that_cannot_be_used_are_said(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "site")
    good = files(authority, "us")
    assert good.cert is not None
    other = files(authority, "them")
    for wrong, key in (
        (TlsFiles(ca=good.cert.parent / "missing", cert=good.cert, key_file=good.key_file), "ca"),
        (TlsFiles(ca=good.key_file, cert=good.cert, key_file=good.key_file), "ca"),
        (TlsFiles(ca=good.ca, cert=good.cert, key_file=other.key_file), "cert"),
        (TlsFiles(cert=good.cert, key_file=good.key_file), "ca"),
    ):
        with pytest.raises(TlsFault) as caught:
            server_context(wrong)
        assert caught.value.key == key
    assert good.digest() == files_digest(good)
    assert TlsFiles(ca=tmp_path / "missing").digest() == ""


def files_digest(of: TlsFiles) -> str:
    assert of.cert is not None
    before = of.cert.read_bytes()
    of.cert.write_bytes(before + b"\n")
    changed = of.digest()
    of.cert.write_bytes(before)
    assert changed != of.digest()
    return of.digest()


def test_a_listener_without_its_certificates_is_a_fault_of_ours() -> None:
    with pytest.raises(InvariantError):
        Listener("l", "::", 0, accept=Hall().accept, clock=SystemClock(), over=Over.TLS)
