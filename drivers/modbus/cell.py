"""The expressions that make one value of one field out of what `struct` gave."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final, NamedTuple

from drivers.modbus import moment
from drivers.modbus.field import SHAPES, Beyond, Charset, DataType, Family, Field
from drivers.modbus.scale import POWER_MAX, Scale, ScalePower, ScaleTable, by_power
from gateway.core.quality import BAD, GOOD, INVALID, OUT_OF_RANGE, UNCERTAIN, Quality

NOT_A_VALUE: Final = BAD | INVALID
BEYOND_RANGE: Final = UNCERTAIN | OUT_OF_RANGE
FAR_BEYOND: Final = BAD | OUT_OF_RANGE
_FLOAT_WHOLE_MAX: Final = 1 << 53  # every integer up to it is a float
_NO_MOD10K: Final = 10**18  # beyond any of the type


class Fault(NamedTuple):
    """A condition under which a value is not good, and its opposite ("" where it is checked in sum)."""

    bad: str
    good: str
    quality: Quality


class Cell:
    """Over the raw variable of one field: statements, then the value, then what may be wrong with it."""

    def __init__(self, column: int, field: Field, raw: str, *, is_reversed: bool, power: str = "") -> None:
        """`is_reversed`: plain bytes come last byte first. `power`: the scale factor's variable."""
        self.column: Final = column
        self.prepare: Final[list[str]] = []
        self.faults: Final[list[Fault]] = []
        self.finite: str = ""  # a float whose finiteness is checked together with others
        self.names: Final[dict[str, object]] = {}  # what the expressions call
        self.value: str = raw
        if field.type.is_bcd:
            self._sentinels(field)  # as they stand in the registers
        self._read(field, raw, f"{raw}[::-1]" if is_reversed else raw, "little" if is_reversed else "big")
        if not field.type.is_bcd:
            self._sentinels(field)
        if field.bits is not None:
            low, high = field.bits
            self._assign("f", f"{self.value} >> {low} & {(1 << (high - low + 1)) - 1}")
        if isinstance(field.scale, ScaleTable):
            if field.type.is_float:
                self._finite()
            self._by_table(field.scale)
        elif isinstance(field.scale, ScalePower):
            self._check(
                f"not -{POWER_MAX} <= {power} <= {POWER_MAX}", f"-{POWER_MAX} <= {power} <= {POWER_MAX}"
            )
            self.names["by_power"] = by_power
            self._assign("v", f"by_power({self.value}, {power})")
        elif field.scale is not None:
            self._by_line(field.scale, is_float=field.type.is_float)
        if field.type.is_float and not self.finite:
            self._finite()
        self._limit(field)

    @property
    def is_checked(self) -> bool:
        """Whether anything can be wrong."""
        return bool(self.faults)

    @property
    def checks_finite_only(self) -> bool:
        """Whether being a number is all that is asked of it."""
        return bool(self.finite) and len(self.faults) == 1

    # How it is read

    def _read(self, field: Field, raw: str, straight: str, endian: str) -> None:
        kind = field.type
        shape = SHAPES.get(kind)
        match kind.family:
            case Family.BOOL:
                self.value = f"{raw} & {1 << (field.bit or 0)} != 0"
            case Family.WHOLE if kind in {DataType.INT24, DataType.UINT24}:
                low = f"{raw} & 0xFFFFFF"
                self._assign("n", low if kind is DataType.UINT24 else f"({low} ^ 0x800000) - 0x800000")
            case Family.WHOLE if shape is not None and shape.code is None:
                self.names["whole"] = int.from_bytes
                self._assign("n", f"whole({raw}, {endian!r}, signed={shape.low < 0})")
            case Family.BCD:
                self.names["bcd"] = _bcd
                self._assign("b", f"bcd({raw})")
                self._check(f"{self.value} < 0", f"{self.value} >= 0")
            case Family.MOD10K:
                self.names["mod10k"] = _mod10k
                self._assign("m", f"mod10k({straight})")
                self._check(f"{self.value} == {_NO_MOD10K}", f"{self.value} != {_NO_MOD10K}")
            case Family.BITS:
                mask = (1 << field.length) - 1
                self.names["whole"] = int.from_bytes
                number = f"whole({raw}, {endian!r})" if field.count == 3 else raw
                self._assign("n", f"{number} & {mask}")
            case Family.TIME:
                self._time(field, raw)
            case Family.STRING:
                self.names[f"text_{field.charset.name}"] = _text_decoder(field.charset)
                self._assign("s", f"text_{field.charset.name}({raw})")
                self._check_text(field)
            case _:
                pass

    def _time(self, field: Field, raw: str) -> None:
        name = f"read_{field.type.value}"
        self.names[name] = getattr(moment, name)
        self._assign("t", f"{name}({raw})")
        if field.type is not DataType.UNIX32:
            self._check(f"{self.value} is None", f"{self.value} is not None")

    def _check_text(self, field: Field) -> None:
        if field.empty_is_invalid:
            self._check(f"not {self.value}", self.value)
        else:
            self._check(f"{self.value} is None", f"{self.value} is not None")

    def _sentinels(self, field: Field) -> None:
        sentinels = field.sentinels()
        if sentinels:
            listed = tuple_text([repr(number) for number in sentinels])
            self._check(f"{self.value} in {listed}", f"{self.value} not in {listed}")

    def _check(self, bad: str, good: str, quality: Quality = NOT_A_VALUE) -> None:
        self.faults.append(Fault(bad, good, quality))

    def _finite(self) -> None:
        self.finite = self.value
        self._check(f"{self.value} - {self.value} != 0.0", "")

    def _assign(self, letter: str, expression: str) -> None:
        name = f"{letter}{self.column}"
        self.prepare.append(f"{name} = {expression}")
        self.value = name

    # How it is scaled

    def _by_line(self, scale: Scale, *, is_float: bool) -> None:
        numerator, shift, denominator = scale.numerator, scale.shift, scale.denominator
        if is_float and max(abs(numerator), abs(shift), denominator) > _FLOAT_WHOLE_MAX:
            # As floats the three would lose digits, or overflow on the way.
            parts = (float(Fraction(numerator, denominator)), float(Fraction(shift, denominator)), 1.0)
        else:
            parts = (numerator, shift, denominator)
        factor_text, shift_text, divisor_text = (repr(float(part) if is_float else part) for part in parts)
        text = self.value
        if parts[0] != 1:
            text += f" * {factor_text}"
        if parts[1]:
            text = f"({text} + {shift_text})"
        if parts[2] != 1:
            text += f" / {divisor_text}"
        self._assign("v", text)

    def _by_table(self, table: ScaleTable) -> None:
        span = f"{table.raw[0]!r} <= {self.value} <= {table.raw[-1]!r}"
        self._check(f"not {span}", span, FAR_BEYOND)
        name = f"table{self.column}"
        self.names[name] = table.value
        self._assign("v", f"{name}({self.value})")

    def _limit(self, field: Field) -> None:
        for limit, bad, good, what in (
            (field.low, "<", ">=", field.below),
            (field.high, ">", "<=", field.above),
        ):
            if limit is not None and what is not Beyond.GOOD:
                quality = FAR_BEYOND if what is Beyond.BAD else BEYOND_RANGE
                self._check(f"{self.value} {bad} {limit!r}", f"{self.value} {good} {limit!r}", quality)


def checked(cells: list[Cell], result: str) -> list[str]:
    """All good in one condition, else one by one."""
    lines = [line for cell in cells for line in cell.prepare]
    conditions = [fault.good for cell in cells for fault in cell.faults if fault.good]
    floats = [cell.finite for cell in cells if cell.finite]
    if floats:
        conditions.append(f"finite({' + '.join(floats)})")
    if not conditions:
        return [*lines, f"return {result}, 0"]
    return [*lines, f"if {' and '.join(conditions)}:", f"    return {result}, 0", *one_by_one(cells)]


def one_by_one(cells: list[Cell]) -> list[str]:
    """Each value with a quality of its own."""
    lines: list[str] = []
    values: list[str] = []
    qualities: list[str] = []
    for cell in cells:
        if not cell.is_checked:
            values.append(cell.value)
            qualities.append(str(GOOD))
            continue
        value, quality = f"x{cell.column}", f"q{cell.column}"
        lines.append(f"{value}, {quality} = {cell.value}, {GOOD}")
        for number, fault in enumerate(cell.faults):
            outcome = f"{value}, {quality} = None, {fault.quality}"
            if not fault.quality & BAD:
                outcome = f"{quality} = {fault.quality}"
            lines += [f"{'elif' if number else 'if'} {fault.bad}:", f"    {outcome}"]
        values.append(value)
        qualities.append(quality)
    # A sum of good floats can overflow: then all turn out good here.
    lines.append(f"qualities = {tuple_text(qualities)}")
    return [*lines, f"return {tuple_text(values)}, qualities if any(qualities) else {GOOD}"]


def tuple_text(items: list[str]) -> str:
    """As source."""
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"


def _bcd(raw: int) -> int:
    """The number whose decimal digits are the nibbles, or -1."""
    digits = f"{raw:x}"
    return int(digits) if digits.isdecimal() else -1


def _mod10k(data: bytes) -> int:
    """Registers of four decimal digits each, all of one sign, most significant first; else _NO_MOD10K."""
    number, is_negative, is_positive = 0, False, False
    for place in range(0, len(data), 2):
        part = int.from_bytes(data[place : place + 2], "big", signed=True)
        is_negative |= part < 0
        is_positive |= part > 0
        if not -10_000 < part < 10_000 or (is_negative and is_positive):
            return _NO_MOD10K
        number = number * 10_000 + part
    return number


def _text_decoder(charset: Charset) -> Callable[[bytes], str | None]:
    name = charset.codec

    def decode(raw: bytes) -> str | None:
        try:
            return raw.decode(name).rstrip("\0 ")
        except UnicodeDecodeError:
            return None

    return decode
