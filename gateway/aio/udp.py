"""Datagrams to one peer: a connected socket, so that the kernel checks where answers come from."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from gateway.aio.names import Lookup
from gateway.aio.pump import Pump
from gateway.aio.tcp import socket_address

DATAGRAM_BYTES_MAX: Final = 65535  # of a UDP datagram; a longer one does not exist
_DATAGRAMS_A_TURN: Final = 64  # of one peer, then the loop goes on with others
_REFUSALS: Final = {
    errno.ECONNREFUSED: "port unreachable: nothing listens there",  # ICMP, udp(7)
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "network unreachable",
    errno.EMSGSIZE: "the datagram is too long for the network",
}


class UdpOpener:
    """Sockets connected to `host:port`. Open says nothing: only what is heard shows that a peer is there.

    What other addresses send, the kernel drops. An ICMP message that nobody is there ends the link.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host: Final = host
        self._port: Final = port
        self._lookup: Final = Lookup(host, port)

    @property
    def address(self) -> str:
        """Host and port."""
        return socket_address(self._host, self._port)

    @property
    def awaited(self) -> str:
        """The name server: nothing else can be waited for."""
        return f"answer to the name {self._host}"

    async def open(self, new_pump: Callable[[], Pump]) -> Pump:
        """A socket to the first address that has a route. Raises `OSError`."""
        *others, last = await self._lookup.addresses()
        for address in others:
            try:
                return self._connect(new_pump(), address)
            except OSError:  # told where none has one: of the last
                continue
        return self._connect(new_pump(), last)

    def release(self) -> None:
        """Nothing is kept open."""

    def _connect(self, pump: Pump, address: str) -> Pump:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        near = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            near.connect((address, self._port))
        except BaseException:
            near.close()
            raise
        UdpTransport(near, pump, loop=asyncio.get_running_loop()).start()
        return pump


class UdpTransport(asyncio.Transport):
    """Duck-typed as asyncio's stream transports are; one `write` is one datagram.

    A datagram that the kernel has no room for is lost, as it may be anywhere else on its way.
    """

    def __init__(self, near: socket.socket, protocol: asyncio.Protocol, *, loop: asyncio.AbstractEventLoop):
        super().__init__()
        self._socket: Final = near
        self._protocol: Final = protocol
        self._loop: Final = loop
        self._is_closing = False

    def start(self) -> None:
        """Tell the protocol, then listen."""
        self._protocol.connection_made(self)
        if not self._is_closing:
            self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`is_datagram`: each write is one."""
        return True if name == "is_datagram" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def get_write_buffer_size(self) -> int:
        """There is no buffer."""
        return 0

    def is_closing(self) -> bool:
        """As asyncio."""
        return self._is_closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram."""
        if self._is_closing:
            return
        try:
            self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)

    def close(self) -> None:
        """All that was written is sent already."""
        self._lose(None)

    def abort(self) -> None:
        """As `close`."""
        self._lose(None)

    def _on_readable(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data = self._socket.recv(DATAGRAM_BYTES_MAX)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(error)
                return
            self._protocol.data_received(data)
            if self._is_closing:
                return

    def _lose(self, error: OSError | None) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        if error is not None and error.errno in _REFUSALS:
            error = OSError(_REFUSALS[error.errno])
        self._loop.call_soon(self._protocol.connection_lost, error)
