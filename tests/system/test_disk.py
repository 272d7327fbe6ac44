"""A disk without room under the running gateway: it says so, waits, goes on, and nothing is corrupted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import in_ci, mosquitto, require
from tests.system.listeners import PahoListener
from tests.system.plant import Plant, counting_tags
from tests.system.process import Gateway, dump_journal
from tests.system.waiting import Background, until
from tests.system.wire import Wire

DISK_BYTES = 3 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room; skips where none may be mounted."""
    where = tmp_path / "disk"
    where.mkdir()
    try:
        mount = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(where)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if mount.returncode:
        reason = f"may not mount a file system here: {mount.stderr.strip()}"
        if in_ci() and os.geteuid() == 0:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    yield where
    subprocess.run(["umount", "--lazy", str(where)], check=True)


def site(plant: Plant, port: int, disk: Path) -> dict[str, Any]:
    """A buffer larger than the disk."""
    tags = counting_tags("fast")
    tags["text"] = {"at": "hr:100", "type": "string", "length": 240, "scan": "fast"}
    tags["plain"] = {"at": "hr:300", "type": "int16", "write": {}}
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "journal": {"commit": "20ms", "directory": str(disk), "compression": "none"},
        "links": {"plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}", "max_in_flight": 8}},
        "scan": {"fast": "20ms"},
        "devices": {f"d{unit}": {"link": "plc", "unit": unit, "tags": tags} for unit in plant.counts},
        "uplinks": {
            "broker": {
                "kind": "mqtt",
                "url": f"mqtt://127.0.0.1:{port}",
                "backoff": {"min": "20ms", "max": "100ms"},
            }
        },
        "publish": [{"uplink": "broker", "topic": "plant/{device}", "report": {"on": "scan"}}],
    }


@pytest.mark.interop
@pytest.mark.kills
@pytest.mark.parametrize("end", ["goes on", "stopped while full", "killed while full"])
def test_a_full_disk_pauses_and_loses_nothing(
    end: str, small_disk: Path, tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    require("paho")
    plant = Plant(background, units=20)
    plant.setpoints.update({(unit, 100 + i): 0x4142 for unit in plant.counts for i in range(120)})
    plant.start()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2_300_000))
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        wire.stop()  # nothing can leave: the disk fills
        gateway = make_gateway(site(plant, wire.port, small_disk))
        gateway.start()
        until(lambda: gateway.get("/healthz").code == 503, "the disk to be full", within_s=40)
        assert any("the disk is full" in reason for reason in gateway.get("/healthz").json["reasons"])
        journal = gateway.status()["journal"]
        assert journal["state"] == "full"
        assert str(small_disk) in journal["reason"]
        gateway.await_log("reading pauses, nothing is lost")
        assert "the disk is full" in gateway.log
        if end != "goes on":
            if end == "killed while full":
                gateway.kill()
            else:
                code, _ = gateway.stop()
                assert code in {0, 1}, "1 where what was accepted could not be written"
            ballast.unlink()
            gateway.start()
        else:
            ballast.unlink()
            gateway.await_log("reading goes on, there is room again")
        until(lambda: gateway.get("/healthz").code == 200, "health")
        before = sum(plant.counts.values())
        until(lambda: sum(plant.counts.values()) > before + 40, "reading to go on")
        wire.start()
        gateway.await_connected()
        plant.stop()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go", within_s=30)
        assert gateway.uplink()["quarantined_total"] == 0
        assert gateway.status()["journal"]["damaged_total"] == 0
        assert gateway.stop()[0] == 0
        records = dump_journal(small_disk)
        until(lambda: len(listener.heard) >= len(records), "the last of it")
        heard = {(one.topic, one.json["e"], one.json["n"]) for one in listener.heard}
        missing = [r[:2] for r in records if (f"plant/{r.batch.layout.device}", *r[:2]) not in heard]
        assert not missing
        if end == "goes on":
            for unit in plant.counts:
                counts = [
                    one.json["v"]["count"]
                    for one in listener.on(f"plant/d{unit}")
                    if "q" not in one.json and "count" in one.json["v"]
                ]
                assert counts == list(range(1, len(counts) + 1)), "a scan that was read is missing"
                assert plant.counts[unit] - counts[-1] <= 1
        print(f"{end}: {len(records)} records")


@pytest.mark.interop
@pytest.mark.kills
def test_what_cannot_be_audited_is_not_carried_out(
    small_disk: Path,
    tmp_path: Path,
    background: Background,
    plant: Plant,
    make_gateway: Callable[..., Gateway],
) -> None:
    require("paho")
    with mosquitto(tmp_path) as broker:
        station = PahoListener(broker.port, "+/+/ack")
        background.at_end.append(station.close)
        config = site(plant, broker.port, tmp_path / "elsewhere")
        config["commands"] = [
            {"uplink": "broker", "topic": "{device}/{tag}/set", "reply": "{device}/{tag}/ack"}
        ]
        gateway = make_gateway(config)
        gateway.state = small_disk / "state"  # type: ignore[misc]  # before the first start
        gateway.start()
        gateway.await_connected()
        until(lambda: gateway.points()["d1/plain"]["quality"] == "good", "values")
        fill(small_disk)
        station.publish("d1/plain/set", {"id": "full", "v": 7})
        said = station.wait_for(lambda one: one.json["id"] == "full", "an answer").json
        assert said["outcome"] == "rejected"
        assert "what cannot be audited is not carried out" in said["reason"]
        assert not plant.writes
        (small_disk / "ballast").unlink()
        station.publish("d1/plain/set", {"id": "room", "v": 8})
        said = station.wait_for(
            lambda one: one.json["id"] == "room" and one.json["outcome"] != "accepted", "answer"
        )
        assert said.json["outcome"] == "sent"
        assert plant.writes == [(1, 300, 8)]
        assert gateway.stop()[0] == 0


def fill(disk: Path) -> None:
    """Until nothing more fits."""
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(bytes(4096))
        except OSError:
            return
