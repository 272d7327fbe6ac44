"""Words that other rooms know too are the same there: config stands below them and cannot import them."""

from __future__ import annotations

import enum
from typing import Any, get_args

from gateway.config.model import PLACEHOLDERS
from gateway.config.publish import DEFAULT_FIELDS, Publish, Report, Source
from gateway.flow.report import ReportOn
from gateway.translate import payload, rule, topic


def words(values: type[enum.Enum]) -> set[str]:
    return {member.value for member in values}


def literal(model: Any, key: str) -> set[str]:
    return set(get_args(model.model_fields[key].annotation))


def test_sources_of_fields() -> None:
    assert set(get_args(Source)) == words(payload.Source)
    assert DEFAULT_FIELDS == rule.DEFAULT_FIELDS


def test_formats_and_times() -> None:
    assert literal(Publish, "format") == words(payload.Format)
    assert literal(Publish, "time") == words(payload.TimeUnit)


def test_reports() -> None:
    assert literal(Report, "on") == words(ReportOn)


def test_placeholders() -> None:
    assert set(PLACEHOLDERS) <= set(topic.PLACEHOLDERS)
