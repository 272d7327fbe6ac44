"""What a survey found, as a configuration to begin with: addresses and raw values, nothing guessed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from drivers.modbus.address import PREFIXES
from drivers.modbus.link import ModbusLink
from drivers.modbus.survey.ranges import Range
from drivers.modbus.survey.survey import TableFound, UnitFound
from drivers.modbus.wire.pdu import READ_REGISTERS_MAX

_NAMES: Final = {table: prefix for prefix, table in PREFIXES.items()}
_TITLES: Final = {"hr": "holding registers", "ir": "input registers", "co": "coils", "di": "discrete inputs"}
ZEROS_MIN: Final = 8  # equal zeros in a row that become one line
LINES_MAX: Final = 250  # tags of one range that get a line each; more become arrays
_BITS_EACH_MAX: Final = 32
_WORDS_PER_LINE: Final = 8
_BITS_PER_LINE: Final = 50


def draft(link: ModbusLink, name: str, units: Sequence[UnitFound], notes: Iterable[str], *, made: str) -> str:
    """YAML that `gateway check` takes. `name`: of the link; `made`: when, for people."""
    lines = [
        f"# Made by `gateway scan modbus`, {made}: addresses and raw values as they were found.",
        "# Types, orders, scales and names are not known: each register stands alone.",
        *(f"# {note}" for note in notes),
        "version: 1",
        "gateway: {name: draft, site: draft}",
        "",
        "links:",
        f"  {name}: {{{', '.join(_link(link))}}}",
        "",
    ]
    if not units:
        return "\n".join([*lines, "# no unit answered", ""])
    lines.append("devices:")
    for unit in units:
        lines += _device(unit, name)
    return "\n".join(lines) + "\n"


def _link(link: ModbusLink) -> Iterable[str]:
    yield "driver: modbus"
    yield f"transport: {link.transport}"
    if link.host is not None:
        yield f'host: "{link.host}"'
    if link.port is not None:
        yield f"port: {_quoted(link.port)}"
        yield f"serial: {link.serial}"
    for key in ("ca", "cert", "key_file", "server_name"):
        if (value := getattr(link, key)) is not None:
            yield f"{key}: {_quoted(value)}"


def _device(unit: UnitFound, link: str) -> Iterable[str]:
    yield f"  unit-{unit.unit}:"
    yield f"    # answers in {unit.answer_ns / 1e6:.1f} ms"
    for key, value in unit.identity:
        yield f"    # {key}: {_comment(value)}"
    if unit.server_id:
        yield f"    # server id: {_comment(unit.server_id)}"
    yield f"    link: {link}"
    yield f"    unit: {unit.unit}"
    if unit.read_max < READ_REGISTERS_MAX:
        yield f"    max_registers: {unit.read_max}"
    has_tags = any(one.ranges for one in unit.tables)
    yield "    tags:" if has_tags else "    tags: {}"
    for one in unit.tables:
        prefix = _NAMES[one.table]
        for found in one.ranges:
            last = f"..{found.last}" if found.size > 1 else ""
            yield f"      # {_TITLES[prefix]} {found.first}{last}"
            yield from _bits(one, found, prefix) if one.table.has_bits else _registers(one, found, prefix)
        if one.note:
            yield f"      # {_TITLES[prefix]}: {one.note}"


def _registers(one: TableFound, found: Range, prefix: str) -> Iterable[str]:
    words = [one.data[at] for at in range(found.first, found.last + 1)]
    if sum(map(bool, words)) > LINES_MAX:
        yield _array(prefix, found.first, found.size, "type: uint16")
        yield from _dump(prefix, found.first, words)
        return
    at = 0
    while at < len(words):
        zeros = next((number for number, word in enumerate(words[at:]) if word), len(words) - at)
        address = found.first + at
        if zeros >= ZEROS_MIN:
            yield f"{_array(prefix, address, zeros, 'type: uint16')}  # all 0"
            at += zeros
            continue
        key, where = f"{prefix}{address}:", f'"{prefix}:{address}",'
        word = words[at]
        yield f"      {key:<8} {{at: {where:<11} type: uint16}}  # {word:5d}  0x{word:04x}"
        at += 1


def _bits(one: TableFound, found: Range, prefix: str) -> Iterable[str]:
    bits = [one.data[at] for at in range(found.first, found.last + 1)]
    if len(bits) <= _BITS_EACH_MAX:
        for number, bit in enumerate(bits, found.first):
            key, where = f"{prefix}{number}:", f'"{prefix}:{number}"'
            yield f"      {key:<8} {{at: {where}}}  # {bit}"
        return
    yield _array(prefix, found.first, found.size, "")
    if not any(bits):
        yield "      #   all 0"
        return
    for at in range(0, len(bits), _BITS_PER_LINE):
        digits = "".join(map(str, bits[at : at + _BITS_PER_LINE]))
        groups = " ".join(digits[part : part + 10] for part in range(0, len(digits), 10))
        yield f"      #   {prefix}:{found.first + at:<6} {groups}"


def _dump(prefix: str, first: int, words: Sequence[int]) -> Iterable[str]:
    """Registers in hexadecimal digits; lines of zeros are left out."""
    for at in range(0, len(words), _WORDS_PER_LINE):
        line = words[at : at + _WORDS_PER_LINE]
        if any(line):
            yield f"      #   {prefix}:{first + at:<6} {' '.join(f'{word:04x}' for word in line)}"


def _array(prefix: str, first: int, count: int, more: str) -> str:
    repeat = f"repeat: {{count: {count}, stride: 1, first: 0}}"
    return f'      {prefix}{first}.{{n}}: {{at: "{prefix}:{first}", {more + ", " if more else ""}{repeat}}}'


def _comment(text: str) -> str:
    return "".join(character if character.isprintable() else "·" for character in text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
