"""Registers made of points, against a plain model of what each address must show."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.decode import compile_block
from drivers.modbus.encode import encode
from drivers.modbus.field import ORDERS, DataType, Family, Field, Half
from drivers.modbus.pack import compile_pack
from drivers.modbus.scale import Scale
from drivers.modbus.sheet import Served, Sheet, overlap
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.core import quality as q
from gateway.core.point import Layout, Point, Value, ValueType

HOLDING = Table.HOLDING_REGISTERS


class Known:
    """A snapshot that a test changes."""

    def __init__(self, count: int) -> None:
        self.change = 0
        self.values: tuple[Value, ...] = (None,) * count
        self.quality: int | tuple[int, ...] = q.BAD | q.NOT_YET_READ
        self.monotonic_ns: int | list[int] = 0

    def show(self, values: tuple[Value, ...], quality: int | tuple[int, ...] = 0) -> None:
        self.change, self.values, self.quality = self.change + 1, values, quality


def layout_of(count: int) -> Layout:
    points = [Point(device="d", tag=f"t{n}", type=ValueType.INT, writable=True) for n in range(count)]
    return Layout(device="d", scan="s", points=points)


def served(layout: Layout, column: int, field: Field, **keys: Any) -> Served:
    return Served(
        point=layout.points[column], layout=layout, column=column, table=HOLDING, field=field, **keys
    )


def uint16(start: int, **keys: Any) -> Field:
    return Field(type=DataType.UINT16, start=start, **keys)


def words(found: object) -> object:
    return list(struct.unpack(f">{len(found) // 2}H", found)) if isinstance(found, bytearray) else found


def test_nothing_is_shown_before_it_is_read_and_bad_is_an_exception_by_its_meaning() -> None:
    layout, known = layout_of(2), Known(2)
    sheet = Sheet(HOLDING, [served(layout, 0, uint16(0)), served(layout, 1, uint16(1))])
    gone = ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND

    def read(start: int, count: int) -> object:
        return words(sheet.read(start, count, lambda _layout: known, 0))

    assert read(0, 2) is gone
    known.show((5, 6))
    assert (read(0, 2), read(1, 1), read(1, 2)) == ([5, 6], [6], ExceptionCode.ILLEGAL_DATA_ADDRESS)
    known.show((5, None), (0, q.BAD | q.COMM_LOST))
    assert (read(0, 1), read(0, 2)) == ([5], gone)
    known.show((5, None), (0, q.BAD | q.INVALID))
    assert read(1, 1) is ExceptionCode.SERVER_DEVICE_FAILURE
    known.show((5, 70_000))
    assert read(1, 1) is ExceptionCode.SERVER_DEVICE_FAILURE, "no register shows another number"
    known.show((5, 8), (q.UNCERTAIN | q.OUT_OF_RANGE, 0))
    assert read(0, 2) == [5, 8], "uncertain is a value"


def test_a_sentinel_a_held_value_and_the_register_that_tells() -> None:
    layout, known = layout_of(2), Known(2)
    sheet = Sheet(
        HOLDING,
        [
            served(layout, 0, uint16(0), sentinel=b"\xff\xff", quality_at=1),
            served(layout, 1, uint16(2), holds=True, quality_at=3),
        ],
    )
    seen = []
    for values, quality in (
        ((None, None), q.BAD | q.NOT_YET_READ),
        ((7, 8), 0),
        ((9, 10), q.UNCERTAIN | q.OUT_OF_RANGE),
        ((None, None), q.BAD | q.COMM_LOST),
    ):
        known.show(values, quality)
        seen.append(
            (words(sheet.read(0, 2, lambda _: known, 0)), words(sheet.read(2, 2, lambda _: known, 0)))
        )
    assert seen == [
        ([0xFFFF, 2], ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND),
        ([7, 0], [8, 0]),
        ([9, 1], [10, 1]),
        ([0xFFFF, 2], [10, 2]),
    ]


def test_an_old_value_is_never_shown_as_fresh() -> None:
    layout, known = layout_of(2), Known(2)
    items = [served(layout, 0, uint16(0)), served(layout, 1, uint16(1), quality_at=2)]
    sheet = Sheet(HOLDING, items, stale_ns={layout: 100})
    gone = ExceptionCode.GATEWAY_TARGET_DEVICE_FAILED_TO_RESPOND
    known.show((5, 6))

    def read(now_ns: int) -> tuple[object, object]:
        look = lambda _layout: known  # noqa: E731 - twice in a line
        return words(sheet.read(0, 1, look, now_ns)), words(sheet.read(1, 2, look, now_ns))

    assert read(100) == ([5], [6, 0])
    assert read(101) == (gone, [6, 1]), "nobody reads it any more: only the quality register can tell"
    known.show((5, 6))
    known.monotonic_ns = 150
    assert read(200) == ([5], [6, 0])
    known.show((5, 6), q.UNCERTAIN | q.STALE)
    assert read(200) == (gone, [6, 1]), "the device answers, and its counter stands still"


def test_points_that_share_a_register_keep_their_bits() -> None:
    layout, known = layout_of(3), Known(3)
    fields = [
        Field(type=DataType.BOOL, start=4, bit=0),
        uint16(4, bits=(4, 7)),
        Field(type=DataType.UINT8, start=4, half=Half.HIGH),
    ]
    items = [served(layout, n, field, is_writable=True) for n, field in enumerate(fields)]
    assert overlap(items) is None
    assert overlap([*items, served(layout, 0, uint16(3)), served(layout, 0, uint16(4))]) is not None
    sheet = Sheet(HOLDING, items)
    known.show((True, 5, 0xAB))
    assert words(sheet.read(4, 1, lambda _: known, 0)) == [0xAB51]

    def decode(one: Served, data: bytes) -> Value:
        block = compile_block([one.field], table=HOLDING, start=one.start, count=1)
        return block(data)[0][0]

    def wanted(data: bytes) -> object:
        found = sheet.writes(4, data, decode, lambda _: known, 0)
        return [(one.point.tag, one.value) for one in found] if isinstance(found, list) else found

    assert wanted(b"\xab\x61") == [("t1", 6)], "only what changes is written"
    assert wanted(b"\xab\x51") == []
    known.show((False, 5, 0xAB))
    assert wanted(b"\xab\x51") == [("t0", True)], "compared with what is now, not with what was read last"
    known.show((None, 5, 0xAB), (q.BAD | q.COMM_LOST, 0, 0))
    assert wanted(b"\xab\x50") == [("t0", False)], "of a device that is gone nothing is known: it is written"


def test_what_stands_for_no_value_is_not_written_back() -> None:
    layout, known = layout_of(2), Known(2)
    items = [
        served(layout, 0, uint16(0), sentinel=b"\x80\x00", is_writable=True),
        served(layout, 1, uint16(1), is_writable=True),
    ]
    sheet = Sheet(HOLDING, items)
    known.show((None, 7), (q.BAD | q.COMM_LOST, 0))
    block = sheet.read(0, 2, lambda _: known, 0)
    assert block == b"\x80\x00\x00\x07"

    def write(data: bytes) -> object:
        return sheet.writes(0, data, lambda _one, own: int.from_bytes(own, "big"), lambda _: known, 0)

    assert write(b"\x80\x00\x00\x08") is ExceptionCode.ILLEGAL_DATA_VALUE
    both = write(b"\x00\x05\x00\x08")
    assert isinstance(both, list)
    assert [one.value for one in both] == [5, 8]


def test_gaps_read_as_zero_only_where_asked() -> None:
    layout, known = layout_of(2), Known(2)
    items = [served(layout, 0, uint16(10)), served(layout, 1, uint16(13))]
    known.show((1, 2))
    assert Sheet(HOLDING, items).read(10, 4, lambda _: known, 0) is ExceptionCode.ILLEGAL_DATA_ADDRESS
    filled = Sheet(HOLDING, items, fills_gaps=True)
    assert words(filled.read(10, 4, lambda _: known, 0)) == [1, 0, 0, 2]
    assert filled.read(9, 2, lambda _: known, 0) is ExceptionCode.ILLEGAL_DATA_ADDRESS


NUMBERS = [
    kind for kind in DataType if kind.family in {Family.WHOLE, Family.FLOAT, Family.BCD, Family.MOD10K}
]


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(NUMBERS),
    st.sampled_from(list(ORDERS.values())),
    st.sampled_from([None, Scale.from_factor(0.5, 3)]),
    st.one_of(st.integers(-(1 << 70), 1 << 70), st.floats(), st.booleans(), st.just("x")),
)
def test_the_quick_way_gives_the_same_bytes(
    kind: DataType, order: Any, scale: Scale | None, value: Any
) -> None:
    field = Field(type=kind, start=0, order=order, scale=scale)
    pack = compile_pack(field)
    try:
        expected = encode(field, value)
    except ValueError:
        with pytest.raises(ValueError):
            pack(value)
        return
    assert pack(value) == expected
