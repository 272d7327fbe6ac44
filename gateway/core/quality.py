"""Quality of a value: a level and the reasons for it, as one plain integer.

Good is 0, so that "everything in this block is good" is one comparison. The
level sits in bits 16 and 17, reasons in bits 0 to 15. Plain integers and not an
`enum.IntFlag`, because quality is touched on the hot path.
"""

from __future__ import annotations

from typing import Final, TypeAlias

Quality: TypeAlias = int
"""`level | reason | reason …`; 0 is good."""

GOOD: Final = 0
UNCERTAIN: Final = 1 << 16
BAD: Final = 2 << 16
LEVEL_MASK: Final = 3 << 16

# Reasons. Names follow IEC 60870-5-101 §7.2.6 and OPC UA Part 8 where those have a word for it.
COMM_LOST: Final = 1 << 0  # the device or the way to it is gone
OUT_OF_RANGE: Final = 1 << 1  # the value is outside the range the map declares
INVALID: Final = 1 << 2  # the device itself says: not a value (sentinel, NaN)
SUBSTITUTED: Final = 1 << 3
BLOCKED: Final = 1 << 4
OVERFLOW: Final = 1 << 5
STALE: Final = 1 << 6  # read, but not recently enough
CLOCK_NOT_SYNCHRONISED: Final = 1 << 7
NO_SUCH_ADDRESS: Final = 1 << 8  # the device answers, but has no such address
DEVICE_FAILURE: Final = 1 << 9  # the device reports a fault of its own
CONFIG_FAULT: Final = 1 << 10  # the map asks for something the device refuses on principle
NOT_YET_READ: Final = 1 << 11  # nothing was read since start
DATED_LATER: Final = 1 << 12  # of a time: told once the clock was synchronised, from how long before it was

REASON_NAMES: Final[dict[int, str]] = {
    COMM_LOST: "comm-lost",
    OUT_OF_RANGE: "out-of-range",
    INVALID: "invalid",
    SUBSTITUTED: "substituted",
    BLOCKED: "blocked",
    OVERFLOW: "overflow",
    STALE: "stale",
    CLOCK_NOT_SYNCHRONISED: "clock-not-synchronised",
    NO_SUCH_ADDRESS: "no-such-address",
    DEVICE_FAILURE: "device-failure",
    CONFIG_FAULT: "config-fault",
    NOT_YET_READ: "not-yet-read",
    DATED_LATER: "dated-later",
}
_LEVEL_NAMES: Final[dict[int, str]] = {GOOD: "good", UNCERTAIN: "uncertain", BAD: "bad"}


def level(quality: Quality) -> Quality:
    """GOOD, UNCERTAIN or BAD."""
    return quality & LEVEL_MASK


def is_good(quality: Quality) -> bool:
    """Whether the value may be used without a second look."""
    return not quality & LEVEL_MASK


def is_bad(quality: Quality) -> bool:
    """Whether there is no usable value at all."""
    return bool(quality & BAD)


def worst(first: Quality, second: Quality) -> Quality:
    """The worse of two levels with the reasons of both."""
    return max(first & LEVEL_MASK, second & LEVEL_MASK) | ((first | second) & ~LEVEL_MASK)


def describe(quality: Quality) -> str:
    """`good`, `bad/comm-lost`, `uncertain/out-of-range+substituted`: the text users see."""
    reasons = "+".join(name for bit, name in REASON_NAMES.items() if quality & bit)
    name = _LEVEL_NAMES[quality & LEVEL_MASK]
    return f"{name}/{reasons}" if reasons else name
