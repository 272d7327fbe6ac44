"""Times that our own clock gave while it did not follow a reference: said so from the first moment on."""

from __future__ import annotations

from typing import Final

from gateway.core.batch import Batch
from gateway.core.quality import CLOCK_NOT_SYNCHRONISED, UNCERTAIN, worst

_DOUBT: Final = UNCERTAIN | CLOCK_NOT_SYNCHRONISED


def mark(batch: Batch) -> None:
    """Doubt the time of every value whose time is ours. A device's own time is the device's business."""
    source, quality = batch.source_time_ns, batch.time_quality
    if source is None:
        if isinstance(quality, tuple):
            batch.time_quality = tuple([worst(one, _DOUBT) for one in quality])
        else:
            batch.time_quality = worst(quality, _DOUBT)
    elif isinstance(source, tuple) and None in source:
        column = quality if isinstance(quality, tuple) else (quality,) * len(source)
        pairs = zip(column, source, strict=True)
        batch.time_quality = tuple([worst(one, _DOUBT) if time is None else one for one, time in pairs])
