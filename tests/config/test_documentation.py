"""Every example in docs/configuration.md is run, and its tables are those of the models."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config.load import check
from tests.config.documentation import DOCUMENT, MODELS, TABLE, with_tables
from tests.config.kinds import kinds

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
AROUND = {  # what an example leaves out
    "version": "version: 1\ngateway: {name: gw1, site: north}\n",
    "links": "links: {plc1: {driver: modbus, host: 10.0.0.99}}\n",
    "uplinks": 'uplinks: {cloud: {kind: mqtt, url: "mqtt://b"}}\n',
    "devices": "devices: {pump-01: {link: plc1, unit: 1, tags: {hours: {at: 'co:0', write: {}}}}}\n",
}


def blocks() -> list[tuple[str, str, str]]:
    return [(found[1], found[2].strip(), found[3]) for found in BLOCK.finditer(DOCUMENT.read_text())]


def yaml_blocks() -> list[tuple[str, str]]:
    return [(info, text) for language, info, text in blocks() if language == "yaml" and info != "wrong"]


@pytest.mark.parametrize("number", range(len(yaml_blocks())))
def test_every_example_is_sound(number: int, tmp_path: Path) -> None:
    info, text = yaml_blocks()[number]
    sections = set(re.findall(r"^(\w+):", text, re.MULTILINE))
    assert sections
    is_whole = "version" in sections
    around = "" if is_whole else "".join(one for key, one in AROUND.items() if key not in sections)
    if "links" in sections:
        around = around.replace(AROUND["devices"], "")  # its link is not there
    for name in info.removeprefix("files:").split():
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o600)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "none.yaml").write_text("links: {}\n")
    (tmp_path / "gateway.yaml").write_text(text + around)
    report = check(tmp_path, kinds())
    assert (report.errors, report.warnings) == ((), ())


def test_the_wrong_example_says_what_the_text_says(tmp_path: Path) -> None:
    ours = blocks()
    wrong = next(n for n, (_, info, _) in enumerate(ours) if info == "wrong")
    (tmp_path / "gateway.yaml").write_text(ours[wrong][2])
    said = [line.replace(f"{tmp_path}/", "") for line in check(tmp_path, kinds()).errors]
    assert said == ours[wrong + 1][2].splitlines()


def test_tables_are_those_of_the_models() -> None:
    text = DOCUMENT.read_text()
    assert text == with_tables(text), "run `python -m tests.config.documentation`"
    assert set(TABLE.findall(text)) == {model.__name__ for model in MODELS}
