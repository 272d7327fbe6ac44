"""The file of a backup: a tar in a zstd frame, between a head and a foot that tell whether it is whole.

Head and foot are skippable frames (RFC 8878 §3.1.2), so that `zstd -d` and `tar --zstd` read the file as it
is. Head: magic, format u16. Foot: magic, length u64 of everything before it, SHA-256 of everything before it.
The first member of the tar says what it is, the last one lists every other with its size and SHA-256.
Little endian; nothing here needs more memory than a few chunks, whatever stands in the file.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import zstandard

from gateway.core.errors import GatewayError

FORMAT: Final = 1
CHUNK_BYTES: Final = 1 << 18
LEVEL: Final = 3  # of zstd: about a third of the size at 200 MB/s
WINDOW_BYTES_MAX: Final = 8 << 20  # what a reader must hold, RFC 8878 §3.1.1.1.2
HEAD_NAME: Final = "backup.json"
MANIFEST_NAME: Final = "manifest.json"
HEAD_JSON_BYTES_MAX: Final = 1 << 20
MANIFEST_BYTES_MAX: Final = 64 << 20
MEMBERS_MAX: Final = 200_000
NAME_BYTES_MAX: Final = 255

_SKIPPABLE: Final = 0x184D2A5E  # any of 0x184D2A50 to 5F
_FRAME: Final = struct.Struct("<II")
_HEAD: Final = struct.Struct("<8sH6x")
_HEAD_MAGIC: Final = b"EGWBAK\r\n"
_FOOT: Final = struct.Struct("<8sQ32s")
_FOOT_MAGIC: Final = b"EGWEND\r\n"
HEAD_BYTES: Final = _FRAME.size + _HEAD.size
FOOT_BYTES: Final = _FRAME.size + _FOOT.size
_BLOCK: Final = tarfile.BLOCKSIZE


class BackupError(GatewayError):
    """A backup cannot be made, read or put back; says which file, what is wrong with it and what to do."""


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a backup."""

    name: str  # config/…, outside/…, state/…, journal/…
    size: int
    sha256: str
    mode: int  # permissions, 0o000 to 0o777
    owner: str = ""  # user:group, where the file has to keep them


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is of. Times are ns since 1970 UTC by the clock of the machine it was made on."""

    format: int = FORMAT
    version: str  # of the program
    gateway: str
    created_ns: int
    epoch: int  # the highest used before it was begun; 0 where none was
    journal_directory: str | None  # as the configuration says; None: in the state directory
    outside: dict[str, str] = {}  # member → path, of files that stood outside the configuration directory
    secrets: dict[str, str] = {}  # path as restored → where it is named, of files that are NOT in it


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is in it besides head and manifest."""

    files: tuple[Item, ...]
    directories: dict[str, int]  # name → permissions


def is_backup(path: Path) -> bool:
    """Whether it begins like one."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)[: _FRAME.size + len(_HEAD_MAGIC)] == _head(FORMAT)[:16]


def _head(version: int) -> bytes:
    return _FRAME.pack(_SKIPPABLE, _HEAD.size) + _HEAD.pack(_HEAD_MAGIC, version)


class ArchiveWriter:
    """`add` files one after the other, then `finish`. Raises `OSError`; makes nothing durable."""

    def __init__(self, descriptor: int, head: Head) -> None:
        self.items: list[Item] = []
        self.raw_bytes = 0  # of the files
        self._sink = _Sink(descriptor)
        self._sink.write(_head(FORMAT))
        self._zstd = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).stream_writer(
            self._sink,  # type: ignore[arg-type]  # only `write` is called
            closefd=False,
        )
        self._put(HEAD_NAME, _json(head), 0o600)

    @property
    def size(self) -> int:
        """Bytes of the archive so far."""
        return self._sink.size

    def add(self, name: str, size: int, mode: int, chunks: Iterable[bytes], *, owner: str = "") -> None:
        """One file of exactly `size` bytes."""
        digest = hashlib.sha256()
        self._header(name, size, mode)
        done = 0
        for chunk in chunks:
            digest.update(chunk)
            self._zstd.write(chunk)
            done += len(chunk)
        if done != size:
            raise BackupError(f"{name}: {done} bytes came, {size} were announced")
        self._zstd.write(bytes(-size % _BLOCK))
        self.raw_bytes += size
        self.items.append(Item(name=name, size=size, sha256=digest.hexdigest(), mode=mode, owner=owner))

    def finish(self, directories: dict[str, int]) -> None:
        """Manifest and foot."""
        manifest = Manifest(files=tuple(self.items), directories=directories)
        self._put(MANIFEST_NAME, _json(manifest), 0o600)
        self._zstd.write(bytes(2 * _BLOCK))
        self._zstd.flush(zstandard.FLUSH_FRAME)
        sink = self._sink
        foot = _FOOT.pack(_FOOT_MAGIC, sink.size, sink.digest.digest())
        sink.write(_FRAME.pack(_SKIPPABLE, _FOOT.size) + foot)

    def _put(self, name: str, data: bytes, mode: int) -> None:
        self._header(name, len(data), mode)
        self._zstd.write(data + bytes(-len(data) % _BLOCK))

    def _header(self, name: str, size: int, mode: int) -> None:
        problem = name_problem(name)
        if problem:
            raise BackupError(f"{name!r} cannot stand in a backup: {problem}")
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, mode
        try:
            self._zstd.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        except ValueError as error:
            raise BackupError(f"{name!r} cannot stand in a backup: {error}") from error


class _Sink:
    """Counts and sums up what goes to the file."""

    def __init__(self, descriptor: int) -> None:
        self.size = 0
        self.digest = hashlib.sha256()
        self._descriptor = descriptor

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.digest.update(data)
        self.size += len(data)
        return len(data)


class Member:
    """One file while an archive is read. `chunks` gives its content, once."""

    def __init__(self, name: str, size: int, mode: int, reader: ArchiveReader) -> None:
        self.name = name
        self.size = size
        self.mode = mode
        self._reader = reader

    def chunks(self) -> Iterator[bytes]:
        """Its bytes, in order."""
        left = self.size
        while left:
            chunk = self._reader.take(min(left, CHUNK_BYTES))
            left -= len(chunk)
            yield chunk


class ArchiveReader:
    """One pass: `head`, then `members` to the end, then `manifest`; `digests` holds what was found.

    Raises `BackupError` for anything that is not a whole, undamaged backup of a format known here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.manifest: Manifest | None = None
        self.digests: dict[str, tuple[int, str]] = {}  # name → size, SHA-256
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise BackupError(f"{path}: cannot be opened: {error.strerror or error}") from error
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def fault(self, what: str) -> BackupError:
        """Names the file."""
        return BackupError(f"{self._path}: {what}; nothing was changed: take another backup")

    def _begin(self) -> None:
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            head = self._file.read(HEAD_BYTES)
            if len(head) < HEAD_BYTES or head[:16] != _head(FORMAT)[:16]:
                raise self.fault("not a backup of a gateway")
            _magic, version = _HEAD.unpack_from(head, _FRAME.size)
            if version != FORMAT:
                raise self.fault(f"backup format {version}, this program reads {FORMAT}: use a newer program")
            self._file.seek(max(HEAD_BYTES, self.size - FOOT_BYTES))
            foot = self._file.read(FOOT_BYTES)
            if len(foot) < FOOT_BYTES or foot[:8] != _FRAME.pack(_SKIPPABLE, _FOOT.size):
                raise self.fault("truncated or not finished: its foot is missing")
            magic, length, self._sha256 = _FOOT.unpack_from(foot, _FRAME.size)
            if magic != _FOOT_MAGIC or length != self.size - FOOT_BYTES:
                raise self.fault("truncated or glued together: its foot does not fit its length")
            self._file.seek(HEAD_BYTES)
        except OSError as error:
            raise self._unreadable(error) from error
        self._source = _Source(self._file.fileno(), HEAD_BYTES, length, hashlib.sha256(head))
        self._zstd = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).stream_reader(
            self._source,  # type: ignore[arg-type]  # only `read` is called
            read_size=CHUNK_BYTES,
            read_across_frames=False,
            closefd=False,
        )
        self.head = self._head()

    def _unreadable(self, error: OSError) -> BackupError:
        return self.fault(f"cannot be read: {error.strerror or error}")

    def take(self, size: int) -> bytes:
        """Exactly so many bytes of the tar, at most `CHUNK_BYTES`."""
        parts: list[bytes] = []
        while size:
            try:
                part = self._zstd.read(size)
            except zstandard.ZstdError as error:
                raise self.fault(f"damaged: {error}") from error
            except OSError as error:
                raise self._unreadable(error) from error
            if not part:
                raise self.fault("damaged: its content ends too early")
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def members(self) -> Iterator[Member]:
        """Every file but head and manifest; each must be read to its end before the next."""
        while True:
            member = self._next()
            if member is None:
                raise self.fault("damaged: it ends without a manifest")
            if member.name == MANIFEST_NAME:
                break
            if len(self.digests) >= MEMBERS_MAX or member.name in self.digests or member.name == HEAD_NAME:
                raise self.fault(f"damaged: {member.name} once more, or more than {MEMBERS_MAX} files")
            self.digests[member.name] = (-1, "")
            yield member
            self._pad(member.size)
        self.manifest = self._manifest(self._whole(member, MANIFEST_BYTES_MAX))
        if self._next() is not None:
            raise self.fault("damaged: something follows the manifest")
        self._end()

    def checked(self, member: Member) -> Iterator[bytes]:
        """Its content, summed up on the way for `manifest_problem`."""
        digest = hashlib.sha256()
        for chunk in member.chunks():
            digest.update(chunk)
            yield chunk
        self.digests[member.name] = (member.size, digest.hexdigest())

    def _end(self) -> None:
        """The sum of the whole file, and the files against the manifest."""
        try:
            self._source.drain()
        except OSError as error:
            raise self._unreadable(error) from error
        if self._source.digest.digest() != self._sha256:
            raise self.fault("damaged: its SHA-256 is not the one in its foot")
        assert self.manifest is not None
        listed = {item.name: (item.size, item.sha256) for item in self.manifest.files}
        if len(listed) != len(self.manifest.files) or listed.keys() != self.digests.keys():
            raise self.fault("damaged: its files are not those of its manifest")
        for name, found in self.digests.items():
            if found != listed[name]:
                raise self.fault(f"damaged: {name} is not what its manifest says")

    def _next(self) -> Member | None:
        block = self.take(_BLOCK)
        if not block.strip(b"\0"):
            if self.take(_BLOCK).strip(b"\0"):
                raise self.fault("damaged: a lone zero block")
            return None
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise self.fault(f"damaged: {error}") from error
        problem = name_problem(info.name)
        if problem or info.type != tarfile.REGTYPE or info.size < 0:
            raise self.fault(f"refused: {info.name!r}: {problem or 'not a regular file'}")
        return Member(info.name, info.size, info.mode & 0o777, self)

    def _pad(self, size: int) -> None:
        if self.take(-size % _BLOCK).strip(b"\0"):
            raise self.fault("damaged: bytes between two files")

    def _whole(self, member: Member, size_max: int) -> bytes:
        if member.size > size_max:
            raise self.fault(f"{member.name} has {member.size} bytes, expected at most {size_max}")
        data = b"".join(member.chunks())
        self._pad(member.size)
        return data

    def _head(self) -> Head:
        member = self._next()
        if member is None or member.name != HEAD_NAME:
            raise self.fault(f"damaged: it does not begin with {HEAD_NAME}")
        try:
            head = msgspec.json.decode(self._whole(member, HEAD_JSON_BYTES_MAX), type=Head)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.fault(f"damaged: {HEAD_NAME}: {error}") from error
        if head.format != FORMAT:
            raise self.fault(f"backup format {head.format}, this program reads {FORMAT}: use a newer program")
        return head

    def _manifest(self, data: bytes) -> Manifest:
        try:
            manifest = msgspec.json.decode(data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.fault(f"damaged: {MANIFEST_NAME}: {error}") from error
        for name in manifest.directories:
            if problem := name_problem(name):
                raise self.fault(f"refused: {name!r}: {problem}")
        files = {item.name for item in manifest.files}
        for name in (*files, *manifest.directories):
            if any(above in files for above in _above(name)):
                raise self.fault(f"refused: {name!r} lies in a file")
        if files & manifest.directories.keys():
            raise self.fault("refused: a name is both a file and a directory")
        return manifest


class _Source:
    """The compressed part of the file, summed up as it is read."""

    def __init__(self, descriptor: int, offset: int, end: int, digest: hashlib._Hash) -> None:
        self.digest = digest
        self._descriptor = descriptor
        self._offset = offset
        self._end = end

    def read(self, size: int = -1) -> bytes:
        left = self._end - self._offset
        data = os.pread(
            self._descriptor, min(CHUNK_BYTES, left if size < 0 else min(size, left)), self._offset
        )
        self._offset += len(data)
        self.digest.update(data)
        return data

    def drain(self) -> None:
        while self.read(CHUNK_BYTES):
            pass


def name_problem(name: str) -> str:
    """Why a member's name cannot be taken; empty where it can. Nothing may lead out of where it is put."""
    parts = name.split("/")
    if not name or len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
        return f"a name of 1 to {NAME_BYTES_MAX} bytes is expected"
    if any(part in {"", ".", ".."} for part in parts):
        return "a path that stays below where it is put is expected"
    if not name.isprintable() or "\\" in name:
        return "a name of printable characters without backslashes is expected"
    return ""


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _json(value: Head | Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1)
