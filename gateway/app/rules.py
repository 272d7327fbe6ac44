"""Publish rules at work: each rule is a stream of the journal, with a cursor and an outbox in each lane."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from gateway.aio.threads import Worker
from gateway.config.publish import Publish, Report
from gateway.config.site import PublishRule, Site
from gateway.core.errors import Problem
from gateway.core.point import Layout, Priority
from gateway.flow.hub import Hub, Stream
from gateway.flow.outbox import Cursor as OutboxCursor
from gateway.flow.outbox import Outbox, Position, Replay
from gateway.flow.report import ReportOn, ReportPolicy
from gateway.flow.spool import Spool
from gateway.journal.cursor import Cursor, Full
from gateway.journal.journal import Journal
from gateway.translate.faults import RuleError
from gateway.translate.match import Match, select
from gateway.translate.payload import Format, TimeUnit
from gateway.translate.plan import compile_rule
from gateway.translate.rule import RuleSpec, default_fields, default_time
from gateway.uplink.mqtt.uplink import Route

_log = logging.getLogger("gateway.rules")

LANES: Final = (Priority.ALARM, Priority.NORMAL)  # the most urgent first
SEGMENTS_TO_THIN: Final = 16  # in a buffer with `full: thin`: sealed ones can be made thinner


def stream_name(rule: PublishRule) -> str:
    """What a rule is called in the journal: it stays the same as long as these three do."""
    return f"{rule.uplink} {rule.model.topic} {','.join(rule.model.match)}"


def buffer_bytes(site: Site, rule: PublishRule, lane: Priority) -> int:
    """How much of a lane may wait for a rule: its own bound, within its share of the journal's."""
    buffer = rule.model.buffer
    own = buffer.alarms.max_bytes if lane is Priority.ALARM else None
    return min(buffer.max_bytes if own is None else own, lane_bytes(site, lane))


def keep_ns(rule: PublishRule, lane: Priority) -> int:
    """How long something of a rule may wait in a lane."""
    buffer = rule.model.buffer
    own = buffer.alarms.keep_ns if lane is Priority.ALARM else None
    return buffer.keep_ns if own is None else own


def lane_bytes(site: Site, lane: Priority) -> int:
    """A lane's part of the journal's bound; where some rules spill, they share with those that do not."""
    alarm = int(site.journal.max_bytes * site.journal.alarm_share / 100)
    if lane is Priority.ALARM:
        return alarm
    rest = site.journal.max_bytes - alarm
    return rest // 2 if any(is_spilling(rule) for rule in site.publish) else rest


def is_spilling(rule: PublishRule) -> bool:
    """Whether its normal values are written only where they must be."""
    return rule.model.buffer.durability == "spill"


def full_of(rule: PublishRule, lane: Priority) -> Full:
    """What gives way in a lane when the rule's buffer is full: alarms are never thinned."""
    full = Full(rule.model.buffer.full)
    return Full.DROP_OLDEST if full is Full.THIN and lane is Priority.ALARM else full


def segment_bytes(site: Site, rule: PublishRule, lane: Priority) -> int:
    """Largest segments that keep the rule's bound in a lane well."""
    bound = buffer_bytes(site, rule, lane)
    return bound // SEGMENTS_TO_THIN if full_of(rule, lane) is Full.THIN else 4 * bound


def replay_of(rule: PublishRule) -> Replay:
    """The rule's `replay` in flow's words."""
    replay = rule.model.buffer.replay
    return Replay(live_first=replay.live_first, share=replay.share / 100)


def policy_of(report: Report) -> ReportPolicy:
    """The rule's `report` in flow's words."""
    return ReportPolicy(on=ReportOn(report.on), min_ns=report.min_ns, heartbeat_ns=report.heartbeat_ns)


def rule_spec(model: Publish) -> RuleSpec:
    """The rule in translate's words."""
    form, written = Format(model.format), model.model_fields_set
    return RuleSpec(
        match=tuple(model.match),
        topic=model.topic,
        format=form,
        fields=tuple(model.fields.items()) if "fields" in written else default_fields(form),
        time=TimeUnit(model.time) if "time" in written else default_time(form),
        measurement=model.measurement,
        tags=tuple(model.tags.items()),
        nest=model.nest,
    )


def check_rules(site: Site, layouts: Iterable[Layout]) -> list[Problem]:
    """What is wrong with a rule for one of the layouts that shows when its payloads are put together."""
    layouts = list(layouts)
    problems: dict[Problem, None] = {}
    for rule in site.publish:
        spec = rule_spec(rule.model)
        if spec.format in {Format.JSON, Format.RAW} and not spec.nest:
            continue  # nothing but the topic, which is checked before
        for layout in layouts:
            try:
                compile_rule(spec, layout, gateway=site.name, site=site.site)
            except RuleError as error:
                problems |= {
                    Problem((*rule.path, *one.path), f"{one.found} ({layout.device})", one.expected): None
                    for one in error.problems
                }
                break
    return list(problems)


class RuleCompiler:
    """Plans of one configuration, made when a layout is first seen: also layouts only the journal knows."""

    def __init__(self, site: Site, leaving: Iterable[PublishRule] = ()) -> None:
        """`leaving`: rules of the configuration before, for what they have kept."""
        self._site = site
        self._rules = {stream_name(rule): rule for rule in (*leaving, *site.publish)}
        self._routes: dict[tuple[str, Layout], tuple[Route, ...]] = {}

    def routes(self, stream: str, layout: Layout) -> tuple[Route, ...]:
        """What becomes of a record of this stream; empty where no rule wants it any more."""
        key = (stream, layout)
        found = self._routes.get(key)
        if found is None:
            found = self._compile(stream, layout)
            self._routes[key] = found
        return found

    def _compile(self, stream: str, layout: Layout) -> tuple[Route, ...]:
        rule = self._rules.get(stream)
        if rule is None:
            return ()
        plan = compile_rule(rule_spec(rule.model), layout, gateway=self._site.name, site=self._site.site)
        if plan is None:
            return ()
        model = rule.model
        return (
            Route(
                rule=rule.index,
                messages=plan.messages,
                qos=rule.qos,
                retain=model.retain,
                live_first=model.buffer.replay.live_first,
            ),
        )


class Delivery(msgspec.Struct):
    """One rule in one lane."""

    rule: PublishRule
    lane: Priority  # of the journal
    stream: Stream
    cursor: Cursor
    outbox: Outbox


class Deliveries:
    """All rules of a running gateway. At a reload what stays the same keeps its outbox and its place."""

    def __init__(
        self,
        *,
        journal: Journal,
        hub: Hub,
        reading: Worker,
        least_buffer_bytes: int,
        spool: Spool | None,
        wake: Callable[[str], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """`wake(uplink)` says that there is something to send.

        `least_buffer_bytes`: a smaller bound, which only a reload can bring, holds from the next start on.
        """
        self._journal = journal
        self._hub = hub
        self._reading = reading
        self._least_buffer_bytes = least_buffer_bytes
        self._spool = spool
        self._wake = wake
        self._fail = fail
        self._known: dict[tuple[str, Priority], Delivery] = {}
        self._leaving: dict[tuple[str, Priority], Delivery] = {}

    def set_rules(self, site: Site, layouts: Iterable[Layout]) -> None:
        """Use the rules of `site` from now on. A rule that is gone delivers what it has."""
        all_layouts = tuple(layouts)
        known: dict[tuple[str, Priority], Delivery] = {}
        for rule in site.publish:
            columns = columns_of(rule, all_layouts)
            for priority in LANES:
                lane = self._lane(rule, priority)
                delivery = self._delivery(site, rule, lane, columns[priority])
                known[stream_name(rule), lane] = delivery
        for (name, lane), gone in (self._leaving | self._known).items():
            self._leaving.pop((name, lane), None)
            if (name, lane) in known:
                continue
            gone.cursor.is_configured = False  # keeps what it has, and blocks nobody
            if not gone.outbox.backlog and not gone.outbox.is_behind:
                continue
            if gone.rule.uplink in site.uplinks:
                self._leaving[name, lane] = gone
            _log.warning(
                "a rule is gone, and what it has kept is not delivered yet",
                extra={
                    "rule": name,
                    "lane": lane.name.lower(),
                    "records_max": gone.outbox.backlog,
                    "now": "delivered as it said" if gone.rule.uplink in site.uplinks else "kept on disk",
                },
            )
        self._known = known
        for rule in site.publish:
            self._drain_other_lane(site, rule)

    def _lane(self, rule: PublishRule, priority: Priority) -> Priority:
        """Where values of this priority stand in the journal."""
        is_spilled = priority is Priority.NORMAL and is_spilling(rule) and self._spool is not None
        return Priority.SPILLED if is_spilled else priority

    def _drain_other_lane(self, site: Site, rule: PublishRule) -> None:
        """Its durability was another one before: what is left of that is delivered from where it is."""
        name = stream_name(rule)
        lane = Priority.NORMAL if self._lane(rule, Priority.NORMAL) is Priority.SPILLED else Priority.SPILLED
        if (lane, name) not in self._journal.orphans() or (name, lane) in self._leaving:
            return
        left = self._delivery(site, rule, lane, {})
        left.cursor.is_configured = False
        if left.outbox.is_behind:
            self._leaving[name, lane] = left

    def leaving_rules(self) -> list[PublishRule]:
        """Rules that are gone and still have something to deliver."""
        return [one.rule for one in self._leaving.values()]

    @property
    def count(self) -> int:
        """Rules times lanes, those that are leaving too."""
        return len(self._known) + len(self._leaving)

    def take_back(self, uplink: str) -> None:
        """An uplink ended: what it had sent and nobody acknowledged is read from the journal again.

        Connect the hub to the new outboxes before anything else is put.
        """
        for one in self.of(uplink):
            one.outbox = self._outbox(one.rule, one.lane, one.cursor, replay_of(one.rule))

    def streams(self) -> list[tuple[Stream, Sequence[Outbox]]]:
        """For the hub."""
        return [(one.stream, (one.outbox,)) for one in self._known.values()]

    def lanes_of(self, uplink: str) -> list[list[Outbox]]:
        """For an uplink: its outboxes, the most urgent first."""
        own = self.of(uplink)
        return [
            [one.outbox for one in own if one.lane is Priority.ALARM],
            [one.outbox for one in own if one.lane is not Priority.ALARM],
        ]

    def delivered(self, uplink: str) -> Position:
        """Up to here the far end has acknowledged all there is for this uplink; never too high."""
        waiting = [one.cursor.low for one in self.of(uplink) if one.cursor.low < self._journal.end(one.lane)]
        return min(waiting, default=self._hub.position)

    def of(self, uplink: str) -> list[Delivery]:
        """Everything of one uplink, rules that are leaving too."""
        every = (*self._known.values(), *self._leaving.values())
        return [one for one in every if one.rule.uplink == uplink]

    def _delivery(
        self, site: Site, rule: PublishRule, lane: Priority, columns: Mapping[Layout, tuple[int, ...]]
    ) -> Delivery:
        name = stream_name(rule)
        stream = Stream(name=name, policy=policy_of(rule.model.report), lane=lane, columns=columns)
        cursor = self._journal.cursor(
            name,
            lane=lane,
            streams=frozenset({name}),
            keep_ns=keep_ns(rule, lane),
            max_bytes=max(self._least_buffer_bytes, buffer_bytes(site, rule, lane)),
            full=full_of(rule, lane),
        )
        replay = replay_of(rule)
        before = self._known.get((name, lane)) or self._leaving.get((name, lane))
        if before is not None:
            before.outbox.set_replay(replay)
            return Delivery(rule, lane, stream, cursor, before.outbox)
        return Delivery(rule, lane, stream, cursor, self._outbox(rule, lane, cursor, replay))

    def disk_failed(self) -> None:
        """The gateway goes on without the disk: see `Outbox.disk_failed`."""
        for delivery in (*self._known.values(), *self._leaving.values()):
            delivery.outbox.disk_failed()

    def _outbox(self, rule: PublishRule, lane: Priority, cursor: Cursor, replay: Replay) -> Outbox:
        journal, hub, spool = self._journal, self._hub, self._spool
        end = journal.end(lane)
        if spool is None or lane is not Priority.SPILLED:
            own: OutboxCursor = cursor
            committed: Callable[[], Position] = partial(journal.committed, lane)
            on_commit: Callable[[Callable[[], None]], None] = partial(hub.on_commit, lane)
        else:
            own = SpoolCursor(cursor, spool)
            committed = partial(settled, journal, spool)
            on_commit = spool.settle
            end = max(end, spool.last)
        return Outbox(
            cursor=own,
            open_reader=lambda after: journal.reader(cursor, after),
            committed=committed,
            on_commit=on_commit,
            background=self._reading,
            holes=missing(cursor, end),
            end=end,
            replay=replay,
            wake=lambda: self._wake(rule.uplink),
            fail=self._fail,
        )


class SpoolCursor:
    """A cursor of the lane for what is spilled: what it acknowledges need not be written any more."""

    def __init__(self, cursor: Cursor, spool: Spool) -> None:
        self._cursor = cursor
        self._spool = spool

    def acknowledge(self, after: Position, upto: Position) -> None:
        """As `Cursor.acknowledge`."""
        self._cursor.acknowledge(after, upto)
        self._spool.acknowledged(upto)


def settled(journal: Journal, spool: Spool) -> Position:
    """Everything up to here of rules that spill was acknowledged or is on disk."""
    committed = journal.committed(Priority.SPILLED)
    return committed if committed < journal.end(Priority.SPILLED) else max(committed, spool.low())


def missing(cursor: Cursor, end: Position) -> list[tuple[Position, Position]]:
    """What of the lane up to `end` the cursor has not acknowledged."""
    holes: list[tuple[Position, Position]] = []
    after = cursor.low
    for start, upto in cursor.ranges:
        if start > after:
            holes.append((after, start))
        after = upto
    if after < end:
        holes.append((after, end))
    return holes


def columns_of(rule: PublishRule, layouts: Sequence[Layout]) -> dict[Priority, dict[Layout, tuple[int, ...]]]:
    """For each lane: the columns of each layout that the rule is about."""
    match = Match(tuple(rule.model.match))
    found: dict[Priority, dict[Layout, tuple[int, ...]]] = {lane: {} for lane in LANES}
    for layout in layouts:
        columns = select(layout, match)
        wanted = range(len(layout)) if columns is None else columns
        for lane in LANES:
            own = tuple(column for column in wanted if layout.points[column].priority is lane)
            if own:
                found[lane][layout] = own
    return found
