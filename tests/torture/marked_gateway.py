"""`gateway …` as it is shipped, on a file system that marks how far it is.

    python -m tests.torture.marked_gateway MARKS SEGMENT_BYTES run DIR --state STATE

Beside the file system only two things are different: segments are small, so that they end often, and what
the journal's owner was told to be committed or acknowledged is noted too.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from gateway.app import cli, store
from gateway.core.point import Priority
from gateway.disk.record import Position
from gateway.disk.writer import Group
from gateway.journal.cursor import Cursor
from gateway.journal.settings import JournalSettings
from tests.torture.marks import Mark, Marks, as_filesystem

LANE = Priority.NORMAL  # the one that the sites of the torture write to


def note_commits(marks: Marks) -> None:
    """Each group whose commit the owner hears of."""
    commit = Group.commit

    def noted(group: Group) -> object:
        if group.last[1] and group.last > marks.place(LANE, Mark.COMMITTED_EPOCH):
            marks.set_place(LANE, Mark.COMMITTED_EPOCH, group.last)
        return commit(group)

    Group.commit = noted  # type: ignore[method-assign,assignment]  # what this module is for


def note_acknowledgements(marks: Marks) -> None:
    """Each movement of a cursor."""
    acknowledge = Cursor.acknowledge

    def noted(cursor: Cursor, after: Position, upto: Position) -> None:
        acknowledge(cursor, after, upto)
        if cursor.low > marks.place(LANE, Mark.ACKNOWLEDGED_EPOCH):
            marks.set_place(LANE, Mark.ACKNOWLEDGED_EPOCH, cursor.low)

    Cursor.acknowledge = noted  # type: ignore[method-assign]  # what this module is for


def main() -> None:
    """Run the command line behind the first two words."""
    path, segment_bytes, *words = sys.argv[1:]
    marks = Marks(Path(path))
    note_commits(marks)
    note_acknowledgements(marks)
    store.RealFileSystem = partial(as_filesystem, marks)  # type: ignore[misc,assignment]  # its only maker
    store.JournalSettings = partial(JournalSettings, segment_bytes=int(segment_bytes))  # type: ignore[misc,assignment]  # as above
    sys.argv = ["gateway", *words]
    cli.main()


if __name__ == "__main__":
    main()
