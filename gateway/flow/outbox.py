"""What one uplink still has to send: a window in memory in front of the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from gateway.core.batch import Batch
from gateway.core.bounded import Bound, Level
from gateway.core.errors import StorageError

Position: TypeAlias = tuple[int, int]
"""(epoch, seq), compared as a tuple."""

WINDOW_VALUES_MAX: Final = (
    50_000  # values held in memory while the uplink keeps up; beyond it the journal serves
)
READ_BYTES_MAX: Final = 512 * 1024  # of journal read ahead at a time
HOLES_MAX: Final = 256  # ranges still to be read from the journal; more are joined: duplicates, never loss
_CREDIT_MAX: Final = 64.0


WINDOW: Final = Bound(
    noun="outbox_window",
    unit="values",
    what="in memory, to be sent next, while the uplink keeps up",
    beyond="the oldest are read from the journal when their turn comes",
    lost="spilled",
    lost_unit="records",
    labels=("uplink", "lane", "rule"),
    holds=("Outbox._tail",),
)
HOLES: Final = Bound(
    noun="outbox_holes",
    unit="ranges",
    what="of the journal, still to be sent",
    beyond="they are joined: duplicates, never loss",
    lost="joined",
    labels=("uplink", "lane", "rule"),
    holds=("Outbox._holes",),
)


class Replay(msgspec.Struct, frozen=True):
    """How a backlog is sent. `share`: its part of the sending slots while there is live traffic, 0 to 1."""

    live_first: bool = False
    share: float = 0.5


class StoredRecord(Protocol):
    """One record as read from the journal."""

    @property
    def position(self) -> Position:
        """Its (epoch, seq)."""
        ...

    @property
    def stream(self) -> str:
        """The stream it was recorded for."""
        ...

    @property
    def batch(self) -> Batch:
        """The values."""
        ...


class Reader(Protocol):
    """Reads committed records of one lane, in order. Called on a worker thread."""

    @property
    def position(self) -> Position:
        """Everything up to here was read."""
        ...

    @property
    def is_at_end(self) -> bool:
        """Whether the last `read` came to the end of what is committed."""
        ...

    def read(self, max_bytes: int) -> Sequence[StoredRecord]:
        """The next records; may be empty before the end too."""
        ...

    def close(self) -> None:
        """Give files back."""
        ...


class Cursor(Protocol):
    """What was acknowledged so far, on disk."""

    def acknowledge(self, after: Position, upto: Position) -> None:
        """All of ours in (after, upto] has arrived."""
        ...


class Background(Protocol):
    """A thread for blocking reads."""

    def submit(
        self, work: Callable[[], Any], *, done: Callable[[Any], None], failed: Callable[[BaseException], None]
    ) -> None:
        """Carry out `work`, then call exactly one of the callbacks on the loop."""
        ...


class Entry:
    """One record on its way. The uplink counts down `waiting` as its messages are acknowledged."""

    __slots__ = ("after", "batch", "is_historical", "outbox", "position", "stream", "waiting")

    def __init__(
        self,
        outbox: Outbox,
        *,
        after: Position,
        position: Position,
        batch: Batch,
        stream: str,
        is_historical: bool,
    ) -> None:
        self.outbox = outbox
        self.after = after
        self.position = position
        self.batch = batch
        self.stream = stream
        self.is_historical = is_historical
        self.waiting = 0

    def acknowledge(self) -> None:
        """The far end has it, or it was set aside for good."""
        self.outbox.acknowledge(self)


class _Hole:
    """(after, upto] was not sent live: it is read from the journal."""

    __slots__ = ("after", "reader", "upto")

    def __init__(self, after: Position, upto: Position) -> None:
        self.after = after
        self.upto = upto
        self.reader: Reader | None = None


class Outbox:
    """Records of one lane and some streams, for one uplink, in the order it shall send them.

    In order: what is in the journal goes first and live values wait behind it. With `live_first` they
    overtake it. Nothing here is the only copy: what falls out of the window is read from the journal.
    """

    def __init__(
        self,
        *,
        cursor: Cursor,
        open_reader: Callable[[Position], Reader],
        committed: Callable[[], Position],
        on_commit: Callable[[Callable[[], None]], None],
        background: Background,
        holes: Sequence[tuple[Position, Position]],
        end: Position,
        replay: Replay,
        wake: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """`holes`: what the cursor misses up to `end`, the last position of the journal at start.

        `on_commit(callback)` calls back once all that was offered so far is on disk.
        """
        self._cursor = cursor
        self._open_reader = open_reader
        self._committed = committed
        self._on_commit = on_commit
        self._background = background
        self._replay = replay
        self._wake = wake
        self._fail = fail
        self._holes: deque[_Hole] = deque()
        for after, upto in holes:
            if len(self._holes) < HOLES_MAX:
                self._holes.append(_Hole(after, upto))
            else:
                self._holes[-1].upto = upto
        self._tail: deque[tuple[Position, Position, Batch, str]] = deque()
        self._tail_values = 0
        self._last = end  # position of our newest record
        self._chunk: deque[StoredRecord] = deque()
        self._busy_reader: Reader | None = None
        self._awaits_commit = False
        self._credit = 0.0
        self.is_online = False
        self.in_flight = 0
        self.offered = 0
        self.sent = 0
        self.replayed = 0
        self.spilled = 0  # records that left the window because it was full
        self.joined = 0  # holes joined because there were too many
        self.unkept = 0  # records (or ranges of them) that no disk kept and that could not be sent live
        self._is_kept = True

    # From the hub

    def offer(self, batch: Batch, stream: str) -> None:
        """A new record, numbered and on its way to the disk."""
        after = self._last
        position = (batch.epoch, batch.seq)
        self._last = position
        self.offered += 1
        if not self.is_online:
            self._add_hole(after, position)
            return
        self._tail.append((after, position, batch, stream))
        self._tail_values += len(batch.values)
        while self._tail_values > WINDOW_VALUES_MAX:
            self.spilled += 1
            self._spill_oldest()
        self._wake()

    def set_replay(self, replay: Replay) -> None:
        """Send a backlog this way from now on."""
        self._replay = replay

    # From the uplink

    def online(self) -> None:
        """The far end takes records again."""
        self.is_online = True
        self._wake()

    def offline(self) -> None:
        """The far end is gone: free the window, the journal has it all."""
        self.is_online = False
        while self._tail:
            self._spill_oldest()

    def take(self) -> Entry | None:
        """The next record to send; None when there is none now (`wake` is called when there is)."""
        if self._holes and not (self._replay.live_first and self._tail and self._credit < 1):
            entry = self._take_stored()
            if entry is not None:
                self._credit = max(0.0, self._credit - 1)
                return entry
        if self._tail and (self._replay.live_first or not self._holes):
            return self._take_live()
        return None

    def acknowledge(self, entry: Entry) -> None:
        """`entry` has arrived."""
        self.in_flight -= 1
        self._cursor.acknowledge(entry.after, entry.position)

    def send_again(self, entry: Entry) -> None:
        """`entry` did not go out after all: read it from the journal once more."""
        self.in_flight -= 1
        self._leave_first_hole()
        self._put_back(entry.after, entry.position)
        self._wake()

    @property
    def is_behind(self) -> bool:
        """Whether something is still to be read from the journal."""
        return bool(self._holes)

    @property
    def backlog(self) -> int:
        """Records not acknowledged, about: numbers of other streams in between are counted too.

        Of what is stored over a restart, where numbers begin anew, only the later part is; never 0.
        """
        stored = sum(
            hole.upto[1] - hole.after[1] if hole.upto[0] == hole.after[0] else max(1, hole.upto[1])
            for hole in self._holes
        )
        return self.in_flight + len(self._tail) + stored

    @property
    def lag(self) -> int:
        """Records waiting in memory for an uplink that is there and keeps up; 0 where the journal serves."""
        return 0 if self._holes or not self.is_online else len(self._tail)

    @property
    def window(self) -> int:
        """Records waiting in memory."""
        return len(self._tail)

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (
            WINDOW.at(self._tail_values, WINDOW_VALUES_MAX, self.spilled),
            HOLES.at(len(self._holes), HOLES_MAX, self.joined),
        )

    # Live

    def _take_live(self) -> Entry:
        after, position, batch, stream = self._tail.popleft()
        self._tail_values -= len(batch.values)
        if self._holes:
            share = self._replay.share
            self._credit = min(_CREDIT_MAX, self._credit + share / max(1e-3, 1 - share))
        self.in_flight += 1
        self.sent += 1
        return Entry(self, after=after, position=position, batch=batch, stream=stream, is_historical=False)

    def _spill_oldest(self) -> None:
        after, position, batch, _stream = self._tail.popleft()
        self._tail_values -= len(batch.values)
        self._add_hole(after, position)

    def _add_hole(self, after: Position, upto: Position) -> None:
        if not self._is_kept:
            self.unkept += 1
            return
        holes = self._holes
        if holes and (holes[-1].upto >= after or len(holes) >= HOLES_MAX):
            self.joined += holes[-1].upto < after
            holes[-1].upto = upto
        else:
            holes.append(_Hole(after, upto))

    def _put_back(self, after: Position, upto: Position) -> None:
        """In its place among the holes, joined with those it touches, so that records keep their order."""
        holes = self._holes
        is_full = len(holes) >= HOLES_MAX
        self.joined += is_full
        place = next((n for n, hole in enumerate(holes) if hole.after >= after), len(holes))
        if place and (is_full or holes[place - 1].upto >= after):
            place -= 1
            holes[place].upto = max(upto, holes[place].upto)
        elif is_full:
            holes[0].after = after
        else:
            holes.insert(place, _Hole(after, upto))
        while place + 1 < len(holes) and holes[place + 1].after <= holes[place].upto:
            holes[place].upto = max(holes[place].upto, holes[place + 1].upto)
            self._let_go(holes[place + 1])
            del holes[place + 1]

    # Stored

    def _take_stored(self) -> Entry | None:
        hole = self._holes[0]
        if not self._chunk:
            self._read(hole)
            return None
        record = self._chunk[0]
        if record.position > hole.upto:
            self._close(hole)
            return self._take_stored() if self._holes else None
        self._chunk.popleft()
        after, hole.after = hole.after, record.position
        if record.position == hole.upto:
            self._close(hole)
        self.in_flight += 1
        self.sent += 1
        self.replayed += 1
        return Entry(
            self,
            after=after,
            position=record.position,
            batch=record.batch,
            stream=record.stream,
            is_historical=True,
        )

    def disk_failed(self) -> None:
        """The journal writes no more and the gateway goes on without: nothing waits for a commit any more."""
        self._is_kept = False
        self._awaits_commit = False
        self._wake()

    def _committed_more(self) -> None:
        self._awaits_commit = False
        self._wake()

    def _leave_first_hole(self) -> None:
        """What was read ahead of it is read again when its turn comes back."""
        self._chunk.clear()
        if self._holes:
            self._let_go(self._holes[0])

    def _let_go(self, hole: _Hole) -> None:
        reader, hole.reader = hole.reader, None
        if reader is not None and reader is not self._busy_reader:  # which is closed when its read is over
            reader.close()

    def _close(self, hole: _Hole) -> None:
        """All of it was handed out; what the journal no longer has of it counts as passed."""
        if hole.after < hole.upto:
            self._cursor.acknowledge(hole.after, hole.upto)
        if hole.reader is not None:
            hole.reader.close()
        self._holes.popleft()
        self._chunk.clear()

    def _read(self, hole: _Hole) -> None:
        if self._busy_reader is not None or self._awaits_commit:
            return
        reader = hole.reader or self._open_reader(hole.after)
        hole.reader = self._busy_reader = reader
        committed = self._committed()

        def done(records: Sequence[StoredRecord]) -> None:
            self._busy_reader = None
            if not self._holes or self._holes[0] is not hole or hole.reader is not reader:
                reader.close()
                self._wake()  # another one came first meanwhile
                return
            self._chunk.extend(records)
            if not records and (
                reader.position >= hole.upto or (reader.is_at_end and committed >= hole.upto)
            ):
                self._close(hole)
            elif not records and reader.is_at_end and self._is_kept:
                self._awaits_commit = True
                self._on_commit(self._committed_more)
                return
            elif not records and reader.is_at_end:
                self.unkept += 1
                self._close(hole)
            self._wake()

        def failed(error: BaseException) -> None:
            self._busy_reader = None
            if self._is_kept or not isinstance(error, StorageError):
                self._fail(error)
                return
            self.unkept += 1  # the disk failed before, and it was agreed to go on without
            if self._holes and self._holes[0] is hole:
                self._close(hole)
            self._wake()

        self._background.submit(lambda: reader.read(READ_BYTES_MAX), done=done, failed=failed)
