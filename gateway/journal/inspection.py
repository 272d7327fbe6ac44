"""Looks at a journal's directory without taking part: nothing is locked, cut, written or begun anew.

Made for a stopped gateway and good for a running one too: what is being written at that moment is then the
unfinished end, and a file that is deleted meanwhile is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from gateway.core.errors import StorageError
from gateway.core.point import Priority
from gateway.disk.filesystem import FileSystem
from gateway.disk.record import Damage, Position
from gateway.disk.recovery import scan, superseded
from gateway.disk.segment import HEADER_BYTES, Segment, parse_name, read_footer, read_header
from gateway.journal.codec import CursorsNote, Layouts
from gateway.journal.history import History
from gateway.journal.reader import Reader, Record

_READ_BYTES: Final = 1 << 20


class LaneView(msgspec.Struct):
    """The segments of one lane as they were when it was looked at."""

    priority: Priority
    files: list[Segment]  # all of them sealed as far as a reader is concerned
    cursors: CursorsNote | None  # as they were saved last
    unsealed: int  # segments without a footer: the one being written, or left so by a crash
    torn: Damage | None  # the unfinished end of the last segment
    damage: list[Damage]  # found in segments that had to be read, and by `records`

    @property
    def name(self) -> str:
        """As in the status and in metrics."""
        return self.priority.name.lower()

    @property
    def size_bytes(self) -> int:
        """On disk."""
        return sum(segment.size for segment in self.files)

    @property
    def last(self) -> Position:
        """Of the newest record, (0, 0) where there is none."""
        return max((segment.last for segment in self.files), default=(0, 0))

    def segments(self) -> tuple[Segment, ...]:
        """What a `Reader` asks of a log."""
        return tuple(self.files)

    def records(self, filesystem: FileSystem, *, after: Position = (0, 0)) -> Iterator[Record]:
        """Every readable record behind a position, in order; what is damaged is added to `damage`.

        Raises `StorageError` where the disk cannot be read.
        """
        known = {(damage.segment, damage.offset) for damage in self.damage}
        if self.torn is not None:
            known.add((self.torn.segment, self.torn.offset))

        def report(_segment: str, damage: Damage) -> None:
            if (damage.segment, damage.offset) not in known:
                self.damage.append(damage)

        reader = Reader(
            self, filesystem=filesystem, layouts=Layouts(), after=after, cursor=None, report=report
        )
        try:
            while not reader.is_at_end:
                yield from reader.read(_READ_BYTES)
        finally:
            reader.close()


def journal_directory(directory: Path) -> Path:
    """`directory` itself, or the journal in a gateway's state directory. Raises `StorageError`."""
    for found in (directory / "journal", directory):
        if any((found / lane.name.lower()).is_dir() for lane in Priority):
            return found
    lanes = " or ".join(lane.name.lower() for lane in Priority)
    raise StorageError(
        f"{directory}: no journal here: expected a state directory with `journal` in it, or the journal's own"
        f" directory with {lanes} in it"
    )


def look(directory: Path, filesystem: FileSystem) -> list[LaneView]:
    """Every lane of a journal, the most urgent first. Reads footers, and whole segments without one.

    Raises `StorageError`: it cannot be read, or its format is newer than this program.
    """
    lanes = sorted(Priority, reverse=True)
    try:
        found = [_look(lane, directory / lane.name.lower(), filesystem) for lane in lanes]
    except OSError as error:
        where = error.filename or directory
        raise StorageError(f"{where}: cannot read: {error.strerror or error}") from error
    return [view for view in found if view is not None]


def _look(priority: Priority, directory: Path, filesystem: FileSystem) -> LaneView | None:
    try:
        listed = filesystem.listdir(directory)
    except FileNotFoundError:
        return None
    stale = superseded(listed)
    names = sorted((parsed, name) for name in listed if name not in stale and (parsed := parse_name(name)))
    view = LaneView(priority, [], None, 0, None, [])
    history = History()
    for number, (_, name) in enumerate(names, 1):
        try:
            file = filesystem.open_read(directory / name)
        except FileNotFoundError:  # the gateway runs, and everybody has passed it
            continue
        try:
            size = file.size()
            segment = read_footer(file, directory / name, size)
            if segment is None:
                after = view.files[-1].last if view.files else (0, 0)
                header = read_header(file.pread(HEADER_BYTES, 0), directory / name)
                index, salt = parse_name(name) or (0, 0)
                start = after if header is None else header
                segment = Segment(path=directory / name, index=index, salt=salt, after=start, last=start)
                found, _ = scan(file, segment, history.visit)
                view.unsealed += 1
                if number == len(names) and found and found[-1].before is None:
                    view.torn = found.pop()
                    segment.size = segment.committed = view.torn.offset
                view.damage += found
        finally:
            file.close()
        segment.sealed = True
        view.files.append(segment)
    view.cursors = history.cursors or _saved_cursors(view.files, filesystem)
    return view


def _saved_cursors(segments: list[Segment], filesystem: FileSystem) -> CursorsNote | None:
    for segment in reversed(segments):
        history = History()
        try:
            file = filesystem.open_read(segment.path)
        except FileNotFoundError:
            continue
        try:
            scan(file, segment, history.visit)
        finally:
            file.close()
        if history.cursors is not None:
            return history.cursors
    return None
