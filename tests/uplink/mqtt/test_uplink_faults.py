"""Faults of ours on the way out: shown, counted, and never the silent end of an uplink."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.core.batch import Batch
from gateway.uplink.mqtt.uplink import STATUS_EVERY_NS, MqttUplink, Outgoing, Route
from tests.uplink.mqtt.test_uplink_refusals import FakeOutbox, connect, identifiers, uplink_with
from tests.virtual_time import run


class Fault(Exception):
    pass


def say(batch: Batch, *, historical: bool) -> list[Outgoing]:
    """Record 2 cannot be written."""
    del historical
    if batch.seq == 2:
        raise Fault("no word for it")
    return [(b"t", b"%d" % batch.seq)]


def test_a_record_that_cannot_be_written_is_set_aside_counted_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        outbox = FakeOutbox(3)
        uplink = uplink_with(outbox)
        route = Route(rule=0, messages=say, qos=1, retain=False, live_first=False)
        uplink.connect_outboxes([[outbox]], lambda stream, layout: (route,))  # type: ignore[list-item]  # a stand-in
        assert len(identifiers(connect(uplink))) == 2
        assert outbox.acknowledged == [2]
        assert uplink.counters.quarantined == 1

    with caplog.at_level(logging.ERROR):
        run(body())
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.__dict__["position"] == "1/2"


@pytest.mark.parametrize("where", ["wake", "status"])
def test_a_fault_of_a_timer_comes_out_of_run(where: str) -> None:
    failed: list[Exception] = []

    async def body() -> None:
        uplink: MqttUplink = uplink_with(FakeOutbox(0))
        uplink.endpoint.fail = failed.append  # type: ignore[method-assign,assignment]  # as Endpoint: `keep` raises it
        task = asyncio.get_running_loop().create_task(uplink.run())
        await asyncio.sleep(0)
        connect(uplink)

        def broken(*_: object, **__: object) -> None:
            raise Fault(where)

        if where == "wake":
            uplink._send = broken  # type: ignore[method-assign]  # a fault of ours
            uplink.wake()
        else:
            uplink._publish_status = broken  # type: ignore[method-assign,assignment]  # a fault of ours
        await asyncio.sleep(STATUS_EVERY_NS / 1e9 + 1)
        task.cancel()
        await asyncio.wait([task])

    run(body())
    assert [str(fault) for fault in failed][:1] == [where]
