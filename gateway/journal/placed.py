"""Where things stand in each segment of a lane: of the one being written from memory, of others by footer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import msgspec

from gateway.disk.filesystem import FileSystem
from gateway.disk.record import Entry
from gateway.disk.recovery import scan
from gateway.disk.segment import Segment
from gateway.journal import codec
from gateway.journal.codec import RecordType
from gateway.journal.places import PlaceBook, Places

DECODED_MAX: Final = 512  # segments whose footer is kept decoded; others are decoded again when asked for


class LanePlaces:
    """`book`, `visit` and `sealed` belong to the owner's thread, `of` to any."""

    def __init__(self) -> None:
        self._books: dict[int, PlaceBook] = {}  # by index, of segments not sealed yet
        self._decoded: OrderedDict[tuple[int, int], Places] = OrderedDict()
        self._lock = threading.Lock()
        self._forgotten = 0  # of the decoded

    @property
    def kept(self) -> tuple[int, int, int]:
        """Footers kept decoded: now, at most, forgotten since start."""
        return len(self._decoded), DECODED_MAX, self._forgotten

    def book(self, segment: Segment) -> PlaceBook:
        """What to tell about records appended to it."""
        book = self._books.get(segment.index)
        if book is None:
            book = self._books[segment.index] = PlaceBook()
        return book

    def visit(self, segment: Segment, entry: Entry) -> None:
        """A record read at start."""
        note_entry(self.book(segment), entry)

    def sealed(self, segment: Segment) -> Places | None:
        """It gets its footer: what stands in it, which is kept there from now on."""
        book = self._books.get(segment.index)
        return None if book is None else book.places()

    def drop(self, segment: Segment) -> None:
        """Its footer says it all, or it is gone: what was decoded of it goes too."""
        self._books.pop(segment.index, None)
        with self._lock:
            self._decoded.pop((segment.index, segment.salt), None)

    def of(self, segment: Segment) -> Places | None:
        """None for a segment of an older version: it must be read."""
        book = self._books.get(segment.index)
        if book is not None:
            return book.places().settled(segment)
        key = (segment.index, segment.salt)
        with self._lock:
            found = self._decoded.get(key)
        return found if found is not None else self.keep(key, _from_footer(segment))

    def keep(self, key: tuple[int, int], places: Places | None) -> Places | None:
        """Remember what was found out about a sealed segment."""
        if places is not None:
            with self._lock:
                self._decoded[key] = places
                if len(self._decoded) > DECODED_MAX:
                    self._decoded.popitem(last=False)
                    self._forgotten += 1
        return places

    def read(self, filesystem: FileSystem, segment: Segment) -> Places:
        """By reading all of it: for a sealed segment that does not say. Blocking. Raises `OSError`."""
        book = PlaceBook()
        file = filesystem.open_read(segment.path)
        try:
            # A copy: `scan` corrects what it is given, and this one belongs to the owner's thread.
            scan(file, msgspec.structs.replace(segment), lambda _, entry: note_entry(book, entry))
        finally:
            file.close()
        places = book.places()
        self.keep((segment.index, segment.salt), places)
        return places


def note_entry(book: PlaceBook, entry: Entry) -> None:
    """One record as it stands in a segment."""
    if entry.stream:
        epoch, seq = entry.position
        try:
            span = codec.batch_times(entry)
        except (msgspec.DecodeError, ValueError):
            return  # its reader quarantines it
        book.add_batch(entry.offset, (epoch, seq - 1), span)
        book.add_life(epoch, entry.time_ns)
    elif entry.type == RecordType.LAYOUT:
        book.add_layout(entry.body[: codec.LAYOUT_ID_BYTES], entry.offset)
    elif entry.type == RecordType.STREAM:
        try:
            book.add_stream(codec.decode_stream(entry.body)[0], entry.offset)
        except ValueError:
            return  # whoever needs it quarantines what it defines
    elif entry.time_ns:
        book.add_life(entry.position[0], entry.time_ns)


def _from_footer(segment: Segment) -> Places | None:
    try:
        return codec.decode_segment(segment.note).places if segment.note else None
    except msgspec.DecodeError:
        return None
