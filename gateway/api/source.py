"""What a running gateway tells about itself: the structs behind `/v1/…`, and the protocol that fills them.

These are what `gateway watch` shows and what users script against: fields are added, never renamed or given
another meaning. All times are RFC 3339 in UTC, all durations seconds, all sizes bytes; `*_total` counts since
the gateway started and only grows; `*_per_s` is measured over the last seconds.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import msgspec

from gateway.core.point import Point, Value
from gateway.core.quality import Quality, describe, is_bad
from gateway.translate.payload import label_of

LinkState: TypeAlias = Literal["up", "connecting", "down", "stopped"]
PlainValue: TypeAlias = bool | int | float | str | None


class PointView(msgspec.Struct, frozen=True, kw_only=True):
    """One point now. `value` is null when there is none to be had: quality then says why."""

    name: str  # device/tag
    value: PlainValue  # engineering units; bytes as hexadecimal digits
    text: str | None = None  # the label of an enumerated value
    unit: str = ""
    quality: str  # good, bad/comm-lost, uncertain/out-of-range+substituted …
    time: str | None = None  # of the value; null when it was never read
    time_origin: Literal["device", "gateway"] | None = None  # whose clock `time` is from
    age_s: float | None = None  # since it was last read, changed or not; null when never
    changed: int = 0  # the change counter at which value or quality last changed
    writable: bool = False


class Points(msgspec.Struct, frozen=True, kw_only=True):
    """The last-value image, or what changed of it. Counters start anew with each epoch."""

    epoch: int
    counter: int  # ask with ?since=<this> for what changes from here on
    points: list[PointView]


class PointCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many points there are, by the level of their quality."""

    good: int = 0
    uncertain: int = 0
    bad: int = 0

    @property
    def total(self) -> int:
        return self.good + self.uncertain + self.bad


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device behind a link."""

    name: str
    state: Literal["ok", "degraded", "demoted", "unknown"]  # unknown: not read yet
    reason: str = ""  # why it is not ok, for people
    scans_total: int = 0
    failures_total: int = 0  # requests of its that were not answered or refused, each attempt
    overruns_total: int = 0  # scans skipped because the one before was not done
    identity: dict[str, str] = {}  # what the device says of itself, where it is asked


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One wire southwards."""

    name: str
    driver: str
    peer: str  # host:port, or the name of the serial port
    state: LinkState
    since: str | None = None  # when it entered that state
    reason: str = ""  # why it is not up, for people
    requests_total: int = 0
    requests_per_s: float = 0.0
    points_per_s: float = 0.0
    errors_total: int = 0  # exceptions answered by devices and answers that could not be used
    timeouts_total: int = 0
    late_replies_total: int = 0  # answers that came after their time and were dropped
    mismatched_replies_total: int = 0  # answers that did not fit their request
    check_errors_total: int = 0  # frames with a wrong checksum, on serial lines
    exceptions_total: dict[str, int] = {}  # refusals by exception code; part of `errors_total`
    utilisation_percent: float = 0.0  # of the last seconds: how long at least one request was under way
    reconnects_total: int = 0
    received_bytes_total: int = 0
    sent_bytes_total: int = 0
    in_flight: int = 0
    in_flight_limit: int = 0
    devices: tuple[DeviceStatus, ...] = ()


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One link where the gateway is the server: others read its points there."""

    name: str
    driver: str
    address: str  # where it listens, or the name of the serial port
    state: LinkState
    reason: str = ""  # why it is not up, for people
    points: int = 0  # shown there
    connections: int = 0
    connections_limit: int = 0
    requests_total: int = 0
    exceptions_total: dict[str, int] = {}  # answers that refuse, by exception code
    refused_total: int = 0  # connections


class UplinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One way northwards. `backlog` is what the journal holds for it and the far end did not acknowledge."""

    name: str
    kind: str
    peer: str
    state: LinkState
    since: str | None = None
    reason: str = ""
    backlog: int = 0  # batches
    backlog_bytes: int = 0
    backlog_age_s: float | None = None  # of the oldest of them; null when there is none
    in_flight: int = 0  # messages sent and not acknowledged
    in_flight_limit: int = 0
    published_total: int = 0  # messages handed to the wire, repetitions included
    acknowledged_total: int = 0
    messages_per_s: float = 0.0  # acknowledged
    quarantined_total: int = 0  # refused by the far end for good and set aside
    dropped_total: int = 0  # given up because the buffer was full and its policy says so
    thinned_values_total: int = 0  # taken out of the backlog for the same reason, all runs
    reconnects_total: int = 0
    received_bytes_total: int = 0
    sent_bytes_total: int = 0


class HistoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What of the past is kept beyond what uplinks still need."""

    size_bytes: int  # in segments that everything was delivered from
    limit_bytes: int  # for the whole journal, as far as it is not still to be delivered
    keep_s: float  # of running time
    oldest: str | None = None  # our clock at the oldest record kept; null while all is recent
    deleted_bytes_total: int = 0
    gave_way_bytes_total: int = 0  # of them, deleted before their time because the disk got full


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The durable log behind the uplinks."""

    state: Literal["ok", "full", "live_only", "failed", "off"]
    reason: str = ""
    size_bytes: int = 0
    limit_bytes: int | None = None  # null: bounded by the disk alone
    free_bytes: int | None = None  # on its file system
    committed_epoch: int = 0
    committed_seq: int = 0
    commits_total: int = 0
    commit_seconds_total: float = 0.0  # that they took: write, sync, and where one began, the new segment
    commit_p99_s: float = 0.0  # of the last ones of the slowest lane; 0 before the first
    held_records: int = 0  # in memory only, of rules with `durability: spill`: a power cut would lose them
    held_bytes: int = 0
    spilled_records_total: int = 0  # of such rules, written because nobody acknowledged them in time
    damaged_total: int = 0  # records quarantined because their checksum did not match
    history: HistoryStatus | None = None  # null where none is configured


class CommandCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of commands. `last` is one line for people."""

    accepted_total: int = 0
    sent_total: int = 0
    verified_total: int = 0
    rejected_total: int = 0
    expired_total: int = 0
    unknown_total: int = 0
    last: str = ""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should know: what, where, since when."""

    time: str
    level: Literal["info", "warning", "error"]
    text: str


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway at a glance."""

    gateway: str
    site: str
    version: str  # of the software
    config_version: str  # changes whenever the compiled configuration does
    epoch: int
    seq: int = 0  # the last number given out
    time: str  # now, by the gateway's clock
    time_synchronised: bool
    started: str
    uptime_s: float
    points: PointCounts
    points_per_s: float = 0.0  # read
    changes_per_s: float = 0.0  # left after report-by-exception
    links: tuple[LinkStatus, ...] = ()
    servers: tuple[ServerStatus, ...] = ()
    uplinks: tuple[UplinkStatus, ...] = ()
    journal: JournalStatus
    commands: CommandCounts = CommandCounts()
    notices: tuple[Notice, ...] = ()  # the last few, newest last


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gateway does its work. A dead device is not its ill health: it is a bad point."""

    ok: bool
    reasons: tuple[str, ...] = ()  # why not, one line each


class Sample(msgspec.Struct, frozen=True):
    """One number of a family; labels name rooms and configured objects, never tags."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """A metric beyond those derived from `Status`. Name `gateway_<noun>_<unit>`, `_total` when it counts."""

    name: str
    help: str
    kind: Literal["counter", "gauge"]
    samples: tuple[Sample, ...]


class FrameView(msgspec.Struct, frozen=True, kw_only=True):
    """One frame on a wire."""

    number: int  # counts up; with a gap where frames were forgotten
    time: str
    way: Literal["sent", "received", "fault"]  # fault: no frame, but something that went wrong
    hex: str  # unit, then the PDU
    text: str  # in words


class Frames(msgspec.Struct, frozen=True, kw_only=True):
    """What went over a link while somebody looked, 200 frames at most; go on with ?since=<last number>."""

    link: str
    watched_s: float  # for how much longer frames are kept; 0: nobody looks
    last: int  # number of the newest frame there is
    missed: int  # frames after `since` that are forgotten already
    frames: list[FrameView]


class StatusSource(Protocol):
    """Implemented by the running gateway. Called from the event loop, answers from memory, never blocks."""

    def health(self) -> Health:
        """Whether it works, and why not."""
        ...

    def status(self) -> Status:
        """Everything at a glance."""
        ...

    def points(self, since: int) -> Callable[[], Points]:
        """Points whose `changed` is above `since`, in the order of the configuration; 0 gives all.

        As of now; the answer is made by what is returned, on another thread, one after the other.
        """
        ...

    def frames(self, link: str, since: int) -> Frames | None:
        """Frames of a link with a number above `since`, while they are kept; None for a link unknown."""
        ...

    def watch_frames(self, link: str, for_ns: int) -> Frames | None:
        """Keep frames of a link from now on for so long; 0 ends it. None where there is no such link."""
        ...

    def families(self) -> tuple[Family, ...]:
        """Metrics of single rooms, in addition to those derived from `status`."""
        ...


def rfc3339(wall_ns: int) -> str:
    """Nanoseconds since 1970 as `2026-05-01T12:00:00.123Z`."""
    seconds, rest_ns = divmod(wall_ns, 1_000_000_000)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1_000_000:03d}Z"


def point_view(
    point: Point,
    value: Value,
    quality: Quality,
    *,
    source_time_ns: int | None,
    received_ns: int | None,
    age_s: float | None,
    changed: int,
) -> PointView:
    """One point for people and scripts.

    A bad value is shown as null, whatever was read before. The device's own time stands first; without one it
    is the time we received it, and `time_origin` says so. A point never read has neither time nor age.
    """
    plain = None if is_bad(quality) else plain_value(value)
    time_ns = received_ns if source_time_ns is None else source_time_ns
    origin: Literal["device", "gateway"] = "gateway" if source_time_ns is None else "device"
    return PointView(
        name=point.name,
        value=plain,
        text=label_of(point, plain),
        unit=point.unit,
        quality=describe(quality),
        time=None if time_ns is None else rfc3339(time_ns),
        time_origin=None if time_ns is None else origin,
        age_s=None if age_s is None else round(age_s, 3),
        changed=changed,
        writable=point.writable,
    )


def plain_value(value: Value) -> PlainValue:
    """As JSON has it: bytes as hexadecimal digits, no number that is none."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    return value
