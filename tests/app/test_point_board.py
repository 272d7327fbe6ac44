"""Counting by layouts says the same as counting by points."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.app.point_board import PointBoard
from gateway.core.batch import Batch, Kind
from gateway.core.point import Layout, Point, ValueType
from gateway.core.quality import BAD, COMM_LOST, OUT_OF_RANGE, UNCERTAIN
from gateway.flow.image import Image

S = 1_000_000_000
QUALITIES = st.sampled_from([0, UNCERTAIN | OUT_OF_RANGE, BAD | COMM_LOST])


class Clock:
    def monotonic_ns(self) -> int:
        return 100 * S

    def wall_ns(self) -> int:
        return 1_700_000_000 * S

    def is_synchronised(self) -> bool:
        return True


@given(data=st.data())
def test_counts_are_those_of_the_points(data: st.DataObject) -> None:
    layouts = []
    for number in range(data.draw(st.integers(0, 3))):
        device = f"d{number}"
        tags = [
            Point(device=device, tag=f"t{i}", type=ValueType.INT) for i in range(data.draw(st.integers(1, 4)))
        ]
        layouts.append(Layout(device=device, scan="fast", points=tags))
    image = Image(layouts)
    for layout in layouts:
        for _ in range(data.draw(st.integers(0, 2))):
            columns = data.draw(st.none() | st.just((0,)))
            count = len(layout) if columns is None else 1
            quality: Any = data.draw(
                QUALITIES | st.lists(QUALITIES, min_size=count, max_size=count).map(tuple)
            )
            read_ns = data.draw(st.sampled_from([S, 99 * S]))
            batch = Batch(
                layout=layout, values=(1,) * count, quality=quality, columns=columns,
                kind=Kind.SCAN if columns is None else Kind.EVENT, received_ns=read_ns, monotonic_ns=read_ns,
            )  # fmt: skip
            image.update(batch)
    board = PointBoard({"fast": SimpleNamespace(every_ns=S)}, clock=Clock())  # type: ignore[dict-item]  # a stand-in
    shown = board.points(0, image.views(), epoch=1)().points
    levels = Counter(one.quality.partition("/")[0] for one in shown)
    counts = board.counts(image.views())
    assert (counts.good, counts.uncertain, counts.bad) == (levels["good"], levels["uncertain"], levels["bad"])
    assert counts.total == sum(map(len, layouts))
