"""What Wireshark's dissector sees in bytes we made: an opinion nobody here wrote."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.peers import require


def dissect(stream: bytes, folder: Path) -> list[dict[str, Any]]:
    """The `mqtt` layers of a client's byte stream, one dict of dissector fields for each control packet."""
    dump, capture = folder / "stream.txt", folder / "stream.pcap"
    lines = [f"{start:06x} {stream[start : start + 16].hex(' ')}" for start in range(0, len(stream), 16)]
    dump.write_text("\n".join(lines) + f"\n{len(stream):06x}\n")
    subprocess.run(
        [require("text2pcap"), "-q", "-T", "40000,1883", str(dump), str(capture)],
        check=True,
        capture_output=True,
    )
    shown = subprocess.run(
        [
            require("tshark"),
            "-r",
            str(capture),
            "-T",
            "json",
            "--no-duplicate-keys",
            "-J",
            "mqtt _ws.malformed",
        ],
        check=True,
        capture_output=True,
    )
    packets: list[dict[str, Any]] = []
    for frame in json.loads(shown.stdout):
        layers = frame["_source"]["layers"]
        assert "_ws.malformed" not in layers, layers
        found = layers["mqtt"]
        packets += found if isinstance(found, list) else [found]
    return packets


def fields(packet: object) -> dict[str, Any]:
    """All fields of a dissected packet, however deep, by name; repeated ones as a list."""
    flat: dict[str, Any] = {}

    def walk(node: object) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                if isinstance(value, str):
                    flat.setdefault(name, []).append(value)
                elif isinstance(value, list) and all(isinstance(one, str) for one in value):
                    flat.setdefault(name, []).extend(value)
                else:
                    walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(packet)
    return {name: values[0] if len(values) == 1 else values for name, values in flat.items()}
