"""How a serial line is set: `19200-8E1`."""

from __future__ import annotations

from typing import Final

import msgspec

PARITIES: Final = {"N": "none", "E": "even", "O": "odd", "M": "mark", "S": "space"}


class SerialLine(msgspec.Struct, frozen=True):
    """Baud, data bits, parity (N, E, O, M, S) and stop bits. A character is a start bit and all of these."""

    baud: int
    data_bits: int = 8
    parity: str = "N"
    stop_bits: int = 1

    @property
    def character_bits(self) -> int:
        """Bits of one character on the wire."""
        return 1 + self.data_bits + (self.parity != "N") + self.stop_bits

    @property
    def character_ns(self) -> int:
        """Time of one character on the wire, rounded up."""
        return -(-self.character_bits * 1_000_000_000 // self.baud)

    def __str__(self) -> str:
        return f"{self.baud}-{self.data_bits}{self.parity}{self.stop_bits}"
