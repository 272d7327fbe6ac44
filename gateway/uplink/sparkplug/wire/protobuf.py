"""The protobuf wire format (varints, tags, lengths) and messages described by a table of fields."""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from gateway.core.errors import LocalProtocolError, RemoteProtocolError

DEPTH_MAX: Final = 16  # messages inside each other: templates of templates, property sets of property sets
FIELDS_MAX: Final = 200_000  # in one payload, those of messages inside it too; ours, protobuf has no limit
_VARINT_BYTES_MAX: Final = 10  # 64 bits in groups of seven
_UINT32: Final = 0xFFFFFFFF
_UINT64: Final = 0xFFFFFFFFFFFFFFFF
_FLOAT: Final = struct.Struct("<f")
_DOUBLE: Final = struct.Struct("<d")


class Malformed(RemoteProtocolError):
    """Bytes that are no payload: where, what was found, what was expected."""

    def __init__(self, where: str, *, found: str, expected: str) -> None:
        super().__init__(f"{where}: found {found}, expected {expected}")


class Wire(enum.IntEnum):
    """Wire types; the groups of old (3, 4) are refused."""

    VARINT = 0
    I64 = 1
    LEN = 2
    I32 = 5


class Kind(enum.Enum):
    """Types of fields that Sparkplug uses."""

    UINT32 = Wire.VARINT, "uint32"
    UINT64 = Wire.VARINT, "uint64"
    BOOL = Wire.VARINT, "bool"
    FLOAT = Wire.I32, "float"
    DOUBLE = Wire.I64, "double"
    STRING = Wire.LEN, "string"
    BYTES = Wire.LEN, "bytes"
    MESSAGE = Wire.LEN, "message"

    @property
    def wire(self) -> Wire:
        """How it is framed."""
        return self.value[0]


class Field(NamedTuple):
    """One field of a message: the attribute that holds it. `is_oneof`: setting it clears the others."""

    name: str
    kind: Kind
    message: type[msgspec.Struct] | None = None
    is_repeated: bool = False
    is_oneof: bool = False


Schema = Mapping[type[msgspec.Struct], Mapping[int, Field]]
MessageT = TypeVar("MessageT", bound=msgspec.Struct)


def varint(number: int) -> bytes:
    """`number`, 0 to 2^64 - 1, as a varint."""
    if number < 0x80:
        return _BYTES[number]
    if number < 0x4000:
        return _BYTES[number & 0x7F | 0x80] + _BYTES[number >> 7]
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tag(number: int, wire: Wire) -> bytes:
    """Field number and wire type, in front of each value."""
    return varint(number << 3 | wire)


def delimited(number: int, content: bytes) -> bytes:
    """A field that carries its length."""
    return tag(number, Wire.LEN) + varint(len(content)) + content


def encode_message(message: msgspec.Struct, schema: Schema) -> bytes:
    """The fields that are set (not None, not empty), by number. Raises `LocalProtocolError` out of range."""
    pieces: list[bytes] = []
    for number, field in schema[type(message)].items():
        held = getattr(message, field.name)
        values = held if field.is_repeated else () if held is None else (held,)
        pieces += [tag(number, field.kind.wire) + _encoded(field, value, schema) for value in values]
    return b"".join(pieces)


def decode_message(kind: type[MessageT], data: bytes, schema: Schema, *, fields_max: int) -> MessageT:
    """The message; unknown fields are skipped. Raises `Malformed`, whatever the bytes."""
    return _Decoder(schema, fields_max).message(kind, data, depth=1)


def _encoded(field: Field, value: Any, schema: Schema) -> bytes:
    kind = field.kind
    if kind is Kind.UINT32 or kind is Kind.UINT64:
        limit = _UINT32 if kind is Kind.UINT32 else _UINT64
        if not 0 <= value <= limit:
            raise LocalProtocolError(f"{field.name}: found {value}, expected 0 to {limit}")
        return varint(value)
    if kind is Kind.BOOL:
        return b"\x01" if value else b"\x00"
    if kind is Kind.FLOAT:
        return _FLOAT.pack(value)
    if kind is Kind.DOUBLE:
        return _DOUBLE.pack(value)
    if kind is Kind.MESSAGE:
        content = encode_message(value, schema)
    else:
        content = value.encode() if kind is Kind.STRING else bytes(value)
    return varint(len(content)) + content


class _Decoder:
    """One payload: counts what it reads."""

    def __init__(self, schema: Schema, fields_max: int) -> None:
        self._schema = schema
        self._fields_max = fields_max
        self._fields = 0

    def message(self, kind: type[MessageT], data: bytes, *, depth: int) -> MessageT:
        name = kind.__name__
        if depth > DEPTH_MAX:
            raise Malformed(name, found=f"messages {depth} deep", expected=f"at most {DEPTH_MAX}")
        made = kind()
        known = self._schema[kind]
        chosen = ""  # of a oneof: the last one counts
        for number, wire, raw in _fields(name, data):
            self._count(name)
            field = known.get(number)
            if field is None:
                continue
            if wire is not field.kind.wire:
                where = f"{name}.{field.name}"
                if field.is_repeated and field.kind is Kind.UINT32 and isinstance(raw, bytes):
                    for packed in _packed(where, raw):
                        self._count(name)
                        getattr(made, field.name).append(packed & _UINT32)
                    continue
                raise Malformed(where, found=f"wire type {wire.name}", expected=field.kind.wire.name)
            value = self._value(name, field, raw, depth=depth)
            if field.is_repeated:
                getattr(made, field.name).append(value)
                continue
            if field.is_oneof:
                if chosen:
                    setattr(made, chosen, None)
                chosen = field.name
            setattr(made, field.name, value)
        return made

    def _count(self, name: str) -> None:
        self._fields += 1
        if self._fields > self._fields_max:
            raise Malformed(name, found=f"more than {self._fields_max} fields in a payload", expected="fewer")

    def _value(self, name: str, field: Field, raw: int | bytes, *, depth: int) -> object:
        kind = field.kind
        if isinstance(raw, int):
            return bool(raw) if kind is Kind.BOOL else raw & _UINT32 if kind is Kind.UINT32 else raw
        if kind is Kind.FLOAT:
            return _FLOAT.unpack(raw)[0]
        if kind is Kind.DOUBLE:
            return _DOUBLE.unpack(raw)[0]
        if kind is Kind.STRING:
            try:
                return raw.decode()
            except UnicodeDecodeError as error:
                found = f"ill-formed UTF-8 ({error.reason})"
                raise Malformed(f"{name}.{field.name}", found=found, expected="text") from None
        if field.message is not None:
            return self.message(field.message, raw, depth=depth + 1)
        return raw


def _fields(where: str, data: bytes) -> Iterator[tuple[int, Wire, int | bytes]]:
    """(number, wire type, varint or bytes) of each field."""
    at, end = 0, len(data)
    while at < end:
        head, at = _read_varint(where, data, at)
        number, kind = head >> 3, head & 7
        if not 0 < number < 1 << 29:
            raise Malformed(where, found=f"field number {number}", expected="1 to 2^29 - 1")
        if kind == Wire.VARINT:
            value, at = _read_varint(where, data, at)
            yield number, Wire.VARINT, value
            continue
        if kind == Wire.LEN:
            size, at = _read_varint(where, data, at)
            wire = Wire.LEN
        elif kind == Wire.I64:
            size, wire = 8, Wire.I64
        elif kind == Wire.I32:
            size, wire = 4, Wire.I32
        else:
            raise Malformed(where, found=f"wire type {kind}", expected="0, 1, 2 or 5")
        if size > end - at:
            raise Malformed(where, found=f"{end - at} bytes of field {number}", expected=f"{size}")
        yield number, wire, data[at : at + size]
        at += size


def _packed(where: str, data: bytes) -> Iterator[int]:
    """A repeated number written as one field: a parser must take both forms."""
    at = 0
    while at < len(data):
        number, at = _read_varint(where, data, at)
        yield number


def _read_varint(where: str, data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    for position in range(at, min(len(data), at + _VARINT_BYTES_MAX)):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & _UINT64, position + 1
        shift += 7
    found = "a number of more than 10 bytes" if len(data) - at >= _VARINT_BYTES_MAX else "half a number"
    raise Malformed(where, found=found, expected="a varint of 1 to 10 bytes")


_BYTES: Final = tuple(bytes((number,)) for number in range(256))
