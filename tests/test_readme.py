"""What the README shows is true: its configuration is accepted, its payload is sent, its paths exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway.app.cli import cli
from gateway.app.compiled import compile_site
from gateway.app.kinds import kinds
from gateway.app.plan import link_costs
from gateway.app.rules import RuleCompiler, stream_name
from gateway.config.load import check
from gateway.core.batch import Batch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_first_device_is_accepted_and_planned(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "gateway.yaml").write_text(text)
    report = check(tmp_path, kinds())
    assert (report.errors, report.warnings) == ((), ())
    assert report.site is not None
    (link,) = link_costs(compile_site(report.site))
    assert link.requests_per_s > 0


def test_the_payload_is_what_the_first_device_sends(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "gateway.yaml").write_text(text)
    site = check(tmp_path, kinds()).site
    assert site is not None
    (layout,) = compile_site(site).layouts
    values = tuple(1482.5 if point.tag == "speed" else None for point in layout.points)
    batch = Batch(layout=layout, values=values, received_ns=1767225600123 * 10**6, epoch=1767225001, seq=4711)
    (route,) = RuleCompiler(site).routes(stream_name(site.publish[0]), layout)
    sent = dict(route.messages(batch, historical=False))
    (shown,) = blocks("json")
    assert json.loads(sent[b"plant/north/pump-07/speed"]) == json.loads(shown)


@pytest.mark.parametrize("name", ["README.md", "docs/operation.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert ((ROOT / name).parent / target).exists(), target


def test_commands_that_are_named_exist() -> None:
    texts = [README, (ROOT / "docs/operation.md").read_text(), (ROOT / "docs/configuration.md").read_text()]
    named = {
        word for text in texts for word in re.findall(r"\bgateway (check|plan|run|watch|demo|schema)\b", text)
    }
    assert named
    assert named <= set(cli.commands)
    for script in re.findall(r"\bscript/\w+", README):
        assert (ROOT / script).exists(), script
