"""What users write of serial lines: `port: /dev/serial/by-id/…`, `serial: 19200-8E1`, `rs485: {…}`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field, PlainValidator, WithJsonSchema

from gateway.config.model import Model
from gateway.config.scalars import shown
from gateway.config.values import Duration, duration_text, fault
from gateway.core.errors import Problem
from gateway.core.line import SerialLine

BAUD_MIN: Final = 50
BAUD_MAX: Final = 4_000_000  # the fastest that Linux has a name for, termbits.h
LINE_EXPECTED: Final = (
    "baud rate, data bits, parity (N, E or O) and stop bits as the devices are set, such as 19200-8E1"
)
PORT_EXPECTED: Final = "the path of a serial port, best /dev/serial/by-id/…, which stays when it is replugged"
_LINE: Final = re.compile(r"([0-9]{1,8})-([5-8])([NEOMS])([12])", re.ASCII)


def serial_line(value: object) -> SerialLine:
    """`19200-8E1`; raises a fault."""
    if isinstance(value, SerialLine):
        return value
    match = _LINE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise fault(shown(value), LINE_EXPECTED)
    baud = int(match[1])
    if not BAUD_MIN <= baud <= BAUD_MAX:
        raise fault(f"{baud} baud in {shown(value)}", f"a baud rate from {BAUD_MIN} to {BAUD_MAX}")
    return SerialLine(baud, int(match[2]), match[3], int(match[4]))


def _port(value: object) -> str:
    if isinstance(value, str) and value.startswith("/") and "\0" not in value:
        return value
    raise fault(shown(value), PORT_EXPECTED)


def wire_of(port: str) -> str:
    """One name for one port. A symbolic link is followed where it exists: on another machine than the one
    with the port it does not, and two names of one port are found out only when the second is opened."""
    return f"serial {os.path.realpath(port)}"


Line: TypeAlias = Annotated[
    SerialLine,
    PlainValidator(serial_line),
    WithJsonSchema({"type": "string", "pattern": f"^{_LINE.pattern}$"}),
]
Port: TypeAlias = Annotated[str, PlainValidator(_port), WithJsonSchema({"type": "string", "pattern": "^/"})]


class Rs485Mode(Model):
    """Direction control of an RS-485 transceiver by the kernel, for ports whose driver has it."""

    rts_on_send: Literal["high", "low"] = Field("high", description="Level of RTS while sending.")
    delay_before_ns: Annotated[int, Duration("0s", "100ms")] = Field(
        "0s", validate_default=True, alias="delay_before",
        description="From switching to sending until the first bit; whole milliseconds.",
    )  # fmt: skip
    delay_after_ns: Annotated[int, Duration("0s", "100ms")] = Field(
        "0s", validate_default=True, alias="delay_after",
        description="From the last bit until switching back; whole milliseconds.",
    )  # fmt: skip
    receive_during_send: bool = Field(
        False, description="Keep the receiver on while sending; what was sent comes back: set echo, too."
    )
    terminate: bool = Field(False, description="Switch on the port's own termination resistor.")

    def problems(self) -> Iterable[Problem]:
        for key in ("delay_before", "delay_after"):
            delay_ns = getattr(self, f"{key}_ns")
            if delay_ns % 1_000_000:
                yield Problem((key,), duration_text(delay_ns), "whole milliseconds, as the kernel takes them")
