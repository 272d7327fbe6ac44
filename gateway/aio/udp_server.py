"""One UDP socket, many peers: what each sends goes to a pump of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

from gateway.aio.pump import Pump
from gateway.aio.udp import DATAGRAM_BYTES_MAX

_DATAGRAMS_A_TURN: Final = 64  # then the loop goes on with others


class DatagramServer:
    """Sorts datagrams by the address they come from. `enter` makes a peer's pump, or refuses it with None."""

    def __init__(
        self,
        near: socket.socket,
        loop: asyncio.AbstractEventLoop,
        enter: Callable[[tuple[str, int], asyncio.BaseTransport], Pump | None],
    ) -> None:
        self._near: Final = near
        self._loop: Final = loop
        self._enter: Final = enter
        self._pumps: dict[tuple[Any, ...], Pump] = {}  # as many as `enter` lets in

    async def serve(self) -> None:
        """Until cancelled."""
        self._loop.add_reader(self._near.fileno(), self._on_readable)
        try:
            await self._loop.create_future()
        finally:
            self._loop.remove_reader(self._near.fileno())

    def send(self, data: bytes | bytearray | memoryview, address: tuple[Any, ...]) -> None:
        """One datagram; what the kernel has no room for, or no way to, is lost."""
        try:
            self._near.sendto(data, address)
        except OSError:
            return

    def forget(self, address: tuple[Any, ...]) -> None:
        """A peer is gone: the next datagram from there is one of a new peer."""
        self._pumps.pop(address, None)

    def _on_readable(self) -> None:
        for _ in range(_DATAGRAMS_A_TURN):
            try:
                data, address = self._near.recvfrom(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:  # ICMP for one of our answers: that peer will be idle
                continue
            pump = self._pumps.get(address)
            if pump is None:
                transport = _PeerTransport(self, address, self._loop)
                pump = self._enter(address[:2], transport)
                if pump is None:
                    continue
                self._pumps[address] = pump
                transport.start(pump)
            pump.data_received(data)


class _PeerTransport(asyncio.Transport):
    """Duck-typed as asyncio's stream transports are; one `write` is one datagram to one peer."""

    def __init__(
        self, server: DatagramServer, address: tuple[Any, ...], loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__()
        self._server: Final = server
        self._address: Final = address
        self._loop: Final = loop
        self._pump: Pump | None = None
        self._is_closing = False

    def start(self, pump: Pump) -> None:
        """Tell the pump."""
        self._pump = pump
        pump.connection_made(self)

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
        if not self._is_closing:
            self._server.send(data, self._address)

    def close(self) -> None:
        """All that was written is sent already."""
        self.abort()

    def abort(self) -> None:
        """Forget the peer."""
        if not self._is_closing:
            self._is_closing = True
            self._server.forget(self._address)
            if self._pump is not None:
                self._loop.call_soon(self._pump.connection_lost, None)
