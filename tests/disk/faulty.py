"""A file system in memory: runs out of room, fails a sync, tears a write, forgets what was not synced."""

from __future__ import annotations

import errno
import random
import threading
from pathlib import Path

SECTOR_BYTES = 512


class Crash(BaseException):
    """The power went. Nothing of ours may catch it."""


class Inode:
    def __init__(self, durable: bytes = b"") -> None:
        self.content = bytearray(durable)
        self.durable = durable

    def after_crash(self, chance: random.Random) -> Inode:
        """What the disk may hold: the synced bytes, and any part of what was written since."""
        now, synced = bytes(self.content), self.durable
        way = chance.randrange(4)
        if way == 0:
            return Inode(synced)
        if way == 1:  # everything made it
            return Inode(now)
        if way == 2 and len(now) > len(synced):  # a prefix did
            return Inode(synced + now[len(synced) : chance.randrange(len(synced), len(now) + 1)])
        size = chance.choice([len(synced), len(now)])  # any sectors did, the others are zeros or old
        old, new = synced.ljust(size, b"\0")[:size], now.ljust(size, b"\0")[:size]
        sectors = range(0, size, SECTOR_BYTES)
        return Inode(b"".join(chance.choice((old, new))[at : at + SECTOR_BYTES] for at in sectors))


class FaultyFile:
    def __init__(self, disk: FaultyFileSystem, inode: Inode) -> None:
        self._disk = disk
        self.inode = inode

    def append(self, data: bytes) -> None:
        self._write(data, len(self.inode.content))

    def pwrite(self, data: bytes, offset: int) -> None:
        self._write(data, offset)

    def _write(self, data: bytes, offset: int) -> None:
        disk, content = self._disk, self.inode.content
        crash = disk.is_crash_now("write")
        grows = max(0, offset + len(data) - len(content))
        short = disk.room is not None and grows > disk.room
        if crash:
            data = data[: disk.chance.randrange(len(data) + 1)]
        elif short:
            data = data[: len(data) - grows + (disk.room or 0)]
        content[offset : offset + len(data)] = data
        if disk.room is not None:
            disk.room = max(0, disk.room - grows)
        if crash:
            raise Crash
        if short:
            raise OSError(errno.ENOSPC, "No space left on device")
        if disk.write_error:
            raise OSError(disk.write_error, "injected")

    def pread(self, size: int, offset: int) -> bytes:
        self._disk.reads += 1
        self._disk.bytes_read += size
        return bytes(self.inode.content[offset : offset + size])

    def fdatasync(self) -> None:
        disk = self._disk
        if disk.is_crash_now("sync"):
            raise Crash
        disk.syncs += 1
        if disk.sync_error:
            raise OSError(disk.sync_error, "injected")  # and the pages are lost, as Linux does
        self.inode.durable = bytes(self.inode.content)

    def truncate(self, size: int) -> None:
        if self._disk.is_crash_now("truncate"):
            raise Crash
        if self._disk.room is not None:
            self._disk.room += max(0, len(self.inode.content) - size)
        del self.inode.content[size:]

    def size(self) -> int:
        return len(self.inode.content)

    def close(self) -> None:
        pass


class FaultyFileSystem:
    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.entries: dict[Path, Inode] = {}
        self.durable_entries: dict[Path, Inode] = {}
        self.room: int | None = None  # bytes left
        self.sync_error = 0
        self.write_error = 0
        self.crash_at = 0  # the how manieth changing operation does not come back; 0: none
        self.operations: list[str] = []
        self.reads = 0
        self.bytes_read = 0
        self.syncs = 0
        self._lock = threading.Lock()

    def is_crash_now(self, operation: str) -> bool:
        with self._lock:
            self.operations.append(operation)
            return len(self.operations) == self.crash_at

    def after_crash(self, seed: int) -> FaultyFileSystem:
        """The same disk, switched on again."""
        disk = FaultyFileSystem(seed)
        inodes: dict[int, Inode] = {}
        for path in {*self.entries, *self.durable_entries}:
            before, now = self.durable_entries.get(path), self.entries.get(path)
            inode = before if before is now else disk.chance.choice((before, now))
            if inode is not None:
                disk.entries[path] = inodes.setdefault(id(inode), inode.after_crash(disk.chance))
        disk.durable_entries = dict(disk.entries)
        return disk

    def _change(self, operation: str) -> None:
        if self.is_crash_now(operation):
            raise Crash

    def create(self, path: Path) -> FaultyFile:
        self._change("create")
        if path in self.entries:
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        self.entries[path] = Inode()
        return FaultyFile(self, self.entries[path])

    def open(self, path: Path) -> FaultyFile:
        if path not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return FaultyFile(self, self.entries[path])

    def open_read(self, path: Path) -> FaultyFile:
        return self.open(path)

    def rename(self, source: Path, target: Path) -> None:
        self._change("rename")
        self.entries[target] = self.entries.pop(source)

    def unlink(self, path: Path) -> None:
        self._change("unlink")
        inode = self.entries.pop(path, None)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        if self.room is not None:
            self.room += len(inode.content)

    def listdir(self, directory: Path) -> list[str]:
        return [path.name for path in self.entries if path.parent == directory]

    def make_directory(self, directory: Path) -> None:
        pass

    def sync_directory(self, directory: Path) -> None:
        self._change("sync directory")
        kept = {path: inode for path, inode in self.durable_entries.items() if path.parent != directory}
        now = {path: inode for path, inode in self.entries.items() if path.parent == directory}
        self.durable_entries = kept | now

    def free_bytes(self, directory: Path) -> int:
        return 1 << 40 if self.room is None else self.room

    def lock(self, path: Path) -> FaultyFile:
        return FaultyFile(self, Inode())
