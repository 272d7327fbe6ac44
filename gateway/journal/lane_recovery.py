"""What opening one lane of the journal tells."""

from __future__ import annotations

import msgspec

from gateway.core.point import Priority
from gateway.disk.record import Damage, Position
from gateway.disk.recovery import Cut
from gateway.journal.codec import CursorNote


class LaneRecovery(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one lane."""

    priority: Priority
    end: Position  # of the last record of the runs before
    segments: int
    size_bytes: int
    cuts: list[Cut]
    holes: list[Damage]  # in the last write, which the power cut: nobody was promised what stood there
    damage: list[Damage]
    cursors: tuple[CursorNote, ...]  # as saved
    is_cursors_lost: bool  # there is data, but no readable save of any cursor
