"""Every example in docs/payloads.md is what the gateway does."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from gateway.core.batch import Batch, Kind
from gateway.core.command import CommandResult, Outcome
from gateway.core.point import Layout, Point, ValueType
from gateway.core.quality import BAD, COMM_LOST
from gateway.translate.command import CommandSpec, ParsedCommand, build_reply, compile_command_rule
from gateway.translate.payload import Format, TimeUnit
from gateway.translate.plan import compile_rule
from gateway.translate.rule import RuleSpec, default_fields, default_time

TEXT = (Path(__file__).parents[2] / "docs" / "payloads.md").read_text()
BLOCK = re.compile(
    r"^```yaml\n(?P<rule>.*?)^```$"
    r"|^<!-- (?P<name>[\w ]+?)(: (?P<batch>[\w ]+))? -->\n```text\n(?P<lines>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LABELS = ((0, "off"), (1, "auto"))
BINARY = (Format.MSGPACK, Format.CBOR)
RECEIVED = 1_700_000_000_123_456_789


def point(tag: str, kind: ValueType, unit: str = "") -> Point:
    return Point(
        device="pump-07", tag=tag, type=kind, unit=unit, labels=LABELS if tag == "mode" else (), writable=True
    )


LAYOUT = Layout(
    device="pump-07",
    scan="fast",
    points=[
        point("speed", ValueType.FLOAT, "rpm"),
        point("mode", ValueType.INT),
        point("temp", ValueType.FLOAT),
    ],
)
SETPOINTS = Layout(device="pump-07", scan="slow", points=[point("sp", ValueType.FLOAT)])


def batch(**columns: object) -> Batch:
    return Batch(**({"layout": LAYOUT, "received_ns": RECEIVED, "epoch": 3, "seq": 41} | columns))  # type: ignore[arg-type]  # columns by name


BATCHES = {
    "good": batch(values=(1480.5, 1, 20.25)),
    "bad": batch(values=(1480.5, None, 20.25), quality=(0, BAD | COMM_LOST, 0)),
    "device time": batch(
        values=(1480.5, 1), columns=(0, 1), source_time_ns=(1_699_999_999_500_000_000, None)
    ),
    "burst": batch(values=(0, 1), columns=(1, 1), kind=Kind.EVENT),
}


def rule_of(text: str) -> dict[str, object]:
    written = yaml.safe_load(text)
    assert isinstance(written, dict)
    return written


def published(written: dict[str, object], name: str) -> list[str]:
    fields, form = written.get("fields"), Format(written.get("format", "json"))
    tags = written.get("tags")
    rule = RuleSpec(
        topic=str(written["topic"]),
        match=tuple(written.get("match", ["*/*"])),  # type: ignore[arg-type]  # a list of texts
        format=form,
        time=TimeUnit(written.get("time", default_time(form).value)),
        fields=tuple(fields.items()) if isinstance(fields, dict) else default_fields(form),
        tags=tuple(tags.items()) if isinstance(tags, dict) else (),
        measurement=str(written.get("measurement", "{device}")),
    )
    plan = compile_rule(rule, LAYOUT, gateway="gw1", site="north")
    assert plan is not None
    return [
        f"{topic.decode()} {payload.hex() if form in BINARY else payload.decode()}".rstrip()
        for topic, payload in plan.messages(BATCHES[name])
    ]


def commanded(written: dict[str, object], lines: list[str]) -> list[str]:
    spec = CommandSpec(topic=str(written["topic"]), reply=str(written["reply"]))
    commands = compile_command_rule(spec, [LAYOUT, SETPOINTS], gateway="gw1", site="north")
    said: list[str] = []
    for line in lines[::2]:
        topic, _, payload = line.partition(" ")
        found = commands.backward(topic.encode(), payload.encode())
        told = f"= {found.tag} {found.value!r}" if isinstance(found, ParsedCommand) else f"! {found.reason}"
        said += [line, f"  {told}"]
    return said


def test_every_example_is_what_happens() -> None:
    written: dict[str, object] = {}
    seen: list[str] = []
    for block in BLOCK.finditer(TEXT):
        if block["rule"]:
            written = rule_of(block["rule"])
            continue
        lines = block["lines"].splitlines()
        seen.append(block["name"])
        if block["name"] == "batch":
            assert published(written, block["batch"]) == lines
        elif block["name"] == "commands":
            assert commanded(written, lines) == lines
        else:
            result = CommandResult(id="a-17", outcome=Outcome.VERIFIED, value=1500.5)
            assert [build_reply(result, now_ns=1_700_000_000_200_000_000).decode()] == lines
    assert seen == ["batch"] * 12 + ["commands", "reply"]
    assert len(seen) * 2 + TEXT.count("```yaml") * 2 == TEXT.count("```")


def test_every_source_and_outcome_is_explained() -> None:
    from gateway.translate.payload import Source

    for word in (*Source, *Outcome):
        assert f"`{word.value}`" in TEXT
