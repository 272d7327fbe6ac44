"""The journal of a running gateway: what waits in memory is on disk when it ends, or when memory is short."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.aio.clock import SystemClock
from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.app.rules import stream_name
from gateway.app.store import LOW_MEMORY_BYTES, Store
from gateway.config.load import load
from gateway.config.site import Site
from gateway.core.batch import Batch
from gateway.core.errors import StorageError
from gateway.core.point import Layout, Priority
from gateway.disk.filesystem import RealFileSystem
from gateway.journal.inspection import journal_directory, look

CONFIG = """
version: 1
gateway: {name: g}
links: {hall: {driver: modbus, host: "127.0.0.1:502"}}
uplinks: {cloud: {kind: mqtt, url: "mqtt://127.0.0.1:1883"}}
devices: {d: {link: hall, unit: 1, tags: {t: {at: "hr:1", type: int16}}}}
publish: [{uplink: cloud, topic: "x/{device}", buffer: {durability: spill}}]
"""


def fail(error: BaseException) -> None:
    raise AssertionError(error)


class Run:
    """A store in which values wait that nobody acknowledges."""

    def __init__(self, folder: Path, more: str = "") -> None:
        (folder / "gateway.yaml").write_text(CONFIG + more)
        self.state = folder / "state"
        self.site: Site = load(folder, kinds())
        self.layouts: tuple[Layout, ...] = tuple(compile_site(self.site).layouts)
        self.store = Store(
            self.site,
            state=self.state,
            clock=SystemClock(),
            notify=lambda call, *arguments: call(*arguments),
            fail=fail,
            live_only=lambda: fail(RuntimeError("no disk")),
        )
        self.store.open(self.layouts)
        for seq in (1, 2, 3):
            batch = Batch(
                layout=self.layouts[0], values=(seq,), received_ns=seq, epoch=self.store.epoch, seq=seq
            )
            self.store.append(batch, lane=Priority.SPILLED, stream=stream_name(self.site.publish[0]))

    def on_disk(self) -> list[object]:
        filesystem = RealFileSystem()
        views = look(journal_directory(self.state), filesystem)
        return [record.batch.values[0] for view in views for record in view.records(filesystem)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_a_stop_writes_what_was_in_memory_only(run: Run) -> None:
    assert run.store.spool is not None
    assert len(run.store.spool) == 3
    assert run.on_disk() == []
    run.store.close()
    assert run.on_disk() == [1, 2, 3]


def test_what_is_in_memory_only_is_not_told_as_committed(run: Run) -> None:
    store, epoch = run.store, run.store.epoch
    assert store.spool is not None
    assert store.committed() == (epoch, 0)
    store.spool.acknowledged((epoch, 2))
    assert store.committed() == (epoch, 0)
    store.spool.acknowledged((epoch, 1))
    assert store.committed() == (epoch, 2)
    store.close()
    assert run.on_disk() == [3]


def test_short_memory_writes_at_once_what_need_not_be_written_yet(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spool, available = run.store.spool, [LOW_MEMORY_BYTES]
    assert spool is not None
    monkeypatch.setattr("gateway.app.store.available_bytes", lambda: available[0])
    run.store.maintain()
    assert len(spool) == 3
    available[0] = LOW_MEMORY_BYTES - 1
    run.store.maintain()
    run.store.maintain()
    assert len(spool) == 0
    assert [one.message for one in caplog.records] == [
        "memory is short: values of rules with durability: spill go to disk"
    ]
    run.store.close()
    assert run.on_disk() == [1, 2, 3]


def test_a_state_directory_has_one_gateway_also_where_its_journal_is_elsewhere(run: Run) -> None:
    folder = run.state.parent
    elsewhere = f"journal: {{directory: {folder / 'elsewhere'}}}\n"
    with pytest.raises(StorageError, match="state"):
        Run(folder, elsewhere)
    run.store.close()
    Run(folder, elsewhere).store.close()
