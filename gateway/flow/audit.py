"""The audit file: every command and what became of it, on disk before anything is sent to a device."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.errors import StorageError, StorageFull
from gateway.core.point import Value
from gateway.disk.filesystem import NO_ROOM, File, FileSystem
from gateway.translate.payload import rfc3339

FILE_BYTES_MAX: Final = 1 << 20
FILES_MAX: Final = 8  # of each of the two series
INTERRUPTED: Final = "was being carried out when the gateway stopped"
ON_THE_WAY: Final = frozenset({Outcome.ACCEPTED})

Key: TypeAlias = tuple[str, str]  # (issuer, id): two issuers may choose the same id


class AuditLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transition of one command, one line of JSON."""

    time: str  # RFC 3339, our wall clock
    id: str
    issuer: str
    target: str
    value: Any = None  # JSON; bytes as base64
    outcome: Outcome
    reason: str = ""
    result: Any = None  # the value read back


class Known(msgspec.Struct, kw_only=True):
    """A command seen before: what it said, and its answer."""

    key: Key
    said: bytes  # target and value, to tell a redelivery from an id used twice
    result: CommandResult


class Opened(msgspec.Struct, kw_only=True):
    """What the files held: commands taken and refused, oldest first, and what was wrong with the files."""

    taken: list[Known]
    refused: list[Known]
    problems: list[str]


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(AuditLine).decode


def said_by(target: str, value: Value) -> bytes:
    """What a command asks for, as comparable bytes."""
    return _encode((target, value))


class Audit:
    """Two series of JSON-lines files: `commands-*` of what was taken, `refused-*` of what was not.

    Apart, because a flood of refusals must not rotate away the ids of what was carried out. Every method
    blocks and may be called from any thread; all but `close` raise `StorageError` where the disk refuses.
    """

    def __init__(
        self,
        files: FileSystem,
        directory: Path,
        *,
        file_bytes_max: int = FILE_BYTES_MAX,
        files_max: int = FILES_MAX,
    ) -> None:
        self._lock = threading.Lock()
        self._files = files
        self._directory = directory
        self._commands = Series(
            files, directory, "commands", file_bytes_max=file_bytes_max, files_max=files_max
        )
        self._refusals = Series(
            files, directory, "refused", file_bytes_max=file_bytes_max, files_max=files_max
        )

    def open(self, now_ns: int) -> Opened:
        """Read everything, cut a torn last line, and close what a crash left open with `unknown`."""
        with self._lock:
            try:
                self._files.make_directory(self._directory)
            except OSError as error:
                raise _storage_error(self._directory, error) from error
            taken, problems = _known(self._commands.open())
            refused, more = _known(self._refusals.open())
            for known in taken.values():
                if known.result.outcome in ON_THE_WAY:
                    known.result = msgspec.structs.replace(
                        known.result, outcome=Outcome.UNKNOWN, reason=INTERRUPTED
                    )
                    self._commands.append(_closing(known, now_ns), sync=False)
            self._commands.sync()
        return Opened(taken=list(taken.values()), refused=list(refused.values()), problems=problems + more)

    def accept(self, command: Command, now_ns: int) -> None:
        """Durable when it returns: only now may the command be sent."""
        line = _line(command, CommandResult(id=command.id, outcome=Outcome.ACCEPTED), now_ns)
        with self._lock:
            self._commands.append(line, sync=True)

    def finish(self, command: Command, result: CommandResult, now_ns: int) -> None:
        """The outcome of an accepted command. Durable when it returns."""
        with self._lock:
            self._commands.append(_line(command, result, now_ns), sync=True)

    def refuse(self, command: Command, result: CommandResult, now_ns: int) -> None:
        """A command that was not accepted. Written, not synced: nothing was done that must be remembered."""
        with self._lock:
            self._refusals.append(_line(command, result, now_ns), sync=False)

    def close(self) -> None:
        """Give the files back."""
        with self._lock:
            self._commands.close()
            self._refusals.close()


class Series:
    """Numbered files of lines; the newest is appended to, the oldest goes when there are too many."""

    def __init__(
        self, files: FileSystem, directory: Path, stem: str, *, file_bytes_max: int, files_max: int
    ) -> None:
        self._files = files
        self._directory = directory
        self._stem = stem
        self._name = re.compile(rf"{re.escape(stem)}-(\d{{6,}})\.jsonl")
        self._file_bytes_max = file_bytes_max
        self._files_max = files_max
        self._number = 0
        self._file: File | None = None
        self._size = 0

    def open(self) -> tuple[list[bytes], list[str]]:
        """Every whole line, oldest first, and what was wrong; a torn end of the newest file is cut."""
        lines: list[bytes] = []
        problems: list[str] = []
        try:
            numbers = self._numbers()
            for number in numbers:
                path = self._path(number)
                file = self._files.open(path)
                data = file.pread(file.size(), 0)
                end = data.rfind(b"\n") + 1
                if end < len(data):
                    problems.append(f"{path}: the last line was torn, {len(data) - end} bytes cut at {end}")
                    file.truncate(end)
                    file.fdatasync()
                lines.extend(data[:end].split(b"\n")[:-1])
                if number == numbers[-1]:
                    self._file, self._size, self._number = file, end, number
                else:
                    file.close()
        except OSError as error:
            raise _storage_error(self._directory, error) from error
        return lines, problems

    def append(self, line: bytes, *, sync: bool) -> None:
        """One line, durable when `sync`. Raises `StorageError`; the line may then still stand in the file."""
        try:
            file = self._file
            if file is None or self._size + len(line) > self._file_bytes_max:
                file = self._rotate()
            file.append(line)
            if sync:
                file.fdatasync()
            self._size += len(line)
        except OSError as error:
            self._give_up_file()
            raise _storage_error(self._directory, error) from error

    def sync(self) -> None:
        """Everything appended is durable."""
        if self._file is not None:
            try:
                self._file.fdatasync()
            except OSError as error:
                self._give_up_file()
                raise _storage_error(self._directory, error) from error

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rotate(self) -> File:
        self.close()
        self._number += 1
        file = self._files.create(self._path(self._number))
        self._files.sync_directory(self._directory)
        self._file, self._size = file, 0
        for number in self._numbers()[: -self._files_max]:
            self._files.unlink(self._path(number))
        return file

    def _give_up_file(self) -> None:
        """After an error nothing may be assumed of a file: cut what may be half a line, and start another."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.truncate(self._size)
                file.close()
            except OSError:
                pass  # the error that brought us here is the one that is raised

    def _numbers(self) -> list[int]:
        names = (self._name.fullmatch(name) for name in self._files.listdir(self._directory))
        return sorted(int(match[1]) for match in names if match)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._stem}-{number:06d}.jsonl"


def _line(command: Command, result: CommandResult, now_ns: int) -> bytes:
    return _json(
        AuditLine(
            time=rfc3339(now_ns) or str(now_ns),
            id=command.id,
            issuer=command.issuer,
            target=command.target,
            value=command.value,
            outcome=result.outcome,
            reason=result.reason,
            result=result.value,
        )
    )


def _closing(known: Known, now_ns: int) -> bytes:
    target, value = msgspec.json.decode(known.said)
    return _json(
        AuditLine(
            time=rfc3339(now_ns) or str(now_ns),
            id=known.key[1],
            issuer=known.key[0],
            target=target,
            value=value,
            outcome=known.result.outcome,
            reason=known.result.reason,
        )
    )


def _json(line: AuditLine) -> bytes:
    return _encode(line) + b"\n"


def _known(read: tuple[Iterable[bytes], list[str]]) -> tuple[dict[Key, Known], list[str]]:
    """Commands by key, each with its last outcome. A damaged line is reported and left out."""
    lines, problems = read
    commands: dict[Key, Known] = {}
    for number, text in enumerate(lines, start=1):
        try:
            line = _decode(text)
        except msgspec.DecodeError as error:
            problems = [*problems, f"audit line {number} of those kept is damaged and left out: {error}"]
            continue
        if not line.id:
            continue
        result = CommandResult(id=line.id, outcome=line.outcome, reason=line.reason, value=line.result)
        key = (line.issuer, line.id)
        commands[key] = Known(key=key, said=said_by(line.target, line.value), result=result)
    return commands, problems


def _storage_error(directory: Path, error: OSError) -> StorageError:
    kind = StorageFull if error.errno in NO_ROOM else StorageError
    return kind(f"the audit file in {directory} cannot be written: {error.strerror or error}")
