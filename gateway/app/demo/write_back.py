"""A set-point over MQTT and back: written, answered, published by the plant again, and followed by the water.

A state machine without I/O. The set-point returns on another way than the command went: the gateway reads it
from the plant like any value, so what arrives is what the device holds.
"""

from __future__ import annotations

import enum
from typing import Any, Final

import msgspec

from gateway.app.demo.mqtt_client import Message
from gateway.app.demo.tally import Tally

TARGET: Final = "boiler/setpoint"
FOLLOWER: Final = "boiler/water_temp"
LOW_C, HIGH_C = 65.0, 75.0
TOLERANCE_C: Final = 0.05
TTL_S: Final = 5  # as a message expiry too: proof of age where a clock is not synchronised
ANSWER_TIMEOUT_NS: Final = 6_000_000_000  # the rule's own time to live is 5 s
RETURN_TIMEOUT_NS: Final = 8_000_000_000  # a scan of a second, its publication, and a slow machine
MOVED_C: Final = 0.5  # well above the sensor's noise of 0.06
MOVE_TIMEOUT_NS: Final = 12_000_000_000


class Step(enum.Enum):
    """How far it came."""

    ASKED = "asked"
    ANSWERED = "answered"
    RETURNED = "returned"
    MOVED = "moved"
    FAILED = "failed"


class WriteBack:
    """One set-point on its way. Feed it every message that arrives, and the time."""

    def __init__(
        self,
        *,
        tally: Tally,
        value_c: float,
        id: str,  # noqa: A002 - as in the payload
        now_ns: int,
        wall_ms: int,
    ) -> None:
        """Write `value_c`; `tally` has the water's temperature and hears what follows."""
        self.step = Step.ASKED
        self.failure = ""
        self.value_c: Final = value_c
        self._tally: Final = tally
        self._target: Final = f"{tally.prefix}{TARGET}"
        self.topic: Final = f"{self._target}/set"
        self.payload: Final = msgspec.json.encode({"id": id, "v": value_c, "t": wall_ms, "ttl": TTL_S})
        self.answer_ms: float | None = None
        self.return_ms: float | None = None
        self.outcome = ""
        self._id: Final = id
        self._from_c: Final = float(tally.tags[FOLLOWER].value)
        self._water_c = self._from_c
        self._began_ns: Final = now_ns
        self._has_returned = False  # it may be published before the answer to the command

    @property
    def is_verified(self) -> bool:
        """Whether the device holds the value and the broker has it from there."""
        return self.step in {Step.RETURNED, Step.MOVED}

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.step in {Step.MOVED, Step.FAILED}

    def on_message(self, message: Message, *, tag: str | None, now_ns: int) -> None:
        """What a message means for this set-point; `tag` is what `Tally.take` said of it."""
        tally = self._tally
        elapsed_ms = (now_ns - self._began_ns) / 1e6
        if message.topic == f"{self._target}/ack" and not message.retained:
            self._on_answer(message.payload, elapsed_ms)
        elif tag == TARGET and self.return_ms is None and self._equals(tally.tags[tag].value):
            self.return_ms = elapsed_ms
            self._has_returned = True
        elif tag == FOLLOWER and isinstance(tally.tags[tag].value, (int, float)):
            self._water_c = tally.tags[tag].value
        self._advance()

    def on_time(self, now_ns: int) -> None:
        """Give up on what did not come."""
        waited_ns = now_ns - self._began_ns
        if self.step is Step.ASKED and waited_ns > ANSWER_TIMEOUT_NS:
            self._fail(f"no final answer on {self._target}/ack within {ANSWER_TIMEOUT_NS / 1e9:g} s")
        elif self.step is Step.ANSWERED and waited_ns > RETURN_TIMEOUT_NS:
            self._fail(f"{self.value_c:.1f} did not come back on {self._target}")
        elif self.step is Step.RETURNED and waited_ns > MOVE_TIMEOUT_NS:
            self._fail(f"the water did not follow: {self._from_c:.1f} before, {self._water_c:.1f} °C now")

    def describe(self) -> str:
        """One line for people."""
        parts = [f"set-point {self.value_c:.1f} °C"]
        if self.step is Step.ASKED:
            parts[0] += f" written to {self.topic}"
        if self.answer_ms is not None:
            parts[0] += f" {self.outcome} {self.answer_ms:.0f} ms"
        if self.return_ms is not None:
            parts.append(f"back {self.return_ms:.0f} ms")
        if self.is_verified:
            parts.append(f"water {self._from_c:.1f} to {self._water_c:.1f} °C")
        if self.failure:
            parts.append(self.failure)
        return ", ".join(parts)

    def _on_answer(self, payload: bytes, elapsed_ms: float) -> None:
        try:
            answer: Any = msgspec.json.decode(payload)
        except msgspec.DecodeError:
            self._fail(f"the answer is not JSON: {payload[:80]!r}")
            return
        if not isinstance(answer, dict) or answer.get("id") != self._id or self.step is not Step.ASKED:
            return
        outcome = answer.get("outcome")
        if outcome in {"accepted", "sent"}:
            return  # on the way; verified follows, because the tag asks for a read-back
        self.outcome, self.answer_ms = str(outcome), elapsed_ms
        if outcome == "verified":
            self.step = Step.ANSWERED
        else:
            self._fail(str(answer.get("reason") or "no reason was given"))

    def _advance(self) -> None:
        if self.step is Step.ANSWERED and self._has_returned:
            self.step = Step.RETURNED
        if self.step is Step.RETURNED:
            direction = 1.0 if self.value_c > self._from_c else -1.0
            if (self._water_c - self._from_c) * direction >= MOVED_C:
                self.step = Step.MOVED

    def _equals(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and abs(value - self.value_c) < TOLERANCE_C

    def _fail(self, why: str) -> None:
        if not self.is_over:
            self.step, self.failure = Step.FAILED, why


def next_value(current_c: Any) -> float:
    """A set-point that differs from the present one."""
    return HIGH_C if isinstance(current_c, (int, float)) and current_c < (LOW_C + HIGH_C) / 2 else LOW_C
