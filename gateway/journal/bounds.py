"""How long the backlog of a cursor is, how old, and what of it is beyond its bounds."""

from __future__ import annotations

from typing import Final

import msgspec

from gateway.disk.record import Position
from gateway.journal.choice import ABOVE
from gateway.journal.cursor import Cursor, Full
from gateway.journal.marks import Mark, Marks

NEVER: Final = 1 << 63  # an offset no lane reaches


class Extent(msgspec.Struct, frozen=True):
    """One lane now: its marks, its bytes and the last position in it."""

    marks: Marks
    offset: int
    end: Position
    elapsed_ns: int

    def lag_bytes(self, cursor: Cursor) -> int:
        """Bytes from its low mark to the end; too high by at most the distance of two marks."""
        return 0 if cursor.low >= self.end else self.offset - self.marks.before(cursor.low).offset

    def oldest_age_ns(self, cursor: Cursor) -> int:
        """Running time since the oldest thing it still has to deliver, never too much."""
        behind = None if cursor.low >= self.end else self.marks.after(cursor.low)
        return 0 if behind is None else max(0, self.elapsed_ns - behind.elapsed_ns)

    def is_at_bound(self, cursor: Cursor, *, was_over: bool) -> bool:
        """Once over, it must fall a tenth below, so that readers do not stop and go with every batch."""
        bytes_max = cursor.max_bytes * 9 // 10 if was_over else cursor.max_bytes
        return self.lag_bytes(cursor) > bytes_max or self.oldest_age_ns(cursor) > cursor.keep_ns

    def excess(self, cursor: Cursor) -> Mark | None:
        """The last mark that is beyond a bound for certain, None where none is."""
        old = self.marks.until_elapsed(self.elapsed_ns - cursor.keep_ns)
        far = self.marks.until_offset(self.offset - cursor.max_bytes)
        target = max(filter(None, (old, far)), key=lambda mark: mark.position, default=None)
        return target if target is not None and target.position > cursor.low else None

    def look_at(self, cursor: Cursor, *, is_thinning_ready: bool) -> int:
        """The offset of the lane from which on something may have to be done about it."""
        if cursor.full is Full.BLOCK:
            return self.marks.before(cursor.low).offset + cursor.max_bytes + 1
        if cursor.full is Full.THIN and is_thinning_ready:
            return self.marks.before(cursor.low).offset + int(cursor.max_bytes * ABOVE) + 1
        behind = self.marks.after(cursor.low)
        return (self.offset if behind is None else behind.offset) + cursor.max_bytes
