"""What the broker refuses, cannot take or is not there for: bounded, counted, said, and then delivered."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.peers import Broker, mosquitto, require
from tests.system.listeners import PahoListener
from tests.system.plant import Plant, counting_tags, wrong_values
from tests.system.process import Gateway
from tests.system.waiting import Background, until
from tests.system.wire import Wire


def site(plant: Plant, port: int, **changes: Any) -> dict[str, Any]:
    """One plant, one broker; a device's scans in one message each."""
    config: dict[str, Any] = {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "20ms"},
        "links": {"plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "max_in_flight": 8}},
        "scan": {"fast": "50ms"},
        "devices": {
            f"d{unit}": {"link": "plc", "unit": unit, "tags": counting_tags("fast")} for unit in plant.counts
        },
        "uplinks": {"broker": uplink(port)},
        "publish": [{"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"}}],
    }
    config.update(changes)
    return config


def uplink(port: int, **more: Any) -> dict[str, Any]:
    """The MQTT uplink of these tests."""
    return {
        "kind": "mqtt",
        "url": f"mqtt://127.0.0.1:{port}",
        "connect_timeout": "2s",
        "backoff": {"min": "20ms", "max": "100ms"},
        **more,
    }


def rows(listener: PahoListener, topic: str) -> list[Any]:
    """What came with values on a topic, each (epoch, seq) once."""
    found = {(one.json["e"], one.json["n"]): one.json for one in listener.on(topic) if "q" not in one.json}
    return list(found.values())


def check_rows(found: list[Any], *, unit: int, plant: Plant) -> None:
    """True and in order."""
    for said in found:
        assert not wrong_values(f"d{unit}", said["v"], unit=unit, served=plant.counts[unit])
    counts = [said["v"]["count"] for said in found]
    assert counts == sorted(set(counts)), "out of order, or twice"


# Broker away

TEXT = 120  # registers of text beside the counting block, so that a buffer is soon full


def wide_site(plant: Plant, port: int, buffer: dict[str, Any]) -> dict[str, Any]:
    """Devices with a text each, under one bounded rule."""
    rule = {"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"}, "buffer": buffer}
    journal = {"commit": "20ms", "compression": "none"}  # so that it is soon full
    config = site(plant, port, scan={"fast": "20ms"}, publish=[rule], journal=journal)
    for device in config["devices"].values():
        device["tags"]["text"] = {"at": "hr:100", "type": "string", "length": 2 * TEXT, "scan": "fast"}
    return config


def wide(background: Background) -> Plant:
    """A plant whose scans fill a megabyte in seconds."""
    plant = Plant(background, units=20)
    plant.setpoints.update({(unit, 100 + i): 0x4142 for unit in plant.counts for i in range(TEXT)})
    plant.start()
    return plant


@pytest.mark.interop
@pytest.mark.kills
def test_a_full_buffer_drops_the_oldest_and_counts_them(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = wide(background)
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        gateway = make_gateway(wide_site(plant, wire.port, {"max": "1MB"}))
        gateway.start()
        gateway.await_connected()
        wire.stop()
        until(lambda: gateway.uplink()["dropped_total"] > 500, "values dropped", within_s=40)
        status = gateway.uplink()
        assert status["backlog_bytes"] <= 2_200_000, status  # the bound, and a step of it
        assert gateway.get("/healthz").code == 200
        wire.start()
        gateway.await_connected()
        plant.stop()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go", within_s=30)
        dropped = gateway.uplink()["dropped_total"]
        assert gateway.stop()[0] == 0
        gone = 0
        for unit in plant.counts:
            found = rows(listener, f"plant/d{unit}")
            check_rows(found, unit=unit, plant=plant)
            counts = [said["v"]["count"] for said in found]
            gone += counts[-1] - len(counts)  # they count from 1
        assert dropped * 0.98 <= gone <= dropped, (gone, dropped)
        print(f"{dropped} dropped and counted, {gone} missing at the listener")


@pytest.mark.interop
@pytest.mark.kills
def test_a_full_buffer_that_is_thinned_covers_the_outage_and_says_what_is_missing_where(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = wide(background)
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        gateway = make_gateway(wide_site(plant, wire.port, {"max": "2MB", "full": "thin"}))
        gateway.start()
        gateway.await_connected()
        wire.stop()
        until(lambda: gateway.uplink()["thinned_values_total"] > 20_000, "values thinned", within_s=40)
        status = gateway.uplink()
        assert status["backlog_bytes"] <= 2_200_000, status
        assert status["dropped_total"] == 0
        wire.start()
        gateway.await_connected()
        plant.stop()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go", within_s=30)
        thinned = gateway.uplink()["thinned_values_total"]
        assert gateway.stop()[0] == 0
        told = gone = 0
        for unit in plant.counts:
            found = rows(listener, f"plant/d{unit}")
            check_rows(found, unit=unit, plant=plant)
            counts = [said["v"]["count"] for said in found]
            missing = [said.get("m", {}).get("count", 0) for said in found]
            before = 0
            for count, said_missing in zip(counts, missing, strict=True):
                assert said_missing == count - before - 1  # exactly there, exactly so many
                before = count
            told += sum(sum(said.get("m", {}).values()) for said in found)
            gone += counts[-1] - len(counts)
        assert told == thinned
        print(f"{gone} scans thinned out, {told} values counted at the gaps")


@pytest.mark.interop
@pytest.mark.kills
def test_a_rule_that_spills_writes_only_what_the_broker_does_not_acknowledge(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = Plant(background)
    plant.start()
    with mosquitto(tmp_path) as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        rule = {"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"}}
        config = site(plant, wire.port, publish=[{**rule, "buffer": {"durability": "spill"}}])
        gateway = make_gateway(config)
        gateway.start()
        gateway.await_connected()

        def spilled() -> float:
            return gateway.metric("gateway_spool_held_spilled_records_total")

        def is_disk_at_rest() -> bool:
            """Over forty values, however slow the machine was before."""
            before, seen = spilled(), len(listener.on("plant/d1"))
            until(lambda: len(listener.on("plant/d1")) > seen + 40, "values")
            return spilled() == before

        until(is_disk_at_rest, "the disk to rest while the broker keeps up")
        before = spilled()
        wire.stop()
        until(lambda: spilled() > before + 20, "values on disk")
        heard = len(listener.on("plant/d1"))
        assert gateway.status()["journal"]["spilled_records_total"] > 20
        gateway.kill()  # what is on disk survives it, what was in memory does not
        wire.start()
        gateway.start()
        gateway.await_connected()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go")
        wire.stop()
        until(lambda: gateway.uplink()["backlog"] > 5, "a backlog in memory")
        assert gateway.stop()[0] == 0  # SIGTERM: nothing of it is lost
        wire.start()
        gateway.start()
        gateway.await_connected()
        plant.stop()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go")
        assert gateway.stop()[0] == 0
        found = rows(listener, "plant/d1")
        check_rows(found, unit=1, plant=plant)
        epochs = sorted({one["e"] for one in found})
        for epoch in epochs[1:]:  # ended in order, so nothing is missing of them
            numbers = sorted(one["n"] for one in found if one["e"] == epoch)
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(epochs) >= 2
        first = {one["n"] for one in found if one["e"] == epochs[0]}
        assert (
            len(first) > heard + 10
        )  # some of the twenty may have been heard though nobody acknowledged them


@pytest.mark.interop
@pytest.mark.kills
def test_a_full_buffer_that_blocks_pauses_reading_and_goes_on_by_itself(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = wide(background)
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        gateway = make_gateway(wide_site(plant, wire.port, {"max": "1MB", "full": "block"}))
        gateway.start()
        gateway.await_connected()
        wire.stop()
        until(lambda: gateway.get("/healthz").code == 503, "reading to pause", within_s=40)
        assert "a buffer is at its bound, reading pauses" in gateway.get("/healthz").json["reasons"][0]
        gateway.await_log("reading pauses, nothing is lost")
        until(lambda: not plant_reads(plant, gateway), "the plant to be left alone")
        wire.start()
        until(lambda: gateway.get("/healthz").code == 200, "reading to go on")
        gateway.await_log("reading goes on, there is room again")
        until(lambda: plant_reads(plant, gateway), "the plant to be read again")
        plant.stop()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go", within_s=30)
        assert gateway.uplink()["dropped_total"] == 0
        assert gateway.stop()[0] == 0
        for unit in plant.counts:
            found = rows(listener, f"plant/d{unit}")
            check_rows(found, unit=unit, plant=plant)
            counts = [said["v"]["count"] for said in found]
            assert counts == list(range(1, len(counts) + 1)), "a scan that was read is missing"


def plant_reads(plant: Plant, gateway: Gateway) -> int:
    """How many scans the plant serves while the gateway answers three requests."""
    before = sum(plant.counts.values())
    for _ in range(3):
        gateway.status()
    return sum(plant.counts.values()) - before


# What the broker does not take


@pytest.mark.interop
@pytest.mark.kills
def test_a_refused_topic_is_set_aside_and_the_rest_flows(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = Plant(background, units=2)
    plant.start()
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite plant/#\ntopic readwrite gateway/#\ntopic deny plant/d1\n")
    with mosquitto(tmp_path, f"acl_file {rules}") as broker:
        listener = PahoListener(broker.port, "plant/#", "gateway/#")
        background.at_end.append(listener.close)
        gateway = make_gateway(site(plant, broker.port))
        gateway.start()
        until(lambda: len(listener.on("plant/d2")) > 20, "values of the other device")
        status = until(
            lambda: gateway.uplink() if gateway.uplink()["quarantined_total"] > 5 else None, "refusals"
        )
        assert status["backlog"] < 50
        assert not listener.on("plant/d1")
        check_rows(rows(listener, "plant/d2"), unit=2, plant=plant)
        assert gateway.stop()[0] == 0
        assert gateway.log.count("broker refuses a record for good") == 1
        assert "not authorized" in gateway.log.lower()


@pytest.mark.interop
@pytest.mark.kills
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_payload_above_the_brokers_maximum_is_set_aside_and_the_rest_flows(
    version: str, tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = Plant(background, units=2)
    plant.start()
    # the values of both fit into 300 bytes, the long topic of the first does not
    rules = [
        {
            "match": "d1/*",
            "uplink": "broker",
            "topic": "plant/" + "long/" * 40 + "{device}",
            "report": {"on": "scan"},
        },
        {"match": "d2/*", "uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"}},
    ]
    with mosquitto(tmp_path, "max_packet_size 300") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        config = site(plant, broker.port, publish=rules)
        config["uplinks"]["broker"]["version"] = version
        config["uplinks"]["broker"]["status"] = "s"
        gateway = make_gateway(config)
        gateway.start()
        if version == "5":
            until(lambda: len(rows(listener, "plant/d2")) > 20, "values of the other device")
            until(lambda: gateway.uplink()["quarantined_total"] > 5, "refusals")
            assert gateway.uplink()["backlog"] < 50
            assert gateway.log.count("broker refuses a record for good") == 1
            assert "payload too large" in gateway.log
            check_rows(rows(listener, "plant/d2"), unit=2, plant=plant)
        else:  # 3.1.1 has no word for it: the broker hangs up, and all that can be done is to say so
            until(lambda: gateway.uplink()["reconnects_total"] > 2, "the broker to hang up")
            until(lambda: gateway.uplink()["reason"], "a reason, while it is away")
        assert gateway.stop()[0] == 0


# Who the broker lets in


def set_password(file: Path, user: str, password: str) -> None:
    """As the broker's administrator would."""
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([program, "-c", "-b", str(file), user, password], check=True, capture_output=True)


@pytest.mark.interop
@pytest.mark.kills
def test_refused_credentials_are_said_once_and_nothing_is_lost(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    passwords = tmp_path / "passwords"
    set_password(passwords, "gw", "old")
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#", version=4)  # it stays in while the rules change
        background.at_end.append(listener.close)
        with_password = broker.folder / "mosquitto.conf"
        text = with_password.read_text().replace(
            "allow_anonymous true", f"allow_anonymous false\npassword_file {passwords}"
        )
        with_password.write_text(text)
        os.kill(broker.pid, signal.SIGHUP)
        until(lambda: not lets_in(broker), "the broker to ask for a password")
        config = site(plant, broker.port)
        config["uplinks"]["broker"] |= {"username": "gw", "password_file": "password"}
        gateway = make_gateway(config)
        (gateway.config_dir / "password").write_text("new\n")
        (gateway.config_dir / "password").chmod(0o600)
        gateway.start()
        gateway.await_log("broker refuses us")
        until(lambda: gateway.uplink()["reconnects_total"] > 8, "attempts")
        status = gateway.uplink()
        assert status["state"] != "up"
        assert "not authorized" in status["reason"].lower()
        assert gateway.log.count("broker refuses us") == 1
        assert gateway.log.count(" link=broker") == 1, gateway.log  # down, once
        assert until(lambda: gateway.uplink()["backlog"] > 20, "values kept")
        set_password(passwords, "gw", "new")
        os.kill(broker.pid, signal.SIGHUP)
        gateway.await_log("broker accepts us now")
        until(lambda: gateway.uplink()["backlog"] < 5, "the backlog to go")
        assert gateway.stop()[0] == 0
        listener.client.username_pw_set("gw", "new")
        until(lambda: len(rows(listener, "plant/d1")) >= plant.counts[1] - 1, "all values")
        found = rows(listener, "plant/d1")
        check_rows(found, unit=1, plant=plant)
        assert [said["v"]["count"] for said in found] == list(range(1, len(found) + 1))


def lets_in(broker: Broker) -> bool:
    """Whether a client without a password gets in."""
    import socket

    with socket.create_connection((broker.host, broker.port), timeout=2) as link:
        link.sendall(bytes.fromhex("10 11 0004 4d515454 04 02 003c 0005") + b"peer2")
        return link.recv(4) == bytes.fromhex("20 02 00 00")
