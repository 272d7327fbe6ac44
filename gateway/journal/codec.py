"""Batches and what belongs to them as record bodies: msgpack, columns kept as columns.

A batch refers to its layout by a checksum of the layout's definition, which stands earlier in the same
segment. So a definition that was lost can never be mistaken for another one.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from gateway.core.batch import Batch, Cause, Kind, Times
from gateway.core.point import Layout, Point, Value
from gateway.core.quality import Quality
from gateway.disk.record import Entry, Position
from gateway.journal.boots import Boot
from gateway.journal.places import Places, Span, value_times


class RecordType(enum.IntEnum):
    """Types of the records in a lane's log."""

    EPOCH = 1  # where and when this run writes; first in every segment
    CURSORS = 2  # every cursor of the lane, as of this place in the log
    STREAM = 3  # tag → name
    LAYOUT = 4  # id → device, scan, attributes, points, configuration version
    BATCH = 5
    BOOTS = 6  # boots of the machine, and what their running time was by a synchronised clock


class EpochNote(msgspec.Struct, array_like=True, frozen=True):
    """Who writes from here on. `elapsed_ns`: running time of the journal over all boots, never stepping."""

    epoch: int
    boot_id: str
    wall_ns: int
    monotonic_ns: int
    elapsed_ns: int
    config_version: str


class CursorNote(msgspec.Struct, array_like=True, frozen=True):
    """One cursor as saved. Fields are only ever added at the end, with a default."""

    name: str
    streams: tuple[str, ...]
    low: Position
    ranges: tuple[tuple[Position, Position], ...]
    keep_ns: int
    max_bytes: int
    full: str
    dropped: int
    dropped_upto: Position
    thinned: int = 0


class CursorsNote(msgspec.Struct, array_like=True, frozen=True):
    """All cursors of a lane, and the time they were saved at."""

    monotonic_ns: int
    elapsed_ns: int
    cursors: tuple[CursorNote, ...]


class BootsNote(msgspec.Struct, array_like=True, frozen=True):
    """All boots known."""

    boots: tuple[Boot, ...]


class SegmentNote(msgspec.Struct, array_like=True, frozen=True):
    """What a sealed segment's footer says for us: when it ended, its records by stream, what stands where."""

    elapsed_ns: int
    counts: dict[str, int]
    places: Places | None = None  # none in what older versions sealed
    thinned: dict[str, int] = {}  # stream → of how many values one was kept


class StoredBatch(msgspec.Struct, array_like=True, gc=False):
    """A batch's body. Numbers and texts that msgpack has no word for stay as they are stored."""

    # `Any` for the values: msgpack itself keeps bool, int, float, str, bytes and nil apart.
    values: tuple[Any, ...]
    monotonic_ns: int
    quality: Quality | tuple[Quality, ...]
    columns: tuple[int, ...] | None
    kind: Kind
    cause: Cause
    source_time_ns: Times
    time_quality: Quality | tuple[Quality, ...]
    native: int | tuple[int | None, ...] | None
    missing: int | tuple[int, ...] = 0  # not there where it says nothing


class _StoredTimes(msgspec.Struct, array_like=True, gc=False):
    # The same array as `_StoredBatch`: what only times are wanted of is skipped, not decoded.
    values: msgspec.Raw
    monotonic_ns: int
    quality: msgspec.Raw
    columns: msgspec.Raw
    kind: msgspec.Raw
    cause: msgspec.Raw
    source_time_ns: Times
    time_quality: Quality | tuple[Quality, ...]


class _StoredLayout(msgspec.Struct, array_like=True, frozen=True):
    device: str
    scan: str
    attributes: tuple[tuple[str, str], ...]
    points: tuple[Point, ...]


class _Definition(msgspec.Struct, array_like=True, frozen=True):
    config_version: str
    content: bytes  # a _StoredLayout


_WIDE_INT: Final = 1  # msgpack extension: an integer beyond 64 bits, two's complement, little endian
_ODD_TEXT: Final = 2  # msgpack extension: text with lone surrogates
LAYOUT_ID_BYTES: Final = 4

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_times: Final = msgspec.msgpack.Decoder(_StoredTimes).decode
_decode_layout: Final = msgspec.msgpack.Decoder(_StoredLayout).decode
_decode_definition: Final = msgspec.msgpack.Decoder(_Definition).decode
_decode_epoch: Final = msgspec.msgpack.Decoder(EpochNote).decode
_decode_cursors: Final = msgspec.msgpack.Decoder(CursorsNote).decode
_decode_boots: Final = msgspec.msgpack.Decoder(BootsNote).decode
_decode_segment: Final = msgspec.msgpack.Decoder(SegmentNote).decode


def _extension(code: int, data: memoryview) -> int | str:
    if code == _WIDE_INT:
        return int.from_bytes(data, "little", signed=True)
    if code == _ODD_TEXT:
        return bytes(data).decode("utf-8", "surrogatepass")
    raise ValueError(f"extension {code} is none of ours")


_decode_stored: Final = msgspec.msgpack.Decoder(StoredBatch).decode
_decode_batch: Final = msgspec.msgpack.Decoder(StoredBatch, ext_hook=_extension).decode


def _storable(value: Value) -> Any:
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        size = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(_WIDE_INT, value.to_bytes(size, "little", signed=True))
    if isinstance(value, str) and not value.isascii():
        return msgspec.msgpack.Ext(_ODD_TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def encode_batch(batch: Batch, layout_id: bytes) -> bytes:
    """Everything of a batch but epoch, seq and received time, which the record's header has."""
    values: tuple[Any, ...] = batch.values
    while True:
        row = (
            values,
            batch.monotonic_ns,
            batch.quality,
            batch.columns,
            batch.kind,
            batch.cause,
            batch.source_time_ns,
            batch.time_quality,
            batch.native,
            *((batch.missing,) if batch.missing else ()),
        )
        try:
            return layout_id + _encode(row)
        except (OverflowError, UnicodeEncodeError):
            if values is not batch.values:
                raise
            values = tuple(map(_storable, batch.values))


def decode_batch(entry: Entry, layout: Layout) -> Batch:
    """Raises `msgspec.DecodeError` or `ValueError` where the body is no batch of this format."""
    stored = _decode_batch(memoryview(entry.body)[LAYOUT_ID_BYTES:])
    return Batch(
        layout=layout,
        values=stored.values,
        received_ns=entry.time_ns,
        monotonic_ns=stored.monotonic_ns,
        quality=stored.quality,
        columns=stored.columns,
        kind=stored.kind,
        cause=stored.cause,
        source_time_ns=stored.source_time_ns,
        time_quality=stored.time_quality,
        native=stored.native,
        missing=stored.missing,
        epoch=entry.position[0],
        seq=entry.position[1],
    )


def batch_times(entry: Entry) -> Span:
    """Between which times its values lie; a fraction of the cost of decoding it. Raises as `decode_batch`."""
    stored = _decode_times(memoryview(entry.body)[LAYOUT_ID_BYTES:])
    return value_times(stored.source_time_ns, stored.time_quality, entry.time_ns)


def stored_columns(body: bytes) -> Sequence[int]:
    """The columns of a batch's body. Raises as `thin_batch`."""
    stored = _decode_stored(memoryview(body)[LAYOUT_ID_BYTES:])
    return range(len(stored.values)) if stored.columns is None else stored.columns


def thin_batch(
    body: bytes, choose: Callable[[StoredBatch], tuple[list[int], tuple[int, ...]]]
) -> bytes | None:
    """The batch with the rows that `choose` names and how many values are missing before each.

    None where it names none. Raises `msgspec.DecodeError` or `ValueError` where the body is no batch.
    """
    stored = _decode_stored(memoryview(body)[LAYOUT_ID_BYTES:])
    rows, missing = choose(stored)
    if not rows:
        return None
    if len(rows) == len(stored.values) and not any(missing) and not stored.missing:
        return body
    columns = range(len(stored.values)) if stored.columns is None else stored.columns
    is_whole = len(rows) == len(stored.values)
    thinned = StoredBatch(
        values=_rows(stored.values, rows),
        monotonic_ns=stored.monotonic_ns,
        quality=_rows(stored.quality, rows),
        columns=stored.columns if is_whole else tuple([columns[row] for row in rows]),
        kind=stored.kind,
        cause=stored.cause,
        source_time_ns=_rows(stored.source_time_ns, rows),
        time_quality=_rows(stored.time_quality, rows),
        native=_rows(stored.native, rows),
        missing=missing if any(missing) else 0,
    )
    return body[:LAYOUT_ID_BYTES] + _encode(thinned)


def _rows(column: Any, rows: list[int]) -> Any:
    return tuple([column[row] for row in rows]) if isinstance(column, tuple) else column


def layout_content(layout: Layout) -> bytes:
    """Bytes that are equal exactly for layouts that say the same."""
    attributes = tuple(sorted(layout.attributes.items()))
    return _encode(_StoredLayout(layout.device, layout.scan, attributes, layout.points))


def encode_definition(content: bytes, config_version: str) -> tuple[bytes, bytes]:
    """(layout id, body of the definition record)."""
    definition = _encode(_Definition(config_version, content))
    layout_id = crc32(definition).to_bytes(LAYOUT_ID_BYTES, "little")
    return layout_id, layout_id + definition


def decode_definition(body: bytes) -> tuple[bytes, bytes, str]:
    """(layout id, content, configuration version)."""
    definition = _decode_definition(memoryview(body)[LAYOUT_ID_BYTES:])
    return body[:LAYOUT_ID_BYTES], definition.content, definition.config_version


def stream_tag(name: str) -> int:
    """The number that stands for a stream in record headers. 0 is for control records."""
    return crc32(name.encode()) or 1


def encode_stream(name: str) -> bytes:
    """Body of the record that defines a stream."""
    return name.encode()


def decode_stream(body: bytes) -> tuple[int, str]:
    """(tag, name)."""
    name = body.decode()
    return stream_tag(name), name


def encode_note(note: EpochNote | CursorsNote | SegmentNote | BootsNote) -> bytes:
    """Body of a control record, or a footer's note."""
    return _encode(note)


def decode_epoch(body: bytes) -> EpochNote:
    """Raises `msgspec.DecodeError`."""
    return _decode_epoch(body)


def decode_cursors(body: bytes) -> CursorsNote:
    """Raises `msgspec.DecodeError`."""
    return _decode_cursors(body)


def decode_boots(body: bytes) -> BootsNote:
    """Raises `msgspec.DecodeError`."""
    return _decode_boots(body)


def decode_segment(note: bytes) -> SegmentNote:
    """Raises `msgspec.DecodeError`."""
    return _decode_segment(note)


RECONSTRUCTED_MAX: Final = 1024
"""Layouts kept that no configuration has any more; beyond it they are made again when met again."""


class Layouts:
    """Gives stored layouts their live object back, and any other one object per content."""

    def __init__(self) -> None:
        self._live: dict[bytes, Layout] = {}
        self._reconstructed: OrderedDict[bytes, Layout] = OrderedDict()
        self.forgotten = 0  # reconstructed ones given up

    @property
    def kept(self) -> int:
        """Reconstructed layouts in memory, at most `RECONSTRUCTED_MAX`."""
        return len(self._reconstructed)

    def register(self, layout: Layout) -> bytes:
        """The configuration has this one. Returns its content."""
        content = layout_content(layout)
        self._live[content] = layout
        return content

    def get(self, content: bytes) -> Layout:
        """The live layout with this content, else a reconstructed one. Raises `msgspec.DecodeError`."""
        layout = self._live.get(content) or self._reconstructed.get(content)
        if layout is None:
            stored = _decode_layout(content)
            made = Layout(
                device=stored.device,
                scan=stored.scan,
                points=stored.points,
                attributes=dict(stored.attributes),
            )
            layout = self._reconstructed.setdefault(content, made)
            if len(self._reconstructed) > RECONSTRUCTED_MAX:
                self._reconstructed.popitem(last=False)
                self.forgotten += 1
        return layout
