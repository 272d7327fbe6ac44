"""A session and an owner that do what a test says, and write down what they were told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.core.errors import RemoteProtocolError
from gateway.core.session import Address


class Talk:
    """Session: every segment is an event; `GARBAGE` breaks the protocol."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.deadline: int | None = None
        self.fired: list[int] = []
        self.drained = 0
        self.on_loss: list[Any] = []

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[Any]:
        if b"GARBAGE" in data:
            raise RemoteProtocolError("found garbage, expected sense")
        return [data]

    def to_send(self, now_ns: int) -> list[bytes]:
        out, self.out = self.out, []
        return out

    def sent(self, now_ns: int) -> list[Any]:
        self.drained += 1
        return []

    def lost(self, now_ns: int) -> list[Any]:
        self.out = []
        self.deadline = None
        return list(self.on_loss)

    def deadline_ns(self) -> int | None:
        return self.deadline

    def on_deadline(self, now_ns: int) -> list[Any]:
        self.fired.append(now_ns)
        self.deadline = None
        return ["deadline"]


class Listener:
    """Owner: a list of what happened. `react` may raise."""

    def __init__(self, session: Talk | None = None) -> None:
        self.session = session or Talk()
        self.told: list[Any] = []
        self.react: Callable[[Any], None] = lambda _what: None

    def _note(self, what: Any) -> None:
        self.told.append(what)
        self.react(what)

    def link_up(self) -> None:
        self._note("up")

    def link_events(self, events: list[Any]) -> None:
        for event in events:
            self._note(event)

    def link_closing(self) -> None:
        self.session.out.append(b"bye")
        self._note("closing")

    def link_down(self, reason: str) -> None:
        self._note(("down", reason))
