"""Engineering values to registers, many times a second: `encode`, compiled for one field."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeAlias

from drivers.modbus.encode import encode
from drivers.modbus.field import SHAPES, Endian, Family, Field, Shape
from gateway.core.point import Value

Pack: TypeAlias = Callable[[Value], bytes]
"""The registers of a value in wire order. Raises ValueError for what the field cannot hold."""

_PLAIN: Final = {Family.FLOAT, Family.WHOLE}


def compile_pack(field: Field) -> Pack:
    """The quickest way to the same bytes as `encode(field, value)` gives."""
    shape = SHAPES.get(field.type)
    is_plain = field.type.family in _PLAIN and not (field.scale or field.invalid or field.mask)
    if not is_plain or shape is None or shape.code is None or not _is_exact(shape):
        return lambda value: encode(field, value)
    word, byte = field.order
    size = field.count * 2
    if field.count == 1 or word is byte:
        endian = "<" if byte is Endian.LITTLE else ">"
        return _straight(struct.Struct(endian + shape.code).pack, field)
    # CDAB is DCBA with the bytes of each word swapped, BADC is ABCD with them swapped.
    pack = struct.Struct((">" if word is Endian.BIG else "<") + shape.code).pack
    return _straight(_swapped(pack, size), field)


def _is_exact(shape: Shape) -> bool:
    """Whether `struct` refuses exactly what the type cannot hold: the code of uint24 is wider than it is."""
    assert shape.code is not None
    bits = 8 * struct.calcsize(">" + shape.code)
    return shape.code in "efd" or shape.high - shape.low == (1 << bits) - 1


def _straight(pack: Callable[[Value], bytes], field: Field) -> Pack:
    accepted = (int, float) if field.type.is_float else (int,)

    def straight(value: Value) -> bytes:
        if value.__class__ in accepted and value - value == 0:  # type: ignore[operator] # a number, no NaN
            try:
                return pack(value)
            except (struct.error, OverflowError):
                pass
        return encode(field, value)  # which says what is wrong, or takes 3.0 for 3

    return straight


def _swapped(pack: Callable[[Value], bytes], size: int) -> Callable[[Value], bytes]:
    def swapped(value: Value) -> bytes:
        data = pack(value)
        out = bytearray(size)
        out[0::2], out[1::2] = data[1::2], data[0::2]
        return bytes(out)

    return swapped
