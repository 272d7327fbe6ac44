"""CSV: a table of tags with a header, as spreadsheets and other servers write it.

Columns are known by many names (docs/importing.md lists them), those of Kepware's tag export among them.
Read for it: kepware.com/Products/feature-csvimportexport.htm and toolboxopc.com/html/csvimportexport.html.
`,`, `;` and tabs separate; a comma that separates nothing is a decimal comma.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any, Final

from drivers.modbus.address import Address, parse
from drivers.modbus.importing.basket import Basket, at, scale_of
from drivers.modbus.importing.fields import number_of
from drivers.modbus.wire.pdu import Table
from gateway.config.draft import Draft, DraftDevice
from gateway.config.reader import FILE_BYTES_MAX
from gateway.config.tree import Place
from gateway.core.errors import ConfigError

COLUMNS: Final = {
    "name": ("name", "tag", "tagname", "variable", "point", "signal"),
    "address": ("address", "at", "register", "reg", "modbusaddress", "registeraddress", "offsetaddress"),
    "type": ("type", "datatype", "format"),
    "table": ("table", "area", "registertype", "objecttype", "function", "functioncode", "fc"),
    "unit": ("unit", "units", "eu", "engunits", "engineeringunit", "engineeringunits"),
    "device": ("device", "devicename"),
    "slave": ("slave", "slaveid", "unitid", "station", "deviceid", "stationnumber"),
    "host": ("host", "ip", "ipaddress", "server"),
    "scale": ("scale", "factor", "gain", "multiplier", "resolution"),
    "divider": ("divider", "divisor"),
    "offset": ("offset",),
    "order": ("order", "byteorder", "wordorder", "endian"),
    "bit": ("bit", "bitnumber"),
    "length": ("length", "stringlength"),
    "access": ("access", "rw", "clientaccess", "writable", "readwrite"),
    "min": ("min", "minimum", "low"),
    "max": ("max", "maximum", "high"),
    "description": ("description", "comment", "desc", "meaning"),
    "scan": ("scanrate",),
    "scaling": ("scaling",),
    "raw_low": ("rawlow",), "raw_high": ("rawhigh",), "scaled_low": ("scaledlow",),
    "scaled_high": ("scaledhigh",),
    "invalid": ("invalid", "novalue"),
}  # fmt: skip
"""Ours → the words of a header, in lower case and without anything but letters and digits."""
IGNORED: Final = frozenset(
    {
        "respectdatatype",
        "scaleddatatype",
        "clamplow",
        "clamphigh",
        "negatevalue",
        "",
        "no",
        "nr",
        "size",
        "words",
    }
)
_TYPES: Final = {
    "bool": "bool", "boolean": "bool", "bit": "bool", "coil": "bool",
    "short": "int16", "int": "int16", "s16": "int16", "i16": "int16", "sint16": "int16", "integer": "int16",
    "word": "uint16", "uint": "uint16", "u16": "uint16", "ushort": "uint16",
    "long": "int32", "dint": "int32", "s32": "int32", "i32": "int32", "sint32": "int32",
    "dword": "uint32", "udint": "uint32", "u32": "uint32", "ulong": "uint32",
    "lint": "int64", "s64": "int64", "i64": "int64", "llong": "int64", "ulint": "uint64", "u64": "uint64",
    "qword": "uint64", "float": "float32", "real": "float32", "single": "float32", "f32": "float32",
    "double": "float64", "lreal": "float64", "f64": "float64", "char": "int8", "byte": "uint8", "u8": "uint8",
    "s8": "int8", "bcd": "bcd16", "lbcd": "bcd32", "text": "string",
}  # fmt: skip
_TABLES: Final = {
    "1": Table.COILS, "01": Table.COILS, "coil": Table.COILS, "coils": Table.COILS, "co": Table.COILS,
    "0x": Table.COILS,
    "2": Table.DISCRETE_INPUTS, "02": Table.DISCRETE_INPUTS, "discrete": Table.DISCRETE_INPUTS,
    "discreteinput": Table.DISCRETE_INPUTS, "di": Table.DISCRETE_INPUTS, "1x": Table.DISCRETE_INPUTS,
    "3": Table.HOLDING_REGISTERS, "03": Table.HOLDING_REGISTERS, "holding": Table.HOLDING_REGISTERS,
    "holdingregister": Table.HOLDING_REGISTERS, "hr": Table.HOLDING_REGISTERS, "4x": Table.HOLDING_REGISTERS,
    "4": Table.INPUT_REGISTERS, "04": Table.INPUT_REGISTERS, "input": Table.INPUT_REGISTERS,
    "inputregister": Table.INPUT_REGISTERS, "ir": Table.INPUT_REGISTERS, "3x": Table.INPUT_REGISTERS,
}  # fmt: skip
_ORDERS: Final = {
    "big": "ABCD", "bigendian": "ABCD", "be": "ABCD", "little": "CDAB", "littleendian": "DCBA", "le": "DCBA",
    "swapped": "CDAB", "wordswap": "CDAB",
}  # fmt: skip
_WRITABLE: Final = frozenset(
    {"rw", "readwrite", "w", "wo", "write", "writable", "1", "true", "yes", "r/w", "r-w", "read/write"}
)
_BIT: Final = re.compile(r"(.*\d)[.](\d{1,2})")
_ROWS_MAX: Final = 100_000


def read(data: bytes, file: str) -> Draft:
    """The draft of one table. Raises `ConfigError` where there is no header with a name and an address."""
    basket = Basket("the table", file)
    rows = list(csv.reader(io.StringIO(_text(data, file, basket), newline=""), delimiter=_delimiter(data)))
    if len(rows) > _ROWS_MAX:
        raise ConfigError(f"{file}:1:1: found {len(rows)} rows, expected at most {_ROWS_MAX}")
    header_at, columns = _header(rows, file, basket)
    for number, cells in enumerate(rows[header_at + 1 :], header_at + 2):
        row = {
            ours: cells[at].strip() for ours, at in columns.items() if at < len(cells) and cells[at].strip()
        }
        if row and not cells[0].lstrip().startswith("#"):
            _Row(row, Place(file, number, 1), basket).carry()
    return basket.close()


def _text(data: bytes, file: str, basket: Basket) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise ConfigError(f"{file}:1:1: found {len(data)} bytes, expected at most {FILE_BYTES_MAX}")
    if b"\0" in data:
        raise ConfigError(f"{file}:1:1: found a zero byte, expected a table as text, in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        basket.remark(
            Place(file, 1, 1), "the text is no UTF-8; it is read as Latin-1: look at units and names"
        )
        return data.decode("latin-1")


def _delimiter(data: bytes) -> str:
    """What separates: whichever of ; tab , is most frequent in the first line that has any."""
    for line in data.splitlines():
        counts = {mark: line.count(mark.encode()) for mark in (";", "\t", ",")}
        best = max(counts, key=lambda mark: counts[mark])
        if counts[best]:
            return best
    return ","


def _word(cell: str) -> str:
    return re.sub(r"[^a-z0-9]", "", cell.lower())


def _header(rows: list[list[str]], file: str, basket: Basket) -> tuple[int, dict[str, int]]:
    known = {word: ours for ours, words in COLUMNS.items() for word in words}
    for number, cells in enumerate(rows):
        words = [_word(cell) for cell in cells]
        columns: dict[str, int] = {}
        for index, word in enumerate(words):
            if word in known:
                columns.setdefault(known[word], index)
        if {"name", "address"} <= set(columns):
            for index, word in enumerate(words):
                if word not in known and word not in IGNORED:
                    place = Place(file, number + 1, 1)
                    basket.remark(
                        place, f"the column '{cells[index].strip()}' is not known and not carried over"
                    )
            return number, columns
    raise ConfigError(f"{file}:1:1: found no header, expected a line with the columns name and address")


class _Row:
    """One line of the table."""

    def __init__(self, row: dict[str, str], place: Place, basket: Basket) -> None:
        self._row = row
        self._place = place
        self._basket = basket
        self._name = row.get("name", "")

    def carry(self) -> None:
        """Make a tag of it, or say why not."""
        if not self._name:
            self._leave("it has no name")
            return
        found = self._address()
        if found is None:
            return
        address, bit = found
        try:
            keys = self._keys(address, bit)
            device = self._device()
        except ValueError as error:
            self._leave(str(error))
            return
        self._basket.tag(device, self._name, keys, self._place, self._row.get("description", ""))

    def _leave(self, why: str) -> None:
        self._basket.remark(self._place, f"'{self._name}' is left out: {why}")

    def _device(self) -> DraftDevice:
        """The device of the line; without host and slave the table describes a kind of device."""
        wanted, host = self._row.get("device", ""), self._row.get("host", "")
        slave = self._number("slave")
        if slave is not None and slave != int(slave):
            raise ValueError(f"found slave {slave}, expected a whole number")
        draft = self._basket.draft
        if not host and slave is None:
            name = wanted or "imported"
            return next((one for one in draft.templates.values() if one.comment == name), None) or (
                self._basket.template(name, comment=name)
            )
        if not host:
            self._basket.remark_once(self._place, "no column host: put the address of the device into links")
        if slave is None:
            self._basket.remark_once(
                self._place, "no slave: 1 is taken, which suits devices alone on their wire"
            )
        link = self._basket.link(host or "link", {"driver": "modbus", "host": host or "127.0.0.1"})
        return self._basket.device(wanted or host, link=link, unit=int(slave if slave is not None else 1))

    def _address(self) -> tuple[Address, int | None] | None:
        text = self._row.get("address", "")
        bit_cell = number_of(self._row.get("bit", ""))
        bit = None if bit_cell is None else int(bit_cell)
        if bit is None and (match := _BIT.fullmatch(text)) is not None:
            text, bit = match[1], int(match[2])
            said = "the number behind the point of an address is taken for a bit, 0 the least significant"
            self._basket.remark_once(self._place, said)
        table = _TABLES.get(self._row.get("table", "").lower().replace(" ", "").replace("_", ""))
        number = number_of(text)
        try:
            is_modicon = text.isdigit() and len(text) >= 5 and text[0] in "0134"
            if table is not None and number is not None and not is_modicon:
                return parse(at(table, int(number))), bit
            if table is None and number is not None and len(text) < 5:
                said = "addresses without a table are taken for holding registers, counted from 0"
                self._basket.remark_once(self._place, said)
                return parse(at(Table.HOLDING_REGISTERS, int(number))), bit
            return parse(text), bit
        except ValueError as error:
            self._leave(str(error))
            return None

    def _keys(self, address: Address, bit: int | None) -> dict[str, Any]:
        row = self._row
        keys: dict[str, Any] = {"at": str(address)}
        kind = row.get("type", "").lower().replace(" ", "")
        ours = _TYPES.get(kind, kind)
        if not address.table.has_bits:
            if bit is not None:
                keys["bit"] = bit
            else:
                keys["type"] = ours or None
            length = number_of(row.get("length", ""))
            if ours in {"string", "bits"} and length is not None:
                keys["length"] = int(length)
            keys |= (
                self._number_keys(ours) if ours not in {"string", "bits", "bool", ""} and bit is None else {}
            )
        keys["unit"] = row.get("unit")
        scan = number_of(row.get("scan", ""))
        is_site = "host" in row or "slave" in row  # a map names no scan classes
        keys["scan"] = self._basket.scan(int(scan * 10**6)) if scan and is_site else None
        if row.get("access", "").lower().replace(" ", "") in _WRITABLE and address.table.is_writable:
            limits = (
                {key: self._number(key) for key in ("min", "max")} if ours not in {"bool", "string"} else {}
            )
            keys["write"] = {key: value for key, value in limits.items() if value is not None}
        return keys

    def _number_keys(self, ours: str) -> dict[str, Any]:
        row = self._row
        order = row.get("order", "")
        found = _ORDERS.get(_word(order), order.upper()) if order else "ABCD"
        keys: dict[str, Any] = {"order": found if found != "ABCD" and ours not in {"int8", "uint8"} else None}
        if not order and ours.endswith(("32", "48", "64")):
            said = "no order of bytes for values of several registers: ABCD is taken; compare values"
            self._basket.remark_once(self._place, said)
        ends = [self._number(key) for key in ("raw_low", "raw_high", "scaled_low", "scaled_high")]
        scaling = row.get("scaling", "").lower()
        if scaling == "linear" and None not in ends:
            keys["scale"] = {"raw": ends[:2], "eu": ends[2:]}
        elif scaling not in {"", "none", "linear"}:
            raise ValueError(f"found the scaling '{row['scaling']}', expected Linear or none")
        else:
            multiplier, divider = self._number("scale"), self._number("divider")
            keys["scale"] = scale_of((multiplier or 1) / (divider or 1), self._number("offset") or 0)
        invalid = [number_of(one) for one in re.split(r"[\s|/]+", row.get("invalid", "")) if one]
        keys["invalid"] = [one for one in invalid if one is not None] or None
        return keys

    def _number(self, key: str) -> float | int | None:
        text = self._row.get(key, "")
        if not text:
            return None
        number = number_of(text)
        if number is None and text.count(",") == 1:
            number = number_of(text.replace(",", "."))
        if number is None:
            raise ValueError(f"found {key} {text!r}, expected a number")
        return number
