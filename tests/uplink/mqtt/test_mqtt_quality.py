"""What the MQTT uplink claims has its proof."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
SHEET = ROOT / "gateway" / "uplink" / "mqtt" / "quality.yaml"


def test_every_capability_says_done_with_its_proof_or_why_not() -> None:
    sheet = yaml.safe_load(SHEET.read_text())
    assert sheet.pop("protocol")
    assert sheet.pop("stack")["status"] == "done"
    assert (ROOT / "docs" / "adr" / "0004-own-mqtt-session.md").is_file()
    for section, capabilities in sheet.items():
        for name, entry in capabilities.items():
            place = f"{section}: {name}"
            assert entry["status"] in {"done", "todo", "exempt"}, place
            if entry["status"] == "done":
                assert entry["proof"], place
                assert [path for path in entry["proof"] if not (ROOT / path).is_file()] == [], place
            if entry["status"] == "exempt":
                assert entry["why"], place
