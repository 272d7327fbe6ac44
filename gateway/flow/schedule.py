"""When which device is scanned: on a grid of the monotonic clock, without drift, never twice at once."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

STAGGER_SHARE: Final = 10  # scans of one class start within 1/10 of their period, at most STAGGER_LIMIT_NS
STAGGER_LIMIT_NS: Final = 1_000_000_000


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
            entry = heapq.heappop(heap)[2]
            if entry.every_ns:
                missed = (now_ns - entry.next_ns) // entry.every_ns
                entry.overruns += missed
                entry.next_ns += (missed + 1) * entry.every_ns
                self._push(entry)
            if entry.is_running or entry.is_waiting:
                entry.overruns += 1
            elif entry.group in self._busy:
                entry.is_waiting = True
                self._waiting.setdefault(entry.group, deque()).append(entry)
            else:
                started.append(self._start(entry))
        return started

    def done(self, key: Key, now_ns: int, *, defer_ns: int = 0) -> list[Key]:
        """`key` has ended: the scans that may start because of it.

        `defer_ns` holds a continuous scan back, where there was nothing to wait for (link down).
        """
        entry = self._entries[key]
        entry.is_running = False
        self._busy.discard(entry.group)
        if not entry.every_ns:
            entry.next_ns = now_ns + defer_ns
            waiting = self._waiting.get(entry.group)
            if defer_ns or waiting:
                self._push(entry)
            else:
                return [self._start(entry)]
        waiting = self._waiting.get(entry.group)
        if not waiting:
            return []
        following = waiting.popleft()
        following.is_waiting = False
        return [self._start(following)]

    def _start(self, entry: Entry[Key]) -> Key:
        entry.is_running = True
        entry.scans += 1
        self._busy.add(entry.group)
        return entry.key

    def _push(self, entry: Entry[Key]) -> None:
        self._order += 1
        heapq.heappush(self._heap, (entry.next_ns, self._order, entry))


def staggered(*, now_ns: int, every_ns: int, index: int, count: int, over_whole_period: bool) -> int:
    """First scan time of the `index`-th of `count` devices of one class: not all at once."""
    if over_whole_period:
        window_ns = every_ns
    else:
        window_ns = min(every_ns // STAGGER_SHARE, STAGGER_LIMIT_NS)
    return now_ns + window_ns * index // max(1, count)
