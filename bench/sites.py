"""The YAML of each row, as a user would write it: one template, a line per device."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.formula import WRITABLE_AT


class Topics(enum.Enum):
    """What a message holds."""

    DEVICE = "bench/{device}"
    TAG = "bench/{device}/{tag}"


class SiteSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration of the gateway for one row."""

    devices: int
    registers: int
    scan: str  # "continuous" or a period
    topics: Topics
    in_flight: int = 8  # requests per link
    is_spread: bool = False  # staggered over the period
    is_writable: bool = False  # one set-point per device, and the rule for its commands
    buffer: str = ""  # of the rule, where its own would not do
    journal_max: str = ""  # of the disk, likewise
    serve_port: int = 0  # where the first device shows as registers of a server; 0 for nowhere


def write_site(folder: Path, spec: SiteSpec, *, modbus_ports: Sequence[int], mqtt_port: int) -> Path:
    """`gateway.yaml` in `folder`. Returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    every = spec.scan if not spec.is_spread else f"{{every: {spec.scan}, spread: true}}"
    lines = [
        "version: 1",
        "gateway: {name: bench-gw, site: bench}",
        'http: {listen: "127.0.0.1:0"}',
        *([f"journal: {{max: {spec.journal_max}}}"] if spec.journal_max else []),
        f"scan: {{flat: {every}, rare: 1h}}",
        "links:",
        *(
            f'  plant{number}: {{driver: modbus, host: "127.0.0.1:{port}", max_in_flight: {spec.in_flight}}}'
            for number, port in enumerate(modbus_ports)
        ),
        *(
            [f'  front: {{driver: modbus, role: server, listen: "127.0.0.1:{spec.serve_port}"}}']
            if spec.serve_port
            else []
        ),
        "templates:",
        "  unit:",
        "    defaults: {scan: flat, type: uint16}",
        "    tags:",
        *(f'      r{number:03d}: {{at: "hr:{number}"}}' for number in range(spec.registers)),
    ]
    if spec.is_writable:
        lines.append(
            f'      sp: {{at: "hr:{WRITABLE_AT}", scan: rare, write: {{min: 0, max: 65535, verify: none}}}}'
        )
    buffer = f", buffer: {spec.buffer}" if spec.buffer else ""
    lines.append("devices:")
    lines += (
        f"  dev{unit:03d}: {{link: plant{(unit - 1) % len(modbus_ports)}, unit: {unit}, use: unit}}"
        for unit in range(1, spec.devices + 1)
    )
    lines += [
        "uplinks:",
        f'  broker: {{kind: mqtt, url: "mqtt://127.0.0.1:{mqtt_port}"}}',
        "publish:",
        f'  - {{match: "*/r*", uplink: broker, topic: "{spec.topics.value}"{buffer}}}',
    ]
    if spec.serve_port:
        lines += [
            "expose:",
            '  - {link: front, unit: 1, points: {"dev001/*": {at: "hr:0", type: uint16, stride: 1}}}',
        ]
    if spec.is_writable:
        lines += [
            "commands:",
            '  - {uplink: broker, topic: "set/{device}/{tag}", reply: "ack/{device}/{tag}"}',
        ]
    path = folder / "gateway.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path
