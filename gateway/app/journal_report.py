"""`gateway journal`: what stands in a journal, for people (`stat`) and for programs (`dump`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from gateway.api.source import rfc3339
from gateway.core.quality import describe
from gateway.disk.filesystem import FileSystem, RealFileSystem
from gateway.disk.record import Position
from gateway.journal.inspection import LaneView, journal_directory, look
from gateway.journal.reader import Record

EXIT_DAMAGED: Final = 1
LISTED_MAX: Final = 20


def dump(directory: Path, *, device: str | None, after: Position) -> int:
    """One JSON object for each record, oldest first within its lane; 1 where something is damaged."""
    filesystem = RealFileSystem()
    views = look(journal_directory(directory), filesystem)
    out = sys.stdout.buffer
    for view in views:
        for record in view.records(filesystem, after=after):
            if device is None or record.batch.layout.device == device:
                out.write(msgspec.json.encode(as_object(view.name, record)) + b"\n")
    out.flush()
    return _say_damage(views)


def as_object(lane: str, record: Record) -> dict[str, Any]:
    """A record in the words of `dump`.

    `q` names what is not good, `source` times that the device gave, `tq` times that cannot be trusted, `m`
    how many values were taken out before one.
    """
    batch = record.batch
    said: dict[str, Any] = {
        "lane": lane,
        "e": record.position[0],
        "n": record.position[1],
        "rule": record.stream,
        "device": batch.layout.device,
        "scan": batch.layout.scan,
        "config": record.config_version,
        "received": rfc3339(batch.received_ns),
    }
    rows = list(batch.rows())
    quality = {point.tag: describe(quality) for point, _value, quality, _time in rows if quality}
    source = {point.tag: rfc3339(time_ns) for point, _value, _quality, time_ns in rows if time_ns is not None}
    if len({point.tag for point, *_ in rows}) < len(rows):  # a burst of events: an object holds a tag once
        said["events"] = [[point.tag, value, describe(q), time] for point, value, q, time in rows]
        return said
    said["v"] = {point.tag: value for point, value, _quality, _time in rows}
    tags = [point.tag for point, *_ in rows]
    doubted, missing = _column(batch.time_quality, tags), _column(batch.missing, tags)
    if doubted:
        said["tq"] = {tag: describe(one) for tag, one in doubted.items()}
    if missing:
        said["m"] = missing
    if quality:
        said["q"] = quality
    if source:
        said["source"] = source
    return said


def _column(column: int | tuple[int, ...], tags: Sequence[str]) -> dict[str, int]:
    """What is not 0 of a column, by tag."""
    values = column if isinstance(column, tuple) else (column,) * len(tags)
    return {tag: one for tag, one in zip(tags, values, strict=True) if one}


def stat(directory: Path, *, is_verified: bool) -> int:
    """Lanes, segments, epochs, cursors; with `is_verified` every record is read. 1 where damaged."""
    filesystem = RealFileSystem()
    found = journal_directory(directory)
    views = look(found, filesystem)
    click.echo(f"{found}: {_size(sum(view.size_bytes for view in views))} in {len(views)} lanes")
    for view in views:
        for line in _lane(view, filesystem, is_verified=is_verified):
            click.echo(line)
    return _say_damage(views)


def _lane(view: LaneView, filesystem: FileSystem, *, is_verified: bool) -> Iterator[str]:
    records = sum(segment.records for segment in view.files)
    times = [
        time
        for segment in view.files
        if segment.records
        for time in (segment.first_time_ns, segment.last_time_ns)
    ]
    files = "1 segment" if len(view.files) == 1 else f"{len(view.files)} segments"
    yield (
        f"lane {view.name}: {records} records, {_size(view.size_bytes)} in {files}"
        f" ({view.unsealed} not sealed)"
    )
    if times:
        yield f"  {rfc3339(min(times))} to {rfc3339(max(times))}, last {_place(view.last)}"
    if view.torn is not None:
        yield (
            f"  end: {view.torn.length} bytes of {view.torn.segment} are not whole: being written, or torn"
            " by a crash; the next start cuts them"
        )
    for cursor in () if view.cursors is None else view.cursors.cursors:
        behind = "has everything" if cursor.low >= view.last else f"has everything up to {_place(cursor.low)}"
        ranges = f" and {len(cursor.ranges)} ranges above" if cursor.ranges else ""
        dropped = f", {cursor.dropped} records dropped" if cursor.dropped else ""
        thinned = f", {cursor.thinned} values thinned out" if cursor.thinned else ""
        yield f"  rule {cursor.name}"
        yield f"    {behind}{ranges}{dropped}{thinned} (as last saved)"
    if is_verified:
        yield from _epochs(view, filesystem)


def _epochs(view: LaneView, filesystem: FileSystem) -> Iterator[str]:
    """Numbers of one lane have gaps where another lane, or nothing that was kept, has them."""
    counts: dict[int, list[int]] = {}  # epoch → records, first, last
    for record in view.records(filesystem):
        epoch, seq = record.position
        counted = counts.setdefault(epoch, [0, seq, seq])
        counted[0] += 1
        counted[2] = seq
    for epoch, (count, first, last) in sorted(counts.items()):
        others = last - first + 1 - count
        elsewhere = f", {others} of them not in this lane" if others else ""
        yield f"  epoch {epoch}: {count} records, numbers {first} to {last}{elsewhere}"


def _say_damage(views: list[LaneView]) -> int:
    damage = [(view.name, one) for view in views for one in view.damage]
    for lane, one in damage[:LISTED_MAX]:
        click.echo(f"lane {lane}: damaged: {one}", err=True)
    if len(damage) > LISTED_MAX:
        click.echo(f"and {len(damage) - LISTED_MAX} more damaged places", err=True)
    return EXIT_DAMAGED if damage else 0


def _place(position: Position) -> str:
    return f"{position[0]}/{position[1]}" if position != (0, 0) else "none"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count} bytes"
