"""What users write, section by section. A field's description is the one source of the docs and of
the schema."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.config.model import PLACEHOLDERS, Model, Name, defaults
from gateway.config.publish import Patterns
from gateway.config.scalars import shown
from gateway.config.values import Duration, Host, HostPort, Text
from gateway.core.errors import Problem


class GatewaySection(Model):
    """Who this gateway is."""

    name: Name = Field(
        description="Name of this gateway; `{gateway}` in topics, part of the identity of every message."
    )
    site: Name | None = Field(None, description="Name of the site; `{site}` in topics.")


class HttpSection(Model):
    """Health, metrics and status over HTTP."""

    listen: Annotated[HostPort, Host(port_low=0)] = Field(
        "127.0.0.1:8080",
        validate_default=True,
        description="Address and port to listen on; port 0 takes any free one.",
    )


class ScanSection(Model):
    """A scan class written out; the short form is its `every` alone."""

    every_ns: Annotated[int, Duration("10ms", "7d")] = Field(
        alias="every", description="Time from scan to scan."
    )
    spread: bool = Field(
        False, description="Spread the devices of this class evenly over the time, for load."
    )


class Demote(Model):
    """When a device counts as gone."""

    after: int = Field(
        3, ge=1, le=1000, description="Failed attempts in a row after which the device counts as gone."
    )
    retry_ns: Annotated[int, Duration("100ms", "1d")] = Field(
        "30s",
        validate_default=True,
        alias="retry",
        description="Shortest time between attempts while it is gone; quality stays bad. Devices that are "
        "gone take 1/30 of their link's time at most: above that they are tried less often.",
    )


class Link(Model):
    """What links of every driver have. A driver's model adds its own keys."""

    driver: str

    def wire(self) -> str | None:
        """The name of the wire this link owns, equal for two links on one wire; None for none."""
        return None

    def wire_key(self) -> str:
        """The key that names the wire, where a second owner is pointed at."""
        return "host"

    def peer(self) -> str:
        """Where the link leads, for people."""
        return ""

    def files(self) -> tuple[str, ...]:
        """Files that the link is made from: it is made anew when they say something else."""
        return ()

    @classmethod
    def implicit(cls, driver: str, host: object) -> dict[str, Any]:
        """What a user would have written as the link of a device that is alone on its wire."""
        return {"driver": driver, "host": host}


class ServerLink(Link):
    """What links have where the gateway is the server: others read its points there."""

    role: Literal["server"] = Field(description="server: others connect and read points of the gateway.")


class Exposed(Model):
    """How one point shows on a server; a driver's model adds its own keys."""

    write: bool = Field(
        False, description="Whether clients may write it: a command like any other, with its checks."
    )
    stride: int = Field(
        0,
        ge=-65_535,
        le=65_535,
        description="How much the address grows from one point to the next, where a pattern matches many.",
    )


class Exposure(Model):
    """One entry of `expose`: some points on one server. `points` is read apart."""

    link: Name = Field(description="Name of a link with role: server.")


class Device(Model):
    """What devices of every driver have. `tags`, `defaults` and `use` are merged before and not in here."""

    link: Name | None = Field(None, description="Name of the link that leads to the device.")
    host: Text | None = Field(None, description="Address of a device alone on its wire, instead of a link.")
    attributes: dict[Name, Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        default_factory=dict, description="Names of your own for topics: `{area: hall1}` gives `{area}`."
    )
    demote: Demote = Field(default_factory=defaults(Demote), description="When the device counts as gone.")

    def problems(self) -> Iterable[Problem]:
        for name, value in self.attributes.items():
            if name in PLACEHOLDERS:
                expected = f"a name of your own, none of {', '.join(PLACEHOLDERS)}"
                yield Problem(("attributes", name), f"the attribute '{name}'", expected)
            if any(character in value for character in "+#\0"):
                yield Problem(
                    ("attributes", name), shown(value), "text that can stand in a topic, without + and #"
                )

    def station(self) -> str:
        """`{unit}` in topics: the device's number on its link, as text; empty where there is none."""
        return ""


class Uplink(Model):
    """What uplinks of every kind have."""

    kind: str

    def broker(self) -> str | None:
        """The name of the broker, equal for two uplinks to one broker; None where there is none."""
        return None

    def topics(self) -> Iterable[tuple[str, str]]:
        """(key, topic template) of topics that the uplink itself publishes to."""
        return ()


class CommandPolicy(Model):
    """Which commands are refused before anything is written."""

    ttl_ns: Annotated[int, Duration("100ms", "1h")] | None = Field(
        None,
        alias="ttl",
        description="Oldest age of a command; one whose age cannot be told is refused. Default: no limit.",
    )
    age_proof: Literal["issue_time", "live_delivery"] = Field(
        "issue_time",
        description="What shows the age where there is a ttl. issue_time: the command's t, while our clock "
        "is synchronised; live_delivery: also an MQTT 5 message expiry not above the ttl.",
    )
    offline: Literal["reject"] = Field(
        "reject", description="A command to a device that is gone is rejected, never kept."
    )
    dedupe: Literal["id", "none"] = Field(
        "id", description="id: a command whose id was seen is answered again, not executed."
    )


class Commands(Model):
    """One rule: where commands come from and where their results go."""

    match: Patterns = Field(
        ("*/*",), description="Patterns over device/tag; of these, the writable tags take commands."
    )
    uplink: Name = Field(description="Name of the uplink.")
    topic: Text = Field(
        min_length=1, description="Topic of the commands; it must contain {device} and {tag}."
    )
    reply: Text | None = Field(
        None, min_length=1, description="Topic of the results, which are JSON. Default: none are sent."
    )
    format: Literal["json", "msgpack", "cbor", "raw"] = Field(
        "json",
        description="json, msgpack, cbor: a value, or an object with v, id, t, ttl; raw: the value alone, "
        "as text.",
    )
    qos: Literal[0, 1] = Field(
        1, description="MQTT quality of service of the subscription and of the results."
    )
    rule: CommandPolicy = Field(
        default_factory=defaults(CommandPolicy), description="Which commands are refused."
    )

    def problems(self) -> Iterable[Problem]:
        for key in ("topic", "reply"):
            text = getattr(self, key)
            missing = [name for name in ("{device}", "{tag}") if text and name not in text]
            if missing:
                yield Problem((key,), f"a topic without {' and '.join(missing)}", "{device} and {tag} in it")
