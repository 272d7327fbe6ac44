"""Names of hosts, looked up so that a name server that does not answer holds up nobody else."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from gateway.aio.aside import Aside


class Lookup:
    """The addresses of one host. One look-up at a time, on a thread of its own, which no stop waits for."""

    def __init__(self, host: str, port: int) -> None:
        self._host: Final = host
        self._port: Final = port
        self._is_address: Final = _is_address(host)
        self._asking: Final = Aside(f"look-up of {host}", self._look_up)

    @property
    def is_under_way(self) -> bool:
        """Whether the name server has not answered yet."""
        return self._asking.is_under_way

    async def addresses(self) -> list[str]:
        """What to connect to, the preferred one first. Raises `OSError`, `socket.gaierror` above all.

        A cancelled wait leaves the look-up under way: the next call gets its answer.
        """
        return [self._host] if self._is_address else await self._asking.result()

    def _look_up(self) -> list[str]:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(f"{self._host!r} cannot be the name of a host: {error}") from None
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
