"""What users write, section by section. A field's description is the one source of the docs and the "
"schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from gateway.config.scalars import one_of, shown
from gateway.config.values import NAME, Deadband, Duration, Host, HostPort, Percent, Size, Text, fault
from gateway.core.errors import Problem
from gateway.core.point import Priority, ValueType

Name = Annotated[str, Field(pattern=NAME)]
PLACEHOLDERS: Final = ("site", "gateway", "device", "tag", "link", "template", "unit", "scan")
"""What every topic may name; `unit` is the device's number on its link. A device's `attributes` "
"come on top."""
ModelT = TypeVar("ModelT", bound=BaseModel)


class Model(BaseModel):
    """Strict, frozen, knows its keys; `problems` says what single fields cannot show."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    def problems(self) -> Iterable[Problem]:
        """Faults between fields, with paths from this model on."""
        return ()


class NotYet(msgspec.Struct, frozen=True):
    """`Annotated[Literal[…], NotYet(("thin",), "…")]`: words that users know and that are not there yet."""

    words: tuple[str, ...]
    expected: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def refuse(value: object) -> object:
            if value in self.words:
                raise fault(f"'{value}', which is not there yet", self.expected)
            return value

        return core_schema.no_info_before_validator_function(refuse, handler(source))


def defaults(model: type[ModelT]) -> Callable[[], ModelT]:
    """For `Field(default_factory=…)`: a nested section that the user did not write."""
    return lambda: model.model_validate({})


def _number_pair(value: object) -> tuple[float, float]:
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        low, high = float(numbers[0]), float(numbers[1])
        if low < high and abs(low) != float("inf") and abs(high) != float("inf"):
            return low, high
        raise fault(f"[{numbers[0]}, {numbers[1]}]", "[low, high] with low below high")
    raise fault(shown(value), "two numbers, [low, high]")


_PAIR_SCHEMA = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
Range = Annotated[tuple[float, float], PlainValidator(_number_pair), WithJsonSchema(_PAIR_SCHEMA)]


class GatewaySection(Model):
    """Who this gateway is."""

    name: Name = Field(
        description="Name of this gateway; `{gateway}` in topics, part of the identity of every message."
    )
    site: Name | None = Field(None, description="Name of the site; `{site}` in topics.")


class HttpSection(Model):
    """Health, metrics and status over HTTP."""

    listen: Annotated[HostPort, Host(port_low=0)] = Field(
        "127.0.0.1:8080",
        validate_default=True,
        description="Address and port to listen on; port 0 takes any free one.",
    )


class JournalSection(Model):
    """Where accepted values are kept until they are delivered."""

    directory: Text | None = Field(
        None,
        min_length=1,
        description="Directory of the journal. Default: the state directory of the service, else ./state.",
    )
    commit_ns: Annotated[int, Duration("1ms", "10s")] = Field(
        "100ms", validate_default=True, alias="commit",
        description="Longest time that a value waits to be written to disk together with others.",
    )  # fmt: skip
    commit_bytes: Annotated[int, Size("4KB", "64MB")] = Field(
        "1MB", validate_default=True, alias="commit_size",
        description="So many bytes waiting are written without waiting for `commit`.",
    )  # fmt: skip
    compression: Literal["zstd", "none"] = Field(
        "zstd",
        description="zstd: what is written together is compressed together, to a half or less; none: plain. "
        "Both are always read.",
    )
    max_bytes: Annotated[int, Size("10MB")] = Field(
        "2GB",
        validate_default=True,
        alias="max",
        description="Most disk space that the journal takes, all buffers together.",
    )
    spill_memory: Annotated[int, Size("1MB", "1GB")] = Field(
        "16MB", validate_default=True,
        description="Most memory for values of rules with `durability: spill`; above it they go to disk.",
    )  # fmt: skip
    alarm_share: Annotated[float, Percent()] = Field(
        "12.5%",
        validate_default=True,
        description="Part of `max` kept for tags with `priority: alarm`.",
    )
    unsynchronised: Literal["mark", "trust"] = Field(
        "mark",
        description="Times taken while the operating system does not say that its clock follows a reference. "
        "mark: payloads say so, and what is still in the journal when it does is dated from how long before "
        "it was; trust: they count as good, for sites without a time server.",
    )
    on_failure: Literal["stop", "live_only"] = Field(
        "stop",
        description="What to do when the disk cannot be written: stop, or deliver live values "
        "without keeping them.",
    )
    history: HistorySection | None = Field(
        None, description="What of the past is kept for `gateway history`. Default: nothing."
    )

    def problems(self) -> Iterable[Problem]:
        if self.history is not None:
            found = self.history.problems()
            yield from (Problem(("history", *p.path), p.found, p.expected) for p in found)


class ScanSection(Model):
    """A scan class written out; the short form is its `every` alone."""

    every_ns: Annotated[int, Duration("10ms", "7d")] = Field(
        alias="every", description="Time from scan to scan."
    )
    spread: bool = Field(
        False, description="Spread the devices of this class evenly over the time, for load."
    )


class OutOfRange(NamedTuple):
    """What values under and over the range are."""

    below: str
    above: str


_BEYOND: Final = ("uncertain", "good", "bad")


def _out_of_range(value: object) -> OutOfRange:
    if isinstance(value, OutOfRange):
        return value
    if isinstance(value, str) and value in _BEYOND:
        return OutOfRange(value, value)
    if isinstance(value, dict) and value and set(value) <= {"below", "above"}:
        below, above = value.get("below", "uncertain"), value.get("above", "uncertain")
        if below in _BEYOND and above in _BEYOND:
            return OutOfRange(below, above)
    raise fault(shown(value), f"{one_of(_BEYOND)}, or {{below: …, above: …}}")


OutOfRangeField = Annotated[
    OutOfRange,
    PlainValidator(_out_of_range),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_BEYOND)},
                {
                    "type": "object",
                    "properties": {"below": {"enum": list(_BEYOND)}, "above": {"enum": list(_BEYOND)}},
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class Demote(Model):
    """When a device counts as gone."""

    after: int = Field(
        3, ge=1, le=1000, description="Failed attempts in a row after which the device counts as gone."
    )
    retry_ns: Annotated[int, Duration("100ms", "1d")] = Field(
        "30s",
        validate_default=True,
        alias="retry",
        description="Shortest time between attempts while it is gone; quality stays bad. Devices that are "
        "gone take 1/30 of their link's time at most: above that they are tried less often.",
    )


class Link(Model):
    """What links of every driver have. A driver's model adds its own keys."""

    driver: str

    def wire(self) -> str | None:
        """The name of the wire this link owns, equal for two links on one wire; None for none."""
        return None

    def wire_key(self) -> str:
        """The key that names the wire, where a second owner is pointed at."""
        return "host"

    def peer(self) -> str:
        """Where the link leads, for people."""
        return ""

    def files(self) -> tuple[str, ...]:
        """Files that the link is made from: it is made anew when they say something else."""
        return ()

    @classmethod
    def implicit(cls, driver: str, host: object) -> dict[str, Any]:
        """What a user would have written as the link of a device that is alone on its wire."""
        return {"driver": driver, "host": host}


class ServerLink(Link):
    """What links have where the gateway is the server: others read its points there."""

    role: Literal["server"] = Field(description="server: others connect and read points of the gateway.")


class Exposed(Model):
    """How one point shows on a server; a driver's model adds its own keys."""

    write: bool = Field(
        False, description="Whether clients may write it: a command like any other, with its checks."
    )
    stride: int = Field(
        0,
        ge=-65_535,
        le=65_535,
        description="How much the address grows from one point to the next, where a pattern matches many.",
    )


class Exposure(Model):
    """One entry of `expose`: some points on one server. `points` is read apart."""

    link: Name = Field(description="Name of a link with role: server.")


class Device(Model):
    """What devices of every driver have. `tags`, `defaults` and `use` are merged before and not in here."""

    link: Name | None = Field(None, description="Name of the link that leads to the device.")
    host: Text | None = Field(None, description="Address of a device alone on its wire, instead of a link.")
    attributes: dict[Name, Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default_factory=dict, description="Names of your own for topics: `{area: hall1}` gives `{area}`."
    )
    demote: Demote = Field(default_factory=defaults(Demote), description="When the device counts as gone.")

    def problems(self) -> Iterable[Problem]:
        for name, value in self.attributes.items():
            if name in PLACEHOLDERS:
                expected = f"a name of your own, none of {', '.join(PLACEHOLDERS)}"
                yield Problem(("attributes", name), f"the attribute '{name}'", expected)
            if any(character in value for character in "+#\0"):
                yield Problem(
                    ("attributes", name), shown(value), "text that can stand in a topic, without + and #"
                )

    def station(self) -> str:
        """`{unit}` in topics: the device's number on its link, as text; empty where there is none."""
        return ""


class Write(Model):
    """That a tag may be written, and how."""

    min: float | None = Field(None, description="Lowest value accepted, in the tag's unit.")
    max: float | None = Field(None, description="Highest value accepted, in the tag's unit.")
    verify: Literal["readback", "none"] = Field(
        "none",
        description="readback: read the value after writing and compare; none: the device's "
        "confirmation is enough.",
    )
    within_ns: Annotated[int, Duration("1ms", "10m")] = Field(
        "2s",
        validate_default=True,
        alias="within",
        description="Time that the value may take to show in the read-back.",
    )

    def problems(self) -> Iterable[Problem]:
        if self.min is not None and self.max is not None and self.min > self.max:
            yield Problem(("min",), f"min {self.min:g} above max {self.max:g}", "min at or below max")
        if self.verify == "none" and "within_ns" in self.model_fields_set:
            yield Problem(("within",), "within without verify", "verify: readback, or no within")


class Tag(Model):
    """What tags of every driver have. A driver's model adds its own keys."""

    scan: Name = Field("normal", description="Scan class that reads the tag.")
    unit: str = Field("", max_length=32, description="Engineering unit, as text.")
    range: Range | None = Field(
        None, description="[low, high] in the tag's unit; a value outside it is uncertain/out-of-range."
    )
    deadband: Deadband = Field(
        0,
        validate_default=True,
        description="A change up to this is not reported: a number in the tag's unit or a share of `range`.",
    )
    priority: Literal["normal", "alarm"] = Field(
        "normal", description="alarm: delivered before everything else."
    )
    labels: dict[int, Annotated[str, Field(max_length=128)]] = Field(
        default_factory=dict, alias="enum", description='Texts of values: `{0: "off", 1: auto}`.'
    )
    flags: dict[Annotated[int, Field(ge=0, le=63)], Annotated[str, Field(max_length=128)]] = Field(
        default_factory=dict, description="Texts of single bits of a whole number: `{0: overload}`."
    )
    out_of_range: OutOfRangeField = Field(
        "uncertain",
        validate_default=True,
        description="What a value outside `range` is: uncertain, good or bad (then no value is shown); "
        "or `{below: good, above: bad}`.",
    )
    write: Write | None = Field(None, description="Makes the tag writable; without it the tag is read-only.")

    def value_type(self) -> ValueType:
        """The type of the engineering value; a driver's model answers."""
        raise NotImplementedError

    def lane(self) -> Priority:
        """`priority` in core's words."""
        return Priority.ALARM if self.priority == "alarm" else Priority.NORMAL

    def problems(self) -> Iterable[Problem]:
        value_type = self.value_type()
        is_number = value_type in {ValueType.INT, ValueType.FLOAT}
        if self.deadband.percent and self.range is None:
            yield Problem(
                ("deadband",), "a deadband in percent without range", "range: [low, high] beside it"
            )
        for key in ("range", "deadband"):
            if key in self.model_fields_set and not is_number:
                yield Problem((key,), f"{key} of a {value_type.value}", f"no {key}, as only numbers have one")
        if "out_of_range" in self.model_fields_set and self.range is None:
            yield Problem(("out_of_range",), "out_of_range without range", "range: [low, high] beside it")
        if self.flags and value_type is not ValueType.INT:
            yield Problem(("flags",), f"flags of a {value_type.value}", "whole numbers without scale")
        if self.flags and self.labels:
            yield Problem(("flags",), "flags and enum", "one of them")
        if self.labels and value_type not in {ValueType.INT, ValueType.BOOL}:
            yield Problem(("enum",), f"enum of a {value_type.value}", "whole numbers without scale, or bool")
        if self.write is not None:
            yield from (
                Problem(("write", *fault.path), fault.found, fault.expected)
                for fault in self.write.problems()
            )
            for key in ("min", "max"):
                if getattr(self.write, key) is not None and not is_number:
                    yield Problem(
                        ("write", key),
                        f"{key} of a {value_type.value}",
                        f"no {key}, as only numbers have one",
                    )


class Uplink(Model):
    """What uplinks of every kind have."""

    kind: str

    def broker(self) -> str | None:
        """The name of the broker, equal for two uplinks to one broker; None where there is none."""
        return None

    def topics(self) -> Iterable[tuple[str, str]]:
        """(key, topic template) of topics that the uplink itself publishes to."""
        return ()


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


class HistorySection(Model):
    """What of the past is kept, and how long, after everything was delivered."""

    match: Patterns = Field(
        ("*/*",), description="Patterns over device/tag, as in `publish`: which tags have a history."
    )
    keep_ns: Annotated[int, Duration("1m")] = Field(
        "30d",
        validate_default=True,
        alias="keep",
        description="How long, in running time: no clock step and no time switched off deletes anything.",
    )
    max_bytes: Annotated[int, Size("10MB")] = Field(
        "4GB",
        validate_default=True,
        alias="max",
        description="Most disk space, what is still to be delivered included; that goes first.",
    )
    report: Report = Field(
        default_factory=defaults(Report),
        description="What of the scans is recorded. What a `publish` rule records as fine is not "
        "recorded again.",
    )

    def problems(self) -> Iterable[Problem]:
        yield from (Problem(("report", *p.path), p.found, p.expected) for p in self.report.problems())


JournalSection.model_rebuild()  # it stands above what it is made of, as users write it


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


class CommandPolicy(Model):
    """Which commands are refused before anything is written."""

    ttl_ns: Annotated[int, Duration("100ms", "1h")] | None = Field(
        None,
        alias="ttl",
        description="Oldest age of a command; one whose age cannot be told is refused. Default: no limit.",
    )
    age_proof: Literal["issue_time", "live_delivery"] = Field(
        "issue_time",
        description="What shows the age where there is a ttl. issue_time: the command's t, while our clock "
        "is synchronised; live_delivery: also an MQTT 5 message expiry not above the ttl.",
    )
    offline: Literal["reject"] = Field(
        "reject", description="A command to a device that is gone is rejected, never kept."
    )
    dedupe: Literal["id", "none"] = Field(
        "id", description="id: a command whose id was seen is answered again, not executed."
    )


class Commands(Model):
    """One rule: where commands come from and where their results go."""

    match: Patterns = Field(
        ("*/*",), description="Patterns over device/tag; of these, the writable tags take commands."
    )
    uplink: Name = Field(description="Name of the uplink.")
    topic: Text = Field(
        min_length=1, description="Topic of the commands; it must contain {device} and {tag}."
    )
    reply: Text | None = Field(
        None, min_length=1, description="Topic of the results, which are JSON. Default: none are sent."
    )
    format: Literal["json", "msgpack", "cbor", "raw"] = Field(
        "json",
        description="json, msgpack, cbor: a value, or an object with v, id, t, ttl; raw: the value alone, "
        "as text.",
    )
    qos: Literal[0, 1] = Field(
        1, description="MQTT quality of service of the subscription and of the results."
    )
    rule: CommandPolicy = Field(
        default_factory=defaults(CommandPolicy), description="Which commands are refused."
    )

    def problems(self) -> Iterable[Problem]:
        for key in ("topic", "reply"):
            text = getattr(self, key)
            missing = [name for name in ("{device}", "{tag}") if text and name not in text]
            if missing:
                yield Problem((key,), f"a topic without {' and '.join(missing)}", "{device} and {tag} in it")
