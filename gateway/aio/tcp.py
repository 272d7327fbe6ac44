"""Opens TCP and TLS connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from gateway.aio.names import Lookup
from gateway.aio.pump import Pump

GIVEN_UP: Final = "given up while it was being made"


class TcpOpener:
    """Connections to `host:port`, with TLS where there is a context for it."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> None:
        """`server_name`: the name that the server's certificate must bear; by default the host."""
        self._host: Final = host
        self._port: Final = port
        self._lookup: Final = Lookup(host, port)
        self._tls: Final = tls
        self._server_name: Final = server_name or host

    @property
    def address(self) -> str:
        """Host and port."""
        return socket_address(self._host, self._port)

    @property
    def awaited(self) -> str:
        """The name server or the peer."""
        return f"answer to the name {self._host}" if self._lookup.is_under_way else "connection"

    async def open(self, new_pump: Callable[[], Pump]) -> Pump:
        """Connect to the first address of the host that takes it. Raises `OSError`, TLS errors too."""
        *others, last = await self._lookup.addresses()
        for address in others:
            try:
                return await self._connect(new_pump(), address)
            except OSError:  # told where none takes it: of the last one
                continue
        return await self._connect(new_pump(), last)

    def release(self) -> None:
        """Nothing is kept open."""

    async def _connect(self, pump: Pump, address: str) -> Pump:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: pump,
                address,
                self._port,
                ssl=self._tls,
                server_hostname=self._server_name if self._tls else None,
            )
        except BaseException:
            pump.abandon(GIVEN_UP)
            raise
        return pump


def socket_address(host: str, port: int) -> str:
    """`host:port`; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
