"""What arrived at the broker, counted by a reader that does not trust the gateway.

Topics and payloads are those of `configs/demo`: `plant/<site>/<device>/<tag>` carries one value, and
`plant/<site>/<device>` a whole scan; both with epoch `e`, number `n` and, for further parts of a batch, `p`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.app.demo.mqtt_client import Message

ROOT: Final = "plant/"  # before the site in every topic
IDENTITIES_MAX: Final = 100_000  # remembered to find repetitions; an hour of the demo
AHEAD_MAX: Final = 10_000  # numbers kept beyond a gap before the gap is taken for final


class Numbers:
    """The numbers of one epoch: which are there, in bounded memory."""

    def __init__(self, first: int) -> None:
        self._upto = first  # everything from the first number to this one is there or given up
        self._ahead: set[int] = set()
        self._given_up = 0

    def add(self, number: int) -> None:
        """One that arrived, in any order."""
        if number > self._upto:
            self._ahead.add(number)
        if len(self._ahead) > AHEAD_MAX:
            lowest = min(self._ahead)
            self._given_up += lowest - self._upto - 1
            self._upto = lowest - 1
        while self._upto + 1 in self._ahead:
            self._upto += 1
            self._ahead.remove(self._upto)

    @property
    def missing(self) -> int:
        """How many are missing below the highest."""
        open_gap = max(self._ahead) - self._upto - len(self._ahead) if self._ahead else 0
        return self._given_up + open_gap


class Tag(msgspec.Struct, frozen=True):
    """The last value of one tag as published."""

    value: Any
    quality: str


class Tally:
    """Counts messages; knows the last value of each tag; finds gaps and repetitions."""

    def __init__(self, *, site: str) -> None:
        self.prefix: Final = f"{ROOT}{site}/"
        self.tags: Final[dict[str, Tag]] = {}
        self.messages = 0  # of values; retained copies of old ones are not counted
        self.scans = 0
        self.unreadable = 0
        self.duplicates = 0
        self._identities: Final[dict[tuple[str, int, int, int], None]] = {}  # in the order of arrival
        self._numbers: Final[dict[int, Numbers]] = {}  # by epoch

    @property
    def epochs(self) -> int:
        """How many runs of a gateway were seen."""
        return len(self._numbers)

    @property
    def gaps(self) -> int:
        """Numbers missing so far, over all topics of each epoch."""
        return sum(numbers.missing for numbers in self._numbers.values())

    @property
    def good(self) -> int:
        """Tags whose last quality is good."""
        return sum(tag.quality == "good" for tag in self.tags.values())

    def take(self, message: Message) -> str | None:
        """Count one message; the `device/tag` it gives a live value to, None for anything else."""
        if message.retained or not message.topic.startswith(self.prefix):
            return None
        parts = message.topic.removeprefix(self.prefix).split("/")
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
        self._take_identity(message.topic, fields)
        if len(parts) == 1:
            self.scans += 1
            return None
        name = "/".join(parts)
        self.tags[name] = Tag(fields["v"], fields.get("q", "good"))
        return name

    def _take_identity(self, topic: str, fields: dict[str, Any]) -> None:
        epoch, number, part = fields.get("e"), fields.get("n"), fields.get("p", 0)
        if not isinstance(epoch, int) or not isinstance(number, int) or not isinstance(part, int):
            return
        identity = (topic, epoch, number, part)
        if identity in self._identities:
            self.duplicates += 1
            return
        self._identities[identity] = None
        if len(self._identities) > IDENTITIES_MAX:
            del self._identities[next(iter(self._identities))]
        self._numbers.setdefault(epoch, Numbers(number)).add(number)
