"""`/metrics`: the status as Prometheus families, read at the moment of the scrape."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.api.source import (
    Family,
    HistoryStatus,
    LinkStatus,
    Sample,
    ServerStatus,
    Status,
    StatusSource,
    UplinkStatus,
)

_Rows: TypeAlias = tuple[LinkStatus, ...] | tuple[ServerStatus, ...] | tuple[UplinkStatus, ...]

_STATES: Final = ("up", "connecting", "down", "stopped")


class Exposition:
    """Writes what `source` says in the format the scraper asked for."""

    def __init__(self, source: StatusSource) -> None:
        self._registry: Final = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(source))

    def write(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for an `Accept` header ("" for none)."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collector(Collector):
    def __init__(self, source: StatusSource) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        for family in (*families_of(self._source.status()), *self._source.families()):
            yield _metric(family)


def _metric(family: Family) -> Metric:
    names = [name for name, _ in family.samples[0].labels] if family.samples else []
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.help, labels=names)
    for sample in family.samples:
        metric.add_metric([text for _, text in sample.labels], sample.value)
    return metric


def families_of(status: Status) -> Iterator[Family]:
    """Every family that follows from the status alone."""
    yield _info(status)
    yield _gauge("gateway_uptime_seconds", "Since the process started", status.uptime_s)
    yield _gauge("gateway_epoch_number", "Epoch of this run", status.epoch)
    yield _gauge(
        "gateway_clock_synchronised", "1 when the wall clock follows a reference", status.time_synchronised
    )
    yield Family(
        name="gateway_points",
        help="Configured points by level of quality",
        kind="gauge",
        samples=tuple(
            Sample(getattr(status.points, level), (("quality", level),))
            for level in ("good", "uncertain", "bad")
        ),
    )
    yield _gauge("gateway_points_per_second", "Values read, over the last seconds", status.points_per_s)
    yield from _link_families(status.links)
    yield from _server_families(status.servers)
    yield from _uplink_families(status.uplinks)
    yield from _journal_families(status)
    yield Family(
        name="gateway_commands_total",
        help="Commands by what became of them",
        kind="counter",
        samples=tuple(
            Sample(getattr(status.commands, f"{outcome}_total"), (("outcome", outcome),))
            for outcome in ("accepted", "sent", "verified", "rejected", "expired", "unknown")
        ),
    )


def _link_families(links: tuple[LinkStatus, ...]) -> Iterator[Family]:
    yield _states("gateway_link_state", "1 for the state the link is in", "link", links)
    for field, text in (
        ("requests_total", "Requests sent to devices"),
        ("errors_total", "Exceptions and unusable answers"),
        ("timeouts_total", "Requests without an answer in time"),
        ("late_replies_total", "Answers dropped because they came too late"),
        ("mismatched_replies_total", "Answers that did not fit their request"),
        ("check_errors_total", "Frames with a wrong checksum"),
        ("reconnects_total", "Connections opened again"),
        ("received_bytes_total", "Bytes received"),
        ("sent_bytes_total", "Bytes sent"),
    ):
        yield _column(f"gateway_link_{field}", text, "counter", "link", links, field)
    yield _column(
        "gateway_link_utilisation_percent",
        "How long a request was under way",
        "gauge",
        "link",
        links,
        "utilisation_percent",
    )
    yield Family(
        name="gateway_link_exceptions_total",
        help="Requests refused by devices, by exception code",
        kind="counter",
        samples=tuple(
            Sample(count, (("link", link.name), ("code", code)))
            for link in links
            for code, count in link.exceptions_total.items()
        ),
    )
    devices = [(link.name, device) for link in links for device in link.devices]
    for field, text in (
        ("scans_total", "Scans of the device"),
        ("failures_total", "Requests not answered or refused, each attempt"),
        ("overruns_total", "Scans skipped because the one before was not done"),
    ):
        yield Family(
            name=f"gateway_device_{field}",
            help=text,
            kind="counter",
            samples=tuple(
                Sample(getattr(device, field), (("link", link), ("device", device.name)))
                for link, device in devices
            ),
        )
    yield Family(
        name="gateway_device_ok",
        help="1 when the device answers as configured",
        kind="gauge",
        samples=tuple(
            Sample(device.state == "ok", (("link", link), ("device", device.name)))
            for link, device in devices
        ),
    )


def _server_families(servers: tuple[ServerStatus, ...]) -> Iterator[Family]:
    yield _states("gateway_server_state", "1 for the state the server is in", "server", servers)
    for field, kind, text in (
        ("points", "gauge", "Points shown there"),
        ("requests_total", "counter", "Requests taken"),
    ):
        yield _column(f"gateway_server_{field}", text, kind, "server", servers, field)
    yield Family(
        name="gateway_server_exceptions_total",
        help="Requests refused, by exception code",
        kind="counter",
        samples=tuple(
            Sample(count, (("server", server.name), ("code", code)))
            for server in servers
            for code, count in server.exceptions_total.items()
        ),
    )


def _uplink_families(uplinks: tuple[UplinkStatus, ...]) -> Iterator[Family]:
    yield _states("gateway_uplink_state", "1 for the state the uplink is in", "uplink", uplinks)
    for field, name, text in (
        ("backlog", "backlog_batches", "Batches the far end did not acknowledge"),
        ("backlog_bytes", "backlog_bytes", "Size of these batches in the journal"),
    ):
        yield _column(f"gateway_uplink_{name}", text, "gauge", "uplink", uplinks, field)
    yield Family(
        name="gateway_uplink_backlog_age_seconds",
        help="Age of the oldest batch not acknowledged, 0 when there is none",
        kind="gauge",
        samples=tuple(Sample(uplink.backlog_age_s or 0.0, (("uplink", uplink.name),)) for uplink in uplinks),
    )
    for field, name, text in (
        ("published_total", "published_messages_total", "Messages handed to the wire"),
        ("acknowledged_total", "acknowledged_messages_total", "Messages acknowledged by the far end"),
        ("quarantined_total", "quarantined_messages_total", "Messages refused by the far end and set aside"),
        ("dropped_total", "dropped_batches_total", "Batches given up by the buffer's policy"),
        (
            "thinned_values_total",
            "thinned_values_total",
            "Values taken out of the backlog by the buffer's policy",
        ),
        ("reconnects_total", "reconnects_total", "Connections opened again"),
        ("received_bytes_total", "received_bytes_total", "Bytes received"),
        ("sent_bytes_total", "sent_bytes_total", "Bytes sent"),
    ):
        yield _column(f"gateway_uplink_{name}", text, "counter", "uplink", uplinks, field)


def _journal_families(status: Status) -> Iterator[Family]:
    journal = status.journal
    yield Family(
        name="gateway_journal_state",
        help="1 for the state the journal is in",
        kind="gauge",
        samples=tuple(
            Sample(journal.state == state, (("state", state),))
            for state in ("ok", "full", "live_only", "failed", "off")
        ),
    )
    yield _gauge("gateway_journal_size_bytes", "Bytes on disk", journal.size_bytes)
    if journal.limit_bytes is not None:
        yield _gauge("gateway_journal_limit_bytes", "Bytes it may take", journal.limit_bytes)
    if journal.free_bytes is not None:
        yield _gauge("gateway_journal_free_bytes", "Bytes free on its file system", journal.free_bytes)
    yield _gauge(
        "gateway_journal_committed_seq_number", "Last committed number of this epoch", journal.committed_seq
    )
    yield _count("gateway_journal_commits_total", "Commits to disk", journal.commits_total)
    yield _count(
        "gateway_journal_commit_seconds_total", "Time spent in commits", journal.commit_seconds_total
    )
    yield _gauge(
        "gateway_journal_commit_p99_seconds",
        "Of the last commits 99 of 100 took no longer, in the slowest lane",
        journal.commit_p99_s,
    )
    yield _count(
        "gateway_journal_damaged_records_total", "Records quarantined as damaged", journal.damaged_total
    )
    if journal.history is not None:
        yield from _history_families(journal.history)


def _history_families(history: HistoryStatus) -> Iterator[Family]:
    yield _gauge("gateway_history_size_bytes", "Kept although everything was delivered", history.size_bytes)
    yield _gauge("gateway_history_limit_bytes", "The journal may take, history included", history.limit_bytes)
    if history.oldest is not None:
        yield _gauge(
            "gateway_history_oldest_timestamp_seconds",
            "The oldest record kept for history alone",
            datetime.datetime.fromisoformat(history.oldest).timestamp(),
        )
    yield _count("gateway_history_deleted_bytes_total", "Too old or too much", history.deleted_bytes_total)
    yield _count(
        "gateway_history_gave_way_bytes_total",
        "Deleted before its time, for room on the disk",
        history.gave_way_bytes_total,
    )


def _info(status: Status) -> Family:
    labels = (
        ("gateway", status.gateway),
        ("site", status.site),
        ("version", status.version),
        ("config_version", status.config_version),
    )
    return Family(
        name="gateway_build_info", help="What runs here", kind="gauge", samples=(Sample(1, labels),)
    )


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(name=name, help=text, kind="gauge", samples=(Sample(value),))


def _count(name: str, text: str, value: float) -> Family:
    return Family(name=name, help=text, kind="counter", samples=(Sample(value),))


def _column(name: str, text: str, kind: str, label: str, rows: _Rows, field: str) -> Family:
    samples = tuple(Sample(getattr(row, field), ((label, row.name),)) for row in rows)
    return Family(name=name, help=text, kind="counter" if kind == "counter" else "gauge", samples=samples)


def _states(name: str, text: str, label: str, rows: _Rows) -> Family:
    samples = tuple(
        Sample(row.state == state, ((label, row.name), ("state", state))) for row in rows for state in _STATES
    )
    return Family(name=name, help=text, kind="gauge", samples=samples)
