"""Values of a batch as JSON texts, all at once: numbers and truth values read the same in most formats."""

from __future__ import annotations

from typing import Final

from gateway.core.point import Layout, Value, ValueType
from gateway.translate.influx import INTEGER_MAX, INTEGER_MIN
from gateway.translate.payload import encode

PLAIN: Final = frozenset({ValueType.BOOL, ValueType.INT, ValueType.FLOAT})
_CLASSES: Final = {ValueType.BOOL: bool, ValueType.INT: int, ValueType.FLOAT: float}


class NumberTexts:
    """For some columns of a layout."""

    __slots__ = ("_classes",)

    def __init__(self, layout: Layout, columns: tuple[int, ...]) -> None:
        types = [layout.points[column].type for column in columns]
        self._classes = tuple(map(_CLASSES.get, types)) if PLAIN.issuperset(types) else None

    def of(self, values: tuple[Value, ...]) -> list[bytes] | None:
        """The texts; None where one is no finite number of its point's type, or beyond 64 bits signed."""
        if self._classes is None or tuple(map(type, values)) != self._classes:
            return None
        text = encode(values)
        if b"null" in text or max(values) > INTEGER_MAX or min(values) < INTEGER_MIN:  # type: ignore[type-var, operator]  # all are numbers
            return None
        return text[1:-1].split(b",")
