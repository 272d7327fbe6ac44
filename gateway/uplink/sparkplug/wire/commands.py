"""What hosts say to a node: NCMD and DCMD, which have no id, no lifetime and no answer, and STATE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from gateway.core.point import Point, Value, ValueType
from gateway.uplink.sparkplug.wire.columns import DATATYPES
from gateway.uplink.sparkplug.wire.payload import (
    DataSet,
    DataType,
    Metric,
    MetricValue,
    Template,
    decode_payload,
    value_of,
)
from gateway.uplink.sparkplug.wire.protobuf import Malformed

REBIRTH: Final = "Node Control/Rebirth"
METRICS_MAX: Final = 64  # in one command; ours
FIELDS_MAX: Final = 40 * METRICS_MAX  # in one command, of 8 where all is said; ours
PAYLOAD_BYTES_MAX: Final = 65_536  # of a command, and of a STATE; ours
REBIRTH_POINT: Final = Point(device="", tag=REBIRTH, type=ValueType.BOOL)


class MetricCommand(msgspec.Struct, frozen=True):
    """One metric of a command: set this point. `issued_ms`: the host's clock, None where it does not say."""

    device: str  # "": the node itself
    tag: str
    value: Value
    issued_ms: int | None


class MetricRefused(msgspec.Struct, frozen=True):
    """One metric, or a whole command, that asks for nothing that could be done."""

    metric: str  # its name or alias; "" where the payload is none
    reason: str


class HostState(msgspec.Struct, frozen=True):
    """STATE of a host application (tck-id-payloads-state-birth-payload)."""

    online: bool
    timestamp_ms: int


_MS: Final = msgspec.Meta(ge=0, lt=1 << 53)


class _State(msgspec.Struct):
    online: bool
    timestamp: Annotated[int, _MS] | Annotated[float, _MS]


def read_commands(
    payload: bytes, find: Callable[[Metric], Point | str]
) -> list[MetricCommand | MetricRefused]:
    """Every metric of NCMD or DCMD, in order. `find(metric)`: the point it means, or what is wrong.

    The value may have any type that the point can hold without loss: whole numbers of any width, also for a
    floating-point one, and text of any kind. Never raises.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        return [MetricRefused("", f"found {len(payload)} bytes, expected at most {PAYLOAD_BYTES_MAX}")]
    try:
        message = decode_payload(payload, fields_max=FIELDS_MAX)
    except Malformed as fault:
        return [MetricRefused("", str(fault))]
    if not 0 < len(message.metrics) <= METRICS_MAX:
        found = f"found {len(message.metrics)} metrics, expected 1 to {METRICS_MAX} in a command"
        return [MetricRefused("", found)]
    return [_command(metric, find(metric), message.timestamp) for metric in message.metrics]


def read_state(payload: bytes) -> HostState | str:
    """`{"online": true, "timestamp": ms}`; else what is wrong. What else stands in it is not looked at.

    A timestamp with a fraction, which "a numeric value" allows, is rounded down.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        return f"found {len(payload)} bytes, expected at most {PAYLOAD_BYTES_MAX}"
    try:
        state = msgspec.json.decode(payload, type=_State)
    except msgspec.DecodeError as error:
        return f'found {payload[:40]!r} ({error}), expected {{"online": …, "timestamp": …}} as JSON'
    except RecursionError:
        return 'found a deeply nested payload, expected {"online": …, "timestamp": …} as JSON'
    return HostState(state.online, int(state.timestamp))


def _command(metric: Metric, point: Point | str, sent_ms: int | None) -> MetricCommand | MetricRefused:
    name = metric.name if metric.name is not None else str(metric.alias)
    if isinstance(point, str):
        return MetricRefused(name, point)
    try:
        said = value_of(metric, DATATYPES[point.type])
    except Malformed as fault:
        return MetricRefused(name, str(fault))
    value = _fitting(point.type, said)
    if value is None:
        shown = "no value" if said is None else type(said).__name__
        kind = metric.datatype if metric.datatype is not None else DATATYPES[point.type]
        found = f"found {shown} ({DataType(kind).name}), expected {point.type.value}"
        return MetricRefused(name, found)
    issued_ms = metric.timestamp if metric.timestamp is not None else sent_ms
    return MetricCommand(point.device, point.tag, value, issued_ms)


def _fitting(kind: ValueType, said: MetricValue) -> Value:
    """The value as the point holds it; None where it cannot."""
    if said is None or isinstance(said, DataSet | Template):
        return None
    if kind is ValueType.FLOAT and isinstance(said, int) and not isinstance(said, bool):
        return float(said) if abs(said) <= 1 << 53 else None
    is_of_kind = isinstance(said, _PYTHON[kind]) and isinstance(said, bool) == (kind is ValueType.BOOL)
    return said if is_of_kind else None


_PYTHON: Final[dict[ValueType, type]] = {
    ValueType.BOOL: bool,
    ValueType.INT: int,
    ValueType.FLOAT: float,
    ValueType.STRING: str,
    ValueType.BYTES: bytes,
}
