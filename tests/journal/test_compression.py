"""Records packed together: as safe as plain ones, whatever happens to a byte, and bounded in memory."""

from __future__ import annotations

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.disk import record
from gateway.disk.block import BLOCK_BYTES_MAX, Compression, Packer, Unpacker
from gateway.disk.record import BLOCK, STARTS, Entry, encode
from gateway.disk.segment import FORMAT, HEADER_BYTES
from gateway.journal.settings import JournalSettings
from tests.disk.faulty import FaultyFileSystem, Inode
from tests.journal.support import SMALL, Bench, N, everything, numbers

PACKED = msgspec.structs.replace(SMALL, compression=Compression.ZSTD, segment_bytes=1 << 20)
SALT = 77


def groups(sizes: tuple[int, ...], settings: JournalSettings = PACKED) -> FaultyFileSystem:
    """One run; each group is committed together."""
    disk = FaultyFileSystem()
    bench = Bench(disk, settings=settings)
    bench.cursor()
    for size in sizes:
        bench.put(size)
    return disk


def only(disk: FaultyFileSystem) -> Inode:
    return next(inode for path, inode in disk.entries.items() if path.suffix == ".log")


def tops(inode: Inode, salt: int) -> list[Entry]:
    return list(record.entries(bytes(inode.content), HEADER_BYTES, salt, 0))


def salt_of(disk: FaultyFileSystem) -> int:
    path = next(path for path in disk.entries if path.suffix == ".log")
    return int(path.stem.split("-")[1], 16)


def test_a_group_is_one_block_and_reads_back_as_it_was() -> None:
    disk = groups((20, 30))
    inode = only(disk)
    blocks = [entry for entry in tops(inode, salt_of(disk)) if entry.type == BLOCK]
    assert len(blocks) >= 2
    assert blocks[-1].position == (1, 21)
    plain = only(groups((20, 30), SMALL))
    assert len(inode.content) < len(plain.content) * 0.6
    bench = Bench(disk, settings=PACKED)
    assert numbers(bench.backlog(bench.cursor())) == [(1, seq) for seq in range(1, 51)]


def test_a_packed_log_cut_at_any_byte_keeps_every_whole_group_before_the_cut() -> None:
    disk = groups((3, 4, 5))
    whole, salt = bytes(only(disk).content), salt_of(disk)
    unpacker = Unpacker()
    ends = []
    for entry in tops(only(disk), salt):
        inner = unpacker.unpack(entry, salt) if entry.type == BLOCK else [entry]
        assert inner is not None
        ends.append((entry.end, max([one.position[1] for one in inner if one.stream], default=0)))
    for size in range(len(whole) + 1):
        only(disk).content = bytearray(whole[:size])
        bench = Bench(copy_of(disk), settings=PACKED)
        kept = max([seq for end, seq in ends if end <= size], default=0)
        found = numbers(everything(bench.journal.reader(N, (0, 0))))
        assert found == [(1, seq) for seq in range(1, kept + 1)], size
        assert bench.journal.stats().quarantined_ranges == 0
        assert bench.put(1)  # and it goes on


def copy_of(disk: FaultyFileSystem) -> FaultyFileSystem:
    other = FaultyFileSystem()
    other.entries = {path: Inode(bytes(inode.content)) for path, inode in disk.entries.items()}
    return other


def test_any_flipped_bit_costs_at_most_the_group_it_is_in_and_is_told() -> None:
    disk = groups((3, 4, 5))
    whole, salt = bytes(only(disk).content), salt_of(disk)
    unpacker = Unpacker()
    for bit in range(HEADER_BYTES * 8, len(whole) * 8, 3):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        only(disk).content = content
        bench = Bench(copy_of(disk), settings=PACKED)
        found = numbers(everything(bench.journal.reader(N, (0, 0))))
        only(disk).content = bytearray(whole)
        hit: set[tuple[int, int]] = set()
        for entry in tops(only(disk), salt):
            if entry.offset <= bit // 8 < entry.end:
                inner = unpacker.unpack(entry, salt) if entry.type == BLOCK else [entry]
                assert inner is not None
                hit = {one.position for one in inner if one.stream}
        lost = {(1, seq) for seq in range(1, 13)} - set(found)
        assert lost <= hit or lost - hit == set() or not_defined(found), bit
        told = bench.recovery.messages or bench.journal.stats().quarantined_ranges
        assert told, bit


def not_defined(found: list[tuple[int, int]]) -> bool:
    """The damage took the definition of layout or stream: everything behind it is set aside."""
    return not found


@settings(deadline=None)
@given(body=st.binary(max_size=400))
def test_any_bytes_are_records_or_nothing(body: bytes) -> None:
    found = Unpacker().unpack(Entry(BLOCK, (1, 1), 0, 0, body, 64), SALT)
    assert found is None or found


@pytest.mark.parametrize("size", [BLOCK_BYTES_MAX + 1, 1 << 30])
def test_a_frame_that_would_unpack_to_too_much_is_refused_before_memory_is_taken(size: int) -> None:
    body = zstandard.ZstdCompressor().compress(bytes(min(size, 1 << 22)))
    if size == 1 << 30:  # a header that claims what is not there: RFC 8878 §3.1.1.1, an 8 byte content size
        body = bytes.fromhex("28b52ffd") + bytes([0xE0]) + (1 << 30).to_bytes(8, "little") + body[-20:]
        assert zstandard.frame_content_size(body) == 1 << 30
    assert Unpacker().unpack(Entry(BLOCK, (1, 1), 0, 0, body, 64), SALT) is None


def test_a_frame_that_does_not_say_its_size_or_lies_about_it_is_none() -> None:
    data = encode(5, (1, 2), 9, 0, b"body" * 50, SALT)
    silent = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    body = silent.compress(data) + silent.flush()
    assert Unpacker().unpack(Entry(BLOCK, (1, 2), 0, 0, body, 64), SALT) is None
    honest = zstandard.ZstdCompressor().compress(data)
    assert Unpacker().unpack(Entry(BLOCK, (1, 2), 0, 0, honest, 64), SALT) is not None
    assert Unpacker().unpack(Entry(BLOCK, (1, 3), 0, 0, honest, 64), SALT) is None  # its first is below it
    assert Unpacker().unpack(Entry(BLOCK, (1, 2), 0, 0, honest, 64), SALT + 1) is None
    assert Unpacker().unpack(Entry(BLOCK, (1, 2), 0, 0, honest + b"x", 64), SALT) is None
    nested = zstandard.ZstdCompressor().compress(encode(BLOCK, (1, 2), 0, 0, honest, SALT))
    assert Unpacker().unpack(Entry(BLOCK, (1, 2), 0, 0, nested, 64), SALT) is None


def test_the_packer_keeps_order_and_leaves_what_does_not_shrink() -> None:
    import random

    chance = random.Random(1)
    items = [
        encode(5, (1, seq), 9, seq, chance.randbytes(chance.randrange(2, 40)), SALT) for seq in range(1, 9)
    ]
    items.append(encode(5, (1, 9), 9, 9, bytes(BLOCK_BYTES_MAX), SALT))
    items.append(encode(5, (1, 10), 9, 9, b"a" * 300, SALT, STARTS))
    packed = Packer(Compression.ZSTD).pack(items, SALT)
    data = b"".join(part for part, _ in packed)
    assert sum(size for _, size in packed) == sum(map(len, items))
    found = []
    for entry in record.entries(data, 0, SALT, 0):
        inner = Unpacker().unpack(entry, SALT) if entry.type == BLOCK else [entry]
        assert inner is not None
        found += inner
    assert [entry.position[1] for entry in found] == list(range(1, 11))
    assert found[-1].flags == STARTS


def test_a_log_of_the_first_format_stays_readable_and_goes_on_in_a_new_segment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as older:
        older.setattr("gateway.disk.segment.FORMAT", 1)
        older.setattr("gateway.disk.log.FORMAT", 1)
        older.setattr("gateway.disk.log.STARTS", 0)
        disk = groups((5, 5), msgspec.structs.replace(PACKED, compression=Compression.NONE))
    assert only(disk).content[8] == 1
    bench = Bench(disk, settings=PACKED)
    cursor = bench.cursor()
    bench.put(5)
    assert numbers(bench.backlog(cursor)) == [(1, s) for s in range(1, 11)] + [(2, s) for s in range(1, 6)]
    files = sorted(path for path in disk.entries if path.suffix == ".log")
    assert (disk.entries[files[0]].content[8], disk.entries[files[-1]].content[8]) == (1, FORMAT)


def test_places_lead_into_packed_segments_too() -> None:
    disk = FaultyFileSystem()
    bench = Bench(disk, settings=PACKED)
    cursor = bench.cursor()
    bench.put(3)
    for _ in range(400):
        bench.put(100, stream="a")
    disk.bytes_read = 0
    reader = bench.journal.reader(cursor, (1, 39_900))
    assert numbers(everything(reader))[0] == (1, 39_901)
    there = disk.bytes_read
    everything(bench.journal.reader(N, (0, 0)))
    assert there < (disk.bytes_read - there) / 8
    assert bench.journal.stats().lanes[0].size_bytes == sum(
        len(inode.content) for path, inode in disk.entries.items() if path.suffix == ".log"
    )
