"""What a point looks like from outside: never an old value under a bad quality."""

from __future__ import annotations

import pytest

from gateway.api.source import point_view, rfc3339
from gateway.core.point import Point, Value, ValueType
from gateway.core.quality import BAD, COMM_LOST, GOOD, OUT_OF_RANGE, UNCERTAIN, Quality

POINT = Point(device="boiler", tag="state", type=ValueType.INT, unit="K", labels=((0, "off"), (3, "heating")))
AT_NS = 1_777_636_800_123_456_789  # 2026-05-01T12:00:00.123456789Z


def view(
    value: Value, quality: Quality = GOOD, *, source_ns: int | None = None, received_ns: int | None = AT_NS
):  # type: ignore[no-untyped-def]  # parametrized
    return point_view(
        POINT, value, quality, source_time_ns=source_ns, received_ns=received_ns, age_s=0.12345, changed=7
    )


def test_a_good_value_with_its_label() -> None:
    found = view(3)
    assert (found.name, found.value, found.text, found.unit) == ("boiler/state", 3, "heating", "K")
    assert (found.quality, found.age_s, found.changed) == ("good", 0.123, 7)
    assert (found.time, found.time_origin) == ("2026-05-01T12:00:00.123Z", "gateway")


def test_a_bad_value_is_null_whatever_was_read_before() -> None:
    found = view(3, BAD | COMM_LOST)
    assert (found.value, found.text, found.quality) == (None, None, "bad/comm-lost")


def test_a_doubtful_value_is_shown_with_its_doubt() -> None:
    found = view(99, UNCERTAIN | OUT_OF_RANGE)
    assert (found.value, found.text, found.quality) == (99, None, "uncertain/out-of-range")


def test_the_devices_time_stands_first_and_a_missing_one_is_not_invented() -> None:
    assert view(1, source_ns=AT_NS - 10**9).time == "2026-05-01T11:59:59.123Z"
    assert view(1, source_ns=AT_NS).time_origin == "device"
    never = view(None, BAD, received_ns=None)
    assert (never.time, never.time_origin) == (None, None)


@pytest.mark.parametrize(
    ("value", "shown"), [(b"\x01\xff", "01ff"), (float("nan"), None), (float("inf"), None)]
)
def test_values_json_has_no_word_for(value: Value, shown: str | None) -> None:
    assert view(value).value == shown


def test_times_before_1970_and_far_ahead() -> None:
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
    assert rfc3339(4_102_444_800_000_000_000) == "2100-01-01T00:00:00.000Z"
