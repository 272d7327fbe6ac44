"""What is switched on in the gateway while it is measured, read from the configuration that is measured."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from bench.sites import SiteSpec, Topics, write_site
from gateway.app.kinds import kinds
from gateway.config.load import load
from gateway.uplink.mqtt.config import MqttUplink


def features() -> str:
    """One line for the report."""
    spec = SiteSpec(devices=1, registers=1, scan="continuous", topics=Topics.DEVICE, is_writable=True)
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as folder:
        site = load(write_site(Path(folder), spec, modbus_ports=[1], mqtt_port=1), kinds())
    (rule,), (commands,) = site.publish, site.commands
    (uplink,) = site.uplinks.values()
    assert isinstance(uplink.model, MqttUplink)
    parts = [
        f"journal, commit each {site.journal.commit_ns // 1_000_000} ms",
        f"buffer {rule.model.buffer.max_bytes // 10**6} MB, full: {rule.model.buffer.full}",
        f"MQTT {uplink.model.version} QoS {rule.qos}",
        f"report on {rule.model.report.on}",
        f"{rule.model.format} with {', '.join(rule.model.fields.values())}",
        f"commands with audit, dedupe: {commands.model.rule.dedupe}",
        "status topic, HTTP status and metrics",
        "uvloop" if importlib.util.find_spec("uvloop") else "asyncio's own loop",
    ]
    return "; ".join(parts)
