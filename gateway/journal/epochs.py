"""The number of the last epoch, on disk twice, so that it can be renewed in place even on a full disk."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final
from zlib import crc32

from gateway.disk.filesystem import File, FileSystem

_SLOT: Final = struct.Struct("<8sQ")
_MAGIC: Final = b"EGWEPOCH"
_SLOT_BYTES: Final = 4096  # one page each: a torn write harms only one
_CHECK_BYTES: Final = 4


class EpochFile:
    """Two slots, the higher valid one counts, the other one is written next."""

    def __init__(self, path: Path, *, filesystem: FileSystem) -> None:
        self._path = path
        self._filesystem = filesystem

    def read(self) -> list[int]:
        """The epoch in each of the two slots, 0 where there is none that is valid. Raises `OSError`."""
        try:
            file = self._filesystem.open_read(self._path)
        except FileNotFoundError:
            return [0, 0]
        try:
            return [_read(file, 0), _read(file, 1)]
        finally:
            file.close()

    def write(self, epoch: int) -> None:
        """Durable once it returns. Raises `OSError`."""
        slots = self.read()
        slot = slots.index(min(slots))
        try:
            file, is_new = self._filesystem.open(self._path), False
        except FileNotFoundError:
            file, is_new = self._filesystem.create(self._path), True
        try:
            if is_new:  # room for both, so that no later epoch needs any
                file.append(bytes(2 * _SLOT_BYTES))
                file.close()
                file = self._filesystem.open(self._path)
            elif file.size() < 2 * _SLOT_BYTES:
                file.pwrite(bytes(2 * _SLOT_BYTES - file.size()), file.size())
            data = _SLOT.pack(_MAGIC, epoch)
            file.pwrite((data + struct.pack("<I", crc32(data))).ljust(_SLOT_BYTES, b"\0"), slot * _SLOT_BYTES)
            file.fdatasync()
        finally:
            file.close()
        self._filesystem.sync_directory(self._path.parent)


def _read(file: File, slot: int) -> int:
    data = file.pread(_SLOT.size + _CHECK_BYTES, slot * _SLOT_BYTES)
    if len(data) < _SLOT.size + _CHECK_BYTES or data[_SLOT.size :] != struct.pack(
        "<I", crc32(data[: _SLOT.size])
    ):
        return 0
    magic, epoch = _SLOT.unpack_from(data)
    return int(epoch) if magic == _MAGIC else 0
