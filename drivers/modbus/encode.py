"""Engineering values to the registers and bits that are written: the exact inverse of `decode`."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Final

from drivers.modbus import moment
from drivers.modbus.field import SHAPES, Charset, DataType, Endian, Family, Field, Padding, through
from drivers.modbus.scale import ScalePower, is_finite, shown
from drivers.modbus.wire.pdu import pack_bits
from gateway.core.point import Value

_TEXT_FAMILIES: Final = {Family.STRING, Family.TIME}


def encode(field: Field, value: Value, *, low: float | None = None, high: float | None = None) -> bytes:
    """The registers to write for an engineering value; for coils their bits, packed.

    `low` and `high` bound the engineering value. Raises ValueError, for people, for what cannot be written:
    wrong Python type, NaN, beyond the bounds or the type, a sentinel, a string that is too long. A scaled
    value is rounded to the nearest raw one, half away from zero. Of a field that owns only some bits of its
    register (`field.mask`), the others are 0: they are not to be written.
    """
    family = field.type.family
    if family is Family.BOOL:
        if field.bit is None:
            return pack_bits((_as_bool(value),))
        return _in_order(field, (field.mask if _as_bool(value) else 0).to_bytes(2, "big"))
    if family in _TEXT_FAMILIES:
        return _in_order(field, _encode_text(field, _as_text(value)))
    number = _as_number(value)
    if (low is not None and number < low) or (high is not None and number > high):
        raise ValueError(f"found {value!r}, expected {_span_text(low, high)}")
    if family is Family.FLOAT:
        raw = _float_raw(field, number)
        _refuse_sentinel(field, value, raw)
        return _in_order(field, struct.pack(f">{SHAPES[field.type].code}", raw))
    whole = _whole_raw(field, number)
    if field.of_coils:
        return whole.to_bytes((field.length + 7) // 8, "little")
    _refuse_sentinel(field, value, int(str(whole), 16) if family is Family.BCD else whole)
    return _in_order(field, _whole_bytes(field, whole))


def wire_mask(field: Field) -> int:
    """`field.mask` as its register travels; 0 where the field owns whole registers."""
    mask = field.mask
    return mask if field.order.byte is Endian.BIG else (mask & 0xFF) << 8 | mask >> 8


def _as_bool(value: Value) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in {0, 1}:
        return value == 1
    raise ValueError(f"found {value!r}, expected true or false (or 1 or 0)")


def _as_text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"found {value!r}, expected a string")
    return value


def _as_number(value: Value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"found {value!r}, expected a number")
    if not is_finite(value):
        raise ValueError(f"found {shown(value)}, expected a finite number")
    return value


def _refuse_sentinel(field: Field, value: Value, raw: float) -> None:
    if raw in field.sentinels():
        raise ValueError(f"found {value!r} (raw {raw!r}), expected another: this one is declared invalid")


def _raw(field: Field, number: float) -> Fraction:
    exact = Fraction(repr(number))
    if isinstance(field.scale, ScalePower):
        raise ValueError("found a value whose scale factor is in the device, expected none to be written")
    return field.scale.inverse(exact) if field.scale is not None else exact


def _float_raw(field: Field, number: float) -> float:
    try:
        raw = float(number if field.scale is None else _raw(field, number))
    except OverflowError:
        raise ValueError(f"found {number!r}, expected a number that fits {field.type.value}") from None
    return through(field.type, raw)


def _whole_raw(field: Field, number: float) -> int:
    exact = _raw(field, number)
    if field.scale is None and exact.denominator != 1:
        raise ValueError(f"found {number!r}, expected a whole number: {field.type.value} has no scale")
    raw = math.floor(abs(exact) + Fraction(1, 2))
    raw = raw if exact >= 0 else -raw
    low, high = raw_span(field)
    if not low <= raw <= high:
        where = f"raw {low}..{high} ({field.type.value})"
        raise ValueError(f"found {number!r}{f', raw {raw}' if field.scale else ''}, expected {where}")
    return raw


def raw_span(field: Field) -> tuple[int, int]:
    """The lowest and the highest whole number that it can hold."""
    if field.type is DataType.BITS:
        return 0, (1 << field.length) - 1
    if field.bits is not None:
        return 0, (1 << (field.bits[1] - field.bits[0] + 1)) - 1
    shape = SHAPES[field.type]
    return shape.low, shape.high


def _whole_bytes(field: Field, raw: int) -> bytes:
    """Most significant byte first."""
    size = field.count * 2
    if field.type.family is Family.MOD10K:
        return _mod10k_bytes(raw, field.count)
    if field.type.is_bcd:
        raw = int(str(raw), 16)
    if field.bits is not None:
        raw <<= field.bits[0]
    if field.mask > 0xFF and field.type in {DataType.INT8, DataType.UINT8}:
        raw = (raw & 0xFF) << 8
    elif field.type is DataType.INT8:
        raw &= 0xFF
    return raw.to_bytes(size, "big", signed=raw < 0)


def _mod10k_bytes(raw: int, registers: int) -> bytes:
    """Four decimal digits in each register, every one with the sign of the number."""
    sign, rest, parts = (-1 if raw < 0 else 1), abs(raw), []
    for _ in range(registers):
        rest, part = divmod(rest, 10_000)
        parts.append(sign * part)
    return struct.pack(f">{registers}h", *reversed(parts))


def _span_text(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _encode_text(field: Field, text: str) -> bytes:
    match field.type:
        case DataType.UNIX32:
            return moment.write_unix32(text).to_bytes(4, "big")
        case DataType.TI081:
            return moment.write_ti081(text)
        case DataType.YMDHMS:
            return moment.write_ymdhms(text)
    if "\0" in text:
        raise ValueError("found a NUL character in the string, expected none: it ends a string")
    try:
        data = text.encode(field.charset.codec)
    except UnicodeEncodeError as error:
        wrong = text[error.start]
        raise ValueError(f"found {wrong!r}, expected characters of {field.charset.value}") from None
    size = field.length * 2
    if len(data) > size:
        raise ValueError(f"found {len(data)} bytes of text, expected up to {size}")
    fill = " ".encode(field.charset.codec) if field.padding is Padding.SPACE else b"\0"
    if field.charset is Charset.UTF16 and field.padding is Padding.NUL:
        fill = b"\0\0"
    return data + fill * ((size - len(data)) // len(fill))


def _in_order(field: Field, data: bytes) -> bytes:
    """Most significant first to the order of the device; strings and most times have no order of words."""
    words = [data[position : position + 2] for position in range(0, len(data), 2)]
    is_number = field.type not in {DataType.STRING, DataType.TI081, DataType.YMDHMS}
    if field.type is DataType.BITS or (is_number and field.order.word is Endian.LITTLE):
        words.reverse()
    if field.order.byte is Endian.LITTLE:
        words = [word[::-1] for word in words]
    return b"".join(words)
