"""`/metrics` is text that Prometheus reads, with honest names and no tags in labels."""

from __future__ import annotations

import re

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.metrics import Exposition, families_of
from gateway.api.source import JournalStatus
from tests.api.fake_source import FakeSource, plant_status


def scrape(source: FakeSource) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, content_type = Exposition(source).write("")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_the_status_is_there() -> None:
    found = scrape(FakeSource())
    assert found["gateway_points", (("quality", "bad"),)] == 2
    assert found["gateway_link_requests_total", (("link", "plc"),)] == 400
    assert found["gateway_link_state", (("link", "plc"), ("state", "up"))] == 1
    assert found["gateway_link_state", (("link", "plc"), ("state", "down"))] == 0
    assert found["gateway_link_exceptions_total", (("code", "2"), ("link", "plc"))] == 5
    assert found["gateway_link_utilisation_percent", (("link", "plc"),)] == 37.5
    assert found["gateway_device_ok", (("device", "tank"), ("link", "plc"))] == 0
    assert found["gateway_device_scans_total", (("device", "boiler"), ("link", "plc"))] == 210
    assert found["gateway_uplink_backlog_batches", (("uplink", "local"),)] == 3
    assert found["gateway_uplink_acknowledged_messages_total", (("uplink", "local"),)] == 4007
    assert found["gateway_journal_size_bytes", ()] == 1_234_567
    assert found["gateway_commands_total", (("outcome", "verified"),)] == 1
    assert found["gateway_loop_lag_seconds", ()] == 0.002


def test_it_is_read_at_the_scrape_and_not_before() -> None:
    source = FakeSource()
    exposition = Exposition(source)
    before, _ = exposition.write("")
    source.status_now = plant_status(uptime_s=1234.5)
    after, _ = exposition.write("")
    assert b"gateway_uptime_seconds 42.0" in before
    assert b"gateway_uptime_seconds 1234.5" in after


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    body, content_type = Exposition(FakeSource()).write("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_names_follow_the_rule_and_no_tag_is_a_label() -> None:
    allowed = {
        "gateway",
        "site",
        "version",
        "config_version",
        "code",
        "quality",
        "link",
        "device",
        "uplink",
        "state",
        "outcome",
    }
    families = list(families_of(plant_status()))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert re.fullmatch(r"gateway_[a-z0-9_]+", family.name), family.name
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert family.help
        for sample in family.samples:
            assert {label for label, _ in sample.labels} <= allowed


def test_a_gateway_without_links_and_limits_is_fine() -> None:
    source = FakeSource()
    source.status_now = plant_status(links=(), uplinks=(), journal=JournalStatus(state="off"))
    found = scrape(source)
    assert ("gateway_journal_limit_bytes", ()) not in found
    assert found["gateway_journal_state", (("state", "off"),)] == 1


def test_names_from_the_configuration_cannot_break_the_text() -> None:
    source = FakeSource()
    link = msgspec.structs.replace(source.status_now.links[0], name='a"b\\c\nd', devices=())
    source.status_now = plant_status(links=(link,))
    assert scrape(source)["gateway_link_requests_total", (("link", 'a"b\\c\nd'),)] == 400
