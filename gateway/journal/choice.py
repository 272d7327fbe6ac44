"""Which part of a lane is made thinner next, so that what is left covers the whole outage evenly."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.disk.log import Log, random_salt
from gateway.disk.record import Position
from gateway.disk.segment import Segment
from gateway.journal import codec
from gateway.journal.acknowledged import Range
from gateway.journal.cursor import Cursor, Full
from gateway.journal.history import segment_note
from gateway.journal.settings import JournalSettings
from gateway.journal.thinning import FACTOR_MAX, Task

ABOVE: Final = 0.75  # of a cursor's bound: what comes while segments are rewritten finds room above it
SOURCES_MAX: Final = 64  # segments made into one at a time
SOURCE_SEGMENTS_MAX: Final = 4  # … and so many segments' bytes


class Choice(msgspec.Struct, frozen=True):
    """What to rewrite."""

    sources: tuple[Segment, ...]
    factor: int


def is_due(lag_bytes: int, cursor: Cursor) -> bool:
    """Whether a backlog of so many bytes should be thinned."""
    return cursor.full is Full.THIN and lag_bytes > int(cursor.max_bytes * ABOVE)


def choose(
    cursor: Cursor, segments: Sequence[Segment], *, segment_bytes: int, useless: Collection[str]
) -> Choice | None:
    """The oldest segments of its backlog that are not as thin as the rest; None where all are as they can be.

    `useless`: names of segments that thinning did not make smaller.

    All are brought to one factor, from the oldest on, before the factor is doubled: so each record is
    rewritten a few times at most, and the values kept cover the outage evenly.
    """
    sealed = [one for one in segments if is_settled(one) and one.last > cursor.low]
    levels = [FACTOR_MAX if one.name in useless else _level(one, cursor.streams) for one in sealed]
    factor = max([2, *(level for level in levels if level < FACTOR_MAX)])
    while factor <= FACTOR_MAX:
        found = _run(sealed, levels, factor, segment_bytes)
        if found:
            return Choice(found, factor)
        factor *= 2
    return None


def _run(
    sealed: Sequence[Segment], levels: Sequence[int], factor: int, segment_bytes: int
) -> tuple[Segment, ...]:
    """The oldest neighbours below the factor that make one segment together."""
    run: list[Segment] = []
    taken = expected = 0
    for segment, level in zip(sealed, levels, strict=True):
        if level >= factor:
            if run:
                break
            continue
        size = segment.size * level // factor
        is_enough = (
            expected + size > segment_bytes or taken + segment.size > SOURCE_SEGMENTS_MAX * segment_bytes
        )
        if run and (is_enough or len(run) >= SOURCES_MAX):
            break
        run.append(segment)
        taken += segment.size
        expected += size
    return tuple(run)


def is_settled(segment: Segment) -> bool:
    """Whether nothing more will change in it."""
    return segment.sealed and segment.size == segment.committed


def _level(segment: Segment, streams: Iterable[str]) -> int:
    note = segment_note(segment)
    thinned: Mapping[str, int] = note.thinned if note is not None else {}
    return min((thinned.get(stream, 1) for stream in streams), default=FACTOR_MAX)


def task_of(
    choice: Choice,
    cursor: Cursor,
    cursors: Iterable[Cursor],
    *,
    log: Log,
    lane: int,
    settings: JournalSettings,
    created_ns: int,
    elapsed_ns: int,
    is_history_kept: bool,
    salt: Callable[[], int] = random_salt,
) -> Task:
    """How to make them thinner: only what no other cursor needs; what nobody needs goes.

    `elapsed_ns`: the running time now, for segments that do not say when they ended.
    """
    others = [one for one in cursors if one is not cursor]
    own = [stream for stream in cursor.streams if not any(stream in one.streams for one in others)]
    notes = [segment_note(segment) for segment in choice.sources]
    thinned = [note.thinned if note is not None else {} for note in notes]
    names = {name for note in notes if note is not None for name in note.counts}
    passed: dict[int, tuple[Position, tuple[Range, ...]]] = {}
    if not is_history_kept:
        for name in names:
            wanting = [one for one in (cursor, *others) if name in one.streams]
            low = min((one.low for one in wanting), default=(1 << 32, 0))
            passed[codec.stream_tag(name)] = (low, wanting[0].ranges if len(wanting) == 1 else ())
    last = notes[-1]
    levels = {name: min(one.get(name, 1) for one in thinned) for name in names}
    return Task(
        directory=log.directory,
        lane=lane,
        salt=salt(),
        sources=choice.sources,
        streams={name: level for name, level in levels.items() if level > 1}
        | dict.fromkeys(own, choice.factor),
        steps={
            name: {
                segment.index: max(1, choice.factor // one.get(name, 1))
                for segment, one in zip(choice.sources, thinned, strict=True)
            }
            for name in own
        },
        passed=passed,
        created_ns=created_ns,
        compression=settings.compression,
        elapsed_ns=last.elapsed_ns if last is not None else elapsed_ns,
    )
