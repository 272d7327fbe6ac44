"""The rules of `publish:` and `commands:`: what they match, and that every topic has one meaning."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

from gateway.config.faults import Collector, locate, validate
from gateway.config.journal import HistorySection
from gateway.config.model import PLACEHOLDERS
from gateway.config.models import Commands
from gateway.config.pattern import glob
from gateway.config.publish import Publish
from gateway.config.scalars import choice, clip, did_you_mean, one_of, shown
from gateway.config.site import CommandRule, DeviceSpec, PublishRule, UplinkSpec
from gateway.config.tree import Mapping, Node, Place, Sequence, plain
from gateway.core.errors import PathPart

TOPIC_BYTES_MAX: Final = 65_535  # MQTT 5.0 §1.5.4: the length of a string is two bytes
_PIECE: Final = re.compile(r"\{([^{}]*)\}|([{}])")


class _Use(NamedTuple):
    """Who uses a topic: the rule (by place of its topic), what for, and for which point or device."""

    place: Place
    purpose: str  # "publish", "commands", "reply" or "status"
    owner: str


class Rules:
    """Checks both sections against the devices and uplinks that are there."""

    def __init__(
        self,
        *,
        names: dict[str, str],
        devices: dict[str, DeviceSpec],
        uplinks: dict[str, UplinkSpec],
        uplink_names: Collection[str],
        is_whole: bool,
        attributes: set[str],
        faults: Collector,
    ) -> None:
        """`names`: site and gateway. `is_whole`: no device has a fault, so that a rule must match some.
        `attributes`: the users' own placeholders.
        """
        self._names = names
        self._devices = devices
        self._uplinks = uplinks
        self._uplink_names = uplink_names
        self._is_whole = is_whole
        self._faults = faults
        self._attributes = sorted(attributes - set(PLACEHOLDERS))
        self._topics: dict[tuple[str, str], _Use] = {}  # (broker, topic)
        self._clashes: set[tuple[Place, Place]] = set()

    def publish(self, section: Node | None) -> tuple[PublishRule, ...]:
        """The rules without a fault."""
        rules: list[PublishRule] = []
        for uplink in self._uplinks.values():
            self._status_topics(uplink)
        for index, node in enumerate(section.items if isinstance(section, Sequence) else ()):
            model, found = validate(Publish, node, plain(node), node.place)
            for fault in found:
                self._faults.add(fault)
            place = locate(node, ("topic",), node.place)
            if model is None or not self._common(node, model, keys=("topic",)) or found:
                continue
            uplink = self._uplinks[model.uplink]
            rule = PublishRule(
                index=index,
                uplink=model.uplink,
                model=model,
                qos=model.qos if model.qos is not None else getattr(uplink.model, "qos", 1),
                path=("publish", index),
            )
            for use, topic in self._rendered(model.match, model.topic, place, "publish"):
                self._claim(uplink, topic, use)
            rules.append(rule)
        return tuple(rules)

    def commands(self, section: Node | None) -> tuple[CommandRule, ...]:
        """The rules without a fault; call it after `publish`."""
        rules: list[CommandRule] = []
        for index, node in enumerate(section.items if isinstance(section, Sequence) else ()):
            model, faults = validate(Commands, node, plain(node), node.place)
            for fault in faults:
                self._faults.add(fault)
            if model is None or not self._common(node, model, keys=("topic", "reply")) or faults:
                continue
            uplink = self._uplinks[model.uplink]
            for key, purpose in (("topic", "commands"), ("reply", "reply")):
                text = getattr(model, key)
                if text is None:
                    continue
                where = locate(node, (key,), node.place)
                uses = list(self._rendered(model.match, text, where, purpose, only_writable=True))
                for use, topic in uses:
                    self._claim(uplink, topic, use)
                if not uses and key == "topic" and self._is_whole:
                    found = f"{one_of(map(shown, model.match))}, which no writable tag matches"
                    self._fault(node, ("match",), found, "a pattern that matches a tag with write:")
            rules.append(CommandRule(index=index, uplink=model.uplink, model=model, path=("commands", index)))
        return tuple(rules)

    def history(self, model: HistorySection | None, journal: Node | None) -> None:
        """That the patterns of `journal: history` match something; nothing written is everything there is."""
        node = journal.items.get("history") if isinstance(journal, Mapping) else None
        if model is not None and isinstance(node, Mapping) and "match" in node.items:
            self._patterns(node, model.match)

    def _common(self, node: Node, model: Publish | Commands, *, keys: Iterable[str]) -> bool:
        """Uplink, patterns and placeholders; whether the topics can be looked at."""
        is_sound = self._patterns(node, model.match)
        for key in keys:
            text = getattr(model, key)
            if text is not None:
                is_sound &= self._topic(text, locate(node, (key,), node.place))
        if model.uplink not in self._uplink_names:
            found = f"no uplink '{clip(model.uplink)}'"
            self._fault(node, ("uplink",), found, choice(model.uplink, self._uplink_names))
        return is_sound and model.uplink in self._uplinks

    def _fault(self, node: Node, path: tuple[PathPart, ...], found: str, expected: str) -> None:
        self._faults.add((locate(node, path, node.place), found, expected))

    def _patterns(self, node: Node, patterns: tuple[str, ...]) -> bool:
        is_sound = True
        for position, pattern in enumerate(patterns):
            device, slash, tag = pattern.removeprefix("!").partition("/")
            if not slash or not device or not tag or "/" in tag:
                self._fault(node, ("match", position), shown(pattern), "device/tag, such as 'pump-*/speed'")
                is_sound = False
            elif self._is_whole and not any(True for _ in self._matching((pattern.removeprefix("!"),))):
                hint = self._near_device(device)
                self._fault(
                    node,
                    ("match", position),
                    f"{shown(pattern)}, which no tag matches",
                    f"a pattern that matches a tag{hint}",
                )
        if is_sound and all(pattern.startswith("!") for pattern in patterns):
            self._fault(node, ("match",), "no pattern that takes anything in", "at least one, such as '*/*'")
            is_sound = False
        return is_sound

    def _near_device(self, device: str) -> str:
        return "" if device in self._devices or "*" in device else did_you_mean(device, self._devices)

    def _matching(self, patterns: tuple[str, ...]) -> Iterator[tuple[DeviceSpec, list[str]]]:
        """Devices with those of their tags that the patterns take in."""
        include = [_split(pattern) for pattern in patterns if not pattern.startswith("!")]
        exclude = [_split(pattern[1:]) for pattern in patterns if pattern.startswith("!")]
        for device in self._devices.values():
            takes = [tag for name, tag in include if name.fullmatch(device.name)]
            drops = [tag for name, tag in exclude if name.fullmatch(device.name)]
            tags = [
                tag
                for tag in device.tags
                if any(pattern.fullmatch(tag) for pattern in takes)
                and not any(pattern.fullmatch(tag) for pattern in drops)
            ]
            if tags:
                yield device, tags

    def _topic(self, text: str, place: Place) -> bool:
        known = [*PLACEHOLDERS, *self._attributes]
        is_sound = True
        for piece in _PIECE.finditer(text):
            name = piece[1]
            if piece[2]:
                self._faults.add((place, f"'{piece[2]}' alone in {shown(text)}", "{name}"))
            elif name in {"site", "gateway"} and name not in self._names:
                self._faults.add(
                    (place, f"{{{name}}} in {shown(text)}", f"gateway: {{{name}: …}} in the main file")
                )
            elif name not in known:
                listed = one_of([f"{{{word}}}" for word in known])
                hint = did_you_mean(name, known)
                self._faults.add((place, f"unknown placeholder {{{clip(name)}}}", f"{listed}{hint}"))
            else:
                continue
            is_sound = False
        if fault := _fault_of_topic(_PIECE.sub("x", text)):
            self._faults.add((place, f"{fault} in {shown(text)}", "a topic to publish to"))
            is_sound = False
        return is_sound

    def _rendered(
        self,
        patterns: tuple[str, ...],
        text: str,
        place: Place,
        purpose: str,
        *,
        only_writable: bool = False,
    ) -> Iterator[tuple[_Use, str]]:
        """Every topic of a rule with the point or device it is for."""
        pieces = re.split(r"\{([^{}]*)\}", text)
        missing: set[str] = set()
        for device, tags in self._matching(patterns):
            base = {**device.attributes, **self._names, "device": device.name}
            for tag in tags:
                spec = device.tags[tag]
                if only_writable and not spec.point.writable:
                    continue
                values = {**base, "tag": tag, "scan": spec.model.scan}
                if absent := [name for name in pieces[1::2] if name not in values]:
                    for name in absent:
                        if name not in missing:
                            found = f"{{{name}}}, which device {device.name} does not have"
                            self._faults.add(
                                (place, found, f"attributes: {{{name}: …}} in every device that matches")
                            )
                        missing.add(name)
                    continue
                topic = "".join(values[piece] if odd % 2 else piece for odd, piece in enumerate(pieces))
                if len(topic.encode()) > TOPIC_BYTES_MAX:
                    self._faults.add(
                        (place, f"a topic of {len(topic.encode())} bytes", f"at most {TOPIC_BYTES_MAX}")
                    )
                    return
                per_tag = "tag" in pieces[1::2]
                yield _Use(place, purpose, f"{device.name}/{tag}" if per_tag else device.name), topic

    def _status_topics(self, uplink: UplinkSpec) -> None:
        for key, text in uplink.model.topics():
            place = self._faults.place_of((*uplink.path, key))
            if not self._topic_of_uplink(text, place):
                continue
            topic = _PIECE.sub(lambda piece: self._names.get(piece[1], ""), text)
            self._claim(uplink, topic, _Use(place, "status", uplink.name))

    def _topic_of_uplink(self, text: str, place: Place) -> bool:
        for piece in _PIECE.finditer(text):
            if piece[1] not in self._names:
                listed = one_of([f"{{{name}}}" for name in self._names])
                self._faults.add((place, f"'{clip(piece[0])}' in {shown(text)}", f"only {listed}"))
                return False
        if fault := _fault_of_topic(_PIECE.sub("x", text)):
            self._faults.add((place, f"{fault} in {shown(text)}", "a topic to publish to"))
            return False
        return True

    def _claim(self, uplink: UplinkSpec, topic: str, use: _Use) -> None:
        """Each topic of a broker has one meaning; report one example for two rules."""
        broker = uplink.model.broker() or uplink.name
        first = self._topics.setdefault((broker, topic), use)
        if first == use or (first.place, use.place) in self._clashes:
            return
        self._clashes.add((first.place, use.place))
        found = f"the topic '{clip(topic)}' for {use.owner} ({use.purpose})"
        if first.place == use.place:
            part = "{device} and {tag}" if "/" in use.owner else "{device}"
            expected = f"{part} in it: it is the topic of {first.owner} too"
        elif {first.purpose, use.purpose} == {"publish", "commands"}:
            expected = f"another one: what is published to {first.owner} would come back as a command"
        else:
            expected = f"another one: it is the topic of {first.owner} ({first.purpose})"
        if first.place != use.place:
            expected += f" (first: {first.place})"
        self._faults.add((use.place, found, expected))


def _split(pattern: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    device, _, tag = pattern.partition("/")
    return glob(device), glob(tag)


def _fault_of_topic(text: str) -> str:
    if "" in text.split("/"):
        return "an empty level"
    for character in "+#":
        if character in text:
            return f"the wildcard {character}"
    if text.startswith("$"):
        return "$ at the beginning"
    if not text.isprintable():
        return "a control character"
    return ""
