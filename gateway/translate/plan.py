"""A rule compiled for a layout: batches in, (topic, payload) out. The same batch, the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from gateway.core.batch import Batch
from gateway.core.errors import Problem
from gateway.core.point import Layout
from gateway.translate.faults import RuleError
from gateway.translate.match import Match, select
from gateway.translate.nesting import check_paths
from gateway.translate.payload import Format
from gateway.translate.plan_device import DevicePlan
from gateway.translate.plan_influx import InfluxPlan
from gateway.translate.plan_tag import RawPlan, TagPlan
from gateway.translate.rule import RuleSpec, check_rule, sources_of
from gateway.translate.topic import TopicTemplate, names_of

Message = tuple[bytes, bytes]


class Plan(Protocol):
    """One rule for one layout."""

    def messages(self, batch: Batch, *, historical: bool = False) -> list[Message]:
        """Topic and payload of each message, in order; the batch must be of the layout compiled for.

        `historical` is True where the journal is replayed: it adds a field where the rule has one for it and
        changes nothing else. Never raises for any value, quality or time a batch can hold.
        """
        ...

    def topics(self) -> Iterator[tuple[bytes, str]]:
        """Each topic with who owns it (`device/tag`, or the device): the same topic twice is a clash."""
        ...


def compile_rule(rule: RuleSpec, layout: Layout, *, gateway: str, site: str) -> Plan | None:
    """The plan, or None where nothing of the layout matches. Raises `RuleError` with every fault found."""
    problems = check_rule(rule, attributes=layout.attributes)
    if problems:
        raise RuleError(problems)
    columns = select(layout, Match(rule.match))
    if columns == ():
        return None
    wanted = range(len(layout)) if columns is None else columns
    template = TopicTemplate(rule.topic, attributes=layout.attributes)
    if rule.nest and (problems := check_paths([layout.points[column].tag for column in wanted])):
        raise RuleError(problems)
    fields = sources_of(rule)
    topics: bytes | tuple[bytes | None, ...]
    if rule.is_per_tag:
        topics = _topics(template, layout, columns, gateway=gateway, site=site)
    else:
        topics = template.render(names_of(layout, None, gateway=gateway, site=site))
    if rule.format is Format.INFLUX:
        return InfluxPlan(rule, layout, tuple(wanted), topics, fields, gateway=gateway, site=site)
    if isinstance(topics, bytes):
        return DevicePlan(rule, layout, columns, topics, fields, gateway=gateway, site=site)
    if rule.format is Format.RAW:
        return RawPlan(layout, topics)
    return TagPlan(rule, layout, topics, fields, gateway=gateway, site=site)


def _topics(
    template: TopicTemplate, layout: Layout, columns: tuple[int, ...] | None, *, gateway: str, site: str
) -> tuple[bytes | None, ...]:
    """The topic of each column of the layout; None for those the rule does not match."""
    wanted = set(range(len(layout)) if columns is None else columns)
    topics: list[bytes | None] = []
    problems: list[Problem] = []
    for column, point in enumerate(layout.points):
        topic = None
        if column in wanted:
            try:
                topic = template.render(names_of(layout, point, gateway=gateway, site=site))
            except RuleError as error:
                problems.extend(error.problems)
        topics.append(topic)
    if problems:
        raise RuleError(problems)
    return tuple(topics)
