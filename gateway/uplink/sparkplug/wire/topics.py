"""Topics of Sparkplug 3.0 (§4): `spBv1.0/GROUP/TYPE/NODE[/DEVICE]` and `spBv1.0/STATE/HOST`."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

NAMESPACE: Final = "spBv1.0"
_RESERVED: Final = "+/#"


class MessageType(enum.Enum):
    """What a message is (§4.1.3)."""

    NBIRTH = "NBIRTH"
    NDEATH = "NDEATH"
    DBIRTH = "DBIRTH"
    DDEATH = "DDEATH"
    NDATA = "NDATA"
    DDATA = "DDATA"
    NCMD = "NCMD"
    DCMD = "DCMD"


class Address(msgspec.Struct, frozen=True):
    """The Edge Node Descriptor: unique in an infrastructure (tck-id-payloads-nbirth-edge-node-descriptor)."""

    group: str
    node: str

    def topic(self, kind: MessageType, device: str = "") -> str:
        """Where messages of a kind go, or come from."""
        end = f"/{device}" if device else ""
        return f"{NAMESPACE}/{self.group}/{kind.value}/{self.node}{end}"


def state_topic(host: str) -> str:
    """Where a host application says whether it is online."""
    return f"{NAMESPACE}/STATE/{host}"


def name_fault(name: str) -> str:
    """What is wrong with an identifier of a group, node, device or host: "" for nothing.

    tck-id-intro-group-id-chars, and the like for the others.
    """
    if not name:
        return "no character, expected at least one"
    for character in _RESERVED:
        if character in name:
            return f"{character!r} in {name!r}, expected a name without + / #"
    if not name.isprintable():
        return f"a control character in {name!r}, expected printable text"
    return ""
