"""From the configuration of one broker to an uplink that runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.aio.endpoint import Back, Backoff, Endpoint
from gateway.aio.tcp import TcpOpener
from gateway.app.access import Access
from gateway.app.commands import CommandDesk
from gateway.config.site import Site, UplinkSpec
from gateway.core.clock import Clock
from gateway.uplink.mqtt.config import MqttUplink as MqttModel
from gateway.uplink.mqtt.uplink import MqttUplink
from gateway.uplink.mqtt.wire.packets import Will
from gateway.uplink.mqtt.wire.session import ClientSession
from gateway.uplink.mqtt.wire.settings import Settings
from gateway.uplink.mqtt.wire.terms import PACKET_BYTES_MAX, Version


def make_uplink(
    site: Site,
    spec: UplinkSpec,
    access: Access,
    *,
    clock: Clock,
    desk: CommandDesk,
    status: Callable[[], Mapping[str, Any]],
) -> MqttUplink:
    """The uplink of a section; nothing is opened before `run`."""
    model = spec.model
    assert isinstance(model, MqttModel)
    status_topic = model.status.replace("{gateway}", site.name).replace("{site}", site.site)
    gone = {"state": "offline", "reason": "connection lost", "gateway": site.name}
    is_v5 = model.version == "5"
    settings = Settings(
        client_id=model.client_id or f"gateway-{site.name}",
        version=Version.V5 if is_v5 else Version.V311,
        clean_start=True,  # so that no command waits for us at the broker and ages
        keep_alive_s=model.keep_alive_ns // 1_000_000_000,
        username=model.username,
        password=access.password,
        will=Will(topic=status_topic, payload=msgspec.json.encode(gone), qos=1, retain=True),
        in_flight_max=model.max_in_flight,
        outgoing_packet_size_max=model.max_packet_bytes or PACKET_BYTES_MAX,
        response_timeout_s=model.connect_timeout_ns / 1e9,
    )
    address = model.url.address
    endpoint = Endpoint(
        spec.name,
        TcpOpener(address.host, address.port, tls=access.tls),
        clock=clock,
        open_timeout_s=model.connect_timeout_ns / 1e9,
        backoff=Backoff(first_s=model.backoff.min_ns / 1e9, limit_s=model.backoff.max_ns / 1e9),
        back=Back.OWNER,
    )
    return MqttUplink(
        name=spec.name,
        endpoint=endpoint,
        session=ClientSession(settings),
        is_v5=is_v5,
        clock=clock,
        subscriptions=desk.subscriptions(spec.name),
        on_command=desk.on_message,
        status_topic=status_topic.encode(),
        status=status,
    )
