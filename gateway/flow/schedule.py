"""When which device is scanned: on a grid of the monotonic clock, without drift, never twice at once."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

STAGGER_SHARE: Final = 10  # scans of one class start within 1/10 of their period, at most STAGGER_LIMIT_NS
STAGGER_LIMIT_NS: Final = 1_000_000_000
GRID_NS: Final = 50_000_000  # scans start together on a grid: one wake of the loop costs more than a scan


class Entry(Generic[Key]):
    """One scan class of one device. `every_ns` 0 is continuous: the next starts when the last ended."""

    __slots__ = ("every_ns", "group", "is_running", "is_waiting", "key", "next_ns", "overruns", "scans")

    def __init__(self, *, key: Key, group: Hashable, every_ns: int, first_ns: int) -> None:
        self.key: Final = key
        self.group: Final = group
        self.every_ns: Final = every_ns
        self.next_ns = first_ns
        self.is_running = False
        self.is_waiting = False
        self.scans = 0
        self.overruns = 0  # slots that passed while the scan before was still running or waiting


class ScanSchedule(Generic[Key]):
    """Says which scans to start; told when they end. Pure: the time is an argument.

    Scans of one group (a device) never overlap: a second one waits for the first, in order.
    """

    def __init__(self) -> None:
        self._entries: dict[Key, Entry[Key]] = {}
        self._heap: list[tuple[int, int, Entry[Key]]] = []
        self._order = 0
        self._busy: set[Hashable] = set()
        self._waiting: dict[Hashable, deque[Entry[Key]]] = {}

    def add(self, key: Key, *, group: Hashable, every_ns: int, first_ns: int) -> None:
        """Scan `key` at `first_ns` and every `every_ns` after it."""
        if key in self._entries:
            raise ValueError(f"{key!r} is scheduled already")
        entry = Entry(key=key, group=group, every_ns=every_ns, first_ns=first_ns)
        self._entries[key] = entry
        self._push(entry)

    def entries(self) -> list[Entry[Key]]:
        """All of them, for counters."""
        return list(self._entries.values())

    def deadline_ns(self) -> int | None:
        """When `due` wants to be called next."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_ns: int) -> list[Key]:
        """The scans to start now; each must be reported to `done` once it ended."""
        started: list[Key] = []
        heap = self._heap
        while heap and heap[0][0] <= now_ns:
            due_ns, _order, entry = heapq.heappop(heap)
            is_slot = entry.every_ns and due_ns == entry.next_ns
            if is_slot:
                missed = (now_ns - due_ns) // entry.every_ns
                entry.overruns += missed
                entry.next_ns += (missed + 1) * entry.every_ns
                self._push(entry)
            if entry.is_running or entry.is_waiting:
                entry.overruns += 1 if is_slot else 0
            else:
                started += self._admit(entry)
        return started

    def hasten(self, key: Key) -> list[Key]:
        """Scan `key` now, out of turn; its slots stay where they are. The scans to start now."""
        entry = self._entries[key]
        return [] if entry.is_running or entry.is_waiting else self._admit(entry)

    def done(self, key: Key, now_ns: int, *, defer_ns: int = 0, again_ns: int | None = None) -> list[Key]:
        """`key` has ended: the scans that may start because of it.

        `defer_ns` holds a continuous scan back, where there was nothing to wait for (link down). `again_ns`
        is for a scan that was not made: when to look again, where that is before its next slot.
        """
        entry = self._entries[key]
        entry.is_running = False
        self._busy.discard(entry.group)
        if entry.every_ns:
            if again_ns is not None and again_ns < entry.next_ns:
                self._push(entry, at_ns=again_ns)
        else:
            entry.next_ns = now_ns + defer_ns if again_ns is None else again_ns
            waiting = self._waiting.get(entry.group)
            if defer_ns or waiting or again_ns is not None:
                self._push(entry)
            else:
                return [self._start(entry)]
        waiting = self._waiting.get(entry.group)
        if not waiting:
            return []
        following = waiting.popleft()
        following.is_waiting = False
        return [self._start(following)]

    def _admit(self, entry: Entry[Key]) -> list[Key]:
        """Start it, or have it wait for the one of its group that runs."""
        if entry.group not in self._busy:
            return [self._start(entry)]
        entry.is_waiting = True
        self._waiting.setdefault(entry.group, deque()).append(entry)
        return []

    def _start(self, entry: Entry[Key]) -> Key:
        entry.is_running = True
        entry.scans += 1
        self._busy.add(entry.group)
        return entry.key

    def _push(self, entry: Entry[Key], *, at_ns: int | None = None) -> None:
        self._order += 1
        heapq.heappush(self._heap, (entry.next_ns if at_ns is None else at_ns, self._order, entry))


def staggered(*, now_ns: int, every_ns: int, index: int, count: int, over_whole_period: bool) -> int:
    """First scan time of the `index`-th of `count` devices of one class: not all at once."""
    if over_whole_period:
        window_ns = every_ns
    else:
        window_ns = min(every_ns // STAGGER_SHARE, STAGGER_LIMIT_NS)
    offset_ns = window_ns * index // max(1, count)
    return now_ns + offset_ns - offset_ns % GRID_NS


def on_grid(now_ns: int) -> int:
    """The next point of the grid that all links share."""
    return now_ns + -now_ns % GRID_NS
