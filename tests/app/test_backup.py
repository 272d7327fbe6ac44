"""Backups: whole or refused, nothing changed before all is known to be sound, old or new after a crash."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app.backup import archive, collect, swap
from gateway.app.backup.archive import ArchiveReader, ArchiveWriter, BackupError, Head, name_problem
from gateway.app.backup.restore import EPOCHS_SPARE, next_epoch, restore, verify
from gateway.app.backup.save import Saved, save
from gateway.app.cli import cli
from gateway.core.batch import Batch
from gateway.core.point import Priority
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.cursor import Full
from gateway.journal.journal import Journal, Writing
from gateway.journal.settings import JournalSettings
from tests.journal.support import LAYOUT, ToldClock

NOW_NS = 1_700_000_100 * 1_000_000_000
CONFIG = """\
version: 1
gateway: {name: gw}
include: [devices/*.yaml, ../shared/common.yaml]
uplinks:
  broker:
    {kind: mqtt, url: "mqtts://broker.example", username: gw, password_file: secrets/password, ca: ca.pem}
"""


class Crash(BaseException):
    """The power went."""


class Box:
    """A gateway's directories."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config"
        self.state = folder / "state"

    def fill(self, *, batches: int = 40) -> None:
        files = {
            "gateway.yaml": CONFIG,
            "devices/a.yaml": "devices: {}\n",
            "maps/inverter.yaml": "nobody: reads this\n",
            "ca.pem": "-----BEGIN CERTIFICATE-----\n",
            "both.pem": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n",
            "secrets/password": "hunter2\n",
            ".git/config": "of no use",
        }
        for name, text in files.items():
            path = self.config / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self.config.parent / "shared").mkdir()
        (self.config.parent / "shared/common.yaml").write_text("scan: {fast: 100ms}\n")
        (self.config / "secrets/password").chmod(0o600)
        journal = open_journal(self.state)
        cursor = journal.cursor("c", lane=Priority.NORMAL, streams=frozenset("a"), **BOUNDS)
        for seq in range(1, batches + 1):
            journal.append(batch(journal.epoch, seq), lane=Priority.NORMAL, stream="a")
            journal.commit()
        cursor.acknowledge((journal.epoch, 0), (journal.epoch, 5))
        journal.close()
        (self.state / "audit").mkdir()
        (self.state / "audit/commands-000001.jsonl").write_text('{"id": "7"}\n')

    def save(self, file: Path, **options: Any) -> Saved:
        options = {"with_secrets": False, "wall_ns": lambda: NOW_NS, **options}
        return save(file, config=self.config, state=self.state, version="1", **options)

    def restore(self, file: Path, *, force: bool = False, now_ns: int = NOW_NS) -> Any:
        return restore(file, config=self.config, state=self.state, force=force, wall_ns=lambda: now_ns)


BOUNDS: dict[str, Any] = {"keep_ns": 10**18, "max_bytes": 10**7, "full": Full.DROP_OLDEST}


def open_journal(state: Path, *, first_epoch: int = 1000) -> Journal:
    journal = Journal(
        state / "journal", filesystem=RealFileSystem(), lanes=(Priority.NORMAL,), config_version="v",
        notify=lambda call: call(), clock=ToldClock(), boot_id="b", writing=Writing.CALLER,
        settings=JournalSettings(segment_bytes=1600), first_epoch=first_epoch,
    )  # fmt: skip
    journal.open()
    return journal


def batch(epoch: int, seq: int) -> Batch:
    return Batch(layout=LAYOUT, values=(seq, -seq), received_ns=seq, monotonic_ns=seq, epoch=epoch, seq=seq)


def seqs(state: Path) -> list[int]:
    """What a reader finds behind the cursor, from a copy."""
    scratch = state.with_name("scratch")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(state, scratch)
    journal = open_journal(scratch)
    cursor = journal.cursor("c", lane=Priority.NORMAL, streams=frozenset("a"), **BOUNDS)
    reader = journal.reader(cursor, cursor.low)
    found: list[int] = []
    while not reader.is_at_end:
        found += [record.position[1] for record in reader.read()]
    reader.close()
    journal.close()
    return found


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path / "a")
    made.fill()
    return made


@pytest.fixture
def other(tmp_path: Path) -> Box:
    return Box(tmp_path / "b")


@pytest.fixture
def file(box: Box, tmp_path: Path) -> Path:
    box.save(tmp_path / "gw.backup")
    return tmp_path / "gw.backup"


def test_what_was_saved_is_what_comes_back(box: Box, other: Box, file: Path) -> None:
    done = other.restore(file)
    config, restored = tree(box.config), tree(other.config)
    for gone in ("secrets/password", "both.pem", ".git/config"):
        del config[gone]
    outside = [name for name in restored if name.startswith("outside/")]
    assert [Path(name).name for name in outside] == ["common.yaml"]
    assert {name: data for name, data in restored.items() if name not in outside} == config
    state, restored = tree(box.state), tree(other.state)
    assert state.pop("journal/epoch") != restored.pop("journal/epoch")
    assert restored == state
    assert seqs(other.state) == list(range(6, 41)), "all behind the cursor, nothing before it"
    assert done.head.secrets == {
        "secrets/password": "uplinks.broker.password_file",
        "both.pem": "holds a private key",
    }
    assert file.stat().st_mode & 0o777 == 0o600


def test_secrets_are_copied_only_when_asked_for(box: Box, other: Box, tmp_path: Path) -> None:
    box.save(tmp_path / "with", with_secrets=True)
    done = other.restore(tmp_path / "with")
    assert not done.head.secrets
    assert (other.config / "secrets/password").read_text() == "hunter2\n"
    assert (other.config / "secrets/password").stat().st_mode & 0o777 == 0o600


def test_secrets_are_not_guessed_where_the_configuration_cannot_be_read(box: Box, tmp_path: Path) -> None:
    (box.config / "gateway.yaml").write_text("version: [1")
    with pytest.raises(Exception, match=r"gateway\.yaml:2:1: found broken YAML"):
        box.save(tmp_path / "gw")
    assert not (tmp_path / "gw").exists()


def test_a_configuration_with_faults_is_saved_too(box: Box, tmp_path: Path) -> None:
    (box.config / "gateway.yaml").write_text(CONFIG + "unknown: 1\n")
    assert "secrets/password" in box.save(tmp_path / "gw").head.secrets


def test_tools_of_others_read_it(file: Path, tmp_path: Path) -> None:
    with file.open("rb") as raw:
        data = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read()
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        names = found.getnames()
    assert names[0] == "backup.json"
    assert names[-1] == "manifest.json"
    if shutil.which("zstd") and shutil.which("tar"):
        listed = subprocess.run(
            ["tar", "--zstd", "-tf", str(file)], capture_output=True, text=True, check=True
        )
        assert listed.stdout.split() == names


def test_the_next_epoch_is_above_all_that_were_used_since(box: Box, other: Box, file: Path) -> None:
    done = other.restore(file)
    for _ in range(3):
        original = open_journal(box.state)
        original.close()
    journal = open_journal(other.state)
    assert journal.epoch == done.epoch > original.epoch
    journal.close()


@pytest.mark.parametrize(
    ("epoch", "created_s", "now_s", "expected"),
    [
        (1_600_000_000, 1_700_000_000, 1_700_000_100, 1_700_000_100),  # the usual: seconds now
        (1_800_000_000, 1_700_000_000, 1_700_000_100, 1_800_000_100),  # its first clock was ahead
        (1_700_000_000, 1_700_000_000, 50, 1_700_000_000),  # this clock is behind
        (0, 1_700_000_000, 1_700_000_000, 1_700_000_000),
    ],
)
def test_epochs_with_right_and_wrong_clocks(epoch: int, created_s: int, now_s: int, expected: int) -> None:
    head = Head(version="", gateway="", created_ns=created_s * 10**9, epoch=epoch, journal_directory=None)
    assert next_epoch(head, now_s * 10**9) == expected + EPOCHS_SPARE


def test_a_clock_beyond_all_epochs_is_said() -> None:
    head = Head(version="", gateway="", created_ns=0, epoch=1, journal_directory=None)
    with pytest.raises(BackupError, match="set this machine's clock"):
        next_epoch(head, (1 << 32) * 10**9)


# What is deleted, written and cut meanwhile


def test_deleted_meanwhile_does_not_matter(
    box: Box, other: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ArchiveWriter.add

    def delete_all_first(self: ArchiveWriter, *args: Any, **kwargs: Any) -> None:
        for path in (box.state / "journal/normal").glob("*.log"):
            path.unlink()
        add(self, *args, **kwargs)

    monkeypatch.setattr(ArchiveWriter, "add", delete_all_first)
    box.save(tmp_path / "gw")
    other.restore(tmp_path / "gw")
    assert seqs(other.state) == list(range(6, 41))


def test_a_segment_that_another_one_replaces_is_not_missed(
    box: Box, other: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is read, then it is gone, and its content stands under a name that was not there."""
    opened, lane = collect._open, box.state / "journal/normal"
    first = min(lane.glob("*.log"))
    index, salt = first.stem.split("-")
    replaced = lane / f"{index}-{int(salt, 16) ^ 1:08x}.log"

    def gone(name: str, path: Path, **options: bool) -> Any:
        if path == first and first.exists():
            first.rename(replaced)
        return opened(name, path, **options)

    monkeypatch.setattr(collect, "_open", gone)
    box.save(tmp_path / "gw")
    names = {item.name for item in verify(tmp_path / "gw").manifest.files}  # type: ignore[union-attr]  # verified
    assert f"journal/normal/{first.name}" not in names
    assert f"journal/normal/{replaced.name}" in names
    assert len(names) == len(set(names))


def test_files_that_never_stand_still_are_said(
    box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = collect._open

    def gone(name: str, path: Path, **options: bool) -> Any:
        if path.suffix == ".log":
            raise FileNotFoundError(2, "gone", str(path))
        return opened(name, path, **options)

    monkeypatch.setattr(collect, "_open", gone)
    with pytest.raises(BackupError, match="come and go"):
        box.save(tmp_path / "gw")


@pytest.mark.parametrize("cut", [1, 100])
def test_a_file_cut_meanwhile_keeps_its_announced_length(
    box: Box, other: Box, tmp_path: Path, cut: int
) -> None:
    """A full disk makes the writer cut what nobody was promised: the copy ends in zeros, a torn end."""
    last = max((box.state / "journal/normal").glob("*.log"))
    with last.open("ab") as log:
        log.write(b"\xe9\x67" + bytes(98))
    kept, size = collect.OpenFile.chunks, last.stat().st_size

    def chunks(self: collect.OpenFile) -> Iterator[bytes]:
        if self.size == size and last.name in self.name:
            os.truncate(last, size - cut)
        return kept(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect.OpenFile, "chunks", chunks)
        box.save(tmp_path / "gw")
    other.restore(tmp_path / "gw")
    assert seqs(other.state)[-1] == 40


def test_no_state_is_said(box: Box, tmp_path: Path) -> None:
    shutil.rmtree(box.state)
    with pytest.raises(BackupError, match=r"no state in .*--state"):
        box.save(tmp_path / "gw")


def test_another_file_is_not_overwritten_and_an_older_backup_is(box: Box, file: Path, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(BackupError, match="is no backup"):
        box.save(tmp_path / "letter")
    before = file.read_bytes()
    (box.config / "more.yaml").write_text("x: 1\n")
    box.save(file)
    assert file.read_bytes() != before
    assert not list(tmp_path.glob("*.partial"))


def test_a_backup_that_fails_leaves_the_one_before(
    box: Box, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = file.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "gw.backup")

    monkeypatch.setattr(ArchiveWriter, "finish", full)
    with pytest.raises(BackupError, match="No space left on device: no backup was made"):
        box.save(file)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


def test_two_backups_to_one_file_do_not_mix(box: Box, file: Path) -> None:
    lock = RealFileSystem().lock(file.with_name("gw.backup.partial"))
    with pytest.raises(BackupError, match="another backup"):
        box.save(file)
    lock.close()


# Damage


def small_backup(path: Path) -> bytes:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    head = Head(version="1", gateway="gw", created_ns=0, epoch=1, journal_directory=None)
    writer = ArchiveWriter(descriptor, head)
    writer.add("config/gateway.yaml", 5, 0o644, [b"a: 1\n"])
    writer.add("journal/normal/00000001-00000000.log", 700, 0o640, [bytes(range(256)) * 2, bytes(188)])
    writer.finish({"config": 0o755})
    os.close(descriptor)
    return path.read_bytes()


def test_a_backup_cut_at_any_byte_or_with_any_byte_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small"
    whole = small_backup(path)
    verify(path)
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(BackupError):
            verify(path)
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(BackupError):
            verify(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_at_all_is_a_backup_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Also where the sums are right: what stands inside is arbitrary then."""
    path = tmp_path / "any"
    blocks = data.draw(
        st.lists(st.binary(max_size=600) | st.integers(1, 3).map(lambda n: bytes(512 * n)), max_size=6)
    )
    info = tarfile.TarInfo(
        data.draw(st.sampled_from(["backup.json", "manifest.json", "config/x", "../x", ""]))
    )
    info.size = data.draw(st.integers(0, 600))
    header = info.tobuf(tarfile.USTAR_FORMAT) if info.name else b""
    inner = header + b"".join(blocks)
    content = zstandard.ZstdCompressor().compress(inner) if data.draw(st.booleans()) else inner
    path.write_bytes(sealed(content))
    with pytest.raises(BackupError):
        verify(path)
    path.write_bytes(inner)
    with pytest.raises(BackupError):
        verify(path)


def sealed(content: bytes) -> bytes:
    """Head and foot of ours around it."""
    before = archive._head(archive.FORMAT) + content
    digest = archive.hashlib.sha256(before).digest()
    foot = archive._FOOT.pack(archive._FOOT_MAGIC, len(before), digest)
    return before + archive._FRAME.pack(archive._SKIPPABLE, archive._FOOT.size) + foot


def test_a_bomb_needs_no_memory(tmp_path: Path) -> None:
    """Zeros without end, or a first member of gigabytes: refused by the first header."""
    (tmp_path / "bomb").write_bytes(sealed(zstandard.ZstdCompressor(level=19).compress(bytes(64 << 20))))
    with pytest.raises(BackupError, match=r"backup\.json"):
        verify(tmp_path / "bomb")
    info = tarfile.TarInfo("backup.json")
    info.size = 7 << 30
    (tmp_path / "bomb").write_bytes(
        sealed(zstandard.ZstdCompressor().compress(info.tobuf(tarfile.USTAR_FORMAT)))
    )
    with pytest.raises(BackupError, match="expected at most"):
        verify(tmp_path / "bomb")


def test_a_newer_format_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(archive, "FORMAT", 2)
        small_backup(tmp_path / "new")
    with pytest.raises(BackupError, match=r"format 2, this program reads 1: use a newer program"):
        verify(tmp_path / "new")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "config/../../x",
        "/etc/passwd",
        "config//x",
        "config/./x",
        "",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 300,
    ],
)
def test_names_that_lead_elsewhere_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name_problem(name)
    path = tmp_path / "evil"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = ArchiveWriter(
        descriptor, Head(version="", gateway="", created_ns=0, epoch=1, journal_directory=None)
    )
    with monkeypatch.context() as patch:
        patch.setattr(archive, "name_problem", lambda _name: "")
        patch.setattr(ArchiveWriter, "_header", _any_header)
        writer.add(name, 1, 0o644, [b"x"])
        writer.finish({})
    os.close(descriptor)
    box = Box(tmp_path / "target")
    with pytest.raises(BackupError):
        box.restore(path)
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "x").exists()


def _any_header(self: ArchiveWriter, name: str, size: int, mode: int) -> None:
    info = tarfile.TarInfo("placeholder")
    info.size, info.mode = size, mode
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    raw[:100] = name.encode()[:100].ljust(100, b"\0") if name != "manifest.json" else raw[:100]
    if name == "manifest.json":
        raw[:100] = b"manifest.json".ljust(100, b"\0")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    self._zstd.write(bytes(raw))


@pytest.mark.parametrize(
    ("members", "directories"),
    [
        (["config/a", "config/a/b"], {}),  # a file as a directory
        (["config/a", "journal/epoch"], {"config/a": 0o755}),
        (["config/a", "elsewhere/b", "journal/epoch"], {}),
        (["config/a", "state/lock", "journal/epoch"], {}),
        (["config/a", "state/journal/x", "journal/epoch"], {}),
        (["config/a"], {"config/../..": 0o755}),
        (["config/a"], {}),  # no journal
        (["journal/epoch"], {}),  # no configuration
    ],
)
def test_what_belongs_nowhere_is_refused(
    members: list[str], directories: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "odd"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    writer = ArchiveWriter(
        descriptor, Head(version="", gateway="", created_ns=0, epoch=1, journal_directory=None)
    )
    for name in members:
        writer.add(name, 1, 0o644, [b"x"])
    writer.finish(directories)
    os.close(descriptor)
    box = Box(tmp_path / "target")
    with pytest.raises(BackupError):
        box.restore(path)
    assert not tree(tmp_path / "target") if (tmp_path / "target").exists() else True


# Restoring over something


def test_what_is_there_is_replaced_only_by_force_and_kept(box: Box, other: Box, file: Path) -> None:
    other.fill(batches=3)
    before = tree(other.config), tree(other.state)
    with pytest.raises(BackupError, match="--force"):
        other.restore(file)
    assert (tree(other.config), tree(other.state)) == before
    (other.state / "extra").write_text("of the state that goes")
    done = other.restore(file, force=True)
    assert len(seqs(other.state)) == 35
    assert not (other.state / "extra").exists()
    kept = {path.rpartition("/")[2].partition(".before-")[0]: Path(path) for path in done.aside}
    assert kept.keys() == {"config", "journal", "audit", "extra"}
    assert tree(kept["config"]) == before[0]
    other.restore(file, force=True)  # once more in the same second


def test_a_running_gateway_is_left_alone(box: Box, other: Box, file: Path) -> None:
    other.fill()
    journal = open_journal(other.state)
    before = tree(other.state)
    with pytest.raises(BackupError, match="stop"):
        other.restore(file, force=True)
    assert tree(other.state) == before
    journal.close()
    with swap.locked(other.state), pytest.raises(BackupError, match="stop the gateway first"):
        other.restore(file, force=True)


def test_a_directory_of_somebody_else_is_left_alone(other: Box, file: Path) -> None:
    other.state.mkdir(parents=True)
    (other.state / "photos").mkdir()
    with pytest.raises(BackupError, match="no state of a gateway"):
        other.restore(file, force=True)


def test_a_state_within_the_configuration_is_refused(other: Box, file: Path) -> None:
    other.state = other.config / "state"
    with pytest.raises(BackupError, match="lies in the other"):
        other.restore(file)


def test_a_segment_of_a_newer_format_changes_nothing(
    box: Box, other: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.save(tmp_path / "gw")
    monkeypatch.setattr("gateway.disk.segment.FORMAT", 0)
    with pytest.raises(BackupError, match=r"log format \d+, this program reads"):
        other.restore(tmp_path / "gw")
    assert not other.config.exists()
    assert tree(other.state) == {}


class Stopping(RealFileSystem):
    """The power goes at the n-th change."""

    def __init__(self, at: int) -> None:
        self.left = at

    def _step(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def rename(self, source: Path, target: Path) -> None:
        self._step()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self._step()
        super().unlink(path)

    def sync_directory(self, directory: Path) -> None:
        self._step()
        super().sync_directory(directory)


def test_a_crash_at_any_moment_leaves_the_old_or_the_new(
    box: Box, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = []
    for at in range(100):
        other = Box(tmp_path / f"crash{at}")
        other.fill(batches=3)
        (other.config / "gateway.yaml").write_text("old: 1\n")
        with monkeypatch.context() as patch:
            stopping = Stopping(at)
            patch.setattr(swap, "_files", stopping)
            patch.setattr("gateway.app.backup.restore._files", stopping)
            try:
                other.restore(file, force=True)
                is_done = True
            except Crash:
                is_done = False
        if is_done:
            break
        swap.finish_if_begun(other.state)
        config = (other.config / "gateway.yaml").read_text()
        outcome = {"old: 1\n": "old", CONFIG: "new"}[config]
        assert (other.state / "audit/commands-000001.jsonl").exists()
        assert len(seqs(other.state)) == {"old": 0, "new": 35}[outcome]
        outcomes.append(outcome)
        other.restore(file, force=True)  # and nothing is in the way of the next one
    assert is_done
    assert outcomes == sorted(outcomes, reverse=True), "once it is new it stays new"
    assert {"old", "new"} == set(outcomes)


def test_a_run_finishes_what_a_restore_was_stopped_in(
    box: Box, other: Box, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_state: Path) -> None:
        if (other.state / "restore.json").exists():
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("gateway.app.backup.restore.finish", stop)
        with pytest.raises(Crash):
            other.restore(file)
    assert not other.config.exists()
    with pytest.raises(BackupError, match="not finished"):
        save(box.config.parent / "x", config=box.config, state=other.state, with_secrets=False, version="")
    ran = CliRunner().invoke(cli, ["run", str(other.config), "--state", str(other.state)])
    assert (other.config / "gateway.yaml").read_text() == CONFIG
    assert "gateway.yaml" in str(ran.exception), "and then the configuration is read: its secrets are missing"


def test_a_file_that_changes_while_it_is_read_changes_nothing(
    box: Box, other: Box, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box.config / "more.yaml").write_text("x: 1\n")
    box.save(file.with_name("later"))

    def replaced(path: Path) -> ArchiveReader:
        found = verify(path)
        shutil.copy(file.with_name("later"), path)
        return found

    monkeypatch.setattr("gateway.app.backup.restore.verify", replaced)
    with pytest.raises(BackupError, match="changed while it was read"):
        other.restore(file)
    assert not other.config.exists()
    assert tree(other.state) == {}


# What people see


def test_what_the_commands_print(
    box: Box, other: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr("gateway.app.backup.command.os.nice", steps.append)
    file = tmp_path / "gw.backup"
    where = ["--config", str(box.config), "--state", str(box.state)]
    made = CliRunner().invoke(cli, ["backup", str(file), *where], catch_exceptions=False)
    assert steps == [10], "the gateway's work goes first"
    assert "gw, epoch 1000: 5 configuration files, " in made.output
    assert "  secrets/password (uplinks.broker.password_file)" in made.output
    listed = CliRunner().invoke(cli, ["backup", "--list", str(file)], catch_exceptions=False).output
    assert "all sound" in listed
    assert "config/gateway.yaml" in listed
    where = ["--config", str(other.config), "--state", str(other.state)]
    back = CliRunner().invoke(cli, ["restore", str(file), *where], catch_exceptions=False).output
    assert f"  {other.config}" in back
    assert "above every one used before" in back
    assert "put it back yourself" in back
    finished = CliRunner().invoke(cli, ["restore", "--finish", *where], catch_exceptions=False).output
    assert finished == "nothing to finish\n"
