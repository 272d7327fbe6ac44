"""Names of hosts, looked up so that a name server that does not answer holds up nobody else."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from typing import Final, TypeAlias

_Found: TypeAlias = list[str] | OSError


class Lookup:
    """The addresses of one host. One look-up at a time, on a thread of its own, which no stop waits for.

    The loop's own look-ups share a few threads: five names that a dead name server leaves waiting hold up
    every other name, and the end of the process.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host: Final = host
        self._port: Final = port
        self._is_address: Final = _is_address(host)
        self._answer: asyncio.Future[_Found] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether the name server has not answered yet."""
        return self._answer is not None and not self._answer.done()

    async def addresses(self) -> list[str]:
        """What to connect to, the preferred one first. Raises `OSError`, `socket.gaierror` above all.

        A cancelled wait leaves the look-up under way: the next call gets its answer.
        """
        if self._is_address:
            return [self._host]
        answer = self._answer or self._ask()
        found = await asyncio.shield(answer)
        self._answer = None
        if isinstance(found, OSError):
            raise found
        return found

    def _ask(self) -> asyncio.Future[_Found]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Found] = loop.create_future()
        self._answer = answer

        def look_up() -> None:
            found = self._look_up()
            try:
                loop.call_soon_threadsafe(answer.set_result, found)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        threading.Thread(target=look_up, name=f"look-up of {self._host}", daemon=True).start()
        return answer

    def _look_up(self) -> _Found:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            return error
        except UnicodeError as error:
            return OSError(f"{self._host!r} cannot be the name of a host: {error}")
        return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
