"""Where in a stretch of noise a frame with a good CRC can begin, found for all places at once.

A CRC is linear: each byte alone does something to the checksum at the end of a stretch, whatever stands
beside it, and so does the preset at the place where a frame begins. With both in tables a running sum over
the bytes tells all frames: one from `p` to `q` leaves 0 where the sum up to `q` is the sum up to `p` with the
preset's part at `p`. So places from which no sum fits begin no frame of any length, at the cost of a few
look-ups a byte instead of a checksum for each place and length.
"""

from __future__ import annotations

from array import array
from functools import cache
from itertools import accumulate
from operator import getitem, xor
from typing import Final, NamedTuple

from drivers.modbus.wire.crc import PRESET, after

_FRAME_SIZE_MAX: Final = 256  # MODBUS over Serial Line V1.02 §2.5.1
_STRETCH: Final = 3 * _FRAME_SIZE_MAX  # bytes looked at together: 512 places, and the frames that begin there


class Sifted(NamedTuple):
    """What is known of the places from where it was asked for up to `until`."""

    places: list[int]  # where a frame can begin that is whole; ascending; one in a hundred is there by chance
    until: int


def sift(data: bytes, start: int) -> Sifted:
    """Places from `start` on, at most 768, with which a run of at most 768 bytes begins whose CRC is good."""
    parts, presets = _tables()
    end = min(start + _STRETCH, len(data))
    sums = list(accumulate(map(getitem, parts, data[start:end]), xor, initial=0))
    ends = frozenset(sums)
    until = end if end == len(data) else end - _FRAME_SIZE_MAX
    wanted = map(xor, sums[: until - start], presets)
    return Sifted([place for place, crc in enumerate(wanted, start) if crc in ends], until)


@cache
def _tables() -> tuple[tuple[array[int], ...], tuple[int, ...]]:
    """By place: what each byte there does to the checksum at the end of a stretch; and what the preset does.

    Made when noise is first met, in some 10 ms: 400 KB that a quiet line does not need.
    """
    bits = [after(1 << bit) for bit in range(8)]
    parts, presets = [], [PRESET]
    for _ in range(_STRETCH):
        low, high = _sums(bits[:4]), _sums(bits[4:])
        parts.append(array("H", [one ^ other for one in high for other in low]))
        bits = list(map(after, bits))
        presets.append(after(presets[-1]))
    return tuple(reversed(parts)), tuple(reversed(presets))


def _sums(crcs: list[int]) -> list[int]:
    sums = [0]
    for crc in crcs:
        sums += [one ^ crc for one in sums]
    return sums
