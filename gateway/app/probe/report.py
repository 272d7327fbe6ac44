"""What a probe prints: the question, its answer, the values; for terminals of 80 columns and up."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from rich.table import Table
from rich.text import Text

from drivers.modbus.address import Address
from drivers.modbus.asker import Exchange
from drivers.modbus.decode import compile_block
from drivers.modbus.field import ORDERS, DataType, Field
from drivers.modbus.wire.client import Answer, Lost, Mismatched, Refused, TimedOut
from drivers.modbus.wire.describe import request_words, response_words
from drivers.modbus.wire.pdu import meaning, response_head, unpack_bits
from gateway.app.probe.question import Span

_BYTES_PER_LINE: Final = 24
_WIDE: Final = {
    2: (DataType.FLOAT32, DataType.UINT32, DataType.INT32),
    4: (DataType.FLOAT64, DataType.UINT64, DataType.INT64),
}


def asked(request: bytes, exchange: Exchange) -> list[Text]:
    """The request in words and as it went over the wire."""
    words = Text.assemble(("> ", "bold"), request_words(request))
    return [words, *(_hex(exchange.sent) or [Text("  not sent", style="dim")])]


def answered(request: bytes, exchange: Exchange, *, timeout_ns: int) -> list[Text]:
    """What came of it."""
    took = f"  {exchange.took_ns / 1e6:.1f} ms"
    event = exchange.event
    match event:
        case Answer():
            words, style = response_words(response_head(request)[0] + event.data, request), "green"
        case Refused():
            words, style = f"refused: {meaning(event.code)}", "yellow"
        case TimedOut():
            words, style = f"no answer within {timeout_ns / 1e6:g} ms", "red"
            took = ""
        case Mismatched():
            words, style = f"a wrong answer: found {event.found}, expected {event.expected}", "red"
        case Lost():
            words, style = "the connection was lost: the device closed it, or does not speak this here", "red"
        case _:
            words, style = "sent to all: nobody answers", "green"
    lines = [Text.assemble(("< ", "bold"), (words, style), (took, "dim"))]
    if exchange.received:
        if not isinstance(event, Answer | Refused):
            lines.append(Text("  what was heard:", style="dim"))
        lines += _hex(exchange.received)
    return lines


def values(span: Span, data: bytes) -> Iterable[Table]:
    """The items of an answer, as what they are or could be."""
    if span.field is not None:
        yield _typed(span, data)
    elif span.at.table.has_bits:
        yield _bits(span, data)
    else:
        yield _registers(span, data)
        if span.count in _WIDE:
            yield _guesses(span, data)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(
            f"  {column}" if not number else column, no_wrap=True, justify="left" if number < 2 else "right"
        )
    return table


def _typed(span: Span, data: bytes) -> Table:
    field = span.field
    assert field is not None
    kind = (
        field.type.value
        if field.count == 1 or not field.type.is_number
        else f"{field.type.value} {span.order}"
    )
    table = _table("address", "Modicon", "type", "raw", "value")
    size = field.count * 2
    for number, value in enumerate(span.decoded(data)):
        at = Address(span.at.table, span.at.offset + number * field.count)
        raw = "" if span.at.table.has_bits else data[number * size : (number + 1) * size].hex(" ", 2)
        shown = Text("no value", style="red") if value is None else Text(_shown(value))
        table.add_row(f"  {at}", at.modicon, kind, raw[:40], shown)
    return table


def _bits(span: Span, data: bytes) -> Table:
    table = _table("address", "Modicon", "value")
    for number, bit in enumerate(unpack_bits(data, span.count)):
        at = Address(span.at.table, span.at.offset + number)
        table.add_row(f"  {at}", at.modicon, "on" if bit else "off")
    return table


def _registers(span: Span, data: bytes) -> Table:
    table = _table("address", "Modicon", "hex", "uint16", "int16", "bits 15..0", "text")
    for number in range(span.count):
        at = Address(span.at.table, span.at.offset + number)
        word = data[2 * number : 2 * number + 2]
        unsigned, signed = struct.unpack(">H", word)[0], struct.unpack(">h", word)[0]
        bits = f"{unsigned:016b}"
        groups = " ".join(bits[at : at + 4] for at in range(0, 16, 4))
        text = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in word)
        table.add_row(f"  {at}", at.modicon, word.hex(), str(unsigned), str(signed), groups, text)
    return table


def _guesses(span: Span, data: bytes) -> Table:
    """Two or four registers as one value, in every order: people see which one is meant."""
    table = _table("as one", *ORDERS)
    for column in table.columns[1:]:
        column.justify = "right"
    for kind in _WIDE[span.count]:
        cells: list[str] = []
        for order in ORDERS.values():
            field = Field(type=kind, start=span.at.offset, order=order)
            decode = compile_block([field], table=span.at.table, start=span.at.offset, count=span.count)
            value = decode(data)[0][0]
            cells.append("-" if value is None else _shown(value))
        table.add_row(f"  {kind.value}", *cells)
    return table


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        f"{value:.7g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
    )


def _hex(data: bytes) -> list[Text]:
    lines = [data[at : at + _BYTES_PER_LINE].hex(" ") for at in range(0, len(data), _BYTES_PER_LINE)]
    return [Text(f"  {line}", style="dim") for line in lines]
