"""The last frames of one link, kept while somebody looks, and put into words only when they are read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec

FRAMES_MAX: Final = 1000  # kept for one link; older ones are forgotten, and the reader is told how many
WATCH_MAX_NS: Final = 600_000_000_000  # how long frames are kept for one asking
AT_ONCE_MAX: Final = 200  # frames put into words at once: some milliseconds

Way: TypeAlias = Literal["sent", "received", "fault"]
Words: TypeAlias = Callable[..., tuple[str, str]]
"""(what the frame's owner noted) → (the frame as hexadecimal digits, what it says in words)"""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One frame for people. `number` counts up; `at_ns` is monotonic."""

    number: int
    at_ns: int
    way: Way
    hex: str
    text: str


class FrameLog:
    """A ring of frames. Noting one costs a tuple; words are made by `read`, for at most `AT_ONCE_MAX`."""

    def __init__(self, words: Words) -> None:
        self.until_ns = 0  # monotonic; frames are kept until then; 0 until somebody looks
        self._words: Final = words
        self._ring: Final[deque[tuple[int, int, Way, tuple[Any, ...]]]] = deque(maxlen=FRAMES_MAX)
        self.last = 0  # number of the newest frame

    def watch(self, now_ns: int, for_ns: int) -> None:
        """Keep frames from now on for so long, 10 minutes at most; 0 ends it."""
        self.until_ns = now_ns + min(for_ns, WATCH_MAX_NS) if for_ns else 0

    def add(self, now_ns: int, way: Way, *what: Any) -> None:
        """Note a frame, unless nobody looks any more. `what` goes to `words` as it is."""
        if now_ns < self.until_ns:
            self.last += 1
            self._ring.append((self.last, now_ns, way, what))

    def read(self, since: int) -> tuple[list[Frame], int]:
        """Frames with a number above `since`, oldest first, and how many of these are forgotten already."""
        first = self._ring[0][0] if self._ring else self.last + 1
        found: list[Frame] = []
        for number, at_ns, way, what in self._ring:
            if number > since:
                digits, text = self._words(way, *what)
                found.append(Frame(number=number, at_ns=at_ns, way=way, hex=digits, text=text))
                if len(found) == AT_ONCE_MAX:
                    break
        return found, max(0, first - 1 - since)
