"""Two signs of life: a counter in the device that must keep moving, and one that we keep moving for it."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from drivers.modbus.wire import pdu
from drivers.modbus.wire.pdu import Table
from gateway.core import quality as q
from gateway.core.batch import Batch
from gateway.core.point import Layout, Value

_log = logging.getLogger("drivers.modbus")

FROZEN: Final = q.UNCERTAIN | q.STALE


class Counter:
    """A device whose counter stands still answers, but its values are old: they are shown as stale."""

    def __init__(self, *, device: str, tag: str, within_ns: int) -> None:
        self.is_frozen = False
        self._device: Final = device
        self._tag: Final = tag
        self._within_ns: Final = within_ns
        self._value: Value = None
        self._moved_ns = -1  # monotonic; -1: not read yet

    def look(self, layout: Layout, values: tuple[Value, ...], now_ns: int) -> bool:
        """A scan of the device ended. Whether the counter froze by it, or moves again."""
        column = layout.index.get(self._tag)
        if column is None:
            return False
        was_frozen = self.is_frozen
        value = values[column]
        if value is not None and (value != self._value or self._moved_ns < 0):
            self._value, self._moved_ns = value, now_ns
            if self.is_frozen:
                self.is_frozen = False
                _log.info("device's counter moves again", extra=self._names)
        elif not self.is_frozen and self._moved_ns >= 0 and now_ns - self._moved_ns >= self._within_ns:
            self.is_frozen = True
            _log.warning(
                "device answers, but its counter stands still: its values are stale",
                extra={**self._names, "within_s": self._within_ns / 1e9, "value": self._value},
            )
        return self.is_frozen is not was_frozen

    @property
    def reason(self) -> str:
        """For people; empty while it moves."""
        if not self.is_frozen:
            return ""
        return f"{self._device}/{self._tag} stands at {self._value!r} for {self._within_ns / 1e9:g} s or more"

    @property
    def _names(self) -> dict[str, object]:
        return {"device": self._device, "tag": self._tag}


def stale(batch: Batch) -> Batch:
    """The same values, none better than uncertain/stale."""
    quality = batch.quality
    worse = (
        tuple([q.worst(one, FROZEN) for one in quality])
        if isinstance(quality, tuple)
        else q.worst(quality, FROZEN)
    )
    return msgspec.structs.replace(batch, quality=worse)


class Heartbeat:
    """A register that counts up, or a coil that toggles, so that the device sees that we are there."""

    def __init__(
        self, *, device: str, unit: int, table: Table, start: int, every_ns: int, first: int, last: int
    ) -> None:
        """`first` and `last`: the values of the register, both included; a coil has none."""
        self.device: Final = device
        self.unit: Final = unit
        self.every_ns: Final = every_ns
        self.due_ns = 0  # monotonic
        self._table: Final = table
        self._start: Final = start
        self._first: Final = first
        self._last: Final = last
        self._value = last
        self._is_failing = False

    def request(self) -> bytes:
        """The next write."""
        if self._table is Table.COILS:
            self._value = not self._value
            return pdu.write_single_coil(self._start, on=bool(self._value))
        self._value = self._first if self._value >= self._last else self._value + 1
        return pdu.write_single_register(self._start, self._value)

    def ended(self, fault: str) -> None:
        """What became of it; empty where the device took it. Told once, and once when it is back."""
        if bool(fault) is self._is_failing:
            return
        self._is_failing = bool(fault)
        if fault:
            _log.warning("heartbeat is not taken", extra={"device": self.device, "reason": fault})
        else:
            _log.info("heartbeat is taken again", extra={"device": self.device})
