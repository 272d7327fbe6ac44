"""Types of single values: durations, sizes, addresses, files. Each knows its parser and its JSON Schema.

Used as `Annotated[int, Duration()]`. What they raise carries `found` and `expected` for the message.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

import msgspec
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gateway.config.credentials import credential_name
from gateway.config.scalars import clip, shown

NANOSECONDS: Final = {
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}
DURATION_SCHEMA: Final = {"type": "string", "pattern": rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(NANOSECONDS)})$"}
"""As an editor checks it; the bounds of each field are checked by us."""
BYTES: Final = {
    "B": 1,
    "kB": 1_000,
    "KB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "TB": 1_000_000_000_000,
}
_DURATION: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,6}))?\s?(us|ms|s|m|h|d)", re.ASCII)
_SIZE: Final = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?\s?(B|kB|KB|MB|GB|TB)", re.ASCII)
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?", re.ASCII)


def fault(found: str, expected: str) -> PydanticCustomError:
    """What a validator raises: the message gets its place later."""
    return PydanticCustomError(
        "fault", "found {found}, expected {expected}", {"found": found, "expected": expected}
    )


def _scaled(whole: str, fraction: str | None, factor: int) -> int:
    fraction = fraction or ""
    return int(whole + fraction) * factor // int(10 ** len(fraction))


def duration_ns(text: object) -> int:
    """`200ms`, `1.5s`, `5m`, `1h`, `7d` → nanoseconds; raises a fault."""
    if isinstance(text, str) and (match := _DURATION.fullmatch(text)):
        return _scaled(match[1], match[2], NANOSECONDS[match[3]])
    raise fault(shown(text), "a duration with its unit, such as 200ms, 1s, 5m, 1h or 7d")


def duration_text(duration_ns: int) -> str:
    """Nanoseconds as a user writes them, in the largest unit that gives a whole number."""
    for unit in reversed(NANOSECONDS):
        if duration_ns and duration_ns % NANOSECONDS[unit] == 0:
            return f"{duration_ns // NANOSECONDS[unit]}{unit}"
    return "0s" if duration_ns == 0 else f"{duration_ns / 1000:g}us"


def size_bytes(text: object) -> int:
    """`500MB`, `2GB` (powers of ten) → bytes; raises a fault."""
    if isinstance(text, str) and (match := _SIZE.fullmatch(text)):
        return _scaled(match[1], match[2], BYTES[match[3]])
    raise fault(shown(text), "a size with its unit, such as 500kB, 200MB or 2GB")


class Duration(msgspec.Struct, frozen=True):
    """`Annotated[int, Duration()]`: text such as `200ms` → nanoseconds within bounds."""

    low: str = "0s"
    high: str = "3650d"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        low_ns, high_ns = duration_ns(self.low), duration_ns(self.high)

        def parse(value: object) -> int:
            found_ns = duration_ns(value)
            if not low_ns <= found_ns <= high_ns:
                raise fault(shown(value), f"a duration from {self.low} to {self.high}")
            return found_ns

        return core_schema.no_info_plain_validator_function(parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return dict(DURATION_SCHEMA)


class Size(msgspec.Struct, frozen=True):
    """`Annotated[int, Size()]`: text such as `2GB` → bytes within bounds."""

    low: str = "0B"
    high: str = "1000TB"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        low, high = size_bytes(self.low), size_bytes(self.high)

        def parse(value: object) -> int:
            found = size_bytes(value)
            if not low <= found <= high:
                raise fault(shown(value), f"a size from {self.low} to {self.high}")
            return found

        return core_schema.no_info_plain_validator_function(parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(BYTES)})$"}


class Percent(msgspec.Struct, frozen=True):
    """`Annotated[float, Percent()]`: text such as `30%` → 30.0."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: object) -> float:
            if isinstance(value, str) and (match := _PERCENT.fullmatch(value)) and float(match[1]) <= 100:
                return float(match[1])
            raise fault(shown(value), "a share from 0% to 100%, such as 30%")

        return core_schema.no_info_plain_validator_function(parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)? ?%$"}


class Deadband(msgspec.Struct, frozen=True):
    """A change that is not worth a message: in the tag's unit, or in percent of its range."""

    absolute: float = 0.0
    percent: float = 0.0

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: object) -> Deadband:
            if isinstance(value, Deadband):
                return value
            if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
                return cls(absolute=float(value))
            if isinstance(value, str) and (match := _PERCENT.fullmatch(value)) and float(match[1]) <= 100:
                return cls(percent=float(match[1]))
            raise fault(
                shown(value), "a number of 0 or more in the tag's unit, or a share of its range such as 2%"
            )

        return core_schema.no_info_plain_validator_function(parse)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        number = {"type": "number", "minimum": 0}
        return {"anyOf": [number, {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]+)? ?%$"}]}


class HostPort(msgspec.Struct, frozen=True):
    """A host (name, IPv4 or IPv6 without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def host_port(value: object, default_port: int | None) -> HostPort:
    """`10.0.0.5:502`, `plc.example`, `[fe80::1]:502` → host in lower case and port; raises a fault."""
    port_words = " and a port" if default_port is None else f" and, unless it is {default_port}, a port"
    expected = f"a host{port_words}, such as 10.0.0.5:502 or [2001:db8::5]:502"
    if not isinstance(value, str):
        raise fault(shown(value), expected)
    text, port = value, default_port
    if value.startswith("["):
        text, bracket, rest = value[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise fault(shown(value), expected)
        port_text = rest[1:] if rest else None
    elif value.count(":") > 1:
        raise fault(shown(value), "an IPv6 address in brackets, such as [2001:db8::5]:502")
    else:
        text, colon, after = value.partition(":")
        port_text = after if colon else None
    if port_text is not None:
        if not (
            port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65535
        ):
            raise fault(f"the port '{clip(port_text)}' in {shown(value)}", "a port from 1 to 65535")
        port = int(port_text)
    if port is None or not _is_host(text, bracketed=value.startswith("[")):
        raise fault(shown(value), expected)
    return HostPort(text.lower(), port)


def _is_host(text: str, *, bracketed: bool) -> bool:
    try:
        return ipaddress.ip_address(text).version == (6 if bracketed else 4)
    except ValueError:
        looks_like_ipv4 = all(part.isdigit() for part in text.split("."))
        return not bracketed and not looks_like_ipv4 and _HOST.fullmatch(text) is not None


class Host(msgspec.Struct, frozen=True):
    """`Annotated[HostPort, Host(default_port=502)]`. Port 0 (any free port) only where it listens."""

    default_port: int | None = None
    port_low: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: object) -> HostPort:
            address = value if isinstance(value, HostPort) else host_port(value, self.default_port)
            if address.port < self.port_low:
                raise fault(f"the port {address.port}", f"a port from {self.port_low} to 65535")
            return address

        return core_schema.no_info_plain_validator_function(parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string"}


def url(value: object, ports: dict[str, int]) -> tuple[str, HostPort]:
    """`scheme://host[:port]` → scheme and address; `ports` maps the schemes to their ports; raises "
    "a fault."""
    schemes = " or ".join(f"{scheme}://HOST:PORT" for scheme in ports)
    if not isinstance(value, str):
        raise fault(shown(value), schemes)
    try:
        parts: SplitResult = urlsplit(value)
    except ValueError:
        raise fault(shown(value), schemes) from None
    if "@" in parts.netloc:
        raise fault("a user name or password in the URL", "username: and password_file: beside it")
    if (
        parts.scheme not in ports
        or not parts.netloc
        or value.lower()
        not in (
            f"{parts.scheme}://{parts.netloc}".lower(),
            f"{parts.scheme}://{parts.netloc}/".lower(),
        )
    ):
        raise fault(shown(value), schemes)
    return parts.scheme, host_port(parts.netloc, ports[parts.scheme])


class FileRef(msgspec.Struct, frozen=True):
    """Marks `Annotated[str, FileRef()]`: a path relative to the file it is written in; it must be readable.

    `credential:NAME` is a secret that systemd hands over: `gateway.config.credentials`. A secret that
    everybody on the machine can read gets a warning.
    """

    secret: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def parse(value: object) -> str:
            if isinstance(value, str) and value and "\0" not in value:
                if credential_name(value) == "":
                    raise fault(shown(value), "credential:NAME, with letters, digits and . _ - in NAME")
                return value
            raise fault("a value that is no path" if self.secret else shown(value), "the path of a file")

        return core_schema.no_info_plain_validator_function(parse)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "minLength": 1}


NAME: Final = r"^[^\W_][\w.\-]*$"
"""Names of links, devices, tags …: they become parts of topics, so no `/`, `+`, `#` and no spaces.

How long is not said here: `{0,127}` of all the world's letters takes pydantic some 10 MB and 50 ms.
"""
NAME_SIZE_MAX: Final = 128
NAME_EXPECTED: Final = "a name: letters, digits, and after the first also . _ -"
_NAME: Final = re.compile(NAME[1:-1])


def is_name(value: object) -> bool:
    """Whether a key of the YAML can be a name."""
    return isinstance(value, str) and len(value) <= NAME_SIZE_MAX and _NAME.fullmatch(value) is not None


Text: TypeAlias = Annotated[str, StringConstraints(max_length=1024)]
