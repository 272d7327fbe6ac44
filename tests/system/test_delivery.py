"""Nothing accepted is lost: brokers killed, paths cut, the gateway killed; judged at a real subscriber."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.peers import Broker, mosquitto, require
from tests.system.listeners import Listener, PahoListener, WireListener
from tests.system.plant import VALUES, Plant, counting_tags, wrong_values
from tests.system.process import Gateway, Stored, dump_journal
from tests.system.waiting import READY_S, Background, until
from tests.system.wire import Wire, seeded_cuts

DEVICES = 12
MESSAGES_MIN = 10_000
# The broker keeps the listener's session over a SIGKILL, and never drops for a listener that is behind.
BROKER = "persistence true\nautosave_interval 3600\nmax_queued_messages 0\nmax_inflight_messages 200"


def site(plant: Plant, broker_port: int, **changes: Any) -> dict[str, Any]:
    """Devices of one plant to one broker, every scan a message."""
    config: dict[str, Any] = {
        "version": 1,
        "gateway": {"name": "gw", "site": "test"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "20ms"},
        "links": {
            "plc": {"driver": "modbus", "transport": "tcp", "host": f"127.0.0.1:{plant.port}",
                    "max_in_flight": 4, "reconnect": {"min": "50ms", "max": "200ms"}},
        },
        "scan": {"fast": "10ms"},
        "devices": {
            f"d{unit}": {"link": "plc", "unit": unit, "tags": counting_tags("fast")} for unit in plant.counts
        },
        "uplinks": {
            "broker": {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{broker_port}", "connect_timeout": "2s",
                       "backoff": {"min": "20ms", "max": "100ms"}},
        },
        "publish": [
            {"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"},
             "buffer": {"max": "500MB"}},
        ],
    }  # fmt: skip
    config.update(changes)
    return config


class Account(NamedTuple):
    """What a listener heard, by (topic, epoch, seq, part)."""

    payloads: dict[tuple[str, int, int, int], bytes]
    duplicates: int
    heard: int


def account(listener: Listener, *, in_order: bool) -> Account:
    """Duplicates counted; fails where one says something else, or where a device's order is broken."""
    payloads: dict[tuple[str, int, int, int], bytes] = {}
    newest: dict[str, tuple[int, int, int]] = {}
    duplicates = heard = 0
    for one in tuple(listener.heard):
        if not one.topic.startswith("plant/"):
            continue
        heard += 1
        said = one.json
        key = (one.topic, said["e"], said["n"], said.get("p", 0))
        if key in payloads:
            assert payloads[key] == one.payload, f"{key} came twice and says different things"
            duplicates += 1
            continue
        payloads[key] = one.payload
        if in_order:
            before = newest.get(one.topic, (0, 0, 0))
            assert key[1:] > before, f"{one.topic}: {key[1:]} came first after {before}"
            newest[one.topic] = key[1:]
    return Account(payloads, duplicates, heard)


def check_against(records: list[Stored], found: Account, plant: Plant) -> int:
    """Every committed record was heard, and says what the plant served; how many there are."""
    missing = []
    for record in records:
        device = record.batch.layout.device
        key = (f"plant/{device}", record.epoch, record.seq, 0)
        payload = found.payloads.get(key)
        if payload is None:
            missing.append(key)
    assert not missing, (
        f"{len(missing)} of {len(records)} committed records never arrived: {missing[:5]} … {missing[-5:]}"
    )
    check_values(found, plant)
    return len(records)


def check_values(found: Account, plant: Plant) -> None:
    """Each good row is one the plant served; a row without values says that it is bad."""
    for (topic, *_), payload in found.payloads.items():
        said = msgspec.json.decode(payload)
        device = topic.rpartition("/")[2]
        unit = int(device[1:])
        if "q" in said:
            assert set(said["q"]) == set(said["v"]), said
            assert all(value is None for value in said["v"].values()), said
            continue
        assert len(said["v"]) == VALUES + 1
        assert not wrong_values(device, said["v"], unit=unit, served=plant.counts[unit])


def save_session(broker: Broker, listener: PahoListener | WireListener) -> None:
    """Have the listener's session on the broker's disk from now on.

    mosquitto saves it when it is stopped in order, and only that of a client which did not begin clean: our
    own session begins so on its first link, hence twice.
    """
    for _ in range(2):
        listener.subscribed.clear()
        broker.stop()
        broker.start()
        assert listener.subscribed.wait(READY_S)


def fence(listener: Listener, marker: PahoListener, number: int) -> None:
    """The listener has all that the broker took before this call."""
    marker.publish("fence", {"number": number})
    listener.wait_for(lambda one: one.topic == "fence" and one.json["number"] == number, f"fence {number}")


def kill_fairly(broker: Broker, wire: Wire, listener: Listener, number: int) -> None:
    """SIGKILL in mid-stream, with messages on their way that the broker has and the gateway cannot know of.

    mosquitto acknowledges what it has in memory only, so first its acknowledgements are kept back, and the
    listener hears what was acknowledged before. What dies with the broker is then the gateway's to repeat.
    """
    wire.hold()
    marker = PahoListener(broker.port, name="marker", clean=True)
    try:
        fence(listener, marker, number)
    finally:
        marker.close()
    broker.kill()
    wire.release()
    broker.start()


@pytest.mark.interop
@pytest.mark.kills
@pytest.mark.timeout(120)
@pytest.mark.parametrize("who", ["wire", "paho"])
def test_broker_killed_and_path_cut_lose_nothing(
    who: str, tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    chance = random.Random(1)
    plant = Plant(background, units=DEVICES)
    plant.start()
    with mosquitto(tmp_path, BROKER) as broker:
        listener: WireListener | PahoListener
        if who == "wire":
            listener = WireListener(background, broker.port, "plant/#", "fence")
        else:
            listener = PahoListener(broker.port, "plant/#", "fence", version=4)
            background.at_end.append(listener.close)
        save_session(broker, listener)
        wire = Wire(background, broker.port)
        wire.cut_after = seeded_cuts(2, low=40_000, high=400_000)
        wire.start()
        gateway = make_gateway(site(plant, wire.port))
        gateway.start()
        kills = 0
        while len(listener.heard) < MESSAGES_MIN + 1_000 or kills < 4:
            goal = len(listener.heard) + chance.randint(1_500, 3_000)
            until(lambda goal=goal: len(listener.heard) >= goal, f"{goal} messages", within_s=40)
            kills += 1
            kill_fairly(broker, wire, listener, kills)
        wire.cut_after = lambda: None
        gateway.await_connected()
        assert gateway.stop()[0] == 0
        last = PahoListener(broker.port, name="marker", clean=True)
        fence(listener, last, 0)
        last.close()
        found = account(listener, in_order=True)
        committed = check_against(dump_journal(gateway.state), found, plant)
        assert committed >= MESSAGES_MIN
        assert wire.cuts >= 3
        assert found.duplicates > 0, "the broker died with acknowledgements on their way; none was repeated"
        print(
            f"{who}: {committed} records, {found.heard} heard, {found.duplicates} duplicates, "
            f"{kills} kills, {wire.cuts} cuts"
        )
