"""The disk fails for real under the running gateway: from one moment on the kernel answers all with EIO.

A file system of its own on a loop device is shut down by its ioctl, as the torture of file systems does it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.peers import in_ci, mosquitto, require
from tests.system.listeners import PahoListener
from tests.system.plant import Plant
from tests.system.process import Gateway, dump_journal
from tests.system.test_delivery import account, check_against, site
from tests.system.waiting import Background, until
from tests.system.wire import Wire

DISK_BYTES = 64 << 20
EXT4_IOC_SHUTDOWN = 2 << 30 | 4 << 16 | ord("X") << 8 | 125  # _IOR('X', 125, __u32), linux/fs/ext4/ext4.h
SHUTDOWN_NOLOGFLUSH = 2  # what is not synced is lost, as with a disk that is pulled out


class FailingDisk:
    """An ext4 in a file; `fail` makes the kernel refuse everything, `mend` gives back what was synced."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._image = folder / "disk.image"
        self.path.mkdir()
        self._image.touch()
        os.truncate(self._image, DISK_BYTES)
        make = ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image)]
        for command in (make, self._mount):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(f"{command[0]}: {done.stderr.strip()}")

    @property
    def _mount(self) -> list[str]:
        return ["mount", "-o", "loop", str(self._image), str(self.path)]

    def fail(self) -> None:
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", SHUTDOWN_NOLOGFLUSH))
        finally:
            os.close(directory)

    def mend(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)
        subprocess.run(self._mount, check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FailingDisk]:
    """Skips where no file system may be mounted."""
    try:
        made = FailingDisk(tmp_path)
    except OSError as error:
        if in_ci() and os.geteuid() == 0:
            pytest.fail(f"no disk to fail: {error}", pytrace=False)
        pytest.skip(f"no disk to fail here: {error}")
    yield made
    made.close()


@pytest.mark.interop
@pytest.mark.kills
@pytest.mark.parametrize("on_failure", ["stop", "live_only"])
def test_a_disk_that_fails_stops_it_or_leaves_it_live(
    on_failure: str,
    disk: FailingDisk,
    tmp_path: Path,
    background: Background,
    make_gateway: Callable[..., Gateway],
) -> None:
    require("paho")
    plant = Plant(background, units=4)
    plant.start()
    with mosquitto(tmp_path, "max_queued_messages 0") as broker:
        listener = PahoListener(broker.port, "plant/#")
        background.at_end.append(listener.close)
        wire = Wire(background, broker.port)
        wire.start()
        journal = {"commit": "20ms", "directory": str(disk.path), "on_failure": on_failure}
        gateway = make_gateway(site(plant, wire.port, journal=journal))
        gateway.start()
        gateway.await_connected()
        until(lambda: len(listener.heard) > 100, "deliveries")
        wire.stop()  # what is committed now has to wait
        until(lambda: gateway.uplink()["backlog"] > 100, "a backlog")
        said = gateway.status()["journal"]
        committed = (said["committed_epoch"], said["committed_seq"])
        disk.fail()
        if on_failure == "stop":
            assert gateway.wait() == 1
            assert "gateway stops" in gateway.log
        else:
            stays_live(gateway, wire, plant, listener)
            code, _took_s = gateway.stop()
            assert code == 1, "the journal could not be closed"
            assert "journal does not close cleanly" in gateway.log
        assert "Input/output error" in gateway.log
        assert "check the disk" in gateway.log
        assert "nothing is lost" not in gateway.log
        assert str(disk.path) in gateway.log
        disk.mend()
        records = [record for record in dump_journal(disk.path) if record[:2] <= committed]
        assert records[-1][:2] == committed
        if on_failure == "stop":
            wire.start()
        gateway.start()
        gateway.await_connected()
        assert gateway.get("/healthz").code == 200
        plant.stop()
        until(lambda: gateway.uplink()["backlog"] == 0, "the backlog to go", within_s=30)
        assert gateway.stop()[0] == 0
        last = dump_journal(disk.path)[-1]
        until(lambda: any((h.json["e"], h.json["n"]) == last[:2] for h in listener.heard), "the last of it")
        assert check_against(records, account(listener, in_order=False), plant) > 100


def stays_live(gateway: Gateway, wire: Wire, plant: Plant, listener: PahoListener) -> None:
    """It delivers what it reads now, and says everywhere that nothing is kept."""
    gateway.await_log("values are delivered live and no longer kept")
    wire.start()
    gateway.await_connected()
    read = {f"plant/d{unit}": count for unit, count in plant.counts.items()}

    def is_later(topic: str) -> bool:
        return any((one.json["v"].get("count") or 0) > read[topic] for one in listener.on(topic)[-3:])

    for topic in read:
        until(lambda topic=topic: is_later(topic), f"live values on {topic}")  # type: ignore[misc]  # bound now
    journal = gateway.status()["journal"]
    assert journal["state"] == "live_only"
    assert "Input/output error" in journal["reason"]
    health = gateway.get("/healthz")
    assert health.code == 503
    assert any("Input/output error" in reason for reason in health.json["reasons"])
    metrics = gateway.get("/metrics").body.decode()
    assert 'gateway_journal_state{state="live_only"} 1.0' in metrics
    kept = next(
        one for one in metrics.splitlines() if one.startswith("gateway_journal_not_kept_batches_total")
    )
    assert float(kept.split()[-1]) > 0
