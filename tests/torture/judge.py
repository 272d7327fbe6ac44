"""The subscriber that decides: what came, whether it is true, in order, whole, and what came twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Set as AbstractSet
from typing import Final
from zlib import crc32

import msgspec
import paho.mqtt.client as paho

from examples.deduplicate import Deduplicator
from tests.system.listeners import Heard, PahoListener
from tests.system.plant import VALUES, Plant, wrong_values

FAULTS_KEPT: Final = 20  # said in words; all are counted
GATEWAY: Final = "gw"
VALUE_TOPIC: Final = "plant/"
STATUS_TOPIC: Final = f"gateway/{GATEWAY}/status"


class Judge(PahoListener):
    """paho-mqtt with a session that the broker keeps. Each message is judged when it comes, none is kept.

    Duplicates are found by the deduplicator that receivers are given, and by a plain table beside it.
    """

    def __init__(self, port: int, plant: Plant) -> None:
        self._plant = plant
        self.known: Final = Deduplicator(one_message=True)
        self.delivered = 0  # records, each once
        self.duplicates = 0
        self.bad = 0  # records that say that nothing could be read
        self.faults: Final[Counter[str]] = Counter()
        self.said: Final[list[str]] = []
        self._contents: dict[tuple[int, int], int] = {}  # (epoch, seq) → checksum of topic and payload
        self._newest: dict[str, tuple[int, int]] = {}  # topic → (epoch, seq)
        self._lock = threading.Lock()
        super().__init__(port, f"{VALUE_TOPIC}#", STATUS_TOPIC, "fence", name="judge")

    def _on_message(self, client: object, data: object, message: paho.MQTTMessage) -> None:
        if message.topic.startswith(VALUE_TOPIC):
            with self._lock:
                self._value(message.topic, message.payload)
        elif message.topic == STATUS_TOPIC:
            with self._lock:
                self._status(msgspec.json.decode(message.payload), is_retained=message.retain)
        else:
            self.heard.append(Heard(message.topic, message.payload, message.retain))

    def _fault(self, kind: str, said: str) -> None:
        self.faults[kind] += 1
        if len(self.said) < FAULTS_KEPT:
            self.said.append(f"{kind}: {said}")

    def _value(self, topic: str, payload: bytes) -> None:
        said = msgspec.json.decode(payload)
        place = (said["e"], said["n"])
        is_own_time = said["ts"] == "gateway"  # else it may be dated better when it comes again
        content = crc32(msgspec.json.encode([topic, said["v"], said.get("q"), is_own_time and said["t"]]))
        before = self._contents.get(place)
        self._contents.setdefault(place, content)
        is_new = self.known.accept(GATEWAY, topic, *place, said.get("p", 0))
        if is_new is not (before is None):
            self._fault("deduplicator", f"{topic} {place} taken for {'new' if is_new else 'known'}")
        if not is_new:
            self.duplicates += 1
            if before != content:
                self._fault("content", f"{topic} {place} came twice and says different things")
            return
        self.delivered += 1
        if place < self._newest.get(topic, (0, 0)):
            self._fault("order", f"{topic}: {place} came first after {self._newest[topic]}")
        self._newest[topic] = max(place, self._newest.get(topic, (0, 0)))
        self._check(topic.removeprefix(VALUE_TOPIC), said)

    def _check(self, device: str, said: dict[str, dict[str, int]]) -> None:
        values = said["v"]
        if "q" in said:
            self.bad += 1
            if set(said["q"]) != set(values) or any(value is not None for value in values.values()):
                self._fault("quality", f"{device}: {said}")
            return
        unit = int(device[1:])
        served = self._plant.counts[unit]
        found = wrong_values(device, values, unit=unit, served=served) if len(values) == VALUES + 1 else "few"
        if found:
            self._fault("value", f"{found}: {said}")

    def _status(self, said: dict[str, object], *, is_retained: bool) -> None:
        self.known.status(GATEWAY, said, is_retained=is_retained)
        lost = [gap for gap in self.known.gaps(GATEWAY) if gap.is_final]
        if lost:
            self._fault("delivered", f"the status says {said.get('delivered')}, and missing is {lost[:3]}")

    def missing(self, places: AbstractSet[tuple[int, int]]) -> list[tuple[int, int]]:
        """Those that never came, by the plain table."""
        with self._lock:
            return sorted(places - self._contents.keys())
