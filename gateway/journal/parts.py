"""Which parts of a lane a question about a time has to read, and when the gateway ran at all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from gateway.disk.record import Position
from gateway.disk.segment import Segment
from gateway.journal.lane_scan import Part
from gateway.journal.places import Chunk, Places, Run
from gateway.journal.samples import Gap, Why

Known: TypeAlias = list[tuple[Segment, Places]]
"""The segments of a lane, oldest first, with what stands where in them."""


def touching(known: Known, from_ns: int, to_ns: int, after: Position = (0, 0)) -> list[Part]:
    """Every run of chunks with values in [from_ns, to_ns), none that ends before `after`."""
    return list(_grouped(known, lambda chunk: _touches(chunk, from_ns, to_ns), after))


def spanning(known: Known, from_ns: int, to_ns: int) -> list[Part]:
    """From the first chunk that has values of the time to the last, with all between them."""
    chunks = [
        (number, place)
        for number, (_, places) in enumerate(known)
        for place, chunk in enumerate(places.chunks)
        if _touches(chunk, from_ns, to_ns)
    ]
    if not chunks:
        return []
    first, last = chunks[0], chunks[-1]
    parts: list[Part] = []
    for number in range(first[0], last[0] + 1):
        segment, places = known[number]
        begin = first[1] if number == first[0] else 0
        end = last[1] + 1 if number == last[0] else len(places.chunks)
        if begin < end:
            parts.append(Part(segment, places, begin, end))
    return parts


def before(known: Known, parts: list[Part], from_ns: int) -> Iterator[tuple[Part, int]]:
    """Single chunks backwards, from the one before `parts`; where those are none, from before `from_ns`.

    With each the highest time that it or any chunk before it has.
    """
    ordered = [(segment, places, place) for segment, places in known for place in range(len(places.chunks))]
    if parts:
        key = (parts[0].segment.index, parts[0].first)
        end = next(n for n, (segment, _, place) in enumerate(ordered) if (segment.index, place) == key)
    else:
        early = [n for n, (_, places, place) in enumerate(ordered) if places.chunks[place].high_ns < from_ns]
        end = early[-1] + 1 if early else 0
    early_parts = [Part(segment, places, place, place + 1) for segment, places, place in ordered[:end]]
    highs = list(itertools.accumulate((part.chunk.high_ns for part in early_parts), max))
    yield from reversed(list(zip(early_parts, highs, strict=True)))


def merged_runs(every: Iterable[Known]) -> dict[int, Run]:
    """Epoch → first and last sign of life in any lane, in the order of epochs."""
    runs: dict[int, Run] = {}
    for known in every:
        own: dict[int, Run] = {}
        for _, places in known:
            for run in places.runs:  # the last one counts: the clock may have been set back in between
                own[run.epoch] = Run(run.epoch, own.get(run.epoch, run).first_ns, run.last_ns)
        for epoch, run in own.items():
            other = runs.get(epoch, run)
            runs[epoch] = Run(epoch, min(run.first_ns, other.first_ns), max(run.last_ns, other.last_ns))
    return dict(sorted(runs.items()))


def off_gaps(runs: Mapping[int, Run]) -> list[Gap]:
    """The times between the runs; one over which the clock was set back is as long as nobody knows."""
    return [
        Gap(
            key=(new.epoch, 0, 0),
            from_ns=old.last_ns,
            to_ns=max(old.last_ns, new.first_ns),
            why=Why.OFF,
        )
        for old, new in itertools.pairwise(runs.values())
    ]


def _touches(chunk: Chunk, from_ns: int, to_ns: int) -> bool:
    return chunk.high_ns >= from_ns and chunk.low_ns < to_ns


def _grouped(known: Known, is_wanted: Callable[[Chunk], bool], after: Position) -> Iterator[Part]:
    for number, (segment, places) in enumerate(known):
        following = next((more.chunks[0].after for _, more in known[number + 1 :] if more.chunks), None)
        chunks = places.chunks
        begin: int | None = None
        for place, chunk in enumerate(chunks):
            end = chunks[place + 1].after if place + 1 < len(chunks) else following
            is_in = is_wanted(chunk) and (end is None or end >= after)
            if is_in and begin is None:
                begin = place
            elif not is_in and begin is not None:
                yield Part(segment, places, begin, place)
                begin = None
        if begin is not None:
            yield Part(segment, places, begin, len(chunks))
