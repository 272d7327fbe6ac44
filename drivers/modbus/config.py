"""What users write for Modbus: links, devices and tags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from drivers.modbus.address import Address, parse
from drivers.modbus.field import ORDERS, SHAPES, STRING_REGISTERS_MAX, DataType, Scale
from drivers.modbus.wire.client import IN_FLIGHT_MAX
from drivers.modbus.wire.pdu import ADDRESS_COUNT, Table
from gateway.config.models import Device, Link, Model, Tag, Write, defaults
from gateway.config.scalars import one_of, shown
from gateway.config.values import Duration, Host, HostPort, duration_text, fault
from gateway.core.errors import Problem
from gateway.core.point import ValueType

PORT: Final = 502  # MODBUS Messaging on TCP/IP Implementation Guide V1.0b §4.3.1
STRING_LENGTH_MAX: Final = 2 * STRING_REGISTERS_MAX  # characters
_DATA_TYPES: Final = {kind.value: kind for kind in DataType}
TYPES: Final = tuple(_DATA_TYPES)
TypeName = Literal[
    "bool", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64", "bcd16",
    "bcd32", "string",
]  # fmt: skip


class Span(NamedTuple):
    """Addresses of one table, both ends included."""

    table: Table
    first: int
    last: int

    def __str__(self) -> str:
        return f"{Address(self.table, self.first)}-{self.last}"


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else parse(value)


def _order(value: object) -> str:
    if isinstance(value, str) and value in ORDERS:
        return value
    if isinstance(value, dict) and value and set(value) <= {"word", "byte"}:
        word, byte = value.get("word", "big"), value.get("byte", "big")
        if word in {"big", "little"} and byte in {"big", "little"}:
            return {("big", "big"): "ABCD", ("little", "big"): "CDAB", ("big", "little"): "BADC"}.get(
                (word, byte), "DCBA"
            )
    raise fault(shown(value), f"{one_of(ORDERS)}, or {{word: big|little, byte: big|little}}")


def _scale(value: object) -> Scale:
    if isinstance(value, Scale):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value:
        return Scale.from_factor(value)
    if isinstance(value, dict) and set(value) == {"raw", "eu"}:
        return Scale.from_points(_pair(value["raw"], "raw"), _pair(value["eu"], "eu"))
    raise fault(shown(value), "a factor that is not 0, or {raw: [low, high], eu: [low, high]}")


def _pair(value: object, name: str) -> tuple[float, float]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return numbers[0], numbers[1]
    raise fault(f"{name} of scale is {shown(value)}", f"{name}: [low, high]")


def _span(value: object) -> Span:
    expected = "a range such as hr:100-110 or 40101-40111, or one address"
    if isinstance(value, Span):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise fault(shown(value), expected)
    first_text, dash, last_text = value.partition("-")
    first = parse(first_text)
    if not dash:
        return Span(first.table, first.offset, first.offset)
    prefix = re.match(r"\s*([a-z]+:)", first_text)
    last = parse(last_text if not prefix or ":" in last_text else prefix[1] + last_text.strip())
    if last.table is not first.table or last.offset < first.offset:
        raise fault(shown(value), f"{expected}, from low to high in one table")
    return Span(first.table, first.offset, last.offset)


def _number(value: object) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return value
    raise fault(shown(value), "a number")


def _transport(value: object) -> object:
    if value in {"rtu", "ascii", "udp", "rtu_over_tcp", "tls"}:
        raise fault(f"transport '{value}', which is not there yet", "tcp")
    return value


_TEXT_OR_INT: Final = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
_PAIR_SCHEMA: Final = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
_SCALE_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"type": "number", "not": {"const": 0}},
        {
            "type": "object",
            "properties": {"raw": _PAIR_SCHEMA, "eu": _PAIR_SCHEMA},
            "required": ["raw", "eu"],
            "additionalProperties": False,
        },
    ]
}
_END: Final = {"enum": ["big", "little"]}
_ORDER_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [
        {"enum": list(ORDERS)},
        {"type": "object", "properties": {"word": _END, "byte": _END}, "additionalProperties": False},
    ]
}
At = Annotated[Address, PlainValidator(_address), WithJsonSchema(_TEXT_OR_INT)]
OrderName = Annotated[str, PlainValidator(_order), WithJsonSchema(_ORDER_SCHEMA)]
ScaleField = Annotated[Scale, PlainValidator(_scale), WithJsonSchema(_SCALE_SCHEMA)]
SpanField = Annotated[Span, PlainValidator(_span), WithJsonSchema(_TEXT_OR_INT)]


class Reconnect(Model):
    """How long to wait before the next attempt to connect: growing, with jitter."""

    min_ns: Annotated[int, Duration("10ms", "1h")] = Field(
        "1s", validate_default=True, alias="min", description="First wait."
    )
    max_ns: Annotated[int, Duration("10ms", "1d")] = Field(
        "1m", validate_default=True, alias="max", description="Longest wait."
    )


class ModbusLink(Link):
    """One connection to a Modbus server or to a gateway with several units behind it."""

    driver: Literal["modbus"] = Field(description="The protocol of the link.")
    transport: Annotated[Literal["tcp"], BeforeValidator(_transport)] = Field(
        "tcp", description="What the frames travel on."
    )
    host: Annotated[HostPort, Host(default_port=PORT)] = Field(
        description=f"Address and port of the server; without a port {PORT}. IPv6 in brackets."
    )
    timeout_ns: Annotated[int, Duration("10ms", "60s")] = Field(
        "1s", validate_default=True, alias="timeout", description="Longest wait for an answer."
    )
    attempts: int = Field(3, ge=1, le=10, description="Attempts of one read before its values are bad.")
    max_in_flight: int = Field(
        1,
        ge=1,
        le=IN_FLIGHT_MAX,
        description="Requests sent before the first answer, up to 16; 1: one after the other.",
    )
    gap_ns: Annotated[int, Duration("0s", "10s")] = Field(
        "0s", validate_default=True, alias="gap", description="Pause between an answer and the next request."
    )
    max_hole: int = Field(
        8,
        ge=0,
        le=124,
        description="Unused registers or bits between two values that one request may read in vain; 0: none.",
    )
    max_registers: int = Field(125, ge=1, le=125, description="Most registers in one read.")
    max_bits: int = Field(2000, ge=1, le=2000, description="Most coils or discrete inputs in one read.")
    reconnect: Reconnect = Field(
        default_factory=defaults(Reconnect), description="Waits between attempts to connect."
    )

    def wire(self) -> str | None:
        return f"tcp {self.host}"

    def problems(self) -> Iterable[Problem]:
        if self.reconnect.min_ns > self.reconnect.max_ns:
            found = (
                f"min {duration_text(self.reconnect.min_ns)} above max {duration_text(self.reconnect.max_ns)}"
            )
            yield Problem(("reconnect",), found, "min at or below max")


class ModbusDevice(Device):
    """One unit behind a link."""

    unit: int = Field(ge=0, le=255, description="Unit identifier, 0 to 255; many TCP servers take 1 or 255.")
    max_registers: int | None = Field(
        None, ge=1, le=125, description="Most registers in one read. Default: the link's."
    )
    max_bits: int | None = Field(
        None, ge=1, le=2000, description="Most bits in one read. Default: the link's."
    )
    max_hole: int | None = Field(
        None, ge=0, le=124, description="Unused items one request may read. Default: the link's."
    )
    forbid: list[SpanField] = Field(
        default_factory=list,
        description='Addresses that are never read, not even between others: `["hr:100-110"]`.',
    )
    write_function: Literal["auto", "single", "multiple"] = Field(
        "auto",
        description="auto: FC 5 and 6 for one item, 15 and 16 for more; single: only 5 and 6; "
        "multiple: only 15 and 16.",
    )
    bit_write: Literal["refuse", "mask", "rmw"] = Field(
        "refuse",
        description="Writing a bit of a register: refuse, mask (FC 22), or rmw (read, change, write: "
        "others may interfere).",
    )

    def station(self) -> str:
        return str(self.unit)


class ModbusWrite(Write):
    """How a Modbus tag is written."""

    function: Literal["auto", "single", "multiple"] | None = Field(
        None, description="Function codes for this tag. Default: the device's write_function."
    )


class ModbusTag(Tag):
    """One value in a Modbus device."""

    at: At = Field(
        description="Where it is: 40101 or 400101 (Modicon, from 1), or hr:100, ir:, co:, di: (from 0)."
    )
    type: TypeName | None = Field(
        None, description="How it is coded. Default: bool for coils, discrete inputs and with `bit`."
    )
    length: int | None = Field(None, ge=1, le=STRING_LENGTH_MAX, description="Characters of a string.")
    bit: int | None = Field(None, ge=0, le=15, description="Bit of a register; 0 is the least significant.")
    order: OrderName = Field(
        "ABCD",
        description="Order of bytes in values of 32 bits: ABCD, CDAB, BADC, DCBA; for any size "
        "{word: little, byte: big}.",
    )
    scale: ScaleField | None = Field(
        None, description="Raw to engineering value: a factor, or {raw: [low, high], eu: [low, high]}."
    )
    invalid: list[Annotated[int | float, PlainValidator(_number), WithJsonSchema({"type": "number"})]] = (
        Field(default_factory=list, description="Raw values by which the device says: no value.")
    )
    atomic: str | None = Field(
        None, min_length=1, max_length=64, description="Tags with the same name here are read in one request."
    )
    write: ModbusWrite | None = Field(
        None, description="Makes the tag writable; without it the tag is read-only."
    )

    @property
    def type_name(self) -> str:
        """`type`, or bool where the address or `bit` leave no choice."""
        return self.type or "bool"

    @property
    def data_type(self) -> DataType:
        """`type_name` in the codec's words."""
        return _DATA_TYPES[self.type_name]

    @property
    def count(self) -> int:
        """Registers that the value takes, or 1 for a coil or discrete input."""
        if self.data_type is DataType.STRING:
            return ((self.length or 1) + 1) // 2
        return SHAPES[self.data_type].registers

    def value_type(self) -> ValueType:
        if self.data_type is DataType.BOOL:
            return ValueType.BOOL
        if self.data_type is DataType.STRING:
            return ValueType.STRING
        is_whole = not self.data_type.is_float and (self.scale is None or self.scale.is_whole)
        return ValueType.INT if is_whole else ValueType.FLOAT

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        yield from self._type_problems()
        if self.at.offset + self.count > ADDRESS_COUNT:
            yield Problem(
                ("at",), f"{self.at} with {self.count} registers", f"an end at or below {ADDRESS_COUNT - 1}"
            )
        if self.write is not None:
            yield from self._write_problems(self.write)
        is_number = self.data_type not in {DataType.BOOL, DataType.STRING}
        if is_number:
            yield from self._invalid_problems()
            return
        for key in ("scale", "invalid"):
            if getattr(self, key):
                yield Problem((key,), f"{key} of a {self.type_name}", f"no {key}, as only numbers have one")

    def _type_problems(self) -> Iterable[Problem]:
        if self.at.table.has_bits:
            if self.bit is not None:
                yield Problem(("bit",), f"bit of {self.at}", "no bit, as it is one bit already")
            if self.type_name != "bool":
                yield Problem(
                    ("type",), f"type {self.type_name} at {self.at}", "bool, or a register (hr:, ir:)"
                )
        elif self.type is None and self.bit is None:
            yield Problem(("type",), "no 'type'", f"type: {one_of(TYPES)}")
        elif self.type == "bool" and self.bit is None:
            yield Problem(("type",), f"bool in the register {self.at}", "bit: 0 to 15 beside it")
        elif self.bit is not None and self.type_name != "bool":
            yield Problem(("bit",), f"bit with type {self.type_name}", "type bool, or no bit")
        if self.type_name == "string" and self.length is None:
            yield Problem(("length",), "no 'length'", "length: the number of characters")
        if self.length is not None and self.type_name != "string":
            yield Problem(("length",), f"length of a {self.type_name}", "type string, or no length")

    def _write_problems(self, write: ModbusWrite) -> Iterable[Problem]:
        if not self.at.table.is_writable:
            kind = "an input register" if self.at.table is Table.INPUT_REGISTERS else "a discrete input"
            yield Problem(("write",), f"write for {kind}", "a coil or holding register, or no write")
        if write.function == "single" and self.count > 1:
            yield Problem(("write", "function"), f"single for {self.count} registers", "multiple or auto")
        shape = SHAPES.get(self.data_type)
        if shape is None or shape.low == shape.high or self.data_type is DataType.BOOL:
            return
        for key, value in (("min", write.min), ("max", write.max)):
            if value is None:
                continue
            exact = Fraction(repr(value))
            raw = exact if self.scale is None else self.scale.inverse(exact)
            if not shape.low <= round(raw) <= shape.high:
                found = f"{key} {value:g}, which is {round(raw)} in the register"
                yield Problem(
                    ("write", key), found, f"{shape.low} to {shape.high}, as {self.type_name} holds"
                )

    def _invalid_problems(self) -> Iterable[Problem]:
        _, registers, low, _ = SHAPES[self.data_type]
        high = (1 << 16 * registers) - 1  # integers also as bits: 0x8000
        for position, value in enumerate(self.invalid):
            if not self.data_type.is_float and not (isinstance(value, int) and low <= value <= high):
                yield Problem(("invalid", position), shown(value), f"a whole number from {low} to {high:#x}")
