"""The one shape of everything that grows with traffic: how much is in it, how much may be, what fell out."""

from __future__ import annotations

import msgspec


class Bound(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of queue, buffer or memory. Declared once, as a constant of the module that has it.

    Its metrics are `gateway_<noun>_<unit>`, `gateway_<noun>_limit_<unit>` and, where something can leave it
    other than as meant, `gateway_<noun>_<lost>_<lost_unit>_total`. Only `dropped` is gone for good.
    """

    noun: str
    unit: str
    what: str  # what waits or is remembered there, for people
    beyond: str  # what happens at the limit, for people
    lost: str = "dropped"  # the word for what leaves it at the limit: dropped, refused, forgotten, spilled …
    lost_unit: str = ""  # `unit` where it is empty
    labels: tuple[str, ...] = ()  # names of rooms and configured objects, never of tags
    holds: tuple[str, ...] = ()  # `Class.attribute` of this module that it stands for

    @property
    def depth_name(self) -> str:
        """Of the metric that says how much is in it."""
        return f"gateway_{self.noun}_{self.unit}"

    @property
    def limit_name(self) -> str:
        """Of the metric that says how much may be."""
        return f"gateway_{self.noun}_limit_{self.unit}"

    @property
    def lost_name(self) -> str:
        """Of the metric that counts what left it at the limit; empty where that cannot be."""
        return f"gateway_{self.noun}_{self.lost}_{self.lost_unit or self.unit}_total" if self.lost else ""

    def at(self, depth: int, limit: int, lost: int = 0, *labels: str) -> Level:
        """As it is now."""
        return Level(bound=self, depth=depth, limit=limit, lost=lost, labels=labels)


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One such thing now. `labels` are values, in the order of the names of its bound."""

    bound: Bound
    depth: int
    limit: int
    lost: int
    labels: tuple[str, ...] = ()

    def of(self, *owner: str) -> Level:
        """With what its owner is called in front of its labels."""
        return msgspec.structs.replace(self, labels=(*owner, *self.labels))
