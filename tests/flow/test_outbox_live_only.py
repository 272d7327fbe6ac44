"""The disk fails and the gateway goes on without it: live values pass, nothing waits for a commit."""

from __future__ import annotations

import contextlib
import errno

import pytest

from gateway.core.batch import Batch
from gateway.core.errors import StorageError
from gateway.flow.outbox import Entry, Replay
from tests.flow.test_outbox import Desk
from tests.journal.support import LAYOUT


def taken(desk: Desk) -> list[tuple[int, int]]:
    found: list[Entry] = []
    for _ in range(20):
        desk.thread.step()
        while (entry := desk.outbox.take()) is not None:
            found.append(entry)
            entry.acknowledge()
    return [entry.position for entry in found]


@pytest.mark.parametrize("live_first", [False, True])
def test_what_was_on_disk_and_what_is_live_gets_out_and_the_rest_is_counted(*, live_first: bool) -> None:
    desk = Desk(Replay(live_first=live_first))
    kept = [desk.offer() for _ in range(3)]  # the uplink is away
    assert desk.bench.journal.commit()
    unkept = desk.offer()  # waits for a commit that never comes
    desk.disk.sync_error = errno.EIO
    assert not desk.bench.journal.commit()
    desk.outbox.online()
    before = taken(desk)
    assert before == kept  # the hole stays open: it waits
    desk.outbox.disk_failed()
    with contextlib.suppress(StorageError):
        desk.offer()  # the journal refuses it, the store lets it pass live
    batch = desk.bench.seq + 1
    desk.bench.seq = batch
    live = (desk.bench.journal.epoch, batch)
    desk.outbox.offer(Batch(layout=LAYOUT, values=(1, 2), received_ns=0, epoch=live[0], seq=live[1]), "a")
    assert taken(desk) == [live]
    assert unkept not in before
    assert desk.outbox.unkept == 1
    assert not desk.outbox.is_behind


def test_an_uplink_that_is_away_then_counts_what_is_gone() -> None:
    desk = Desk(Replay())
    desk.outbox.disk_failed()
    for number in (1, 2):
        desk.outbox.offer(
            Batch(layout=LAYOUT, values=(1, 2), received_ns=0, epoch=desk.bench.journal.epoch, seq=number),
            "a",
        )
    assert (desk.outbox.unkept, desk.outbox.is_behind) == (2, False)
