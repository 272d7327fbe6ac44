"""The expressions of a configuration, compiled: what each tag shows, and what a command gives the device."""

from __future__ import annotations

import functools
from collections.abc import Iterable

import msgspec

from gateway.config.site import Site, TagSpec
from gateway.core.errors import Problem
from gateway.core.point import Layout, Value, ValueType
from gateway.flow.expressions import BlockExpressions, TagExpression, Write
from gateway.translate.expression import KIND_OF, Expression, ExpressionError, Kind, compile_expression
from gateway.translate.expression_inverse import invert
from gateway.translate.units import UnitError, conversion


class Expressions(msgspec.Struct):
    """Of all links."""

    blocks: dict[Layout, BlockExpressions]
    tags: dict[str, TagExpression]  # by device/tag
    writes: dict[str, Write]  # by device/tag
    problems: list[Problem]


def compile_expressions(site: Site, layouts: Iterable[Layout]) -> Expressions:
    """Compile them all; `problems` has each fault with its place."""
    made = Expressions({}, {}, {}, [])
    for device in site.devices.values():
        for spec in device.tags.values():
            source = _source(spec, made.problems)
            if source is not None:
                _compile_tag(spec, source, made)
    if made.tags:
        for layout in layouts:
            tags = {point.tag: made.tags[point.name] for point in layout.points if point.name in made.tags}
            if tags:
                made.blocks[layout] = BlockExpressions(layout, tags)
    return made


def _source(spec: TagSpec, problems: list[Problem]) -> str | None:
    """The expression of a tag that has one, or whose unit is converted."""
    convert = spec.model.convert
    if convert is None:
        return spec.model.expr
    if spec.model.value_type() not in {ValueType.INT, ValueType.FLOAT}:
        found = f"convert of a {spec.model.value_type().value}"
        problems.append(Problem((*spec.path, "convert"), found, "no convert, as only numbers have units"))
        return None
    try:
        return conversion(convert.source, convert.to)
    except UnitError as error:
        problems.append(Problem((*spec.path, "convert", error.key), error.found, error.expected))
        return None


def _compile_tag(spec: TagSpec, source: str, made: Expressions) -> None:
    given, shown = spec.model.value_type(), spec.point.type
    if given not in KIND_OF:
        made.problems.append(Problem((*spec.path, "expr"), f"expr of {given.value}", "no expr"))
        return
    try:
        expression = _compiled(source, KIND_OF[given])
    except ExpressionError as error:
        made.problems.append(Problem((*spec.path, "expr"), error.found, error.expected))
        return
    if not _gives(expression.kind, shown):
        found = f"an expression that gives {expression.kind.value}"
        made.problems.append(
            Problem((*spec.path, "expr"), found, f"{KIND_OF[shown].value}, or another result:")
        )
        return
    if "value" not in expression.names:
        made.problems.append(Problem((*spec.path, "expr"), "an expression without value", "value in it"))
        return
    beyond = spec.model.out_of_range
    made.tags[spec.point.name] = TagExpression(spec.point, given, expression, beyond.below, beyond.above)
    write = spec.model.write
    if write is None:
        return
    if write.expr is not None:
        _compile_write(spec, write.expr, given, made)
        return
    inverse = invert(expression, into=given)
    if inverse is None:
        found = f"write for {source!r}, which cannot be turned around"
        expected = "expr: under write, which says what the device is given for a value"
        made.problems.append(Problem((*spec.path, "write"), found, expected))
        return
    made.writes[spec.point.name] = inverse


def _compile_write(spec: TagSpec, source: str, given: ValueType, made: Expressions) -> None:
    try:
        expression = compile_expression(source, value=KIND_OF[spec.point.type], names=("value",))
    except ExpressionError as error:
        made.problems.append(Problem((*spec.path, "write", "expr"), error.found, error.expected))
        return
    if not _gives(expression.kind, given) or expression.names != ("value",):
        found = f"an expression that gives {expression.kind.value}"
        if expression.names != ("value",):
            found = "an expression without value"
        expected = f"{KIND_OF[given].value}, made from value, for the device"
        made.problems.append(Problem((*spec.path, "write", "expr"), found, expected))
        return
    call, is_float = expression.call, given is ValueType.FLOAT

    def write(value: Value) -> Value:
        made_value: Value = call(value)
        return float(made_value) if is_float and isinstance(made_value, int) else made_value

    made.writes[spec.point.name] = write


def _gives(kind: Kind, wanted: ValueType) -> bool:
    return kind is KIND_OF[wanted] or (kind is Kind.INT and wanted is ValueType.FLOAT)


@functools.lru_cache(maxsize=4096)
def _compiled(source: str, kind: Kind) -> Expression:
    """Devices of one template share theirs."""
    return compile_expression(source, value=kind)
