"""What users write of a tag: how it is read, scaled, judged, reported and written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, PlainValidator, WithJsonSchema

from gateway.config.model import Model, Name
from gateway.config.scalars import one_of, shown
from gateway.config.values import Deadband, Duration, Text, fault
from gateway.core.errors import Problem
from gateway.core.point import Priority, ValueType


def _number_pair(value: object) -> tuple[float, float]:
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) == 2 and all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        low, high = float(numbers[0]), float(numbers[1])
        if low < high and abs(low) != float("inf") and abs(high) != float("inf"):
            return low, high
        raise fault(f"[{numbers[0]}, {numbers[1]}]", "[low, high] with low below high")
    raise fault(shown(value), "two numbers, [low, high]")


_PAIR_SCHEMA = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


Range = Annotated[tuple[float, float], PlainValidator(_number_pair), WithJsonSchema(_PAIR_SCHEMA)]


class OutOfRange(NamedTuple):
    """What values under and over the range are."""

    below: str
    above: str


_BEYOND: Final = ("uncertain", "good", "bad")


def _out_of_range(value: object) -> OutOfRange:
    if isinstance(value, OutOfRange):
        return value
    if isinstance(value, str) and value in _BEYOND:
        return OutOfRange(value, value)
    if isinstance(value, dict) and value and set(value) <= {"below", "above"}:
        below, above = value.get("below", "uncertain"), value.get("above", "uncertain")
        if below in _BEYOND and above in _BEYOND:
            return OutOfRange(below, above)
    raise fault(shown(value), f"{one_of(_BEYOND)}, or {{below: …, above: …}}")


OutOfRangeField = Annotated[
    OutOfRange,
    PlainValidator(_out_of_range),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(_BEYOND)},
                {
                    "type": "object",
                    "properties": {"below": {"enum": list(_BEYOND)}, "above": {"enum": list(_BEYOND)}},
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


class Write(Model):
    """That a tag may be written, and how."""

    expr: Text | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="What the device is given for a `value` that is written, where the tag's `expr` "
        "cannot be turned around.",
    )
    min: float | None = Field(None, description="Lowest value accepted, in the tag's unit.")
    max: float | None = Field(None, description="Highest value accepted, in the tag's unit.")
    verify: Literal["readback", "none"] = Field(
        "none",
        description="readback: read the value after writing and compare; none: the device's "
        "confirmation is enough.",
    )
    within_ns: Annotated[int, Duration("1ms", "10m")] = Field(
        "2s",
        validate_default=True,
        alias="within",
        description="Time that the value may take to show in the read-back.",
    )

    def problems(self) -> Iterable[Problem]:
        if self.min is not None and self.max is not None and self.min > self.max:
            yield Problem(("min",), f"min {self.min:g} above max {self.max:g}", "min at or below max")
        if self.verify == "none" and "within_ns" in self.model_fields_set:
            yield Problem(("within",), "within without verify", "verify: readback, or no within")


class Convert(Model):
    """From one unit to another."""

    source: Text = Field(alias="from", min_length=1, max_length=32, description="Unit of the device's value.")
    to: Text = Field(min_length=1, max_length=32, description="Unit of the tag.")


class Tag(Model):
    """What tags of every driver have. A driver's model adds its own keys."""

    scan: Name = Field("normal", description="Scan class that reads the tag.")
    unit: str = Field("", max_length=32, description="Engineering unit, as text.")
    expr: Text | None = Field(
        None,
        min_length=1,
        max_length=1000,
        description="What the tag shows, calculated from the device's `value`: `value / 60`. See "
        "expressions.md.",
    )
    convert: Convert | None = Field(
        None, description="Units that the value is converted between: `{from: psi, to: bar}`."
    )
    result: Literal["float", "int", "bool", "string"] | None = Field(
        None, description="Type of what `expr` gives. Default: float for numbers, else that of the value."
    )
    range: Range | None = Field(
        None, description="[low, high] in the tag's unit; a value outside it is uncertain/out-of-range."
    )
    deadband: Deadband = Field(
        0,
        validate_default=True,
        description="A change up to this is not reported: a number in the tag's unit or a share of `range`.",
    )
    priority: Literal["normal", "alarm"] = Field(
        "normal", description="alarm: delivered before everything else."
    )
    labels: dict[int, Annotated[str, Field(max_length=128)]] = Field(
        default_factory=dict, alias="enum", description='Texts of values: `{0: "off", 1: auto}`.'
    )
    flags: dict[Annotated[int, Field(ge=0, le=63)], Annotated[str, Field(max_length=128)]] = Field(
        default_factory=dict, description="Texts of single bits of a whole number: `{0: overload}`."
    )
    out_of_range: OutOfRangeField = Field(
        "uncertain",
        validate_default=True,
        description="What a value outside `range` is: uncertain, good or bad (then no value is shown); "
        "or `{below: good, above: bad}`.",
    )
    write: Write | None = Field(None, description="Makes the tag writable; without it the tag is read-only.")

    def value_type(self) -> ValueType:
        """The type of the value as the driver gives it; a driver's model answers."""
        raise NotImplementedError

    def point_type(self) -> ValueType:
        """The type of the value as everybody else sees it: after `expr`."""
        if self.result is not None:
            return ValueType(self.result)
        own = self.value_type()
        return ValueType.FLOAT if self.is_calculated and own is ValueType.INT else own

    @property
    def is_calculated(self) -> bool:
        """Whether what everybody sees is made from what the driver gives."""
        return self.expr is not None or self.convert is not None

    def lane(self) -> Priority:
        """`priority` in core's words."""
        return Priority.ALARM if self.priority == "alarm" else Priority.NORMAL

    def problems(self) -> Iterable[Problem]:
        value_type = self.point_type()
        is_number = value_type in {ValueType.INT, ValueType.FLOAT}
        if self.deadband.percent and self.range is None:
            yield Problem(
                ("deadband",), "a deadband in percent without range", "range: [low, high] beside it"
            )
        for key in ("range", "deadband"):
            if key in self.model_fields_set and not is_number:
                yield Problem((key,), f"{key} of a {value_type.value}", f"no {key}, as only numbers have one")
        if "out_of_range" in self.model_fields_set and self.range is None:
            yield Problem(("out_of_range",), "out_of_range without range", "range: [low, high] beside it")
        if self.flags and value_type is not ValueType.INT:
            yield Problem(("flags",), f"flags of a {value_type.value}", "whole numbers without scale")
        yield from self._calculation_problems()
        if self.flags and self.labels:
            yield Problem(("flags",), "flags and enum", "one of them")
        if self.labels and value_type not in {ValueType.INT, ValueType.BOOL}:
            yield Problem(("enum",), f"enum of a {value_type.value}", "whole numbers without scale, or bool")
        if self.write is not None:
            yield from (
                Problem(("write", *fault.path), fault.found, fault.expected)
                for fault in self.write.problems()
            )
            for key in ("min", "max"):
                if getattr(self.write, key) is not None and not is_number:
                    yield Problem(
                        ("write", key),
                        f"{key} of a {value_type.value}",
                        f"no {key}, as only numbers have one",
                    )

    def _calculation_problems(self) -> Iterable[Problem]:
        if self.convert is not None and self.expr is not None:
            yield Problem(("convert",), "convert and expr", "one of them")
        if self.convert is not None and self.unit not in {"", self.convert.to}:
            yield Problem(("unit",), f"{self.unit} with convert to {self.convert.to}", "the same, or no unit")
        if self.result is not None and self.expr is None:
            yield Problem(("result",), "result without expr", "expr: beside it")
        if self.write is not None and self.write.expr is not None and self.expr is None:
            yield Problem(("write", "expr"), "expr of write without expr", "expr: of the tag beside it")
