"""A running gateway: everything wired together, started, reloaded and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from gateway.aio.alarm import Alarm
from gateway.aio.supervisor import Supervisor
from gateway.aio.threads import Worker
from gateway.api.http import HttpServer
from gateway.app.access import Access
from gateway.app.commands import REFUSED_AT_ONCE_MAX, CommandDesk
from gateway.app.compiled import Compiled, Link, compile_site, fingerprint
from gateway.app.history import HistoryDesk
from gateway.app.history_rule import history_streams
from gateway.app.kinds import driver_parts, kinds
from gateway.app.rules import Deliveries, RuleCompiler
from gateway.app.servers import Server, Servers
from gateway.app.status import Status
from gateway.app.store import Store
from gateway.app.systemd import Heart, notify_systemd, watchdog_s
from gateway.app.uplinks import make_uplink
from gateway.config.load import ConfigErrors, load
from gateway.config.site import Site, UplinkSpec
from gateway.core.bounded import Level
from gateway.core.clock import Clock
from gateway.core.errors import ConfigError, GatewayError, InvariantError, StorageError
from gateway.core.ports import CommandTarget
from gateway.flow.audit import Audit
from gateway.flow.expressions import ScaledTarget
from gateway.flow.gatekeeper import Gatekeeper
from gateway.flow.hub import Hub
from gateway.flow.image import Image
from gateway.uplink.mqtt.uplink import MqttUplink

_log = logging.getLogger("gateway")

MAINTAIN_EVERY_S: Final = 1.0
DRAIN_S: Final = 2.0  # at a stop: for the brokers to acknowledge what is on its way
STOP_S: Final = 1.2  # before and after: for links and uplinks to end; all of it within 5 s


class Gateway:
    """One process: `run` until a signal, `reload` on SIGHUP."""

    def __init__(self, config: Path, *, state: Path, clock: Clock) -> None:
        self._config = config
        self._state = state
        self._clock = clock
        self._links: dict[str, Link] = {}
        self._uplinks: dict[str, tuple[UplinkSpec, MqttUplink]] = {}
        self._access: dict[str, Access] = {}  # as the uplinks run with it
        self._stop = asyncio.Event()
        self._exit_code = 0
        self._supervisor = Supervisor()
        self._reading = Worker("journal-read")
        self._auditing = Worker("audit")
        self._loading = Worker("config")
        self._reloads_asked = 0

    async def run(self, site: Site) -> int:
        """Until SIGINT or SIGTERM; the exit code. Raises `GatewayError` where it cannot even start."""
        compiled = compile_site(site)
        loop = asyncio.get_running_loop()
        self._store = Store(
            site,
            state=self._state,
            clock=self._clock,
            notify=loop.call_soon_threadsafe,
            fail=self._fail,
            live_only=self._on_live_only,
        )
        self._store.open(compiled.layouts)
        self.history = HistoryDesk(self._store.journal, clock=self._clock)
        audit = Audit(self._store.filesystem, self._state / "audit")
        try:
            await self._serve(compiled, audit)
        except BaseExceptionGroup as group:
            self._broken(group)
        finally:
            await self._close(audit)
        _log.info("stopped", extra={"exit": self._exit_code})
        return self._exit_code

    async def _serve(self, compiled: Compiled, audit: Audit) -> None:
        """Everything that needs an open journal."""
        site = compiled.site
        loop = asyncio.get_running_loop()
        opened = audit.open(self._clock.wall_ns())
        for problem in opened.problems:
            _log.warning("audit file", extra={"found": problem})
        self._gatekeeper = Gatekeeper(
            clock=self._clock,
            audit=audit,
            opened=opened,
            run_in_thread=self._auditing.run,
            offline_reason=self._offline_reason,
        )
        self._wire(compiled)
        self._store.report_orphans()
        self._http = http = HttpServer(
            self.status, host=site.http.host, port=site.http.port, history=self.history
        )
        try:
            await http.start()
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise GatewayError(
                f"http: cannot listen on {site.http}: {reason}; choose another address with `http: listen`"
            ) from error
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._ask_reload)
        try:
            async with self._supervisor:
                self._start_uplinks(compiled)
                self._start_links(compiled)
                self._servers.start(compiled, self.hub.image)
                self._supervisor.spawn("maintenance", self._maintain)
                self._supervisor.spawn("heart", self._heart().run)
                host, port = http.address
                _log.info(
                    "gateway runs",
                    extra={
                        "gateway": site.name,
                        "points": len(self.hub.image),
                        "links": len(self._links),
                        "epoch": self.hub.position[0],
                        "status": f"http://{host}:{port}",
                    },
                )
                notify_systemd("READY=1")
                await self._stop.wait()
                notify_systemd("STOPPING=1")
                _log.info("stopping: reading ends, what is on its way is delivered")
                await self._drain()
        finally:
            await http.close()

    def _broken(self, group: BaseExceptionGroup[BaseException]) -> None:
        """A part found something that cannot be: say what, and end; anything else is not ours to swallow."""
        found, others = group.split(InvariantError)
        if others is not None or found is None:
            raise group
        _log.critical("gateway stops: something that cannot be is", exc_info=found)
        self._exit_code = 1

    # Wiring

    def _wire(self, compiled: Compiled) -> None:
        loop = asyncio.get_running_loop()
        site = compiled.site
        self._hub_alarm = Alarm(loop=loop, clock=self._clock, fire=self._on_hub_deadline)
        self.hub = Hub(
            clock=self._clock,
            journal=self._store,
            epoch=self._store.epoch,
            image=Image(()),
            set_alarm=self._hub_alarm.set,
            cpu_ns=time.thread_time_ns,
            marks_time=site.journal.unsynchronised == "mark",
        )
        self._deliveries = Deliveries(
            journal=self._store.journal,
            hub=self.hub,
            reading=self._reading,
            least_buffer_bytes=self._store.least_buffer_bytes,
            spool=self._store.spool,
            wake=self._wake,
            fail=self._fail,
        )
        self._desk = CommandDesk(
            gatekeeper=self._gatekeeper,
            clock=self._clock,
            launch=self._supervisor.launch,
            target_of=self._target_of,
            hold=self.hub.hold,
            release=self.hub.release,
        )
        self._servers = Servers(supervisor=self._supervisor, clock=self._clock, door=self._desk)
        self.status = Status(self, clock=self._clock, site=site)
        self._apply(compiled)

    def _apply(self, compiled: Compiled) -> None:
        """Rules, image and commands of a configuration; links and uplinks are started elsewhere."""
        site = compiled.site
        self.site = site
        layouts = compiled.layouts
        self._deliveries.set_rules(site, layouts)
        streams = [*self._deliveries.streams(), *((one, ()) for one in history_streams(site, layouts))]
        self._expressions = compiled.expressions
        self.hub.calculate(compiled.expressions.blocks)
        self.hub.connect(streams, Image(layouts))
        self._desk.set_rules(site, layouts)
        self.hub.leaves_room = bool(site.commands)
        self._compiler = RuleCompiler(site, self._deliveries.leaving_rules())
        self.status.set_site(site)

    def _on_hub_deadline(self, now_ns: int) -> None:
        try:
            self.hub.on_deadline(now_ns)
        except Exception as error:  # noqa: BLE001 - what was held back would never be sent: nobody looks again
            _log.exception("heartbeats and held back changes cannot be sent")
            self._fail(error)

    def _on_live_only(self) -> None:
        self._deliveries.disk_failed()

    def _wake(self, uplink: str) -> None:
        found = self._uplinks.get(uplink)
        if found is not None:
            found[1].wake()

    def _fail(self, error: BaseException) -> None:
        """Something the gateway cannot go on without."""
        _log.critical("gateway stops", extra={"reason": str(error)})
        self._exit_code = 1
        self._stop.set()

    def _target_of(self, device: str) -> CommandTarget | None:
        spec = self.site.devices.get(device)
        link = None if spec is None else self._links.get(spec.link)
        if link is None:
            return None
        target: CommandTarget = link.driver
        found = self._expressions
        return ScaledTarget(target, found.writes, found.tags) if found.writes else target

    def _offline_reason(self, device: str) -> str:
        spec = self.site.devices.get(device)
        link = None if spec is None else self._links.get(spec.link)
        return "its link does not run" if link is None else link.driver.offline_reason(device)

    # Links

    def _start_links(self, compiled: Compiled) -> None:
        for name in compiled.links:
            if name not in self._links:
                self._start_link(compiled, name)

    def _start_link(self, compiled: Compiled, name: str) -> None:
        site, parts = compiled.site, compiled.links[name]
        spec = site.links[name]
        driver = driver_parts(spec.driver).make_driver(parts, sink=self.hub, clock=self._clock)
        link = Link(spec, fingerprint(site, name), parts, driver)
        self._links[name] = link
        self._supervisor.spawn(link.task, driver.run)

    # Uplinks

    def _start_uplinks(self, compiled: Compiled) -> None:
        for name, spec in compiled.site.uplinks.items():
            if name not in self._uplinks:
                uplink = make_uplink(
                    compiled.site,
                    spec,
                    compiled.access[name],
                    clock=self._clock,
                    desk=self._desk,
                    status=partial(self._birth, name),
                )
                self._uplinks[name] = (spec, uplink)
                self._access[name] = compiled.access[name]
                self._supervisor.spawn(f"uplink {name}", uplink.run)
            uplink = self._uplinks[name][1]
            uplink.connect_outboxes(self._deliveries.lanes_of(name), self._compiler.routes)

    def _birth(self, uplink: str) -> dict[str, Any]:
        """What receivers need to reconcile: what is surely on disk and surely delivered, and who we are."""
        return {
            "gateway": self.site.name,
            "site": self.site.site,
            "config": self.site.version,
            "epoch": self._store.epoch,
            "committed": list(self._store.committed()),
            "delivered": list(self._deliveries.delivered(uplink)),
        }

    # Reload

    def _ask_reload(self) -> None:
        self._reloads_asked += 1
        if self._reloads_asked == 1:
            self._supervisor.launch("reload", self._reload())

    async def _reload(self) -> None:
        notify_systemd("RELOADING=1")
        try:
            while True:
                asked = self._reloads_asked
                await self._reload_config()
                if self._reloads_asked == asked:  # else the files changed again meanwhile
                    break
        finally:
            self._reloads_asked = 0
            notify_systemd("READY=1")

    async def _reload_config(self) -> None:
        """Take over a new configuration, or keep the old one and say why; restart only what changed."""
        try:
            compiled = await self._loading.run(self._load)  # seconds of work where there are many tags
        except ConfigErrors as errors:
            for line in errors.errors:
                _log.error("the new configuration is wrong, the old one stays", extra={"fault": line})
            return
        except ConfigError as error:
            _log.error("the new configuration is wrong, the old one stays", extra={"fault": str(error)})
            return
        site = compiled.site
        gone = self._uplinks_to_stop(self.site, compiled)
        if site.version == self.site.version and not gone:
            _log.info("configuration is unchanged", extra={"version": site.version})
            return
        before = self.site
        stopped = [link for name, link in self._links.items() if compiled.links.get(name) is not link.parts]
        for link in stopped:
            await self._supervisor.stop(link.task)
            del self._links[link.spec.name]
        servers_stopped = await self._servers.stop_changed(compiled)
        for name in gone:
            await self._supervisor.stop(f"uplink {name}")
            del self._uplinks[name]
        for name in gone:  # no await from here to the hub's new connections
            self._deliveries.take_back(name)
        self._store.set_config(site.version, compiled.layouts)
        self._apply(compiled)
        self._start_uplinks(compiled)
        self._start_links(compiled)
        self._servers.start(compiled, self.hub.image)
        kept_s = (before.http, before.journal) != (site.http, site.journal)
        _log.info(
            "configuration is taken over",
            extra={
                "version": site.version,
                "links_restarted": len(stopped) + servers_stopped,
                "uplinks_restarted": len(gone),
                "rules_leaving": len({rule.index for rule in self._deliveries.leaving_rules()}),
                "at_next_start": "http, journal" if kept_s else "nothing",
            },
        )

    def _load(self) -> Compiled:
        """The configuration as it is on disk now. Nothing but a reload changes what is read here."""
        return compile_site(load(self._config, kinds()), known=self._links)

    def _uplinks_to_stop(self, before: Site, compiled: Compiled) -> list[str]:
        """Those that are gone, or whose section, command topics, password or certificates changed."""
        after = compiled.site
        gone: list[str] = []
        for name, (spec, _uplink) in self._uplinks.items():
            commands = [
                [(rule.model.topic, rule.model.qos) for rule in site.commands if rule.uplink == name]
                for site in (before, after)
            ]
            same_names = (before.name, before.site) == (after.name, after.site)
            access = compiled.access.get(name)
            same_files = access is not None and access.digest == self._access[name].digest
            same_section = after.uplinks.get(name) == spec and same_files and same_names
            if not same_section or commands[0] != commands[1]:
                gone.append(name)
        return gone

    # Care and end

    def _heart(self) -> Heart:
        journal = self._store.journal
        return Heart(ask=journal.ask, silent=journal.silent, status=self.status.line, limit_s=watchdog_s())

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTAIN_EVERY_S)
            self._store.maintain()
            self.status.sample()

    async def _drain(self) -> None:
        """Stop reading, then give the brokers a moment to acknowledge what is on its way."""
        await asyncio.gather(
            self._servers.stop(timeout_s=STOP_S),
            *(self._supervisor.stop(link.task, timeout_s=STOP_S) for link in self._links.values()),
        )
        self._store.flush()
        deadline_s = asyncio.get_running_loop().time() + DRAIN_S
        while asyncio.get_running_loop().time() < deadline_s:
            drained = all(self._is_drained(uplink) for _spec, uplink in self._uplinks.values())
            if drained and not self._desk.under_way and not self._store.waiting_lanes():
                break
            await asyncio.sleep(0.01)
        await asyncio.gather(
            *(self._supervisor.stop(f"uplink {name}", timeout_s=STOP_S) for name in list(self._uplinks))
        )
        await self._supervisor.stop("maintenance")

    def _is_drained(self, uplink: MqttUplink) -> bool:
        if not uplink.is_connected:
            return True
        return uplink.is_idle and not any(box.window or box.is_behind for box in uplink.outboxes())

    async def _close(self, audit: Audit) -> None:
        self._loading.close()
        self.history.close()
        self._reading.close()
        self._auditing.close()
        audit.close()
        try:
            self._store.close()
        except StorageError as error:
            _log.error("journal does not close cleanly", extra={"reason": str(error)})
            self._exit_code = self._exit_code or 1

    # For the status

    @property
    def links(self) -> Mapping[str, Link]:
        """As they run."""
        return self._links

    @property
    def servers(self) -> Mapping[str, Server]:
        """As they run."""
        return self._servers.running

    @property
    def uplinks(self) -> Mapping[str, tuple[UplinkSpec, MqttUplink]]:
        """As they run."""
        return self._uplinks

    @property
    def store(self) -> Store:
        """The journal and its state."""
        return self._store

    @property
    def deliveries(self) -> Deliveries:
        """Rules at work."""
        return self._deliveries

    @property
    def desk(self) -> CommandDesk:
        """Commands."""
        return self._desk

    @property
    def gatekeeper(self) -> Gatekeeper:
        """Counts of outcomes."""
        return self._gatekeeper

    @property
    def http(self) -> HttpServer:
        """The service that shows the status."""
        return self._http

    def thread_levels(self) -> tuple[Level, ...]:
        """Work that waits for the threads, against how much may have been asked for."""
        return (
            self._reading.level(self._deliveries.count),
            self._auditing.level(REFUSED_AT_ONCE_MAX),
            self._loading.level(1),
        )

    @property
    def crashes(self) -> Mapping[str, int]:
        """By task."""
        return self._supervisor.crashes
