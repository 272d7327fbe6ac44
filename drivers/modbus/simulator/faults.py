"""What a simulated device does wrong: rules as people write them, and which of them strike now.

`unit=3,kind=drop,probability=0.1`: a rule strikes requests of its unit and function with its probability, as
often as `count` says, for as long as `for` says. Rules are independent of each other: several may strike one
exchange. The same seed and the same requests strike the same way.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from pydantic_core import PydanticCustomError

from gateway.config.scalars import choice, one_of
from gateway.config.values import duration_ns, duration_text

RULES_MAX: Final = 64
_BYTES_MAX: Final = 512
_PIECES_MAX: Final = 64


class Kind(enum.Enum):
    """What goes wrong."""

    SILENCE = "silence"
    EXCEPTION = "exception"
    DROP = "drop"
    DELAY = "delay"
    GARBAGE = "garbage"
    CUT = "cut"
    SPLIT = "split"
    GLUE = "glue"
    CRC = "crc"
    WRONG_UNIT = "wrong_unit"
    WRONG_TRANSACTION = "wrong_transaction"
    CLOSE = "close"


MEANINGS: Final = {
    Kind.SILENCE: "the unit hears nothing: no answer, and no write is carried out",
    Kind.EXCEPTION: "it refuses with `code` (4), and carries nothing out",
    Kind.DROP: "the request is carried out, its answer gets lost",
    Kind.DELAY: "the answer comes `time` (500ms) later",
    Kind.GARBAGE: "`bytes` (16) bytes at random instead of the answer",
    Kind.CUT: "the answer ends in the middle",
    Kind.SPLIT: "the answer comes in `pieces` (3), `time` (20ms) apart",
    Kind.GLUE: "the answer and a copy of it in one piece",
    Kind.CRC: "the answer has a wrong check (not with tcp, tls and udp)",
    Kind.WRONG_UNIT: "the answer names another unit",
    Kind.WRONG_TRANSACTION: "the answer has another transaction number (only with tcp, tls and udp)",
    Kind.CLOSE: "the connection is closed instead of the answer (not on a serial port)",
}
OF_REQUEST: Final = frozenset({Kind.SILENCE, Kind.EXCEPTION})
"""Those that keep the request from being carried out. The others happen to its answer."""

_DEFAULTS: Final[dict[Kind, dict[str, int]]] = {
    Kind.EXCEPTION: {"code": 4},
    Kind.DELAY: {"time_ns": 500_000_000},
    Kind.SPLIT: {"time_ns": 20_000_000, "pieces": 3},
    Kind.GARBAGE: {"size": 16},
}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One rule."""

    kind: Kind
    link: str | None = None  # None: all, as of the next two
    unit: int | None = None
    function: int | None = None
    probability: float = 1.0
    count: int | None = None  # how often it strikes; None: for ever
    for_ns: int | None = None  # how long it lasts; None: for ever
    code: int = 0
    time_ns: int = 0
    size: int = 0  # bytes
    pieces: int = 0

    def __str__(self) -> str:
        parts = [f"kind={self.kind.value}"]
        parts += [
            f"{key}={value}"
            for key, value in (("link", self.link), ("unit", self.unit), ("function", self.function))
            if value is not None
        ]
        given = {"code": self.code, "bytes": self.size, "pieces": self.pieces}
        parts += [f"{key}={value}" for key, value in given.items() if value]
        if self.time_ns:
            parts.append(f"time={duration_text(self.time_ns)}")
        if self.probability < 1:
            parts.append(f"probability={self.probability:g}")
        if self.count is not None:
            parts.append(f"count={self.count}")
        if self.for_ns is not None:
            parts.append(f"for={duration_text(self.for_ns)}")
        return ",".join(parts)


def _whole(text: str, low: int, high: int) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise ValueError(f"{text!r}, expected a whole number from {low} to {high}")
    return number


def _share(text: str) -> float:
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise ValueError(f"{text!r}, expected more than 0 and up to 1, or 100%")
    return share


def _time(text: str) -> int:
    try:
        return duration_ns(text)
    except PydanticCustomError as error:
        raise ValueError(f"{text!r}, {error.message().partition(', ')[2]}") from None


def _kind(text: str) -> Kind:
    names = [kind.value for kind in Kind]
    if text not in names:
        raise ValueError(f"{text!r}, expected {choice(text, names)}")
    return Kind(text)


_KEYS: Final[dict[str, tuple[str, Callable[[str], object]]]] = {
    "kind": ("kind", _kind),
    "link": ("link", str),
    "unit": ("unit", lambda text: _whole(text, 0, 255)),
    "function": ("function", lambda text: _whole(text, 1, 127)),
    "probability": ("probability", _share),
    "count": ("count", lambda text: _whole(text, 1, 10**9)),
    "for": ("for_ns", _time),
    "code": ("code", lambda text: _whole(text, 1, 255)),
    "time": ("time_ns", _time),
    "bytes": ("size", lambda text: _whole(text, 1, _BYTES_MAX)),
    "pieces": ("pieces", lambda text: _whole(text, 2, _PIECES_MAX)),
}
_OF_SOME: Final = frozenset({"code", "time_ns", "size", "pieces"})


def parse(text: str) -> Fault:
    """`unit=3,kind=drop,probability=0.1`; the kind may stand alone: `drop,unit=3`. Raises ValueError."""
    given: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            key, value = "kind", part
        if key not in _KEYS:
            raise ValueError(f"found {key!r} in {text!r}, expected {choice(key, _KEYS)}")
        name, read = _KEYS[key]
        if name in given:
            raise ValueError(f"found {key} twice in {text!r}, expected it once")
        try:
            given[name] = read(value)
        except ValueError as error:
            raise ValueError(f"{key}: found {error}") from None
    kind = given.get("kind")
    if not isinstance(kind, Kind):
        raise ValueError(f"found no kind in {text!r}, expected kind={one_of([kind.value for kind in Kind])}")
    defaults = _DEFAULTS.get(kind, {})
    for name in _OF_SOME & given.keys() - defaults.keys():
        key = next(key for key, (field, _read) in _KEYS.items() if field == name)
        raise ValueError(f"found {key} with kind={kind.value}, expected it not to be there: {MEANINGS[kind]}")
    return msgspec.convert({**defaults, **given}, Fault, strict=True)


class Rule:
    """A rule at work. `number`: by which people take it away again."""

    __slots__ = ("ends_ns", "fault", "number", "struck")

    def __init__(self, number: int, fault: Fault, now_ns: int) -> None:
        self.number: Final = number
        self.fault: Final = fault
        self.ends_ns: Final = None if fault.for_ns is None else now_ns + fault.for_ns
        self.struck = 0

    def is_over(self, now_ns: int) -> bool:
        """Whether it strikes no more."""
        fault = self.fault
        is_late = self.ends_ns is not None and now_ns >= self.ends_ns
        return is_late or (fault.count is not None and self.struck >= fault.count)


class Faults:
    """The rules that hold now, and the dice. At most `RULES_MAX`."""

    def __init__(
        self,
        faults: Iterable[Fault] = (),
        *,
        seed: int = 0,
        now_ns: Callable[[], int],
        struck: Callable[[str, Fault, int], None] = lambda _link, _fault, _unit: None,
    ) -> None:
        """`struck(link, fault, unit)` is told of each one."""
        self.rules: list[Rule] = []
        self.total = 0  # how often any struck
        self.random: Final = random.Random(seed)  # noqa: S311 - guards nothing
        self._now_ns: Final = now_ns
        self._struck: Final = struck
        self._last = 0
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> int:
        """One more; returns its number. Raises ValueError where there are too many."""
        if len(self.rules) >= RULES_MAX:
            raise ValueError(f"found {RULES_MAX} faults already, expected at most {RULES_MAX}")
        self._last += 1
        self.rules.append(Rule(self._last, fault, self._now_ns()))
        return self._last

    def clear(self, number: int | None = None) -> int:
        """Take one away, or all; returns how many went."""
        kept = [] if number is None else [rule for rule in self.rules if rule.number != number]
        gone = len(self.rules) - len(kept)
        self.rules = kept
        return gone

    def strike(self, link: str, unit: int, function: int, *, of_request: bool) -> list[Fault]:
        """What goes wrong with this request, or with its answer."""
        if not self.rules:
            return []
        now_ns = self._now_ns()
        self.rules = [rule for rule in self.rules if not rule.is_over(now_ns)]
        found: list[Fault] = []
        for rule in self.rules:
            fault = rule.fault
            if (fault.kind in OF_REQUEST) is not of_request:
                continue
            if fault.link not in (None, link):
                continue
            if fault.unit not in (None, unit) or fault.function not in (None, function):
                continue
            if fault.probability < 1 and self.random.random() >= fault.probability:
                continue
            rule.struck += 1
            self.total += 1
            found.append(fault)
            self._struck(link, fault, unit)
        return found
