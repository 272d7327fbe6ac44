"""A session with a scripted server at its other end: packets in, packets and events out."""

from __future__ import annotations

from typing import Any

from gateway.core.errors import RemoteProtocolError
from gateway.uplink.mqtt.wire.decode import decode
from gateway.uplink.mqtt.wire.encode import encode
from gateway.uplink.mqtt.wire.events import Acknowledged, Event
from gateway.uplink.mqtt.wire.fields import Reader
from gateway.uplink.mqtt.wire.packets import Acknowledgement, Connack, Connect, Packet
from gateway.uplink.mqtt.wire.properties import NONE, Properties
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import PacketType, Version

S = 1_000_000_000


def packets_in(stream: bytes, version: Version) -> list[Packet]:
    """Whole packets of a byte stream."""
    found, reader = [], Reader(stream, where="stream")
    while reader.remaining():
        first, length = reader.uint(1, "first"), reader.varint("length")
        found.append(decode(first, reader.take(length, "body"), version))
    return found


class Script:
    """One session and what its server sees."""

    def __init__(self, version: Version = Version.V5, **settings: Any) -> None:
        given: dict[str, Any] = {"client_id": "gw", "version": version, "session_expiry_s": 3600} | settings
        if version is Version.V311:
            given["session_expiry_s"] = 0
        self.version = version
        self.session = ClientSession(Settings(**given))
        self.now_ns = 0

    def out(self) -> list[Packet]:
        """What the session sends now."""
        return packets_in(b"".join(self.session.to_send(self.now_ns)), self.version)

    def drain(self) -> list[Event]:
        """The wire drained."""
        return self.session.sent(self.now_ns)

    def say(self, *packets: Packet) -> list[Event]:
        """The server sends these, in one piece."""
        return self.session.receive(b"".join(encode(p, self.version) for p in packets), self.now_ns)

    def connect(self, properties: Properties = NONE, *, session_present: bool = False) -> Connect:
        """Open a link; the CONNECT the server saw."""
        self.session.connect(self.now_ns)
        (connect,) = self.out()
        assert isinstance(connect, Connect)
        self.events = self.say(Connack(session_present=session_present, reason=0, properties=properties))
        return connect

    def publish(
        self, token: object, *, qos: int = 1, topic: bytes = b"t", payload: bytes = b"", **more: Any
    ) -> bool:
        """Publish with defaults."""
        return self.session.publish(topic, payload, **({"qos": qos, "retain": False, "token": token} | more))

    def lose(self) -> list[Event]:
        """The link is gone."""
        return self.session.lost(self.now_ns)


def ack(packet_id: int, packet_type: PacketType = PacketType.PUBACK, reason: int = 0) -> Acknowledgement:
    """PUBACK, or what is named."""
    return Acknowledgement(type=packet_type, packet_id=packet_id, reason=reason)


def flat(events: list[Event]) -> list[object]:
    """Events with acknowledged tokens one by one, so that bursts cut differently compare equal."""
    found: list[object] = []
    for event in events:
        found += [("done", token) for token in event.tokens] if isinstance(event, Acknowledged) else [event]
    return found


def feed(session: ClientSession, stream: bytes, sizes: list[int]) -> tuple[list[Event], str]:
    """Feed a stream in pieces of these sizes, repeated; the events, and the violation if there was one."""
    events: list[Event] = []
    position, turn = 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        turn += 1
        try:
            events += session.receive(stream[position : position + size], 0)
        except RemoteProtocolError as error:
            return events + session.lost(0), str(error)
        position += size
    return events, ""
