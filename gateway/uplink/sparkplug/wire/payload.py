"""`org.eclipse.tahu.protobuf.Payload` of Sparkplug 3.0 (§6.4): its messages, read and written."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias

import msgspec

from gateway.uplink.sparkplug.wire.protobuf import (
    FIELDS_MAX,
    Field,
    Kind,
    Malformed,
    decode_message,
    encode_message,
)

QUALITY: Final = "Quality"  # the one property key that Sparkplug itself defines (§6.4.9.1)


class DataType(enum.IntEnum):
    """Types of metrics, properties and columns (Sparkplug 3.0 §6.4.16)."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13  # ms since 1970-01-01 UTC
    TEXT = 14
    UUID = 15
    DATA_SET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19
    PROPERTY_SET = 20
    PROPERTY_SET_LIST = 21
    INT8_ARRAY = 22
    INT16_ARRAY = 23
    INT32_ARRAY = 24
    INT64_ARRAY = 25
    UINT8_ARRAY = 26
    UINT16_ARRAY = 27
    UINT32_ARRAY = 28
    UINT64_ARRAY = 29
    FLOAT_ARRAY = 30
    DOUBLE_ARRAY = 31
    BOOLEAN_ARRAY = 32
    STRING_ARRAY = 33
    DATE_TIME_ARRAY = 34


class DataSetValue(msgspec.Struct, kw_only=True):
    """One cell; its column says the type."""

    int_value: int | None = None
    long_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None
    boolean_value: bool | None = None
    string_value: str | None = None


class Row(msgspec.Struct, kw_only=True):
    """One row of a data set."""

    elements: list[DataSetValue] = []


class DataSet(msgspec.Struct, kw_only=True):
    """A table."""

    num_of_columns: int | None = None
    columns: list[str] = []
    types: list[int] = []
    rows: list[Row] = []


class PropertyValue(msgspec.Struct, kw_only=True):
    """The value of a property."""

    type: int | None = None
    is_null: bool | None = None
    int_value: int | None = None
    long_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None
    boolean_value: bool | None = None
    string_value: str | None = None
    propertyset_value: PropertySet | None = None
    propertysets_value: PropertySetList | None = None


class PropertySet(msgspec.Struct, kw_only=True):
    """As many keys as values."""

    keys: list[str] = []
    values: list[PropertyValue] = []


class PropertySetList(msgspec.Struct, kw_only=True):
    """Property sets."""

    propertyset: list[PropertySet] = []


class MetaData(msgspec.Struct, kw_only=True):
    """About bytes and files."""

    is_multi_part: bool | None = None
    content_type: str | None = None
    size: int | None = None
    seq: int | None = None
    file_name: str | None = None
    file_type: str | None = None
    md5: str | None = None
    description: str | None = None


class Parameter(msgspec.Struct, kw_only=True):
    """A parameter of a template."""

    name: str | None = None
    type: int | None = None
    int_value: int | None = None
    long_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None
    boolean_value: bool | None = None
    string_value: str | None = None


class Template(msgspec.Struct, kw_only=True):
    """A definition of a type, or an instance of one."""

    version: str | None = None
    metrics: list[Metric] = []
    parameters: list[Parameter] = []
    template_ref: str | None = None
    is_definition: bool | None = None


class Metric(msgspec.Struct, kw_only=True):
    """One value. `timestamp`: ms since 1970-01-01 UTC. At most one `…_value` is set."""

    name: str | None = None
    alias: int | None = None
    timestamp: int | None = None
    datatype: int | None = None
    is_historical: bool | None = None
    is_transient: bool | None = None
    is_null: bool | None = None
    metadata: MetaData | None = None
    properties: PropertySet | None = None
    int_value: int | None = None
    long_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None
    boolean_value: bool | None = None
    string_value: str | None = None
    bytes_value: bytes | None = None
    dataset_value: DataSet | None = None
    template_value: Template | None = None


class Payload(msgspec.Struct, kw_only=True):
    """One message. `timestamp`: when it was sent, ms since 1970-01-01 UTC; `seq`: 0 to 255 (§6.4.4)."""

    timestamp: int | None = None
    metrics: list[Metric] = []
    seq: int | None = None
    uuid: str | None = None
    body: bytes | None = None


MetricValue: TypeAlias = bool | int | float | str | bytes | DataSet | Template | None


def _one_of(first: int, *more: Field) -> dict[int, Field]:
    """The scalars every `oneof value` begins with, from number `first`; then what only some have."""
    scalars = (
        ("int_value", Kind.UINT32),
        ("long_value", Kind.UINT64),
        ("float_value", Kind.FLOAT),
        ("double_value", Kind.DOUBLE),
        ("boolean_value", Kind.BOOL),
        ("string_value", Kind.STRING),
    )
    fields = [*(Field(name, kind, is_oneof=True) for name, kind in scalars), *more]
    return dict(enumerate(fields, first))


_SCHEMA: Final[dict[type[msgspec.Struct], dict[int, Field]]] = {
    Payload: {
        1: Field("timestamp", Kind.UINT64),
        2: Field("metrics", Kind.MESSAGE, Metric, is_repeated=True),
        3: Field("seq", Kind.UINT64),
        4: Field("uuid", Kind.STRING),
        5: Field("body", Kind.BYTES),
    },
    Metric: {
        1: Field("name", Kind.STRING),
        2: Field("alias", Kind.UINT64),
        3: Field("timestamp", Kind.UINT64),
        4: Field("datatype", Kind.UINT32),
        5: Field("is_historical", Kind.BOOL),
        6: Field("is_transient", Kind.BOOL),
        7: Field("is_null", Kind.BOOL),
        8: Field("metadata", Kind.MESSAGE, MetaData),
        9: Field("properties", Kind.MESSAGE, PropertySet),
        **_one_of(
            10,
            Field("bytes_value", Kind.BYTES, is_oneof=True),
            Field("dataset_value", Kind.MESSAGE, DataSet, is_oneof=True),
            Field("template_value", Kind.MESSAGE, Template, is_oneof=True),
        ),
    },
    MetaData: {
        1: Field("is_multi_part", Kind.BOOL),
        2: Field("content_type", Kind.STRING),
        3: Field("size", Kind.UINT64),
        4: Field("seq", Kind.UINT64),
        5: Field("file_name", Kind.STRING),
        6: Field("file_type", Kind.STRING),
        7: Field("md5", Kind.STRING),
        8: Field("description", Kind.STRING),
    },
    PropertySet: {
        1: Field("keys", Kind.STRING, is_repeated=True),
        2: Field("values", Kind.MESSAGE, PropertyValue, is_repeated=True),
    },
    PropertySetList: {1: Field("propertyset", Kind.MESSAGE, PropertySet, is_repeated=True)},
    PropertyValue: {
        1: Field("type", Kind.UINT32),
        2: Field("is_null", Kind.BOOL),
        **_one_of(
            3,
            Field("propertyset_value", Kind.MESSAGE, PropertySet, is_oneof=True),
            Field("propertysets_value", Kind.MESSAGE, PropertySetList, is_oneof=True),
        ),
    },
    DataSet: {
        1: Field("num_of_columns", Kind.UINT64),
        2: Field("columns", Kind.STRING, is_repeated=True),
        3: Field("types", Kind.UINT32, is_repeated=True),
        4: Field("rows", Kind.MESSAGE, Row, is_repeated=True),
    },
    Row: {1: Field("elements", Kind.MESSAGE, DataSetValue, is_repeated=True)},
    DataSetValue: _one_of(1),
    Template: {
        1: Field("version", Kind.STRING),
        2: Field("metrics", Kind.MESSAGE, Metric, is_repeated=True),
        3: Field("parameters", Kind.MESSAGE, Parameter, is_repeated=True),
        4: Field("template_ref", Kind.STRING),
        5: Field("is_definition", Kind.BOOL),
    },
    Parameter: {1: Field("name", Kind.STRING), 2: Field("type", Kind.UINT32), **_one_of(3)},
}


def encode_payload(payload: Payload) -> bytes:
    """The bytes of a message. For births and deaths; values go through `columns`."""
    return encode_message(payload, _SCHEMA)


def decode_payload(data: bytes, *, fields_max: int = FIELDS_MAX) -> Payload:
    """The message in `data`. Raises `Malformed` for anything else, in bounded time and memory."""
    return decode_message(Payload, data, _SCHEMA, fields_max=fields_max)


_BITS: Final = {
    DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64,
    DataType.UINT8: 8, DataType.UINT16: 16, DataType.UINT32: 32, DataType.UINT64: 64,
    DataType.DATE_TIME: 64,
}  # fmt: skip
_SIGNED: Final = frozenset({DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64})
_HELD_IN: Final = {
    DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
    DataType.TEXT: "string_value",
    DataType.UUID: "string_value",
    DataType.DATA_SET: "dataset_value",
    DataType.TEMPLATE: "template_value",
    DataType.BYTES: "bytes_value",
    DataType.FILE: "bytes_value",
}  # arrays too are in bytes_value, packed: they are handed out as they came
_ALL_VALUES: Final = tuple(field.name for field in _SCHEMA[Metric].values() if field.is_oneof)


def value_of(metric: Metric, datatype: int | None = None) -> MetricValue:
    """What the metric says, by its own datatype or, where it has none, by that of its birth.

    Whole numbers are taken from `int_value` and `long_value` alike, as encoders in the field disagree
    (UInt32); negative ones in `int_value` have the type's width or 32 bits, in `long_value` 64. None for
    `is_null`. Arrays are bytes, still packed.

    Raises `Malformed` where the value is missing, of another type, or out of the type's range.
    """
    if metric.is_null:
        return None
    kind = metric.datatype if metric.datatype is not None else datatype
    where = f"metric {metric.name if metric.name is not None else metric.alias}"
    if kind is None or kind == DataType.UNKNOWN or not 0 < kind <= DataType.DATE_TIME_ARRAY:
        raise Malformed(where, found=f"datatype {kind}", expected="1 to 34")
    kind = DataType(kind)
    if kind in _BITS:
        raw = metric.int_value if metric.int_value is not None else metric.long_value
        if raw is not None:
            return _whole(where, kind, raw, (_BITS[kind], 32) if metric.int_value is not None else (64,))
        held = "int_value or long_value"
    else:
        held = _HELD_IN.get(kind, "bytes_value")
        value: MetricValue = getattr(metric, held)
        if value is not None:
            return value
    found = next((name for name in _ALL_VALUES if getattr(metric, name) is not None), "no value")
    raise Malformed(where, found=found, expected=f"{held} for {kind.name}")


def _whole(where: str, kind: DataType, raw: int, widths: tuple[int, ...]) -> int:
    """`widths`: of the two's complement that a negative number may stand in."""
    bits = _BITS[kind]
    if kind not in _SIGNED:
        if raw < 1 << bits:
            return raw
    else:
        top = 1 << (bits - 1)
        if raw < top:
            return raw
        for width in widths:
            if (1 << width) - top <= raw < 1 << width:
                return raw - (1 << width)
    raise Malformed(where, found=str(raw), expected=f"a number of {bits} bits for {kind.name}")
