"""The audit file: cut at every byte, crashed at every operation, full, failing, flooded."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import msgspec
import pytest

from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.errors import StorageError, StorageFull
from gateway.core.point import Value
from gateway.disk.filesystem import RealFileSystem
from gateway.flow.audit import INTERRUPTED, Audit, Known
from tests.disk.faulty import Crash, FaultyFileSystem

DIRECTORY = Path("/var/audit")
NOW = 1_700_000_000_000_000_000


def command(identity: str, value: Value = 5) -> Command:
    return Command(
        id=identity,
        device="p1",
        tag="sp",
        value=value,
        issuer="uplink:cloud",
        received_ns=NOW,
        deadline_monotonic_ns=0,
    )


def result(identity: str, outcome: Outcome = Outcome.VERIFIED, reason: str = "") -> CommandResult:
    return CommandResult(id=identity, outcome=outcome, reason=reason, value=5)


def outcomes(known: list[Known]) -> dict[str, Outcome]:
    return {one.key[1]: one.result.outcome for one in known}


def test_lines_are_what_a_person_reads(tmp_path: Path) -> None:
    audit = Audit(RealFileSystem(), tmp_path / "audit")
    assert audit.open(NOW).problems == []
    audit.accept(command("a", b"\xff"), NOW)
    audit.finish(command("a", b"\xff"), result("a"), NOW + 1_000_000)
    audit.refuse(command("b", 0.0), CommandResult(id="b", outcome=Outcome.REJECTED, reason="read-only"), NOW)
    audit.close()
    taken = (tmp_path / "audit" / "commands-000001.jsonl").read_text().splitlines()
    assert taken == [
        (
            '{"time":"2023-11-14T22:13:20.000Z","id":"a","issuer":"uplink:cloud","target":"p1/sp","value":"/w==",'
            '"outcome":"accepted"}'
        ),
        (
            '{"time":"2023-11-14T22:13:20.001Z","id":"a","issuer":"uplink:cloud","target":"p1/sp","value":"/w==",'
            '"outcome":"verified","result":5}'
        ),
    ]
    refused = (tmp_path / "audit" / "refused-000001.jsonl").read_text().splitlines()
    assert refused == [
        (
            '{"time":"2023-11-14T22:13:20.000Z","id":"b","issuer":"uplink:cloud","target":"p1/sp","value":0.0,'
            '"outcome":"rejected","reason":"read-only"}'
        ),
    ]


def test_what_a_crash_left_open_is_unknown_and_written_down_as_such() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY)
    audit.open(NOW)
    audit.accept(command("a"), NOW)
    again = Audit(disk, DIRECTORY).open(NOW + 1)
    assert [(one.result.outcome, one.result.reason) for one in again.taken] == [
        (Outcome.UNKNOWN, INTERRUPTED)
    ]
    last = bytes(disk.entries[DIRECTORY / "commands-000001.jsonl"].durable).splitlines()[-1]
    assert json.loads(last)["outcome"] == "unknown"
    assert json.loads(last)["value"] == 5


def test_cut_at_every_byte_every_whole_line_is_known() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY)
    audit.open(NOW)
    path = DIRECTORY / "commands-000001.jsonl"
    ends: list[tuple[int, str, Outcome]] = []
    for number in range(3):
        identity = f"id-{number}"
        audit.accept(command(identity), NOW)
        ends.append((len(disk.entries[path].content), identity, Outcome.UNKNOWN))
        audit.finish(command(identity), result(identity), NOW)
        ends.append((len(disk.entries[path].content), identity, Outcome.VERIFIED))
    whole = bytes(disk.entries[path].content)
    for cut in range(len(whole) + 1):
        broken = FaultyFileSystem()
        broken.make_directory(DIRECTORY)
        broken.create(path).append(whole[:cut])
        reopened = Audit(broken, DIRECTORY)
        opened = reopened.open(NOW)
        expected = {identity: outcome for end, identity, outcome in ends if end <= cut}
        assert outcomes(opened.taken) == expected
        is_torn = cut not in {0, *(end for end, _, _ in ends)}
        assert len(opened.problems) == is_torn, opened.problems
        reopened.accept(command("later"), NOW)
        later = Audit(broken, DIRECTORY).open(NOW)
        assert later.problems == []
        assert outcomes(later.taken) == expected | {"later": Outcome.UNKNOWN}


@pytest.mark.parametrize("seed", range(4))
def test_crashed_at_every_operation_what_was_accepted_is_known(seed: int) -> None:
    def run(disk: FaultyFileSystem) -> tuple[list[str], list[str]]:
        accepted: list[str] = []
        finished: list[str] = []
        try:
            audit = Audit(disk, DIRECTORY, file_bytes_max=400, files_max=50)
            audit.open(NOW)
            for number in range(8):
                identity = f"id-{number}"
                audit.accept(command(identity), NOW)
                accepted.append(identity)
                audit.finish(command(identity), result(identity), NOW)
                finished.append(identity)
        except Crash:
            pass
        return accepted, finished

    calm = FaultyFileSystem(seed)
    run(calm)
    for crash_at in range(1, len(calm.operations) + 1):
        disk = FaultyFileSystem(seed)
        disk.crash_at = crash_at
        accepted, finished = run(disk)
        opened = Audit(
            disk.after_crash(crash_at * 7 + seed), DIRECTORY, file_bytes_max=400, files_max=50
        ).open(NOW)
        known = outcomes(opened.taken)
        assert set(accepted) <= set(known)
        assert all(known[identity] is Outcome.VERIFIED for identity in finished)
        assert Outcome.ACCEPTED not in known.values()


def test_files_rotate_and_a_flood_of_refusals_forgets_no_command() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY, file_bytes_max=1_000, files_max=3)
    audit.open(NOW)
    audit.accept(command("a"), NOW)
    audit.finish(command("a"), result("a"), NOW)
    for number in range(200):
        audit.refuse(command(f"r{number}"), result(f"r{number}", Outcome.REJECTED, "no"), NOW)
    names = sorted(path.name for path in disk.entries if path.name.startswith("refused"))
    assert len(names) == 3
    assert all(len(inode.content) <= 1_000 for inode in disk.entries.values())
    opened = Audit(disk, DIRECTORY, file_bytes_max=1_000, files_max=3).open(NOW)
    assert outcomes(opened.taken) == {"a": Outcome.VERIFIED}
    assert opened.refused[-1].key == ("uplink:cloud", "r199")


def test_a_full_disk_is_said_and_recovers() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY)
    audit.open(NOW)
    audit.accept(command("a"), NOW)
    disk.room = 20
    with pytest.raises(StorageFull, match="No space left on device"):
        audit.accept(command("b"), NOW)
    disk.room = None
    audit.accept(command("c"), NOW)
    opened = Audit(disk, DIRECTORY).open(NOW)
    assert outcomes(opened.taken) == dict.fromkeys("ac", Outcome.UNKNOWN)
    assert opened.problems == []


def test_a_failing_sync_is_said_and_the_file_is_not_trusted_again() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY)
    audit.open(NOW)
    audit.accept(command("a"), NOW)
    disk.sync_error = errno.EIO
    with pytest.raises(StorageError):
        audit.accept(command("b"), NOW)
    disk.sync_error = 0
    audit.accept(command("c"), NOW)
    assert {path.name for path in disk.entries} >= {"commands-000001.jsonl", "commands-000002.jsonl"}
    assert set(outcomes(Audit(disk, DIRECTORY).open(NOW).taken)) == {"a", "c"}


def test_a_damaged_line_is_reported_and_the_rest_is_kept() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY)
    audit.open(NOW)
    for identity in "abc":
        audit.accept(command(identity), NOW)
    content = disk.entries[DIRECTORY / "commands-000001.jsonl"].content
    middle = content.index(b'"id":"b"')
    content[middle : middle + 4] = b"\0\0\0\0"
    opened = Audit(disk, DIRECTORY).open(NOW)
    assert set(outcomes(opened.taken)) == {"a", "c"}
    assert len(opened.problems) == 1
    assert "line 2" in opened.problems[0]


def test_a_name_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "commands-old.jsonl").write_text("mine")
    audit = Audit(RealFileSystem(), tmp_path)
    assert audit.open(NOW).problems == []
    audit.close()
    assert (tmp_path / "commands-old.jsonl").read_text() == "mine"


def test_ids_belong_to_their_issuer() -> None:
    disk = FaultyFileSystem()
    audit = Audit(disk, DIRECTORY)
    audit.open(NOW)
    audit.accept(command("1"), NOW)
    audit.accept(msgspec.structs.replace(command("1"), issuer="console"), NOW)
    assert len(Audit(disk, DIRECTORY).open(NOW).taken) == 2
