"""TLS to a real broker: both sides show certificates, and a wrong one is named for what it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority
from tests.peers import mosquitto, require
from tests.system.plant import Plant, counting_tags
from tests.system.process import Gateway
from tests.system.waiting import Background, until


def site(plant: Plant, port: int, **tls: str) -> dict[str, Any]:
    """One device over TLS."""
    return {
        "version": 1,
        "gateway": {"name": "gw"},
        "http": {"listen": "127.0.0.1:0"},
        "links": {"plc": {"driver": "modbus", "host": f"127.0.0.1:{plant.port}"}},
        "scan": {"fast": "50ms"},
        "devices": {"d1": {"link": "plc", "unit": 1, "tags": counting_tags("fast")}},
        "uplinks": {
            "broker": {
                "kind": "mqtt",
                "url": f"mqtts://127.0.0.1:{port}",
                "backoff": {"min": "50ms", "max": "200ms"},
                **tls,
            }
        },
        "publish": [{"uplink": "broker", "topic": "plant/{device}"}],
    }


@pytest.mark.interop
@pytest.mark.kills
def test_both_sides_show_certificates_and_faults_are_named(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("mosquitto")
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    cert, key = ours.issue("broker")
    good = {name: str(file) for name, file in zip(("cert", "key_file"), ours.issue("gw"), strict=True)}
    strange = {
        name: str(file) for name, file in zip(("cert", "key_file"), theirs.issue("strange"), strict=True)
    }
    config = f"cafile {ours.file}\ncertfile {cert}\nkeyfile {key}\nrequire_certificate true"
    with mosquitto(tmp_path, config) as broker:
        gateway = make_gateway(site(plant, broker.port, ca=str(ours.file), **good))
        gateway.start()
        gateway.await_connected()
        until(lambda: gateway.uplink()["acknowledged_total"] > 10, "values over TLS")

        gateway.configure(site(plant, broker.port, ca=str(theirs.file), **good))
        assert "uplinks_restarted=1" in gateway.reload()
        until(lambda: "TLS certificate refused" in gateway.uplink()["reason"], "the reason")
        assert "TLS certificate refused" in gateway.log

        gateway.configure(site(plant, broker.port, ca=str(ours.file), **strange))
        gateway.reload()
        until(lambda: gateway.uplink()["state"] != "up" and gateway.uplink()["reason"], "a reason")
        until(
            lambda: gateway.uplink()["reconnects_total"] > 1 or "TLS" in gateway.uplink()["reason"],
            "attempts",
        )

        # the same files with other content, as a renewal leaves them
        gateway.configure(site(plant, broker.port, ca=str(ours.file), **good))
        gateway.reload()
        gateway.await_connected()
        ours.issue("gw")
        assert "uplinks_restarted=1" in gateway.reload()
        gateway.await_connected()
        (tmp_path / "gw.key").write_text("no key")
        said = gateway.reload()
        assert "the old one stays" in said
        assert "do not work together" in said
        gateway.await_connected()
        assert gateway.stop()[0] == 0


@pytest.mark.interop
@pytest.mark.kills
def test_a_certificate_that_has_ended_is_named(
    tmp_path: Path, background: Background, plant: Plant, make_gateway: Callable[..., Gateway]
) -> None:
    require("mosquitto")
    ours = Authority(tmp_path, "ours")
    cert, key = ours.issue("broker", days=-1)
    with mosquitto(tmp_path, f"cafile {ours.file}\ncertfile {cert}\nkeyfile {key}") as broker:
        gateway = make_gateway(site(plant, broker.port, ca=str(ours.file)))
        gateway.start()
        until(lambda: "expired" in gateway.uplink()["reason"], "the reason")
        assert gateway.get("/healthz").code == 200
        assert gateway.stop()[0] == 0
        assert gateway.log.count("link is down") <= 2  # once for the broker, once for nothing else


def test_a_bad_key_file_stops_the_start_with_one_line(
    tmp_path: Path, make_gateway: Callable[..., Gateway], plant: Plant
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    gateway = make_gateway(site(plant, 1, ca=str(bad)))
    gateway.launch()
    assert gateway.wait() == 78
    assert "gateway.yaml:" in gateway.log
    assert "bad.pem" in gateway.log
    assert len(gateway.log.splitlines()) == 1, gateway.log
