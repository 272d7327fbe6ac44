"""What the quality sheet says is so."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]


def test_every_capability_says_done_with_its_proof_or_why_not() -> None:
    sheet = yaml.safe_load((ROOT / "drivers" / "iec104" / "quality.yaml").read_text())
    assert sheet.pop("protocol")
    assert sheet.pop("stack")["status"] == "done"
    for section, capabilities in sheet.items():
        for name, entry in capabilities.items():
            place = f"{section}: {name}"
            assert entry["status"] in {"done", "todo", "exempt"}, place
            assert entry["proof"] if entry["status"] == "done" else entry["why"], place
            for path in entry.get("proof", ()):
                assert (ROOT / path).is_file(), f"{place}: {path}"
