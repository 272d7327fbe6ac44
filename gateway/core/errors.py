"""The one tree of errors, and `Problem`: a fault in the configuration, said exactly."""

from __future__ import annotations

import msgspec

PathPart = str | int


class Problem(msgspec.Struct, frozen=True):
    """One fault in the configuration. `config` turns the path into file:line:column.

    `path` leads to the value in the user's YAML, for example ("devices", "pump-07", "tags", "speed", "at").
    """

    path: tuple[PathPart, ...]
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: found {self.found}, expected {self.expected}"


class GatewayError(Exception):
    """Root of every error of ours."""


class ConfigError(GatewayError):
    """The configuration is wrong (exit 78, which systemd does not restart)."""


class LinkError(GatewayError):
    """A link cannot be opened or was lost: reconnect; its points are bad/comm-lost meanwhile."""


class RemoteProtocolError(GatewayError):
    """The peer broke its protocol: drop the link, count it."""


class LocalProtocolError(GatewayError):
    """We asked a session for something its protocol forbids: our bug, fail that driver loudly."""


class StorageError(GatewayError):
    """The disk refused to write or sync."""


class StorageFull(StorageError):
    """No room: backpressure, not failure."""


class InvariantError(GatewayError):
    """Something that cannot be is. The process stops."""
