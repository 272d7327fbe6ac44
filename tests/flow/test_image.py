"""The last-value image."""

from __future__ import annotations

from gateway.core import quality as q
from gateway.core.batch import Batch, Kind
from gateway.core.point import Layout, Point, ValueType
from gateway.flow.image import Image


def layout() -> Layout:
    return Layout(device="d", scan="s", points=[Point(device="d", tag=t, type=ValueType.INT) for t in "abc"])


def test_before_the_first_read_a_point_is_bad_and_has_no_value() -> None:
    reading = Image([layout()]).find("d", "a")
    assert reading is not None
    assert (reading.value, q.describe(reading.quality), reading.received_ns) == (None, "bad/not-yet-read", 0)


def test_a_view_stays_as_it_was() -> None:
    where = layout()
    image = Image([where])
    image.update(Batch(layout=where, values=(1, 2, 3), received_ns=10, monotonic_ns=11))
    event = Batch(layout=where, values=(9,), columns=(1,), received_ns=20, monotonic_ns=21, kind=Kind.EVENT)
    image.update(event)
    (view,) = image.views()
    before = list(view.readings())
    assert before == list(image.readings())
    event = Batch(layout=where, values=(7,), columns=(0,), received_ns=30, monotonic_ns=31, kind=Kind.EVENT)
    image.update(event)
    image.update(Batch(layout=where, values=(4, 5, 6), received_ns=40, monotonic_ns=41))
    assert list(view.readings()) == before


def test_unknown_points_are_none() -> None:
    image = Image([layout()])
    assert image.find("d", "x") is None
    assert image.point("e", "a") is None


def test_a_scan_and_a_later_event_each_with_its_own_time_and_quality() -> None:
    where = layout()
    image = Image([where])
    image.update(Batch(layout=where, values=(1, 2, 3), received_ns=10))
    image.update(
        Batch(
            layout=where,
            values=(7, 8),
            columns=(1, 1),
            quality=(q.GOOD, q.UNCERTAIN | q.SUBSTITUTED),
            source_time_ns=(18, 19),
            received_ns=20,
            kind=Kind.EVENT,
        )
    )
    seen = {
        r.point.tag: (r.value, q.describe(r.quality), r.received_ns, r.source_time_ns)
        for r in image.readings()
    }
    assert seen == {
        "a": (1, "good", 10, None),
        "b": (8, "uncertain/substituted", 20, 19),
        "c": (3, "good", 10, None),
    }


def test_only_what_changed_since() -> None:
    first, second = (
        layout(),
        Layout(device="e", scan="s", points=[Point(device="e", tag="a", type=ValueType.INT)]),
    )
    image = Image([first, second])
    image.update(Batch(layout=first, values=(1, 2, 3), received_ns=10))
    mark = image.change
    image.update(Batch(layout=second, values=(4,), received_ns=11))
    assert [r.point.name for r in image.readings(since=mark)] == ["e/a"]


def test_a_new_image_keeps_what_is_known_of_layouts_that_stay() -> None:
    first, second = (
        layout(),
        Layout(device="e", scan="s", points=[Point(device="e", tag="a", type=ValueType.INT)]),
    )
    old = Image([first])
    old.update(Batch(layout=first, values=(1, 2, 3), received_ns=10))
    new = Image([first, second])
    new.adopt(old)
    kept, fresh = new.find("d", "b"), new.find("e", "a")
    assert kept is not None
    assert kept.value == 2
    assert fresh is not None
    assert q.describe(fresh.quality) == "bad/not-yet-read"
