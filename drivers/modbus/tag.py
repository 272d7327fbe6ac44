"""What users write for a Modbus tag: a coded value, how it is read and how it is written."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Literal

from pydantic import Field

from drivers.modbus.address import Address
from drivers.modbus.coding import Coding
from drivers.modbus.encode import raw_span
from drivers.modbus.field import Beyond
from drivers.modbus.wire.pdu import Table
from gateway.config.tag import Tag, Write
from gateway.core.errors import Problem
from gateway.core.point import ValueType


class ModbusWrite(Write):
    """How a Modbus tag is written."""

    function: Literal["auto", "single", "multiple"] | None = Field(
        None, description="Function codes for this tag. Default: the device's write_function."
    )
    queue: Literal["every", "latest"] = Field(
        "every",
        description="Commands that wait for the link: every one is sent, or only the latest; the others are "
        "rejected.",
    )
    attempts: int = Field(
        1,
        ge=1,
        le=5,
        description="Writes of one command, with verify: readback. A write without an answer is repeated "
        "only when the value reads back as it was not.",
    )

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        if self.attempts > 1 and self.verify != "readback":
            expected = "verify: readback beside it: no write is repeated blindly"
            yield Problem(("attempts",), "attempts without verify", expected)


class ModbusTag(Coding, Tag):
    """One value in a Modbus device."""

    atomic: str | None = Field(
        None, min_length=1, max_length=64, description="Tags with the same name here are read in one request."
    )
    write: ModbusWrite | None = Field(
        None, description="Makes the tag writable; without it the tag is read-only."
    )

    @property
    def is_written(self) -> bool:
        return self.write is not None

    def limits(self) -> tuple[float | None, float | None, Beyond, Beyond]:
        low, high = (None, None) if self.range is None or self.is_calculated else self.range
        return low, high, Beyond(self.out_of_range.below), Beyond(self.out_of_range.above)

    def write_limits(self) -> tuple[float | None, float | None]:
        """Lowest and highest value that the device may be given; with `expr` they are not in its unit."""
        if self.write is None or self.is_calculated:
            return None, None
        return self.write.min, self.write.max

    def problems(self) -> Iterable[Problem]:
        yield from super().problems()
        if self.write is not None:
            yield from self._write_problems(self.write)

    def _write_problems(self, write: ModbusWrite) -> Iterable[Problem]:
        if not self.at.table.is_writable:
            kind = "an input register" if self.at.table is Table.INPUT_REGISTERS else "a discrete input"
            yield Problem(("write",), f"write for {kind}", "a coil or holding register, or no write")
        if write.function == "single" and self.count > 1:
            yield Problem(("write", "function"), f"single for {self.count} registers", "multiple or auto")
        if self.value_type() not in {ValueType.INT, ValueType.FLOAT} or self.data_type.is_float:
            return
        if isinstance(self.scale, Address):
            return
        try:
            low, high = raw_span(self.field())
        except ValueError:  # which is a problem of its own
            return
        for key, value in zip(("min", "max"), self.write_limits(), strict=True):
            if value is None:
                continue
            try:
                exact = Fraction(repr(value))
                raw = exact if self.scale is None else self.scale.inverse(exact)
            except ValueError as error:
                yield Problem(("write", key), f"{key} {value:g}", str(error).partition("expected ")[2])
                continue
            if not low <= round(raw) <= high:
                found = f"{key} {value:g}, which is {round(raw)} in the register"
                yield Problem(("write", key), found, f"{low} to {high}, as {self.type_name} holds")
