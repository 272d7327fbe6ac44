"""A plain blocking socket under a `ClientSession`, and paho as the party nobody here wrote."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, TypeVar

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from gateway.uplink.mqtt.wire.events import Acknowledged, Connected, Event, Message
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import Settings

WAIT_S = 10.0
EventT = TypeVar("EventT")


class Pump:
    """Moves bytes between one session and a broker. Its clock can be set forward: the session cannot tell."""

    def __init__(self, port: int, settings: Settings) -> None:
        self.session = ClientSession(settings)
        self.events: list[Event] = []
        self.forward_ns = 0
        self._port = port
        self._socket: socket.socket | None = None
        self.is_closed_by_peer = False

    def now_ns(self) -> int:
        return time.monotonic_ns() + self.forward_ns

    def open(self) -> Connected:
        """A new link, up to CONNACK."""
        self.link()
        return self.until_event(Connected)

    def link(self) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self._port))
        self.is_closed_by_peer = False
        self.session.connect(self.now_ns())

    def turn(self, wait_s: float = 0.05) -> None:
        """Send what is queued, take what came, once."""
        assert self._socket is not None
        deadline_ns = self.session.deadline_ns()
        if deadline_ns is not None and deadline_ns <= self.now_ns():
            self.events += self.session.on_deadline(self.now_ns())
        for piece in self.session.to_send(self.now_ns()):
            self._socket.sendall(piece)
        self.events += self.session.sent(self.now_ns())
        readable, _, _ = select.select([self._socket], [], [], wait_s)
        if readable:
            data = self._socket.recv(65_536)
            self.is_closed_by_peer = not data
            if data:
                self.events += self.session.receive(data, self.now_ns())

    def until(self, is_done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + WAIT_S
        while not is_done():
            assert time.monotonic() < give_up, self.events
            assert not self.is_closed_by_peer, self.events
            self.turn()

    def until_event(self, kind: type[EventT]) -> EventT:
        """The next event of this kind; takes it off the list."""

        def found() -> list[EventT]:
            return [event for event in self.events if isinstance(event, kind)]

        self.until(lambda: bool(found()))
        event = found()[0]
        self.events.remove(event)  # type: ignore[arg-type]  # it came out of this list
        return event

    def forge(self, stream: bytes) -> None:
        """Send bytes the session would not."""
        assert self._socket is not None
        self._socket.sendall(stream)

    def cut(self) -> None:
        """Reset the connection: what is on its way is gone."""
        assert self._socket is not None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self.events += self.session.lost(self.now_ns())

    def done(self) -> list[object]:
        return [token for event in self.events if isinstance(event, Acknowledged) for token in event.tokens]

    def messages(self) -> list[Message]:
        return [event for event in self.events if isinstance(event, Message)]


class Paho:
    """An independent client, driven by hand."""

    def __init__(self, port: int, client_id: str, **options: Any) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._is_ready = 0
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, **options)
        self.client.on_message = lambda _client, _data, message: self.messages.append(message)
        self.client.on_connect = self._ready
        self.client.on_subscribe = self._ready
        self.client.on_publish = self._ready
        self.client.connect("127.0.0.1", port)
        self._until_ready(1)

    def _ready(self, *_arguments: object) -> None:
        self._is_ready += 1

    def _until_ready(self, count: int) -> None:
        self.until(lambda: self._is_ready >= count)
        self._is_ready = 0

    def until(self, is_done: Callable[[], bool]) -> None:
        give_up = time.monotonic() + WAIT_S
        while not is_done():
            assert time.monotonic() < give_up, [message.payload for message in self.messages]
            self.client.loop(0.05)

    def subscribe(self, topic_filter: str, qos: int) -> None:
        self.client.subscribe(topic_filter, qos)
        self._until_ready(1)

    def publish(self, topic: str, payload: bytes, **options: Any) -> None:
        self.client.publish(topic, payload, **options)
        self._until_ready(1)

    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]

    def close(self) -> None:
        self.client.disconnect()
        while self.client.loop(0.05) == paho.MQTT_ERR_SUCCESS:
            pass
