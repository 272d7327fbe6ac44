"""PDUs against the examples of the standard and a real capture."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.modbus.wire import pdu
from drivers.modbus.wire.pdu import ExceptionCode, Table
from gateway.core.errors import LocalProtocolError

# Request, response: the example tables of MODBUS Application Protocol Specification V1.1b3, by clause.
EXAMPLES = {
    "6.1 read coils 20-38": ("01 0013 0013", "01 03 CD6B05"),
    "6.2 read discrete inputs 197-218": ("02 00C4 0016", "02 03 ACDB35"),
    "6.3 read holding registers 108-110": ("03 006B 0003", "03 06 022B 0000 0064"),
    "6.4 read input register 9": ("04 0008 0001", "04 02 000A"),
    "6.5 write coil 173 on": ("05 00AC FF00", "05 00AC FF00"),
    "6.6 write register 2": ("06 0001 0003", "06 0001 0003"),
    "6.11 write ten coils from 20": ("0F 0013 000A 02 CD01", "0F 0013 000A"),
    "6.12 write two registers from 2": ("10 0001 0002 04 000A 0102", "10 0001 0002"),
    "6.16 mask write register 5": ("16 0004 00F2 0025", "16 0004 00F2 0025"),
}


def example(clause: str) -> tuple[bytes, bytes]:
    (texts,) = (texts for name, texts in EXAMPLES.items() if name.startswith(clause + " "))
    request, response = (bytes.fromhex(text) for text in texts)
    return request, response


COILS_20_TO_29 = (True, False, True, True, False, False, True, True, True, False)  # clause 6.11, written out


@pytest.mark.parametrize(
    ("clause", "built"),
    [
        ("6.1", pdu.read(Table.COILS, start=19, count=19)),
        ("6.2", pdu.read(Table.DISCRETE_INPUTS, start=196, count=22)),
        ("6.3", pdu.read(Table.HOLDING_REGISTERS, start=107, count=3)),
        ("6.4", pdu.read(Table.INPUT_REGISTERS, start=8, count=1)),
        ("6.5", pdu.write_single_coil(172, on=True)),
        ("6.6", pdu.write_single_register(1, 3)),
        ("6.11", pdu.write_multiple_coils(19, COILS_20_TO_29)),
        ("6.12", pdu.write_multiple_registers(1, bytes.fromhex("000A0102"))),
        ("6.16", pdu.mask_write_register(4, and_mask=0xF2, or_mask=0x25)),
    ],
)
def test_requests_are_those_of_the_standard(clause: str, built: bytes) -> None:
    assert built == example(clause)[0]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_answers_of_the_standard_are_those_expected(name: str) -> None:
    request, response = example(name.split(maxsplit=1)[0])
    head, size = pdu.response_head(request)
    assert response.startswith(head)
    assert len(response) == size


def test_bits_are_packed_from_the_least_significant_as_in_clause_6_1() -> None:
    status = pdu.unpack_bits(bytes.fromhex("CD6B05"), 19)
    assert status[:8] == (True, False, True, True, False, False, True, True)  # outputs 20 to 27, CD
    assert status[16:] == (True, False, True)  # outputs 36 to 38, 05
    assert pdu.pack_bits(status) == bytes.fromhex("CD6B05")


@settings(deadline=None)  # a shared machine may stall
@given(st.lists(st.booleans(), max_size=2000))
def test_packed_bits_come_back(bits: list[bool]) -> None:
    packed = pdu.pack_bits(bits)
    assert len(packed) == (len(bits) + 7) // 8
    assert pdu.unpack_bits(packed, len(bits)) == tuple(bits)


@pytest.mark.parametrize(
    ("table", "count_max"),
    [
        (Table.COILS, 2000),
        (Table.DISCRETE_INPUTS, 2000),
        (Table.HOLDING_REGISTERS, 125),
        (Table.INPUT_REGISTERS, 125),
    ],
)
def test_reads_end_at_the_limits_of_the_standard(table: Table, count_max: int) -> None:
    request = pdu.read(table, start=0x10000 - count_max, count=count_max)
    head, size = pdu.response_head(request)
    assert head[1] == size - 2
    assert size <= pdu.PDU_SIZE_MAX
    with pytest.raises(LocalProtocolError, match=f"expected 1..{count_max}"):
        pdu.read(table, start=0, count=count_max + 1)
    with pytest.raises(LocalProtocolError, match="expected 1"):
        pdu.read(table, start=0, count=0)
    with pytest.raises(LocalProtocolError, match=r"0\.\.65535"):
        pdu.read(table, start=0x10000 - count_max + 1, count=count_max)


def test_writes_end_at_the_limits_of_the_standard() -> None:
    assert len(pdu.write_multiple_coils(0, [True] * 1968)) == 6 + 246
    assert len(pdu.write_multiple_registers(0, bytes(246))) == 6 + 246
    for wrong in (
        lambda: pdu.write_multiple_coils(0, [True] * 1969),
        lambda: pdu.write_multiple_coils(0, []),
        lambda: pdu.write_multiple_registers(0, bytes(248)),
        lambda: pdu.write_multiple_registers(0, b""),
        lambda: pdu.write_multiple_registers(0, b"\x00"),
        lambda: pdu.write_multiple_registers(0xFFFF, bytes(4)),
        lambda: pdu.write_single_register(0, 0x10000),
        lambda: pdu.write_single_register(0, -1),
        lambda: pdu.write_single_register(0x10000, 0),
        lambda: pdu.write_single_coil(-1, on=True),
        lambda: pdu.mask_write_register(0, and_mask=0x10000, or_mask=0),
        lambda: pdu.mask_write_register(0, and_mask=0, or_mask=-1),
    ):
        with pytest.raises(LocalProtocolError, match="expected"):
            wrong()


@settings(deadline=None)  # a shared machine may stall
@given(st.binary(max_size=300))
def test_a_client_refuses_requests_it_did_not_build(data: bytes) -> None:
    try:
        head, size = pdu.response_head(data)
    except LocalProtocolError:
        return
    assert head[0] == data[0]
    assert size <= pdu.PDU_SIZE_MAX


def test_exceptions_have_a_meaning_for_people() -> None:
    assert pdu.meaning(2) == "exception 2 (illegal data address: the device has no such register or bit)"
    assert "silent" in pdu.meaning(0x0B)
    assert pdu.meaning(0x55).startswith("exception 85 (not defined by the standard")
    for code in ExceptionCode:
        assert "not defined" not in pdu.meaning(code)
    # Clause 7: function 01 refused with illegal data address.
    assert pdu.exception_response(1, ExceptionCode.ILLEGAL_DATA_ADDRESS) == bytes.fromhex("81 02")


def test_tables_say_what_they_are() -> None:
    assert [table.has_bits for table in Table] == [True, True, False, False]
    assert [table.is_writable for table in Table] == [True, False, True, False]
