"""Octets of real captures, and ASDUs of every type for hypothesis."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

from drivers.iec104.wire import apci
from drivers.iec104.wire.asdu import Asdu, Codec, Sizes
from drivers.iec104.wire.elements import LAYOUTS
from drivers.iec104.wire.terms import TypeId

CAPTURES = Path(__file__).parent / "captures.txt"
TYPES_WITHOUT_LAYOUT = sorted(set(range(256)) - set(LAYOUTS) - {TypeId.F_SG_NA_1})


ANY_TYPE = st.sampled_from([*LAYOUTS, TypeId.F_SG_NA_1, *TYPES_WITHOUT_LAYOUT[::20]])
OBJECTS_DRAWN_MAX = 12  # more only makes the drawing slow


class Segment(NamedTuple):
    """One TCP segment with data."""

    capture: str
    packet: int
    to_controlled: bool
    payload: bytes


def segments(capture: str = "") -> Iterator[Segment]:
    """Those of one capture, or of both, in order."""
    for line in CAPTURES.read_text().splitlines():
        if not line.startswith("#"):
            name, packet, way, payload = line.split()
            if capture in ("", name):
                yield Segment(name, int(packet), way == ">", bytes.fromhex(payload))


def captured_frames() -> list[tuple[str, bytes]]:
    """Every frame, with where it is from."""
    found = []
    for segment in segments():
        frames: list[bytes] = []
        apci.Framer().feed(segment.payload, frames)
        found += [(f"{segment.capture} packet {segment.packet}", frame) for frame in frames]
    return found


def _field(code: str) -> st.SearchStrategy[object]:
    if code.endswith("s"):
        size = int(code[:-1])
        return st.binary(min_size=size, max_size=size)
    if code == "f":
        return st.floats(width=32, allow_nan=False)
    bits = struct.calcsize("<" + code) * 8
    low = -(1 << bits - 1) if code.islower() else 0
    return st.integers(low, low + (1 << bits) - 1)


def codes(form: str) -> list[str]:
    """The fields of a `struct` format: `H3sB` is H, 3s, B."""
    return re.findall(r"\d*\D", form)


@st.composite
def asdus(draw: st.DrawFn, codec: Codec, types: st.SearchStrategy[int] | None = None) -> Asdu:
    """Any ASDU that these sizes can carry."""
    sizes: Sizes = codec.sizes
    type_id = draw(ANY_TYPE if types is None else types)
    address_max = (1 << 8 * sizes.object_address) - 1
    sequence = draw(st.booleans()) and type_id != TypeId.F_SG_NA_1
    raw, count = None, 0
    addresses: tuple[int, ...] | range = ()
    columns: tuple[tuple[object, ...], ...] = ()
    if type_id == TypeId.F_SG_NA_1:
        addresses = (draw(st.integers(0, address_max)),)
        data = draw(st.binary(max_size=min(255, codec.segment_room())))
        columns = ((draw(st.integers(0, 0xFFFF)),), (draw(st.integers(0, 0xFF)),), (data,))
    elif type_id in LAYOUTS:
        objects = draw(st.integers(0, min(codec.room(type_id, sequence=sequence), OBJECTS_DRAWN_MAX)))
        if sequence:
            first = draw(st.integers(0, address_max - objects)) if objects else 0
            addresses = range(first, first + objects)
        else:
            addresses = tuple(draw(st.lists(st.integers(0, address_max), min_size=objects, max_size=objects)))
        columns = tuple(
            tuple(draw(st.lists(_field(code), min_size=objects, max_size=objects)))
            for code in codes(LAYOUTS[type_id].format)
        )
    else:
        raw = draw(st.binary(max_size=sizes.asdu - codec.head_size))
        count = draw(st.integers(0, 127))
    return Asdu(
        int(type_id),
        draw(st.integers(0, 63)),
        draw(st.integers(0, (1 << 8 * sizes.common_address) - 1)),
        addresses,
        columns,
        negative=draw(st.booleans()),
        test=draw(st.booleans()),
        originator=draw(st.integers(0, 255)) if sizes.cause == 2 else 0,
        sequence=sequence,
        raw=raw,
        count=count,
    )
