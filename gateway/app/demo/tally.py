"""What arrived at the broker, counted by a reader that does not trust the gateway.

Topics and payloads are those of `configs/demo`: `plant/plant/<device>/<tag>` carries one value, and
`plant/plant/<device>` a whole scan with epoch `e`, number `n` and, for further parts of one scan, `p`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.app.demo.mqtt_client import Message

PREFIX: Final = "plant/plant/"
IDENTITIES_MAX: Final = 1_000_000  # remembered to find repetitions; above it only counting goes on


class Tag(msgspec.Struct, frozen=True):
    """The last value of one tag as published."""

    value: Any
    quality: str


class Tally:
    """Counts messages; knows the last value of each tag; finds gaps and repetitions."""

    def __init__(self) -> None:
        self.tags: Final[dict[str, Tag]] = {}
        self.messages = 0  # of values; retained copies of old ones are not counted
        self.scans = 0
        self.unreadable = 0
        self.duplicates = 0
        self._identities: Final[set[tuple[str, int, int, int]]] = set()
        self._numbers: Final[dict[int, set[int]]] = {}  # epoch → numbers seen

    @property
    def epochs(self) -> int:
        """How many runs of a gateway were seen."""
        return len(self._numbers)

    @property
    def gaps(self) -> int:
        """Numbers missing between the first and the last of each epoch."""
        return sum(max(seen) - min(seen) + 1 - len(seen) for seen in self._numbers.values() if seen)

    @property
    def good(self) -> int:
        """Tags whose last quality is good."""
        return sum(tag.quality == "good" for tag in self.tags.values())

    def take(self, message: Message) -> str | None:
        """Count one message; the `device/tag` it gives a live value to, None for anything else."""
        if message.retained or not message.topic.startswith(PREFIX):
            return None
        parts = message.topic.removeprefix(PREFIX).split("/")
        if len(parts) > 2 or parts[-1] == "":
            return None  # a command or its answer
        try:
            fields = msgspec.json.decode(message.payload)
        except msgspec.DecodeError:
            fields = None
        if not isinstance(fields, dict) or "v" not in fields:
            self.unreadable += 1
            return None
        self.messages += 1
        if len(parts) == 1:
            self._take_scan(message.topic, fields)
            return None
        name = "/".join(parts)
        self.tags[name] = Tag(fields["v"], fields.get("q", "good"))
        return name

    def _take_scan(self, topic: str, fields: dict[str, Any]) -> None:
        self.scans += 1
        epoch, number, part = fields.get("e"), fields.get("n"), fields.get("p", 0)
        if not isinstance(epoch, int) or not isinstance(number, int) or not isinstance(part, int):
            return
        identity = (topic, epoch, number, part)
        if identity in self._identities:
            self.duplicates += 1
        elif len(self._identities) < IDENTITIES_MAX:
            self._identities.add(identity)
            self._numbers.setdefault(epoch, set()).add(number)
