"""The shared mosquitto really runs, survives its restarts on one port, and missing peers are told."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests import peers
from tests.peers import PEERS, Peer, Source, free_port, mosquitto, require


def connack(port: int) -> bytes:
    """The answer to an MQTT 3.1.1 CONNECT with a clean session (§3.1, §3.2)."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(bytes.fromhex("10 0d 0004 4d515454 04 02 003c 0001 61"))
        return link.recv(4)


@pytest.mark.interop
def test_mosquitto_keeps_its_port_over_kill_and_restart(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker:
        port, first = broker.port, broker.pid
        assert connack(port) == bytes.fromhex("20 02 00 00")
        broker.restart()
        assert (broker.port, broker.pid != first) == (port, True)
        assert connack(port) == bytes.fromhex("20 02 00 00")
        broker.stop()
        with pytest.raises(ConnectionRefusedError):
            connack(port)
        broker.start()
        last = broker.pid
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


@pytest.mark.interop
def test_mosquitto_takes_extra_configuration(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous false") as broker:
        assert connack(broker.port) == bytes.fromhex("20 02 00 05")  # not authorised, §3.2.2.3


@pytest.mark.interop
def test_a_wrong_configuration_is_told_with_its_log(tmp_path: Path) -> None:
    require("mosquitto")
    with pytest.raises(RuntimeError, match="no_such_option"), mosquitto(tmp_path, "no_such_option 1"):
        pass


def test_a_missing_peer_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = Peer("no-such-program", Source.DEBIAN, "no-such-package")
    monkeypatch.setattr(peers, "PEERS", {**PEERS, "nowhere": nowhere})
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install no-such-package"):
        require("nowhere")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="peer nowhere is missing"):
        require("nowhere")


def test_an_unknown_peer_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        require("mosqito")


def test_a_free_port_can_be_bound() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        assert server.getsockname()[1] > 0
