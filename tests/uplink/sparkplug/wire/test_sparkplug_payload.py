"""Payloads read and written, against the official schema and by the numbered statements of Sparkplug 3.0."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import LocalProtocolError, RemoteProtocolError
from gateway.uplink.sparkplug.wire.payload import (
    DataSet,
    DataSetValue,
    DataType,
    MetaData,
    Metric,
    Parameter,
    Payload,
    PropertySet,
    PropertySetList,
    PropertyValue,
    Row,
    Template,
    decode_payload,
    encode_payload,
    value_of,
)
from gateway.uplink.sparkplug.wire.protobuf import DEPTH_MAX, FIELDS_MAX, Malformed
from tests.uplink.sparkplug.node_peer import NodePeer, node_peer

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
maybe = st.none()
floats32 = st.floats(width=32, allow_nan=False)
floats64 = st.floats(allow_nan=False)

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int_value": uint32,
    "long_value": uint64,
    "float_value": floats32,
    "double_value": floats64,
    "boolean_value": st.booleans(),
    "string_value": text,
}


def one_of(values: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """At most one of these, as a `oneof`."""
    return st.one_of(
        st.just({}), *(value.map(lambda v, name=name: {name: v}) for name, value in values.items())
    )


def message(kind: type[Any], *, value: Any = None, **fields: st.SearchStrategy[Any]) -> Any:
    """Messages of a kind; `value` gives the fields of its oneof."""
    return st.builds(
        lambda fields, value: kind(**fields, **value),
        st.fixed_dictionaries(fields),
        st.just({}) if value is None else value,
    )


data_sets = message(
    DataSet,
    num_of_columns=maybe | uint64,
    columns=st.lists(text, max_size=2),
    types=st.lists(uint32, max_size=2),
    rows=st.lists(
        message(Row, elements=st.lists(message(DataSetValue, value=one_of(SCALARS)), max_size=2)), max_size=2
    ),
)
property_values = st.deferred(
    lambda: message(
        PropertyValue,
        value=one_of(
            {
                **SCALARS,
                "propertyset_value": property_sets,
                "propertysets_value": message(
                    PropertySetList, propertyset=st.lists(property_sets, max_size=1)
                ),
            }
        ),
        type=maybe | uint32,
        is_null=maybe | st.booleans(),
    )
)
property_sets: st.SearchStrategy[PropertySet] = message(
    PropertySet, keys=st.lists(text, max_size=2), values=st.lists(property_values, max_size=2)
)
meta_data = message(
    MetaData,
    is_multi_part=maybe | st.booleans(),
    content_type=maybe | text,
    size=maybe | uint64,
    seq=maybe | uint64,
    file_name=maybe | text,
    file_type=maybe | text,
    md5=maybe | text,
    description=maybe | text,
)
parameters = message(Parameter, value=one_of(SCALARS), name=maybe | text, type=maybe | uint32)
metrics = st.deferred(
    lambda: message(
        Metric,
        value=one_of(
            {
                **SCALARS,
                "bytes_value": st.binary(max_size=12),
                "dataset_value": data_sets,
                "template_value": message(
                    Template,
                    version=maybe | text,
                    metrics=st.lists(metrics, max_size=1),
                    parameters=st.lists(parameters, max_size=1),
                    template_ref=maybe | text,
                    is_definition=maybe | st.booleans(),
                ),
            }
        ),
        name=maybe | text,
        alias=maybe | uint64,
        timestamp=maybe | uint64,
        datatype=maybe | uint32,
        is_historical=maybe | st.booleans(),
        is_transient=maybe | st.booleans(),
        is_null=maybe | st.booleans(),
        metadata=maybe | meta_data,
        properties=maybe | property_sets,
    )
)
payloads = message(
    Payload,
    timestamp=maybe | uint64,
    metrics=st.lists(metrics, max_size=3),
    seq=maybe | uint64,
    uuid=maybe | text,
    body=maybe | st.binary(max_size=12),
)


@settings(max_examples=100, deadline=None)
@given(payloads)
def test_what_is_written_is_read(payload: Payload) -> None:
    try:
        read = decode_payload(encode_payload(payload))
    except Malformed as error:
        assert "deep" in str(error)  # noqa: PT017 - hypothesis nests at will
        return
    assert read == payload


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_payload_or_a_fault_of_the_peer(data: bytes) -> None:
    try:
        decode_payload(data)
    except RemoteProtocolError:
        pass


@settings(max_examples=100, deadline=None)
@given(payloads, st.data())
def test_a_damaged_payload_is_a_payload_or_a_fault_of_the_peer(payload: Payload, data: st.DataObject) -> None:
    whole = bytearray(encode_payload(payload))
    for _ in range(data.draw(st.integers(0, 3))):
        if whole:
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        for metric in decode_payload(cut).metrics:
            value_of(metric)
    except RemoteProtocolError:
        pass


def nested(templates: int) -> bytes:
    """A metric that is a template with a metric that is a template …"""
    metric = Metric(name="m")
    for _ in range(templates):
        metric = Metric(template_value=Template(metrics=[metric]))
    return encode_payload(Payload(metrics=[metric]))


@pytest.mark.parametrize(
    "payload",
    [
        Payload(seq=2**64),
        Payload(timestamp=-1),
        Payload(metrics=[Metric(int_value=2**32)]),
        Payload(metrics=[Metric(datatype=-1)]),
    ],
)
def test_a_number_the_schema_cannot_hold_is_our_own_fault(payload: Payload) -> None:
    with pytest.raises(LocalProtocolError, match="expected 0 to"):
        encode_payload(payload)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        ("08", "half a number"),
        ("08 ffffffffffffffffffff 01", "more than 10 bytes"),
        ("12 05 08", "1 bytes of field 2, expected 5"),
        ("0d 01020304", "wire type I32, expected VARINT"),
        ("0b 0c", "wire type 3"),
        ("00 01", "field number 0"),
        ("22 02 c3 28", "ill-formed UTF-8"),
    ],
)
def test_a_malformed_payload_says_where_and_what(data: str, fault: str) -> None:
    with pytest.raises(Malformed, match=fault):
        decode_payload(bytes.fromhex(data))


def test_depth_and_number_of_fields_are_bounded() -> None:
    assert decode_payload(nested((DEPTH_MAX - 2) // 2)).metrics  # the payload, a metric, then two for each
    with pytest.raises(Malformed, match=f"{DEPTH_MAX + 1} deep, expected at most {DEPTH_MAX}"):
        decode_payload(nested(DEPTH_MAX // 2))
    assert len(decode_payload(b"\x12\x00" * 99, fields_max=99).metrics) == 99
    packed = bytes.fromhex("12 07 8a01 04 1a 02 09 0a")  # a metric, its data set, its types, which are two
    assert decode_payload(packed, fields_max=5).metrics
    for data, limit in ((b"\x12\x00" * 100, 99), (b"\x38\x01" * 100, 99), (packed, 4)):
        with pytest.raises(Malformed, match=f"more than {limit} fields"):
            decode_payload(data, fields_max=limit)
    with pytest.raises(Malformed, match=f"more than {FIELDS_MAX} fields"):
        decode_payload(b"\x38\x01" * (FIELDS_MAX + 1))


def test_unknown_fields_are_skipped_and_packed_numbers_taken() -> None:
    assert decode_payload(bytes.fromhex("3a 02 0102 18 07")).seq == 7  # field 7: an extension
    # Metric.dataset_value, its types 9 and 10 in one packed field
    data_set = decode_payload(bytes.fromhex("12 07 8a01 04 1a 02 09 0a")).metrics[0].dataset_value
    assert data_set is not None
    assert data_set.types == [9, 10]


def test_the_last_of_a_oneof_counts() -> None:
    metric = decode_payload(bytes.fromhex("12 07 50 01 7a 03 616263")).metrics[0]
    assert (metric.int_value, metric.string_value) == (None, "abc")


@pytest.mark.parametrize(
    ("datatype", "fields", "value"),
    [
        (DataType.INT8, {"int_value": 2**32 - 5}, -5),
        (DataType.INT8, {"int_value": 251}, -5),
        (DataType.INT8, {"int_value": 127}, 127),
        (DataType.INT16, {"int_value": 2**32 - 300}, -300),
        (DataType.INT32, {"int_value": 2**31}, -(2**31)),
        (DataType.INT64, {"long_value": 2**64 - 1}, -1),
        (DataType.INT64, {"int_value": 5}, 5),
        (DataType.INT32, {"long_value": 2**64 - 1}, -1),
        (DataType.UINT8, {"int_value": 255}, 255),
        (DataType.UINT16, {"int_value": 65535}, 65535),
        (DataType.UINT32, {"int_value": 2**32 - 1}, 2**32 - 1),
        (DataType.UINT32, {"long_value": 2**32 - 1}, 2**32 - 1),
        (DataType.UINT64, {"long_value": 2**64 - 1}, 2**64 - 1),
        (DataType.DATE_TIME, {"long_value": 1486144502122}, 1486144502122),
        (DataType.FLOAT, {"float_value": 1.5}, 1.5),
        (DataType.DOUBLE, {"double_value": 1.5}, 1.5),
        (DataType.BOOLEAN, {"boolean_value": False}, False),
        (DataType.STRING, {"string_value": "a"}, "a"),
        (DataType.TEXT, {"string_value": ""}, ""),
        (DataType.UUID, {"string_value": "u"}, "u"),
        (DataType.BYTES, {"bytes_value": b"\0"}, b"\0"),
        (DataType.FILE, {"bytes_value": b""}, b""),
        (DataType.INT16_ARRAY, {"bytes_value": b"\xd0\x8a\x30\x75"}, b"\xd0\x8a\x30\x75"),
        (DataType.DATA_SET, {"dataset_value": DataSet()}, DataSet()),
        (DataType.TEMPLATE, {"template_value": Template()}, Template()),
        (DataType.DOUBLE, {"is_null": True}, None),
    ],
)
def test_a_value_is_read_by_its_datatype(datatype: DataType, fields: dict[str, Any], value: object) -> None:
    found = value_of(Metric(name="m", datatype=datatype, **fields))
    assert (found, type(found)) == (value, type(value))
    assert value_of(Metric(alias=1, **fields), datatype) == value


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        (Metric(name="m", int_value=1), "datatype None"),
        (Metric(name="m", datatype=0, int_value=1), "datatype 0"),
        (Metric(name="m", datatype=35, int_value=1), "datatype 35"),
        (Metric(name="m", datatype=3, string_value="1"), "found string_value, expected int_value"),
        (Metric(name="m", datatype=12), "found no value, expected string_value for STRING"),
        (Metric(alias=7, datatype=1, int_value=300), "metric 7: found 300, expected a number of 8 bits"),
        (Metric(name="m", datatype=5, int_value=256), "found 256"),
        (Metric(name="m", datatype=3, long_value=2**31), "found 2147483648"),
    ],
)
def test_a_value_of_another_type_is_refused(metric: Metric, fault: str) -> None:
    with pytest.raises(Malformed, match=fault):
        value_of(metric)


# Against the official schema


@pytest.fixture(scope="module")
def peer() -> Iterator[NodePeer]:
    with node_peer("peer.js") as program:
        yield program


EVERYTHING = Payload(
    timestamp=1486144502122,
    seq=255,
    uuid="schema",
    body=b"\x00\xff",
    metrics=[
        Metric(name="i8", datatype=1, int_value=2**32 - 5, timestamp=1, alias=2**63),
        Metric(name="u64", datatype=8, long_value=2**64 - 1, is_historical=True, is_transient=True),
        Metric(name="f", datatype=9, float_value=1.5),
        Metric(name="d", datatype=10, double_value=-2.25),
        Metric(name="b", datatype=11, boolean_value=True),
        Metric(name="s", datatype=12, string_value="Gerät"),
        Metric(name="file", datatype=18, bytes_value=b"\x01\x02", metadata=MetaData(file_name="a", size=2)),
        Metric(
            name="set",
            datatype=16,
            dataset_value=DataSet(
                num_of_columns=2,
                columns=["a", "b"],
                types=[10, 12],
                rows=[Row(elements=[DataSetValue(double_value=1.0), DataSetValue(string_value="x")])],
            ),
        ),
        Metric(
            name="udt",
            datatype=19,
            template_value=Template(
                version="1",
                template_ref="motor",
                is_definition=False,
                metrics=[Metric(name="rpm", datatype=10, double_value=3.0)],
                parameters=[Parameter(name="p", type=12, string_value="q")],
            ),
        ),
        Metric(
            name="null",
            datatype=10,
            is_null=True,
            properties=PropertySet(
                keys=["Quality", "Inner"],
                values=[
                    PropertyValue(type=3, int_value=500),
                    PropertyValue(
                        type=20,
                        propertyset_value=PropertySet(
                            keys=["k"], values=[PropertyValue(type=11, boolean_value=True)]
                        ),
                    ),
                ],
            ),
        ),
    ],
)


def as_read_by_the_peer(message: msgspec.Struct) -> dict[str, Any]:
    """Our message as the peer's plain object: camelCase, 64 bits as text, bytes as lists, nothing unset."""
    said: dict[str, Any] = {}
    for field in msgspec.structs.fields(message):
        value = getattr(message, field.name)
        if value is None or value == []:
            continue
        first, *rest = field.name.split("_")
        name = first + "".join(part.capitalize() for part in rest)
        long = field.name in {"timestamp", "alias", "seq", "size", "long_value", "num_of_columns"}
        said[name] = (
            as_read_by_the_peer(value)
            if isinstance(value, msgspec.Struct)
            else [as_read_by_the_peer(one) if isinstance(one, msgspec.Struct) else one for one in value]
            if isinstance(value, list)
            else list(value)
            if isinstance(value, bytes)
            else str(value)
            if long
            else value
        )
    return said


@pytest.mark.interop
def test_the_official_schema_reads_every_field_we_write(peer: NodePeer) -> None:
    found = peer.request(op="raw", hex=encode_payload(EVERYTHING).hex())
    assert found == as_read_by_the_peer(EVERYTHING)


@pytest.mark.interop
def test_we_read_every_field_the_official_schema_writes(peer: NodePeer) -> None:
    data = peer.request(op="write", message=as_read_by_the_peer(EVERYTHING))
    assert decode_payload(bytes.fromhex(data)) == EVERYTHING


@pytest.mark.interop
@pytest.mark.parametrize(
    ("type_name", "value"),
    [
        ("Int8", -5), ("Int16", -300), ("Int32", -70_000), ("Int64", 2**40),
        ("UInt8", 255), ("UInt16", 65_535), ("UInt32", 2**31), ("UInt64", 2**40), ("DateTime", 1486144502122),
        ("Float", 0.5), ("Double", 0.1), ("Boolean", False), ("String", "µ"), ("Text", "t"), ("UUID", "u"),
    ],
)  # fmt: skip
def test_a_command_of_sparkplug_payload_is_understood(peer: NodePeer, type_name: str, value: object) -> None:
    metric = {"name": "set", "type": type_name, "value": value, "timestamp": 5}
    data = bytes.fromhex(peer.request(op="encode", payload={"timestamp": 5, "metrics": [metric]}))
    (found,) = decode_payload(data).metrics
    assert (value_of(found), found.name, found.timestamp) == (value, "set", 5)


@pytest.mark.interop
def test_infinities_and_nan_pass_the_wire(peer: NodePeer) -> None:
    values = [math.inf, -math.inf, math.nan]
    data = encode_payload(Payload(metrics=[Metric(name="m", datatype=10, double_value=v) for v in values]))
    found = [metric["value"] for metric in peer.request(op="decode", hex=data.hex())["metrics"]]
    assert found == ["Infinity", "-Infinity", "NaN"]
