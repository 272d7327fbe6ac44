"""Tags with an expression: what the driver read becomes what everybody sees, before image and journal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from gateway.core.batch import Batch
from gateway.core.command import Command, CommandResult, Outcome
from gateway.core.point import Layout, Point, Value, ValueType
from gateway.core.ports import CommandTarget
from gateway.core.quality import BAD, INVALID, NOT_YET_READ, OUT_OF_RANGE, OVERFLOW, UNCERTAIN, Quality, worst
from gateway.translate.expression import NAMES, Expression, compile_block

INTEGER_MIN: Final = -(2**63)  # what a journal and a payload carry exactly, signed and unsigned
INTEGER_MAX: Final = 2**64 - 1
_CLASSES: Final[dict[ValueType, type | tuple[type, ...]]] = {
    ValueType.BOOL: bool,
    ValueType.INT: int,
    ValueType.FLOAT: (int, float),
    ValueType.STRING: str,
}
_CLASS: Final = {ValueType.BOOL: bool, ValueType.INT: int, ValueType.FLOAT: float, ValueType.STRING: str}
_BEYOND: Final = {"good": 0, "uncertain": UNCERTAIN | OUT_OF_RANGE, "bad": BAD | OUT_OF_RANGE}
Made = tuple[Value, Quality]
Write = Callable[[Value], Value]


class TagExpression(msgspec.Struct, frozen=True):
    """What one tag shows. `below` and `above` its range it is good, uncertain or bad."""

    point: Point
    given: ValueType  # what the driver gives
    expression: Expression
    below: str = "uncertain"
    above: str = "uncertain"

    @property
    def has_memory(self) -> bool:
        """Whether it looks back."""
        return "prev" in self.expression.names or "dt" in self.expression.names

    def result(self, value: Value, quality: Quality) -> Made:
        """What is shown for a value that is not bad, of an expression of `value` alone."""
        if not isinstance(value, _CLASSES[self.given]):
            return None, worst(quality, BAD | INVALID)
        return self.judged((value,), quality)

    def judged(self, arguments: tuple[Value, ...], quality: Quality) -> Made:
        """Call it; what has no result is bad, and nothing is raised."""
        try:
            made = self.expression.call(*arguments)
        except OverflowError:
            return None, worst(quality, BAD | OVERFLOW)
        except (ArithmeticError, ValueError):  # a division by zero, the root of a negative number
            return None, worst(quality, BAD | INVALID)
        return self._fitted(made, quality)

    def _fitted(self, made: Value, quality: Quality) -> Made:
        kind = self.point.type
        if kind is ValueType.FLOAT and isinstance(made, int):
            try:
                made = float(made)
            except OverflowError:
                return None, worst(quality, BAD | OVERFLOW)
        if isinstance(made, float) and not math.isfinite(made):
            return None, worst(quality, BAD | (INVALID if math.isnan(made) else OVERFLOW))
        if kind is ValueType.INT and isinstance(made, int) and not INTEGER_MIN <= made <= INTEGER_MAX:
            return None, worst(quality, BAD | OVERFLOW)
        low, high = self.point.low, self.point.high
        if isinstance(made, int | float) and low is not None and high is not None and not low <= made <= high:
            beyond = _BEYOND[self.below if made < low else self.above]
            return (None if beyond & BAD else made), worst(quality, beyond) if beyond else quality
        return made, quality


class _Memory(msgspec.Struct):
    """The last good value of a tag, as the driver gave it."""

    value: Value
    source_ns: int | None
    monotonic_ns: int


class _Quick:
    """All results of a block at once: where every value is good and as expected, and every result too."""

    def __init__(self, by_column: Mapping[int, TagExpression]) -> None:
        self.columns: Final = tuple(by_column)
        tags = by_column.values()
        self._call = compile_block((column, one.expression) for column, one in by_column.items())
        self._given = tuple(_CLASS[one.given] for one in tags)
        self._shown = tuple(_CLASS[one.point.type] for one in tags)
        self._has_whole = ValueType.INT in {one.point.type for one in tags}
        self._limits = [
            (place, one.point.low, one.point.high)
            for place, one in enumerate(tags)
            if one.point.low is not None and one.point.high is not None
        ]

    def results(self, values: tuple[Value, ...]) -> tuple[Any, ...] | None:
        """None where something is not: then each is to be looked at."""
        if tuple([values[column].__class__ for column in self.columns]) != self._given:
            return None
        try:
            made: tuple[Any, ...] = self._call(values)
            if tuple([one.__class__ for one in made]) != self._shown:
                pairs = zip(made, self._shown, strict=True)
                made = tuple(float(one) if kind is float else one for one, kind in pairs)
                if tuple([one.__class__ for one in made]) != self._shown:
                    return None
            numbers = [one for one in made if one.__class__ is not str]
            if not math.isfinite(sum(numbers)):
                return None
        except (ArithmeticError, ValueError):
            return None
        if self._has_whole and (min(numbers) < INTEGER_MIN or max(numbers) > INTEGER_MAX):
            return None
        for place, low, high in self._limits:
            if not low <= made[place] <= high:
                return None
        return made


class BlockExpressions:
    """The expressions of one layout, with what they remember."""

    def __init__(self, layout: Layout, tags: Mapping[str, TagExpression]) -> None:
        self.tags: Final = dict(tags)
        self._by_column: Final = {layout.index[tag]: one for tag, one in tags.items()}
        self._memory: dict[int, _Memory] = {}
        self._picks: Final = {
            column: tuple(NAMES.index(name) for name in one.expression.names)
            for column, one in self._by_column.items()
        }
        alone = all(one.expression.names == ("value",) for one in tags.values())
        self._quick: Final = _Quick(self._by_column) if alone else None

    def is_like(self, other: BlockExpressions) -> bool:
        """Whether it does the same, so that what it remembers may stay."""
        return _what(self) == _what(other)

    def apply(self, batch: Batch) -> None:
        """Put the results in the place of the values, with their qualities."""
        if self._quick is not None and self._apply_at_once(batch, self._quick):
            return
        columns = range(len(batch.values)) if batch.columns is None else batch.columns
        values = list(batch.values)
        quality = batch.quality
        qualities = list(quality) if isinstance(quality, tuple) else [quality] * len(values)
        by_column = self._by_column
        for row, column in enumerate(columns):
            one = by_column.get(column)
            if one is None:
                continue
            if qualities[row] & BAD or values[row] is None:
                values[row] = None
            elif one.expression.names == ("value",):
                values[row], qualities[row] = one.result(values[row], qualities[row])
            else:
                values[row], qualities[row] = self._with_memory(batch, row, column, one, qualities[row])
        batch.values = tuple(values)
        first = qualities[0] if qualities else quality
        batch.quality = first if all(one == first for one in qualities) else tuple(qualities)

    def _apply_at_once(self, batch: Batch, quick: _Quick) -> bool:
        """Whether that was possible."""
        if batch.columns is not None or not isinstance(batch.quality, int) or batch.quality & BAD:
            return False
        made = quick.results(batch.values)
        if made is None:
            return False
        values = list(batch.values)
        for column, result in zip(quick.columns, made, strict=True):
            values[column] = result
        batch.values = tuple(values)
        return True

    def _with_memory(self, batch: Batch, row: int, column: int, one: TagExpression, quality: Quality) -> Made:
        times = batch.source_time_ns
        source_ns = times[row] if isinstance(times, tuple) else times
        value = batch.values[row]
        if not isinstance(value, _CLASSES[one.given]):
            return None, worst(quality, BAD | INVALID)
        before = self._memory.get(column)
        self._memory[column] = newest = _Memory(value, source_ns, batch.monotonic_ns)
        if before is None:
            if one.has_memory:
                return None, worst(quality, BAD | NOT_YET_READ)
            before = newest
        if source_ns is not None and before.source_ns is not None:
            passed_ns = source_ns - before.source_ns
        else:
            passed_ns = batch.monotonic_ns - before.monotonic_ns
        now_ns = batch.received_ns if source_ns is None else source_ns
        given = (value, before.value, passed_ns / 1e9, now_ns / 1e9)  # as NAMES
        return one.judged(tuple([given[pick] for pick in self._picks[column]]), quality)


class ScaledTarget:
    """A driver whose commands are turned around first; values read back are shown as everybody sees them."""

    def __init__(
        self, target: CommandTarget, writes: Mapping[str, Write], tags: Mapping[str, TagExpression]
    ) -> None:
        """`writes` and `tags` by `device/tag`."""
        self._target = target
        self._writes = writes
        self._tags = tags

    async def execute(self, command: Command, on_sent: Callable[[], None]) -> CommandResult:
        """As `CommandTarget.execute`."""
        write = self._writes.get(command.target)
        if write is None:
            return await self._target.execute(command, on_sent)
        try:
            value = write(command.value)
        except (ArithmeticError, ValueError) as error:
            reason = (
                f"{command.target}: found {command.value!r}, for which its expression has no value ({error})"
            )
            return CommandResult(id=command.id, outcome=Outcome.REJECTED, reason=reason)
        result = await self._target.execute(msgspec.structs.replace(command, value=value), on_sent)
        shown = self._tags.get(command.target)
        if result.value is None or shown is None or shown.has_memory:
            return msgspec.structs.replace(result, value=None)
        return msgspec.structs.replace(result, value=shown.result(result.value, 0)[0])


def _what(block: BlockExpressions) -> list[tuple[object, ...]]:
    return [
        (tag, one.expression.source, one.point, one.given, one.below, one.above)
        for tag, one in block.tags.items()
    ]
