"""The few file operations durable logs are made of, so that tests can make each of them fail."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from gateway.core.errors import StorageError

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors that say "no space": backpressure, not failure."""


class File(Protocol):
    """One open file. Every method blocks and raises `OSError`."""

    def append(self, data: bytes) -> None:
        """Write all of it at the end. After an error any part of it may stand there."""
        ...

    def pwrite(self, data: bytes, offset: int) -> None:
        """Write all of it at an offset."""
        ...

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def fdatasync(self) -> None:
        """Return once data and size are durable. After an error, assume nothing of what was written."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file."""
        ...

    def size(self) -> int:
        """Bytes in it."""
        ...

    def close(self) -> None:
        """Give the descriptor back. Syncs nothing."""
        ...


class FileSystem(Protocol):
    """Directories and files. Every method blocks and raises `OSError`."""

    def create(self, path: Path) -> File:
        """A new file, for reading and appending. Its name is durable after `sync_directory`."""
        ...

    def open(self, path: Path) -> File:
        """An existing file, for reading and writing."""
        ...

    def open_read(self, path: Path) -> File:
        """An existing file, for reading only."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Replace `target`."""
        ...

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        ...

    def listdir(self, directory: Path) -> list[str]:
        """Names in it, in no order."""
        ...

    def make_directory(self, directory: Path) -> None:
        """Make it and its parents where they are missing, durably."""
        ...

    def sync_directory(self, directory: Path) -> None:
        """Make names in it durable."""
        ...

    def free_bytes(self, directory: Path) -> int:
        """Room left for this user."""
        ...

    def lock(self, path: Path) -> File:
        """Keep other processes out until the returned file is closed; `StorageError` where one is in."""
        ...


class _RealFile:
    __slots__ = ("_descriptor", "_path")

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o640)

    def append(self, data: bytes) -> None:
        written = os.write(self._descriptor, data)
        if written < len(data):
            view = memoryview(data)
            while written < len(data):
                written += os.write(self._descriptor, view[written:])

    def pwrite(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        done = 0
        while done < len(data):
            done += os.pwrite(self._descriptor, view[done:], offset + done)

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._descriptor, size, offset)
        if len(data) == size or not data:
            return data
        parts, read = [data], len(data)
        while read < size and (more := os.pread(self._descriptor, size - read, offset + read)):
            parts.append(more)
            read += len(more)
        return b"".join(parts)

    def fdatasync(self) -> None:
        os.fdatasync(self._descriptor)

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        os.close(self._descriptor)

    def lock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


class RealFileSystem:
    """The operating system's."""

    def create(self, path: Path) -> File:
        return _RealFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)

    def open(self, path: Path) -> File:
        # No O_APPEND: Linux makes pwrite append then. `append` goes to the end explicitly instead.
        return _Writable(path)

    def open_read(self, path: Path) -> File:
        return _RealFile(path, os.O_RDONLY)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def listdir(self, directory: Path) -> list[str]:
        return [entry.name for entry in directory.iterdir()]

    def make_directory(self, directory: Path) -> None:
        missing: list[Path] = []
        step = directory
        while not step.is_dir():
            missing.append(step)
            step = step.parent
        for step in reversed(missing):
            step.mkdir(mode=0o750, exist_ok=True)
            self.sync_directory(step.parent)

    def sync_directory(self, directory: Path) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, directory: Path) -> int:
        status = os.statvfs(directory)
        return status.f_bavail * status.f_frsize

    def lock(self, path: Path) -> File:
        file = _RealFile(path, os.O_RDWR | os.O_CREAT)
        try:
            file.lock()
        except OSError as error:
            file.close()
            raise StorageError(
                f"{path}: another process holds it; only one gateway may use {path.parent}"
            ) from error
        return file


class _Writable(_RealFile):
    """For `pwrite` and for appending to a file that is opened again."""

    __slots__ = ("_end",)

    def __init__(self, path: Path) -> None:
        super().__init__(path, os.O_RDWR)
        self._end = self.size()

    def append(self, data: bytes) -> None:
        self.pwrite(data, self._end)
        self._end += len(data)

    def truncate(self, size: int) -> None:
        super().truncate(size)
        self._end = size
