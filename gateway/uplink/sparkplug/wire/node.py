"""The state of one Sparkplug edge node, without I/O: births, deaths, numbers, the primary host, requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from gateway.core.batch import Batch
from gateway.core.errors import LocalProtocolError
from gateway.core.point import Layout, Point
from gateway.uplink.sparkplug.wire.columns import BirthRow, MetricColumns
from gateway.uplink.sparkplug.wire.commands import (
    REBIRTH,
    REBIRTH_POINT,
    HostState,
    MetricCommand,
    MetricRefused,
    read_commands,
    read_state,
)
from gateway.uplink.sparkplug.wire.payload import DataType, Metric, Payload, encode_payload
from gateway.uplink.sparkplug.wire.protobuf import Wire, tag, varint
from gateway.uplink.sparkplug.wire.topics import Address, MessageType, name_fault, state_topic

NUMBERS: Final = 256  # of seq and bdSeq: 0 to 255 (tck-id-payloads-sequence-num-incrementing)
REBIRTH_EVERY_NS: Final = 1_000_000_000  # ours: a host that asks more often is answered once in this time
_TIMESTAMP: Final = tag(1, Wire.VARINT)
_SEQ: Final = tag(3, Wire.VARINT)

Outgoing: TypeAlias = tuple[bytes, bytes]
"""(topic, payload), QoS 0, not retained."""

Known: TypeAlias = Callable[[Layout], Iterable[BirthRow]]
"""What is known now of the points of a layout."""


class HostOffline(msgspec.Struct, frozen=True):
    """The primary host is gone: publish `death`, disconnect, connect anew and wait for it."""


class Ignored(msgspec.Struct, frozen=True):
    """A message that changes nothing, and why."""

    topic: str
    reason: str


Event: TypeAlias = HostOffline | Ignored | MetricCommand | MetricRefused


class EdgeNode:
    """One node over many connections, one after the other.

    For each connection: `begin`, CONNECT with the will it returns, SUBSCRIBE to `subscriptions`, and once
    that is answered `subscribed`. Whenever `births_due`, `births` come before anything else; data only go out
    while `is_alive`. Every message that a verb returns has a number: publish it, in order, or drop the
    connection. A metric's alias stays the same for the life of the node.
    """

    def __init__(
        self,
        address: Address,
        *,
        primary_host: str | None,
        layouts: Mapping[Layout, Sequence[int]],
    ) -> None:
        """`layouts`: with the columns that are metrics. Raises `LocalProtocolError` for a bad name."""
        self.address: Final = address
        self.primary_host: Final = primary_host
        self._points: dict[str, dict[str, tuple[int, Point]]] = {}  # device → tag → alias and point
        self._by_alias: dict[int, Point] = {}
        self._layouts: Final = tuple(layouts)
        self._columns: dict[Layout, MetricColumns] = {}
        for layout, columns in layouts.items():
            tags = self._points.setdefault(layout.device, {})
            for column in columns:
                point = layout.points[column]
                alias = len(self._by_alias)
                tags[point.tag] = (alias, point)
                self._by_alias[alias] = point
        for name in (address.group, address.node, *self._points, *([primary_host] if primary_host else ())):
            if fault := name_fault(name):
                raise LocalProtocolError(f"Sparkplug name: found {fault}")
        self._topics: Final = {device: self._topic(MessageType.DDATA, device) for device in self._points}
        self._bd_seq = 0
        self._seq = 0
        self._alive: set[str] = set()  # devices
        self._is_subscribed = False
        self._host: HostState | None = None
        self._born_ns: int | None = None
        self._rebirth_ns: int | None = None  # when one is due
        self.is_alive = False  # whether data may go out

    def is_device_alive(self, device: str) -> bool:
        """Whether its birth is out and no death after it."""
        return device in self._alive

    @property
    def births_due(self) -> bool:
        """Whether NBIRTH and DBIRTH shall go out now: they did not yet, or are asked for again."""
        return not self.is_alive and not self.waits_for

    @property
    def waits_for(self) -> str:
        """What is missing before births can go out, for people; empty when nothing is."""
        if not self._is_subscribed:
            return "the broker to take our subscriptions"
        if self.primary_host is None or (self._host is not None and self._host.online):
            return ""
        state = "is offline" if self._host is not None else "has not said that it is online"
        return f"primary host {self.primary_host}, which {state}"

    # A connection

    def begin(self, bd_seq: int, now_ms: int) -> Outgoing:
        """A connection is about to be made: its will, to be registered with QoS 1 and not retained.

        `bd_seq` is one more than that of the connection before, also over a restart
        (tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq).
        """
        if not 0 <= bd_seq < NUMBERS:
            raise LocalProtocolError(f"bdSeq: found {bd_seq}, expected 0 to {NUMBERS - 1}")
        self.end()
        self._bd_seq = bd_seq
        return self.death(now_ms)

    def subscriptions(self) -> tuple[str, ...]:
        """Filters to subscribe to with QoS 1 before any birth (tck-id-message-flow-edge-node-ncmd-subscribe).

        The STATE of the primary host is retained and wanted at once; a retained command is refused.
        """
        own = [self.address.topic(MessageType.NCMD), self.address.topic(MessageType.DCMD, "+")]
        return tuple(own if self.primary_host is None else [*own, state_topic(self.primary_host)])

    def subscribed(self) -> None:
        """The broker took the subscriptions."""
        self._is_subscribed = True

    def end(self) -> None:
        """The connection is over: nothing is alive any more."""
        self.is_alive = self._is_subscribed = False
        self._alive.clear()
        self._host = None
        self._born_ns = self._rebirth_ns = None

    # Out

    def births(self, known: Known, *, now_ns: int, now_ms: int) -> list[Outgoing]:
        """NBIRTH, then DBIRTH of every device, with what is known now; `seq` begins anew.

        Raises `LocalProtocolError` while something is missing
        (tck-id-message-flow-edge-node-birth-publish-phid-wait).
        """
        if self.waits_for:
            raise LocalProtocolError(f"NBIRTH: found that it waits for {self.waits_for}")
        self._seq = 0
        self._born_ns, self._rebirth_ns = now_ns, None
        self._alive.clear()
        self.is_alive = True
        metrics = [
            self._bd_seq_metric(now_ms),
            Metric(name=REBIRTH, timestamp=now_ms, datatype=DataType.BOOLEAN, boolean_value=False),
        ]  # without aliases: tck-id-operational-behavior-data-commands-rebirth-name-aliases
        payload = encode_payload(Payload(timestamp=now_ms, metrics=metrics, seq=self._next_seq()))
        born = [self.device_birth(device, known, now_ms=now_ms) for device in self._points]
        return [(self._topic(MessageType.NBIRTH), payload), *born]

    def device_birth(self, device: str, known: Known, *, now_ms: int) -> Outgoing:
        """DBIRTH of one device."""
        self._check_alive("DBIRTH")
        metrics = b"".join(
            self._columns_of(layout).births(known(layout))
            for layout in self._layouts
            if layout.device == device
        )
        self._alive.add(device)
        return self._topic(MessageType.DBIRTH, device), self._numbered(metrics, now_ms)

    def device_death(self, device: str, *, now_ms: int) -> Outgoing:
        """DDEATH: the device cannot be reached (tck-id-operational-behavior-device-ddeath)."""
        self._check_alive("DDEATH", device)
        self._alive.discard(device)
        return self._topic(MessageType.DDEATH, device), self._numbered(b"", now_ms)

    def data(self, batch: Batch, *, historical: bool, now_ms: int) -> Outgoing | None:
        """DDATA; None where none of its points is a metric of this node (any more)."""
        device = batch.layout.device
        if device not in self._points:
            return None
        self._check_alive("DDATA", device)
        metrics = self._columns_of(batch.layout).data(batch, historical=historical)
        if not metrics:
            return None
        return self._topics[device], self._numbered(metrics, now_ms)

    def death(self, now_ms: int) -> Outgoing:
        """NDEATH: the will, and what goes out before DISCONNECT; no seq (tck-id-payloads-ndeath-seq)."""
        payload = Payload(timestamp=now_ms, metrics=[self._bd_seq_metric(now_ms)])
        return self._topic(MessageType.NDEATH), encode_payload(payload)

    # In

    def receive(self, topic: str, payload: bytes, *, retained: bool, now_ns: int) -> list[Event]:
        """What a message means. Never raises, whatever the bytes."""
        if self.primary_host is not None and topic == state_topic(self.primary_host):
            return self._state(topic, payload)
        if retained:
            return [Ignored(topic, "found a retained message, expected a command that was sent just now")]
        if topic == self.address.topic(MessageType.NCMD):
            asked = [
                self._node_command(topic, one, now_ns) for one in read_commands(payload, self._node_metric)
            ]
            return [event for event in asked if event is not None]
        device = topic.removeprefix(self.address.topic(MessageType.DCMD) + "/")
        tags = self._points.get(device) if device != topic else None
        if tags is None:
            return [Ignored(topic, "found a topic of no device of this node")]
        return list(read_commands(payload, lambda metric: self._device_metric(device, tags, metric)))

    def deadline_ns(self) -> int | None:
        """When `on_deadline` is due."""
        return self._rebirth_ns

    def on_deadline(self, now_ns: int) -> None:
        """A rebirth that was asked for too soon after the last birth is due."""
        if self._rebirth_ns is not None and now_ns >= self._rebirth_ns:
            self._rebirth_ns = None
            self.is_alive = False

    def _state(self, topic: str, payload: bytes) -> list[Event]:
        state = read_state(payload)
        if isinstance(state, str):
            return [Ignored(topic, state)]
        if self._host is not None and state.timestamp_ms < self._host.timestamp_ms:
            found = f"found timestamp {state.timestamp_ms}, expected at least {self._host.timestamp_ms}"
            return [Ignored(topic, found)]
        self._host = state
        return [HostOffline()] if not state.online and self._born_ns is not None else []

    def _node_command(self, topic: str, found: MetricCommand | MetricRefused, now_ns: int) -> Event | None:
        if isinstance(found, MetricRefused):
            return found
        if found.value is not True:
            return Ignored(topic, f"found {REBIRTH} {found.value!r}, expected true")
        if self._born_ns is None:
            return Ignored(topic, "found a request for a rebirth before the birth, which is on its way")
        due_ns = self._born_ns + REBIRTH_EVERY_NS
        self._rebirth_ns = due_ns
        self.on_deadline(now_ns)
        return None

    def _node_metric(self, metric: Metric) -> Point | str:
        if metric.name == REBIRTH:
            return REBIRTH_POINT
        return f"found {_shown(metric)}, expected {REBIRTH}"

    def _device_metric(
        self, device: str, tags: Mapping[str, tuple[int, Point]], metric: Metric
    ) -> Point | str:
        """The point that a metric of a command means, by alias or name, or what is wrong."""
        named = tags.get(metric.name) if metric.name is not None else None
        if metric.alias is not None:
            point = self._by_alias.get(metric.alias)
            if point is None or point.device != device:
                return f"found alias {metric.alias}, expected one of the birth of {device}"
            if metric.name is not None and metric.name != point.tag:
                return f"found alias {metric.alias} of {point.tag} for {metric.name}, expected one metric"
            return point
        if named is None:
            return f"found {_shown(metric)}, expected a metric of {device}"
        return named[1]

    # Parts

    def _columns_of(self, layout: Layout) -> MetricColumns:
        """Also of layouts that only the journal knows: what is still a metric of the same type is said."""
        columns = self._columns.get(layout)
        if columns is None:
            tags = self._points.get(layout.device, {})
            known = [tags.get(point.tag) for point in layout.points]
            columns = MetricColumns(
                layout,
                [
                    found[0] if found is not None and found[1].type is point.type else None
                    for found, point in zip(known, layout.points, strict=True)
                ],
            )
            self._columns[layout] = columns
        return columns

    def _bd_seq_metric(self, now_ms: int) -> Metric:
        return Metric(name="bdSeq", timestamp=now_ms, datatype=DataType.INT64, long_value=self._bd_seq)

    def _numbered(self, metrics: bytes, now_ms: int) -> bytes:
        return _TIMESTAMP + varint(now_ms) + metrics + _SEQ + varint(self._next_seq())

    def _next_seq(self) -> int:
        seq = self._seq
        self._seq = (seq + 1) % NUMBERS
        return seq

    def _topic(self, kind: MessageType, device: str = "") -> bytes:
        return self.address.topic(kind, device).encode()

    def _check_alive(self, what: str, device: str = "") -> None:
        if not self.is_alive:
            raise LocalProtocolError(f"{what}: found births that are due or not out yet, expected them first")
        if device and device not in self._alive:
            raise LocalProtocolError(f"{what} of {device}: found no DBIRTH before it, expected device_birth")


def _shown(metric: Metric) -> str:
    if metric.name is not None:
        return repr(metric.name)
    return "a metric without name" if metric.alias is None else f"alias {metric.alias}"
