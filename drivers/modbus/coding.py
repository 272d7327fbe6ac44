"""What users write of a value in Modbus: where it is, how it is coded and scaled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from drivers.modbus.address import Address, parse
from drivers.modbus.field import (
    BITS_MAX,
    NOT_IMPLEMENTED,
    ORDERS,
    SHAPES,
    STRING_REGISTERS_MAX,
    Beyond,
    Charset,
    DataType,
    Family,
    Half,
    Padding,
)
from drivers.modbus.field import Field as ValueField
from drivers.modbus.scale import AnyScale, Scale, ScalePower, ScaleTable
from drivers.modbus.wire.pdu import ADDRESS_COUNT, READ_REGISTERS_MAX
from gateway.config.model import Model
from gateway.config.scalars import one_of, shown
from gateway.config.values import fault
from gateway.core.errors import Problem
from gateway.core.point import ValueType

STRING_LENGTH_MAX: Final = 2 * STRING_REGISTERS_MAX  # characters
_DATA_TYPES: Final = {kind.value: kind for kind in DataType}
TYPES: Final = tuple(_DATA_TYPES)
TypeName = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int24", "uint24", "int32", "uint32", "int48", "uint48",
    "int64", "uint64", "float16", "float32", "float64", "bcd16", "bcd32", "bcd64", "mod10k32", "mod10k48",
    "mod10k64", "bits", "unix32", "ti081", "ymdhms", "string",
]  # fmt: skip


def _address(value: object) -> Address:
    return value if isinstance(value, Address) else parse(value)


def _order(value: object) -> str:
    if isinstance(value, str) and value in ORDERS:
        return value
    if isinstance(value, dict) and value and set(value) <= {"word", "byte"}:
        word, byte = value.get("word", "big"), value.get("byte", "big")
        if word in ("big", "little") and byte in ("big", "little"):
            return {("big", "big"): "ABCD", ("little", "big"): "CDAB", ("big", "little"): "BADC"}.get(
                (word, byte), "DCBA"
            )
    raise fault(shown(value), f"{one_of(ORDERS)}, or {{word: big|little, byte: big|little}}")


def _scale(value: object) -> Scale | ScaleTable | Address:
    if isinstance(value, Scale | ScaleTable | Address):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and value:
        return Scale.from_factor(value)
    if isinstance(value, dict):
        keys = set(value)
        if keys == {"raw", "eu"}:
            return Scale.from_points(_pair(value["raw"], "raw"), _pair(value["eu"], "eu"))
        if keys == {"factor", "offset"}:
            return Scale.from_factor(_number(value["factor"]), _number(value["offset"]))
        if keys == {"table"} and isinstance(value["table"], list):
            return ScaleTable.from_points([_pair(point, "each point") for point in value["table"]])
        if keys == {"power"}:
            return parse(value["power"])
    raise fault(
        shown(value),
        "a factor that is not 0, {factor: 0.1, offset: -40}, {raw: [low, high], eu: [low, high]}, "
        "{table: [[raw, eu], …]} or {power: address of a register with the power of ten}",
    )


def _bits(value: object) -> tuple[int, int]:
    if isinstance(value, tuple):
        return value
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", text) if isinstance(text, str) else None
    if match is None or int(match[1]) > int(match[2] or match[1]):
        raise fault(shown(value), "bits such as 4-7, the lowest first; 0 is the least significant")
    return int(match[1]), int(match[2] or match[1])


SUNSPEC: Final = "sunspec"


def _invalid(value: object) -> list[object]:
    if value == SUNSPEC:
        return [SUNSPEC]
    if isinstance(value, list):
        return value
    raise fault(shown(value), "a list of raw values such as [0x8000], or sunspec")


def _sentinel(value: object) -> int | float | str:
    return SUNSPEC if value == SUNSPEC else _number(value)


def _sentinels(kind: DataType) -> tuple[float, ...]:
    """What SunSpec devices show of a point that they do not have; of floats that is NaN, bad anyway."""
    return (NOT_IMPLEMENTED[kind],) if kind in NOT_IMPLEMENTED else ()


def _pair(value: object, name: str) -> tuple[float, float]:
    numbers = value if isinstance(value, list) else []
    if len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return numbers[0], numbers[1]
    raise fault(f"{name} of scale is {shown(value)}", f"{name}: [low, high]")


def _number(value: object) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return value
    raise fault(shown(value), "a number")


TEXT_OR_INT: Final = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
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
        {
            "type": "object",
            "properties": {"factor": {"type": "number"}, "offset": {"type": "number"}},
            "required": ["factor", "offset"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"table": {"type": "array", "items": _PAIR_SCHEMA, "minItems": 2}},
            "required": ["table"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"power": TEXT_OR_INT},
            "required": ["power"],
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
At = Annotated[Address, PlainValidator(_address), WithJsonSchema(TEXT_OR_INT)]
_BITS_SCHEMA: Final = {"anyOf": [{"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}, {"type": "integer"}]}
OrderName = Annotated[str, PlainValidator(_order), WithJsonSchema(_ORDER_SCHEMA)]
ScaleField = Annotated[Scale | ScaleTable | Address, PlainValidator(_scale), WithJsonSchema(_SCALE_SCHEMA)]
_SENTINEL_SCHEMA: Final = {"anyOf": [{"type": "number"}, {"const": SUNSPEC}]}
Invalid = Annotated[
    tuple[Annotated[int | float | str, PlainValidator(_sentinel), WithJsonSchema(_SENTINEL_SCHEMA)], ...],
    BeforeValidator(_invalid),
    Field(strict=False),
    WithJsonSchema({"anyOf": [{"const": SUNSPEC}, {"type": "array", "items": _SENTINEL_SCHEMA}]}),
]
BitsField = Annotated[tuple[int, int], PlainValidator(_bits), WithJsonSchema(_BITS_SCHEMA)]


class Coding(Model):
    """Where a value is in a Modbus table, and how it is coded there."""

    at: At = Field(
        description="Where it is: 40101 or 400101 (Modicon, from 1), or hr:100, ir:, co:, di: (from 0)."
    )
    type: TypeName | None = Field(
        None, description="How it is coded. Default: bool for coils, discrete inputs and with `bit`."
    )
    length: int | None = Field(
        None, ge=1, le=STRING_LENGTH_MAX, description="Characters of a string, or how many bits of type bits."
    )
    byte: Literal["low", "high"] | None = Field(
        None, description="Which half of the register an int8 or uint8 is. Default: low."
    )
    bits: BitsField | None = Field(
        None, description="Bits of an unsigned number that make the value: 4-7; 0 is the least significant."
    )
    encoding: Literal["utf-8", "ascii", "latin-1", "utf-16"] | None = Field(
        None, description="Characters of a string; utf-16: one in each register. Default: utf-8."
    )
    padding: Literal["nul", "space"] | None = Field(
        None, description="What fills a string that is written. Default: nul. Read, both are taken off."
    )
    bit: int | None = Field(None, ge=0, le=15, description="Bit of a register; 0 is the least significant.")
    order: OrderName = Field(
        "ABCD",
        description="Order of bytes in values of 32 bits: ABCD, CDAB, BADC, DCBA; for any size "
        "{word: little, byte: big}.",
    )
    scale: ScaleField | None = Field(
        None,
        description="Raw to engineering value: a factor, {factor: 0.1, offset: -40}, two points "
        "{raw: [low, high], eu: [low, high]}, lines between points {table: [[raw, eu], …]}, or "
        "{power: address} of a register with the power of ten (SunSpec).",
    )
    invalid: Invalid = Field(
        default_factory=tuple,
        description="Raw values by which the device says: no value. sunspec: those of SunSpec for the type.",
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
        """Registers that the value takes, or coils or discrete inputs."""
        if self.data_type is DataType.STRING:
            length = self.length or 1
            return length if self.encoding == "utf-16" else (length + 1) // 2
        if self.data_type is DataType.BITS:
            length = self.length or 1
            return length if self.at.table.has_bits else (length + 15) // 16
        return SHAPES[self.data_type].registers

    @property
    def is_part(self) -> bool:
        """Whether it is only a part of its register: a bit, some bits, or a byte."""
        return self.bit is not None or self.bits is not None or self.type_name in {"int8", "uint8"}

    @property
    def part_text(self) -> str:
        """That part in words."""
        if self.bit is not None:
            return f"bit {self.bit}"
        return (
            f"bits {self.bits[0]}-{self.bits[1]}"
            if self.bits is not None
            else f"the {self.byte or 'low'} byte"
        )

    def value_type(self) -> ValueType:
        family = self.data_type.family
        if family is Family.BOOL:
            return ValueType.BOOL
        if family in {Family.STRING, Family.TIME}:
            return ValueType.STRING
        is_whole = family is not Family.FLOAT and (
            self.scale is None or (isinstance(self.scale, Scale) and self.scale.is_whole)
        )
        return ValueType.INT if is_whole else ValueType.FLOAT

    def field(self) -> ValueField:
        """It in the codec's words. Raises ValueError where they contradict each other."""
        kind = self.data_type
        low, high, below, above = self.limits()
        is_sunspec = SUNSPEC in self.invalid
        return ValueField(
            type=kind,
            start=self.at.offset,
            length=self.count if kind is DataType.STRING else (self.length or 1),
            of_coils=kind is DataType.BITS and self.at.table.has_bits,
            bit=self.bit,
            bits=self.bits,
            half=Half(self.byte or "low"),
            order=ORDERS[self.order],
            scale=self._scale(),
            invalid=tuple(
                number
                for given in self.invalid
                for number in (_sentinels(kind) if isinstance(given, str) else (given,))
            ),
            empty_is_invalid=is_sunspec and kind is DataType.STRING,
            low=low,
            high=high,
            below=below,
            above=above,
            charset=Charset(self.encoding or "utf-8"),
            padding=Padding(self.padding or "nul"),
        )

    def limits(self) -> tuple[float | None, float | None, Beyond, Beyond]:
        """The range in engineering units, and what is below and above it."""
        return None, None, Beyond.UNCERTAIN, Beyond.UNCERTAIN

    @property
    def is_written(self) -> bool:
        """Whether values are written there too."""
        return False

    def _scale(self) -> AnyScale | None:
        if isinstance(self.scale, Address):
            return ScalePower(self.scale.offset)
        return self.scale

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        yield from self._type_problems()
        if self.at.offset + self.count > ADDRESS_COUNT:
            yield Problem(
                ("at",), f"{self.at} with {self.count} registers", f"an end at or below {ADDRESS_COUNT - 1}"
            )
        yield from self._text_problems()
        if self.data_type.is_number:
            yield from self._invalid_problems()
            yield from self._scale_problems()
            return
        for key in ("scale", "invalid"):
            is_text = key == "invalid" and self.invalid == (SUNSPEC,) and self.data_type is DataType.STRING
            if getattr(self, key) and not is_text:
                yield Problem((key,), f"{key} of a {self.type_name}", f"no {key}, as only numbers have one")

    def _text_problems(self) -> Iterable[Problem]:
        for key in ("encoding", "padding"):
            if getattr(self, key) is not None and self.data_type is not DataType.STRING:
                yield Problem((key,), f"{key} of a {self.type_name}", f"type string, or no {key}")

    def _scale_problems(self) -> Iterable[Problem]:
        scale = self.scale
        if not isinstance(scale, Address):
            return
        if scale.table is not self.at.table:
            yield Problem(
                ("scale", "power"), f"{scale} for a value at {self.at}", "a register of the same table"
            )
            return
        distance = abs(scale.offset - self.at.offset) + self.count
        if distance > READ_REGISTERS_MAX:
            yield Problem(
                ("scale", "power"),
                f"{scale}, {distance} registers with the value at {self.at}",
                f"at most {READ_REGISTERS_MAX}, as one request reads",
            )

    def _type_problems(self) -> Iterable[Problem]:
        if self.at.table.has_bits:
            if self.bit is not None:
                yield Problem(("bit",), f"bit of {self.at}", "no bit, as it is one bit already")
            if self.type_name not in {"bool", "bits"}:
                yield Problem(
                    ("type",), f"type {self.type_name} at {self.at}", "bool or bits, or a register (hr:, ir:)"
                )
        elif self.type is None and self.bit is None:
            yield Problem(("type",), "no 'type'", f"type: {one_of(TYPES)}")
        elif self.type == "bool" and self.bit is None:
            yield Problem(("type",), f"bool in the register {self.at}", "bit: 0 to 15 beside it")
        elif self.bit is not None and self.type_name != "bool":
            yield Problem(("bit",), f"bit with type {self.type_name}", "type bool, or no bit")
        if self.type_name == "string" and self.length is None:
            yield Problem(("length",), "no 'length'", "length: the number of characters")
        if self.type_name == "bits" and not 1 <= (self.length or 0) <= BITS_MAX:
            found = "no 'length'" if self.length is None else f"{self.length} bits"
            yield Problem(("length",), found, f"length: how many bits, 1 to {BITS_MAX}")
        if self.length is not None and self.type_name not in {"string", "bits"}:
            yield Problem(("length",), f"length of a {self.type_name}", "type string or bits, or no length")
        if self.byte is not None and self.type_name not in {"int8", "uint8"}:
            yield Problem(("byte",), f"byte of a {self.type_name}", "type int8 or uint8, or no byte")
        if self.bits is not None:
            yield from self._bits_problems(self.bits)

    def _bits_problems(self, bits: tuple[int, int]) -> Iterable[Problem]:
        shape = SHAPES.get(self.data_type)
        if self.data_type.family is not Family.WHOLE or shape is None or shape.low:
            yield Problem(("bits",), f"bits of a {self.type_name}", "type uint8 to uint64, or no bits")
        elif bits[1] >= shape.high.bit_length():
            width = shape.high.bit_length()
            yield Problem(("bits",), f"bit {bits[1]} of a {self.type_name}", f"bits 0 to {width - 1}")
        elif self.is_written and self.count > 1:
            yield Problem(
                ("write",), f"write for bits of {self.count} registers", "one register, or no write"
            )

    def _invalid_problems(self) -> Iterable[Problem]:
        kind = self.data_type
        for position, value in enumerate(self.invalid):
            if isinstance(value, str):
                if kind not in NOT_IMPLEMENTED and not kind.is_float:
                    listed = one_of([one.value for one in NOT_IMPLEMENTED])
                    expected = f"{listed}, a float or a string; or the values themselves"
                    yield Problem(("invalid", position), f"sunspec for a {self.type_name}", expected)
                continue
            try:
                ValueField(type=kind, start=0, invalid=(value,))
            except ValueError as error:
                yield Problem(("invalid", position), shown(value), str(error).partition("expected ")[2])
