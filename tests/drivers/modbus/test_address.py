"""Addresses as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.address import Address, parse
from drivers.modbus.wire.pdu import Table

CO, DI, HR, IR = Table.COILS, Table.DISCRETE_INPUTS, Table.HOLDING_REGISTERS, Table.INPUT_REGISTERS


@pytest.mark.parametrize(
    ("at", "table", "offset"),
    [
        ("hr:109", HR, 109),
        ("ir:20", IR, 20),
        ("co:5", CO, 5),
        ("di:7", DI, 7),
        ("hr:0", HR, 0),
        ("hr:65535", HR, 65535),
        ("hr:0x6D", HR, 109),
        (" HR:5 ", HR, 5),
        (40101, HR, 100),
        ("40101", HR, 100),
        (400101, HR, 100),
        (40001, HR, 0),
        (49999, HR, 9998),
        (465536, HR, 65535),
        (30001, IR, 0),
        (365536, IR, 65535),
        (10001, DI, 0),
        (100001, DI, 0),
        ("00005", CO, 4),
        ("000005", CO, 4),
        ("065536", CO, 65535),
    ],
)
def test_addresses(at: object, table: Table, offset: int) -> None:
    assert parse(at) == Address(table, offset)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (40000, "found 40000, expected 40001 to 49999: Modicon numbers count from 1"),
        (400000, "found 400000, expected 400001 to 465536"),
        (465537, "found 465537, expected a protocol address"),
        ("465537", "found '465537', expected 400001 to 465536"),
        ("00000", "expected 00001 to 09999"),
        (50001, "found 50001, expected a number that begins with 0 (coil)"),
        (20001, "found 20001, expected a number that begins with 0 (coil)"),
        ("hr:70000", "found 'hr:70000', expected hr:0 to hr:65535"),
        ("hr:" + "9" * 5000, "expected hr:0 to hr:65535"),
        ("4x101", "found '4x101', expected a protocol address from 0 such as \"hr:109\""),
        ("xx:1", "found 'xx:1', expected one of co, di, hr, ir in front of the colon"),
        ("hr:-1", "found 'hr:-1', expected a protocol address"),
        ("hr:", "expected a protocol address"),
        ("hr:\uff11", "expected a protocol address"),
        ("", "found '', expected a protocol address"),
        (5, "found 5, expected five or six digits such as 40101 or 400101 (coils as a string"),
        ("4000001", "expected five or six digits"),
        (-40001, "found -40001, expected a protocol address"),
        (10**41, "found a number of more than 40 digits, expected"),
        (40101.5, "found the decimal number 40101.5, expected a protocol address"),
        (40101.0, "a bit of a register is written bit: 3"),
        (True, "found True (bool), expected a protocol address"),
        (None, "found None (NoneType), expected"),
        ([40101], "found [40101] (list), expected"),
        ("hr:x" * 5000, "…, expected"),
    ],
)
def test_what_is_no_address_is_said(at: object, message: str) -> None:
    with pytest.raises(ValueError, match="found") as caught:
        parse(at)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_number_too_long_to_print_is_said_too() -> None:
    with pytest.raises(ValueError, match="more than 40 digits"):
        parse(10**5000)


@settings(deadline=None)  # a shared machine may stall
@given(st.sampled_from(Table), st.integers(0, 65535))
def test_every_way_to_write_an_address_is_the_same_address(table: Table, offset: int) -> None:
    address = Address(table, offset)
    assert parse(str(address)) == parse(address.modicon) == address
    if table is not CO:
        assert parse(int(address.modicon)) == address


@settings(deadline=None)  # a shared machine may stall
@given(
    st.one_of(
        st.text(), st.integers(), st.floats(), st.from_regex(r"[a-z]{2}:[0-9]+"), st.from_regex(r"[0-9]{5,6}")
    )
)
def test_anything_is_an_address_or_a_value_error(at: object) -> None:
    try:
        address = parse(at)
    except ValueError:
        return
    assert 0 <= address.offset <= 65535
