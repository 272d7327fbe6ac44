"""What goes into a record comes out of it, to the type."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.batch import Batch, Cause, Kind
from gateway.core.point import Layout, Point, Priority, Value, ValueType
from gateway.disk.record import Entry
from gateway.journal import codec
from gateway.journal.codec import Layouts

values = st.one_of(
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),  # with lone surrogates
    st.binary(max_size=30),
    st.none(),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    row = tuple(draw(st.lists(values, max_size=12)))
    count = len(row)

    def column(item: st.SearchStrategy[int | None]) -> tuple[int | None, ...]:
        return tuple(draw(st.lists(item, min_size=count, max_size=count)))

    small, time = st.integers(0, 1 << 18), st.none() | st.integers(-(1 << 63), (1 << 63) - 1)
    layout = Layout(
        device="d",
        scan="",
        points=[Point(device="d", tag=str(i), type=ValueType.FLOAT) for i in range(count)],
    )
    return Batch(
        layout=layout,
        values=row,
        received_ns=draw(st.integers(0, (1 << 63) - 1)),
        monotonic_ns=draw(st.integers(0, (1 << 63) - 1)),
        quality=draw(st.one_of(small, st.just(column(small)))),  # type: ignore[arg-type]  # hypothesis draws are Any
        columns=draw(st.none() | st.just(tuple(range(count)))),
        kind=draw(st.sampled_from(Kind)),
        cause=draw(st.sampled_from(Cause)),
        source_time_ns=draw(st.one_of(time, st.just(column(time)))),
        time_quality=draw(st.one_of(small, st.just(column(small)))),  # type: ignore[arg-type]  # hypothesis draws are Any
        native=draw(st.one_of(st.none(), small, st.just(column(st.none() | small)))),
        epoch=3,
        seq=7,
    )


def through(batch: Batch) -> Batch:
    body = codec.encode_batch(batch, b"abcd")
    return codec.decode_batch(Entry(5, (batch.epoch, batch.seq), 1, batch.received_ns, body, 0), batch.layout)


@settings(deadline=None)
@given(batches())
def test_a_batch_comes_back_equal_and_of_the_same_types(batch: Batch) -> None:
    back = through(batch)
    assert back == batch
    assert [type(value) for value in back.values] == [type(value) for value in batch.values]
    assert back.layout is batch.layout
    assert isinstance(back.kind, Kind)
    for name in ("quality", "columns", "source_time_ns", "time_quality", "native"):
        assert type(getattr(back, name)) is type(getattr(batch, name))


@pytest.mark.parametrize("value", [-0.0, math.inf, -math.inf, 5e-324, 1 << 64, -(1 << 63) - 1, True, 1, 1.0])
def test_edge_values_keep_their_bits(value: Value) -> None:
    layout = Layout(device="d", scan="", points=[Point(device="d", tag="t", type=ValueType.FLOAT)])
    back = through(Batch(layout=layout, values=(value,), received_ns=1)).values[0]
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_not_a_number_stays_one() -> None:
    layout = Layout(device="d", scan="", points=[Point(device="d", tag="t", type=ValueType.FLOAT)])
    back = through(Batch(layout=layout, values=(math.nan,), received_ns=1)).values[0]
    assert isinstance(back, float)
    assert math.isnan(back)


@given(st.binary(max_size=60))
def test_any_body_is_a_batch_or_a_decode_error(body: bytes) -> None:
    layout = Layout(device="d", scan="", points=[])
    try:
        codec.decode_batch(Entry(5, (1, 1), 1, 0, body, 0), layout)
    except (msgspec.DecodeError, ValueError):
        pass


def layout_with(**attributes: str) -> Layout:
    point = Point(
        device="d",
        tag="t",
        type=ValueType.INT,
        unit="°C",
        low=-1,
        high=2.5,
        writable=True,
        deadband=0.5,
        deadband_percent=1.0,
        priority=Priority.ALARM,
        labels=((0, "off"), (1, "auto")),
    )
    return Layout(device="d", scan="slow", points=[point], attributes=attributes)


def test_a_layout_comes_back_with_all_its_fields_and_once() -> None:
    layout = layout_with(site="north", link="l1")
    _, body = codec.encode_definition(codec.layout_content(layout), "v7")
    layout_id, content, version = codec.decode_definition(body)
    layouts = Layouts()
    back = layouts.get(content)
    assert (back.device, back.scan, back.points, back.attributes, version) == (
        "d", "slow", layout.points, layout.attributes, "v7",
    )  # fmt: skip
    assert back is not layout
    assert layouts.get(content) is back
    assert layout_id == body[:4]


def test_a_layout_the_configuration_still_has_comes_back_as_that_object() -> None:
    layouts, live = Layouts(), layout_with(site="north")
    content = codec.layout_content(layout_with(site="north"))
    layouts.get(content)
    layouts.register(live)
    assert layouts.get(content) is live
    assert layouts.get(codec.layout_content(layout_with(site="south"))) is not live


def test_reconstructed_layouts_are_bounded() -> None:
    layouts = Layouts()
    for number in range(codec.RECONSTRUCTED_MAX + 10):
        layouts.get(codec.layout_content(layout_with(site=str(number))))
    assert len(layouts._reconstructed) == codec.RECONSTRUCTED_MAX
