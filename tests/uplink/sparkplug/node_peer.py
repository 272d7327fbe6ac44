"""node.js programs beside the tests: they answer each line with a line of JSON."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from tests.peers import require


class NodePeer:
    """One program on `sparkplug-payload`, asked line by line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process: Final = process

    def ask(self, line: str) -> Any:
        """The answer to one line."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the peer ended"
        return msgspec.json.decode(answer)

    def request(self, **request: Any) -> Any:
        """What `peer.js` makes of a request. Raises `ValueError` where it refuses."""
        answer = self.ask(msgspec.json.encode(request).decode())
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer.get("ok")


@contextmanager
def node_peer(program: str) -> Iterator[NodePeer]:
    """`peer.js` or `host.js`, running."""
    folder = require("sparkplug-payload")
    with subprocess.Popen(
        ["node", program], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield NodePeer(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.kill()
