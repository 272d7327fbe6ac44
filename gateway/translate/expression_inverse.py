"""Expressions read backward: from what a command asks for to what the device is to be given."""

from __future__ import annotations

import ast
from collections.abc import Callable
from fractions import Fraction

from gateway.core.point import Value, ValueType
from gateway.translate.expression import Expression

Line = tuple[Fraction, Fraction]  # factor and offset
Inverse = Callable[[Value], Value]


def invert(expression: Expression, *, into: ValueType) -> Inverse | None:
    """Takes a result to the value that gives it, exactly where that is of the type `into`, else the nearest.

    Only chains of + - * / with numbers written out, and `not`, have an inverse; None for others. It raises
    ArithmeticError where the number is beyond what a float holds.
    """
    if expression.names != ("value",):
        return None
    if into is ValueType.BOOL:
        return _inverse_of_bool(expression.tree)
    if into not in {ValueType.INT, ValueType.FLOAT}:
        return _same if isinstance(expression.tree, ast.Name) else None
    line = _line(expression.tree)
    if line is None or not line[0]:
        return None
    factor, offset = line

    def inverse(result: Value) -> Value:
        if not isinstance(result, int | float):
            raise ArithmeticError(f"found {result!r}, expected a number")
        found = (Fraction(result) - offset) / factor
        return round(found) if into is ValueType.INT else float(found)

    return inverse


def _same(result: Value) -> Value:
    return result


def _not(result: Value) -> Value:
    return not result


def _inverse_of_bool(tree: ast.expr) -> Inverse | None:
    is_negated = False
    while isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        tree, is_negated = tree.operand, not is_negated
    if not isinstance(tree, ast.Name):
        return None
    return _not if is_negated else _same


def _line(tree: ast.expr) -> Line | None:
    """Factor and offset of a part; a factor of 0 is a number alone. None where it is no line."""
    match tree:
        case ast.Name():
            return Fraction(1), Fraction(0)
        case ast.Constant():
            is_number = isinstance(tree.value, int | float) and not isinstance(tree.value, bool)
            # As it is written: 0.1 is a tenth, not the nearest float.
            return (Fraction(0), Fraction(repr(tree.value))) if is_number else None
        case ast.UnaryOp(op=ast.USub()):
            inner = _line(tree.operand)
            return None if inner is None else (-inner[0], -inner[1])
        case ast.UnaryOp(op=ast.UAdd()):
            return _line(tree.operand)
        case ast.Call(func=ast.Name(id="float")):
            return _line(tree.args[0])
        case ast.BinOp():
            left, right = _line(tree.left), _line(tree.right)
            return None if left is None or right is None else _joined(tree.op, left, right)
        case _:
            return None


def _joined(operator: ast.operator, left: Line, right: Line) -> Line | None:
    match operator:
        case ast.Add():
            return left[0] + right[0], left[1] + right[1]
        case ast.Sub():
            return left[0] - right[0], left[1] - right[1]
        case ast.Mult() if not left[0]:
            return right[0] * left[1], right[1] * left[1]
        case ast.Mult() if not right[0]:
            return left[0] * right[1], left[1] * right[1]
        case ast.Div() if not right[0] and right[1]:
            return left[0] / right[1], left[1] / right[1]
        case _:
            return None
