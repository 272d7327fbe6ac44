"""Addresses as people write them: `hr:109` (protocol, from 0) and `40110` (Modicon, from 1)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from drivers.modbus.wire.pdu import ADDRESS_COUNT, Table

PREFIXES: Final = {
    "co": Table.COILS,
    "di": Table.DISCRETE_INPUTS,
    "hr": Table.HOLDING_REGISTERS,
    "ir": Table.INPUT_REGISTERS,
}
_NAMES: Final = {table: prefix for prefix, table in PREFIXES.items()}
_MODICON: Final = {
    "0": Table.COILS,
    "1": Table.DISCRETE_INPUTS,
    "3": Table.INPUT_REGISTERS,
    "4": Table.HOLDING_REGISTERS,
}
_DIGITS: Final = {table: digit for digit, table in _MODICON.items()}
_PROTOCOL: Final = re.compile(r"(?P<prefix>[a-z]+):(?P<offset>0x[0-9a-f]+|[0-9]+)", re.ASCII)
_EXPECTED: Final = 'a protocol address from 0 such as "hr:109", or a Modicon number from 1 such as 40110'
_MODICON_MAX: Final = 465536
_TEXT_MAX: Final = 40  # characters of a wrong address that an error message repeats


class Address(NamedTuple):
    """One item of one table. `offset` is what goes over the wire: 0..65535."""

    table: Table
    offset: int

    def __str__(self) -> str:
        return f"{_NAMES[self.table]}:{self.offset}"

    @property
    def modicon(self) -> str:
        """The same address as a Modicon number: five digits where they suffice, else six."""
        number = self.offset + 1
        return f"{_DIGITS[self.table]}{number:0{4 if number <= 9999 else 5}d}"


def parse(at: object) -> Address:
    """Understand an address: a string, or an integer for Modicon numbers of the tables 1, 3 and 4.

    Raises ValueError with what was found and what was expected, for people.
    """
    if isinstance(at, bool) or not isinstance(at, int | str):
        raise ValueError(_describe_wrong_type(at))
    if isinstance(at, int) and not 0 <= at <= _MODICON_MAX:
        raise ValueError(f"found {_shown(at)}, expected {_EXPECTED}")
    text = str(at).strip().lower()
    if match := _PROTOCOL.fullmatch(text):
        return _from_protocol(at, match["prefix"], match["offset"])
    if text.isascii() and text.isdigit():
        return _from_modicon(at, text)
    raise ValueError(f"found {_shown(at)}, expected {_EXPECTED}")


def _from_protocol(at: object, prefix: str, offset_text: str) -> Address:
    table = PREFIXES.get(prefix)
    if table is None:
        raise ValueError(f"found {_shown(at)}, expected one of {', '.join(PREFIXES)} in front of the colon")
    base = 16 if offset_text.startswith("0x") else 10
    # A number this long is out of range whatever it is, and Python refuses to convert very long ones.
    offset = int(offset_text, base) if len(offset_text) < _TEXT_MAX else ADDRESS_COUNT
    if offset >= ADDRESS_COUNT:
        raise ValueError(f"found {_shown(at)}, expected {prefix}:0 to {prefix}:{ADDRESS_COUNT - 1}")
    return Address(table, offset)


def _from_modicon(at: object, text: str) -> Address:
    if len(text) not in {5, 6}:
        hint = ' (coils as a string with leading zeros, "00005", or "co:4")' if len(text) < 5 else ""
        raise ValueError(f"found {_shown(at)}, expected five or six digits such as 40101 or 400101{hint}")
    table = _MODICON.get(text[0])
    if table is None:
        raise ValueError(
            f"found {_shown(at)}, expected a number that begins with 0 (coil), 1 (discrete input), "
            "3 (input register) or 4 (holding register)"
        )
    number = int(text[1:])
    number_max = 9999 if len(text) == 5 else ADDRESS_COUNT
    if not 1 <= number <= number_max:
        first, last = f"{text[0]}{1:0{len(text) - 1}d}", f"{text[0]}{number_max}"
        raise ValueError(f"found {_shown(at)}, expected {first} to {last}: Modicon numbers count from 1")
    return Address(table, number - 1)


def _describe_wrong_type(at: object) -> str:
    if isinstance(at, float):
        return f"found the decimal number {at!r}, expected {_EXPECTED}; a bit of a register is written bit: 3"
    return f"found {_shown(at)} ({type(at).__name__}), expected {_EXPECTED}"


def _shown(at: object) -> str:
    # Integers of any length may come out of YAML; repr() of a huge one raises.
    if isinstance(at, int) and not isinstance(at, bool) and abs(at) >= 10**_TEXT_MAX:
        return f"a number of more than {_TEXT_MAX} digits"
    text = repr(at)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
