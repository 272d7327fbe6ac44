"""What reading the end of a lane tells at start: cursors, streams, the running time, the highest epoch."""

from __future__ import annotations

from collections import Counter

import msgspec

from gateway.disk.record import Entry, Position
from gateway.disk.segment import Segment
from gateway.journal import codec
from gateway.journal.boots import Boot
from gateway.journal.codec import CursorsNote, RecordType


class History:
    """Fed with every record that had to be read."""

    def __init__(self) -> None:
        self.epoch_max = 0
        self.cursors: CursorsNote | None = None
        self.cursors_at: Position = (0, 0)
        self.counts: dict[int, Counter[int]] = {}  # segment index → stream tag → records
        self.stream_names: dict[int, str] = {}
        self.boots: tuple[Boot, ...] = ()
        self.unreadable = 0  # control records with a sound checksum that say nothing we know
        self._boot_id = ""
        self._monotonic_ns = 0
        self._elapsed_ns = 0

    def visit(self, segment: Segment, entry: Entry) -> None:
        """One more record, in order."""
        self.epoch_max = max(self.epoch_max, entry.position[0])
        if entry.stream:
            counts = self.counts.get(segment.index)
            if counts is None:
                counts = self.counts[segment.index] = Counter()
            counts[entry.stream] += 1
            return
        try:
            self._control(entry)
        except (msgspec.DecodeError, ValueError):
            self.unreadable += 1

    def _control(self, entry: Entry) -> None:
        if entry.type == RecordType.CURSORS:
            self.cursors = codec.decode_cursors(entry.body)
            self.cursors_at = entry.position
            self._time(self.cursors.elapsed_ns, self.cursors.monotonic_ns)
        elif entry.type == RecordType.EPOCH:
            note = codec.decode_epoch(entry.body)
            self._boot_id = note.boot_id
            self._time(note.elapsed_ns, note.monotonic_ns)
        elif entry.type == RecordType.BOOTS:
            self.boots = codec.decode_boots(entry.body).boots
        elif entry.type == RecordType.STREAM:
            tag, name = codec.decode_stream(entry.body)
            self.stream_names[tag] = name

    def adopt(self, older: History) -> None:
        """Take from an older segment what the newer ones did not say."""
        self.cursors, self.cursors_at = older.cursors, older.cursors_at
        self.counts.update(older.counts)
        self.boots = self.boots or older.boots
        self.stream_names = older.stream_names | self.stream_names
        self.unreadable += older.unreadable
        self.epoch_max = max(self.epoch_max, older.epoch_max)
        if not self._boot_id:
            self._boot_id, self._monotonic_ns = older._boot_id, older._monotonic_ns
            self._elapsed_ns = older._elapsed_ns

    def _time(self, elapsed_ns: int, monotonic_ns: int) -> None:
        self._elapsed_ns = max(self._elapsed_ns, elapsed_ns)
        self._monotonic_ns = monotonic_ns

    def elapsed_ns(self, *, boot_id: str, monotonic_ns: int) -> int:
        """Running time by now. Time with the machine off is not counted: nothing ages by mistake."""
        since = monotonic_ns - self._monotonic_ns if boot_id == self._boot_id else 0
        return self._elapsed_ns + max(0, since)

    def stream_counts(self, segment: Segment) -> dict[str, int]:
        """Records of each stream in a segment, from its footer or from having read it."""
        counted = self.counts.get(segment.index)
        if counted is not None:
            return {self.stream_names.get(tag, f"#{tag:08x}"): count for tag, count in counted.items()}
        note = segment_note(segment)
        return note.counts if note is not None else {}


def segment_note(segment: Segment) -> codec.SegmentNote | None:
    """What its footer says, None where it has none."""
    try:
        return codec.decode_segment(segment.note) if segment.note else None
    except msgspec.DecodeError:
        return None
