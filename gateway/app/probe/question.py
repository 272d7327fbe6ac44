"""What is asked by hand: an address and a type become a request, and its answer values."""

from __future__ import annotations

from typing import Final

import msgspec
from pydantic import ValidationError

from drivers.modbus.address import Address
from drivers.modbus.coding import TYPES, Coding
from drivers.modbus.decode import compile_block
from drivers.modbus.encode import encode
from drivers.modbus.field import DataType, Family, Field
from drivers.modbus.wire import pdu as p
from drivers.modbus.wire.pdu import FunctionCode
from gateway.config.scalars import choice
from gateway.core.errors import LocalProtocolError
from gateway.core.point import Value

_HARMLESS: Final = frozenset(
    {
        *p.Table,
        FunctionCode.READ_EXCEPTION_STATUS,
        FunctionCode.GET_COMM_EVENT_COUNTER,
        FunctionCode.GET_COMM_EVENT_LOG,
        FunctionCode.REPORT_SERVER_ID,
        FunctionCode.READ_FILE_RECORD,
        FunctionCode.READ_FIFO_QUEUE,
    }
)
_HARMLESS_DIAGNOSTICS: Final = frozenset({0, 2, *range(11, 19)})
_WORDS: Final = {"true": True, "on": True, "1": True, "false": False, "off": False, "0": False}


class Wrong(ValueError):
    """What was asked for makes no sense; for people."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Some items of a table, and what they are; `field` None: nobody said."""

    at: Address
    count: int  # registers or bits
    field: Field | None = None
    values: int = 1
    order: str = "ABCD"

    def request(self) -> bytes:
        """To read them. Raises `Wrong`."""
        try:
            return p.read(self.at.table, start=self.at.offset, count=self.count)
        except LocalProtocolError as error:
            raise Wrong(str(error)) from None

    def decoded(self, data: bytes) -> list[Value]:
        """The values in an answer; None for what is none."""
        assert self.field is not None
        size = self.field.count
        fields = [
            msgspec.structs.replace(self.field, start=self.at.offset + number * size)
            for number in range(self.values)
        ]
        decode = compile_block(fields, table=self.at.table, start=self.at.offset, count=self.count)
        return list(decode(data)[0])

    def write(self, text: str, *, is_multiple: bool) -> bytes:
        """The request that writes a value. Raises `Wrong`."""
        if not self.at.table.is_writable:
            raise Wrong(f"{self.at}: found a table that nothing writes, expected hr: or co:")
        field = self.field
        if field is None:
            kind = DataType.BOOL if self.at.table.has_bits else DataType.UINT16
            field = Field(type=kind, start=self.at.offset)
        if field.mask:
            raise Wrong("--write: found a part of a register, expected a whole one")
        try:
            data = encode(field, _value(text, field))
            if self.at.table.has_bits:
                if is_multiple or field.count > 1:
                    return p.write_multiple_coils(self.at.offset, p.unpack_bits(data, field.count))
                return p.write_single_coil(self.at.offset, on=bool(data[0]))
            if is_multiple or field.count > 1:
                return p.write_multiple_registers(self.at.offset, data)
            return p.write_single_register(self.at.offset, int.from_bytes(data, "big"))
        except (ValueError, LocalProtocolError) as error:
            raise Wrong(f"--write: {error}") from None


def span_of(at: Address, *, kind: str | None, order: str, count: int | None, length: int | None) -> Span:
    """`count`: values where there is a type, else registers or bits. Raises `Wrong`."""
    values = 1 if count is None else count
    if kind is None:
        return Span(at=at, count=values, order=order)
    if kind not in TYPES:
        raise Wrong(f"--type: found {kind!r}, expected {choice(kind, TYPES)}")
    coded: dict[str, object] = {"at": at, "type": kind, "order": order}
    if length is not None:
        coded["length"] = length
    try:
        coding = Coding.model_validate(coded)
    except ValidationError as error:
        raise Wrong(error.errors(include_url=False)[0]["msg"]) from None
    for problem in coding.problems():
        raise Wrong(f"--{problem.path[0]}: found {problem.found}, expected {problem.expected}")
    field = coding.field()
    return Span(at=at, count=field.count * values, field=field, values=values, order=order)


def raw_pdu(text: str) -> bytes:
    """`2b0e0100`, `2b 0e 01 00`. Raises `Wrong`."""
    try:
        data = bytes.fromhex(text.replace(":", " "))
    except ValueError:
        raise Wrong(f"--pdu: found {text!r}, expected hexadecimal digits such as 2b0e0100") from None
    try:
        request = p.raw(data[0] if data else 0, data[1:])
        p.response_head(request)
    except LocalProtocolError as error:
        raise Wrong(f"--pdu: {error}") from None
    return request


def changes_something(request: bytes) -> bool:
    """Whether a request may: everything that is not known to only read."""
    function = request[0]
    if function == FunctionCode.DIAGNOSTICS:
        return request[1] << 8 | request[2] not in _HARMLESS_DIAGNOSTICS
    if function == FunctionCode.ENCAPSULATED_INTERFACE_TRANSPORT:
        return request[1] != p.DEVICE_IDENTIFICATION
    return function not in _HARMLESS


def _value(text: str, field: Field) -> Value:
    family = field.type.family
    if family is Family.BOOL:
        if text.lower() not in _WORDS:
            raise ValueError(f"found {text!r}, expected on or off")
        return _WORDS[text.lower()]
    if family in {Family.STRING, Family.TIME}:
        return text
    for read in (lambda: int(text, 0), lambda: int(text), lambda: float(text)):
        try:
            return read()
        except ValueError:
            continue
    raise ValueError(f"found {text!r}, expected a number")
