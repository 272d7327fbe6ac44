"""What users write of a rule: what it is about, what is sent of it, and what is kept while it cannot be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from gateway.config.model import Model, Name, defaults
from gateway.config.scalars import shown
from gateway.config.values import Duration, Percent, Size, Text, fault
from gateway.core.errors import Problem


def _pattern_list(value: object) -> list[object]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        return value
    raise fault(shown(value), "a pattern such as 'pump-*/speed', or a list of patterns")


Patterns = Annotated[
    tuple[Annotated[str, Field(max_length=512)], ...],
    BeforeValidator(_pattern_list),
    Field(strict=False),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    ),
]


Source = Literal[
    "value", "quality", "time", "time_origin", "time_quality", "received", "seq", "epoch", "part",
    "label", "unit",
    "device", "tag", "site", "gateway", "kind", "cause", "missing", "historical",
]  # fmt: skip


DEFAULT_FIELDS: Final[tuple[tuple[str, Source], ...]] = (
    ("v", "value"), ("q", "quality"), ("t", "time"), ("ts", "time_origin"), ("e", "epoch"), ("n", "seq"),
    ("p", "part"), ("m", "missing"),
)  # fmt: skip


class Report(Model):
    """What of the scans is sent. Never applied to events."""

    on: Literal["change", "scan"] = Field(
        "change",
        description="change: a value that moved by more than its deadband, or whose quality changed; "
        "scan: every one.",
    )
    min_ns: Annotated[int, Duration(high="1d")] = Field(
        "0s", validate_default=True, alias="min",
        description="At least so long between two reports of one tag; a change held back is sent "
        "when it is over.",
    )  # fmt: skip
    heartbeat_ns: Annotated[int, Duration(high="7d")] = Field(
        "0s",
        validate_default=True,
        alias="heartbeat",
        description="Send each tag at least so often, changed or not; 0s: never.",
    )

    def problems(self) -> Iterable[Problem]:
        if self.on == "scan" and self.heartbeat_ns:
            yield Problem(("heartbeat",), "heartbeat with on: scan", "no heartbeat, as every scan is sent")
        if 0 < self.heartbeat_ns < self.min_ns:
            yield Problem(("heartbeat",), "heartbeat shorter than min", "min at or below heartbeat")


class Replay(Model):
    """How a backlog is sent after an outage."""

    live_first: bool = Field(
        False,
        description="Whether new values overtake the backlog; retain is then off for what comes late.",
    )
    share: Annotated[float, Percent()] = Field(
        "30%",
        validate_default=True,
        description="Part of the sending that the backlog gets while there are new values.",
    )


class AlarmBuffer(Model):
    """What is kept of tags with `priority: alarm`, where that is to be more or less than of the others."""

    keep_ns: Annotated[int, Duration("1s")] | None = Field(
        None,
        alias="keep",
        description="Longest time that undelivered alarms are kept. Default: the buffer's.",
    )
    max_bytes: Annotated[int, Size("1MB")] | None = Field(
        None, alias="max", description="Most disk space for undelivered alarms. Default: the buffer's."
    )


class Buffer(Model):
    """What is kept while the uplink is away."""

    keep_ns: Annotated[int, Duration("1s")] = Field(
        "7d",
        validate_default=True,
        alias="keep",
        description="Longest time that undelivered values are kept.",
    )
    max_bytes: Annotated[int, Size("1MB")] = Field(
        "1GB", validate_default=True, alias="max", description="Most disk space for undelivered values."
    )
    alarms: AlarmBuffer = Field(
        default_factory=defaults(AlarmBuffer), description="Bounds of their own for alarms."
    )
    full: Literal["drop_oldest", "block", "thin"] = Field(
        "drop_oldest",
        description="When it is full: drop_oldest loses the oldest, counted; block stops reading devices; "
        "thin keeps every second value of the whole outage, then every fourth …, all changes of quality and "
        "all events, and says how many are missing where.",
    )
    durability: Literal["always", "spill"] = Field(
        "always",
        description="always: every value is written to disk; spill: only what the uplink does not "
        "acknowledge within a second, for SD cards: a power cut loses what was in memory then. Alarms are "
        "always written.",
    )
    replay: Replay = Field(
        default_factory=defaults(Replay), description="How a backlog is sent after an outage."
    )


class Publish(Model):
    """One rule: which tags go where and how. Every rule that matches fires."""

    match: Patterns = Field(
        ("*/*",),
        description="Patterns over device/tag; `*` is any text within one part, `!` in front excludes.",
    )
    uplink: Name = Field(description="Name of the uplink.")
    topic: Text = Field(
        min_length=1,
        description="Topic; with {tag} one message for each value, without it one for each scan of a device.",
    )
    format: Literal["json", "msgpack", "cbor", "influx", "raw"] = Field(
        "json",
        description="json, msgpack, cbor: an object of `fields`; influx: line protocol; raw: the value "
        "alone, as text.",
    )
    measurement: Text = Field(
        "{device}",
        min_length=1,
        description="Of influx: the measurement, a template like the topic.",
    )
    tags: dict[
        Annotated[str, Field(min_length=1, max_length=64)],
        Literal["device", "tag", "unit", "site", "gateway", "quality"],
    ] = Field(
        default_factory=dict,
        description="Of influx: names of its tags and what each shows; tag, unit and quality only with "
        "{tag} in the topic.",
    )
    nest: bool = Field(
        False,
        description="Whether a tag's name is a path: `motor.speed` and `motor.temp` are "
        "`{motor: {speed: …, temp: …}}`.",
    )
    fields: dict[Annotated[str, Field(min_length=1, max_length=64)], Source] = Field(
        default_factory=lambda: dict(DEFAULT_FIELDS),
        description="Names in the object and what each shows. Default of influx: "
        "`{v: value, q: quality, ts: time_origin}`.",
    )  # fmt: skip
    time: Literal["ms", "ns", "rfc3339"] = Field(
        "ms", description="How times are written: since 1970 UTC, or as text. Default of influx: ns."
    )
    qos: Literal[0, 1] | None = Field(None, description="MQTT quality of service. Default: the uplink's.")
    retain: bool = Field(False, description="Whether the broker keeps the last message for new subscribers.")
    report: Report = Field(default_factory=defaults(Report), description="What of the scans is sent.")
    buffer: Buffer = Field(
        default_factory=defaults(Buffer), description="What is kept while the uplink is away."
    )

    def problems(self) -> Iterable[Problem]:
        yield from (Problem(("report", *p.path), p.found, p.expected) for p in self.report.problems())
        has_tag = "{tag}" in self.topic
        if self.format == "raw":
            if not has_tag:
                yield Problem(
                    ("format",), "raw with a topic that has no {tag}", "json, or {tag} in the topic"
                )
            if "fields" in self.model_fields_set:
                yield Problem(("fields",), "fields with format: raw", "no fields, as raw is the value alone")
            if self.nest:
                yield Problem(("nest",), "nest with format: raw", "no nest, as raw is the value alone")
            return
        for key in ("measurement", "tags"):
            if key in self.model_fields_set and self.format != "influx":
                yield Problem((key,), f"{key} with format: {self.format}", f"format: influx, or no {key}")
        if self.nest and self.format == "influx":
            yield Problem(("nest",), "nest with format: influx", "no nest: a line has no parts in parts")
        if self.nest and has_tag:
            yield Problem(("nest",), "nest with {tag} in the topic", "no nest, or a topic without {tag}")
        sources = set(self.fields.values())
        if not sources & {"value", "label"}:
            yield Problem(("fields",), "no field that shows the value", "a field from value or label")
        for name, source in self.fields.items():
            if source == "tag" and not has_tag:
                yield Problem(
                    ("fields", name), "tag in a message of many tags", "{tag} in the topic, or no such field"
                )
