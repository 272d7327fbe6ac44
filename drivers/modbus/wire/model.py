"""What a server serves: the data behind the function codes, as its owner provides it.

Bits are packed from the least significant one, registers are two bytes each. All is called with spans inside
0..65535 and within the standard's limits, for units that `has_unit` knows. Every method answers at once, with
what was asked for or the exception that refuses it; none blocks.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from drivers.modbus.wire.pdu import ExceptionCode, Table
from drivers.modbus.wire.pdu_files import FileRecord


class Later(NamedTuple):
    """A write that was handed on: its outcome comes with `ServerSession.conclude`, and the answer then."""

    token: object


class DataModel(Protocol):
    """The four tables, clause 4.3."""

    def has_unit(self, unit: int) -> bool:
        """Whether that unit is served here."""
        ...

    def read_bits(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Coils or discrete inputs: (count + 7) // 8 bytes, zeros behind the last."""
        ...

    def read_registers(self, unit: int, table: Table, start: int, count: int) -> bytes | ExceptionCode:
        """Holding or input registers: count * 2 bytes. Changes nothing."""
        ...

    def write_bits(self, unit: int, start: int, count: int, data: bytes) -> ExceptionCode | Later | None:
        """Set coils; all of them or none."""
        ...

    def write_registers(self, unit: int, start: int, data: bytes) -> ExceptionCode | Later | None:
        """Set holding registers; all of them or none."""
        ...


class Files(Protocol):
    """File records, clauses 6.14 and 6.15."""

    def read_file(self, unit: int, file: int, record: int, count: int) -> bytes | ExceptionCode:
        """`count` registers of a file from `record` on, inside 0..9999: count * 2 bytes."""
        ...

    def write_files(self, unit: int, records: tuple[FileRecord, ...]) -> ExceptionCode | None:
        """Write records; all of them or none."""
        ...


class Queues(Protocol):
    """FIFO queues, clause 6.18."""

    def read_queue(self, unit: int, address: int) -> bytes | ExceptionCode:
        """The registers of the queue at `address`, the oldest first; they stay in it."""
        ...
