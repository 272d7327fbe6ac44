"""What a `Session` tells its owner."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from drivers.iec104.wire.asdu import Asdu


class Started(msgspec.Struct, frozen=True):
    """STARTDT is confirmed: user data may go both ways."""


class Stopped(msgspec.Struct, frozen=True):
    """STOPDT is confirmed, and every I frame of both directions is acknowledged."""


class Stopping(msgspec.Struct, frozen=True):
    """The controlling station asked for STOPDT; it is confirmed once all is acknowledged."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """An ASDU came in. `number` counts from 1 on each connection: for `acknowledge`."""

    asdu: Asdu
    number: int


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """The peer acknowledged these ASDUs of ours, in the order of `send`."""

    tokens: list[object]


class AcknowledgementDue(msgspec.Struct, frozen=True):
    """t2 ran out and the owner has not acknowledged `number` yet; told once until it does.

    The peer ends the connection when its t1 runs out: acknowledge, or `stop`.
    """

    number: int
    waited_ns: int


class NoResponse(msgspec.Struct, frozen=True):
    """t1 ran out without `expected`: drop the link (§5.2). The session sends nothing more on it."""

    expected: str
    waited_ns: int


class Lost(msgspec.Struct, frozen=True):
    """The link is gone, and these ASDUs were not acknowledged, in the order of `send`.

    `unconfirmed` went out: the peer has them or has not. `unsent` did not.
    """

    unconfirmed: list[object]
    unsent: list[object]


Event: TypeAlias = (
    Started | Stopped | Stopping | Received | Confirmed | AcknowledgementDue | NoResponse | Lost
)
