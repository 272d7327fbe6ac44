"""float32 values are shown with the digits the device meant, and no others."""

from __future__ import annotations

import struct
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus.scan import BlockRead, shortest_singles

SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)


def test_false_digits_are_gone() -> None:
    assert shortest_singles([231.32960510253906, 0.10000000149011612, 100.0]) == [231.3296, 0.1, 100.0]


@given(st.lists(SINGLES, max_size=20))
def test_the_value_is_still_the_same_float32_and_no_shorter_decimal_is(values: list[float]) -> None:
    for value, short in zip(values, shortest_singles(values), strict=True):
        assert struct.pack("<f", short) == struct.pack("<f", value)
        digits = len(Decimal(repr(short)).normalize().as_tuple().digits)
        if digits > 7:
            fewer = float(f"{value:.7g}")
            assert abs(fewer) > 3.4e38 or struct.pack("<f", fewer) != struct.pack("<f", value)


def test_only_what_changed_is_worked_on_and_a_lost_value_leaves_nothing_behind() -> None:
    def decode(data: bytes) -> tuple[tuple[float | None, ...], int]:
        return tuple(None if v != v else v for v in struct.unpack("<2f", data)), 0

    block = BlockRead(block=None, pdu=b"", decode=decode, columns=(0, 1), singles=(0, 1))
    block.take(struct.pack("<2f", 0.1, 0.2))
    assert block.values == (0.1, 0.2)
    block.take(struct.pack("<2f", 0.1, 0.3))
    assert block.values == (0.1, 0.3)
    block.take(struct.pack("<2f", float("nan"), 0.3))
    assert block.values == (None, 0.3)
    block.fail(1)
    block.take(struct.pack("<2f", 0.1, 0.3))
    assert block.values == (0.1, 0.3)
