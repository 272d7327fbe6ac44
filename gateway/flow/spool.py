"""Records of rules with `durability: spill`: in memory while the uplink keeps up, on disk once it does not.

What the far end acknowledges before that is never written. Everything else is appended to a lane of its own,
in the order of its numbers, whatever rule it is of. A crash loses what is in here and not acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, TypeAlias

from gateway.core.batch import Batch
from gateway.core.bounded import Bound, Level
from gateway.core.ports import Receipt

Position: TypeAlias = tuple[int, int]
"""(epoch, seq), compared as a tuple."""

AFTER_NS: Final = 1_000_000_000  # a record that waits longer than this for its acknowledgement goes to disk
_RECORD_BYTES: Final = 600  # of memory, about, for a record …
_VALUE_BYTES: Final = 40  # … and for each value in it

HELD: Final = Bound(
    noun="spool_held",
    unit="bytes",
    what="in memory only, of rules with `durability: spill` (`journal: spill_memory`)",
    beyond="all of it goes to disk",
    lost="spilled",
    lost_unit="records",
    holds=("Spool._held",),
)


class _Held:
    """One record; its own receipt."""

    __slots__ = ("batch", "callbacks", "is_settled", "position", "receipt", "since_ns", "size", "stream")

    def __init__(self, batch: Batch, stream: str, size: int, since_ns: int) -> None:
        self.batch: Batch | None = batch
        self.position = (batch.epoch, batch.seq)
        self.stream = stream
        self.size = size
        self.since_ns = since_ns
        self.is_settled = False  # acknowledged
        self.receipt: Receipt | None = None  # once it is on its way to disk
        self.callbacks: list[Callable[[], None]] = []

    def is_committed(self) -> bool:
        """Whether the far end or the disk has it."""
        return self.is_settled or (self.receipt is not None and self.receipt.is_committed())

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back once one of them has."""
        if self.is_settled:
            callback()
        elif self.receipt is not None:
            self.receipt.on_commit(callback)
        else:
            self.callbacks.append(callback)

    def settle(self) -> None:
        """The far end has it."""
        self.is_settled = True
        self.batch = None
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()

    def written(self, receipt: Receipt) -> None:
        """It is on its way to disk."""
        self.receipt = receipt
        self.batch = None
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            receipt.on_commit(callback)


class Spool:
    """For the loop's thread."""

    def __init__(
        self,
        *,
        append: Callable[[Batch, str], Receipt],
        monotonic_ns: Callable[[], int],
        max_bytes: int,
    ) -> None:
        """`append(batch, stream)` writes to the lane; positions rise."""
        self.max_bytes = max_bytes
        self.bytes = 0
        self.spilled = 0  # records written
        self.spared = 0  # records acknowledged before they had to be
        self.last: Position = (0, 0)  # of all that were ever held
        self._append = append
        self._monotonic_ns = monotonic_ns
        self._held: deque[_Held] = deque()
        self._by_position: dict[Position, _Held] = {}
        self._receipt: Receipt | None = None  # of the record written last

    def __len__(self) -> int:
        return len(self._by_position)

    def levels(self) -> tuple[Level, ...]:
        """How full it is."""
        return (HELD.at(self.bytes, self.max_bytes, self.spilled),)

    def hold(self, batch: Batch, stream: str) -> Receipt:
        """Take a numbered record. Its receipt is committed once it is acknowledged or on disk."""
        size = _RECORD_BYTES + _VALUE_BYTES * len(batch.values)
        held = _Held(batch, stream, size, self._monotonic_ns())
        self._held.append(held)
        self._by_position[held.position] = held
        self.bytes += size
        self.last = held.position
        if self.bytes > self.max_bytes:
            self.spill()
        return held

    def acknowledged(self, position: Position) -> None:
        """The far end has the record, which need not be one of these."""
        held = self._by_position.pop(position, None)
        if held is None:
            return
        self.bytes -= held.size
        self.spared += 1
        held.settle()
        while self._held and self._held[0].is_settled:
            self._held.popleft()

    def low(self) -> Position:
        """Everything up to here was acknowledged or given to the disk."""
        if not self._held:
            return self.last
        epoch, seq = self._held[0].position
        return epoch, seq - 1

    def spill(self) -> None:
        """Write all that nobody acknowledged, in order."""
        while self._held:
            self._write_first()

    def spill_late(self) -> None:
        """Write what waits too long for its acknowledgement, and what came before it. Call it each second."""
        late_ns = self._monotonic_ns() - AFTER_NS
        while self._held and self._held[0].since_ns <= late_ns:
            self._write_first()

    def settle(self, callback: Callable[[], None]) -> None:
        """Call back once everything held so far is on disk or acknowledged."""
        self.spill()
        if self._receipt is None:
            callback()
        else:
            self._receipt.on_commit(callback)

    def _write_first(self) -> None:
        held = self._held.popleft()
        batch = held.batch
        if held.is_settled or batch is None:
            return
        del self._by_position[held.position]
        self.bytes -= held.size
        self.spilled += 1
        self._receipt = self._append(batch, held.stream)
        held.written(self._receipt)
