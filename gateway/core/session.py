"""The shape of every sans-IO protocol state machine."""

from __future__ import annotations

from typing import Protocol, TypeAlias, TypeVar

Address: TypeAlias = tuple[str, int]
EventT = TypeVar("EventT")


class Session(Protocol[EventT]):
    """Bytes and time in, events and bytes out; no I/O, no clock of its own.

    Raises `RemoteProtocolError` from `receive` when the peer broke the protocol beyond repair (the owner
    drops the link) and `LocalProtocolError` from its own verbs when the caller did.

    One that has `ignores_sent = True` is not told when the wire has drained: to look for that costs a turn of
    the loop for each thing that goes out.
    """

    def receive(self, data: bytes, now_ns: int, source: Address | None = None) -> list[EventT]:
        """Bytes came in: what they mean, in order."""
        ...

    def to_send(self, now_ns: int) -> list[bytes]:
        """What must go out now, each item once, one item per datagram."""
        ...

    def sent(self, now_ns: int) -> list[EventT]:
        """The wire has drained everything given out so far."""
        ...

    def lost(self, now_ns: int) -> list[EventT]:
        """The link is gone."""
        ...

    def deadline_ns(self) -> int | None:
        """Monotonic time at which `on_deadline` wants to be called; None for never."""
        ...

    def on_deadline(self, now_ns: int) -> list[EventT]:
        """That time has come."""
        ...
