"""A command: one intention to change one point, and what became of it."""

from __future__ import annotations

import enum

import msgspec

from gateway.core.point import Value


class Outcome(enum.Enum):
    """What became of a command. The last five are final; `ACCEPTED` and `SENT` are on the way."""

    ACCEPTED = "accepted"  # passed every check, its id is on disk
    SENT = "sent"  # the device confirmed the write
    VERIFIED = "verified"  # read back and equal
    REJECTED = "rejected"  # by us or by the device; nothing was changed
    EXPIRED = "expired"  # its time ran out before it was sent
    UNKNOWN = "unknown"  # sent, no answer in time: it may or may not have happened


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Never stored and forwarded, never retried by itself."""

    id: str
    device: str
    tag: str
    value: Value
    issuer: str  # who asked: "uplink:cloud", "api:10.0.0.5", "console"
    issued_ns: int | None = None  # wall clock of the issuer, None where it gave none
    received_ns: int  # our wall clock
    deadline_monotonic_ns: int  # our monotonic clock; not sent after it

    @property
    def target(self) -> str:
        """`device/tag`."""
        return f"{self.device}/{self.tag}"


class CommandResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome, and why. A refusal by a device is a result, not an exception."""

    id: str
    outcome: Outcome
    reason: str = ""  # for people: what was found, what was expected
    value: Value = None  # the value read back, where it was
