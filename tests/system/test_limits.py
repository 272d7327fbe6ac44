"""A running gateway shows every bound there is; a log that nobody takes holds up nobody."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from urllib.request import urlopen

import pytest

from tests.limits import bounds
from tests.system.plant import Plant, counting_tags
from tests.system.process import Gateway
from tests.system.waiting import LOOPBACK, READY_S, ROOT, STOP_S, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def site(plant: Plant, http: int = 0) -> dict[str, object]:
    """Nobody is at the broker's port."""
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": f"{LOOPBACK}:{http}"},
        "links": {
            "plc": {"driver": "modbus", "host": f"{LOOPBACK}:{plant.port}"},
            "hmi": {"driver": "modbus", "role": "server", "listen": f"{LOOPBACK}:0"},
        },
        "expose": [{"link": "hmi", "unit": 1, "points": {"d1/count": {"at": "hr:1", "type": "uint32"}}}],
        "scan": {"fast": "20ms"},
        "devices": {"d1": {"link": "plc", "unit": 1, "tags": counting_tags("fast")}},
        "uplinks": {"broker": {"kind": "mqtt", "url": f"mqtt://{LOOPBACK}:{free_port()}"}},
        "publish": [
            {"uplink": "broker", "topic": "plant/{device}"},
            {"uplink": "broker", "topic": "spill/{device}", "buffer": {"durability": "spill"}},
        ],
    }


@pytest.mark.kills
def test_every_bound_is_in_the_metrics(plant: Plant, make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(site(plant))
    gateway.start()
    until(lambda: gateway.status()["journal"]["committed_seq"], "a commit")
    text = gateway.get("/metrics").body.decode()
    journal = gateway.status()["journal"]
    assert journal["commit_seconds_total"] > 0
    assert 0 < journal["commit_p99_s"] <= journal["commit_seconds_total"]
    assert gateway.stop()[0] == 0
    shown = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines() if line[:1] != "#"}
    expected = {name for b in bounds().values() for name in (b.depth_name, b.limit_name, b.lost_name) if name}
    assert expected - shown == set()
    assert re.search(r'^gateway_link_in_flight_limit_requests\{link="plc"\} [1-9]', text, re.MULTILINE)
    assert re.search(r'^gateway_journal_backlog_bytes\{lane="normal",rule="broker plant/', text, re.MULTILINE)


@pytest.mark.kills
def test_a_log_that_nobody_takes_holds_up_nobody(plant: Plant, make_gateway: Callable[..., Gateway]) -> None:
    """Standard error is a full pipe from before the first line to after the last."""
    port = free_port()
    gateway = make_gateway(site(plant, port))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    command = [sys.executable, "-m", "gateway.app.cli", "run", str(gateway.config_dir)]
    process = subprocess.Popen(
        [*command, "--state", str(gateway.state), "--log-level", "debug"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer, cwd=ROOT,
    )  # fmt: skip
    try:
        until(lambda: healthy(port), "health")
        served = plant.counts[1]
        until(lambda: plant.counts[1] > served + 20, "reading to go on")
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_S + 2) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def healthy(port: int) -> bool:
    try:
        with urlopen(f"http://{LOOPBACK}:{port}/healthz", timeout=READY_S) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
