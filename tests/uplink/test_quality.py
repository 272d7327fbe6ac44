"""What the uplinks claim has its proof."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
RECORDS = {"mqtt": "0004-own-mqtt-session.md", "sparkplug": "0027-sparkplug.md"}


@pytest.mark.parametrize("kind", RECORDS)
def test_every_capability_says_done_with_its_proof_or_why_not(kind: str) -> None:
    sheet = yaml.safe_load((ROOT / "gateway" / "uplink" / kind / "quality.yaml").read_text())
    assert sheet.pop("protocol")
    stack = sheet.pop("stack")
    assert stack["status"] == "done"
    assert f"docs/adr/{RECORDS[kind]}" in stack["how"]
    assert (ROOT / "docs" / "adr" / RECORDS[kind]).is_file()
    for section, capabilities in sheet.items():
        for name, entry in capabilities.items():
            place = f"{section}: {name}"
            assert entry["status"] in {"done", "todo", "exempt"}, place
            if entry["status"] == "done":
                assert entry["proof"], place
                assert [path for path in entry["proof"] if not (ROOT / path).is_file()] == [], place
            if entry["status"] == "exempt":
                assert entry["why"], place


def test_every_uplink_has_a_sheet() -> None:
    found = {path.parent.name for path in (ROOT / "gateway" / "uplink").glob("*/quality.yaml")}
    assert found == set(RECORDS)
