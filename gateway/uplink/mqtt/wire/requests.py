"""SUBSCRIBE and UNSUBSCRIBE and their answers (MQTT 5.0 §3.8 to §3.11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.core.errors import LocalProtocolError
from gateway.uplink.mqtt.wire import topics
from gateway.uplink.mqtt.wire.encode import encode
from gateway.uplink.mqtt.wire.events import Server, Subscribed, Unsubscribed
from gateway.uplink.mqtt.wire.fields import protocol_error
from gateway.uplink.mqtt.wire.outgoing import Outgoing
from gateway.uplink.mqtt.wire.packets import Suback, Subscribe, Subscription, Unsuback, Unsubscribe
from gateway.uplink.mqtt.wire.properties import Properties
from gateway.uplink.mqtt.wire.reasons import ReasonCode
from gateway.uplink.mqtt.wire.settings import REQUESTS_MAX
from gateway.uplink.mqtt.wire.terms import Version


class _Request(msgspec.Struct):
    """Without its answer yet. `results` has None where the server decides."""

    answer: str  # SUBACK or UNSUBACK
    results: list[int | None]
    asked_ns: int


class Requests:
    """The requests of one link, oldest first, at most `REQUESTS_MAX`."""

    __slots__ = ("_open", "_out", "_outgoing", "_version")

    def __init__(self, *, version: Version, outgoing: Outgoing, out: list[bytes]) -> None:
        self._version: Final = version
        self._outgoing: Final = outgoing  # has the packet identifiers
        self._out: Final = out
        self._open: Final[dict[int, _Request]] = {}

    def subscribe(
        self, subscriptions: Sequence[Subscription], properties: Properties, *, server: Server, now_ns: int
    ) -> int | Subscribed:
        """Queue it: its number, or the results where this server supports none of the filters."""
        results = [_refusal(subscription.filter, server) for subscription in subscriptions]
        sent = tuple(one for one, result in zip(subscriptions, results, strict=True) if result is None)
        request = self._new_id()
        try:
            packet = Subscribe(
                packet_id=request, subscriptions=sent or tuple(subscriptions), properties=properties
            )
            encoded = self._encoded(packet, server)
        except LocalProtocolError:
            self._outgoing.reserved.discard(request)
            raise
        if not sent:
            self._outgoing.reserved.discard(request)
            return Subscribed(
                request=request, results=tuple(result for result in results if result is not None)
            )
        self._open[request] = _Request("SUBACK", results, now_ns)
        self._out.append(encoded)
        return request

    def unsubscribe(self, filters: Sequence[str], *, server: Server, now_ns: int) -> int:
        """Queue it: its number."""
        request = self._new_id()
        try:
            encoded = self._encoded(Unsubscribe(packet_id=request, filters=tuple(filters)), server)
        except LocalProtocolError:
            self._outgoing.reserved.discard(request)
            raise
        self._open[request] = _Request("UNSUBACK", [None] * len(filters), now_ns)
        self._out.append(encoded)
        return request

    def answered(self, packet: Suback | Unsuback) -> Subscribed | Unsubscribed:
        """The server's answer. Raises `Violation` where it fits no request."""
        answer = "SUBACK" if isinstance(packet, Suback) else "UNSUBACK"
        asked = self._open.get(packet.packet_id)
        if asked is None or asked.answer != answer:
            raise protocol_error(
                f"{answer} (MQTT 5.0 section 2.2.1)",
                found=f"packet identifier {packet.packet_id}",
                expected="that of a request without its answer",
            )
        reasons, count = packet.reasons, asked.results.count(None)
        if answer == "UNSUBACK" and self._version is Version.V311:
            reasons = (0,) * count
        if len(reasons) != count:
            raise protocol_error(
                f"{answer} (MQTT 5.0 sections 3.9.3 and 3.11.3)",
                found=f"{len(reasons)} reason codes",
                expected=f"{count}, one for each filter",
            )
        del self._open[packet.packet_id]
        self._outgoing.reserved.discard(packet.packet_id)
        given = iter(reasons)
        results = tuple(next(given) if result is None else result for result in asked.results)
        why = packet.properties.reason_string or ""
        event = Subscribed if isinstance(packet, Suback) else Unsubscribed
        return event(request=packet.packet_id, results=results, reason_string=why)

    def oldest(self) -> tuple[int, str] | None:
        """When the oldest one was asked, and the answer it waits for."""
        for request in self._open.values():
            return request.asked_ns, request.answer
        return None

    def close(self) -> None:
        """The link is gone, and every request with it."""
        self._outgoing.reserved.difference_update(self._open)
        self._open.clear()

    def _new_id(self) -> int:
        if len(self._open) >= REQUESTS_MAX:
            raise LocalProtocolError(
                f"found {REQUESTS_MAX} subscribe requests without answer, expected fewer"
            )
        return self._outgoing.new_id()

    def _encoded(self, packet: Subscribe | Unsubscribe, server: Server) -> bytes:
        encoded = encode(packet, self._version)
        limit = server.maximum_packet_size
        if limit is not None and len(encoded) > limit:
            raise LocalProtocolError(
                f"{type(packet).__name__.upper()}: found {len(encoded)} bytes, expected at most the server's"
                f" Maximum Packet Size {limit}: ask for fewer filters at once (MQTT 5.0 section 3.2.2.3.6)"
            )
        return encoded


def _refusal(topic_filter: str, server: Server) -> int | None:
    """Why it is not sent to this server (MQTT 5.0 §3.2.2.3.11, §3.2.2.3.13)."""
    if topics.is_shared(topic_filter) and not server.shared_subscription_available:
        return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    if topics.has_wildcard(topic_filter) and not server.wildcard_subscription_available:
        return ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
    return None
