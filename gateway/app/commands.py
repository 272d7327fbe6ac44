"""Commands from MQTT: read, judged, carried out by a driver, answered."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import msgspec

from gateway.config.site import CommandRule, Site
from gateway.core.bounded import Bound, Level
from gateway.core.clock import Clock
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Layout, Value
from gateway.core.ports import CommandTarget
from gateway.flow.gatekeeper import AgeProof, Arrival, Gatekeeper, Policy, Writable
from gateway.translate.command import (
    CommandMap,
    CommandSpec,
    ParsedCommand,
    Refusal,
    build_reply,
    compile_command_rule,
)
from gateway.translate.payload import Format
from gateway.uplink.mqtt.uplink import MqttUplink
from gateway.uplink.mqtt.wire.events import Message
from gateway.uplink.mqtt.wire.packets import RetainHandling, Subscription

AT_ONCE_MAX: Final = 256  # commands being judged or carried out; beyond it they are refused
REFUSED_AT_ONCE_MAX: Final = (
    1024  # with those whose refusal is being written down; beyond it they are counted only
)


UNDER_WAY: Final = Bound(
    noun="command_under_way",
    unit="commands",
    what="commands being judged or carried out, or whose refusal is being written down",
    beyond="a command is refused",
    lost="refused",
)


class _Rule(msgspec.Struct, frozen=True):
    rule: CommandRule
    map: CommandMap
    policy: Policy


class CommandDesk:
    """Every command that comes over an uplink passes here on its way to the gatekeeper."""

    def __init__(
        self,
        *,
        gatekeeper: Gatekeeper,
        clock: Clock,
        launch: Callable[[str, Coroutine[Any, Any, None]], None],
        target_of: Callable[[str], CommandTarget | None],
        hold: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        """`target_of(device)`: the driver that writes to it. Between `hold` and `release` it is urgent."""
        self._hold = hold
        self._release = release
        self._gatekeeper = gatekeeper
        self._clock = clock
        self._launch = launch
        self._target_of = target_of
        self._rules: dict[str, list[_Rule]] = {}
        self.under_way = 0  # commands being judged or carried out
        self.last = ""  # one line for people
        self.crowded_out = 0  # refused because too many were under way
        self.unaudited = 0  # refused in a flood without a line in the audit file

    def set_rules(self, site: Site, layouts: Sequence[Layout]) -> None:
        """Use the rules of `site` from now on."""
        self._rules = {}
        for rule in site.commands:
            compiled = compile_command_rule(command_spec(rule), layouts, gateway=site.name, site=site.site)
            self._rules.setdefault(rule.uplink, []).append(_Rule(rule, compiled, policy_of(rule)))
        self._gatekeeper.set_points(_writables(site, layouts))

    def levels(self) -> tuple[Level, ...]:
        """What is bounded here."""
        return (UNDER_WAY.at(self.under_way, AT_ONCE_MAX, self.crowded_out),)

    def subscriptions(self, uplink: str) -> tuple[Subscription, ...]:
        """What to subscribe to. What the broker retains is not even asked for, and refused if it comes."""
        return tuple(
            Subscription(
                filter=topic_filter,
                qos=one.rule.model.qos,
                retain_as_published=True,
                retain_handling=RetainHandling.DO_NOT_SEND,
            )
            for one in self._rules.get(uplink, ())
            for topic_filter in one.map.filters
        )

    def on_message(self, uplink: MqttUplink, message: Message) -> None:
        """A message came in on a command topic."""
        rule, said = self._understood(uplink.name, message)
        if rule is None or said is None:
            uplink.session.acknowledge(message)
            return
        if self.under_way >= AT_ONCE_MAX:
            self.crowded_out += 1
            said = _too_many(said)
        if self.under_way >= REFUSED_AT_ONCE_MAX:
            self._answer(
                uplink,
                rule,
                said.reply_topic,
                CommandResult(id=said.id or "", outcome=Outcome.REJECTED, reason="a flood of commands"),
            )
            self.unaudited += 1
            uplink.session.acknowledge(message)
            return
        self.under_way += 1
        self._hold()
        self._launch("command", self._handle(uplink, message, rule, said))

    def offline_reason(self, device: str) -> str:
        """Why a device cannot be written to now; empty while it can."""
        return self._gatekeeper.offline_reason(device)

    async def command(self, device: str, tag: str, value: Value, *, issuer: str) -> CommandResult:
        """What a client of one of our servers wants written: it waits for the answer."""
        said = ParsedCommand(
            device=device, tag=tag, value=value, id=None, issued_ns=None, ttl_ns=None, reply_topic=None
        )
        if self.under_way >= AT_ONCE_MAX:
            return await self._gatekeeper.refuse(_too_many(said), issuer=issuer)
        self.under_way += 1
        self._hold()
        try:
            result = await self._gatekeeper.obey(
                said,
                self._target_of(device) or _Nobody(),
                lambda _result: None,
                issuer=issuer,
                arrival=Arrival(),
                policy=Policy(),
            )
        finally:
            self.under_way -= 1
            self._release()
        self._note(said, result)
        return result

    def _understood(
        self, uplink: str, message: Message
    ) -> tuple[_Rule | None, ParsedCommand | Refusal | None]:
        """The rule whose topic it is, else the one that can say best what is wrong."""
        topic = message.topic.encode()
        found: tuple[_Rule | None, ParsedCommand | Refusal | None] = (None, None)
        for rule in self._rules.get(uplink, ()):
            said = rule.map.backward(topic, message.payload)
            if isinstance(said, ParsedCommand):
                return rule, said
            if found[1] is None or (said.reply_topic is not None and found[1].reply_topic is None):
                found = (rule, said)
        return found

    async def _handle(
        self, uplink: MqttUplink, message: Message, rule: _Rule, said: ParsedCommand | Refusal
    ) -> None:
        is_open = True

        def close() -> None:
            """The id is on disk, or nothing will be done: the broker need not send it again."""
            nonlocal is_open
            if is_open:
                is_open = False
                self._release()
                uplink.session.acknowledge(message)
                uplink.endpoint.wake()

        def progress(result: CommandResult) -> None:
            if result.outcome is Outcome.ACCEPTED:
                close()
            self._answer(uplink, rule, said.reply_topic, result)

        try:
            issuer = f"uplink:{uplink.name}"
            if isinstance(said, Refusal):
                result = await self._gatekeeper.refuse(said, issuer=issuer)
            else:
                result = await self._gatekeeper.obey(
                    said if rule.rule.model.rule.dedupe == "id" else msgspec.structs.replace(said, id=None),
                    self._target_of(said.device) or _Nobody(),
                    progress,
                    issuer=issuer,
                    arrival=_arrival(message),
                    policy=rule.policy,
                )
                if said.id is not None:
                    result = msgspec.structs.replace(result, id=said.id)
            self._note(said, result)
            self._answer(uplink, rule, said.reply_topic, result)
        finally:
            self.under_way -= 1
            close()

    def _note(self, said: ParsedCommand | Refusal, result: CommandResult) -> None:
        target = f"{said.device}/{said.tag}" if isinstance(said, ParsedCommand) else said.target
        asked = f" = {said.value!r}" if isinstance(said, ParsedCommand) else ""
        reason = f": {result.reason}" if result.reason else ""
        self.last = f"{target}{asked} {result.outcome.value}{reason}"

    def _answer(self, uplink: MqttUplink, rule: _Rule, topic: bytes | None, result: CommandResult) -> None:
        if topic is not None:
            payload = build_reply(result, now_ns=self._clock.wall_ns())
            uplink.reply(topic, payload, qos=rule.rule.model.qos)


def _too_many(said: ParsedCommand | Refusal) -> Refusal:
    return Refusal(
        reason=f"{AT_ONCE_MAX} commands are under way already",
        target=f"{said.device}/{said.tag}" if isinstance(said, ParsedCommand) else said.target,
        reply_topic=said.reply_topic,
        id=said.id,
    )


class _Nobody:
    """Stands in for a driver that is not there (any more)."""

    async def execute(self, command: Command, on_sent: Callable[[], None]) -> CommandResult:  # noqa: ARG002
        reason = f"no driver for {command.device}"
        return CommandResult(id=command.id, outcome=Outcome.REJECTED, reason=reason)


def command_spec(rule: CommandRule) -> CommandSpec:
    """The rule in translate's words."""
    model = rule.model
    return CommandSpec(
        match=tuple(model.match),
        topic=model.topic,
        reply=model.reply or "",
        format=Format(model.format),
    )


def policy_of(rule: CommandRule) -> Policy:
    """What a rule demands of the age of its commands."""
    asked = rule.model.rule
    return Policy(ttl_ns=asked.ttl_ns, age_proof=AgeProof(asked.age_proof))


def _arrival(message: Message) -> Arrival:
    expiry_s = message.properties.message_expiry_interval
    return Arrival(
        retained=message.retain,
        redelivered=message.dup,
        expiry_ns=None if expiry_s is None else expiry_s * 1_000_000_000,
    )


def _writables(site: Site, layouts: Iterable[Layout]) -> Iterable[Writable]:
    for layout in layouts:
        tags = site.devices[layout.device].tags
        for point in layout.points:
            write = tags[point.tag].model.write
            yield Writable(point=point, low=write.min if write else None, high=write.max if write else None)
