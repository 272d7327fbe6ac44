"""What a running gateway tells about itself, from memory."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from gateway.aio.endpoint import LinkState
from gateway.api import source as api
from gateway.api.source import Family, Health, Sample, rfc3339
from gateway.app.history import history_status
from gateway.app.levels import families_of, levels_of
from gateway.app.logs import fields_of
from gateway.app.point_board import PointBoard
from gateway.app.servers import Server
from gateway.app.wires import Wires
from gateway.config.site import Site, UplinkSpec
from gateway.core.clock import Clock
from gateway.core.command import Outcome
from gateway.disk.writer import State
from gateway.uplink.mqtt.uplink import MqttUplink

if TYPE_CHECKING:
    from gateway.app.compiled import Link
    from gateway.app.runtime import Gateway

NOTICES_MAX: Final = 10
NOTICE_CHARACTERS_MAX: Final = 400
RATE_SAMPLES: Final = 5  # seconds over which rates are measured


class _Rates:
    """Counters sampled each second; rates over the last few."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, dict[str, int]]] = deque(maxlen=RATE_SAMPLES + 1)

    def sample(self, now_ns: int, counts: dict[str, int]) -> None:
        self._samples.append((now_ns, counts))

    def of(self, name: str) -> float:
        """Per second; 0 until there are two samples."""
        if len(self._samples) < 2:
            return 0.0
        (first_ns, first), (last_ns, last) = self._samples[0], self._samples[-1]
        span_ns = last_ns - first_ns
        return max(0.0, (last.get(name, 0) - first.get(name, 0)) * 1e9 / span_ns) if span_ns else 0.0


class _Notices(logging.Handler):
    """The last warnings and errors, for people who look at the status and not at the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: deque[api.Notice] = deque(maxlen=NOTICES_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        facts = " ".join(f"{key}={value}" for key, value in fields_of(record).items())
        text = f"{record.getMessage()}  {facts}" if facts else record.getMessage()
        self.last.append(
            api.Notice(
                time=rfc3339(int(record.created * 1e9)),
                level="warning" if record.levelno < logging.ERROR else "error",
                text=text[:NOTICE_CHARACTERS_MAX],
            )
        )


class Status:
    """Implements `StatusSource`."""

    def __init__(self, gateway: Gateway, *, clock: Clock, site: Site) -> None:
        self._gateway = gateway
        self._clock = clock
        self._site = site
        self._rates = _Rates()
        self._notices = _Notices()
        logging.getLogger().addHandler(self._notices)
        self._started_ns = clock.wall_ns()
        self._started_monotonic_ns = clock.monotonic_ns()
        self._since: dict[str, tuple[str, int]] = {}  # link or uplink → (state, when it entered it)
        self._board = PointBoard(site.scans, clock=clock)
        self._wires = Wires(gateway, clock=clock)
        try:
            self._version = version("edge-gateway")
        except PackageNotFoundError:  # run from a source tree that was never installed
            self._version = "source"

    def set_site(self, site: Site) -> None:
        """A configuration was taken over."""
        self._site = site
        self._board.set_scans(site.scans)

    def sample(self) -> None:
        """Once a second: for rates."""
        now_ns = self._clock.monotonic_ns()
        counts = {"points": self._gateway.hub.counters.values}
        counts["changes"] = self._gateway.hub.counters.values_reported
        for name, link in self._gateway.links.items():
            counts[f"link {name} requests"] = link.driver.session.counters.requests
            counts[f"link {name} points"] = link.driver.points_read
            counts[f"link {name} busy"] = link.driver.session.counters.busy_until(now_ns)
        for name, (_spec, uplink) in self._gateway.uplinks.items():
            counts[f"uplink {name}"] = uplink.counters.acknowledged
        self._rates.sample(now_ns, counts)

    # StatusSource

    def health(self) -> Health:
        """Ill is: a journal that does not write, or a crashed part. A dead device is a bad point."""
        reasons: list[str] = []
        store = self._gateway.store
        if store.journal.failure is not None:
            reasons.append(f"journal: {store.journal.failure}")
        elif store.journal.is_full:
            reasons.append("journal: the disk is full, reading pauses")
        elif store.is_blocked():
            reasons.append("journal: a buffer is at its bound, reading pauses")
        return Health(ok=not reasons, reasons=tuple(reasons))

    def line(self) -> str:
        """What `systemctl status` shows: links, uplinks, and what is ill."""
        gateway = self._gateway
        links = [link.driver.endpoint.state is LinkState.UP for link in gateway.links.values()]
        uplinks = [uplink.is_connected for _spec, uplink in gateway.uplinks.values()]
        backlog = sum(box.backlog for _spec, uplink in gateway.uplinks.values() for box in uplink.outboxes())
        servers = [server.driver.is_up for server in gateway.servers.values()]
        line = f"links {sum(links)} of {len(links)} up, uplinks {sum(uplinks)} of {len(uplinks)} up"
        if servers:
            line += f", servers {sum(servers)} of {len(servers)} up"
        return "; ".join((f"{line}, backlog {backlog}", *self.health().reasons))

    def status(self) -> api.Status:
        """Everything at a glance."""
        gateway = self._gateway
        now_ns = self._clock.wall_ns()
        epoch, seq = gateway.hub.position
        return api.Status(
            gateway=self._site.name,
            site=self._site.site,
            version=self._version,
            config_version=self._site.version,
            epoch=epoch,
            seq=seq,
            time=rfc3339(now_ns),
            time_synchronised=self._clock.is_synchronised(),
            started=rfc3339(self._started_ns),
            uptime_s=round((self._clock.monotonic_ns() - self._started_monotonic_ns) / 1e9, 1),
            points=self._point_counts(),
            points_per_s=self._rates.of("points"),
            changes_per_s=self._rates.of("changes"),
            links=tuple(self._link(name, link) for name, link in gateway.links.items()),
            servers=tuple(_server(name, server) for name, server in gateway.servers.items()),
            uplinks=tuple(self._uplink(name, *found) for name, found in gateway.uplinks.items()),
            journal=self._journal(),
            commands=self._commands(),
            notices=tuple(self._notices.last),
        )

    def points(self, since: int) -> Callable[[], api.Points]:
        """Changes are found by comparing with what was shown last: nothing is done while nobody looks."""
        return self._board.points(since, self._gateway.hub.image.views(), epoch=self._gateway.store.epoch)

    def frames(self, link: str, since: int) -> api.Frames | None:
        """What went over a link while somebody looked."""
        return self._wires.frames(link, since)

    def watch_frames(self, link: str, for_ns: int) -> api.Frames | None:
        """Keep frames of a link from now on; 0 ends it."""
        return self._wires.watch(link, for_ns)

    def families(self) -> tuple[Family, ...]:
        """Depth, limit and dropped of what is bounded, and what crashed."""
        return tuple(self._families())

    # Parts

    def _point_counts(self) -> api.PointCounts:
        return self._board.counts(self._gateway.hub.image.views())

    def _entered(self, name: str, state: str) -> str:
        known = self._since.get(name)
        if known is None or known[0] != state:
            known = (state, self._clock.wall_ns())
            self._since[name] = known
        return rfc3339(known[1])

    def _link(self, name: str, link: Link) -> api.LinkStatus:
        driver = link.driver
        endpoint, counters = driver.endpoint, driver.session.counters
        state = endpoint.state.value
        return api.LinkStatus(
            name=name,
            driver=link.spec.driver,
            peer=endpoint.address,
            state=state,
            since=self._entered(f"link {name}", state),
            reason="" if endpoint.state is LinkState.UP else endpoint.last_error,
            requests_total=counters.requests,
            requests_per_s=self._rates.of(f"link {name} requests"),
            points_per_s=self._rates.of(f"link {name} points"),
            errors_total=sum(counters.exceptions.values()) + counters.mismatched + counters.garbage,
            timeouts_total=counters.timeouts,
            late_replies_total=counters.late,
            mismatched_replies_total=counters.mismatched,
            check_errors_total=counters.check_errors,
            exceptions_total={str(code): counters.exceptions[code] for code in sorted(counters.exceptions)},
            utilisation_percent=round(min(100.0, self._rates.of(f"link {name} busy") / 1e7), 1),
            reconnects_total=max(0, endpoint.traffic.connects - 1),
            received_bytes_total=endpoint.traffic.bytes_received,
            sent_bytes_total=endpoint.traffic.bytes_sent,
            in_flight=driver.max_in_flight - driver.session.capacity(),
            in_flight_limit=driver.max_in_flight,
            devices=_devices(driver),
        )

    def _uplink(self, name: str, spec: UplinkSpec, uplink: MqttUplink) -> api.UplinkStatus:
        endpoint = uplink.endpoint
        state = endpoint.state
        if state is LinkState.UP and not uplink.is_connected:
            state = LinkState.CONNECTING
        stats = self._cursor_stats(name)
        outboxes = uplink.outboxes()
        is_behind = any(outbox.is_behind for outbox in outboxes)
        ages_ns = [cursor.oldest_age_ns for cursor in stats] if is_behind else []
        return api.UplinkStatus(
            name=name,
            kind=spec.kind,
            peer=endpoint.address,
            state=state.value,
            since=self._entered(f"uplink {name}", state.value),
            reason="" if uplink.is_connected else uplink.refusal or endpoint.last_error,
            backlog=sum(outbox.backlog for outbox in outboxes),
            backlog_bytes=sum(cursor.lag_bytes for cursor in stats) if is_behind else 0,
            backlog_age_s=max(ages_ns) / 1e9 if ages_ns else None,
            in_flight=uplink.in_flight,
            in_flight_limit=uplink.session.server.receive_maximum,
            published_total=uplink.counters.published,
            acknowledged_total=uplink.counters.acknowledged,
            messages_per_s=self._rates.of(f"uplink {name}"),
            quarantined_total=uplink.counters.quarantined,
            dropped_total=sum(cursor.dropped_records for cursor in stats)
            + sum(outbox.unkept for outbox in outboxes),
            thinned_values_total=sum(cursor.thinned_values for cursor in stats),
            reconnects_total=max(0, endpoint.traffic.connects - 1),
            received_bytes_total=endpoint.traffic.bytes_received,
            sent_bytes_total=endpoint.traffic.bytes_sent,
        )

    def _journal(self) -> api.JournalStatus:
        store = self._gateway.store
        stats = store.journal.stats()
        state, reason = "ok", ""
        if store.journal.failure is not None:
            state, reason = ("live_only" if store.is_live_only else "failed"), str(store.journal.failure)
        elif any(lane.state is State.FULL for lane in stats.lanes):
            state, reason = "full", f"no room on the disk of {store.directory}"
        elif stats.is_blocked:
            state, reason = "full", "a buffer with full: block is at its bound"
        committed = store.committed()
        spool = store.spool
        return api.JournalStatus(
            state=state,  # type: ignore[arg-type]  # one of the words above
            reason=reason,
            size_bytes=sum(lane.size_bytes for lane in stats.lanes),
            limit_bytes=store.limit_bytes,
            free_bytes=stats.free_bytes,
            committed_epoch=committed[0],
            committed_seq=committed[1],
            commits_total=sum(lane.commits for lane in stats.lanes),
            commit_seconds_total=sum(lane.commits_ns for lane in stats.lanes) / 1e9,
            commit_p99_s=max(lane.commit_p99_ns for lane in stats.lanes) / 1e9,
            held_records=len(spool) if spool is not None else 0,
            held_bytes=spool.bytes if spool is not None else 0,
            spilled_records_total=spool.spilled if spool is not None else 0,
            damaged_total=stats.quarantined_ranges,
            history=history_status(stats.history),
        )

    def _commands(self) -> api.CommandCounts:
        outcomes = self._gateway.gatekeeper.outcomes
        return api.CommandCounts(
            accepted_total=outcomes[Outcome.ACCEPTED],
            sent_total=outcomes[Outcome.SENT],
            verified_total=outcomes[Outcome.VERIFIED],
            rejected_total=outcomes[Outcome.REJECTED],
            expired_total=outcomes[Outcome.EXPIRED],
            unknown_total=outcomes[Outcome.UNKNOWN],
            last=self._gateway.desk.last,
        )

    def _cursor_stats(self, uplink: str) -> list[Any]:
        own = {one.cursor.name for one in self._gateway.deliveries.of(uplink)}
        return [
            cursor
            for lane in self._gateway.store.journal.stats().lanes
            for cursor in lane.cursors
            if cursor.name in own
        ]

    def _families(self) -> Iterator[Family]:
        gateway = self._gateway
        stats = gateway.store.journal.stats()
        yield from families_of(levels_of(gateway, stats))
        yield Family(
            name="gateway_journal_not_kept_batches_total",
            help="Passed live while the disk was failed, kept nowhere.",
            kind="counter",
            samples=(Sample(gateway.store.not_kept),),
        )
        uplinks = [(("uplink", name), uplink) for name, (_spec, uplink) in gateway.uplinks.items()]
        yield Family(
            name="gateway_uplink_stray_acknowledgements_total",
            help="Acknowledgements of nothing that was sent: the broker has a fault.",
            kind="counter",
            samples=tuple(Sample(uplink.session.strays, (label,)) for label, uplink in uplinks),
        )
        yield Family(
            name="gateway_command_unaudited_commands_total",
            help="Commands refused in a flood, answered and not in the audit file.",
            kind="counter",
            samples=(Sample(gateway.desk.unaudited),),
        )
        yield Family(
            name="gateway_task_crashes_total",
            help="Crashes of a part of the gateway; it is started again.",
            kind="counter",
            samples=tuple(Sample(count, (("task", task),)) for task, count in gateway.crashes.items()),
        )
        yield Family(
            name="gateway_link_paused_scans_total",
            help="Scans left out because storage pushed back.",
            kind="counter",
            samples=tuple(
                Sample(link.driver.paused_scans, (("link", name),)) for name, link in gateway.links.items()
            ),
        )


def _devices(driver: Any) -> tuple[api.DeviceStatus, ...]:
    overruns = driver.overruns()
    return tuple(
        api.DeviceStatus(
            name=device.name,
            state=device.state,
            reason=device.reason,
            scans_total=device.scan_count,
            failures_total=device.failure_count,
            overruns_total=overruns.get(device.name, 0),
            identity=device.identity,
        )
        for device in driver.devices.values()
    )


def _server(name: str, server: Server) -> api.ServerStatus:
    driver = server.driver
    (clients,) = driver.levels() or (None,)
    return api.ServerStatus(
        name=name,
        driver=server.parts.link.driver,
        address=driver.address,
        state="up" if driver.is_up else "down",
        reason=driver.last_error,
        points=driver.points,
        connections=0 if clients is None else clients.depth,
        connections_limit=0 if clients is None else clients.limit,
        requests_total=driver.requests,
        exceptions_total={str(code): count for code, count in sorted(driver.exceptions.items())},
        refused_total=0 if clients is None else clients.lost,
    )
