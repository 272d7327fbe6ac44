"""Commands over MQTT, from an operator's station to the plant and back: judged by what the plant was told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.peers import Broker, mosquitto, require
from tests.system.listeners import Heard, PahoListener
from tests.system.plant import Plant, counting_tags
from tests.system.process import Gateway, no_tracebacks
from tests.system.waiting import Background, until

WRITABLE: dict[str, Any] = {
    "sp": {"at": "hr:100", "type": "int16", "write": {"min": 0, "max": 3000, "verify": "readback"}},
    "plain": {"at": "hr:101", "type": "int16", "write": {}},
    "wide": {"at": "hr:102", "type": "float32", "write": {"verify": "readback"}},
    "hz": {
        "at": "hr:106",
        "type": "uint16",
        "expr": "value / 10 - 4",
        "write": {"max": 50, "verify": "readback"},
    },
    "pump": {"at": "co:0", "type": "bool", "write": {}},
}


def site(plant: Plant, port: int, **link: Any) -> dict[str, Any]:
    """One device that takes commands, under a time to live and without one."""
    rule = {"uplink": "broker", "match": "d1/*", "topic": "plant/{device}/{tag}/set"}
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "1ms"},  # a stop then waits for nothing but the command itself
        "links": {
            "plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "timeout": "400ms",
                    "reconnect": {"min": "50ms", "max": "200ms"}, **link},
        },
        "scan": {"fast": "200ms"},
        "devices": {"d1": {"link": "plc", "unit": 1, "tags": {**counting_tags("fast"), **WRITABLE}}},
        "uplinks": {
            "broker": {"kind": "mqtt", "url": f"mqtt://127.0.0.1:{port}",
                       "backoff": {"min": "20ms", "max": "100ms"}},
        },
        "publish": [{"uplink": "broker", "topic": "plant/{device}"}],
        "commands": [
            {**rule, "reply": "plant/{device}/{tag}/ack"},
            {**rule, "topic": "strict/{device}/{tag}/set", "reply": "strict/{device}/{tag}/ack",
             "rule": {"ttl": "2s", "age_proof": "live_delivery"}},
            {**rule, "topic": "stricter/{device}/{tag}/set", "reply": "stricter/{device}/{tag}/ack",
             "rule": {"ttl": "2s"}},
        ],
    }  # fmt: skip


class Rig(NamedTuple):
    """Everything a command passes."""

    plant: Plant
    broker: Broker
    gateway: Gateway
    station: PahoListener

    def send(self, tag: str, payload: object, *, prefix: str = "plant", **options: Any) -> None:
        """Publish a command."""
        self.station.publish(f"{prefix}/d1/{tag}/set", payload, **options)

    def answers(self, tag: str, identity: str, *, prefix: str = "plant") -> list[Any]:
        """Replies to one id so far."""
        heard = [one.json for one in self.station.on(f"{prefix}/d1/{tag}/ack")]
        return [said for said in heard if said["id"] == identity]

    def final(self, tag: str, identity: str, *, prefix: str = "plant", count: int = 1) -> Any:
        """The `count`th reply that is final."""

        def look() -> Any:
            found = [one for one in self.answers(tag, identity, prefix=prefix) if one["outcome"] in FINAL]
            return found[count - 1] if len(found) >= count else None

        return until(look, f"answer {count} to {identity}\n{self.gateway.log}")

    def written(self, register: int) -> list[int]:
        """What the plant was told to put into a register."""
        return [value for _unit, number, value in self.plant.writes if number == register]

    def audited(self, identity: str, stem: str = "commands") -> list[str]:
        """Outcomes of one id in the audit file."""
        return [line["outcome"] for line in self.gateway.audit(stem) if line["id"] == identity]


FINAL = {"verified", "rejected", "expired", "unknown", "sent"}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One gateway for all the tests that do not stop it."""
    require("paho")
    background = Background()
    folder = tmp_path_factory.mktemp("commands")
    plant = Plant(background)
    plant.start()
    with mosquitto(folder) as broker:
        gateway = Gateway(folder, site(plant, broker.port))
        station = PahoListener(
            broker.port, "plant/+/+/ack", "strict/+/+/ack", "stricter/+/+/ack", "gateway/#", name="station"
        )
        try:
            gateway.start()
            await_values(gateway)
            yield Rig(plant, broker, gateway, station)
        finally:
            gateway.kill()
            station.close()
            background.close()
    no_tracebacks([gateway])


def await_values(gateway: Gateway) -> None:
    """The device is read and the broker has the subscription."""
    gateway.await_connected()
    until(lambda: gateway.points()["d1/sp"]["quality"] == "good", "the device to be read")


pytestmark = [pytest.mark.interop, pytest.mark.kills]


def test_a_good_command_is_accepted_sent_and_verified(rig: Rig) -> None:
    rig.send("sp", {"id": "good-1", "v": 1234})
    said = rig.final("sp", "good-1")
    until(lambda: len(rig.answers("sp", "good-1")) == 3, "three replies")
    assert [one["outcome"] for one in rig.answers("sp", "good-1")] == ["accepted", "sent", "verified"], said
    assert rig.written(100)[-1:] == [1234]
    assert rig.audited("good-1") == ["accepted", "verified"]
    until(lambda: rig.gateway.points()["d1/sp"]["value"] == 1234, "the value to be read")


def test_zero_is_written_and_a_float_is_one_write(rig: Rig) -> None:
    rig.send("plain", {"id": "zero", "v": 0})
    assert rig.final("plain", "zero")["outcome"] == "sent"
    assert rig.written(101)[-1:] == [0]
    before = len(rig.plant.writes)
    rig.send("wide", {"id": "wide", "v": 1.5})
    assert rig.final("wide", "wide")["outcome"] in {"sent", "verified"}
    until(lambda: rig.audited("wide") == ["accepted", "verified"], "verified")
    assert rig.plant.writes[before:] == [(1, 102, 0x3FC0), (1, 103, 0)]
    rig.send("pump", {"id": "pump", "v": True})
    assert rig.final("pump", "pump")["outcome"] == "sent"
    assert rig.written(10_000)[-1:] == [1]


def test_a_calculated_tag_is_turned_around_judged_in_its_unit_and_read_back_in_it(rig: Rig) -> None:
    rig.send("hz", {"id": "hz-1", "v": 20.5})
    said = rig.final("hz", "hz-1")
    until(lambda: rig.audited("hz-1") == ["accepted", "verified"], "verified")
    assert rig.written(106)[-1:] == [245]
    assert next(one for one in rig.answers("hz", "hz-1") if one["outcome"] == "verified")["v"] == 20.5, said
    until(lambda: rig.gateway.points()["d1/hz"]["value"] == 20.5, "the value to be read")
    rig.send("hz", {"id": "hz-2", "v": 50.5})
    assert "above 50" in rig.final("hz", "hz-2")["reason"]
    rig.send("hz", {"id": "hz-3", "v": -4.5})  # -5 in the register
    assert rig.final("hz", "hz-3")["outcome"] == "rejected"
    assert rig.written(106)[-1:] == [245]


@pytest.mark.parametrize(
    ("identity", "tag", "payload", "reason"),
    [
        ("range", "sp", {"id": "range", "v": 3001}, "above 3000"),
        ("type", "sp", {"id": "type", "v": "fast"}, "expected a whole number"),
        ("bool", "plain", {"id": "bool", "v": True}, "expected a whole number"),
        ("fraction", "plain", {"id": "fraction", "v": 1.5}, "expected a whole number"),
        ("huge", "plain", {"id": "huge", "v": 70_000}, "70000"),
        ("readonly", "count", {"id": "readonly", "v": 1}, "read-only"),
        ("novalue", "sp", {"id": "novalue"}, "v"),
    ],
)
def test_what_must_not_be_written_is_rejected_with_its_reason(
    rig: Rig, identity: str, tag: str, payload: dict[str, Any], reason: str
) -> None:
    before = len(rig.plant.writes)
    rig.send(tag, payload)
    said = rig.final(tag, identity)
    assert said["outcome"] == "rejected"
    assert reason in said["reason"], said
    assert len(rig.plant.writes) == before
    until(lambda: "rejected" in rig.audited(identity, "refused") + rig.audited(identity), "an audit line")


def test_an_unknown_tag_is_rejected_on_its_own_topic(rig: Rig) -> None:
    rig.send("nosuch", {"id": "nothing", "v": 1})
    said = rig.station.wait_for(lambda one: one.topic == "plant/d1/nosuch/ack", "an answer").json
    assert said["outcome"] == "rejected"
    assert "nosuch" in said["reason"]
    until(lambda: rig.gateway.audit("refused")[-1]["target"] == "d1/nosuch", "an audit line")


def test_malformed_json_is_rejected_and_audited(rig: Rig) -> None:
    before = len(rig.plant.writes)
    heard = len(rig.station.on("plant/d1/sp/ack"))
    rig.send("sp", b'{"id": "broken", "v": ')
    said = until(lambda: rig.station.on("plant/d1/sp/ack")[heard:], "an answer")[0].json
    assert said["outcome"] == "rejected"
    assert "JSON" in said["reason"]
    assert len(rig.plant.writes) == before
    until(lambda: rig.gateway.audit("refused")[-1]["target"] == "d1/sp", "an audit line")


def test_age_is_verified_where_a_rule_demands_it(rig: Rig) -> None:
    before = len(rig.plant.writes)
    now_ms = time.time_ns() // 1_000_000
    rig.send("sp", {"id": "no-age", "v": 1}, prefix="strict")
    said = rig.final("sp", "no-age", prefix="strict")
    assert said["outcome"] == "rejected"
    assert "age cannot be verified" in said["reason"]
    rig.send("sp", {"id": "long-expiry", "v": 1}, prefix="strict", expiry_s=3600)
    assert rig.final("sp", "long-expiry", prefix="strict")["outcome"] == "rejected"
    # without age_proof: live_delivery an expiry proves nothing
    rig.send("sp", {"id": "expiry-only", "v": 1}, prefix="stricter", expiry_s=2)
    assert "age cannot be verified" in rig.final("sp", "expiry-only", prefix="stricter")["reason"]
    rig.send("sp", {"id": "old", "v": 1, "t": now_ms - 60_000}, prefix="strict")
    said = rig.final("sp", "old", prefix="strict")
    # a machine whose clock is not synchronised cannot tell the age, and says so
    synchronised = rig.gateway.status()["time_synchronised"]
    assert said["outcome"] == ("expired" if synchronised else "rejected"), said
    assert len(rig.plant.writes) == before
    rig.send("sp", {"id": "live", "v": 77}, prefix="strict", expiry_s=2)
    rig.final("sp", "live", prefix="strict")
    until(lambda: rig.audited("live") == ["accepted", "verified"], "verified")
    assert rig.written(100)[-1:] == [77]


def test_the_same_id_is_answered_again_and_not_executed(rig: Rig) -> None:
    rig.send("sp", {"id": "once", "v": 500})
    until(lambda: rig.audited("once") == ["accepted", "verified"], "verified")
    before = len(rig.plant.writes)
    heard = len(rig.answers("sp", "once"))
    rig.send("sp", {"id": "once", "v": 500})
    until(lambda: len(rig.answers("sp", "once")) > heard, "the answer again")
    assert rig.answers("sp", "once")[-1]["outcome"] == "verified"
    rig.send("sp", {"id": "once", "v": 600})
    until(lambda: "was used before" in rig.answers("sp", "once")[-1].get("reason", ""), "a refusal")
    assert len(rig.plant.writes) == before


def test_a_device_that_refuses_and_one_that_does_not_answer(rig: Rig) -> None:
    rig.plant.refuses_writes = True
    rig.send("plain", {"id": "refused", "v": 5})
    assert rig.final("plain", "refused")["outcome"] == "rejected"
    rig.plant.refuses_writes = False
    rig.plant.is_silent_on_write = True
    before = len(rig.written(101))
    rig.send("plain", {"id": "silent", "v": 6})
    assert rig.final("plain", "silent")["outcome"] == "unknown"
    assert len(rig.written(101)) == before + 1, "a command is never tried twice"
    rig.plant.is_silent_on_write = False
    assert rig.audited("silent") == ["accepted", "unknown"]


def test_a_command_while_its_link_is_down_is_rejected(rig: Rig) -> None:
    rig.plant.stop()
    until(lambda: rig.gateway.link("plc")["state"] != "up", "the link to go")
    rig.send("plain", {"id": "down", "v": 5})
    said = rig.final("plain", "down")
    assert said["outcome"] == "rejected"
    assert "offline" in said["reason"], said
    rig.plant.start()
    await_values(rig.gateway)
    assert 5 not in rig.written(101)[-1:]


def test_counts_and_the_last_command_are_in_the_status(rig: Rig) -> None:
    rig.send("sp", {"id": "counted", "v": 9})
    before = rig.gateway.status()["commands"]
    until(lambda: rig.audited("counted") == ["accepted", "verified"], "verified")
    until(lambda: rig.gateway.status()["commands"]["last"] == "d1/sp = 9 verified", "the last command")
    assert rig.gateway.status()["commands"]["verified_total"] >= before["verified_total"]


# Alone: the gateway goes


@pytest.fixture
def own(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> Iterator[Callable[..., Rig]]:
    """Makes a rig of its own, not started."""
    require("paho")
    with mosquitto(tmp_path, "persistence true") as broker:

        def make(**link: Any) -> Rig:
            gateway = make_gateway(site(plant, broker.port, **link))
            station = PahoListener(broker.port, "plant/+/+/ack", "strict/+/+/ack", name="station")
            background.at_end.append(station.close)
            return Rig(plant, broker, gateway, station)

        yield make


def test_retained_and_waiting_commands_are_not_executed_at_a_start(own: Callable[..., Rig]) -> None:
    rig = own()
    rig.send("sp", {"id": "kept", "v": 11}, retain=True)
    rig.gateway.start()
    await_values(rig.gateway)
    rig.send("sp", {"id": "kept-live", "v": 12}, retain=True)  # live, and the publisher asks to keep it
    said = rig.final("sp", "kept-live")
    assert said["outcome"] == "rejected"
    assert "retained" in said["reason"]
    assert rig.gateway.stop()[0] == 0
    rig.send("sp", {"id": "away", "v": 13})  # published while the gateway is away
    rig.gateway.start()
    await_values(rig.gateway)
    rig.send("sp", {"id": "now", "v": 14})
    until(lambda: rig.audited("now") == ["accepted", "verified"], "verified")
    assert rig.written(100) == [14]
    assert not rig.answers("sp", "kept")
    assert not rig.answers("sp", "away")


def test_killed_in_the_middle_of_a_command_it_answers_unknown_and_does_not_do_it_again(
    own: Callable[..., Rig],
) -> None:
    rig = own(timeout="30s")
    rig.gateway.start()
    await_values(rig.gateway)
    rig.plant.is_silent_on_write = True
    rig.send("plain", {"id": "interrupted", "v": 42})
    until(lambda: rig.written(101) == [42], "the write at the plant")
    rig.gateway.kill()
    assert rig.audited("interrupted") == ["accepted"]
    rig.plant.is_silent_on_write = False
    rig.gateway.start()
    await_values(rig.gateway)
    rig.send("plain", {"id": "interrupted", "v": 42})
    said: Heard | Any = rig.final("plain", "interrupted")
    assert said["outcome"] == "unknown"
    assert "when the gateway stopped" in said["reason"]
    assert rig.written(101) == [42]
    assert rig.audited("interrupted") == ["accepted", "unknown"]


def test_a_stop_in_the_middle_of_a_command_is_answered_and_quick(own: Callable[..., Rig]) -> None:
    rig = own(timeout="30s")
    rig.gateway.start()
    await_values(rig.gateway)
    rig.plant.is_silent_on_write = True
    rig.send("plain", {"id": "stopped", "v": 43})
    until(lambda: rig.written(101) == [43], "the write at the plant")
    assert rig.gateway.stop()[0] == 0
    assert rig.audited("stopped") == ["accepted", "unknown"]
    assert rig.final("plain", "stopped")["outcome"] == "unknown"
