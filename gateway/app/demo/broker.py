"""The demo's broker: mosquitto where it is installed, an embedded one where it is not.

Either is a process of its own with a configuration of its own, on loopback, and is ready when a CONNECT was
answered, not when a port is open. docs/adr/0002-demo-broker.md has the measurements behind the choice.
"""

from __future__ import annotations

import enum
import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

from gateway.app.demo.child import Child, ChildFailed
from gateway.app.demo.mqtt_client import Level, MqttClient
from gateway.core.errors import GatewayError, LinkError, RemoteProtocolError

READY_TIMEOUT_S: Final = 10.0
_LOOK_S: Final = 0.02
_SYSTEM_PLACES: Final = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin")  # not on every user's PATH


class BrokerKind(enum.Enum):
    """Which broker."""

    MOSQUITTO = "mosquitto"
    EMBEDDED = "iotcore"


class NoBroker(GatewayError):
    """There is none on this machine."""


class Broker:
    """A broker at mqtt://127.0.0.1:`port` that speaks MQTT 5."""

    def __init__(self, kind: BrokerKind, child: Child, *, port: int) -> None:
        self.kind: Final = kind
        self.child: Final = child
        self.port: Final = port

    @property
    def description(self) -> str:
        """For people."""
        return f"{self.kind.value} at mqtt://127.0.0.1:{self.port}"

    def wait_ready(self, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until it answers a CONNECT; raises `ChildFailed` with its last words when it does not."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.child.require_running()
            client = MqttClient(host="127.0.0.1", port=self.port, client_id="ready", level=Level.V5)
            try:
                client.connect(timeout_s=1.0)
                return
            except (LinkError, RemoteProtocolError) as error:
                if time.monotonic() >= deadline:
                    words = self.child.last_words()
                    raise ChildFailed(f"{self.description} is not ready: {error}\n{words}") from error
            finally:
                client.close()
            time.sleep(_LOOK_S)


def choose() -> BrokerKind:
    """The better of what is there; raises `NoBroker`, which says what to install."""
    if _mosquitto() is not None:
        return BrokerKind.MOSQUITTO
    if importlib.util.find_spec("iotcore") is not None:
        return BrokerKind.EMBEDDED
    raise NoBroker(
        "the demo needs an MQTT broker: found neither mosquitto nor the Python package iotcore "
        "(which has no wheel for this machine); install one, for example: apt-get install mosquitto"
    )


def start(kind: BrokerKind, *, directory: Path, port: int) -> Broker:
    """Start one, with its configuration and log in `directory`; see `Broker.wait_ready`."""
    if kind is BrokerKind.MOSQUITTO:
        path = directory / "mosquitto.conf"
        path.write_text(_mosquitto_conf(port))
        command = [_mosquitto() or "mosquitto", "-c", str(path)]
    else:
        path = directory / "broker.toml"
        path.write_text(_rumqttd_toml(port))
        command = [sys.executable, "-m", "gateway.app.demo.embedded_broker", str(path)]
    return Broker(kind, Child("broker", command, log=directory / "broker.log"), port=port)


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=os.pathsep.join((os.environ.get("PATH", ""), *_SYSTEM_PLACES)))


def _mosquitto_conf(port: int) -> str:
    return f"""\
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest stderr
log_type error
log_type warning
# The default of 1000 drops QoS 1 messages silently when a subscriber is slow.
max_queued_messages 100000
"""


def _rumqttd_toml(port: int) -> str:
    """One MQTT 5 listener: rumqttd gives each protocol version a port of its own."""
    return f"""\
id = 0
[router]
id = 0
max_connections = 64
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v5.1]
name = "demo"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 5000
max_payload_size = 1048576
max_inflight_count = 100
dynamic_filters = true
"""
