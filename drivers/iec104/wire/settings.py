"""Windows, times and limits of one IEC 60870-5-104 connection (clause 9.6), and what they may be."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from gateway.core.errors import LocalProtocolError

WINDOW_MAX: Final = 32_767  # of k and w
TIME_S_MAX: Final = 255  # of t0, t1 and t2
T3_S_MAX: Final = 172_800  # 48 h


class Acknowledgement(enum.Enum):
    """When a received I frame counts as acknowledged."""

    ON_RECEIPT = "on receipt"
    BY_OWNER = "by owner"  # N(R) moves on with `acknowledge` only, in S frames and in our own I frames


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Fixed for the life of a `Session`. Raises LocalProtocolError for what the standard does not allow.

    `t0_s` (establishing the connection) is for whoever opens the link; the session does not use it.
    """

    k: int = 12  # I frames of ours without acknowledgement
    w: int = 8  # acknowledge at the latest after so many I frames; recommended: two thirds of the peer's k
    t0_s: float = 30.0
    t1_s: float = 15.0  # for an acknowledgement or a confirmation
    t2_s: float = 10.0  # to acknowledge without data of our own; below t1
    t3_s: float = 20.0  # of silence before a test frame
    queue_max: int = 1024  # ASDUs that wait for the window or for STARTDT; ours
    acknowledgement: Acknowledgement = Acknowledgement.ON_RECEIPT

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("k", self.k, 1, WINDOW_MAX), ("w", self.w, 1, WINDOW_MAX),
            ("t0_s", self.t0_s, 1, TIME_S_MAX), ("t1_s", self.t1_s, 1, TIME_S_MAX),
            ("t2_s", self.t2_s, 1, TIME_S_MAX), ("t3_s", self.t3_s, 1, T3_S_MAX),
            ("queue_max", self.queue_max, 1, 1 << 20),
        ):  # fmt: skip
            if not low <= value <= high:
                raise LocalProtocolError(f"{name}: found {value}, expected {low} to {high}")
        if self.t2_s >= self.t1_s:
            raise LocalProtocolError(
                f"t2_s: found {self.t2_s}, expected less than t1_s = {self.t1_s}, or the peer gives up first"
            )
