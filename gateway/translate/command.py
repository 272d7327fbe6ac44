"""Commands that come in over topics: what to subscribe to, what a message means, and how it is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.core.command import CommandResult
from gateway.core.errors import Problem
from gateway.core.point import Layout, Point, Value
from gateway.translate.command_payload import PARSERS
from gateway.translate.command_value import (
    Refused,
    described,
    shown,
    value_from_json,
    value_from_text,
)
from gateway.translate.faults import RuleError, nearest
from gateway.translate.match import Match, check_match
from gateway.translate.payload import Format, encode, honest
from gateway.translate.topic import TopicTemplate, check_topic, names_of

PAYLOAD_BYTES_MAX: Final = 65_536  # a command sets one point
ID_CHARACTERS_MAX: Final = 128
TTL_SECONDS_MAX: Final = 86_400
COMMAND_FORMATS: Final = (Format.RAW, *PARSERS)
NAMES: Final = ("id", "v", "t", "ttl")


class CommandSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One `commands:` rule as plain data."""

    match: tuple[str, ...] = ("*/*",)
    topic: str
    reply: str = ""  # "": nothing is answered
    format: Format = Format.JSON


class ParsedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What a message asks for, before anybody judged it."""

    device: str
    tag: str
    value: Value
    id: str | None  # None where the issuer gave none
    issued_ns: int | None  # the issuer's wall clock
    ttl_ns: int | None  # as the issuer asks
    reply_topic: bytes | None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is no command, and whom to tell. `reply_topic` None: count it, answer nobody."""

    reason: str
    target: str  # `device/tag`, or the topic where it is nobody's
    reply_topic: bytes | None = None
    id: str | None = None


class _Entry(msgspec.Struct, frozen=True):
    point: Point
    reply_topic: bytes | None


class _Device(msgspec.Struct, frozen=True):
    names: dict[str, str]  # what placeholders stand for, without the tag
    tags: frozenset[str]


class CommandMap:
    """Every point a rule covers, by topic, which is looked up and taken apart only to say what is wrong."""

    __slots__ = ("_devices", "_entries", "_format", "_pattern", "_reply", "filters")

    def __init__(
        self,
        entries: Mapping[bytes, _Entry],
        devices: Mapping[str, _Device],
        *,
        rule: CommandSpec,
        constants: Mapping[str, str],
    ) -> None:
        topic = TopicTemplate(rule.topic)
        self.filters: Final = (topic.filter(constants),)  # what to subscribe to
        self._entries = entries
        self._devices = devices
        self._format = rule.format
        self._pattern = topic.pattern(constants)
        self._reply = TopicTemplate(rule.reply) if rule.reply else None

    def __len__(self) -> int:
        return len(self._entries)

    def topics(self) -> Iterable[tuple[bytes, str]]:
        """Each command topic with the point it sets, to find clashes between rules."""
        return ((topic, entry.point.name) for topic, entry in self._entries.items())

    def backward(self, topic: bytes, payload: bytes) -> ParsedCommand | Refusal:
        """What a message means: a bare value, or {"id", "v", "t": ms since 1970, "ttl": seconds}.

        Whether the point may be written is the gatekeeper's business. Never raises, whatever the bytes.
        """
        entry = self._entries.get(topic)
        if entry is None:
            return self._nobodys(topic.decode(errors="replace"))
        point = entry.point
        identity: str | None = None
        try:
            if len(payload) > PAYLOAD_BYTES_MAX:
                raise Refused(f"found {len(payload)} bytes, expected at most {PAYLOAD_BYTES_MAX}")
            if self._format is Format.RAW:
                fields: dict[str, Any] = {}
                value = value_from_text(point, payload)
            else:
                found = PARSERS[self._format](payload)
                fields = found if isinstance(found, dict) else {"v": found}
                identity = _id(fields)
                _check_names(fields)
                value = value_from_json(point, fields["v"])
            return ParsedCommand(
                device=point.device,
                tag=point.tag,
                value=value,
                id=identity,
                issued_ns=_issued_ns(fields),
                ttl_ns=_ttl_ns(fields),
                reply_topic=entry.reply_topic,
            )
        except Refused as refused:
            reason = f"{point.name}: {refused}"
            return Refusal(reason=reason, target=point.name, reply_topic=entry.reply_topic, id=identity)

    def _nobodys(self, topic: str) -> Refusal:
        """A topic without a point: answered where the device is ours, else another gateway may own it."""
        found = self._pattern.fullmatch(topic)
        parts = found.groupdict() if found else {}
        device, tag = parts.get("device", ""), parts.get("tag", "")
        owner = self._devices.get(device)
        if owner is None:
            return Refusal(reason=f"no device of this gateway has the topic {shown(topic)}", target=topic)
        reason = f"{device} has no tag {shown(tag)} that takes commands{nearest(tag, owner.tags)}"
        answer: bytes | None = None
        if self._reply is not None:
            try:
                answer = self._reply.render({**owner.names, "tag": tag})
            except RuleError:  # the name in the topic cannot stand in an answer
                reason += "; not answered, the tag cannot stand in the reply topic"
        return Refusal(reason=reason, target=f"{device}/{tag}", reply_topic=answer)


def check_command_rule(rule: CommandSpec) -> list[Problem]:
    """Every fault in a rule that shows without a point."""
    problems = check_match(rule.match) + check_topic(rule.topic)
    if rule.format not in COMMAND_FORMATS:
        known = ", ".join(form.value for form in COMMAND_FORMATS)
        problems.append(Problem(("format",), f"commands in {rule.format.value}", f"one of {known}"))
    if "{tag}" not in rule.topic:
        problems.append(
            Problem(("topic",), f"{rule.topic!r} without {{tag}}", "a topic that says which tag is set")
        )
    if rule.reply:
        found = check_topic(rule.reply)
        problems += [
            Problem(("reply", *problem.path[1:]), problem.found, problem.expected) for problem in found
        ]
    return problems


def compile_command_rule(
    rule: CommandSpec, layouts: Iterable[Layout], *, gateway: str, site: str
) -> CommandMap:
    """Look up every point the rule covers, writable or not. Raises `RuleError` with every fault found."""
    problems = check_command_rule(rule)
    if problems:
        raise RuleError(problems)
    match, topic = Match(rule.match), TopicTemplate(rule.topic)
    reply = TopicTemplate(rule.reply) if rule.reply else None
    entries: dict[bytes, _Entry] = {}
    devices: dict[str, _Device] = {}
    for layout in layouts:
        points = [point for point in layout.points if match.covers(point.device, point.tag)]
        for point in points:
            names = names_of(layout, point, gateway=gateway, site=site)
            try:
                name, answer = topic.render(names), reply.render(names) if reply else None
            except RuleError as error:
                problems.extend(error.problems)
                continue
            known = entries.setdefault(name, _Entry(point, answer)).point
            if known.name != point.name:
                found = f"{name.decode()!r} for {known.name} and for {point.name}"
                problems.append(Problem(("topic",), found, "a topic of its own for each point"))
        if points:
            tags = frozenset(point.tag for point in points)
            known_tags = devices[layout.device].tags if layout.device in devices else frozenset[str]()
            names = names_of(layout, None, gateway=gateway, site=site)
            devices[layout.device] = _Device(names, tags | known_tags)
    problems += [
        Problem(
            ("reply",), f"{entry.reply_topic.decode()!r}, a command topic itself", "a topic nobody commands"
        )
        for entry in entries.values()
        if entry.reply_topic is not None and entry.reply_topic in entries
    ]
    if problems:
        raise RuleError(problems)
    return CommandMap(entries, devices, rule=rule, constants={"gateway": gateway, "site": site})


def build_reply(result: CommandResult, *, now_ns: int) -> bytes:
    """`{"id", "outcome", "reason", "v", "t"}` in this order; reason and v where there is one; t in ms."""
    said: dict[str, Value] = {"id": result.id, "outcome": result.outcome.value}
    if result.reason:
        said["reason"] = result.reason
    value = honest(result.value, 0)[0]
    if value is not None:
        said["v"] = value
    said["t"] = now_ns // 1_000_000
    return encode(said)


def _check_names(fields: Mapping[Any, Any]) -> None:
    for name in fields:
        if name not in NAMES:
            near = nearest(name, NAMES) if isinstance(name, str) else ""
            raise Refused(f"found {described(name)}, expected one of {', '.join(NAMES)}{near}")
    if "v" not in fields:
        raise Refused('found no "v", expected the value to set as "v"')


def _id(fields: Mapping[str, Any]) -> str | None:
    if "id" not in fields:
        return None
    identity = fields["id"]
    if (
        not isinstance(identity, str)
        or not 0 < len(identity) <= ID_CHARACTERS_MAX
        or not identity.isprintable()
    ):
        found = described(identity)
        raise Refused(
            f'found id {found}, expected printable text of 1 to {ID_CHARACTERS_MAX} characters as "id"'
        )
    return identity


def _issued_ns(fields: Mapping[str, Any]) -> int | None:
    if "t" not in fields:
        return None
    time = fields["t"]
    if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 2**63 / 1e6:
        raise Refused(f"found t {described(time)}, expected milliseconds since 1970-01-01 UTC")
    return time * 1_000_000 if isinstance(time, int) else round(time * 1e6)


def _ttl_ns(fields: Mapping[str, Any]) -> int | None:
    if "ttl" not in fields:
        return None
    ttl = fields["ttl"]
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl <= TTL_SECONDS_MAX:
        raise Refused(f"found ttl {described(ttl)}, expected seconds above 0 up to {TTL_SECONDS_MAX}")
    return round(ttl * 1_000_000_000)
