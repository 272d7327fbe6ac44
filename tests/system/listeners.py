"""Subscribers at a broker: by paho, and by our own session where its bytes shall be seen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.aio.clock import SystemClock
from gateway.aio.endpoint import Backoff, Endpoint
from gateway.aio.tcp import TcpOpener
from gateway.uplink.mqtt.wire.events import Connected, Event, Message
from gateway.uplink.mqtt.wire.packets import Subscription
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import SESSION_NEVER_EXPIRES, Settings
from tests.system.waiting import LOOPBACK, READY_S, Background, until


class Heard(NamedTuple):
    """One message as it came."""

    topic: str
    payload: bytes
    retain: bool

    @property
    def json(self) -> Any:
        """The payload as an object."""
        return msgspec.json.decode(self.payload)


class Listener:
    """Keeps what it hears, in order; a test waits for what it expects."""

    def __init__(self) -> None:
        self.heard: Final[list[Heard]] = []

    def on(self, topic: str) -> list[Heard]:
        """What came on one topic so far."""
        return [one for one in tuple(self.heard) if one.topic == topic]

    def wait_for(self, wanted: Callable[[Heard], Any], what: str, *, within_s: float = READY_S) -> Heard:
        """The first message that is wanted, heard already or soon."""
        start = 0

        def look() -> Heard | None:
            nonlocal start
            while start < len(self.heard):
                start += 1
                if wanted(self.heard[start - 1]):
                    return self.heard[start - 1]
            return None

        return until(look, what, within_s=within_s)  # type: ignore[return-value]  # truthy is not None

    def close(self) -> None:
        """Leave."""


class PahoListener(Listener):
    """paho-mqtt with a session that the broker keeps; also publishes, as an operator's station would."""

    def __init__(
        self,
        port: int,
        *filters: str,
        name: str = "listener",
        version: int = 5,
        clean: bool = False,
        user: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._filters = [(one, 1) for one in filters]
        is_v5 = version == 5
        self._is_v5 = is_v5
        self.subscribed = threading.Event()
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=paho.MQTTv5 if is_v5 else paho.MQTTv311,
            **({} if is_v5 else {"clean_session": clean}),
        )
        if user is not None:
            self.client.username_pw_set(*user)
        self.client.reconnect_delay_set(0.02, 0.1)  # type: ignore[arg-type]  # seconds; fractions work
        self.client.on_message = self._on_message
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        options: dict[str, Any] = {}
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if clean else SESSION_NEVER_EXPIRES
            options = {"clean_start": clean, "properties": properties}
        self.client.connect(LOOPBACK, port, **options)
        self.client.loop_start()
        assert not filters or self.subscribed.wait(READY_S), "the broker does not take the subscription"

    def _on_connect(self, *_: object) -> None:
        if self._filters:
            self.client.subscribe(self._filters)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.heard.append(Heard(message.topic, message.payload, message.retain))

    def publish(
        self,
        topic: str,
        payload: object,
        *,
        retain: bool = False,
        qos: int = 1,
        expiry_s: int | None = None,
    ) -> None:
        """Send one message (an object as JSON) and wait until the broker has it."""
        data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        properties = None
        if expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        self.client.publish(topic, data, qos=qos, retain=retain, properties=properties).wait_for_publish(
            READY_S
        )

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class WireListener(Listener):
    """Our own session as the subscriber, with a session that the broker keeps."""

    def __init__(self, background: Background, port: int, *filters: str, name: str = "listener") -> None:
        super().__init__()
        self._filters = filters
        self._clock = SystemClock()
        # For ever: mosquitto 2.0.11 takes a saved session with an end for one that has ended already.
        self.session = ClientSession(Settings(client_id=name, session_expiry_s=SESSION_NEVER_EXPIRES))
        self.subscribed = threading.Event()
        self._background = background
        self._endpoint = Endpoint(
            name, TcpOpener(LOOPBACK, port), clock=self._clock, backoff=Backoff(first_s=0.02, limit_s=0.1)
        )
        self._running = background.launch(self._endpoint.keep(self))
        background.at_end.append(self.close)
        assert self.subscribed.wait(READY_S), "the broker does not take the subscription"

    def link_up(self) -> None:
        self.session.connect(self._clock.monotonic_ns())

    def link_events(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, Connected):
                wanted = [Subscription(filter=one, qos=1) for one in self._filters]
                self.session.subscribe(wanted, self._clock.monotonic_ns())
            elif isinstance(event, Message):
                self.heard.append(Heard(event.topic, event.payload, event.retain))
                self.session.acknowledge(event)
            elif type(event).__name__ == "Subscribed":
                self.subscribed.set()

    def link_closing(self) -> None:
        """The session stays."""

    def link_down(self, reason: str) -> None:
        """The session stays."""

    def close(self) -> None:
        self._running.cancel()


# The gateway
