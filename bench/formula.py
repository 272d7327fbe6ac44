"""The values of the plant: each read has its own, so that every delivered value can be checked.

`SERIES` is a permutation of all 16-bit values, and a block of registers is a slice of it. From any value
its place in the series is known, from the place which read it was, and a slice compares in C.

mode all    read k of unit u shows, from register 0 up, the slice at
            (u * UNIT_STEP + k * READ_STEP) % MODULUS: every register changes with every read.
mode tenth  registers r, r+10, r+20 … (r = 0 … 9) show the slice at
            (u * UNIT_STEP + r * RESIDUE_STEP + n * READ_STEP) % MODULUS with version n = (k + 10 - r) // 10:
            read k changes exactly those with r = k % 10.

k counts the reads of a unit that began at address 0, from 1. Both are unique modulo MODULUS (a prime).
`plant.c` has the same numbers.
"""

from __future__ import annotations

import enum
from typing import Final

MODULUS: Final = 65413
UNIT_STEP: Final = 571
RESIDUE_STEP: Final = 6551
READ_STEP: Final = 7919
RESIDUES: Final = 10
REGISTERS_MAX: Final = 123
WRITABLE_AT: Final = 1000
WRITABLE: Final = 16

SERIES: Final = tuple((x * 40503 + 12345) & 0xFFFF for x in range(65536))
PLACE: Final = {value: place for place, value in enumerate(SERIES)}
_UNDO_READ: Final = pow(READ_STEP, -1, MODULUS)


class Mode(enum.Enum):
    """How much of the plant changes from one read to the next."""

    ALL = "all"
    TENTH = "tenth"


def version_at(place: int, *, unit: int, residue: int = 0) -> int:
    """Which read (mode all) or version (mode tenth) has its slice at this place, modulo MODULUS."""
    return (place - unit * UNIT_STEP - residue * RESIDUE_STEP) * _UNDO_READ % MODULUS


def place_of(version: int, *, unit: int, residue: int = 0) -> int:
    """Where in the series the slice of a read or version begins."""
    return (unit * UNIT_STEP + residue * RESIDUE_STEP + version * READ_STEP) % MODULUS


def version_of(read: int, residue: int) -> int:
    """Mode tenth: the version of a residue that read k shows."""
    return (read + RESIDUES - residue) // RESIDUES


def read_of(version: int, residue: int) -> int:
    """Mode tenth: the first read that shows this version of a residue."""
    return version * RESIDUES - RESIDUES + residue


def registers_of(read: int, *, unit: int, count: int, mode: Mode) -> list[int]:
    """What read k of a unit shows."""
    if mode is Mode.ALL:
        place = place_of(read, unit=unit)
        return list(SERIES[place : place + count])
    shown = [0] * count
    for residue in range(min(RESIDUES, count)):
        place = place_of(version_of(read, residue), unit=unit, residue=residue)
        own = range(residue, count, RESIDUES)
        shown[residue::RESIDUES] = SERIES[place : place + len(own)]
    return shown
