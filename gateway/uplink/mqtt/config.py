"""What users write for an MQTT uplink."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from gateway.config.model import Model, defaults
from gateway.config.models import Uplink
from gateway.config.scalars import shown
from gateway.config.values import Duration, FileRef, HostPort, Size, Text, duration_text, fault, url
from gateway.core.errors import Problem

PORTS: Final = {"mqtt": 1883, "mqtts": 8883}  # IANA: mqtt, secure-mqtt


class BrokerUrl(msgspec.Struct, frozen=True):
    """`mqtt://host[:port]` or `mqtts://…` for TLS."""

    scheme: str
    address: HostPort

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "mqtts"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, BrokerUrl) else cls(*url(value, PORTS))
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": "^mqtts?://"}


def _version(value: object) -> object:
    if value == "5" or (value == 5 and not isinstance(value, bool)):
        return "5"
    if value != "3.1.1":
        raise fault(shown(value), '5 or "3.1.1"')
    return value


class Backoff(Model):
    """How long to wait before the next attempt to connect: growing, with jitter."""

    min_ns: Annotated[int, Duration("10ms", "1h")] = Field(
        "1s", validate_default=True, alias="min", description="First wait."
    )
    max_ns: Annotated[int, Duration("10ms", "1d")] = Field(
        "1m", validate_default=True, alias="max", description="Longest wait."
    )


class MqttUplink(Uplink):
    """One broker."""

    kind: Literal["mqtt"] = Field(description="The kind of the uplink.")
    url: BrokerUrl = Field(
        description="mqtt://HOST[:1883], or mqtts://HOST[:8883] for TLS. No user and no password in it."
    )
    version: Annotated[
        Literal["5", "3.1.1"], BeforeValidator(_version, json_schema_input_type=Literal[5, "5", "3.1.1"])
    ] = Field("5", description="MQTT version.")
    client_id: str | None = Field(
        None, min_length=1, max_length=256, description="Client identifier. Default: gateway-NAME."
    )
    username: Text | None = Field(None, min_length=1, description="User name.")
    password_file: Annotated[str, FileRef(secret=True)] | None = Field(
        None,
        description="File with the password, or credential:NAME; a newline at its end is not part of it.",
    )
    ca: Annotated[str, FileRef()] | None = Field(
        None,
        description="File with the certificates that the broker's must come from (PEM). Default: the "
        "system's.",
    )
    cert: Annotated[str, FileRef()] | None = Field(
        None, description="File with the client certificate (PEM)."
    )
    key_file: Annotated[str, FileRef(secret=True)] | None = Field(
        None, description="File with the private key of the client certificate (PEM), or credential:NAME."
    )
    keep_alive_ns: Annotated[int, Duration("5s", "18h")] = Field(
        "60s",
        validate_default=True,
        alias="keep_alive",
        description="Longest silence before a ping; whole seconds.",
    )
    max_in_flight: int = Field(
        256,
        ge=1,
        le=65535,
        description="Messages sent before the first is acknowledged; the broker may allow fewer.",
    )
    max_packet_bytes: Annotated[int, Size("1kB", "268MB")] | None = Field(
        None,
        alias="max_packet",
        description="Largest packet the broker takes, where it cannot say so (3.1.1); larger are set aside.",
    )
    connect_timeout_ns: Annotated[int, Duration("100ms", "5m")] = Field(
        "10s",
        validate_default=True,
        alias="connect_timeout",
        description="Longest wait for the broker to accept.",
    )
    backoff: Backoff = Field(
        default_factory=defaults(Backoff), description="Waits between attempts to connect."
    )
    status: Text = Field(
        "gateway/{gateway}/status", min_length=1,
        description="Topic of the retained status (birth, will); only {gateway} and {site}.",
    )  # fmt: skip
    qos: Literal[0, 1] = Field(1, description="Quality of service of rules that name none.")

    def broker(self) -> str | None:
        return f"mqtt {self.url.address}"

    def topics(self) -> Iterable[tuple[str, str]]:
        return (("status", self.status),)

    def problems(self) -> Iterable[Problem]:
        if self.backoff.min_ns > self.backoff.max_ns:
            found = f"min {duration_text(self.backoff.min_ns)} above max {duration_text(self.backoff.max_ns)}"
            yield Problem(("backoff",), found, "min at or below max")
        if self.keep_alive_ns % 1_000_000_000:
            yield Problem(("keep_alive",), duration_text(self.keep_alive_ns), "whole seconds")
        if not self.url.is_tls:
            for key in ("ca", "cert", "key_file"):
                if getattr(self, key) is not None:
                    yield Problem((key,), f"{key} with {self.url}", "mqtts:// for TLS")
        if (self.cert is None) != (self.key_file is None):
            key, other = ("cert", "key_file") if self.key_file is None else ("key_file", "cert")
            yield Problem((key,), f"{key} without {other}", "both or none of them")
        if self.password_file is not None and self.username is None:
            yield Problem(("password_file",), "password_file without username", "username: beside it")
