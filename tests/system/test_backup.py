"""A backup of a gateway at work, put back elsewhere: all that was committed then is delivered from there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers import mosquitto, require
from tests.system.listeners import PahoListener
from tests.system.plant import Plant
from tests.system.process import Gateway, dump_journal
from tests.system.test_delivery import account, check_against, site
from tests.system.waiting import ROOT, Background, until
from tests.system.wire import Wire

UNITS = 8
COMMITTED_MIN = 400


def command(*words: str | Path) -> str:
    """What `gateway …` printed."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway.app.cli", *map(str, words)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.interop
@pytest.mark.kills
def test_all_that_was_committed_is_delivered_from_a_backup(
    tmp_path: Path, background: Background, make_gateway: Callable[..., Gateway]
) -> None:
    """Taken under load with small segments, some delivered and deleted meanwhile; the original goes on."""
    require("paho")
    plant = Plant(background, units=UNITS)
    plant.start()
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        first = PahoListener(broker.port, "plant/#", name="first")
        background.at_end.append(first.close)
        wire = Wire(background, broker.port)
        wire.start()
        config = site(plant, wire.port)
        config["publish"][0]["buffer"] = {"max": "1MB"}  # the least: segments of 4 MB
        gateway = make_gateway(config)
        gateway.start()
        gateway.await_connected()
        until(lambda: len(first.heard) > COMMITTED_MIN, "deliveries")
        wire.stop()  # from here on all that is committed waits
        until(lambda: gateway.uplink()["backlog"] > COMMITTED_MIN, "a backlog")
        committed = gateway.status()["journal"]["committed_seq"]
        delivered = len(first.heard)
        scans = sum(plant.counts.values())
        said = command("backup", tmp_path / "gw", "--config", gateway.config_dir, "--state", gateway.state)
        assert sum(plant.counts.values()) > scans, "the gateway read on meanwhile"
        assert gateway.status()["journal"]["committed_seq"] > committed
        epoch = gateway.status()["epoch"]
        assert f"gw, epoch {epoch}: " in said
        gateway.kill()
        gateway.start()  # the original comes back, and uses another epoch
        epoch_after = gateway.status()["epoch"]
        gateway.kill()
        written = dump_journal(gateway.state)
        waiting = [one for one in written if one.epoch == epoch and delivered < one.seq <= committed]
        assert len(waiting) > COMMITTED_MIN // 2

        second = PahoListener(broker.port, "plant/#", name="second")
        background.at_end.append(second.close)
        elsewhere = make_gateway(name="elsewhere")
        elsewhere.config_dir.rmdir()
        said = command(
            "restore", tmp_path / "gw", "--config", elsewhere.config_dir, "--state", elsewhere.state
        )
        found = re.search(r"next run's epoch is (\d+)", said)
        assert found is not None, said
        wire.start()
        elsewhere.start()
        assert elsewhere.status()["epoch"] == int(found[1]) > epoch_after > epoch
        elsewhere.await_connected()
        plant.stop()
        until(lambda: elsewhere.uplink()["backlog"] == 0, "the backlog to go", within_s=30)
        assert elsewhere.stop()[0] == 0
        last = dump_journal(elsewhere.state)[-1]
        until(lambda: any((h.json["e"], h.json["n"]) == last[:2] for h in second.heard), "the last of it")
        heard = account(second, in_order=True)
        delivered_now = check_against(waiting, heard, plant)
        assert not any(key[1] == epoch_after for key in heard.payloads), "of another life"
        print(f"{delivered_now} of {committed} committed delivered from the backup, {heard.heard} in all")
