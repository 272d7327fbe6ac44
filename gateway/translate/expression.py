"""Expressions over a value: `value / 60`, `"high" if value > 80 else "normal"`. Compiled once, bounded work.

The source is parsed as a Python expression and every node is checked against a list: numbers, texts, truth
values, known names, arithmetic, comparison, `and or not`, `if else`, and calls of the functions below.
Whatever else is there is refused with its place. Integers cannot grow beyond what the length of the source
allows: `**` works on floats.
"""

from __future__ import annotations

import ast
import copy
import enum
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from types import CodeType
from typing import Any, Final, NoReturn, TypeAlias

import msgspec

from gateway.core.point import ValueType
from gateway.translate.faults import nearest

SOURCE_CHARACTERS_MAX: Final = 1000
NODES_MAX: Final = 300
DEPTH_MAX: Final = 40
TEXT_CHARACTERS_MAX: Final = 128
WHOLE_MAX: Final = 2**64  # of numbers written out
SHIFT_MAX: Final = 63
DIGITS_MAX: Final = 15  # of round(x, digits)
NAMES: Final = ("value", "prev", "dt", "now")
Function: TypeAlias = Callable[..., Any]


class Kind(enum.Enum):
    """The type of a part of an expression."""

    BOOL = "true or false"
    INT = "a whole number"
    FLOAT = "a number"
    STRING = "a text"

    @property
    def is_number(self) -> bool:
        """Whether one can calculate with it."""
        return self in {Kind.INT, Kind.FLOAT}


KIND_OF: Final = {
    ValueType.BOOL: Kind.BOOL,
    ValueType.INT: Kind.INT,
    ValueType.FLOAT: Kind.FLOAT,
    ValueType.STRING: Kind.STRING,
}


class ExpressionError(ValueError):
    """`found` and `expected` of a source that is no expression; `position` counts characters from 1."""

    def __init__(self, found: str, expected: str, *, position: int) -> None:
        self.found = f"{found} at character {position}"
        self.expected = expected
        self.position = position
        super().__init__(f"{self.found}, expected {expected}")


class Expression(msgspec.Struct, frozen=True):
    """A compiled expression: `call` takes the values of `names` in order.

    It may raise ArithmeticError or ValueError (a division by zero, a root of a negative number), and nothing
    else where each value is of the kind it was compiled for.
    """

    source: str
    kind: Kind  # of the result
    names: tuple[str, ...]  # that it uses, in the order of NAMES
    call: Function
    tree: ast.expr  # checked, for `expression_inverse`


def _clamp(value: float, low: float, high: float) -> float:
    return low if value < low else min(value, high)


def _bit(value: int, number: int) -> bool:
    return bool(value >> number & 1)


# name → (function, fewest and most arguments, kind of the result; None: of the arguments)
FUNCTIONS: Final[dict[str, tuple[Function, int, int, Kind | None]]] = {
    "abs": (abs, 1, 1, None),
    "min": (min, 2, 16, None),
    "max": (max, 2, 16, None),
    "clamp": (_clamp, 3, 3, None),
    "round": (round, 1, 2, None),
    "floor": (math.floor, 1, 1, Kind.INT),
    "ceil": (math.ceil, 1, 1, Kind.INT),
    "trunc": (math.trunc, 1, 1, Kind.INT),
    "int": (int, 1, 1, Kind.INT),
    "float": (float, 1, 1, Kind.FLOAT),
    "bool": (bool, 1, 1, Kind.BOOL),
    "bit": (_bit, 2, 2, Kind.BOOL),
    **{
        name: (getattr(math, name), count, count, Kind.FLOAT)
        for name, count in {
            "sqrt": 1, "exp": 1, "log": 1, "log10": 1, "log2": 1, "sin": 1, "cos": 1, "tan": 1, "asin": 1,
            "acos": 1, "atan": 1, "degrees": 1, "radians": 1, "pow": 2, "atan2": 2, "hypot": 2,
        }.items()
    },
}  # fmt: skip
_OF_BOOL: Final = ("int", "float", "bool")  # functions that take a truth value too
_OF_WHOLE: Final = ("bit",)
_ARITHMETIC: Final = (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod)
_BITWISE: Final = (ast.BitAnd, ast.BitOr, ast.BitXor)
_EQUALITY: Final = (ast.Eq, ast.NotEq)
_ORDER: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


def compile_expression(
    source: str, *, value: Kind, names: tuple[str, ...] = NAMES, more: Mapping[str, Kind] | None = None
) -> Expression:
    """Compile for a value of a kind; `prev` is of the same, `dt` and `now` are seconds.

    `names` are those of NAMES that may be used, `more` further ones. Raises `ExpressionError`.
    """
    kinds = {"value": value, "prev": value, "dt": Kind.FLOAT, "now": Kind.FLOAT}
    known = {name: kinds[name] for name in names} | dict(more or {})
    if len(source) > SOURCE_CHARACTERS_MAX:
        expected = f"at most {SOURCE_CHARACTERS_MAX}"
        raise ExpressionError(f"{len(source)} characters, ending", expected, position=len(source))
    text = " ".join(source.split("\n")).strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Python finds odd in a source is refused or harmless
        tree = _parsed(text)
    checker = _Checker(text, known)
    kind = checker.check(tree, 0)
    checker.check_constants(tree)
    used = tuple(name for name in known if name in checker.used)
    return Expression(source, kind, used, _function(tree, used), tree)


def _parsed(source: str) -> ast.expr:
    if "\0" in source:
        raise ExpressionError("a NUL", "an expression", position=source.index("\0") + 1)
    try:
        return ast.parse(source, mode="eval").body
    except SyntaxError as error:
        position = error.offset or len(source) + 1
        raise ExpressionError(
            f"{error.msg}", "an expression such as 'value / 60'", position=position
        ) from None
    except (RecursionError, MemoryError, ValueError):
        raise ExpressionError("nesting too deep", f"at most {DEPTH_MAX} levels", position=1) from None


class _Checker:
    """Goes through the tree once: refuses, and finds the kind of each part."""

    def __init__(self, source: str, known: Mapping[str, Kind]) -> None:
        self._source = source
        self._known = known
        self._nodes = 0
        self.used: set[str] = set()

    def check(self, node: ast.expr, depth: int) -> Kind:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            self._refuse(node, "too many parts", f"at most {NODES_MAX}")
        if depth > DEPTH_MAX:
            self._refuse(node, "nesting too deep", f"at most {DEPTH_MAX} levels")
        deeper = depth + 1
        match node:
            case ast.Constant():
                return self._constant(node)
            case ast.Name():
                return self._name(node)
            case ast.UnaryOp():
                return self._unary(node, deeper)
            case ast.BinOp():
                return self._binary(node, deeper)
            case ast.BoolOp():
                for part in node.values:
                    self._want(part, self.check(part, deeper), Kind.BOOL)
                return Kind.BOOL
            case ast.Compare():
                return self._compare(node, deeper)
            case ast.IfExp():
                self._want(node.test, self.check(node.test, deeper), Kind.BOOL)
                return self._common(node, [self.check(node.body, deeper), self.check(node.orelse, deeper)])
            case ast.Call():
                return self._call(node, deeper)
            case _:
                return self._refuse(node, self._shown(node), "numbers, names, operators and functions")

    def check_constants(self, node: ast.expr) -> None:
        """Refuse a part without names that has no result, such as 10**10**10; after `check`."""
        if not any(isinstance(part, ast.Name) and part.id in self._known for part in ast.walk(node)):
            try:
                result = _function(node, ())()
            except (ArithmeticError, ValueError) as error:
                self._refuse(
                    node, f"{self._shown(node)}, which has no result ({error})", "numbers that have one"
                )
            if isinstance(result, float) and not math.isfinite(result):
                self._refuse(node, f"{self._shown(node)}, which is {result}", "a finite number")
            return
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr) and not (isinstance(node, ast.Call) and part is node.func):
                self.check_constants(part)

    def _constant(self, node: ast.Constant) -> Kind:
        found = node.value
        if isinstance(found, bool):
            return Kind.BOOL
        if isinstance(found, int) and abs(found) <= WHOLE_MAX:
            return Kind.INT
        if isinstance(found, float) and math.isfinite(found):
            return Kind.FLOAT
        if isinstance(found, str):
            if len(found) > TEXT_CHARACTERS_MAX:
                self._refuse(node, f"a text of {len(found)} characters", f"at most {TEXT_CHARACTERS_MAX}")
            if any("\ud800" <= character <= "\udfff" for character in found):
                self._refuse(node, "half a surrogate pair", "Unicode text")
            return Kind.STRING
        return self._refuse(node, self._shown(node), "a number of 64 bits, a text, True or False")

    def _name(self, node: ast.Name) -> Kind:
        kind = self._known.get(node.id)
        if kind is None:
            near = nearest(node.id, self._known)
            self._refuse(node, f"the name {node.id[:40]!r}", f"one of {', '.join(self._known)}{near}")
        self.used.add(node.id)
        return self._known[node.id]

    def _unary(self, node: ast.UnaryOp, depth: int) -> Kind:
        kind = self.check(node.operand, depth)
        if isinstance(node.op, ast.Not):
            return self._want(node.operand, kind, Kind.BOOL)
        if isinstance(node.op, ast.Invert):
            return self._want(node.operand, kind, Kind.INT)
        return self._number(node.operand, kind)

    def _binary(self, node: ast.BinOp, depth: int) -> Kind:
        left, right = self.check(node.left, depth), self.check(node.right, depth)
        if isinstance(node.op, ast.LShift | ast.RShift):
            self._want(node.left, left, Kind.INT)
            self._written_out(node.right, SHIFT_MAX)
            return Kind.INT
        if isinstance(node.op, _BITWISE):
            if left is right is Kind.BOOL:
                return Kind.BOOL
            self._want(node.left, left, Kind.INT)
            return self._want(node.right, right, Kind.INT)
        self._number(node.left, left)
        self._number(node.right, right)
        if isinstance(node.op, ast.Div | ast.Pow):
            return Kind.FLOAT
        if isinstance(node.op, _ARITHMETIC):
            return self._common(node, [left, right])
        return self._refuse(node, self._shown(node), "one of + - * / // % ** & | ^ << >>")

    def _compare(self, node: ast.Compare, depth: int) -> Kind:
        parts = [node.left, *node.comparators]
        kinds = [self.check(part, depth) for part in parts]
        for operator, (first, second) in zip(node.ops, pairwise(kinds), strict=True):
            both_numbers = first.is_number and second.is_number
            if isinstance(operator, _EQUALITY):
                if not both_numbers and first is not second:
                    self._refuse(node, f"{first.value} compared with {second.value}", "two of one kind")
            elif not isinstance(operator, _ORDER):
                self._refuse(node, self._shown(node), "one of == != < <= > >=")
            elif not both_numbers:
                self._refuse(node, f"{first.value} and {second.value} in an order", "numbers")
        return Kind.BOOL

    def _call(self, node: ast.Call, depth: int) -> Kind:
        if not isinstance(node.func, ast.Name) or node.keywords:
            self._refuse(node, self._shown(node), "a function by its name, and its arguments in order")
        known = FUNCTIONS.get(node.func.id)
        if known is None:
            near = nearest(node.func.id, FUNCTIONS)
            self._refuse(node, f"the function {node.func.id[:40]!r}", f"one of {', '.join(FUNCTIONS)}{near}")
        name = node.func.id
        _, fewest, most, kind = known
        if not fewest <= len(node.args) <= most:
            wanted = str(fewest) if fewest == most else f"{fewest} to {most}"
            self._refuse(node, f"{name} with {len(node.args)} arguments", f"{wanted}")
        kinds = [self.check(part, depth) for part in node.args]
        for part, found in zip(node.args, kinds, strict=True):
            if name in _OF_WHOLE:
                self._want(part, found, Kind.INT)
            elif not (found is Kind.BOOL and name in _OF_BOOL):
                self._number(part, found)
        if name == "round":
            return self._round(node, kinds[0])
        if name == "bit":
            self._written_out(node.args[1], SHIFT_MAX)
        return self._common(node, kinds) if kind is None else kind

    def _round(self, node: ast.Call, kind: Kind) -> Kind:
        if len(node.args) == 1:
            return Kind.INT
        self._written_out(node.args[1], DIGITS_MAX)
        return kind

    def _written_out(self, node: ast.expr, most: int) -> None:
        found = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= most:
            self._refuse(node, self._shown(node), f"a number from 0 to {most} written out")

    def _common(self, node: ast.expr, kinds: list[Kind]) -> Kind:
        if all(kind is kinds[0] for kind in kinds):
            return kinds[0]
        if all(kind.is_number for kind in kinds):
            return Kind.FLOAT
        first, second = dict.fromkeys(kinds)
        return self._refuse(node, f"{first.value} and {second.value}", "one kind for both")

    def _want(self, node: ast.expr, kind: Kind, wanted: Kind) -> Kind:
        if kind is not wanted:
            self._refuse(node, f"{kind.value} ({self._shown(node)})", wanted.value)
        return kind

    def _number(self, node: ast.expr, kind: Kind) -> Kind:
        if not kind.is_number:
            self._refuse(node, f"{kind.value} ({self._shown(node)})", "a number")
        return kind

    def _shown(self, node: ast.expr) -> str:
        text = ast.get_source_segment(self._source, node) or type(node).__name__
        return repr(text if len(text) <= 40 else text[:40] + "…")

    def _refuse(self, node: ast.expr, found: str, expected: str) -> NoReturn:
        before = self._source.encode()[: node.col_offset].decode(errors="replace")
        raise ExpressionError(found, expected, position=len(before) + 1)


class _Powers(ast.NodeTransformer):
    """`a ** b` becomes `pow(a, b)`, on floats: integers would grow, roots of negative ones turn complex."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        power = ast.Call(ast.Name("pow", ast.Load()), [node.left, node.right], [])
        return ast.copy_location(power, node)


class _Places(ast.NodeTransformer):
    """`value` becomes `values[place]`."""

    def __init__(self, place: int) -> None:
        self._place = place

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id != "value":
            return node
        return ast.Subscript(ast.Name("values", ast.Load()), ast.Constant(self._place), ast.Load())


def compile_block(parts: Iterable[tuple[int, Expression]]) -> Function:
    """One function of all the values of a block, for the results of many expressions of `value` alone.

    Each is of the value at its place; the results are a tuple. It raises what one of them raises.
    """
    results = [_Places(place).visit(copy.deepcopy(one.tree)) for place, one in parts]
    return _function(ast.Tuple(results, ast.Load()), ("values",))


def _function(tree: ast.expr, names: tuple[str, ...]) -> Function:
    body = _Powers().visit(copy.deepcopy(tree))
    arguments = ast.arguments(
        posonlyargs=[], args=[ast.arg(name) for name in names], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    made = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, body)))
    code: CodeType = compile(made, "<expression>", "eval")
    space: dict[str, Any] = {name: known[0] for name, known in FUNCTIONS.items()}
    space["__builtins__"] = {}
    function: Function = eval(code, space)  # noqa: S307  # of checked nodes alone: see the top
    return function
