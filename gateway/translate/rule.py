"""One `publish:` rule as plain data, and every fault that shows before a point is looked at."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from gateway.core.errors import Problem
from gateway.translate.faults import nearest
from gateway.translate.match import check_match
from gateway.translate.payload import OBJECTS, Format, Source, TimeUnit
from gateway.translate.topic import check_topic

DEFAULT_FIELDS = (
    ("v", "value"),
    ("q", "quality"),
    ("t", "time"),
    ("ts", "time_origin"),
    ("e", "epoch"),
    ("n", "seq"),
    ("p", "part"),
    ("m", "missing"),
)


INFLUX_FIELDS = (("v", "value"), ("q", "quality"), ("ts", "time_origin"))
INFLUX_TAGS = ("device", "tag", "unit", "site", "gateway", "quality")  # what a tag of a line can say
_OF_ONE_TAG = ("tag", "unit", "quality")


class RuleSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to publish, where and how. A topic with {tag} has a message per value, else one per batch."""

    match: tuple[str, ...] = ("*/*",)
    topic: str
    format: Format = Format.JSON
    fields: tuple[tuple[str, str], ...] = DEFAULT_FIELDS  # (name, source) in the order of the payload
    time: TimeUnit = TimeUnit.MS
    measurement: str = "{device}"  # of influx: a template like the topic
    tags: tuple[tuple[str, str], ...] = ()  # of influx: (name, source) besides fields
    nest: bool = False  # tags by path: `motor.speed` is {"motor": {"speed": …}}

    @property
    def is_per_tag(self) -> bool:
        """Whether each tag has a topic of its own."""
        return "{tag}" in self.topic


def check_rule(rule: RuleSpec, *, attributes: Collection[str] = ()) -> list[Problem]:
    """Every fault in a rule that shows without a point; `attributes` are further placeholders."""
    problems = check_match(rule.match) + check_topic(rule.topic, attributes=attributes)
    if rule.format is Format.RAW:
        if not rule.is_per_tag:
            problems.append(
                Problem(("format",), "raw with a topic that has no {tag}", "json, or {tag} in the topic")
            )
        return problems
    if rule.format is Format.INFLUX:
        problems += _check_influx(rule, attributes)
    if rule.nest and rule.is_per_tag:
        problems.append(Problem(("nest",), "nest with {tag} in the topic", "no nest, or no {tag}"))
    return problems + _check_fields(rule)


def sources_of(rule: RuleSpec) -> tuple[tuple[str, Source], ...]:
    """Fields with their sources; `part` is added where `seq` is there without it.

    Two messages of one batch on one topic have the same epoch and seq: without `part` a receiver that drops
    duplicates by those would drop the second.
    """
    fields = tuple((name, Source(source)) for name, source in rule.fields)
    sources = {source for _, source in fields}
    if rule.format in OBJECTS and Source.SEQ in sources and Source.PART not in sources:
        return (*fields, ("p", Source.PART))
    return fields


def default_fields(form: Format) -> tuple[tuple[str, str], ...]:
    """The fields of a payload where the rule names none."""
    return INFLUX_FIELDS if form is Format.INFLUX else DEFAULT_FIELDS


def default_time(form: Format) -> TimeUnit:
    """How times are written where the rule does not say: servers take line protocol to be in ns."""
    return TimeUnit.NS if form is Format.INFLUX else TimeUnit.MS


def _check_influx(rule: RuleSpec, attributes: Collection[str]) -> list[Problem]:
    problems = [
        Problem(("measurement",), problem.found, problem.expected.replace("an MQTT topic name", "a name"))
        for problem in check_topic(rule.measurement, attributes=attributes)
    ]
    if "{tag}" in rule.measurement and not rule.is_per_tag:
        problems.append(
            Problem(("measurement",), "{tag} in a line of many tags", "{tag} in the topic, or none here")
        )
    if rule.time is TimeUnit.RFC3339:
        problems.append(Problem(("time",), "rfc3339 in line protocol", "ns or ms"))
    for name, source in rule.fields:
        if source in {"time", "part"}:
            problems.append(
                Problem(("fields", name), f"{source} in line protocol", "no such field: each line has a time")
            )
    for name, source in rule.tags:
        if source not in INFLUX_TAGS:
            near = nearest(source, INFLUX_TAGS)
            problems.append(Problem(("tags", name), f"{source!r}", f"one of {', '.join(INFLUX_TAGS)}{near}"))
        elif source in _OF_ONE_TAG and not rule.is_per_tag:
            problems.append(
                Problem(
                    ("tags", name), f"{source} of a line of many tags", "{tag} in the topic, or no such tag"
                )
            )
    names = [name for name, _ in (*rule.fields, *rule.tags)]
    problems += [
        Problem(("tags", name), "the name of a field", "another name")
        for name, _ in rule.tags
        if names.count(name) > 1
    ]
    return problems


def _check_fields(rule: RuleSpec) -> list[Problem]:
    problems: list[Problem] = []
    known = [source.value for source in Source]
    seen: set[str] = set()
    for name, source in rule.fields:
        if source not in known:
            expected = f"one of {', '.join(known)}{nearest(source, known)}"
            problems.append(Problem(("fields", name), f"unknown source {source!r}", expected))
        if name in seen:
            problems.append(Problem(("fields", name), "the name twice", "each name once"))
        if source == "tag" and not rule.is_per_tag:
            problems.append(
                Problem(
                    ("fields", name), "tag in a payload of many tags", "{tag} in the topic, or no such field"
                )
            )
        seen.add(name)
    sources = {source for _, source in rule.fields}
    if "value" not in sources and "label" not in sources:
        problems.append(Problem(("fields",), "no field that shows the value", "a field from value or label"))
    if rule.format in OBJECTS and "p" in seen and "seq" in sources and "part" not in sources:
        problems.append(
            Problem(
                ("fields", "p"), "the name that 'part' would take", "another name, or a field from 'part'"
            )
        )
    return problems
